//! The facts about disks from sysfs, udev and the mount table.
//!
//! Sizes are in bytes. Names are kernel names as in `/sys/block` (`nvme1n1`, `xvdb`).

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nix::sys::stat;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::content::Content;
use crate::luks2::{Encryption, mapper_name};

/// A block device number, as in `/sys/block/*/dev` and `/proc/self/mountinfo`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DevNo {
    /// The driver's major number.
    pub major: u32,
    /// The minor number within it.
    pub minor: u32,
}

impl DevNo {
    /// Splits the `st_rdev` of a device node.
    pub fn from_rdev(rdev: u64) -> Option<Self> {
        let part = |number: u64| u32::try_from(number).ok();
        Some(Self { major: part(stat::major(rdev))?, minor: part(stat::minor(rdev))? })
    }
}

impl fmt::Display for DevNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

impl FromStr for DevNo {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (major, minor) = text.split_once(':').ok_or(())?;
        Ok(Self { major: major.parse().map_err(|_| ())?, minor: minor.parse().map_err(|_| ())? })
    }
}

/// The driver family of a whole disk. It decides which rules apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskKind {
    /// NVMe: every Nitro instance.
    Nvme,
    /// Xen block front end, `xvd*`: no model, no serial.
    Xen,
    /// SCSI and SATA disks.
    Scsi,
    /// Virtio block: common in test machines.
    Virtio,
    /// A device-mapper device. A target only if a rule names it.
    DeviceMapper,
    /// A software RAID array. A target only if a rule names it.
    Md,
    /// Loop devices.
    Loop,
    /// RAM disks and zram.
    Ram,
    /// CD and DVD drives.
    Optical,
    /// Everything else (`nbd`, `ubd`, `mmcblk`, floppy ...).
    Other,
}

/// A device stacked directly on a disk or on one of its partitions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Kernel name, such as `dm-0` or `md127`.
    pub name: String,
    /// Device-mapper name (`/dev/mapper/NAME`), if it is one.
    pub dm_name: Option<String>,
    /// Device-mapper UUID; for an open LUKS2 volume `CRYPT-LUKS2-<uuid without dashes>-<name>`.
    pub dm_uuid: Option<String>,
    /// Size in bytes.
    pub size: u64,
    /// Its mount points, in the order of mounting.
    pub mounts: Vec<PathBuf>,
    /// Whether another device is stacked on the holder.
    pub held: bool,
}

impl Holder {
    /// Returns the LUKS UUID if this holder is an open LUKS2 volume.
    pub fn luks_uuid(&self) -> Option<Uuid> {
        luks_uuid_in(self.dm_uuid.as_deref()?)
    }
}

/// Returns the LUKS UUID in the device-mapper UUID of an open LUKS2 volume, `CRYPT-LUKS2-<uuid without dashes>-<name>`.
pub fn luks_uuid_in(dm_uuid: &str) -> Option<Uuid> {
    let rest = dm_uuid.strip_prefix("CRYPT-LUKS2-")?;
    Uuid::parse_str(rest.get(..32)?).ok()
}

/// One whole disk as sysfs, udev and the mount table describe it. It was not opened for that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceFacts {
    /// Kernel name. It may belong to another disk after a reboot.
    pub name: String,
    /// The device node, `/dev/NAME`.
    pub path: PathBuf,
    /// Every udev link to it (`/dev/disk/by-id/...`), sorted.
    pub links: Vec<PathBuf>,
    /// Device number.
    pub devno: DevNo,
    /// The kernel's sequence number of this disk, unique until the next reboot (since Linux 5.15).
    pub diskseq: Option<u64>,
    /// Size in bytes.
    pub size: u64,
    /// Smallest addressable unit, in bytes.
    pub logical_block_size: u32,
    /// Smallest unit the disk writes atomically, in bytes.
    pub physical_block_size: u32,
    /// Driver family.
    pub kind: DiskKind,
    /// Model name, trimmed.
    pub model: Option<String>,
    /// Serial number, trimmed. On EBS the volume id without its dash.
    pub serial: Option<String>,
    /// Removable medium.
    pub removable: bool,
    /// Read-only disk.
    pub read_only: bool,
    /// Zoned disk (host-aware or host-managed).
    pub zoned: bool,
    /// Kernel names of its partitions.
    pub partitions: Vec<String>,
    /// The devices that are stacked on the disk or its partitions.
    pub holders: Vec<Holder>,
    /// The mount points of the disk and its partitions.
    pub mounts: Vec<PathBuf>,
    /// Why it is a boot disk, if it is one: `carries / through nvme0n1p1`.
    pub system: Option<String>,
    /// Its key in the IMDS block device mapping (`ami`, `root`, `ebs1`, `ephemeral0`, `swap`), Xen only.
    pub mapping: Option<String>,
    /// The content that a worker found; `None` if no worker has examined it.
    pub content: Option<Content>,
}

impl DeviceFacts {
    /// Returns the identity of the disk across reboots: its serial number. Xen disks have none, so it is their name, which the block
    /// device mapping determines.
    pub fn identity(&self) -> String {
        match &self.serial {
            Some(serial) => serial.clone(),
            None => format!("name:{}", self.name),
        }
    }

