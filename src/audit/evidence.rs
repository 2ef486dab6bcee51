//! The evidence that data is encrypted.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Blocks at random places, read twice with direct I/O: through the mapping, and at the same place of the volume from the raw disk.
///
/// What is encrypted differs. Blocks that are all zero on the raw disk are not counted: they were never written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// When they were read.
    pub read: Timestamp,
    /// Size of a block in bytes.
    pub block_size: u32,
    /// How many blocks were compared.
    pub blocks: u64,
    /// How many of them differ between mapping and disk. As many as there are, if all is encrypted.
    pub differ: u64,
    /// How many more were left out because they are zero on the raw disk.
    pub unwritten: u64,
}
