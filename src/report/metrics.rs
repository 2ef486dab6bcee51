//! Metrics of the node in the text format of Prometheus, from the rows of `status` and the last runs; pure.
//! `docs/metrics.md` lists them.

use jiff::Timestamp;
use prometheus::{GaugeVec, IntCounterVec, Opts, Registry, TextEncoder};

use super::audited::Audited;
use super::last::Last;
use super::row::Row;
use super::verdict::Verdict;

/// The states that are counted. A count of zero is there too, so that an alert sees a series before the first such volume.
const STATES: [Verdict; 6] =
    [Verdict::Open, Verdict::NotMounted, Verdict::Locked, Verdict::Unfinished, Verdict::Missing, Verdict::New];
const ROLES: [&str; 2] = ["ebs", "instance-store"];

/// Gauges and counters of one page.
#[derive(Default)]
struct Page(Registry);

impl Page {
    /// Adds a family of gauges.
    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<GaugeVec> {
        let family = GaugeVec::new(Opts::new(format!("luks_agent_{name}"), help), labels)?;
        self.0.register(Box::new(family.clone()))?;
        Ok(family)
    }

    /// Adds a gauge, if its value is known.
    fn gauge(&self, name: &str, help: &str, value: Option<f64>) -> prometheus::Result<()> {
        if let Some(value) = value {
            self.gauges(name, help, &[])?.with_label_values::<&str>(&[]).set(value);
        }
        Ok(())
    }

    fn counters(&self, name: &str, help: &str, label: &str) -> prometheus::Result<IntCounterVec> {
        let family = IntCounterVec::new(Opts::new(format!("luks_agent_{name}"), help), &[label])?;
        self.0.register(Box::new(family.clone()))?;
        Ok(family)
    }
}

/// Returns a Unix time in seconds.
fn seconds(time: Timestamp) -> f64 {
    time.as_duration().as_secs_f64()
}

/// The data keys of the node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DataKeys {
    /// When the newest was generated, or wrapped again; `None` if there is none.
    pub created: Option<Timestamp>,
    /// How many volumes do not have the key that takes the place of theirs yet.
    pub behind: usize,
}

/// What the page is made from.
#[derive(Debug, Clone, Copy)]
pub struct Node<'a> {
    /// The rows of `status`.
    pub rows: &'a [Row],
    /// The data keys.
    pub keys: &'a DataKeys,
    /// The last run of each command.
    pub runs: &'a [Last],
    /// What the last audit for the record found.
    pub audited: Option<Audited>,
}

/// Returns the page about a node at a time.
///
/// # Errors
/// Two metrics with the same name, or a wrong number of labels; the tests would show either.
pub fn render(node: Node<'_>, now: Timestamp) -> prometheus::Result<String> {
    let Node { rows, keys, runs, audited } = node;
    let page = Page::default();
    add_build(&page)?;
    add_volumes(&page, rows)?;
    add_data_keys(&page, keys)?;
    add_last_runs(&page, runs)?;
    add_last_unlock(&page, runs)?;
    add_kms_calls(&page, runs)?;
    let health = runs.iter().find(|run| run.command == "health");
    add_last_health(&page, health)?;
    add_kms_keys(&page, health, now)?;
    add_last_audit(&page, audited)?;
    TextEncoder::new().encode_to_string(&page.0.gather())
}

fn add_build(page: &Page) -> prometheus::Result<()> {
    let build = page.gauges("build_info", "Version of the agent; always 1.", &["version"])?;
    build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
    Ok(())
}

