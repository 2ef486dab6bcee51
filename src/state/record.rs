//! The records: the wrapped keys, and the volumes made with them.

use std::fmt;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::disk::DeviceFacts;
use crate::key::{KeySource, Provider, WrappedKey};
use crate::luks2::{Expected, HeaderPolicy, ProvenKeyslot, VolumeKeyId};
use crate::storage::FilesystemKind;

/// Format version that this release writes; it reads all versions from 1.
///
/// Version 1 had no checksum and no layouts, version 2 no keyslots, version 3 one key for each volume and nothing about volumes that are
/// no longer the node's.
pub const VERSION: u32 = 4;

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
    /// Volumes that were forgotten or erased, in that order. No command uses them; `adopt` and audits look them up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former: Vec<FormerVolume>,
    /// Digest of the EMR security configuration that the node was provisioned with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_configuration: Option<String>,
}

/// One data key, wrapped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRecord {
    /// ID by which volumes refer to the key.
    pub id: u32,
    /// The key service that unwraps it.
    #[serde(default, skip_serializing_if = "Provider::is_default")]
    pub provider: Provider,
    /// The data key, wrapped.
    pub wrapped_key: WrappedKey,
    /// `kms.key_id` or `exec.key_id` when the key was generated.
    pub configured_key_id: String,
    /// The key that encrypted it, as [`KeySource::key_arn`].
    pub key_arn: String,
    /// When it was generated, or wrapped again by `rewrap`.
    pub created: Timestamp,
    /// The first key with the same data key, if `rewrap` has wrapped that again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewraps: Option<u32>,
    /// The key that takes its place: its volumes get that key, and are caught up when they come back if they are away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_by: Option<u32>,
    /// Whether it came with an adopted volume. New volumes never get such a key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adopted: bool,
}

impl KeyRecord {
    /// Returns its wrapped key, and who unwraps it.
    pub fn source(&self) -> KeySource {
        KeySource { provider: self.provider, wrapped_key: self.wrapped_key.clone(), key_arn: self.key_arn.clone() }
    }

    /// Returns the ID of the first key with the same data key.
    pub fn data_key(&self) -> u32 {
        self.rewraps.unwrap_or(self.id)
    }
}

/// One volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeRecord {
    /// LUKS UUID, chosen before the volume was formatted.
    pub luks_uuid: Uuid,
    /// ID of the key that opens it, at every moment of a change of keys too.
    pub key: u32,
    /// The change of keys that has begun on its disk, until it is finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_change: Option<KeyChange>,
    /// The change of the volume key that is to come or has begun, until it is finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_key_change: Option<VolumeKeyChange>,
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
    /// Volume key that its data is encrypted with.
    ///
    /// `None` until the volume is committed, and for a volume of an earlier release until it is opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_key: Option<VolumeKeyId>,
    /// When it was formatted; `None` until then, and for a volume of an earlier release or of another node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<Timestamp>,
    /// Serial numbers of the disks that the volume was on before, which are never formatted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former_serials: Vec<String>,
}

/// A change of keys that has begun on the disk of a volume. Whatever the moment of a crash, [`VolumeRecord::key`] opens the volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyChange {
    /// The volume gets this key too. Its header may have the token and the keyslot already.
    Adding {
        /// ID of the key.
        key: u32,
    },
    /// The volume has the new key, and loses this one. Its header may have lost the token and the keyslot already.
    Removing {
        /// ID of the key.
        key: u32,
        /// The keyslot that it opened, which is removed only if it is unchanged.
        keyslot: ProvenKeyslot,
    },
}

impl KeyChange {
    /// Returns the ID of the key that is added or removed.
    pub fn key(&self) -> u32 {
        match self {
            Self::Adding { key } | Self::Removing { key, .. } => *key,
        }
    }
}

