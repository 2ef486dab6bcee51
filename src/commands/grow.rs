//! `grow`: grows open volumes to the size of their disks.

use super::error::CommandError;
use super::lazy_kms::LazyKms;
use super::open_volumes::open_volumes;
use super::preflight::{lock, patience_with_another_run, preflight};
use super::survey::Disks;
use crate::apply::Apply;
use crate::config::Config;
use crate::job::Workers;
use crate::plan::{Mode, plan};
use crate::report::Report;
use crate::state::StateDir;
use crate::storage::{FilesystemKind, check_growing_tools};

/// `grow`: grows the open volumes called `names`, or all if there are none, to the size of their disks.
///
/// # Errors
/// When it cannot begin, or one of the names is not an open volume.
pub async fn grow(config: &Config, names: &[String]) -> Result<Report, CommandError> {
    preflight("grow", FilesystemKind::None)?;
    let store = lock(config, patience_with_another_run(config), StateDir::open).await?;
    let state = store.load()?;
    check_growing_tools(state.volumes.iter().map(|volume| volume.filesystem))?;
    let inventory = Disks::briefly(config).inventory().await?;
    let mut plan = plan(Mode::Grow, config, &state, &inventory);
    if !names.is_empty() {
        let wanted = open_volumes(&state, &inventory, names)?;
        let wanted = |name: &str| wanted.iter().any(|volume| volume.disk.name == name);
        plan.steps.retain(|step| wanted(&step.device.name));
        plan.refusals.retain(|refusal| refusal.subject.device.as_deref().is_some_and(wanted));
        plan.left.retain(|left| left.subject.device.as_deref().is_some_and(wanted));
    }
    let (keys, host) = (LazyKms::new(config), Workers::new(config.volumes.deadline));
    let apply = Apply { config, store: Some(&store), keys: &keys, host: &host, instance_id: None };
    let outcome = apply.run(&plan, state).await;
    Ok(Report::of_outcome("grow", &plan, &outcome).measured(keys.usage(), host.stages()))
}