    /// Whether it was the same disk, of the same size, at another look since boot.
    pub fn is_unchanged(&self, other: &Self) -> bool {
        (self.devno, self.diskseq, self.size) == (other.devno, other.diskseq, other.size)
    }

    /// Whether a name from the command line is a name of the disk: its kernel name, device node, udev link or serial number.
    pub fn is_called(&self, name: &str) -> bool {
        let path = Path::new(name);
        self.name == name
            || self.path == path
            || self.links.iter().any(|link| link == path)
            || self.serial.as_deref() == Some(name)
    }

    /// Returns the open LUKS2 mapping on the whole disk, if there is one.
    pub fn mapping_of(&self, luks_uuid: Uuid) -> Option<&Holder> {
        self.holders.iter().find(|h| h.luks_uuid() == Some(luks_uuid))
    }

    /// Returns the mapper name of a volume on this disk. An open volume may have another name after break-glass.
    pub fn mapper_of(&self, luks_uuid: Uuid) -> String {
        let opened = self.mapping_of(luks_uuid).and_then(|mapping| mapping.dm_name.clone());
        opened.unwrap_or_else(|| mapper_name(luks_uuid))
    }
}

#[cfg(test)]
impl DeviceFacts {
    /// Returns an unused EBS volume of 1 GiB without a serial number that was not examined.
    pub(crate) fn sample(name: &str, minor: u32) -> Self {
        Self {
            name: name.to_owned(),
            path: Path::new("/dev").join(name),
            links: Vec::new(),
            devno: DevNo { major: 259, minor },
            diskseq: None,
            size: 1 << 30,
            logical_block_size: 512,
            physical_block_size: 4096,
            kind: DiskKind::Nvme,
            model: Some(crate::disk::MODEL_EBS.to_owned()),
            serial: None,
            removable: false,
            read_only: false,
            zoned: false,
            partitions: Vec::new(),
            holders: Vec::new(),
            mounts: Vec::new(),
            system: None,
            mapping: None,
            content: None,
        }
    }
}

/// All disks of the machine, and what keeps the agent from formatting any of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// Every disk, sorted by serial number, then by name.
    pub devices: Vec<DeviceFacts>,
    /// Why the boot disk could not be resolved. Nothing may be formatted then.
    pub boot_unresolved: Option<String>,
    /// The file system in memory that holds the state directory, if it is in memory. Nothing may be formatted then, because a reboot
    /// would lose the record.
    #[serde(default)]
    pub state_in_memory: Option<String>,
    /// The instance id. Known only if a volume of luks-agent was found but there is no state file.
    pub instance_id: Option<String>,
    /// The ciphers that the plan needs but the kernel lacks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing_ciphers: Vec<MissingCipher>,
    /// Kernel names of the disks that carry, or lie on a disk that carries, a mount point of the system, and not only swap, a journal or
    /// the state directory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub with_system_mount: Vec<String>,
    /// Kernel names of the disks whose facts could not be read. They are not among `devices`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreadable: Vec<String>,
}

impl Inventory {
    /// Returns the disk on which a volume is open.
    pub fn open_on(&self, luks_uuid: Uuid) -> Option<&DeviceFacts> {
        self.devices.iter().find(|facts| facts.mapping_of(luks_uuid).is_some())
    }
}

/// An encryption that this kernel does not support.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingCipher {
    /// The encryption.
    pub encryption: Encryption,
    /// What is missing.
    pub reason: String,
    /// The kernel modules that would provide it; none if this kernel may not have it.
    pub modules: Vec<String>,
}

impl MissingCipher {
    /// Returns what to do about it.
    pub fn remedy(&self) -> String {
        if self.modules.is_empty() {
            return "for new volumes, remove luks.cipher from the configuration; for existing ones, boot without fips=1".to_owned();
        }
        let modules = self.modules.join(" ");
        format!(
            "load the missing modules with 'modprobe -a {modules}', or install the kernel package that contains them, then try again"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(name: &str, kind: DiskKind, model: Option<&str>) -> DeviceFacts {
        DeviceFacts { kind, model: model.map(str::to_owned), ..DeviceFacts::sample(name, 3) }
    }

    #[test]
    fn a_mapping_is_found_by_its_luks_uuid() {
        let uuid = Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        let holder = |name: &str, dm_uuid: Option<&str>| Holder {
            name: name.to_owned(),
            dm_name: None,
            dm_uuid: dm_uuid.map(str::to_owned),
            size: 1 << 30,
            mounts: Vec::new(),
            held: false,
        };
        let mut facts = disk("nvme1n1", DiskKind::Nvme, None);
        facts.holders = vec![
            holder("md0", None),
            holder("dm-0", Some("LVM-0123456789abcdef0123456789abcdef")),
            holder("dm-1", Some("CRYPT-LUKS2-0123")),
            holder("dm-2", Some("CRYPT-LUKS2-é123456789abcdef0123456789abcdef-x")),
            holder("dm-3", Some("CRYPT-LUKS2-0123456789abcdef0123456789abcdef-luks-x")),
        ];
        assert_eq!(facts.mapping_of(uuid).map(|h| h.name.as_str()), Some("dm-3"));
        assert_eq!(facts.mapping_of(Uuid::nil()), None);
    }
}
