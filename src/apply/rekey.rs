//! Changes the key of a volume: adds the new one, records it, removes the former one, records that.
//!
//! Each record is durable before the next change of the disk, so a run that is killed anywhere is continued by the next one, and the key
//! in the record opens the volume at every moment.

use std::cell::RefCell;

use uuid::Uuid;

use super::context::Apply;
use super::keys::Keys;
use super::outcome::{StepResult, failure, unrecorded};
use crate::error::chain;
use crate::job::{AddKey, Answer, Host, Job, RemoveKey, Target};
use crate::kms::KeyService;
use crate::luks2::{ProvenKeyslot, Token};
use crate::plan::Step;
use crate::state::{KeyChange, KeyRecord, State, VolumeRecord};

impl<K: KeyService, H: Host> Apply<'_, K, H> {
    /// Changes the key of a volume to the one that takes its place, or finishes a change that was interrupted.
    pub(super) async fn rekey(&self, step: &Step, luks_uuid: Uuid, state: &RefCell<State>, keys: &Keys) -> StepResult {
        loop {
            let Some(volume) = state.borrow().volume(luks_uuid).cloned() else { return unrecorded(luks_uuid) };
            let wanted = state.borrow().wanted_key(&volume);
            let done = match volume.key_change {
                None if wanted == volume.key => return StepResult::Rekeyed { warning: None },
                None => self.change(state, luks_uuid, |v| v.key_change = Some(KeyChange::Adding { key: wanted })),
                Some(KeyChange::Adding { key }) => self.add_key(step, &volume, key, state, keys).await,
                Some(KeyChange::Removing { ref keyslot, .. }) => {
                    match self.remove_key(step, &volume, keyslot, state, keys).await {
                        // the next change, if there is one, is left to the next run
                        Ok(warning) => return StepResult::Rekeyed { warning },
                        Err(result) => Err(result),
                    }
                }
            };
            if let Err(result) = done {
                return result;
            }
        }
    }

    async fn add_key(
        &self,
        step: &Step,
        volume: &VolumeRecord,
        added: u32,
        state: &RefCell<State>,
        keys: &Keys,
    ) -> Result<(), StepResult> {
        let luks_uuid = volume.luks_uuid;
        let expected = state.borrow().expected(luks_uuid);
        let source = state.borrow().key(added).map(KeyRecord::source);
        let (Some(expected), Some(source)) = (expected, source) else { return Err(unrecorded(luks_uuid)) };
        let (Some(own), Some(new)) = (keys.get(volume.key), keys.get(added)) else { return Err(StepResult::NoKey) };
        let token = Token::new(source, self.instance_id.clone().or_else(|| state.borrow().instance_id.clone()));
        let job = Job::AddKey(AddKey { target: Target::from(&step.device), expected, token });
        let (own, keyslot) = match self.host.run(&step.device.name, job, &[own, new]).await {
            Ok(Answer::KeyAdded { own, added }) => (own, added),
            other => return Err(failure(other)),
        };
        let former = KeyChange::Removing { key: volume.key, keyslot: own };
        self.change(state, luks_uuid, |v| {
            v.key = added;
            v.keyslot = Some(keyslot);
            v.key_change = Some(former);
        })
    }

    /// Removes the former key. Returns a warning if its keyslot had to stay.
    async fn remove_key(
        &self,
        step: &Step,
        volume: &VolumeRecord,
        keyslot: &ProvenKeyslot,
        state: &RefCell<State>,
        keys: &Keys,
    ) -> Result<Option<String>, StepResult> {
        let luks_uuid = volume.luks_uuid;
        let expected = state.borrow().expected(luks_uuid).ok_or_else(|| unrecorded(luks_uuid))?;
        let own = keys.get(volume.key).ok_or(StepResult::NoKey)?;
        let target = Target::from(&step.device);
        let job = Job::RemoveKey(RemoveKey { target, expected, keyslot: keyslot.clone() });
        let left = match self.host.run(&step.device.name, job, &[own]).await {
            Ok(Answer::KeyRemoved { left }) => left,
            other => return Err(failure(other)),
        };
        self.change(state, luks_uuid, |v| v.key_change = None)?;
        Ok(left.map(|number| {
            format!(
                "keyslot {number} is left: it has changed since the former key opened it, so it is not luks-agent's; see 'cryptsetup luksDump {}'",
                step.device.path.display()
            )
        }))
    }

    /// Changes the record of a volume durably.
    fn change(
        &self,
        state: &RefCell<State>,
        luks_uuid: Uuid,
        change: impl FnOnce(&mut VolumeRecord),
    ) -> Result<(), StepResult> {
        let changed =
            self.update(state, |s| s.volumes.iter_mut().find(|v| v.luks_uuid == luks_uuid).map_or((), change));
        changed.map_err(|e| StepResult::Failed { message: chain(e) })
    }
}
