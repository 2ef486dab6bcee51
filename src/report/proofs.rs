//! When each volume was opened and last proven, kept in memory for audit reports.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::report::Report;
use super::verdict::Verdict;
use crate::audit::{Proof, Proven};
use crate::state::run::{RUN_DIR, read_json, write_json};

const FILE: &str = "proofs.json";

/// What is kept of a volume. It is about the time since boot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// When the agent opened it; `None` if it did not, or has closed it since.
    pub opened: Option<Timestamp>,
    /// The last proof that it opens.
    pub proven: Option<Proven>,
}

/// What is kept, by LUKS UUID.
pub type Proofs = BTreeMap<Uuid, Kept>;

/// Keeps what a report says about volumes that were opened, closed or found sound.
///
/// A failure to keep it does not fail the command.
pub fn keep(report: &Report) {
    if let Err(e) = keep_in(Path::new(RUN_DIR), report, Timestamp::now()) {
        tracing::debug!("cannot store in {RUN_DIR} which volumes were proven: {e}");
    }
}

/// Returns what is kept of each volume.
pub fn read() -> Proofs {
    read_json(Path::new(RUN_DIR), FILE).unwrap_or_default()
}

fn keep_in(dir: &Path, report: &Report, now: Timestamp) -> io::Result<()> {
    let before: Proofs = read_json(dir, FILE).unwrap_or_default();
    let after = updated(before.clone(), report, now);
    if after == before { Ok(()) } else { write_json(dir, FILE, &after) }
}

fn updated(mut proofs: Proofs, report: &Report, now: Timestamp) -> Proofs {
    let sound = match report.command() {
        "verify" => Some(Proof::Verify),
        "health" => Some(Proof::Health),
        _ => None,
    };
    let is_key_usable = report.keys().iter().all(|key| key.error.is_none());
    for row in report.rows() {
        let Some(luks_uuid) = row.luks_uuid else { continue };
        if row.opened {
            let proven = Some(Proven { at: now, by: Proof::Opened }).filter(|_| !report.by_recovery_key);
            let kept = proofs.entry(luks_uuid).or_default();
            *kept = Kept { opened: Some(now), proven: proven.or(kept.proven) };
        }
        match (row.result, sound) {
            (Verdict::Closed, _) => {
                proofs.entry(luks_uuid).and_modify(|kept| kept.opened = None);
            }
            (Verdict::Sound, Some(by)) if is_key_usable => {
                proofs.entry(luks_uuid).or_default().proven = Some(Proven { at: now, by });
            }
            _ => {}
        }
    }
    proofs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Subject;
    use crate::report::{KeyFinding, Row};
    use crate::state::VolumeRole;

    const VOLUME: Uuid = Uuid::from_u128(7);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn report(command: &'static str, result: Verdict, opened: bool) -> Report {
        let row = Row::new(&Subject::absent_of(VolumeRole::Ebs), result).volume(Some(VOLUME), None);
        Report::new(command, vec![Row { opened, ..row }], String::new())
    }

    #[test]
    fn keeps_when_a_volume_was_opened_and_how_it_was_last_proven() {
        let dir = tempfile::tempdir().unwrap();
        let keep = |report: Report, second| {
            keep_in(dir.path(), &report, at(second)).unwrap();
            let kept: Proofs = read_json(dir.path(), FILE).unwrap_or_default();
            let kept = kept.get(&VOLUME).copied().unwrap_or_default();
            (kept.opened.map(|at| at.as_second()), kept.proven.map(|proven| (proven.at.as_second(), proven.by)))
        };
        assert_eq!(keep(report("status", Verdict::Open, false), 1), (None, None));
        assert_eq!(keep(report("unlock", Verdict::Unlocked, true), 2), (Some(2), Some((2, Proof::Opened))));
        // mounted only
        assert_eq!(keep(report("unlock", Verdict::Unlocked, false), 3), (Some(2), Some((2, Proof::Opened))));
        assert_eq!(keep(report("health", Verdict::Sound, false), 4), (Some(2), Some((4, Proof::Health))));
        assert_eq!(keep(report("verify", Verdict::Sound, false), 5), (Some(2), Some((5, Proof::Verify))));
        assert_eq!(keep(report("health", Verdict::Wrong, false), 6), (Some(2), Some((5, Proof::Verify))));
        let key = KeyFinding { key_arn: "arn".to_owned(), state: None, error: Some("denied".to_owned()) };
        let denied = report("health", Verdict::Sound, false).of_keys(vec![key]);
        assert_eq!(keep(denied, 7), (Some(2), Some((5, Proof::Verify))));
        assert_eq!(keep(report("close", Verdict::Closed, false), 8), (None, Some((5, Proof::Verify))));
        let recovered = report("unlock", Verdict::Unlocked, true).with_recovery_key();
        assert_eq!(keep(recovered, 9), (Some(9), Some((5, Proof::Verify))));
    }
}
