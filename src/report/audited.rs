//! What the last recorded audit found, kept in memory for the metrics. The report itself may be signed, large, or in a file that outlives
//! the boot.

use std::io;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::audit::{AuditReport, Coverage, OldestProof};
use crate::state::run::{RUN_DIR, read_json, write_json};

const FILE: &str = "audited.json";

/// What the last audit for the record found, since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audited {
    /// When a report was last written; earlier than this audit if its report could not be signed or written.
    pub recorded: Option<Timestamp>,
    /// Whether each disk is encrypted or excepted.
    pub compliant: bool,
    /// How many attached disks are not encrypted.
    pub disks_in_clear: u64,
    /// The oldest proof that a volume opens; `None` if there is no volume, or one has no proof since boot.
    pub oldest_proof: Option<Timestamp>,
}

impl Audited {
    /// Returns what is kept of a report, if one was last written at `recorded`.
    fn of(report: &AuditReport, recorded: Option<Timestamp>) -> Self {
        let oldest_proof = match report.oldest_proof() {
            OldestProof::At(at) => Some(at),
            OldestProof::NoVolume | OldestProof::NoneSinceBoot => None,
        };
        Self {
            recorded,
            compliant: report.verdict.is_fine(),
            disks_in_clear: Coverage::of(report).volumes.not_encrypted,
            oldest_proof,
        }
    }
}

/// Keeps what a report says that was not written yet. A failure to keep it does not fail the command.
pub fn keep(report: &AuditReport) {
    let recorded = read().and_then(|before| before.recorded);
    warn_of(keep_in(Path::new(RUN_DIR), &Audited::of(report, recorded)));
}

/// Keeps what a report says that was written.
pub fn keep_recorded(report: &AuditReport) {
    warn_of(keep_in(Path::new(RUN_DIR), &Audited::of(report, Some(report.made))));
}

fn keep_in(dir: &Path, audited: &Audited) -> io::Result<()> {
    write_json(dir, FILE, audited)
}

fn warn_of(kept: io::Result<()>) {
    if let Err(e) = kept {
        tracing::warn!("cannot store in {RUN_DIR} what the audit found, so the metrics lack it: {e}");
    }
}

/// Returns what the last audit for the record found, since boot.
pub fn read() -> Option<Audited> {
    read_json(Path::new(RUN_DIR), FILE)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::audit::example::example;

    #[test]
    fn keeps_what_the_metrics_need() {
        let dir = tempfile::tempdir().unwrap();
        let recorded = Some(example().made);
        let found = Audited::of(&example(), recorded);
        let oldest_proof = Some("2026-01-02T03:04:05Z".parse().unwrap());
        assert_eq!(found, Audited { recorded, compliant: false, disks_in_clear: 1, oldest_proof });
        keep_in(dir.path(), &found).unwrap();
        assert_eq!(read_json(dir.path(), FILE), Some(found));
        fs::write(dir.path().join(FILE), "torn").unwrap();
        assert_eq!(read_json::<Audited>(dir.path(), FILE), None);
    }

    #[test]
    fn a_detached_disk_is_not_counted_and_a_volume_without_a_proof_is_no_proof() {
        let mut report = example();
        report.disks[2].device = None;
        report.disks[1].proven = None;
        let found = Audited::of(&report, None);
        assert_eq!((found.disks_in_clear, found.oldest_proof), (0, None));
    }
}
