//! What is known of one block device: plain data and pure judgements on it.
//!
//! Sizes are in bytes. Names are kernel names as in `/sys/block` (`nvme1n1`, `xvdb`).

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use nix::sys::stat;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::config::MatchRule;
use crate::luks2::{Encryption, Token};

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

/// What a disk is to the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Role {
    /// Carries the running system: never a target.
    Boot {
        /// What it carries.
        because: String,
    },
    /// An EBS volume.
    Ebs,
    /// An instance store volume.
    InstanceStore,
    /// It may be an EBS volume, and nothing says so: never a target, and never passed over in silence.
    Unclear {
        /// What is missing.
        because: String,
    },
    /// Not for the agent.
    Ignored {
        /// Why not.
        because: String,
    },
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Boot { .. } => "boot",
            Self::Ebs => "ebs",
            Self::InstanceStore => "instance-store",
            Self::Unclear { .. } => "unclear",
            Self::Ignored { .. } => "ignored",
        })
    }
}

/// NVMe model of an EBS volume (amazon-ec2-utils, `70-ec2-nvme-devices.rules`).
pub const MODEL_EBS: &str = "Amazon Elastic Block Store";
/// NVMe model of an instance store volume (same source).
pub const MODEL_INSTANCE_STORE: &str = "Amazon EC2 NVMe Instance Storage";

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
            model: Some(MODEL_EBS.to_owned()),
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

fn ignored(because: impl Into<String>) -> Role {
    Role::Ignored { because: because.into() }
}

/// The role of a disk: what carries the system first, then what can never be a target, then the configured rules, first
/// match wins, then the EC2 rules. Everything else is ignored.
pub fn classify(facts: &DeviceFacts, rules: &[MatchRule]) -> Role {
    if let Some(because) = &facts.system {
        return Role::Boot { because: because.clone() };
    }
    let never = [
        (facts.kind == DiskKind::Loop, "loop device"),
        (facts.kind == DiskKind::Ram, "ram disk"),
        (facts.kind == DiskKind::Optical, "optical drive"),
        (facts.removable, "removable medium"),
        (facts.read_only, "read-only disk"),
        (facts.zoned, "zoned disk"),
        (facts.size == 0, "no medium"),
    ];
    if let Some((_, because)) = never.iter().find(|(is, _)| *is) {
        return ignored(*because);
    }
    if let Some(rule) = rules.iter().find(|rule| rule.matches(facts)) {
        if rule.is_the_rest() {
            return ignored("volumes.require_rule is set, and no [[volumes.match]] rule names it");
        }
        return rule.role.into();
    }
    match facts.kind {
        DiskKind::Nvme => match facts.model.as_deref() {
            Some(MODEL_EBS) => Role::Ebs,
            Some(MODEL_INSTANCE_STORE) => Role::InstanceStore,
            Some(model) => ignored(format!("model '{model}' is not an EC2 volume")),
            None => ignored("nvme disk without a model name"),
        },
        DiskKind::Xen => match facts.mapping.as_deref() {
            Some("ami" | "root") => Role::Boot { because: "is the root device in the block device mapping".to_owned() },
            Some(key) if key.starts_with("ebs") => Role::Ebs,
            Some(key) if key.starts_with("ephemeral") => Role::InstanceStore,
            Some(key) => ignored(format!("block device mapping entry '{key}'")),
            // the mapping of a running instance lists what the launch asked for
            None => Role::Unclear {
                because: "xen disk that the block device mapping of IMDS does not list: it may be an EBS volume that was attached later"
                    .to_owned(),
            },
        },
        DiskKind::DeviceMapper => ignored("device-mapper device"),
        DiskKind::Md => ignored("software RAID array"),
        DiskKind::Scsi | DiskKind::Virtio | DiskKind::Other => {
            ignored("not an EC2 volume, and no [[volumes.match]] rule names it")
        }
        DiskKind::Loop | DiskKind::Ram | DiskKind::Optical => ignored("not a disk"),
    }
}

/// Whether people would call it a disk. What the kernel makes of files, memory or other disks is only worth a row of a
/// report when it has a role.
pub fn is_shown(kind: DiskKind, role: &Role) -> bool {
    match kind {
        DiskKind::Loop | DiskKind::Ram | DiskKind::DeviceMapper | DiskKind::Md => !matches!(role, Role::Ignored { .. }),
        DiskKind::Nvme | DiskKind::Xen | DiskKind::Scsi | DiskKind::Virtio | DiskKind::Optical | DiskKind::Other => {
            true
        }
    }
}

