//! The last run of each command, kept in memory for the daemon, the metrics and `status`.

use std::io;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::exit_code::ExitCode;
use super::found::Found;
use super::report::{KeyFinding, Report};
use super::row::Row;
use super::verdict::Verdict;
use crate::disk::DeviceFacts;
use crate::kms::Usage;
use crate::state::run::{RUN_DIR, read_json, write_json};

/// The commands whose runs are kept. `plan` and `status` change nothing, and would hide what was done.
const COMMANDS: [&str; 5] = ["boot", "provision", "unlock", "grow", "health"];

/// Another one whose runs are kept, for audit reports. People run it, so it is no part of the metrics.
const VERIFY: &str = "verify";

/// The last run of a command since boot, and the counts over all its runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Last {
    /// Which command.
    pub command: String,
    /// When it ended.
    pub ended: Timestamp,
    /// When a run last succeeded.
    pub succeeded: Option<Timestamp>,
    /// Its exit code.
    pub exit_code: u8,
    /// What failed as a whole.
    pub error: Option<String>,
    /// The outcome in one line.
    pub summary: String,
    /// The KMS keys that volumes depend on, from `health` and `verify`.
    pub keys: Vec<KeyFinding>,
    /// The calls to the key service in all runs.
    pub usage: Usage,
    /// The last run that opened volumes.
    pub unlock: Option<Unlock>,
    /// Number of volumes whose file system is marked with errors, from `health`.
    #[serde(default)]
    pub filesystem_errors: u32,
    /// Whether another run may succeed: something failed, rather than being refused.
    #[serde(default)]
    pub again: bool,
    /// The disks on which another run would decide the same, as long as nothing changes.
    #[serde(default)]
    pub decided: Decided,
}

/// The disks that a run decided about, by kernel name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Decided {
    /// Not the agent's business.
    pub left: Vec<String>,
    /// Refused, or holding another volume than they should: a person is needed.
    pub refused: Vec<String>,
    /// Passed over, because they are not volumes of the node.
    pub strangers: Vec<String>,
    /// Passed over because they could not be examined; that may work in a minute.
    pub unexamined: Vec<String>,
}

impl Decided {
    /// Whether the run left a disk alone.
    pub(crate) fn has_left(&self, facts: &DeviceFacts) -> bool {
        self.left.contains(&facts.name)
    }

    /// Whether the run refused a disk.
    pub(crate) fn has_refused(&self, facts: &DeviceFacts) -> bool {
        self.refused.contains(&facts.name)
    }

    /// Whether the run passed over a disk that is not a volume of the node.
    pub(crate) fn has_passed_over(&self, facts: &DeviceFacts) -> bool {
        self.strangers.contains(&facts.name)
    }

    /// Whether the run passed over a disk that it could not examine.
    pub(crate) fn could_not_examine(&self, facts: &DeviceFacts) -> bool {
        self.unexamined.contains(&facts.name)
    }

    /// Whether the run decided anything about a disk.
    pub(crate) fn is_about(&self, facts: &DeviceFacts) -> bool {
        self.has_left(facts) || self.has_refused(facts) || self.has_passed_over(facts) || self.could_not_examine(facts)
    }
}

/// How long it took to open volumes, in seconds. Disks are opened at the same time, and the slowest counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Unlock {
    /// When it ended.
    pub ended: Timestamp,
    /// Getting credentials.
    pub credentials: f64,
    /// Unwrapping the key with KMS.
    pub kms: f64,
    /// LUKS, including formatting if a volume was new.
    pub luks: f64,
    /// Mounting.
    pub mount: f64,
}

