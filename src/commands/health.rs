//! Whether the node would come back after a reboot: the KMS key, the state file, every volume.

use std::collections::BTreeSet;

use futures_util::future::join_all;

use super::status::subject_of;
use super::{CommandError, Disks, Instance, LazyKms, header_on, need_root, workers};
use crate::config::Config;
use crate::device::{Content, DeviceFacts, Inventory, classify};
use crate::discover::{Roots, in_memory};
use crate::host::{Host, HostError};
use crate::plan::{Subject, UnknownVolume, Whose, may_hold_ours, record_of, unknown_volume};
use crate::report::{ExitCode, KeyFinding, Report, Row, Verdict, WOULD_NOT_SURVIVE};
use crate::state::{self, KeyRecord, Phase, State, VolumeRecord};
use crate::worker::{Answer, Job, Target, chain};

/// `health`: whether the node would come back after a reboot.
///
/// # Errors
/// When the disks or the state file cannot be read.
pub async fn health(config: &Config) -> Result<Report, CommandError> {
    need_root("health")?;
    let state = state::read(&config.state.dir)?;
    let provisioned = state.is_some();
    let state = state.unwrap_or_default();
    let mut inventory = Disks::new(config).inventory().await?;
    let host = workers(config);
    look_for_unknown(config, &state, &mut inventory, &host).await;
    let unknown = unknown_rows(config, &state, &inventory);
    if !provisioned {
        return Ok(without_state(unknown));
    }
    let committed = || state.volumes.iter().filter(|volume| volume.phase == Phase::Committed);
    let mut rows = join_all(committed().map(|volume| health_row(config, &state, volume, &inventory, &host))).await;
    rows.extend(unknown);
    let used: BTreeSet<u32> = committed().map(|volume| volume.key).collect();
    let kms = LazyKms::new(&config.kms);
    let keys = join_all(state.keys.iter().filter(|key| used.contains(&key.id)).map(|key| key_health(&kms, key))).await;
    let summary = summary(&keys, &rows);
    // what is not known is told by the run that would write there
    let volatile = in_memory(&Roots::host(), &config.state.dir).ok().flatten();
    let volatile = volatile.map(|on| (ExitCode::Failed, fatal(&format!("the state directory lies on {on}"))));
    let wrong = volatile.or_else(|| diagnosis(&keys, &rows));
    let report = Report::new("health", rows, summary).of_keys(keys).measured(kms.usage(), host.stages());
    Ok(match wrong {
        Some((code, why)) => report.failed(code, why),
        None => report,
    })
}

/// Reads the headers of disks that no known volume is on: one that the state file does not know is opened by no boot.
async fn look_for_unknown(config: &Config, state: &State, inventory: &mut Inventory, host: &impl Host) {
    let wanted = |facts: &&mut DeviceFacts| may_hold_ours(config, facts) && record_of(state, facts).is_none();
    let disks = inventory.devices.iter_mut().filter(wanted);
    join_all(disks.map(async |facts| facts.content = header_on(facts, host).await)).await;
    let ours = |facts: &DeviceFacts| matches!(&facts.content, Some(Content::Luks2 { token: Some(_), .. }));
    if inventory.devices.iter().any(ours) {
        inventory.instance_id = Instance::new(config).id().await;
    }
}

/// The volumes of this node that the state file does not know. Those of other nodes are no matter of its health.
fn unknown_rows(config: &Config, state: &State, inventory: &Inventory) -> Vec<Row> {
    let row = |facts: &DeviceFacts| {
        let volume = unknown_volume(config, state, inventory, facts).filter(|volume| volume.whose != Whose::Other)?;
        let UnknownVolume { luks_uuid, evidence, remedy, .. } = volume;
        let at = facts.mapping_of(luks_uuid).and_then(|mapping| mapping.mounts.last().cloned());
        let subject = Subject::of(facts, &classify(facts, &config.volumes.rules));
        let mut row = Row::new(&subject, Verdict::Wrong).volume(Some(luks_uuid), at).because(evidence);
        row.remedy = Some(remedy);
        Some(row)
    };
    inventory.devices.iter().filter_map(row).collect()
}

/// The report of a node without a state file: a new one, or one that has lost it.
fn without_state(unknown: Vec<Row>) -> Report {
    let lost = diagnosis(&[], &unknown);
    let summary = match unknown.len() {
        0 => "this node was never provisioned".to_owned(),
        count => format!("there is no state file, and volumes of luks-agent are attached: {count}"),
    };
    let report = Report::new("health", unknown, summary);
    match lost {
        Some((code, why)) => report.failed(code, why),
        None => report,
    }
}

/// What was found of keys and volumes, in a few words.
fn summary(keys: &[KeyFinding], rows: &[Row]) -> String {
    let key = if keys.iter().all(|key| key.error.is_none()) { "can" } else { "cannot" };
    match rows.iter().filter(|row| row.result == Verdict::Sound).count() {
        0 if rows.is_empty() => "there are no volumes yet".to_owned(),
        sound if sound == rows.len() => format!("the key {key} be used, {sound} sound"),
        sound => format!("the key {key} be used, {sound} of {} sound", rows.len()),
    }
}

fn fatal(why: &str) -> String {
    format!("{WOULD_NOT_SURVIVE}{why}")
}