/// What a worker found on a disk that it had opened exclusively.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Content {
    /// No signature of any kind, and all that was read is zero.
    Blank {
        /// How much was read.
        evidence: Evidence,
    },
    /// A LUKS2 header.
    Luks2 {
        /// Its UUID.
        luks_uuid: Uuid,
        /// The agent's token in it, if there is one.
        token: Option<Box<Token>>,
    },
    /// What a torn format of our own leaves behind, and nothing else: a header with the UUID that the state file records
    /// as intended, or bytes in the header area alone.
    Unfinished,
    /// Signatures that are not LUKS2.
    Foreign {
        /// What blkid calls them, with their offsets.
        signatures: Vec<String>,
    },
    /// No signature and no structure: each block that was read is uniformly random, or zero. So read blocks that were never written
    /// of an EBS volume with EBS encryption, and so do encrypted data without a header.
    Noise {
        /// Where the first non-zero byte was seen.
        offset: u64,
        /// How much was read.
        evidence: NoiseEvidence,
    },
    /// Data without a known signature.
    Unrecognised {
        /// Where the first non-zero byte was seen.
        offset: u64,
    },
    /// It could not be read, or not in time: nothing is known of what is on it.
    Unknown {
        /// Why.
        reason: String,
    },
}

/// How much of a disk was read before it counted as noise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoiseEvidence {
    /// Bytes read.
    pub read: u64,
    /// How many of them are in blocks that are uniformly random; the others are zero.
    pub random: u64,
    /// Size of the disk in bytes.
    pub of: u64,
}

impl fmt::Display for NoiseEvidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { read, random, of } = *self;
        let (read, of, random, zero) = (Bytes(read), Bytes(of), Bytes(random), Bytes(read - random));
        write!(f, "no signature and no structure in {read} of {of}: {random} uniformly random, {zero} zero")
    }
}

/// How much of a disk was read before it counted as blank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Bytes read, all of them zero.
    pub read: u64,
    /// Size of the disk in bytes.
    pub of: u64,
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (read, of) = (Bytes(self.read), Bytes(self.of));
        if self.read == self.of {
            write!(f, "no signature, all {of} read as zero")
        } else {
            write!(f, "no signature, {read} of {of} read, both ends included, all zero")
        }
    }
}

