//! The oldest proof that a volume of a node opens.

use std::fmt;

use jiff::Timestamp;

use super::disk::Standing;
use super::report::AuditReport;

/// When the volume that was proven longest ago was proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OldestProof {
    /// The node has no encrypted volume that is attached.
    NoVolume,
    /// A volume has no proof since boot.
    NoneSinceBoot,
    /// Every volume has one, and this is the oldest.
    At(Timestamp),
}

impl fmt::Display for OldestProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoVolume => f.write_str("no volume"),
            Self::NoneSinceBoot => f.write_str("none since boot"),
            Self::At(at) => at.fmt(f),
        }
    }
}

impl AuditReport {
    /// Returns the oldest proof among the encrypted volumes that are attached.
    pub fn oldest_proof(&self) -> OldestProof {
        let volumes = self.disks.iter().filter(|disk| disk.device.is_some() && disk.verdict == Standing::Encrypted);
        let proofs: Option<Vec<_>> = volumes.map(|disk| disk.proven.map(|proven| proven.at)).collect();
        match proofs {
            Some(proofs) => proofs.into_iter().min().map_or(OldestProof::NoVolume, OldestProof::At),
            None => OldestProof::NoneSinceBoot,
        }
    }
}