impl Last {
    /// Returns what is kept of a report, where `before` was kept until now.
    pub(crate) fn of(report: &Report, before: Option<Self>) -> Self {
        let ended = Timestamp::now();
        let (mut usage, succeeded, unlock) =
            before.map(|last| (last.usage, last.succeeded, last.unlock)).unwrap_or_default();
        let kms = report.kms().cloned().unwrap_or_default();
        usage.count(&kms);
        let judged = |which: fn(&Row) -> bool| {
            report.rows().iter().filter(|row| which(row)).filter_map(|row| row.device.clone()).collect::<Vec<_>>()
        };
        let refused = |row: &Row| matches!(row.result, Verdict::Refused | Verdict::Wrong) && !unexamined(row);
        let failed = |row: &Row| {
            matches!(row.result, Verdict::Failed | Verdict::Hung | Verdict::NoKey)
                || row.result != Verdict::Left && row.device.is_some() && unexamined(row)
        };
        let stage = |name| report.stage_seconds().get(name).copied();
        let opened = stage("unlocking").or_else(|| stage("formatting")).map(|luks| Unlock {
            ended,
            credentials: kms.credentials_seconds,
            kms: kms.kms_seconds,
            luks,
            mount: stage("mounting").unwrap_or_default(),
        });
        Self {
            command: report.command().to_owned(),
            ended,
            succeeded: if report.exit_code() == ExitCode::Done as u8 { Some(ended) } else { succeeded },
            exit_code: report.exit_code(),
            error: report.error().map(str::to_owned),
            summary: report.summary().to_owned(),
            keys: report.keys().to_vec(),
            usage,
            unlock: opened.or(unlock),
            filesystem_errors: report.filesystem_errors().try_into().unwrap_or(u32::MAX),
            again: report.exit_code() == ExitCode::KeyService as u8
                || (report.error().is_some() && report.rows().is_empty())
                || report.rows().iter().any(failed),
            decided: Decided {
                left: judged(|row| row.result == Verdict::Left && row.evidence.is_none()),
                refused: judged(refused),
                strangers: judged(|row| row.result == Verdict::Left && row.evidence.is_some() && !unexamined(row)),
                unexamined: judged(|row| row.result == Verdict::Left && unexamined(row)),
            },
        }
    }

    /// Returns its error, or else its summary.
    pub fn text(&self) -> &str {
        self.error.as_deref().unwrap_or(&self.summary)
    }

    /// Whether the run did everything that it should.
    pub fn is_done(&self) -> bool {
        self.exit_code == ExitCode::Done as u8
    }

    /// Whether the run did everything but what it refused.
    pub fn has_only_refused(&self) -> bool {
        self.exit_code == ExitCode::Refused as u8
    }
}

/// Whether a disk could not be examined. That may work in a minute.
fn unexamined(row: &Row) -> bool {
    row.evidence == Some(Found::Unknown)
}

fn file_name(command: &str) -> String {
    format!("{command}.json")
}

/// Keeps what a report says, if the runs of its command are kept.
///
/// It has no key material, but only root should know where volumes are. A failure to keep it does not fail the command.
pub fn keep(report: &Report) {
    if !COMMANDS.contains(&report.command()) && report.command() != VERIFY {
        return;
    }
    if let Err(e) = keep_in(Path::new(RUN_DIR), report) {
        tracing::debug!("cannot store the result in {RUN_DIR}: {e}");
    }
}

fn keep_in(dir: &Path, report: &Report) -> io::Result<()> {
    let last = Last::of(report, read_in(dir, report.command()));
    write_json(dir, &file_name(report.command()), &last)
}

/// Returns the last run of each command since boot, except for `verify`.
pub fn all() -> Vec<Last> {
    COMMANDS.iter().filter_map(|command| read(command)).collect()
}

/// Returns the last run of a command since boot.
pub fn read(command: &str) -> Option<Last> {
    read_in(Path::new(RUN_DIR), command)
}

