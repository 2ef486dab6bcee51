//! Whether the node would come back after a reboot: the KMS key, the state file, every volume.

use std::collections::BTreeSet;

use futures_util::future::join_all;

use super::status::subject_of;
use super::{CommandError, Disks, Instance, LazyKms, header_on, need_root, workers};
use crate::config::{Config, Policy};
use crate::discover::{Roots, in_memory};
use crate::disk::{Content, DeviceFacts, Inventory, Role, classify};
use crate::error::chain;
use crate::job::{self, Answer, Host, HostError, Job, Target};
use crate::plan::{
    Shortfall, Subject, UnknownVolume, Whose, disk_of, is_ignored, locked_out, may_be_gone, may_hold_ours, name_it,
    policy, record_of, unknown_volume,
};
use crate::report::{ExitCode, KeyFinding, Report, Row, Verdict, WOULD_NOT_SURVIVE};
use crate::state::{self, KeyRecord, Phase, State, VolumeRecord, VolumeRole};

/// `health`: whether the node would come back after a reboot.
///
/// # Errors
/// When the disks or the state file cannot be read.
pub async fn health(config: &Config) -> Result<Report, CommandError> {
    need_root("health")?;
    let state = state::read(&config.state.dir)?;
    let provisioned = state.is_some();
    let state = state.unwrap_or_default();
    let mut inventory = Disks::briefly(config).inventory().await?;
    let host = workers(config);
    look_for_unknown(config, &state, &mut inventory, &host).await;
    let unknown = unknown_rows(config, &state, &inventory);
    if !provisioned {
        let unclear =
            strangers(config, &state, &inventory, &unknown).into_iter().filter(|row| row.result == Verdict::Refused);
        let rows = [unknown.clone(), unclear.collect(), shortfalls(config, |_| 0)].concat();
        return Ok(without_state(unknown.len(), rows));
    }
    let committed = || state.volumes.iter().filter(|volume| volume.phase == Phase::Committed);
    let is_wanted = |volume: &&VolumeRecord| {
        !is_gone_for_good(config, &state, volume, &inventory) && !is_left_alone(config, &state, volume, &inventory)
    };
    let wanted = committed().filter(is_wanted);
    let mut rows = join_all(wanted.map(|volume| health_row(config, &state, volume, &inventory, &host))).await;
    rows.extend(interrupted(config, &state, &inventory));
    rows.extend(shortfalls(config, |role| {
        let is_there = |volume: &&VolumeRecord| {
            let disk = disk_of(&state, volume, &inventory.devices);
            volume.role == role && disk.is_some_and(|facts| !is_ignored(config, facts))
        };
        committed().filter(is_wanted).filter(is_there).count()
    }));
    rows.extend(strangers(config, &state, &inventory, &unknown));
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
fn without_state(unknown: usize, rows: Vec<Row>) -> Report {
    let summary = match unknown {
        0 => "this node was never provisioned".to_owned(),
        count => format!("there is no state file, and volumes of luks-agent are attached: {count}"),
    };
    let wrong = diagnosis(&[], &rows);
    let report = Report::new("health", rows, summary);
    match wrong {
        Some((code, why)) => report.failed(code, why),
        None => report,
    }
}

/// What was found of keys and volumes, in a few words.
fn summary(keys: &[KeyFinding], rows: &[Row]) -> String {
    let key = if keys.iter().all(|key| key.error.is_none()) { "can" } else { "cannot" };
    let count = |is: fn(&Row) -> bool| rows.iter().filter(|row| is(row)).count();
    let new = match count(|row| row.result == Verdict::New) {
        0 => String::new(),
        new => format!(", {new} not encrypted by luks-agent"),
    };
    match (count(|row| row.result == Verdict::Sound), count(|row| row.result != Verdict::New)) {
        (_, 0) => format!("there are no volumes yet{new}"),
        (sound, all) if sound == all => format!("the key {key} be used, {sound} sound{new}"),
        (sound, all) => format!("the key {key} be used, {sound} of {all} sound{new}"),
    }
}

fn fatal(why: &str) -> String {
    format!("{WOULD_NOT_SURVIVE}{why}")
}

/// Whether instance store is gone and nobody expects it again.
pub(super) fn is_gone_for_good(config: &Config, state: &State, volume: &VolumeRecord, inventory: &Inventory) -> bool {
    volume.role == VolumeRole::InstanceStore
        && disk_of(state, volume, &inventory.devices).is_none()
        && may_be_gone(config, state, volume)
}

/// Whether the configuration says to leave a volume alone that is not open.
fn is_left_alone(config: &Config, state: &State, volume: &VolumeRecord, inventory: &Inventory) -> bool {
    let disk = disk_of(state, volume, &inventory.devices);
    let is_open = disk.is_some_and(|facts| facts.mapping_of(volume.luks_uuid).is_some());
    !is_open && (policy(config, volume.role) == Policy::Ignore || disk.is_some_and(|facts| is_ignored(config, facts)))
}

/// The volumes whose formatting was interrupted: the node does not have them until `provision` finishes it.
fn interrupted(config: &Config, state: &State, inventory: &Inventory) -> Vec<Row> {
    let row = |volume: &VolumeRecord| {
        let disk = disk_of(state, volume, &inventory.devices);
        let is_store = volume.role == VolumeRole::InstanceStore;
        // where an EBS volume was taken away, nothing was lost
        if disk.is_none() && (!is_store || is_gone_for_good(config, state, volume, inventory)) {
            return None;
        }
        let subject = disk
            .map_or_else(|| subject_of(volume), |facts| Subject::of(facts, &classify(facts, &config.volumes.rules)));
        let mut row =
            Row::new(&subject, Verdict::Unfinished).volume(Some(volume.luks_uuid), volume.mount_point.clone());
        row.reason = Some("formatting was interrupted, so it holds no data".to_owned());
        row.remedy = Some("'luks-agent provision' finishes it".to_owned());
        Some(row)
    };
    state.volumes.iter().filter(|volume| volume.phase == Phase::Intent).filter_map(row).collect()
}

/// What `[volumes.expect]` asks for and is not there.
fn shortfalls(config: &Config, there: impl Fn(VolumeRole) -> usize) -> Vec<Row> {
    let short = |role: VolumeRole| {
        let short = Shortfall::of(config, role, there(role))?;
        let subject = Subject { device: None, role: role.to_string(), serial: None, size: 0, content: None };
        let mut row = Row::new(&subject, Verdict::Missing).because(short.evidence());
        row.remedy = Some(short.remedy());
        Some(row)
    };
    [VolumeRole::Ebs, VolumeRole::InstanceStore].into_iter().filter_map(short).collect()
}

/// The disks that the configuration would have encrypted and that are neither the node's volumes nor `unknown` ones of it. They
/// are named, and make no node unhealthy; save those that the next `provision` would not encrypt either, as nobody says what they
/// are.
fn strangers(config: &Config, state: &State, inventory: &Inventory, unknown: &[Row]) -> Vec<Row> {
    let row = |facts: &DeviceFacts| {
        let role = classify(facts, &config.volumes.rules);
        let policy = match role {
            Role::Ebs | Role::Unclear { .. } => config.volumes.ebs,
            Role::InstanceStore => config.volumes.instance_store,
            Role::Boot { .. } | Role::Ignored { .. } => Policy::Ignore,
        };
        let is_told = unknown.iter().any(|row| row.device.as_ref() == Some(&facts.name));
        let is_one = policy == Policy::Encrypt && record_of(state, facts).is_none() && !is_told;
        let subject = Subject::of(facts, &role);
        let row = match role {
            Role::Unclear { because } => {
                Row { remedy: Some(name_it(facts)), ..Row::new(&subject, Verdict::Refused).because(because) }
            }
            Role::Boot { .. } | Role::Ebs | Role::InstanceStore | Role::Ignored { .. } => {
                Row::new(&subject, Verdict::New)
                    .because("not encrypted by luks-agent; 'luks-agent plan' says what is on it")
            }
        };
        is_one.then_some(row)
    };
    inventory.devices.iter().filter_map(row).collect()
}

/// What would keep the node from coming back, or else what is not as it should be now; the gravest of it.
fn diagnosis(keys: &[KeyFinding], rows: &[Row]) -> Option<(ExitCode, String)> {
    if let Some(why) = keys.iter().find_map(|key| key.error.clone()) {
        return Some((ExitCode::KeyService, fatal(&why)));
    }
    let of_volume = |row: &Row| {
        let volume = row.serial.as_ref().or(row.device.as_ref()).unwrap_or(&row.role);
        format!("{volume}: {}", row.reason.as_deref().unwrap_or_default())
    };
    let is = |verdict: Verdict| rows.iter().find(|row| row.result == verdict).map(of_volume);
    let broken = is(Verdict::Wrong).map(|why| fatal(&why));
    // of these the next boot is not known to fail, and yet they are not as they should be
    let others = [
        Verdict::Failed,
        Verdict::Hung,
        Verdict::Unsound,
        Verdict::Missing,
        Verdict::Locked,
        Verdict::NotMounted,
        Verdict::Unfinished,
        Verdict::Refused,
    ];
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
    let open = disks.iter().find(|facts| facts.mapping_of(volume.luks_uuid).is_some());
    let Some(facts) = open.or_else(|| disk_of(state, volume, disks)) else {
        return row(&subject_of(volume), Verdict::Missing).because("it is not there");
    };
    let subject = Subject::of(facts, &classify(facts, &config.volumes.rules));
    let mapping = facts.mapping_of(volume.luks_uuid);
    let Some((mapping, mapper)) = mapping.and_then(|mapping| Some((mapping, mapping.dm_name.clone()?))) else {
        return row(&subject, Verdict::Locked).because("it is not open");
    };
    let Some(expected) = state.expected(volume.luks_uuid) else {
        return row(&subject, Verdict::Wrong).because("the state file does not say how it was made");
    };
    if let Some(because) = locked_out(config, facts) {
        let mut row = row(&subject, Verdict::Wrong).because(format!("the next boot leaves its disk alone: {because}"));
        let (path, role) = (facts.path.display(), volume.role);
        row.remedy = Some(format!("add a [[volumes.match]] rule with path = \"{path}\" and role = \"{role}\""));
        return row;
    }
    let job = Job::Check(job::Check {
        target: Target::from(facts),
        expected,
        mapper,
        filesystem: volume.filesystem,
        keyslot: volume.keyslot.clone(),
    });
    match host.run(&facts.name, job, None).await {
        Ok(Answer::Sound { unsound: Some(why), .. }) => row(&subject, Verdict::Unsound).because(why),
        Ok(Answer::Sound { filesystem_errors: true, .. }) => row(&subject, Verdict::Unsound).with_filesystem_errors(),
        Ok(Answer::Sound { .. }) => match volume.mount_point.as_ref().filter(|at| !mapping.mounts.contains(at)) {
            // swap on a volume is no fault
            Some(at) if facts.system.is_none() => row(&subject, Verdict::NotMounted)
                .because(format!("open, but not mounted at {}; 'luks-agent unlock' mounts it", at.display())),
            _ => row(&subject, Verdict::Sound),
        },
        Ok(Answer::Failed { message }) => row(&subject, Verdict::Wrong).because(message),
        Ok(other) => {
            row(&subject, Verdict::Failed).because(format!("the worker process sent an unexpected answer: {other:?}"))
        }
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
        let stranger = || row(Verdict::New, "c");
        assert_eq!(summary(&[], &[stranger()]), "there are no volumes yet, 1 not encrypted by luks-agent");
        let one = [row(Verdict::Sound, "a"), stranger()];
        assert_eq!(summary(&[key(None)], &one), "the key can be used, 1 sound, 1 not encrypted by luks-agent");
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
        assert_eq!(said(&[], &[row(Verdict::NotMounted, "e")]), (ExitCode::Failed, "e: this is why".to_owned()));
        let unclear = [row(Verdict::Sound, "a"), row(Verdict::Refused, "xvdf")];
        assert_eq!(said(&[key(None)], &unclear), (ExitCode::Failed, "xvdf: this is why".to_owned()));
        assert_eq!(diagnosis(&[], &[row(Verdict::New, "f")]), None, "a stranger makes no node unhealthy");
    }
}
