//! How much is encrypted.

use serde::Serialize;

use super::disk::Standing;
use super::report::AuditReport;

/// Counts by verdict.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Encrypted.
    pub encrypted: u64,
    /// Not the agent's to encrypt, for a reason that is named.
    pub excepted: u64,
    /// Nothing shows whether it is encrypted.
    pub unknown: u64,
    /// Data is or could be in clear.
    pub not_encrypted: u64,
}

impl Tally {
    /// Adds to the count of a verdict.
    fn add(&mut self, verdict: Standing, count: u64) {
        let counted = match verdict {
            Standing::Encrypted => &mut self.encrypted,
            Standing::Excepted => &mut self.excepted,
            Standing::Unknown => &mut self.unknown,
            Standing::NotEncrypted => &mut self.not_encrypted,
        };
        // a report may have any size
        *counted = counted.saturating_add(count);
    }

    /// Returns the counts, from the best verdict to the worst, and their sum.
    pub(crate) fn columns(self) -> [u64; 5] {
        let counts = [self.encrypted, self.excepted, self.unknown, self.not_encrypted];
        let total = counts.into_iter().fold(0, u64::saturating_add);
        [counts[0], counts[1], counts[2], counts[3], total]
    }
}

/// How much of a node, or of several, is encrypted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Coverage {
    /// Nodes, by the verdict of their report.
    pub nodes: Tally,
    /// Attached disks, boot volumes included.
    pub volumes: Tally,
    /// The sizes of the attached disks.
    pub bytes: Tally,
    /// Volumes that nodes know and that are not attached. They are in no other count.
    pub detached: u64,
}

impl Coverage {
    /// Returns how much of one node is encrypted.
    pub(crate) fn of(report: &AuditReport) -> Self {
        let mut coverage = Self::default();
        coverage.add(report);
        coverage
    }

    /// Adds a node.
    pub(crate) fn add(&mut self, report: &AuditReport) {
        self.nodes.add(report.verdict, 1);
        for disk in &report.disks {
            if disk.device.is_none() {
                self.detached += 1;
                continue;
            }
            self.volumes.add(disk.verdict, 1);
            self.bytes.add(disk.verdict, disk.size);
        }
    }
}
