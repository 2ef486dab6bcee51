//! What to do with a disk.

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

/// An action on one disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Encrypt it, then open and mount it.
    Format(Format),
    /// Open it unless it is open, mount it unless it is mounted.
    Unlock(Unlock),
    /// Grow an open volume to the size of its disk: the mapping, then the file system.
    Grow(Grow),
    /// Give the volume the key that takes the place of its own.
    Rekey(Rekey),
}

impl Action {
    /// Returns where the volume is to be mounted, or is mounted.
    pub fn mount_point(&self) -> Option<&PathBuf> {
        match self {
            Self::Format(format) => format.mount_point.as_ref(),
            Self::Unlock(unlock) => unlock.mount_point.as_ref(),
            Self::Grow(grow) => grow.mount_point.as_ref(),
            Self::Rekey(rekey) => rekey.mount_point.as_ref(),
        }
    }
}

/// See [`Action::Format`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format {
    /// LUKS UUID of an interrupted attempt to continue.
    pub resume: Option<Uuid>,
    /// Why the disk may be formatted.
    pub basis: Basis,
    /// Where to mount it.
    pub mount_point: Option<PathBuf>,
    /// File system to make on it.
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
    /// File system on it.
    pub filesystem: FilesystemKind,
    /// Whether the mapping exists already, so that no key is needed.
    pub is_open: bool,
}

/// See [`Action::Rekey`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rekey {
    /// Its LUKS UUID.
    pub luks_uuid: Uuid,
    /// Id of the key that opens it now.
    pub key: u32,
    /// Id of the key that it is to have; the same if only the former one is left to be removed.
    pub wanted: u32,
    /// Where it is mounted.
    pub mount_point: Option<PathBuf>,
}

/// See [`Action::Grow`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grow {
    /// Its LUKS UUID.
    pub luks_uuid: Uuid,
    /// Id of the key that opens it.
    pub key: u32,
    /// Where its file system is mounted; `None` if it has none.
    pub mount_point: Option<PathBuf>,
    /// File system on it.
    pub filesystem: FilesystemKind,
    /// Size of the disk in bytes when the volume was made or last grown.
    pub from: u64,
    /// Whether the mapping must grow too, which needs the key. If the disk grew before the volume was opened, the mapping has the
    /// size of the disk already.
    pub grows_mapping: bool,
}
