//! When it was last shown that volumes open.

use jiff::Timestamp;
use serde::Serialize;

use crate::audit::{AuditReport, Disk, Proof};

/// Proofs that the attached volumes of the agent open after a reboot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Proofs {
    /// The volume whose last proof is the oldest.
    pub oldest: Option<OldestProof>,
    /// Volumes with a proof since boot.
    pub proven: u64,
    /// Volumes without one.
    pub unproven: u64,
}

/// The last proof of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OldestProof {
    /// The node.
    pub node: String,
    /// The kernel name of the disk.
    pub device: String,
    /// When it was.
    pub at: Timestamp,
    /// How it was proven.
    pub by: Proof,
}

impl Proofs {
    /// Adds the volumes of a node.
    pub(super) fn add(&mut self, report: &AuditReport) {
        for (device, disk) in volumes(report) {
            let Some(proven) = disk.proven else {
                self.unproven += 1;
                continue;
            };
            self.proven += 1;
            if self.oldest.as_ref().is_none_or(|oldest| proven.at < oldest.at) {
                let node = report.node.title().to_owned();
                self.oldest = Some(OldestProof { node, device: device.to_owned(), at: proven.at, by: proven.by });
            }
        }
    }
}

/// Returns the attached volumes of the agent with their kernel names.
fn volumes(report: &AuditReport) -> impl Iterator<Item = (&str, &Disk)> {
    let of_the_agent = |disk: &&Disk| disk.encryption.is_some() || disk.key_arn.is_some();
    report.disks.iter().filter(of_the_agent).filter_map(|disk| Some((disk.device.as_deref()?, disk)))
}
