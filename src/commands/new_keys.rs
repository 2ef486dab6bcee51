//! What `rotate` and `rewrap` share: replace the keys in the state file, then change those of the volumes.

use super::ciphers::Ciphers;
use super::error::CommandError;
use super::instance::Instance;
use super::lazy_kms::LazyKms;
use super::planning::Planning;
use super::preflight::{lock, patience_with_another_run, preflight};
use crate::apply::{Apply, KeyError, Outcome, StepResult};
use crate::config::Config;
use crate::job::{Host, Workers};
use crate::kms::KeyService;
use crate::plan::{Mode, Plan};
use crate::report::Report;
use crate::state::{State, StateDir};
use crate::storage::FilesystemKind;

/// The keys that take the place of those that the volumes have.
#[derive(Debug, Clone, Copy)]
pub(super) enum Replacement<'a> {
    /// One new data key for all volumes.
    NewDataKey,
    /// The same data keys, wrapped with another KMS key: its ARN, ID or alias.
    OtherKmsKey(&'a str),
}

impl Replacement<'_> {
    fn command(self) -> &'static str {
        match self {
            Self::NewDataKey => "rotate",
            Self::OtherKmsKey(_) => "rewrap",
        }
    }

    async fn make<K: KeyService, H: Host>(self, apply: &Apply<'_, K, H>, state: &mut State) -> Result<(), KeyError> {
        match self {
            Self::NewDataKey => apply.rotate(state).await,
            Self::OtherKmsKey(to) => apply.rewrap(state, to).await,
        }
    }
}

/// Replaces the keys of the node, and changes those of all attached volumes. Volumes that are away follow when they come back.
///
/// If an earlier change was interrupted, it is finished first; `rotate` then makes no other data key.
pub(super) async fn replace_keys(config: &Config, with: Replacement<'_>) -> Result<Report, CommandError> {
    preflight(with.command(), FilesystemKind::None)?;
    let store = lock(config, patience_with_another_run(config), StateDir::open).await?;
    let mut state = store.load()?;
    if let Some(volume) = state.volumes.iter().find(|volume| volume.is_reencrypting()) {
        return Err(CommandError::Reencrypting(volume.luks_uuid));
    }
    let host = Workers::new(config.volumes.deadline);
    let (keys, instance, ciphers) = (LazyKms::new(config), Instance::new(config), Ciphers::new(&host));
    let plan = async |state: &State| {
        let planning = Planning { config, state, ciphers: &ciphers, instance: &instance };
        planning.plan(Mode::Rekey, None).await
    };
    let apply = Apply { config, store: Some(&store), keys: &keys, host: &host, instance_id: instance.id().await };
    let report = |plan: &Plan, outcome: &Outcome, state: &State| {
        let report = Report::of_outcome(with.command(), plan, outcome).summarised(summary(with, state, outcome));
        report.measured(keys.usage(), host.stages())
    };
    let interrupted = plan(&state).await?;
    if !interrupted.steps.is_empty() {
        tracing::warn!("finishing a change of keys that was interrupted: {} volumes", interrupted.steps.len());
        let outcome = apply.run(&interrupted, state).await;
        state = store.load()?;
        let is_done = outcome.key_error.is_none() && outcome.results.iter().all(StepResult::is_rekeyed);
        if matches!(with, Replacement::NewDataKey) || !is_done {
            return Ok(report(&interrupted, &outcome, &state));
        }
    }
    if let Err(e) = with.make(&apply, &mut state).await {
        let outcome = Outcome { results: Vec::new(), key_error: Some(e) };
        return Ok(report(&Plan::default(), &outcome, &state));
    }
    let plan = plan(&state).await?;
    let outcome = apply.run(&plan, state).await;
    Ok(report(&plan, &outcome, &store.load()?))
}

/// Returns the outcome in one line.
fn summary(with: Replacement<'_>, state: &State, outcome: &Outcome) -> String {
    let done = outcome.results.iter().filter(|result| result.is_rekeyed()).count();
    let behind = state.volumes.iter().filter(|volume| state.is_behind(volume)).count();
    let what = match with {
        Replacement::NewDataKey => "the new data key",
        Replacement::OtherKmsKey(_) => "the new wrapped key",
    };
    match (done, behind) {
        (0, 0) => "nothing to change".to_owned(),
        (done, 0) => format!("{done} volumes have {what}, the former one is removed"),
        (done, behind) => {
            format!("{done} volumes have {what}, {behind} still have the former one, which stays recorded")
        }
    }
}