fn add_volumes(page: &Page, rows: &[Row]) -> prometheus::Result<()> {
    let volumes = page.gauges("volumes", "Volumes by role and state.", &["role", "state"])?;
    for role in ROLES {
        for state in STATES {
            let count = rows.iter().filter(|row| row.role == role && row.result == state).count();
            let state = state.to_string().replace(' ', "_");
            volumes.with_label_values(&[role, &state]).set(f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
        }
    }
    Ok(())
}

fn add_data_keys(page: &Page, keys: &DataKeys) -> prometheus::Result<()> {
    let created = keys.created.map(seconds);
    page.gauge("data_key_timestamp_seconds", "Time at which the data key for new volumes was made.", created)?;
    let behind = keys.created.map(|_| f64::from(u32::try_from(keys.behind).unwrap_or(u32::MAX)));
    page.gauge("volumes_with_former_key", "Volumes that rotate or rewrap has not caught up with yet.", behind)
}

fn add_last_runs(page: &Page, runs: &[Last]) -> prometheus::Result<()> {
    let codes = page.gauges("last_run_exit_code", "Exit code of the last run since boot.", &["command"])?;
    let times =
        page.gauges("last_run_timestamp_seconds", "Time at which the last run since boot ended.", &["command"])?;
    for run in runs {
        codes.with_label_values(&[&run.command]).set(f64::from(run.exit_code));
        times.with_label_values(&[&run.command]).set(seconds(run.ended));
    }
    Ok(())
}

fn add_last_unlock(page: &Page, runs: &[Last]) -> prometheus::Result<()> {
    let unlock = runs.iter().filter_map(|run| run.unlock.as_ref()).max_by_key(|unlock| unlock.ended);
    let phases =
        "Duration of each phase of the last run that opened volumes; for luks and mount, of the slowest volume.";
    let phases = page.gauges("last_unlock_phase_seconds", phases, &["phase"])?;
    if let Some(unlock) = unlock {
        let took =
            [("credentials", unlock.credentials), ("kms", unlock.kms), ("luks", unlock.luks), ("mount", unlock.mount)];
        for (phase, took) in took {
            phases.with_label_values(&[phase]).set(took);
        }
    }
    let ended = unlock.map(|unlock| seconds(unlock.ended));
    page.gauge("last_unlock_timestamp_seconds", "Time at which the last run that opened volumes ended.", ended)
}

fn add_kms_calls(page: &Page, runs: &[Last]) -> prometheus::Result<()> {
    let calls = page.counters("kms_calls_total", "Calls to KMS since boot, including failed ones.", "operation")?;
    let errors = page.counters("kms_errors_total", "Failed calls to KMS since boot.", "class")?;
    for run in runs {
        for (family, counts) in [(&calls, &run.usage.calls), (&errors, &run.usage.errors)] {
            for (name, count) in counts {
                family.with_label_values(&[name]).inc_by(*count);
            }
        }
    }
    Ok(())
}

fn add_last_health(page: &Page, health: Option<&Last>) -> prometheus::Result<()> {
    let sound = health.map(|run| f64::from(u8::from(run.is_done())));
    page.gauge("healthy", "Whether the last health check found nothing wrong.", sound)?;
    let errors = health.map(|run| f64::from(run.filesystem_errors));
    let help = "Volumes whose file system the last health check found marked with errors.";
    page.gauge("filesystem_errors", help, errors)?;
    let succeeded = health.and_then(|run| run.succeeded).map(seconds);
    let help = "Time of the last health check that found nothing wrong.";
    page.gauge("last_successful_health_check_timestamp_seconds", help, succeeded)
}

fn add_kms_keys(page: &Page, health: Option<&Last>, now: Timestamp) -> prometheus::Result<()> {
    let usable = "Whether the last health check could have unwrapped the data key.";
    let usable = page.gauges("kms_key_usable", usable, &["kms_key"])?;
    let states = "State of the KMS key, by the name that KMS uses; always 1.";
    let states = page.gauges("kms_key_state", states, &["kms_key", "state"])?;
    let at = "Time at which KMS deletes the key; the data is lost then.";
    let at = page.gauges("kms_key_deletion_timestamp_seconds", at, &["kms_key"])?;
    let left = "Time left until KMS deletes the key.";
    let left = page.gauges("kms_key_deletion_remaining_seconds", left, &["kms_key"])?;
    for key in health.iter().flat_map(|run| &run.keys) {
        let arn = key.key_arn.as_str();
        usable.with_label_values(&[arn]).set(f64::from(u8::from(key.error.is_none())));
        let Some(state) = &key.state else { continue };
        states.with_label_values(&[arn, &state.name]).set(1.0);
        if let Some(deletion) = state.deletion {
            at.with_label_values(&[arn]).set(seconds(deletion));
            left.with_label_values(&[arn]).set((seconds(deletion) - seconds(now)).max(0.0));
        }
    }
    Ok(())
}

fn add_last_audit(page: &Page, audited: Option<Audited>) -> prometheus::Result<()> {
    let compliant = audited.map(|audited| f64::from(u8::from(audited.compliant)));
    let help = "Whether the last audit found each disk encrypted or excepted.";
    page.gauge("audit_compliant", help, compliant)?;
    let in_clear = audited.map(|audited| f64::from(u32::try_from(audited.disks_in_clear).unwrap_or(u32::MAX)));
    let help = "Attached disks that the last audit found not encrypted.";
    page.gauge("audit_disks_in_clear", help, in_clear)?;
    let oldest = audited.and_then(|audited| audited.oldest_proof).map(seconds);
    let help = "Time of the oldest proof that a volume opens, in the last audit.";
    page.gauge("audit_oldest_proof_timestamp_seconds", help, oldest)?;
    let recorded = audited.and_then(|audited| audited.recorded).map(seconds);
    page.gauge("last_audit_timestamp_seconds", "Time of the last audit report that was written, since boot.", recorded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kms::{KeyState, Usage};
    use crate::plan::Subject;
    use crate::report::KeyFinding;
    use crate::report::last::{Decided, Unlock};

    fn run(command: &str, exit_code: u8) -> Last {
        let ended = Timestamp::from_second(1_800_000_000).unwrap();
        let mut usage = Usage::default();
        usage.calls.insert("Decrypt".to_owned(), 2);
        usage.errors.insert("transient".to_owned(), 1);
        Last {
            command: command.to_owned(),
            ended,
            succeeded: (exit_code == 0).then_some(ended),
            exit_code,
            error: None,
            summary: String::new(),
            keys: Vec::new(),
            usage,
            unlock: Some(Unlock { ended, credentials: 0.25, kms: 0.5, luks: 1.5, mount: 0.125 }),
            filesystem_errors: 1,
            again: false,
            decided: Decided::default(),
        }
    }

    fn audited() -> Audited {
        let at = |second| Timestamp::from_second(second).unwrap();
        let (recorded, oldest_proof) = (Some(at(1_799_990_000)), Some(at(1_799_980_000)));
        Audited { recorded, compliant: false, disks_in_clear: 2, oldest_proof }
    }

    #[test]
    fn a_node_without_a_proof_has_no_time_of_one() {
        let audited = Audited { compliant: true, disks_in_clear: 0, oldest_proof: None, ..audited() };
        let node = Node { rows: &[], keys: &DataKeys::default(), runs: &[], audited: Some(audited) };
        let page = render(node, Timestamp::UNIX_EPOCH).unwrap();
        assert!(page.contains("\nluks_agent_audit_compliant 1\n"), "{page}");
        assert!(page.contains("\nluks_agent_audit_disks_in_clear 0\n"), "{page}");
        assert!(!page.contains("oldest_proof"), "{page}");
    }

    #[test]
    fn a_node_as_a_page() {
        let row = |role: &str, state| {
            let subject = Subject { device: None, role: role.to_owned(), serial: None, size: 0, content: None };
            Row::new(&subject, state)
        };
        let rows = [
            row("ebs", Verdict::Open),
            row("ebs", Verdict::Open),
            row("ebs", Verdict::NotMounted),
            row("instance-store", Verdict::Missing),
            row("boot", Verdict::Left),
        ];
        let mut health = run("health", 4);
        let deletion = Timestamp::from_second(1_800_604_800).unwrap();
        let pending = KeyState { name: "PendingDeletion".to_owned(), deletion: Some(deletion) };
        health.keys =
            vec![KeyFinding { key_arn: "arn".to_owned(), state: Some(pending), error: Some("no".to_owned()) }];
        health.unlock = None;
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let keys = DataKeys { created: Some(Timestamp::from_second(1_700_000_000).unwrap()), behind: 1 };
        let runs = [run("boot", 0), health];
        let node = Node { rows: &rows, keys: &keys, runs: &runs, audited: Some(audited()) };
        insta::assert_snapshot!(render(node, now).unwrap());
    }

    #[test]
    fn a_node_of_which_nothing_is_known_yet_is_a_page_too() {
        let node = Node { rows: &[], keys: &DataKeys::default(), runs: &[], audited: None };
        let page = render(node, Timestamp::UNIX_EPOCH).unwrap();
        assert!(page.contains("luks_agent_volumes{role=\"ebs\",state=\"open\"} 0\n"), "{page}");
        assert!(!page.contains("health") && !page.contains("audit"), "{page}");
    }

    #[test]
    fn every_metric_is_documented() {
        let mut health = run("health", 0);
        let state = KeyState { name: "Enabled".to_owned(), deletion: Some(Timestamp::MAX) };
        health.keys = vec![KeyFinding { key_arn: "arn".to_owned(), state: Some(state), error: None }];
        let keys = DataKeys { created: Some(Timestamp::UNIX_EPOCH), behind: 0 };
        let runs = [run("boot", 0), health];
        let node = Node { rows: &[], keys: &keys, runs: &runs, audited: Some(audited()) };
        let page = render(node, Timestamp::UNIX_EPOCH).unwrap();
        let documented = include_str!("../../docs/metrics.md");
        let names: Vec<&str> =
            page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        assert_eq!(names.len(), 21, "{names:?}");
        for name in names {
            assert!(documented.contains(&format!("| `{name}` |")), "{name} is not in docs/metrics.md");
        }
    }
}
