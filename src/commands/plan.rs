//! `plan`: what `provision` would do.

use super::ciphers::Ciphers;
use super::error::CommandError;
use super::instance::Instance;
use super::planning::Planning;
use super::preflight::need_root;
use crate::config::Config;
use crate::job::Workers;
use crate::plan::Mode;
use crate::report::Report;
use crate::state;

/// `plan`: reports what `provision` would do.
///
/// # Errors
/// When the state file or the disks cannot be read.
pub async fn show_plan(config: &Config) -> Result<Report, CommandError> {
    need_root("plan")?;
    let state = state::read(&config.state.dir)?.unwrap_or_default();
    let host = Workers::new(config.volumes.deadline);
    let planning = Planning { config, state: &state, ciphers: &Ciphers::new(&host), instance: &Instance::new(config) };
    let plan = planning.plan(Mode::Provision, None).await?;
    Ok(Report::of_plan(&plan))
}
