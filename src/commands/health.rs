//! `health`: checks that a reboot would unlock every volume.

mod check;
mod diagnosis;
mod keys;
mod proof;
mod strangers;
mod unknown;
mod without_state;

use std::collections::BTreeSet;

use check::{check, interrupted, is_left_alone, shortfalls};
use diagnosis::{Diagnosis, diagnosed, diagnosis, summary};
use futures_util::future::join_all;
pub(super) use proof::Proof;
use strangers::strangers;
use unknown::{look_for_unknown, unknown_rows};
use without_state::without_state;

use super::error::CommandError;
use super::lazy_kms::LazyKms;
use super::node::Node;
use super::preflight::need_root;
use super::security_configuration::change;
use super::survey::Disks;
use crate::config::Config;
use crate::discover::{Roots, in_memory};
use crate::job::Workers;
use crate::plan::is_ignored;
use crate::report::Report;
use crate::state::{self, Phase, VolumeRecord};

/// `health`: checks that a reboot would unlock every volume.
///
/// # Errors
/// When the disks or the state file cannot be read.
pub async fn health(config: &Config) -> Result<Report, CommandError> {
    look("health", config, Proof::DryRun).await
}

/// Looks at the keys, the state file and every volume for `command`, which proves as much as it asks for.
pub(super) async fn look(command: &'static str, config: &Config, proof: Proof) -> Result<Report, CommandError> {
    need_root(command)?;
    let state = state::read(&config.state.dir)?;
    let provisioned = state.is_some();
    let state = state.unwrap_or_default();
    if let Some(change) = change(config, &state) {
        tracing::warn!("{change}");
    }
    let mut inventory = Disks::briefly(config).inventory().await?;
    let host = Workers::new(config.volumes.deadline);
    look_for_unknown(config, &state, &mut inventory, &host).await;
    let node = Node { config, state: &state, inventory: &inventory };
    let unknown = unknown_rows(node);
    if !provisioned {
        return Ok(without_state(command, node, unknown));
    }
    let committed = || state.volumes.iter().filter(|volume| volume.phase == Phase::Committed);
    let is_wanted = |volume: &&VolumeRecord| !node.is_gone_for_good(volume) && !is_left_alone(node, volume);
    let used: BTreeSet<u32> = committed().filter_map(|volume| Some(state.key_to_unwrap(volume.key)?.id)).collect();
    let kms = LazyKms::new(config);
    let used = state.keys.iter().filter(|key| used.contains(&key.id));
    let keys = join_all(used.map(|key| proof.ask(&kms, key))).await;
    let checks = committed().filter(is_wanted).map(async |volume| {
        let row = check(node, volume, &host).await;
        proof.of(node, volume, row, &keys, &host).await
    });
    let mut rows = join_all(checks).await;
    rows.extend(interrupted(node));
    rows.extend(shortfalls(config, |role| {
        let is_there = |volume: &&VolumeRecord| {
            volume.role == role && node.disk_of(volume).is_some_and(|facts| !is_ignored(config, facts))
        };
        committed().filter(is_wanted).filter(is_there).count()
    }));
    rows.extend(strangers(node, &unknown));
    rows.extend(unknown);
    let keys: Vec<_> = keys.into_iter().map(|key| key.finding).collect();
    let summary = summary(&keys, &rows);
    // if this cannot be determined, the next run that writes there reports it
    let volatile = in_memory(&Roots::host(), &config.state.dir).ok().flatten();
    let volatile = volatile.map(|on| Diagnosis::fatal(&format!("the state directory is on {on}")));
    let wrong = volatile.or_else(|| diagnosis(&keys, &rows));
    let report = Report::new(command, rows, summary).of_keys(keys).measured(kms.usage(), host.stages());
    Ok(diagnosed(report, wrong))
}