/// What would keep the node from coming back, or else what is not as it should be now; the gravest of it.
fn diagnosis(keys: &[KeyFinding], rows: &[Row]) -> Option<(ExitCode, String)> {
    if let Some(why) = keys.iter().find_map(|key| key.error.clone()) {
        return Some((ExitCode::KeyService, fatal(&why)));
    }
    let of_volume = |row: &Row| {
        let volume = row.serial.as_ref().or(row.device.as_ref()).map_or("a volume", |name| name.as_str());
        format!("{volume}: {}", row.reason.as_deref().unwrap_or_default())
    };
    let is = |verdict: Verdict| rows.iter().find(|row| row.result == verdict).map(of_volume);
    let broken = is(Verdict::Wrong).map(|why| fatal(&why));
    // of these the next boot is not known to fail, and yet they are not as they should be
    let others = [Verdict::Failed, Verdict::Hung, Verdict::Unsound, Verdict::Missing, Verdict::Locked];
    let broken = broken.or_else(|| others.into_iter().find_map(is));
    broken.map(|why| (ExitCode::Failed, why))
}

/// The state of a KMS key, and whether it would unwrap the data key.
async fn key_health(kms: &LazyKms<'_>, key: &KeyRecord) -> KeyFinding {
    let mut state = None;
    let ask = async {
        let kms = kms.get().await?;
        state = kms.key_state(&key.key_arn).await?;
        kms.try_unwrap(&key.wrapped_key, &key.key_arn).await
    };
    let error = ask.await.err().map(chain);
    KeyFinding { key_arn: key.key_arn.clone(), state, error }
}

async fn health_row(
    config: &Config,
    state: &State,
    volume: &VolumeRecord,
    inventory: &Inventory,
    host: &impl Host,
) -> Row {
    let row = |subject: &Subject, result| {
        Row::new(subject, result).volume(Some(volume.luks_uuid), volume.mount_point.clone())
    };
    let disks = &inventory.devices;
    let is_on = |facts: &&DeviceFacts| record_of(state, facts).is_some_and(|found| found.luks_uuid == volume.luks_uuid);
    let open = disks.iter().find(|facts| facts.mapping_of(volume.luks_uuid).is_some());
    let Some(facts) = open.or_else(|| disks.iter().find(is_on)) else {
        return row(&subject_of(volume), Verdict::Missing).because("it is not there");
    };
    let subject = Subject::of(facts, &classify(facts, &config.volumes.rules));
    let Some(mapper) = facts.mapping_of(volume.luks_uuid).and_then(|mapping| mapping.dm_name.clone()) else {
        return row(&subject, Verdict::Locked).because("it is not open");
    };
    let Some(expected) = state.expected(volume.luks_uuid) else {
        return row(&subject, Verdict::Wrong).because("the state file does not say how it was made");
    };
    let job = Job::Check { target: Target::from(facts), expected, mapper, filesystem: volume.filesystem };
    match host.run(&facts.name, job, None).await {
        Ok(Answer::Sound { unsound: Some(why), .. }) => row(&subject, Verdict::Unsound).because(why),
        Ok(Answer::Sound { filesystem_errors: true, .. }) => row(&subject, Verdict::Unsound).with_filesystem_errors(),
        Ok(Answer::Sound { .. }) => row(&subject, Verdict::Sound),
        Ok(Answer::Failed { message }) => row(&subject, Verdict::Wrong).because(message),
        Ok(other) => row(&subject, Verdict::Failed).because(format!("the worker answered something else: {other:?}")),
        Err(e @ HostError::Hung { .. }) => row(&subject, Verdict::Hung).because(chain(e)),
        Err(e) => row(&subject, Verdict::Failed).because(chain(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(result: Verdict, serial: &str) -> Row {
        let serial = Some(serial.to_owned());
        let subject = Subject { device: None, role: "ebs".to_owned(), serial, size: 0, content: None };
        Row::new(&subject, result).because("this is why")
    }

    fn key(error: Option<&str>) -> KeyFinding {
        KeyFinding { key_arn: "arn".to_owned(), state: None, error: error.map(str::to_owned) }
    }

    #[test]
    fn a_summary_does_not_call_a_key_usable_that_is_not() {
        let all = [row(Verdict::Sound, "a"), row(Verdict::Locked, "b")];
        assert_eq!(summary(&[key(None)], &all[..1]), "the key can be used, 1 sound");
        assert_eq!(summary(&[key(None), key(Some("no"))], &all[..1]), "the key cannot be used, 1 sound");
        assert_eq!(summary(&[key(Some("no"))], &all), "the key cannot be used, 1 of 2 sound");
        assert_eq!(summary(&[key(None)], &all), "the key can be used, 1 of 2 sound");
        assert_eq!(summary(&[], &[]), "there are no volumes yet");
    }

    #[test]
    fn a_diagnosis_names_the_gravest_first_and_what_is_merely_closed_is_not_called_lost() {
        let all =
            [row(Verdict::Sound, "a"), row(Verdict::Locked, "b"), row(Verdict::Missing, "c"), row(Verdict::Wrong, "d")];
        let said = |keys: &[KeyFinding], rows: &[Row]| diagnosis(keys, rows).unwrap();
        let lost = |why: &str| format!("this node would not survive a reboot, because {why}");
        assert_eq!(said(&[key(None), key(Some("no"))], &all), (ExitCode::KeyService, lost("no")));
        assert_eq!(said(&[key(None)], &all), (ExitCode::Failed, lost("d: this is why")));
        let unsound = [row(Verdict::Unsound, "e"), row(Verdict::Missing, "c")];
        assert_eq!(said(&[], &unsound), (ExitCode::Failed, "e: this is why".to_owned()));
        assert_eq!(said(&[], &all[..3]), (ExitCode::Failed, "c: this is why".to_owned()));
        assert_eq!(said(&[], &all[..2]), (ExitCode::Failed, "b: this is why".to_owned()));
        assert_eq!(diagnosis(&[key(None)], &all[..1]), None);
    }
}
