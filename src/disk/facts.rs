//! What sysfs, udev and the mount table tell of a disk.
//!
//! Sizes are in bytes. Names are kernel names as in `/sys/block` (`nvme1n1`, `xvdb`).

use std::fmt;
use std::path::PathBuf;
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
    /// Takes the `st_rdev` of a device node apart.
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

/// The driver family a whole disk belongs to; decides which rules may apply to it.
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
    /// A device-mapper device; only ever a target when a rule names it.
    DeviceMapper,
    /// A software RAID array; only ever a target when a rule names it.
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
    /// Where this holder is mounted, in the order of mounting.
    pub mounts: Vec<PathBuf>,
    /// Whether something is stacked on the holder in turn.
    pub held: bool,
}

impl Holder {
    /// The LUKS UUID when this holder is an open LUKS2 volume.
    pub fn luks_uuid(&self) -> Option<Uuid> {
        let rest = self.dm_uuid.as_deref()?.strip_prefix("CRYPT-LUKS2-")?;
        Uuid::parse_str(rest.get(..32)?).ok()
    }
}

/// One whole disk as sysfs, udev and the mount table describe it; nothing of it was opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceFacts {
    /// Kernel name; may be another disk's after a reboot.
    pub name: String,
    /// The device node, `/dev/NAME`.
    pub path: PathBuf,
    /// Every udev link to it (`/dev/disk/by-id/...`), sorted.
    pub links: Vec<PathBuf>,
    /// Device number.
    pub devno: DevNo,
    /// The kernel's sequence number of this disk, unique while the machine is up (Linux 5.15).
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
    /// What is stacked on the disk or its partitions.
    pub holders: Vec<Holder>,
    /// Where the disk itself or one of its partitions is mounted.
    pub mounts: Vec<PathBuf>,
    /// Why it is a boot disk, when it is one: `carries / through nvme0n1p1`.
    pub system: Option<String>,
    /// Its key in the IMDS block device mapping (`ami`, `root`, `ebs1`, `ephemeral0`, `swap`), Xen only.
    pub mapping: Option<String>,
    /// What a worker found on it; `None` when it was not opened.
    pub content: Option<Content>,
}

impl DeviceFacts {
    /// What tells this disk from the others across reboots: its serial number, or on Xen, where there is none and the
    /// name is given by the block device mapping, its name.
    pub fn identity(&self) -> String {
        match &self.serial {
            Some(serial) => serial.clone(),
            None => format!("name:{}", self.name),
        }
    }

    /// The open LUKS2 mapping on the whole disk, if there is one.
    pub fn mapping_of(&self, luks_uuid: Uuid) -> Option<&Holder> {
        self.holders.iter().find(|h| h.luks_uuid() == Some(luks_uuid))
    }

    /// The mapper name of a volume that is open on this disk, or is to be opened: break-glass may have given it another name.
    pub fn mapper_of(&self, luks_uuid: Uuid) -> String {
        let opened = self.mapping_of(luks_uuid).and_then(|mapping| mapping.dm_name.clone());
        opened.unwrap_or_else(|| mapper_name(luks_uuid))
    }
}

#[cfg(test)]
impl DeviceFacts {
    /// An EBS volume of 1 GiB that nobody uses, without a serial number, not looked at.
    pub(crate) fn sample(name: &str, minor: u32) -> Self {
        Self {
            name: name.to_owned(),
            path: std::path::Path::new("/dev").join(name),
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

/// All disks of the machine, and whether the boot disk among them is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// Every disk, sorted by serial number, then by name.
    pub devices: Vec<DeviceFacts>,
    /// Why the boot disk could not be resolved; then nothing may be formatted.
    pub boot_unresolved: Option<String>,
    /// What in memory the state directory lies on; then nothing may be formatted, since a reboot would lose its record.
    #[serde(default)]
    pub state_in_memory: Option<String>,
    /// This instance; only asked for where a volume of luks-agent turns up and there is no state file.
    pub instance_id: Option<String>,
    /// What the kernel lacks to make or open volumes; only found out of what a plan needs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing_ciphers: Vec<MissingCipher>,
}

/// A way to encrypt that this kernel does not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingCipher {
    /// Which.
    pub encryption: Encryption,
    /// What is missing of it.
    pub reason: String,
    /// The kernel modules that would have it.
    pub modules: Vec<String>,
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
