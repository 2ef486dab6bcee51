//! The records: the wrapped keys, and the volumes made with them.

use std::fmt;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::disk::DeviceFacts;
use crate::key::WrappedKey;
use crate::luks2::{Expected, HeaderPolicy, ProvenKeyslot};
use crate::storage::FilesystemKind;

/// Format version that this release writes; it reads all versions from 1.
///
/// Version 1 had no checksum and no layouts, version 2 no keyslots.
pub const VERSION: u32 = 3;

/// Everything that the agent records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// [`VERSION`].
    pub version: u32,
    /// Instance that generated the last key; `None` if there was no IMDS.
    pub instance_id: Option<String>,
    /// Keys, oldest first; usually one.
    pub keys: Vec<KeyRecord>,
    /// Volumes, in the order they were made.
    pub volumes: Vec<VolumeRecord>,
}

/// One data key, wrapped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRecord {
    /// ID by which volumes refer to the key.
    pub id: u32,
    /// The `CiphertextBlob`.
    pub wrapped_key: WrappedKey,
    /// `kms.key_id` when the key was generated.
    pub configured_key_id: String,
    /// ARN of the KMS key that encrypted it.
    pub key_arn: String,
    /// When it was generated.
    pub created: Timestamp,
}

/// One volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeRecord {
    /// LUKS UUID, chosen before the volume was formatted.
    pub luks_uuid: Uuid,
    /// ID of the key that opens it.
    pub key: u32,
    /// Serial number of the disk, if it has one.
    pub serial: Option<String>,
    /// Kernel name of the disk when it was formatted; identifies the disk only if it has no serial number.
    pub device: String,
    /// Role of the volume.
    pub role: VolumeRole,
    /// Size of the disk in bytes when the volume was made or last grown.
    pub size: u64,
    /// Where it is mounted.
    pub mount_point: Option<PathBuf>,
    /// File system on the volume.
    pub filesystem: FilesystemKind,
    /// What its header must contain.
    #[serde(default)]
    pub header: HeaderPolicy,
    /// Progress of the volume.
    pub phase: Phase,
    /// Keyslot that its key opens.
    ///
    /// `None` until the volume is committed, and for a volume of an earlier release until it is opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keyslot: Option<ProvenKeyslot>,
    /// Serial numbers of the disks that the volume was on before, which are never formatted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former_serials: Vec<String>,
}

/// Role of a recorded volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VolumeRole {
    /// An EBS volume.
    Ebs,
    /// An instance store volume.
    InstanceStore,
}

impl fmt::Display for VolumeRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ebs => "ebs",
            Self::InstanceStore => "instance-store",
        })
    }
}

/// Progress of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// About to be formatted, or formatting was interrupted: it was never mounted and holds no data.
    Intent,
    /// Formatted and proven to open, perhaps mounted: it may hold data and is never formatted again.
    Committed,
}

impl VolumeRecord {
    /// Returns the identity of the disk, as [`DeviceFacts::identity`].
    pub fn identity(&self) -> String {
        self.serial.clone().unwrap_or_else(|| format!("name:{}", self.device))
    }

    /// Returns whether the record was made for this disk.
    pub fn is_for(&self, facts: &DeviceFacts) -> bool {
        self.identity() == facts.identity()
    }
}

impl Default for State {
    fn default() -> Self {
        Self { version: VERSION, instance_id: None, keys: Vec::new(), volumes: Vec::new() }
    }
}

impl State {
    /// Returns the record with this LUKS UUID.
    pub fn volume(&self, luks_uuid: Uuid) -> Option<&VolumeRecord> {
        self.volumes.iter().find(|v| v.luks_uuid == luks_uuid)
    }

    /// Returns the key with this ID.
    pub fn key(&self, id: u32) -> Option<&KeyRecord> {
        self.keys.iter().find(|k| k.id == id)
    }

    /// Returns what the header of a volume must contain; `None` if the volume or its key is not recorded.
    pub fn expected(&self, luks_uuid: Uuid) -> Option<Expected> {
        let volume = self.volume(luks_uuid)?;
        let KeyRecord { wrapped_key, key_arn, .. } = self.key(volume.key)?.clone();
        Some(Expected { luks_uuid, header: volume.header, wrapped_key, key_arn })
    }

    pub(super) fn check_consistency(&self) -> Result<(), String> {
        for (i, volume) in self.volumes.iter().enumerate() {
            if self.key(volume.key).is_none() {
                return Err(format!("volume {} uses key {}, which does not exist", volume.luks_uuid, volume.key));
            }
            if self.volumes[..i].iter().any(|other| other.luks_uuid == volume.luks_uuid) {
                return Err(format!("volume {} is listed twice", volume.luks_uuid));
            }
        }
        let twice = |(i, key): (usize, &KeyRecord)| self.keys[..i].iter().any(|other| other.id == key.id);
        if self.keys.iter().enumerate().any(twice) {
            return Err("a key ID is listed twice".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
impl State {
    /// A node with one volume, `vol0`, that holds data.
    pub(crate) fn sample() -> Self {
        use crate::luks2::{Cipher, Flags, Layout};

        Self {
            version: VERSION,
            instance_id: Some("i-0".into()),
            keys: vec![KeyRecord {
                id: 1,
                wrapped_key: WrappedKey::new(vec![1, 2, 3]).unwrap(),
                configured_key_id: "alias/nodes".into(),
                key_arn: "arn:aws:kms:us-east-1:111122223333:key/1".into(),
                created: "2026-01-02T03:04:05Z".parse().unwrap(),
            }],
            volumes: vec![VolumeRecord {
                luks_uuid: Uuid::from_u128(7),
                key: 1,
                serial: Some("vol0".into()),
                device: "nvme1n1".into(),
                role: VolumeRole::Ebs,
                size: 1 << 30,
                mount_point: Some("/mnt".into()),
                filesystem: FilesystemKind::Xfs,
                header: HeaderPolicy::Recorded(Layout {
                    cipher: Cipher::AesXtsPlain64,
                    key_size: 512,
                    sector_size: 4096,
                    flags: Flags { discards: true, ..Flags::default() },
                }),
                phase: Phase::Committed,
                keyslot: Some(ProvenKeyslot { number: 0, sha256: "0123456789abcdef".repeat(4) }),
                former_serials: Vec::new(),
            }],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_for_the_disk_with_its_serial_number_or_without_one_for_the_name() {
        let mut record = State::sample().volumes.remove(0);
        let named = DeviceFacts::sample("nvme1n1", 1);
        let numbered = DeviceFacts { serial: Some("vol0".into()), ..DeviceFacts::sample("nvme9n1", 9) };
        assert_eq!(
            (record.identity().as_str(), record.is_for(&numbered), record.is_for(&named)),
            ("vol0", true, false)
        );
        record.serial = None;
        assert_eq!((record.identity().as_str(), record.is_for(&named)), ("name:nvme1n1", true));
        assert!(!record.is_for(&numbered));
    }

    #[test]
    fn what_is_expected_of_a_header_is_what_was_recorded() {
        let state = State::sample();
        let expected = state.expected(Uuid::from_u128(7)).unwrap();
        assert_eq!(expected.luks_uuid, Uuid::from_u128(7));
        assert_eq!(expected.header, state.volumes[0].header);
        assert_eq!(expected.wrapped_key, state.keys[0].wrapped_key);
        assert_eq!(expected.key_arn, state.keys[0].key_arn);
        assert_eq!(state.expected(Uuid::from_u128(8)), None);
    }
}
