//! The disk of a job.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::disk::{DevNo, DeviceFacts};

/// The disk of a job: what must still hold for the node at `path` when the worker has opened it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The device node.
    pub path: PathBuf,
    /// Its device number.
    pub devno: DevNo,
    /// The kernel's sequence number of the disk, if it has one.
    pub diskseq: Option<u64>,
    /// Size in bytes.
    pub size: u64,
}

impl From<&DeviceFacts> for Target {
    fn from(facts: &DeviceFacts) -> Self {
        Self { path: facts.path.clone(), devno: facts.devno, diskseq: facts.diskseq, size: facts.size }
    }
}
