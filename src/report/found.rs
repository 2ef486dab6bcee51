//! What was found on a disk.

use serde::Serialize;
use uuid::Uuid;

use crate::disk::Content;

/// What was found on a disk, for programs. The `reason` of the row says it in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "found", rename_all = "kebab-case")]
pub enum Found {
    /// Nothing.
    Blank {
        /// Bytes read, all of them zero.
        read: u64,
        /// Size of the disk in bytes.
        of: u64,
    },
    /// Signatures, in words.
    Signatures {
        /// Each with its offset, where it has one.
        signatures: Vec<String>,
    },
    /// Bytes that are not zero, with neither a signature nor structure.
    Noise {
        /// Bytes read.
        read: u64,
        /// How many of them are uniformly random.
        random: u64,
        /// Size of the disk in bytes.
        of: u64,
    },
    /// Bytes that are not zero, without a signature.
    Data {
        /// Offset of the first of them that was seen.
        offset: u64,
    },
    /// What this node wrote to it between the looks. Samples did not find it.
    Written,
    /// A LUKS2 header.
    Luks2 {
        /// Its UUID.
        luks_uuid: Uuid,
        /// Whether it has a token of luks-agent.
        luks_agent: bool,
    },
    /// The beginning of an interrupted format of our own.
    Unfinished,
    /// It could not be examined.
    Unknown,
}

impl From<&Content> for Found {
    fn from(content: &Content) -> Self {
        match content {
            Content::Blank { evidence } => Self::Blank { read: evidence.read, of: evidence.of },
            Content::Luks2 { luks_uuid, token } => Self::Luks2 { luks_uuid: *luks_uuid, luks_agent: token.is_some() },
            Content::Unfinished => Self::Unfinished,
            Content::Foreign { signatures } => Self::Signatures { signatures: signatures.clone() },
            Content::Noise { evidence, .. } => {
                Self::Noise { read: evidence.read, random: evidence.random, of: evidence.of }
            }
            Content::Written => Self::Written,
            Content::Unrecognised { offset } => Self::Data { offset: *offset },
            Content::Unknown { .. } => Self::Unknown,
        }
    }
}
