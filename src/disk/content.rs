//! The content of a disk and the evidence for it.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::bytes::Bytes;
use crate::luks2::Token;

/// The content of a disk. A worker examines it after it has opened the disk exclusively.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Content {
    /// No signature of any kind, and all bytes that were read are zero.
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
    /// The remains of an interrupted format of our own and nothing else: a damaged header with the intended UUID in the state file,
    /// or bytes in the header area only.
    Unfinished,
    /// Other signatures than LUKS2.
    Foreign {
        /// Their names in blkid, with offsets.
        signatures: Vec<String>,
    },
    /// No signature and no structure: each block that was read is uniformly random or zero. EBS volumes with EBS encryption can read
    /// like that where they were never written; encrypted data without a header does as well.
    Noise {
        /// The offset of the first non-zero byte that was read.
        offset: u64,
        /// How much was read.
        evidence: NoiseEvidence,
    },
    /// Data without a known signature.
    Unrecognised {
        /// The offset of the first non-zero byte that was read.
        offset: u64,
    },
    /// It read as blank twice, but this node has written to it meanwhile.
    Written,
    /// Unknown, because the disk could not be read, or not in time.
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
            Self::Written => f.write_str("this node has written to it since the first look"),
            Self::Unknown { reason } => write!(f, "it could not be examined: {reason}"),
        }
    }
}

/// The evidence that a disk holds nothing but noise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoiseEvidence {
    /// Bytes read.
    pub read: u64,
    /// How many of them are in uniformly random blocks. The others are zero.
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

/// The evidence that a disk is blank.
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
    /// All of a volume of up to 1 GiB; both ends of a larger one, and samples between them.
    Sampled,
    /// All of it.
    Full,
}

/// How much of a disk to read, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scan {
    /// How much.
    pub how: BlankScan,
    /// How long it may take in total. [`BlankScan::Full`] has no limit.
    pub within: Duration,
}
