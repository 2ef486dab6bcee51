//! `status`: shows every disk, from sysfs and the state file. It opens no device.

use super::error::CommandError;
use super::node::Node;
use super::survey::Disks;
use crate::config::{Config, Policy};
use crate::discover::{Roots, discover};
use crate::disk::{DeviceFacts, Role, classify};
use crate::plan::{FINISH_ERASING, Subject, has_our_name, name_it, record_of, unknown_mapping};
use crate::report::{DataKeys, ERASING, HAS_FORMER_KEY, Health, REENCRYPTING, Report, Row, Verdict, last};
use crate::state::{self, Phase, State, VolumeRecord};

/// `status`: shows every disk, from sysfs and the state file. It opens no device.
///
/// # Errors
/// When the disks or the state file cannot be read.
pub async fn status(config: &Config) -> Result<Report, CommandError> {
    let state = state::read(&config.state.dir)?;
    let provisioned = state.is_some();
    let state = state.unwrap_or_default();
    let inventory = Disks::briefly(config).inventory().await?;
    let rows = status_rows(Node { config, state: &state, inventory: &inventory });
    let mut summary = summary(&rows);
    if !provisioned {
        let open = inventory.devices.iter().any(|facts| is_open_and_unknown(&state, facts));
        summary.push_str(if open { "; there is no state file" } else { "; this node was never provisioned" });
    }
    if let Some(reason) = &inventory.boot_unresolved {
        summary.push_str(&format!("; the boot disk could not be resolved, so nothing can be formatted: {reason}"));
    }
    let health = last::read("health").map(|last| {
        summary.push_str(&format!("; health at {:.0}: {}", last.ended, last.text()));
        Health { ended: last.ended, exit_code: last.exit_code, text: last.text().to_owned() }
    });
    Ok(Report::new("status", rows, summary).with_health(health))
}

/// Returns how many volumes are in which state.
fn summary(rows: &[Row]) -> String {
    let count = |what: Verdict| rows.iter().filter(|row| row.result == what).count();
    let mut summary = format!(
        "{} open, {} locked, {} missing, {} new",
        count(Verdict::Open) + count(Verdict::NotMounted),
        count(Verdict::Locked),
        count(Verdict::Missing),
        count(Verdict::New)
    );
    let is_unclear = |row: &&Row| row.result == Verdict::Left && row.remedy.is_some();
    match rows.iter().filter(is_unclear).count() {
        0 => {}
        unclear => summary.push_str(&format!(", {unclear} unclear and not encrypted")),
    }
    summary
}

/// Returns the rows of `status` and the state of the data keys, from sysfs and the state file alone: it does not ask IMDS what Xen disks
/// are.
///
/// # Errors
/// When the disks or the state file cannot be read.
pub fn local_status(config: &Config) -> Result<(Vec<Row>, DataKeys), CommandError> {
    let state = state::read(&config.state.dir)?.unwrap_or_default();
    let inventory = discover(&Roots::host(), &config.state.dir, None)?;
    let rows = status_rows(Node { config, state: &state, inventory: &inventory });
    let newest = state.keys.iter().rfind(|key| !key.adopted);
    let behind = state.volumes.iter().filter(|volume| state.is_behind(volume)).count();
    Ok((rows, DataKeys { created: newest.map(|key| key.created), behind }))
}

fn status_rows(node: Node<'_>) -> Vec<Row> {
    let Node { config, state, inventory } = node;
    let is_missing = |v: &&VolumeRecord| v.phase != Phase::Intent && node.disk_of(v).is_none();
    let missing = state.volumes.iter().filter(is_missing).map(|volume| {
        if node.is_gone_for_good(volume) {
            return Row::new(&Subject::absent(volume), Verdict::Left)
                .because("gone: instance store is lost when the instance stops");
        }
        if volume.phase == Phase::Erasing {
            let row = Row::new(&Subject::absent(volume), Verdict::Unfinished).volume(Some(volume.luks_uuid), None);
            return row.because(ERASING).with_remedy(FINISH_ERASING);
        }
        Row::new(&Subject::absent(volume), Verdict::Missing).volume(Some(volume.luks_uuid), volume.mount_point.clone())
    });
    inventory.devices.iter().map(|facts| status_row(config, state, facts)).chain(missing).collect()
}

fn status_row(config: &Config, state: &State, facts: &DeviceFacts) -> Row {
    let role = classify(facts, &config.volumes.rules);
    let subject = Subject::of(facts, &role);
    let record = record_of(state, facts);
    // swap on an open volume makes its disk one that carries the system, although it is the agent's
    let open = record.is_some_and(|record| facts.mapping_of(record.luks_uuid).is_some());
    if let Role::Unclear { because } = &role
        && record.is_none()
        && config.volumes.ebs == Policy::Encrypt
    {
        let because = format!("not encrypted: {because}");
        return Row::new(&subject, Verdict::Left).because(because).with_remedy(name_it(facts));
    }
    if let Role::Boot { because } | Role::Unclear { because } | Role::Ignored { because } = role
        && !open
    {
        return Row::new(&subject, Verdict::Left).because(because);
    }
    let Some(record) = record else {
        let row = Row::new(&subject, Verdict::New);
        return match facts.holders.is_empty() && facts.mounts.is_empty() {
            true => row,
            false if is_open_and_unknown(state, facts) => row.because(
                "open under a luks-agent mapper name, but not in the state file; 'luks-agent plan' says which instance made it",
            ),
            false => row.because("in use by something other than luks-agent"),
        };
    };
    let row = |result, at| Row::new(&subject, result).volume(Some(record.luks_uuid), at);
    let at = record.mount_point.clone();
    match facts.mapping_of(record.luks_uuid) {
        _ if record.phase == Phase::Intent => row(Verdict::Unfinished, at),
        _ if record.phase == Phase::Erasing => {
            row(Verdict::Unfinished, None).because(ERASING).with_remedy(FINISH_ERASING)
        }
        Some(holder) if at.as_ref().is_none_or(|at| holder.mounts.contains(at)) => {
            let row = row(Verdict::Open, at);
            match record {
                _ if state.is_behind(record) => row.because(HAS_FORMER_KEY),
                _ if record.volume_key_change.is_some() => row.because(REENCRYPTING),
                _ => row,
            }
        }
        Some(_) => row(Verdict::NotMounted, at),
        None => row(Verdict::Locked, at),
    }
}

/// Whether a mapping on a disk has a luks-agent name and is not in the state file.
fn is_open_and_unknown(state: &State, facts: &DeviceFacts) -> bool {
    unknown_mapping(state, facts).is_some_and(|(holder, luks_uuid)| has_our_name(holder, luks_uuid))
}
