//! What is to be done with a disk.

use std::path::PathBuf;

use uuid::Uuid;

use crate::disk::DeviceFacts;
use crate::job::Basis;
use crate::state::VolumeRole;
use crate::storage::FilesystemKind;

/// Work on one disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The disk.
    pub device: DeviceFacts,
    /// What it is.
    pub role: VolumeRole,
    /// What to do.
    pub action: Action,
}

/// The things that can be done with a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Encrypt it, then open and mount it.
    Format(Format),
    /// Open it unless it is open, mount it unless it is mounted.
    Unlock(Unlock),
    /// Grow an open volume to the size of its disk: the mapping, then the file system.
    Grow(Grow),
}

impl Action {
    /// Returns where the volume is to be mounted, or is mounted.
    pub fn mount_point(&self) -> Option<&PathBuf> {
        match self {
            Self::Format(format) => format.mount_point.as_ref(),
            Self::Unlock(unlock) => unlock.mount_point.as_ref(),
            Self::Grow(grow) => grow.mount_point.as_ref(),
        }
    }
}

/// See [`Action::Format`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format {
    /// The record of an earlier attempt that did not end, to be taken up.
    pub resume: Option<Uuid>,
    /// Why this may be done.
    pub basis: Basis,
    /// Where to mount it.
    pub mount_point: Option<PathBuf>,
    /// What to make on it.
    pub filesystem: FilesystemKind,
}

/// See [`Action::Unlock`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unlock {
    /// Its LUKS UUID.
    pub luks_uuid: Uuid,
    /// Id of the key that opens it.
    pub key: u32,
    /// Where to mount it.
    pub mount_point: Option<PathBuf>,
    /// What is on it.
    pub filesystem: FilesystemKind,
    /// Whether the mapping is there already, so that no key is needed.
    pub is_open: bool,
}

/// See [`Action::Grow`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grow {
    /// Its LUKS UUID.
    pub luks_uuid: Uuid,
    /// Id of the key that opens it.
    pub key: u32,
    /// Where its file system is mounted; `None` where it has none.
    pub mount_point: Option<PathBuf>,
    /// What is on it.
    pub filesystem: FilesystemKind,
    /// Size of the disk in bytes when the volume was made or last grown.
    pub from: u64,
    /// Whether the mapping is to grow too, for which the key is needed: it has the size of the disk already where that had
    /// grown before the volume was opened.
    pub grows_mapping: bool,
}
