//! Which volumes the node should have: what it had before and what `[volumes.expect]` asks for.
//!
//! Instance store that is gone and blank instance store that is new are the same thing: a stop gives the instance another disk
//! with another serial number.

use std::collections::BTreeMap;

use super::finding::Finding;
use super::owner::{Owner, Owners};
use super::policy::policy;
use crate::config::{Config, Policy};
use crate::disk::{DeviceFacts, Role, classify};
use crate::state::{State, VolumeRecord, VolumeRole};

/// That fewer volumes of a role are there than `[volumes.expect]` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortfall {
    /// The role.
    pub role: VolumeRole,
    /// How many there should be at least.
    pub expected: u32,
    /// How many there are.
    pub there: u32,
}

impl Shortfall {
    /// How many volumes of a role are missing, if `[volumes.expect]` asks for more than there are.
    pub fn of(config: &Config, role: VolumeRole, there: usize) -> Option<Self> {
        let there = u32::try_from(there).unwrap_or(u32::MAX);
        let expected = expected(config, role)?;
        (there < expected && policy(config, role) == Policy::Encrypt).then_some(Self { role, expected, there })
    }

    fn key(&self) -> &'static str {
        match self.role {
            VolumeRole::Ebs => "volumes.expect.ebs",
            VolumeRole::InstanceStore => "volumes.expect.instance_store",
        }
    }

    /// What a report says, and what to do about it.
    pub fn finding(&self) -> Finding {
        Finding::wrong(
            format!("found {} of at least {} {} volumes", self.there, self.expected, self.role),
            format!("attach the missing volumes, or lower {}", self.key()),
        )
    }
}

/// How many volumes of a role `[volumes.expect]` asks for.
pub(super) fn expected(config: &Config, role: VolumeRole) -> Option<u32> {
    match role {
        VolumeRole::Ebs => config.volumes.expect.ebs,
        VolumeRole::InstanceStore => config.volumes.expect.instance_store,
    }
}

/// Whether instance store made later has taken the place of an instance store volume: its mount point or its disk. That a disk has
/// the same name says nothing: names move.
pub(super) fn is_superseded(state: &State, record: &VolumeRecord) -> bool {
    let later = state.volumes.iter().skip_while(|v| v.luks_uuid != record.luks_uuid).skip(1);
    let same_place = |v: &VolumeRecord| {
        (record.serial.is_some() && v.serial == record.serial)
            || (record.mount_point.is_some() && v.mount_point == record.mount_point)
    };
    let is_store = |v: &VolumeRecord| v.role == VolumeRole::InstanceStore;
    is_store(record) && later.into_iter().any(|v| is_store(v) && same_place(v))
}

/// Whether nobody misses an instance store volume that is not there: fewer are fine, or a newer one has taken its place.
pub fn may_be_gone(config: &Config, state: &State, record: &VolumeRecord) -> bool {
    expected(config, VolumeRole::InstanceStore).is_some() || is_superseded(state, record)
}

/// The instance store disks that take the place of instance store volumes that are gone, by name: disks of the same size first,
/// then in the order of mount points and serial numbers. `may_be_formatted` says which of the unknown disks are free for it.
pub(super) fn successors<'a>(
    config: &Config,
    owners: &Owners<'a>,
    may_be_formatted: impl Fn(&DeviceFacts) -> bool,
) -> BTreeMap<String, &'a VolumeRecord> {
    let rules = &config.volumes.rules;
    if config.volumes.instance_store == Policy::Ignore {
        return BTreeMap::new();
    }
    let devices = &owners.inventory.devices;
    let is_new = |facts: &&DeviceFacts| {
        classify(facts, rules) == Role::InstanceStore
            && matches!(owners.of(facts), Owner::Nobody)
            && may_be_formatted(facts)
    };
    let mut new: Vec<&DeviceFacts> = devices.iter().filter(is_new).collect();
    let is_gone = |v: &&VolumeRecord| {
        // where its disk is there with something else on it, nobody knows what has happened
        let is_its_disk = |facts: &DeviceFacts| v.is_for(facts) && (v.serial.is_some() || v.size == facts.size);
        v.role == VolumeRole::InstanceStore
            && !owners.is_seen(v)
            && !devices.iter().any(is_its_disk)
            && !is_superseded(owners.state, v)
    };
    let mut gone: Vec<&VolumeRecord> = owners.state.volumes.iter().filter(is_gone).collect();
    gone.sort_by_key(|v| (&v.mount_point, v.luks_uuid));
    let mut successors = BTreeMap::new();
    for any_size in [false, true] {
        gone.retain(|record| {
            let fits =
                |facts: &&DeviceFacts| (any_size || facts.size == record.size) && !owners.may_be_hidden(facts, record);
            let Some(at) = new.iter().position(fits) else { return true };
            successors.insert(new.remove(at).name.clone(), *record);
            false
        });
    }
    successors
}
