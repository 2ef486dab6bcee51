//! Which record of the state file a disk belongs to, and which disks cannot be told apart.

use crate::config::Config;
use crate::disk::{Content, DeviceFacts, Inventory, MatchRule, Role, RuleRole, classify};
use crate::state::{State, VolumeRecord, VolumeRole};

/// How a disk is known, strongest evidence first.
#[derive(Debug, Clone, Copy)]
pub(super) enum Owner<'a> {
    /// The volume is open on it.
    Open(&'a VolumeRecord),
    /// Its header names the volume.
    Header(&'a VolumeRecord),
    /// Nothing on it tells, but it is the disk that the record was made for.
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

/// The record of a disk: of the volume that is open on it, else of the header found on it, else of its identity.
pub fn record_of<'a>(state: &'a State, facts: &DeviceFacts) -> Option<&'a VolumeRecord> {
    let identity = || state.volumes.iter().rev().find(|v| v.is_for(facts));
    open_on(state, facts).or_else(|| header_on(state, facts)).or_else(identity)
}

/// The disk of a known volume.
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

/// The disks among themselves and against the state file.
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

    /// The newest record made for this disk: a name can have had several volumes.
    ///
    /// A name is weaker than a serial number: names move, so a disk of another size is not meant, nor is any when the
    /// volume is found elsewhere. Instance store found elsewhere was copied; the disk itself is free again.
    pub(super) fn by_identity(&self, facts: &DeviceFacts) -> Option<&'a VolumeRecord> {
        self.state.volumes.iter().rev().find(|v| {
            let named = v.serial.is_none();
            v.is_for(facts)
                && (!named || v.size == facts.size)
                && !((named || v.role == VolumeRole::InstanceStore) && self.elsewhere(facts, v).next().is_some())
        })
    }

    /// The volume that was on this disk until it was used on another one.
    pub(super) fn formerly_on(&self, facts: &DeviceFacts) -> Option<&'a VolumeRecord> {
        let serial = facts.serial.as_ref()?;
        self.state.volumes.iter().find(|v| v.former_serials.contains(serial))
    }

    pub(super) fn others(&self, facts: &DeviceFacts) -> impl Iterator<Item = &'a DeviceFacts> {
        self.inventory.devices.iter().filter(move |other| other.name != facts.name)
    }

    /// Other disks that this volume is open on, or that have its header.
    pub(super) fn elsewhere(
        &self,
        facts: &DeviceFacts,
        record: &VolumeRecord,
    ) -> impl Iterator<Item = &'a DeviceFacts> {
        self.others(facts)
            .filter(move |other| other.mapping_of(record.luks_uuid).is_some() || has_header(other, record))
    }

    /// Other disks with the same identity: two namespaces, two paths to one disk, or a forged serial number. One that a
    /// rule says to ignore does not count, unless it carries the system.
    pub(super) fn twins(&self, facts: &DeviceFacts) -> Vec<&'a DeviceFacts> {
        let counts = |other: &&DeviceFacts| {
            other.identity() == facts.identity() && (other.system.is_some() || !ignored_by_rule(self.rules, other))
        };
        self.others(facts).filter(counts).collect()
    }

    /// Whether a volume that is known only by its name may be on a disk that could not be looked at.
    pub(super) fn may_be_hidden(&self, facts: &DeviceFacts, record: &VolumeRecord) -> bool {
        let unseen = |other: &DeviceFacts| matches!(other.content, None | Some(Content::Unknown { .. }));
        let could_be = |other: &DeviceFacts| {
            other.serial.is_none() && other.size == record.size && open_on(self.state, other).is_none() && unseen(other)
        };
        record.serial.is_none() && self.others(facts).any(could_be)
    }

    /// The known volume whose open mapping this device is.
    pub(super) fn mapping_itself(&self, facts: &DeviceFacts) -> Option<&'a VolumeRecord> {
        let is_it = |v: &&VolumeRecord| {
            let mapping = self.inventory.devices.iter().find_map(|other| other.mapping_of(v.luks_uuid));
            mapping.is_some_and(|holder| holder.name == facts.name)
        };
        self.state.volumes.iter().find(is_it)
    }
}

/// Whether the first rule that matches the disk says to ignore it.
pub(super) fn ignored_by_rule(rules: &[MatchRule], facts: &DeviceFacts) -> bool {
    let first = rules.iter().find(|rule| rule.matches(facts));
    // that no rule names a disk is no word against a volume that is on it
    first.is_some_and(|rule| rule.role == RuleRole::Ignore && !rule.is_the_rest())
}

/// Whether a rule says to leave a disk alone.
pub fn is_ignored(config: &Config, facts: &DeviceFacts) -> bool {
    ignored_by_rule(&config.volumes.rules, facts)
}

/// Why no boot would open a known volume that is on this disk, although no rule says to ignore it: its rule was removed, say.
pub fn locked_out(config: &Config, facts: &DeviceFacts) -> Option<String> {
    match classify(facts, &config.volumes.rules) {
        Role::Ignored { because } | Role::Unclear { because } => {
            (!ignored_by_rule(&config.volumes.rules, facts)).then_some(because)
        }
        Role::Boot { .. } | Role::Ebs | Role::InstanceStore => None,
    }
}
