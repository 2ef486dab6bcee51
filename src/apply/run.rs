//! The order of all steps of a plan.

use std::cell::RefCell;
use std::collections::BTreeSet;

use futures_util::future::join_all;

use super::context::Apply;
use super::keys::{Keys, is_new, keys_to_unwrap};
use super::outcome::{Outcome, StepResult};
use super::replace_key::without_replaced;
use crate::error::chain;
use crate::job::Host;
use crate::key::Passphrase;
use crate::kms::KeyService;
use crate::plan::{Action, Change, Plan, Unlock};
use crate::state::State;

/// Returns the index of the step that opens the volume of a change.
fn step_of(plan: &Plan, change: &Change) -> Option<usize> {
    let Change::Moved { luks_uuid: moved, .. } = change else { return None };
    plan.steps.iter().position(
        |step| matches!(&step.action, Action::Unlock(Unlock { luks_uuid, is_open: false, .. }) if luks_uuid == moved),
    )
}

/// Whether the key is there that opens the volume of a change.
fn has_key(plan: &Plan, change: &Change, keys: &Keys) -> bool {
    let step = step_of(plan, change).and_then(|at| plan.steps.get(at));
    step.is_some_and(|step| matches!(&step.action, Action::Unlock(unlock) if keys.get(unlock.key).is_some()))
}

impl<K: KeyService, H: Host> Apply<'_, K, H> {
    /// Carries out a plan, on all disks at once. A disk that fails or hangs does not stop the others.
    pub async fn run(&self, plan: &Plan, state: State) -> Outcome {
        self.carry_out(plan, state, Keys::default()).await
    }

    /// Carries out a plan that formats and grows nothing, with a recovery key and without the key service.
    pub async fn run_with_recovery_key(&self, plan: &Plan, state: State, recovery: Passphrase) -> Outcome {
        self.carry_out(plan, state, Keys::of_recovery_key(recovery)).await
    }

    async fn carry_out(&self, plan: &Plan, mut state: State, mut keys: Keys) -> Outcome {
        // the record of a volume that is yet to be opened changes when there is a key for it
        let (moved, known): (Vec<_>, Vec<_>) = plan.changes.iter().partition(|change| step_of(plan, change).is_some());
        self.record(&known, &mut state);
        // all at once, so that the run waits only once for a service that does not answer
        let wanted = if keys.are_wrapped() { keys_to_unwrap(plan, &state) } else { BTreeSet::new() };
        let unwrapped = join_all(wanted.iter().map(|id| self.unwrap(&state, *id))).await;
        for (id, result) in wanted.into_iter().zip(unwrapped) {
            keys.insert(id, result);
        }
        let mut key = None;
        if keys.are_wrapped() && plan.steps.iter().any(|step| is_new(&step.action)) {
            match self.key_for_new_volumes(&mut state, &mut keys).await {
                Ok(found) => key = found,
                Err(e) => keys.fail(e),
            }
        }
        let intents = self.record_intents(plan, &mut state, key);
        // before the volume is used, so that a power cut does not leave the older copy recorded
        let before = state.clone();
        let moved: Vec<_> = moved.into_iter().filter(|change| has_key(plan, change, &keys)).collect();
        self.record(&moved, &mut state);
        let state = RefCell::new(state);
        let steps = plan.steps.iter().enumerate().map(async |(index, step)| {
            let result = match &step.action {
                Action::Format(format) => match intents.as_ref().map(|intents| intents.get(&index)) {
                    Ok(Some(intent)) => self.format(step, format, intent, &state, &keys).await,
                    Ok(None) => StepResult::NoKey,
                    Err(e) => StepResult::Failed { message: format!("not formatted: {}", chain(e)) },
                },
                Action::Unlock(unlock) => match keys.get(unlock.key) {
                    None if !unlock.is_open => StepResult::NoKey,
                    passphrase => self.unlock(step, unlock, passphrase, &state).await,
                },
                Action::Rekey(_) if !keys.are_wrapped() => StepResult::NoKey,
                Action::Rekey(rekey) => self.rekey(step, rekey.luks_uuid, &state, &keys).await,
                Action::Grow(grow) => match keys.get(grow.key) {
                    None if grow.grows_mapping => StepResult::NoKey,
                    passphrase => self.grow(step, grow, passphrase, &state).await,
                },
            };
            tracing::debug!(device = step.device.name, ?result, "step ended");
            result
        });
        let results = join_all(steps).await;
        // a volume whose worker hangs may still get mounted
        let is_unused = |change: &&&Change| {
            let result = step_of(plan, change).and_then(|at| results.get(at));
            !matches!(result, Some(StepResult::Unlocked { .. } | StepResult::Hung { .. }))
        };
        let unused: Vec<_> = moved.iter().filter(is_unused).copied().collect();
        let mut state = state.into_inner();
        self.undo(&unused, &before, &mut state);
        self.save_changes(without_replaced(&state), &mut state);
        Outcome { results, key_error: keys.error }
    }
}
