//! What a worker is asked to do.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::basis::Basis;
use super::extent::Extent;
use super::target::Target;
use crate::disk::Scan;
use crate::luks2::{Encryption, Expected, FormatSpec, ProvenKeyslot};
use crate::storage::{FilesystemKind, MountSpec};

/// What a worker is asked to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Job {
    /// Say what is on the disk.
    Probe {
        /// The disk.
        target: Target,
        /// The LUKS UUID it was about to be formatted with, if it was.
        intent: Option<Uuid>,
        /// How much to read.
        scan: Scan,
    },
    /// Say which LUKS2 volume is on the disk, which may be in use. Writes nothing.
    Header {
        /// The disk.
        target: Target,
    },
    /// Encrypt the disk, open it and make a file system, after the basis was checked once more.
    Format(Format),
    /// Open the volume unless it is open, and mount it.
    Unlock(Unlock),
    /// Check that an open volume is, on the disk and in the kernel, what the state file says. Writes nothing.
    Check(Check),
    /// Grow an open volume to the size of the disk.
    Grow(Grow),
    /// Say whether the kernel can encrypt so. It is about no disk.
    Cipher {
        /// How.
        encryption: Encryption,
    },
    /// Unmount the volume and remove its mapping.
    Close {
        /// Mapper name.
        mapper: String,
        /// What is done where somebody holds it.
        extent: Extent,
    },
}

impl Job {
    /// Whether a passphrase follows the job.
    pub fn needs_key(&self) -> bool {
        match self {
            Self::Probe { .. } | Self::Header { .. } | Self::Check(_) | Self::Cipher { .. } | Self::Close { .. } => {
                false
            }
            Self::Format(_) => true,
            Self::Unlock(job) => !job.open,
            Self::Grow(job) => job.mapping,
        }
    }

    /// Whether there may be another job to do on the same disk after it.
    pub fn is_followed(&self) -> bool {
        matches!(self, Self::Probe { .. } | Self::Format(_))
    }
}

/// See [`Job::Format`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Format {
    /// The disk.
    pub target: Target,
    /// Why it may be formatted.
    pub basis: Basis,
    /// How much to read.
    pub scan: Scan,
    /// How.
    pub spec: FormatSpec,
    /// What to make on it.
    pub filesystem: FilesystemKind,
    /// Where it is to be mounted for the first time: nothing is done unless that can be.
    pub first_mount: Option<PathBuf>,
}

/// See [`Job::Unlock`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Unlock {
    /// The disk.
    pub target: Target,
    /// The volume that must be on it.
    pub expected: Expected,
    /// Mapper name.
    pub mapper: String,
    /// Whether its mapping is there already; then there is no passphrase.
    pub open: bool,
    /// Where to mount it.
    pub mount: Option<MountSpec>,
}

/// See [`Job::Check`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Check {
    /// The disk.
    pub target: Target,
    /// The volume that must be on it.
    pub expected: Expected,
    /// Mapper name.
    pub mapper: String,
    /// What is on it.
    pub filesystem: FilesystemKind,
    /// The keyslot that its key opens, where that is known.
    pub keyslot: Option<ProvenKeyslot>,
}

/// See [`Job::Grow`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Grow {
    /// The disk.
    pub target: Target,
    /// The volume that must be on it.
    pub expected: Expected,
    /// Mapper name.
    pub mapper: String,
    /// Whether the mapping is to grow too; without it there is no passphrase.
    pub mapping: bool,
    /// What is on it.
    pub filesystem: FilesystemKind,
    /// Where that is mounted; `None` where there is none.
    pub mount_point: Option<PathBuf>,
}
