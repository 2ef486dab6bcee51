//! Grows a volume.

use std::cell::RefCell;

use super::context::Apply;
use super::outcome::{StepResult, failure, unrecorded};
use crate::error::chain;
use crate::job::{self, Answer, Host, Job, Target};
use crate::key::Passphrase;
use crate::kms::KeyService;
use crate::plan::{Grow, Step};
use crate::state::State;

impl<K: KeyService, H: Host> Apply<'_, K, H> {
    /// Grows a volume and then updates its recorded size. Until the size is recorded, the next run looks at the volume
    /// again.
    pub(super) async fn grow(
        &self,
        step: &Step,
        grow: &Grow,
        key: Option<&Passphrase>,
        state: &RefCell<State>,
    ) -> StepResult {
        let luks_uuid = grow.luks_uuid;
        let Some(expected) = state.borrow().expected(luks_uuid) else { return unrecorded(luks_uuid) };
        let job = Job::Grow(job::Grow {
            target: Target::from(&step.device),
            expected,
            mapper: step.device.mapper_of(luks_uuid),
            mapping: grow.grows_mapping,
            filesystem: grow.filesystem,
            mount_point: grow.mount_point.clone(),
        });
        let result = match self.host.run(&step.device.name, job, key.as_slice()).await {
            Ok(Answer::Grown) => StepResult::Grown,
            Ok(Answer::Unchanged) => StepResult::Unchanged,
            other => return failure(other),
        };
        let size = step.device.size;
        if state.borrow().volume(luks_uuid).is_some_and(|volume| volume.size == size) {
            return result;
        }
        let recorded = self.update(state, |s| {
            s.volumes.iter_mut().filter(|v| v.luks_uuid == luks_uuid).for_each(|v| v.size = size);
        });
        match recorded {
            Ok(()) => result,
            Err(e) => StepResult::Failed { message: format!("grown, but its size was not recorded: {}", chain(e)) },
        }
    }
}
