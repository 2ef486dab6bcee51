//! Why a disk may be formatted.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::disk::{Content, Evidence, NoiseEvidence};

/// Why a disk may be formatted. The worker checks it again on the disk itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "because", rename_all = "kebab-case")]
pub enum Basis {
    /// It is blank.
    Blank {
        /// The evidence.
        evidence: Evidence,
        /// The known volume that it replaces: instance store that was lost at a stop.
        replaces: Option<Uuid>,
    },
    /// It is an EBS volume with nothing but noise on it, and the configuration says to treat noise as unwritten blocks.
    Noise {
        /// The evidence.
        evidence: NoiseEvidence,
        /// The UUID that the state file records as intended, if the formatting has started: noise follows the beginning
        /// of a header.
        begun: Option<Uuid>,
    },
    /// It is our own interrupted work, never mounted.
    Unfinished {
        /// The UUID that the state file records as intended.
        luks_uuid: Uuid,
    },
    /// The configuration says to wipe instance store volumes.
    Wipe {
        /// What is on it.
        found: Content,
        /// The gone instance store volume that it replaces.
        replaces: Option<Uuid>,
    },
}

impl fmt::Display for Basis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blank { evidence, replaces: None } => write!(f, "{evidence}"),
            Self::Blank { evidence, replaces: Some(uuid) } => {
                write!(f, "{evidence}; replaces {uuid}, lost with the instance store")
            }
            Self::Noise { evidence, .. } => write!(f, "volumes.noise is format-ebs; {evidence}"),
            Self::Unfinished { luks_uuid } => write!(f, "finishes formatting {luks_uuid}, which holds no data"),
            Self::Wipe { found, .. } => write!(f, "wipe-instance-store is configured; overwrites {}", found),
        }
    }
}
