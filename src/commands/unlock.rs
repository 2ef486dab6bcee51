//! `unlock`: opens and mounts known volumes. It never formats.

use super::ciphers::Ciphers;
use super::error::CommandError;
use super::instance::Instance;
use super::lazy_kms::{LazyKms, likely_opened};
use super::orphans::remove_orphans;
use super::planning::Planning;
use super::preflight::{lock, patience_with_another_run, preflight};
use crate::apply::Apply;
use crate::config::Config;
use crate::job::Workers;
use crate::plan::Mode;
use crate::report::Report;
use crate::state::{StateDir, closed};
use crate::storage::FilesystemKind;

/// `unlock`: opens and mounts known volumes. It never formats.
///
/// # Errors
/// When it cannot begin.
pub async fn unlock(config: &Config) -> Result<Report, CommandError> {
    preflight("unlock", FilesystemKind::None)?;
    let store = lock(config, patience_with_another_run(config), StateDir::open).await?;
    let state = store.load()?;
    let host = Workers::new(config.volumes.deadline);
    let closed = closed::forget();
    let seen = remove_orphans(config, &state, &host).await?;
    let (keys, instance) = (LazyKms::new(config), Instance::new(config));
    let ciphers = Ciphers::new(&host);
    let find_likely = ciphers.usable(likely_opened(&state, seen.as_ref(), &closed));
    let planning = Planning { config, state: &state, ciphers: &ciphers, instance: &instance };
    let plan = keys.meanwhile(&state, find_likely, planning.plan(Mode::Unlock, seen)).await?;
    let apply = Apply { config, store: Some(&store), keys: &keys, host: &host, instance_id: None };
    let outcome = apply.run(&plan, state).await;
    Ok(Report::of_outcome("unlock", &plan, &outcome).measured(keys.usage(), host.stages()))
}
