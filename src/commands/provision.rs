//! `provision` and `boot`: unlock known volumes, and format new and blank disks.

use super::ciphers::Ciphers;
use super::error::CommandError;
use super::instance::Instance;
use super::lazy_kms::{LazyKms, likely_opened};
use super::orphans::remove_orphans;
use super::planning::Planning;
use super::preflight::{lock, patience_with_another_run, preflight};
use super::security_configuration::record;
use super::waiting::plan_until_complete;
use crate::apply::Apply;
use crate::config::Config;
use crate::job::Workers;
use crate::plan::{Action, Change, Mode, Plan, Step, Unlock};
use crate::report::{Report, Row, Verdict, planned};
use crate::state::closed::{self, Closed};
use crate::state::{Phase, State, StateDir};
use crate::storage::check_growing_tools;

/// Who runs `provision`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// A person: `luks-agent provision`.
    Typed,
    /// The daemon. It leaves alone volumes that somebody closed and, once the node has volumes, other disks.
    Daemon,
    /// The boot service: `luks-agent boot`. It waits for the volumes that `[volumes.expect]` asks for. Once the node has volumes, it
    /// names other disks without failing because of them, as `unlock` does.
    Boot,
}

impl Occasion {
    fn command(self) -> &'static str {
        match self {
            Self::Typed | Self::Daemon => "provision",
            Self::Boot => "boot",
        }
    }
}

/// `provision` and `boot`: unlocks known volumes, formats new and blank disks, and mounts both.
///
/// # Errors
/// When it cannot begin.
pub async fn provision(config: &Config, occasion: Occasion) -> Result<Report, CommandError> {
    preflight(occasion.command(), config.filesystem.kind)?;
    let store = lock(config, patience_with_another_run(config), StateDir::create).await?;
    let mut state = store.load()?;
    record(config, &mut state, &store, occasion == Occasion::Typed)?;
    // at boot nothing is open yet that could grow, so a boot must not fail because a tool for growing is missing
    if config.volumes.grow && occasion != Occasion::Boot {
        check_growing_tools(state.volumes.iter().map(|volume| volume.filesystem))?;
    }
    let host = Workers::new(config.volumes.deadline);
    let closed = if occasion == Occasion::Daemon { closed::read_still_closed() } else { closed::forget() };
    let seen = remove_orphans(config, &state, &host).await?;
    let instance = Instance::new(config);
    let keys = LazyKms::new(config);
    let ciphers = Ciphers::new(&host);
    let find_likely = ciphers.usable(likely_opened(&state, seen.as_ref(), &closed));
    let planning = Planning { config, state: &state, ciphers: &ciphers, instance: &instance };
    let plan = async {
        let mut plan = match occasion {
            Occasion::Typed | Occasion::Daemon => planning.plan(Mode::Provision, seen).await?,
            Occasion::Boot => plan_until_complete(&planning, seen).await?,
        };
        // the first boot must deal with every disk, a later one only with the volumes of the node
        if occasion != Occasion::Typed && has_volumes(&state) {
            plan.leave_strangers();
        }
        Ok(plan)
    };
    let mut plan = keys.meanwhile(&state, find_likely, plan).await?;
    let left = leave_closed(&mut plan, &closed);
    let formats = plan.steps.iter().any(|step| matches!(step.action, Action::Format(_)));
    let instance_id = if formats { instance.id().await } else { None };
    let apply = Apply { config, store: Some(&store), keys: &keys, host: &host, instance_id };
    let outcome = apply.run(&plan, state).await;
    let report = Report::of_outcome(occasion.command(), &plan, &outcome).with_rows(left);
    Ok(report.measured(keys.usage(), host.stages()))
}

/// Whether the node has volumes. If so, this is not its first boot.
fn has_volumes(state: &State) -> bool {
    state.volumes.iter().any(|volume| volume.phase == Phase::Committed)
}

/// Removes the unlocking of volumes that somebody closed from a plan. Returns their rows.
fn leave_closed(plan: &mut Plan, closed: &[Closed]) -> Vec<Row> {
    let is_closed = |step: &mut Step| {
        let Action::Unlock(Unlock { luks_uuid, is_open: false, .. }) = step.action else { return false };
        closed.iter().any(|closed| closed.is(luks_uuid, &step.device))
    };
    let left: Vec<Step> = plan.steps.extract_if(.., is_closed).collect();
    let is_left = |change: &Change| {
        let Change::Moved { luks_uuid: moved, .. } = change else { return false };
        left.iter().any(|step| matches!(&step.action, Action::Unlock(unlock) if unlock.luks_uuid == *moved))
    };
    plan.changes.retain(|change| !is_left(change));
    let row = |step: Step| Row {
        result: Verdict::Closed,
        ..planned(&step).because("closed with 'luks-agent close'; 'luks-agent unlock' opens it")
    };
    left.into_iter().map(row).collect()
}