fn read_in(dir: &Path, command: &str) -> Option<Last> {
    read_json(dir, &file_name(command))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::disk::Content;
    use crate::plan::Subject;

    #[test]
    fn the_last_run_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("made/as/needed");
        assert_eq!(read_in(&dir, "provision"), None);
        for code in [ExitCode::KeyService, ExitCode::Failed] {
            keep_in(&dir, &Report::of_failure("provision", code, "no answer".to_owned())).unwrap();
            let last = read_in(&dir, "provision").unwrap();
            assert_eq!((last.text(), last.again, last.is_done()), ("no answer", true, false), "{code:?}");
        }
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "nothing else is left there");
    }

    #[test]
    fn another_run_is_worth_it_where_something_failed_and_not_where_it_was_decided() {
        let row = |device: &str, result, content| {
            let (role, device) = ("ebs".to_owned(), Some(device.to_owned()));
            Row::new(&Subject { device, role, serial: None, size: 0, content }, result)
        };
        let kept = |rows| {
            let last = Last::of(&Report::new("provision", rows, String::new()), None);
            (last.again, last.decided)
        };
        let decided = |left: &[&str], refused: &[&str]| {
            let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            Decided { left: names(left), refused: names(refused), ..Decided::default() }
        };
        let foreign = || Some(Content::Foreign { signatures: vec!["ext4".to_owned()] });
        let rows = vec![
            row("a", Verdict::Left, None),
            row("b", Verdict::Refused, foreign()),
            row("c", Verdict::Wrong, foreign()),
            row("d", Verdict::Unlocked, None),
            Row { device: None, ..row("", Verdict::Wrong, None) },
        ];
        assert_eq!(kept(rows), (false, decided(&["a"], &["b", "c"])));
        for failed in [
            row("a", Verdict::Failed, None),
            row("a", Verdict::Hung, None),
            row("a", Verdict::NoKey, None),
            row("a", Verdict::Refused, Some(Content::Unknown { reason: "I/O error".to_owned() })),
        ] {
            assert_eq!(
                kept(vec![failed.clone(), row("b", Verdict::Left, None)]),
                (true, decided(&["b"], &[])),
                "{failed:?}"
            );
        }
        let unreadable = || Some(Content::Unknown { reason: "I/O error".to_owned() });
        let passed_over = vec![row("a", Verdict::Left, foreign()), row("b", Verdict::Left, unreadable())];
        let names = |name: &str| vec![name.to_owned()];
        assert_eq!(
            kept(passed_over),
            (false, Decided { strangers: names("a"), unexamined: names("b"), ..Decided::default() })
        );
        // what `health` says of a volume that is not there is no reason to ask KMS again in a minute
        let health = Report::new("health", vec![row("a", Verdict::Missing, None)], String::new());
        assert!(!Last::of(&health.failed(ExitCode::Failed, "a: its disk is not attached".to_owned()), None).again);
    }

    #[test]
    fn calls_are_counted_and_what_a_later_run_does_not_know_is_not_forgotten() {
        let run = |code, calls: u64, stages: &[(&str, f64)], before| {
            let mut usage = Usage { credentials_seconds: 0.5, kms_seconds: 1.0, ..Usage::default() };
            usage.calls.insert("Decrypt".to_owned(), calls);
            let stages = stages.iter().map(|(stage, took)| ((*stage).to_owned(), *took)).collect();
            let report = Report::new("unlock", Vec::new(), String::new()).measured(Some(usage), stages);
            let report = if code == ExitCode::Done { report } else { report.failed(code, "no".to_owned()) };
            Last::of(&report, before)
        };
        let first = run(ExitCode::Done, 1, &[("unlocking", 2.0), ("mounting", 0.2)], None);
        let opened = first.unlock.clone().unwrap();
        assert_eq!((opened.credentials, opened.kms, opened.luks, opened.mount), (0.5, 1.0, 2.0, 0.2));
        let second = run(ExitCode::Failed, 3, &[], Some(first.clone()));
        assert_eq!(second.usage.calls["Decrypt"], 4);
        assert_eq!((second.succeeded, &second.unlock), (first.succeeded, &first.unlock));
        assert!(first.succeeded.is_some() && !second.is_done());
    }
}
