//! The record in the state file that a disk belongs to, and disks that cannot be told apart.

use crate::config::Config;
use crate::disk::{Content, DeviceFacts, Inventory, MatchRule, Role, RuleRole, classify};
use crate::state::{State, VolumeRecord, VolumeRole};

/// How the agent recognises a disk, strongest evidence first.
#[derive(Debug, Clone, Copy)]
pub(super) enum Owner<'a> {
    /// The volume is open on it.
    Open(&'a VolumeRecord),
    /// Its header names the volume.
    Header(&'a VolumeRecord),
    /// Nothing on the disk identifies it, but the record was made for it.
    Identity(&'a VolumeRecord),
    /// The state file does not know it.
    Nobody,
}

impl<'a> Owner<'a> {
    pub(super) fn record(self) -> Option<&'a VolumeRecord> {
        match self {
            Self::Open(record) | Self::Header(record) | Self::Identity(record) => Some(record),
            Self::Nobody => None,
        }
    }
}

/// Returns the record of a disk: of the volume that is open on it, else of its header, else of its identity.
pub fn record_of<'a>(state: &'a State, facts: &DeviceFacts) -> Option<&'a VolumeRecord> {
    let identity = || state.volumes.iter().rev().find(|v| v.is_for(facts));
    open_on(state, facts).or_else(|| header_on(state, facts)).or_else(identity)
}

/// Returns the disk of a known volume.
pub fn disk_of<'d>(state: &State, volume: &VolumeRecord, disks: &'d [DeviceFacts]) -> Option<&'d DeviceFacts> {
    let is_it = |facts: &&DeviceFacts| record_of(state, facts).is_some_and(|found| found.luks_uuid == volume.luks_uuid);
    disks.iter().find(is_it)
}

fn open_on<'a>(state: &'a State, facts: &DeviceFacts) -> Option<&'a VolumeRecord> {
    state.volumes.iter().find(|v| facts.mapping_of(v.luks_uuid).is_some())
}

fn header_on<'a>(state: &'a State, facts: &DeviceFacts) -> Option<&'a VolumeRecord> {
    state.volumes.iter().find(|v| has_header(facts, v))
}

pub(super) fn has_header(facts: &DeviceFacts, record: &VolumeRecord) -> bool {
    matches!(&facts.content, Some(Content::Luks2 { luks_uuid, .. }) if *luks_uuid == record.luks_uuid)
}

/// The disks, compared with each other and with the state file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owners<'a> {
    pub(super) state: &'a State,
    pub(super) inventory: &'a Inventory,
    pub(super) rules: &'a [MatchRule],
}

impl<'a> Owners<'a> {
    pub(super) fn of(&self, facts: &DeviceFacts) -> Owner<'a> {
        if let Some(record) = open_on(self.state, facts) {
            Owner::Open(record)
        } else if let Some(record) = header_on(self.state, facts) {
            Owner::Header(record)
        } else {
            self.by_identity(facts).map_or(Owner::Nobody, Owner::Identity)
        }
    }

    /// Whether any disk belongs to a known volume.
    pub(super) fn is_seen(&self, record: &VolumeRecord) -> bool {
        let is_it = |facts: &DeviceFacts| self.of(facts).record().is_some_and(|r| r.luks_uuid == record.luks_uuid);
        self.inventory.devices.iter().any(is_it)
    }

    /// Returns the newest record made for this disk: a name can have had several volumes.
    ///
    /// A name is weaker evidence than a serial number, because names change: a disk of another size does not match, and
    /// no disk matches if the volume is found elsewhere. Instance store that is found elsewhere is a copy; the disk
    /// itself is free again.
    pub(super) fn by_identity(&self, facts: &DeviceFacts) -> Option<&'a VolumeRecord> {
        self.state.volumes.iter().rev().find(|v| {
            let named = v.serial.is_none();
            v.is_for(facts)
                && (!named || v.size == facts.size)
                && !((named || v.role == VolumeRole::InstanceStore) && self.elsewhere(facts, v).next().is_some())
        })
    }

    /// Returns the volume that was on this disk before it moved to another one.
    pub(super) fn formerly_on(&self, facts: &DeviceFacts) -> Option<&'a VolumeRecord> {
        let serial = facts.serial.as_ref()?;
        self.state.volumes.iter().find(|v| v.former_serials.contains(serial))
    }

    pub(super) fn others(&self, facts: &DeviceFacts) -> impl Iterator<Item = &'a DeviceFacts> {
        self.inventory.devices.iter().filter(move |other| other.name != facts.name)
    }

    /// Returns other disks on which this volume is open, or that have its header.
    pub(super) fn elsewhere(
        &self,
        facts: &DeviceFacts,
        record: &VolumeRecord,
    ) -> impl Iterator<Item = &'a DeviceFacts> {
        self.others(facts)
            .filter(move |other| other.mapping_of(record.luks_uuid).is_some() || has_header(other, record))
    }

    /// Returns other disks with the same identity: two namespaces, two paths to one disk, or a forged serial number. A
    /// disk that a rule ignores does not count, unless it carries the system.
    pub(super) fn twins(&self, facts: &DeviceFacts) -> Vec<&'a DeviceFacts> {
        let counts = |other: &&DeviceFacts| {
            other.identity() == facts.identity() && (other.system.is_some() || !ignored_by_rule(self.rules, other))
        };
        self.others(facts).filter(counts).collect()
    }

    /// Whether a volume that is known only by its name may be on a disk that could not be examined.
    pub(super) fn may_be_hidden(&self, facts: &DeviceFacts, record: &VolumeRecord) -> bool {
        let unseen = |other: &DeviceFacts| matches!(other.content, None | Some(Content::Unknown { .. }));
        let could_be = |other: &DeviceFacts| {
            other.serial.is_none() && other.size == record.size && open_on(self.state, other).is_none() && unseen(other)
        };
        record.serial.is_none() && self.others(facts).any(could_be)
    }

    /// Returns the known volume whose open mapping this device is.
    pub(super) fn mapping_itself(&self, facts: &DeviceFacts) -> Option<&'a VolumeRecord> {
        let is_it = |v: &&VolumeRecord| {
            let mapping = self.inventory.devices.iter().find_map(|other| other.mapping_of(v.luks_uuid));
            mapping.is_some_and(|holder| holder.name == facts.name)
        };
        self.state.volumes.iter().find(is_it)
    }
}

/// Whether the first rule that matches the disk ignores it.
pub(super) fn ignored_by_rule(rules: &[MatchRule], facts: &DeviceFacts) -> bool {
    let first = rules.iter().find(|rule| rule.matches(facts));
    // a disk that no rule names may still have a known volume on it
    first.is_some_and(|rule| rule.role == RuleRole::Ignore && !rule.is_the_rest())
}

/// Whether a rule ignores a disk.
pub fn is_ignored(config: &Config, facts: &DeviceFacts) -> bool {
    ignored_by_rule(&config.volumes.rules, facts)
}

/// Returns why no boot would open a known volume on this disk although no rule ignores it; for example, its rule was
/// removed.
pub fn locked_out(config: &Config, facts: &DeviceFacts) -> Option<String> {
    match classify(facts, &config.volumes.rules) {
        Role::Ignored { because } | Role::Unclear { because } => {
            (!ignored_by_rule(&config.volumes.rules, facts)).then_some(because)
        }
        Role::Boot { .. } | Role::Ebs | Role::InstanceStore => None,
    }
}
