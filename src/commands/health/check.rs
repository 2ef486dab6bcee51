//! Checks of the volumes in the state file, and of their number.

use super::super::error::unexpected;
use super::super::node::Node;
use crate::config::{Config, Policy};
use crate::disk::classify;
use crate::error::chain;
use crate::job::{self, Answer, Host, HostError, Job, Target};
use crate::plan::{FINISH_ERASING, Finding, Shortfall, Subject, is_ignored, locked_out, policy};
use crate::report::{ERASING, HAS_FORMER_KEY, REENCRYPTING, Row, Verdict};
use crate::state::{Phase, VolumeRecord, VolumeRole};

/// Whether a volume is not open and the configuration says to leave it alone.
pub(super) fn is_left_alone(node: Node<'_>, volume: &VolumeRecord) -> bool {
    let disk = node.disk_of(volume);
    let is_open = disk.is_some_and(|facts| facts.mapping_of(volume.luks_uuid).is_some());
    !is_open
        && (policy(node.config, volume.role) == Policy::Ignore
            || disk.is_some_and(|facts| is_ignored(node.config, facts)))
}

/// Checks a known volume: whether it is open, mounted, and as it was made.
pub(super) async fn check(node: Node<'_>, volume: &VolumeRecord, host: &impl Host) -> Row {
    let Node { config, state, inventory } = node;
    let row = |subject: &Subject, result| {
        Row::new(subject, result).volume(Some(volume.luks_uuid), volume.mount_point.clone())
    };
    let open = inventory.open_on(volume.luks_uuid);
    let Some(facts) = open.or_else(|| node.disk_of(volume)) else {
        return row(&Subject::absent(volume), Verdict::Missing).because("its disk is not attached");
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
        let (path, role) = (facts.path.display(), volume.role);
        return row(&subject, Verdict::Wrong)
            .because(format!("the next boot leaves its disk alone: {because}"))
            .with_remedy(format!("add a [[volumes.match]] rule with path = \"{path}\" and role = \"{role}\""));
    }
    let job = Job::Check(job::Check {
        target: Target::from(facts),
        expected,
        mapper,
        filesystem: volume.filesystem,
        keyslot: volume.keyslot.clone(),
    });
    match host.run(&facts.name, job, &[]).await {
        Ok(Answer::Sound { unsound: Some(why), .. }) => row(&subject, Verdict::Unsound).because(why),
        Ok(Answer::Sound { filesystem_errors: true, .. }) => row(&subject, Verdict::Unsound).with_filesystem_errors(),
        Ok(Answer::Sound { reencrypted, .. }) => {
            match volume.mount_point.as_ref().filter(|at| !mapping.mounts.contains(at)) {
                // a volume used as swap is fine
                Some(at) if facts.system.is_none() => row(&subject, Verdict::NotMounted)
                    .because(format!("open, but not mounted at {}; 'luks-agent unlock' mounts it", at.display())),
                _ if let Some(percent) = reencrypted => {
                    row(&subject, Verdict::Sound).because(format!("{REENCRYPTING}: {percent} % has the new volume key"))
                }
                _ if state.is_behind(volume) => row(&subject, Verdict::Sound).because(HAS_FORMER_KEY),
                _ => row(&subject, Verdict::Sound),
            }
        }
        Ok(Answer::Failed { message }) => row(&subject, Verdict::Wrong).because(message),
        Ok(other) => row(&subject, Verdict::Failed).because(unexpected(&other)),
        Err(e @ HostError::Hung { .. }) => row(&subject, Verdict::Hung).because(chain(e)),
        Err(e) => row(&subject, Verdict::Failed).because(chain(e)),
    }
}

/// Returns the rows of volumes whose formatting or erasing was interrupted.
///
/// The node lacks the former until `provision` finishes them, and the latter may still hold data.
pub(super) fn interrupted(node: Node<'_>) -> Vec<Row> {
    let row = |volume: &VolumeRecord| {
        let (because, remedy) = match volume.phase {
            Phase::Committed => return None,
            Phase::Intent => ("formatting was interrupted, so it holds no data", "'luks-agent provision' finishes it"),
            Phase::Erasing => (ERASING, FINISH_ERASING),
        };
        let disk = node.disk_of(volume);
        let is_store = volume.role == VolumeRole::InstanceStore;
        // a detached EBS volume whose formatting was interrupted held no data yet
        let is_no_loss = node.is_gone_for_good(volume) || (volume.phase == Phase::Intent && !is_store);
        if disk.is_none() && is_no_loss {
            return None;
        }
        let rules = &node.config.volumes.rules;
        let subject = disk.map_or_else(|| Subject::absent(volume), |facts| Subject::of(facts, &classify(facts, rules)));
        let row = Row::new(&subject, Verdict::Unfinished)
            .volume(Some(volume.luks_uuid), volume.mount_point.clone())
            .because(because)
            .with_remedy(remedy);
        Some(row)
    };
    node.state.volumes.iter().filter_map(row).collect()
}

/// Returns a row for each role with fewer volumes than `[volumes.expect]` asks for.
pub(super) fn shortfalls(config: &Config, there: impl Fn(VolumeRole) -> usize) -> Vec<Row> {
    let short = |role: VolumeRole| {
        let short = Shortfall::of(config, role, there(role))?;
        let Finding { evidence, remedy, .. } = short.finding();
        Some(Row::new(&Subject::absent_of(role), Verdict::Missing).because(evidence).with_remedy(remedy))
    };
    [VolumeRole::Ebs, VolumeRole::InstanceStore].into_iter().filter_map(short).collect()
}
