//! Opens and mounts a volume.

use std::cell::RefCell;

use uuid::Uuid;

use super::context::Apply;
use super::outcome::{StepResult, failure, unrecorded};
use crate::error::chain;
use crate::job::{self, Answer, Host, Job, Target};
use crate::key::Passphrase;
use crate::kms::KeyService;
use crate::luks2::Opened;
use crate::plan::{Step, Unlock};
use crate::state::{State, VolumeRecord};
use crate::storage::MountSpec;

impl<K: KeyService, H: Host> Apply<'_, K, H> {
    pub(super) async fn unlock(
        &self,
        step: &Step,
        unlock: &Unlock,
        key: Option<&Passphrase>,
        state: &RefCell<State>,
    ) -> StepResult {
        let Unlock { luks_uuid, ref mount_point, filesystem, is_open: open, .. } = *unlock;
        let Some(expected) = state.borrow().expected(luks_uuid) else { return unrecorded(luks_uuid) };
        let options = &self.config.filesystem.options;
        let mount = mount_point.clone().map(|at| MountSpec { at, filesystem, options: options.clone() });
        let mapper = step.device.mapper_of(luks_uuid);
        let job = Job::Unlock(job::Unlock { target: Target::from(&step.device), expected, mapper, open, mount });
        match self.host.run(&step.device.name, job, key.as_slice()).await {
            Ok(Answer::Unlocked { opened, filesystem_errors, warning }) => {
                // the record is of the keyslot that the data key opens
                if let Some(opened) = opened
                    && key.is_some_and(|key| !key.is_recovery_key())
                {
                    self.record_opened(step, luks_uuid, &opened, state);
                }
                if let Some(warning) = &warning {
                    tracing::warn!(device = step.device.name, "{}: {warning}", step.device.name);
                }
                StepResult::Unlocked { luks_uuid, filesystem_errors, warning }
            }
            other => failure(other),
        }
    }

    /// Records the keyslot and the volume key that the key has just opened, if the state file has another one or none: an earlier release
    /// made the volume, somebody changed the keyslot, or the end of a re-encryption was not recorded. If that fails, the volume stays open.
    fn record_opened(&self, step: &Step, luks_uuid: Uuid, opened: &Opened, state: &RefCell<State>) {
        let record = |volume: &mut VolumeRecord| {
            volume.keyslot = Some(opened.keyslot.clone());
            let has_new =
                opened.volume_key.is_some() && volume.volume_key.is_some() && opened.volume_key != volume.volume_key;
            if has_new && volume.is_reencrypting() {
                volume.volume_key_change = None;
            }
            // stays as it is while the header has two volume keys
            volume.volume_key = opened.volume_key.clone().or(volume.volume_key.take());
        };
        let Some(before) = state.borrow().volume(luks_uuid).cloned() else { return };
        let mut after = before.clone();
        record(&mut after);
        if after == before {
            return;
        }
        let recorded =
            self.update(state, |s| s.volumes.iter_mut().filter(|v| v.luks_uuid == luks_uuid).for_each(record));
        if let Err(e) = recorded {
            let device = &step.device.name;
            tracing::warn!(
                device,
                "{device}: its keyslot was not recorded, and 'health' cannot check it: {}",
                chain(e)
            );
        }
    }
}
