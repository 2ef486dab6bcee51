//! A disk of a report.

use std::fmt;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::evidence::Evidence;

/// A verdict. The order is from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// A volume of the agent, and what was shown agrees. Of a node: each disk is encrypted or excepted.
    Encrypted,
    /// Not the agent's to encrypt, for a reason that is named.
    Excepted,
    /// Nothing shows whether it is encrypted.
    Unknown,
    /// Data is or could be in clear on it.
    NotEncrypted,
}

impl Standing {
    /// Returns the exit code of a report with this verdict on the node.
    pub fn exit_code(self) -> u8 {
        u8::from(self > Self::Excepted)
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Encrypted => "encrypted",
            Self::Excepted => "excepted",
            Self::Unknown => "unknown",
            Self::NotEncrypted => "not encrypted",
        })
    }
}

/// One disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// Kernel name, such as `nvme1n1`; `None` for a volume that is not attached.
    pub device: Option<String>,
    /// Serial number. On EBS the volume ID without its dash.
    pub serial: Option<String>,
    /// EBS volume ID, `vol-...`, if the serial number is one.
    pub volume_id: Option<String>,
    /// `boot`, `ebs`, `instance-store`, `unclear` or `ignored`.
    pub role: String,
    /// Why it has the role: the rule.
    pub role_because: Option<String>,
    /// Size in bytes.
    pub size: u64,
    /// What is on it, in words.
    pub content: String,
    /// The verdict.
    pub verdict: Standing,
    /// Why. For `excepted` the rule.
    pub reasons: Vec<String>,
    /// How a volume of the agent is encrypted; `None` for everything else.
    pub encryption: Option<Encryption>,
    /// ARN of the KMS key on which it depends.
    pub key_arn: Option<String>,
    /// When it was formatted, if that was recorded.
    pub formatted: Option<Timestamp>,
    /// When it was opened, if that was since boot and by the agent.
    pub opened: Option<Timestamp>,
    /// The last proof that the next reboot would open it, if there was one since boot.
    pub proven: Option<Proven>,
    /// Where it, its partitions or its mapping are mounted.
    pub mounts: Vec<PathBuf>,
    /// What was read to show that it is encrypted; `None` if it is not open, or not the agent's.
    pub evidence: Option<Evidence>,
}

impl Disk {
    /// Returns a disk that is not attached, of which nothing else is known.
    pub fn new(role: String, size: u64, content: String, verdict: Standing, reasons: Vec<String>) -> Self {
        Self {
            device: None,
            serial: None,
            volume_id: None,
            role,
            role_because: None,
            size,
            content,
            verdict,
            reasons,
            encryption: None,
            key_arn: None,
            formatted: None,
            opened: None,
            proven: None,
            mounts: Vec::new(),
            evidence: None,
        }
    }
}

impl Disk {
    /// Returns its mount points in one text.
    pub(super) fn mount_points(&self, separator: &str) -> String {
        let mounts: Vec<String> = self.mounts.iter().map(|mount| mount.display().to_string()).collect();
        mounts.join(separator)
    }
}

/// How a volume is encrypted, by the kernel's table of its mapping and by its header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Encryption {
    /// Its LUKS UUID.
    pub luks_uuid: String,
    /// Mapper name, if it is open.
    pub mapper: Option<String>,
    /// The cipher, such as `aes-xts-plain64`.
    pub cipher: String,
    /// Size of the volume key in bits.
    pub key_size: u32,
    /// Sector size of the encryption in bytes.
    pub sector_size: u32,
    /// Why header or mapping is not as the agent made it; `None` if it is.
    pub violation: Option<String>,
}

/// A proof that a volume opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Proven {
    /// When.
    pub at: Timestamp,
    /// How.
    pub by: Proof,
}

/// How it was proven that a volume opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Proof {
    /// The agent opened it with the unwrapped key.
    Opened,
    /// `verify`: the key was unwrapped, and tried on the header.
    Verify,
    /// `health`: header and mapping are as recorded, and KMS would unwrap the key.
    Health,
}
