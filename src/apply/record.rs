//! Changes to the state file, except for intents.

use std::cell::RefCell;

use super::context::Apply;
use crate::error::chain;
use crate::job::Host;
use crate::kms::KeyService;
use crate::plan::Change;
use crate::state::{State, StateError};

impl<K: KeyService, H: Host> Apply<'_, K, H> {
    /// Writes the changes of a plan to the state file. If that fails, for example because the boot volume is full,
    /// volumes are opened all the same, and the next run finds the same changes.
    pub(super) fn record(&self, changes: &[&Change], state: &mut State) {
        let mut next = state.clone();
        for change in changes {
            match change {
                Change::Forget { luks_uuid } => next.volumes.retain(|v| v.luks_uuid != *luks_uuid),
                Change::Moved { luks_uuid, serial, device } => {
                    let volume = next.volumes.iter_mut().find(|v| v.luks_uuid == *luks_uuid);
                    if let Some(volume) = volume {
                        let former = volume.serial.replace(serial.clone());
                        volume.former_serials.retain(|known| known != serial);
                        volume.former_serials.extend(former);
                        volume.device.clone_from(device);
                    }
                }
            }
        }
        self.save_changes(next, state);
    }

    /// Restores the recorded disks of volumes that were not opened on another disk after all.
    pub(super) fn undo(&self, unused: &[&Change], before: &State, state: &mut State) {
        let mut next = state.clone();
        for change in unused {
            let Change::Moved { luks_uuid, .. } = change else { continue };
            let volume = next.volumes.iter_mut().find(|v| v.luks_uuid == *luks_uuid);
            if let (Some(volume), Some(was)) = (volume, before.volume(*luks_uuid)) {
                volume.serial.clone_from(&was.serial);
                volume.device.clone_from(&was.device);
                volume.former_serials.clone_from(&was.former_serials);
            }
        }
        self.save_changes(next, state);
    }

    pub(super) fn save_changes(&self, next: State, state: &mut State) {
        if next == *state {
            return;
        }
        match self.save(&next) {
            Ok(()) => *state = next,
            Err(e) => tracing::warn!("could not update the state file: {}; the next run tries again", chain(e)),
        }
    }

    /// Changes the state file and, once that is durable, the state in memory.
    pub(super) fn update(&self, state: &RefCell<State>, change: impl FnOnce(&mut State)) -> Result<(), StateError> {
        let mut next = state.borrow().clone();
        change(&mut next);
        self.save(&next)?;
        *state.borrow_mut() = next;
        Ok(())
    }

    pub(super) fn save(&self, state: &State) -> Result<(), StateError> {
        self.store.map_or(Ok(()), |store| store.save(state))
    }
}