/// A change of the volume key: all data is encrypted again. The same data key opens the volume at every moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VolumeKeyChange {
    /// `rotate --volume-key` was run. The header is as it was.
    Planned,
    /// The header may say that the volume has two volume keys, and libcryptsetup may have to repair it after a crash.
    Begun,
}

/// A volume that is no longer the node's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FormerVolume {
    /// The volume.
    pub volume: VolumeRecord,
    /// Its key; the node may have no other volume with it.
    pub key: KeyRecord,
    /// Why it is no longer the node's.
    pub end: VolumeEnd,
    /// When that was.
    pub ended: Timestamp,
}

/// Why a volume is no longer the node's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VolumeEnd {
    /// `luks-agent forget`.
    Forgotten,
    /// `luks-agent erase`: no key opens it any more.
    Erased,
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
    /// `erase` has begun to overwrite its header: it is never opened again, and only `erase` goes on with it.
    Erasing,
}

impl VolumeRecord {
    /// Returns the identity of the disk, as [`DeviceFacts::identity`].
    pub fn identity(&self) -> String {
        self.serial.clone().unwrap_or_else(|| format!("name:{}", self.device))
    }

    /// Returns whether re-encryption of its data has begun.
    pub fn is_reencrypting(&self) -> bool {
        self.volume_key_change == Some(VolumeKeyChange::Begun)
    }

    /// Returns whether the record was made for this disk.
    pub fn is_for(&self, facts: &DeviceFacts) -> bool {
        self.identity() == facts.identity()
    }
}

