//! The volumes that the node should have: those it had before, and as many as `[volumes.expect]` asks for.
//!
//! Instance store that is gone and new, blank instance store are the same thing: a stop gives the instance another disk
//! with another serial number.

use std::collections::BTreeMap;

use super::finding::Finding;
use super::owner::{Owner, Owners};
use super::policy::policy;
use crate::config::{Config, Policy};
use crate::disk::{DeviceFacts, Role, classify};
use crate::state::{State, VolumeRecord, VolumeRole};

/// A role with fewer volumes than `[volumes.expect]` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortfall {
    /// The role.
    pub role: VolumeRole,
    /// The minimum number of volumes.
    pub expected: u32,
    /// The number of volumes found.
    pub there: u32,
}

impl Shortfall {
    /// Returns the shortfall of a role, if `[volumes.expect]` asks for more volumes than there are.
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

    /// Returns what a report says about it.
    pub fn finding(&self) -> Finding {
        Finding::wrong(
            format!("found {} of at least {} {} volumes", self.there, self.expected, self.role),
            format!("attach the missing volumes, or lower {}", self.key()),
        )
    }
}

/// Returns how many volumes of a role `[volumes.expect]` asks for.
pub(super) fn expected(config: &Config, role: VolumeRole) -> Option<u32> {
    match role {
        VolumeRole::Ebs => config.volumes.expect.ebs,
        VolumeRole::InstanceStore => config.volumes.expect.instance_store,
    }
}

/// Whether newer instance store has taken the mount point or the disk of an instance store volume. The name of the disk
/// proves nothing: names change.
pub(super) fn is_superseded(state: &State, record: &VolumeRecord) -> bool {
    let later = state.volumes.iter().skip_while(|v| v.luks_uuid != record.luks_uuid).skip(1);
    let same_place = |v: &VolumeRecord| {
        (record.serial.is_some() && v.serial == record.serial)
            || (record.mount_point.is_some() && v.mount_point == record.mount_point)
    };
    let is_store = |v: &VolumeRecord| v.role == VolumeRole::InstanceStore;
    is_store(record) && later.into_iter().any(|v| is_store(v) && same_place(v))
}

/// Whether a missing instance store volume is not an error: fewer are enough, or a newer one has replaced it.
pub fn may_be_gone(config: &Config, state: &State, record: &VolumeRecord) -> bool {
    expected(config, VolumeRole::InstanceStore).is_some() || is_superseded(state, record)
}

/// Returns the instance store disks that replace instance store volumes that are gone, by name of the disk.
///
/// Disks of the same size come first, then the order of mount points and serial numbers decides. `may_be_formatted`
/// says which unknown disks are free.
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
        // its disk is attached and holds something else: nobody knows what happened
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