/// A number of bytes as people read it, in binary units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
        let mut unit = 0;
        let mut tenths = u128::from(self.0) * 10;
        while tenths >= 10240 && unit + 1 < UNITS.len() {
            tenths /= 1024;
            unit += 1;
        }
        match (tenths / 10, tenths % 10) {
            (whole, 0) => write!(f, "{whole} {}", UNITS[unit]),
            (whole, tenth) => write!(f, "{whole}.{tenth} {}", UNITS[unit]),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn disk(name: &str, kind: DiskKind, model: Option<&str>) -> DeviceFacts {
        DeviceFacts { kind, model: model.map(str::to_owned), ..DeviceFacts::sample(name, 3) }
    }

    fn rules(text: &str) -> Vec<MatchRule> {
        let text = format!("[kms]\nkey_id = \"k\"\n{text}");
        Config::from_text(Path::new("config.toml"), &text).unwrap().volumes.rules
    }

    fn because(role: &Role) -> &str {
        match role {
            Role::Boot { because } | Role::Unclear { because } | Role::Ignored { because } => because,
            Role::Ebs | Role::InstanceStore => "",
        }
    }

    #[test]
    fn ec2_rules() {
        let xen = |mapping: Option<&str>| {
            let disk = disk("xvdb", DiskKind::Xen, None);
            classify(&DeviceFacts { mapping: mapping.map(str::to_owned), ..disk }, &[])
        };
        let nvme = |model| classify(&disk("nvme1n1", DiskKind::Nvme, model), &[]);
        let other = |name: &str, kind| classify(&disk(name, kind, Some(MODEL_EBS)), &[]);
        for (role, expected, why) in [
            (nvme(Some("Amazon Elastic Block Store")), "ebs", ""),
            (nvme(Some("Amazon EC2 NVMe Instance Storage")), "instance-store", ""),
            (nvme(Some("Amazon Elastic Block Store 2")), "ignored", "model 'Amazon Elastic Block Store 2'"),
            (nvme(Some("amazon elastic block store")), "ignored", "is not an EC2 volume"),
            (nvme(None), "ignored", "without a model"),
            (xen(Some("ebs12")), "ebs", ""),
            (xen(Some("ephemeral0")), "instance-store", ""),
            (xen(Some("ami")), "boot", "block device mapping"),
            (xen(Some("root")), "boot", "block device mapping"),
            (xen(Some("swap")), "ignored", "'swap'"),
            (xen(None), "unclear", "does not list"),
            (other("sda", DiskKind::Scsi), "ignored", "no [[volumes.match]] rule"),
            (other("vdb", DiskKind::Virtio), "ignored", "no [[volumes.match]] rule"),
            (other("nbd0", DiskKind::Other), "ignored", "no [[volumes.match]] rule"),
            (other("dm-0", DiskKind::DeviceMapper), "ignored", "device-mapper"),
            (other("md0", DiskKind::Md), "ignored", "RAID"),
            (other("loop0", DiskKind::Loop), "ignored", "loop"),
            (other("zram0", DiskKind::Ram), "ignored", "ram disk"),
            (other("sr0", DiskKind::Optical), "ignored", "optical"),
        ] {
            assert_eq!(role.to_string(), expected, "{role:?}");
            assert!(because(&role).contains(why), "{role:?}: {why}");
        }
    }

    #[test]
    fn rules_match_path_links_serial_and_model() {
        let facts = DeviceFacts {
            serial: Some("data-7".to_owned()),
            links: vec!["/dev/disk/by-id/virtio-data-7".into(), "/dev/sdf".into()],
            ..disk("vdb", DiskKind::Virtio, Some("QEMU DISK"))
        };
        let role = |rule: &str| classify(&facts, &rules(&format!("[[volumes.match]]\n{rule}\nrole = \"ebs\"\n")));
        for (rule, hit) in [
            ("path = \"/dev/vdb\"", true),
            ("path = \"/dev/vd?\"", true),
            ("path = \"/dev/disk/by-id/virtio-data-*\"", true),
            ("path = \"/dev/sd[f-p]\"", true),
            ("path = \"/dev/{vda,vdb}\"", true),
            ("path = \"vdb\"", false),
            ("path = \"/dev/vd\"", false),
            ("path = \"/dev/vda\"", false),
            ("serial = \"data-7\"", true),
            ("serial = \"data-*\"", true),
            ("serial = \"data\"", false),
            ("model = \"QEMU*\"", true),
            ("model = \"qemu*\"", false),
            ("path = \"/dev/vdb\"\nserial = \"data-7\"\nmodel = \"QEMU DISK\"", true),
            ("path = \"/dev/vdb\"\nserial = \"data-8\"", false),
            ("path = \"/dev/vda\"\nserial = \"data-7\"", false),
        ] {
            assert_eq!(role(rule) == Role::Ebs, hit, "{rule}: {:?}", role(rule));
        }
        // What is not known matches nothing, not even `*`.
        let bare = disk("vdb", DiskKind::Virtio, None);
        assert_ne!(classify(&bare, &rules("[[volumes.match]]\nserial = \"*\"\nrole = \"ebs\"\n")), Role::Ebs);
        let xen = DeviceFacts { kind: DiskKind::Xen, ..bare.clone() };
        let ruled = |rule: &str| classify(&xen, &rules(rule)).to_string();
        assert_eq!(ruled("[[volumes.match]]\npath = \"/dev/vdb\"\nrole = \"ignore\"\n"), "ignored");
        assert_eq!(ruled("[volumes]\nrequire_rule = true\n"), "ignored");
        assert_ne!(classify(&bare, &rules("[[volumes.match]]\nmodel = \"*\"\nrole = \"ebs\"\n")), Role::Ebs);
    }

    #[test]
    fn the_first_rule_that_matches_wins_over_the_ec2_rules() {
        let rules = rules(
            "[[volumes.match]]\nserial = \"vol1\"\nrole = \"ignore\"\n\
             [[volumes.match]]\nserial = \"vol*\"\nrole = \"instance-store\"\n\
             [[volumes.match]]\npath = \"/dev/*\"\nrole = \"ebs\"\n",
        );
        let role = |name: &str, kind, serial: &str| {
            let disk = disk(name, kind, Some(MODEL_EBS));
            classify(&DeviceFacts { serial: Some(serial.to_owned()), ..disk }, &rules)
        };
        assert_eq!(role("nvme1n1", DiskKind::Nvme, "vol1").to_string(), "ignored");
        assert_eq!(role("nvme1n1", DiskKind::Nvme, "vol2"), Role::InstanceStore);
        assert_eq!(role("sda", DiskKind::Scsi, "x"), Role::Ebs);
        // Only because a rule names them.
        assert_eq!(role("dm-3", DiskKind::DeviceMapper, "x"), Role::Ebs);
        assert_eq!(role("md0", DiskKind::Md, "x"), Role::Ebs);
    }

    #[test]
    fn no_rule_makes_a_target_of_the_boot_disk_or_of_what_can_never_be_one() {
        let all = rules("[[volumes.match]]\npath = \"/**\"\nrole = \"ebs\"\n");
        let plain = || disk("nvme1n1", DiskKind::Nvme, Some(MODEL_EBS));
        assert_eq!(classify(&plain(), &all), Role::Ebs);
        let boot = DeviceFacts { system: Some("carries /".to_owned()), read_only: true, ..plain() };
        assert_eq!(classify(&boot, &all), Role::Boot { because: "carries /".to_owned() });
        for facts in [
            DeviceFacts { read_only: true, ..plain() },
            DeviceFacts { removable: true, ..plain() },
            DeviceFacts { zoned: true, ..plain() },
            DeviceFacts { size: 0, ..plain() },
            disk("loop0", DiskKind::Loop, None),
            disk("ram0", DiskKind::Ram, None),
            disk("sr0", DiskKind::Optical, None),
        ] {
            assert_eq!(classify(&facts, &all).to_string(), "ignored", "{facts:?}");
        }
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