impl Default for State {
    fn default() -> Self {
        Self {
            version: VERSION,
            instance_id: None,
            keys: Vec::new(),
            volumes: Vec::new(),
            former: Vec::new(),
            security_configuration: None,
        }
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

    /// Returns the key to unwrap for the data key of the key with this ID: the newest that has the same data key.
    ///
    /// After `rewrap`, the KMS key of an older one may be gone.
    pub fn key_to_unwrap(&self, id: u32) -> Option<&KeyRecord> {
        let data_key = self.key(id)?.data_key();
        self.keys.iter().rev().find(|key| key.data_key() == data_key)
    }

    /// Returns an ID that no key has or had, also none of those that left with a volume.
    pub fn next_key_id(&self) -> u32 {
        let known = self.keys.iter().chain(self.former.iter().map(|former| &former.key));
        known.map(|key| key.id.max(key.data_key())).max().unwrap_or(0) + 1
    }

    /// Returns the key of this node, which new volumes get: the last one that neither came with an adopted volume nor was replaced.
    pub fn node_key(&self) -> Option<&KeyRecord> {
        self.keys.iter().rev().find(|key| !key.adopted && key.replaced_by.is_none())
    }

    /// Returns the record of a volume that was forgotten or erased; the last one, if it was so more than once.
    pub fn former_volume(&self, luks_uuid: Uuid) -> Option<&FormerVolume> {
        self.former.iter().rev().find(|former| former.volume.luks_uuid == luks_uuid)
    }

    /// Moves a volume to the former ones. Its key leaves too, unless it is the node's, another volume uses it, or another key
    /// needs its record.
    pub fn part_with(&mut self, luks_uuid: Uuid, end: VolumeEnd, ended: Timestamp) {
        let Some(at) = self.volumes.iter().position(|volume| volume.luks_uuid == luks_uuid) else { return };
        let volume = self.volumes.remove(at);
        let Some(key) = self.key(volume.key).cloned() else { return };
        let ids = [Some(volume.key), volume.key_change.as_ref().map(KeyChange::key)];
        self.former.push(FormerVolume { volume, key, end, ended });
        let node_key = self.node_key().map(|key| key.id);
        let is_used = |id: u32| {
            let by_volume = |v: &VolumeRecord| v.key == id || v.key_change.as_ref().is_some_and(|c| c.key() == id);
            let by_key = |k: &KeyRecord| k.replaced_by == Some(id);
            node_key == Some(id) || self.volumes.iter().any(by_volume) || self.keys.iter().any(by_key)
        };
        let unused: Vec<u32> = ids.into_iter().flatten().filter(|id| !is_used(*id)).collect();
        self.keys.retain(|key| !unused.contains(&key.id));
    }

    /// Returns what the header of a volume must contain; `None` if the volume or its key is not recorded.
    pub fn expected(&self, luks_uuid: Uuid) -> Option<Expected> {
        let volume = self.volume(luks_uuid)?;
        let source = |id: u32| self.key(id).map(KeyRecord::source);
        let other = volume.key_change.as_ref().and_then(|change| source(change.key()));
        let (reencrypting, volume_key) = (volume.is_reencrypting(), volume.volume_key.clone());
        Some(Expected { luks_uuid, header: volume.header, key: source(volume.key)?, other, reencrypting, volume_key })
    }

    /// Returns the key that a volume should have: its own, or the one that takes its place.
    pub fn wanted_key(&self, volume: &VolumeRecord) -> u32 {
        self.key(volume.key).and_then(|key| key.replaced_by).unwrap_or(volume.key)
    }

    /// Whether a change of the keys of a volume has begun or is to come.
    pub fn is_behind(&self, volume: &VolumeRecord) -> bool {
        volume.phase == Phase::Committed && (volume.key_change.is_some() || self.wanted_key(volume) != volume.key)
    }

    pub(super) fn check_consistency(&self) -> Result<(), String> {
        for (i, volume) in self.volumes.iter().enumerate() {
            let keys = [Some(volume.key), volume.key_change.as_ref().map(KeyChange::key)];
            if let Some(key) = keys.into_iter().flatten().find(|key| self.key(*key).is_none()) {
                return Err(format!("volume {} uses key {key}, which does not exist", volume.luks_uuid));
            }
            if self.volumes[..i].iter().any(|other| other.luks_uuid == volume.luks_uuid) {
                return Err(format!("volume {} is listed twice", volume.luks_uuid));
            }
        }
        let twice = |(i, key): (usize, &KeyRecord)| self.keys[..i].iter().any(|other| other.id == key.id);
        if self.keys.iter().enumerate().any(twice) {
            return Err("a key ID is listed twice".to_owned());
        }
        let lost = |key: &&KeyRecord| key.replaced_by.is_some_and(|by| by == key.id || self.key(by).is_none());
        if let Some(key) = self.keys.iter().find(lost) {
            return Err(format!("key {} is replaced by a key that does not exist", key.id));
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
                provider: Provider::AwsKms,
                wrapped_key: WrappedKey::new(vec![1, 2, 3]).unwrap(),
                configured_key_id: "alias/nodes".into(),
                key_arn: "arn:aws:kms:us-east-1:111122223333:key/1".into(),
                created: "2026-01-02T03:04:05Z".parse().unwrap(),
                rewraps: None,
                replaced_by: None,
                adopted: false,
            }],
            volumes: vec![VolumeRecord {
                luks_uuid: Uuid::from_u128(7),
                key: 1,
                key_change: None,
                volume_key_change: None,
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
                volume_key: Some(VolumeKeyId("fedcba9876543210".repeat(4))),
                made: None,
                former_serials: Vec::new(),
            }],
            former: Vec::new(),
            security_configuration: None,
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
    fn a_volume_is_behind_until_it_has_the_newest_key_and_no_other() {
        let keyslot = || ProvenKeyslot { number: 0, sha256: String::new() };
        for (replaced, key_change, is_behind) in [
            (false, None, false),
            (true, None, true),
            (true, Some(KeyChange::Adding { key: 2 }), true),
            (false, Some(KeyChange::Removing { key: 2, keyslot: keyslot() }), true),
        ] {
            let mut state = State::sample();
            state.keys.push(KeyRecord { id: 2, ..state.keys[0].clone() });
            state.keys[0].replaced_by = replaced.then_some(2);
            state.volumes[0].key_change = key_change;
            assert_eq!(state.is_behind(&state.volumes[0]), is_behind, "{:?}", state.volumes[0].key_change);
            let other = state.expected(Uuid::from_u128(7)).unwrap().other;
            assert_eq!(other.is_some(), state.volumes[0].key_change.is_some());
            state.volumes[0].phase = Phase::Intent;
            assert!(!state.is_behind(&state.volumes[0]), "it is formatted anew");
        }
    }

    #[test]
    fn the_newest_wrapping_of_a_data_key_is_unwrapped_and_no_id_comes_again() {
        let mut state = State::sample();
        let key = |id, rewraps| KeyRecord { id, rewraps, ..State::sample().keys.remove(0) };
        assert_eq!(State::default().next_key_id(), 1);
        state.keys = vec![key(1, None), key(2, Some(1)), key(3, None), key(5, Some(1))];
        let unwrapped = |id| state.key_to_unwrap(id).map(|key| key.id);
        assert_eq!([1, 2, 3, 5].map(unwrapped), [Some(5), Some(5), Some(3), Some(5)]);
        assert_eq!(unwrapped(4), None);
        assert_eq!(state.next_key_id(), 6);
        // the record of the first key is gone, and its id still names its data key
        state.keys = vec![key(2, Some(9))];
        assert_eq!(state.next_key_id(), 10);
    }

    #[test]
    fn a_key_leaves_with_its_last_volume_unless_the_node_needs_it() {
        let now = "2026-03-04T05:06:07Z".parse().unwrap();
        let uuid = Uuid::from_u128;
        let mut state = State::sample();
        let key = |id, adopted, replaced_by| KeyRecord { id, adopted, replaced_by, ..State::sample().keys.remove(0) };
        let volume = |n, key| VolumeRecord { luks_uuid: uuid(n), key, ..State::sample().volumes.remove(0) };
        state.keys = vec![key(1, false, Some(2)), key(2, false, None), key(3, true, None)];
        state.volumes = vec![volume(1, 1), volume(2, 3), volume(3, 3), volume(4, 2)];
        let ids = |state: &State| state.keys.iter().map(|key| key.id).collect::<Vec<_>>();
        assert_eq!(state.node_key().map(|key| key.id), Some(2));
        state.part_with(uuid(2), VolumeEnd::Forgotten, now);
        assert_eq!(ids(&state), [1, 2, 3], "volume 3 uses key 3");
        state.part_with(uuid(4), VolumeEnd::Forgotten, now);
        assert_eq!(ids(&state), [1, 2, 3], "key 2 is the node's");
        state.part_with(uuid(3), VolumeEnd::Erased, now);
        assert_eq!(ids(&state), [1, 2]);
        state.part_with(uuid(1), VolumeEnd::Erased, now);
        assert_eq!(ids(&state), [2]);
        state.part_with(uuid(1), VolumeEnd::Erased, now);
        assert_eq!(state.former.iter().map(|former| former.key.id).collect::<Vec<_>>(), [3, 2, 3, 1]);
        assert_eq!(state.former_volume(uuid(3)).unwrap().end, VolumeEnd::Erased);
        assert_eq!((state.check_consistency(), state.next_key_id()), (Ok(()), 4));
        let mut state = State::sample();
        state.part_with(uuid(7), VolumeEnd::Forgotten, now);
        assert_eq!(ids(&state), [1], "the node goes on with its key");
    }

    #[test]
    fn what_is_expected_of_a_header_is_what_was_recorded() {
        let state = State::sample();
        let expected = state.expected(Uuid::from_u128(7)).unwrap();
        assert_eq!(expected.luks_uuid, Uuid::from_u128(7));
        assert_eq!(expected.header, state.volumes[0].header);
        assert_eq!((&expected.key, &expected.other), (&state.keys[0].source(), &None));
        assert!(expected.volume_key.is_some() && expected.volume_key == state.volumes[0].volume_key);
        assert_eq!(state.expected(Uuid::from_u128(8)), None);
    }
}
