//! What is on a disk, as a worker found it.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::bytes::Bytes;
use crate::luks2::Token;

/// What a worker found on a disk that it had opened exclusively.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Content {
    /// No signature of any kind, and all that was read is zero.
    Blank {
        /// How much was read.
        evidence: Evidence,
    },
    /// A LUKS2 header.
    Luks2 {
        /// Its UUID.
        luks_uuid: Uuid,
        /// The agent's token in it, if there is one.
        token: Option<Box<Token>>,
    },
    /// What a torn format of our own leaves behind, and nothing else: a header with the UUID that the state file records
    /// as intended, or bytes in the header area alone.
    Unfinished,
    /// Signatures that are not LUKS2.
    Foreign {
        /// What blkid calls them, with their offsets.
        signatures: Vec<String>,
    },
    /// No signature and no structure: each block that was read is uniformly random, or zero. So read blocks that were never written
    /// of an EBS volume with EBS encryption, and so do encrypted data without a header.
    Noise {
        /// Where the first non-zero byte was seen.
        offset: u64,
        /// How much was read.
        evidence: NoiseEvidence,
    },
    /// Data without a known signature.
    Unrecognised {
        /// Where the first non-zero byte was seen.
        offset: u64,
    },
    /// It could not be read, or not in time: nothing is known of what is on it.
    Unknown {
        /// Why.
        reason: String,
    },
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blank { evidence } => write!(f, "blank ({evidence})"),
            Self::Luks2 { luks_uuid, token: Some(_) } => write!(f, "LUKS2 volume {luks_uuid} of luks-agent"),
            Self::Luks2 { luks_uuid, token: None } => write!(f, "LUKS2 volume {luks_uuid}"),
            Self::Unfinished => f.write_str("the beginning of a LUKS2 header of luks-agent"),
            Self::Foreign { signatures } => f.write_str(&signatures.join(", ")),
            Self::Noise { offset, evidence } => write!(f, "{evidence}, first seen at byte {offset}"),
            Self::Unrecognised { offset } => write!(f, "data without a known signature, first seen at byte {offset}"),
            Self::Unknown { reason } => write!(f, "it could not be examined: {reason}"),
        }
    }
}

/// How much of a disk was read before it counted as noise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoiseEvidence {
    /// Bytes read.
    pub read: u64,
    /// How many of them are in blocks that are uniformly random; the others are zero.
    pub random: u64,
    /// Size of the disk in bytes.
    pub of: u64,
}

impl fmt::Display for NoiseEvidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { read, random, of } = *self;
        let (read, of, random, zero) = (Bytes(read), Bytes(of), Bytes(random), Bytes(read - random));
        write!(f, "no signature and no structure in {read} of {of}: {random} uniformly random, {zero} zero")
    }
}

/// How much of a disk was read before it counted as blank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Bytes read, all of them zero.
    pub read: u64,
    /// Size of the disk in bytes.
    pub of: u64,
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (read, of) = (Bytes(self.read), Bytes(self.of));
        if self.read == self.of {
            write!(f, "no signature, all {of} read as zero")
        } else {
            write!(f, "no signature, {read} of {of} read, both ends included, all zero")
        }
    }
}

/// How much of a volume the blank check reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BlankScan {
    /// All of a volume of up to 1 GiB; of a larger one both ends and samples between them.
    Sampled,
    /// All of it.
    Full,
}

/// How much of a disk to read, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scan {
    /// How much.
    pub how: BlankScan,
    /// How long it may take in all, unless all is to be read of a disk of any size.
    pub within: Duration,
}
