//! The node as a command sees it: what there should be, and what there is.

use crate::config::Config;
use crate::disk::{DeviceFacts, Holder, Inventory};
use crate::plan::{disk_of, may_be_gone};
use crate::state::{State, VolumeRecord, VolumeRole};

/// The configuration, the state file and the disks that are there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node<'a> {
    pub(super) config: &'a Config,
    pub(super) state: &'a State,
    pub(super) inventory: &'a Inventory,
}

impl<'a> Node<'a> {
    /// Returns the disk of a known volume, if it is there.
    pub(super) fn disk_of(&self, volume: &VolumeRecord) -> Option<&'a DeviceFacts> {
        disk_of(self.state, volume, &self.inventory.devices)
    }

    /// Whether a volume was instance store that is gone and not expected back.
    pub(super) fn is_gone_for_good(&self, volume: &VolumeRecord) -> bool {
        volume.role == VolumeRole::InstanceStore
            && self.disk_of(volume).is_none()
            && may_be_gone(self.config, self.state, volume)
    }
}

/// Whether a mapping belongs to a volume in the state file.
pub fn is_known(state: &State, mapping: &Holder) -> bool {
    state.volumes.iter().any(|volume| Some(volume.luks_uuid) == mapping.luks_uuid())
}
