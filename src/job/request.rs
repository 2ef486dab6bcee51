//! The jobs of a worker.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::basis::Basis;
use super::extent::Extent;
use super::target::Target;
use crate::disk::Scan;
use crate::luks2::{BackupOrigin, Encryption, Expected, FormatSpec, HeaderFacts, ProvenKeyslot, Token};
use crate::storage::{FilesystemKind, MountSpec};

/// A job for a worker.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Job {
    /// Report what is on the disk.
    Probe {
        /// The disk.
        target: Target,
        /// The LUKS UUID with which the disk was about to be formatted, if it was.
        intent: Option<Uuid>,
        /// How much to read.
        scan: Scan,
    },
    /// Report which LUKS2 volume is on the disk, which may be in use. Writes nothing.
    Header {
        /// The disk.
        target: Target,
    },
    /// Check the basis once more, then encrypt the disk, open it and make a file system.
    Format(Format),
    /// Open the volume unless it is open, and mount it.
    Unlock(Unlock),
    /// Check that an open volume matches the state file, on the disk and in the kernel. Writes nothing.
    Check(Check),
    /// Grow an open volume to the size of the disk.
    Grow(Grow),
    /// Report whether the kernel has a cipher. This job has no disk.
    Cipher {
        /// The encryption.
        encryption: Encryption,
    },
    /// Unmount the volume and remove its mapping.
    Close {
        /// Mapper name.
        mapper: String,
        /// What to do if something holds it.
        extent: Extent,
    },
    /// Give the volume another key, too. The passphrases of its own key and of the other one follow.
    AddKey(AddKey),
    /// Take a key away from the volume. The passphrase of the key that stays follows.
    RemoveKey(RemoveKey),
    /// Prove that the passphrase opens a volume, which may be open. Writes nothing.
    Verify(Verify),
    /// Report what the header of a volume says. Writes nothing.
    ShowHeader {
        /// The disk.
        target: Target,
    },
    /// Write the header area of a volume to a new file.
    BackUpHeader(BackUpHeader),
    /// Report what is in a backup, and what is on the disk. Writes nothing.
    InspectBackup(InspectBackup),
    /// Replace the header of a volume that is not open by the one in a backup.
    RestoreHeader(RestoreHeader),
    /// Add a keyslot for a recovery key, which is the second passphrase, in place of those of earlier recovery keys.
    EnrollRecovery(Verify),
    /// Remove the keyslots of recovery keys.
    RemoveRecovery(Verify),
    /// Prove that a key opens a volume that the state file does not list, open it unless it is open, and report how it was made.
    Adopt(Adopt),
    /// Overwrite the header of a volume that is not open, so that no key opens it any more.
    Erase(Erase),
    /// Show how a volume is encrypted: check header and mapping, and compare blocks of the mapping with those of the disk. Writes nothing.
    Audit(Audit),
    /// Give the open volume a new volume key: encrypt its data again, until that is finished or SIGTERM asks to stop.
    Reencrypt(Reencrypt),
}

impl Job {
    /// Returns how many passphrases follow the job.
    pub fn passphrases(&self) -> usize {
        match self {
            Self::Probe { .. } | Self::Header { .. } | Self::Check(_) | Self::Cipher { .. } | Self::Close { .. } => 0,
            Self::Erase(_) | Self::Audit(_) => 0,
            Self::Format(_) | Self::RemoveKey(_) | Self::Adopt(_) | Self::Reencrypt(_) => 1,
            Self::AddKey(_) => 2,
            Self::Unlock(job) => usize::from(!job.open),
            Self::Grow(job) => usize::from(job.mapping),
            Self::Verify(_) | Self::RestoreHeader(_) | Self::RemoveRecovery(_) => 1,
            Self::EnrollRecovery(_) => 2,
            Self::ShowHeader { .. } | Self::BackUpHeader(_) | Self::InspectBackup(_) => 0,
        }
    }

    /// Whether the worker can be asked to stop with SIGTERM. It is not killed then, which would leave reads and writes of the volume waiting.
    pub fn can_be_stopped(&self) -> bool {
        matches!(self, Self::Reencrypt(_))
    }

    /// Whether another job may follow on the same disk.
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
    /// The header to write.
    pub spec: FormatSpec,
    /// The file system to make on it.
    pub filesystem: FilesystemKind,
    /// Where the volume will be mounted for the first time. The worker does nothing unless that is possible.
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
    /// Whether the mapping exists already; then no passphrase follows.
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
    /// The file system on it.
    pub filesystem: FilesystemKind,
    /// The keyslot that its key opens, if known.
    pub keyslot: Option<ProvenKeyslot>,
}

/// See [`Job::Audit`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Audit {
    /// The disk.
    pub target: Target,
    /// The volume that must be on it.
    pub expected: Expected,
    /// Mapper name, if the volume is open.
    pub mapper: Option<String>,
    /// How many blocks to compare.
    pub blocks: u32,
}

/// See [`Job::AddKey`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AddKey {
    /// The disk.
    pub target: Target,
    /// The volume that must be on it; its other key is the one to add.
    pub expected: Expected,
    /// The token of that key.
    pub token: Token,
}

/// See [`Job::RemoveKey`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RemoveKey {
    /// The disk.
    pub target: Target,
    /// The volume that must be on it; its other key is the one to remove.
    pub expected: Expected,
    /// The keyslot that the key to remove opened.
    pub keyslot: ProvenKeyslot,
}

/// See [`Job::Reencrypt`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reencrypt {
    /// The disk.
    pub target: Target,
    /// The volume that must be on it.
    pub expected: Expected,
    /// Mapper name.
    pub mapper: String,
    /// The keyslot of the former volume key, if re-encryption has begun before: if another one opens, it is finished.
    pub former: Option<ProvenKeyslot>,
    /// How fast at most, in bytes a second.
    pub speed: Option<u64>,
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
    /// Whether the mapping must grow too; if not, no passphrase follows.
    pub mapping: bool,
    /// The file system on it.
    pub filesystem: FilesystemKind,
    /// Where the file system is mounted; `None` if there is none.
    pub mount_point: Option<PathBuf>,
}

/// See [`Job::Verify`]; the same for [`Job::EnrollRecovery`] and [`Job::RemoveRecovery`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Verify {
    /// The disk.
    pub target: Target,
    /// The volume that must be on it.
    pub expected: Expected,
}

/// See [`Job::BackUpHeader`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BackUpHeader {
    /// The disk.
    pub target: Target,
    /// The volume that must be on it.
    pub expected: Expected,
    /// The keyslot that its key opens, if known: a damaged one is not worth a backup.
    pub keyslot: Option<ProvenKeyslot>,
    /// Mapper name, if the volume is open: the file must not be on it.
    pub mapper: Option<String>,
    /// The file, which must not exist.
    pub file: PathBuf,
    /// What the backup says about the volume.
    pub origin: BackupOrigin,
}

/// See [`Job::InspectBackup`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InspectBackup {
    /// The disk.
    pub target: Target,
    /// The file.
    pub file: PathBuf,
    /// The volume that should be in it.
    pub expected: Expected,
}

/// See [`Job::RestoreHeader`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RestoreHeader {
    /// The disk.
    pub target: Target,
    /// The file.
    pub file: PathBuf,
    /// The checksum of the file when it was inspected.
    pub sha256: String,
    /// What was on the disk then.
    pub present: Option<HeaderFacts>,
    /// The volume that must be in the file.
    pub expected: Expected,
}

/// See [`Job::Adopt`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Adopt {
    /// The disk.
    pub target: Target,
    /// The volume that must be on it.
    pub expected: Expected,
    /// Mapper name.
    pub mapper: String,
    /// Whether the mapping exists already.
    pub open: bool,
}

/// See [`Job::Erase`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Erase {
    /// The disk.
    pub target: Target,
    /// The volume that must be on it.
    pub luks_uuid: Uuid,
    /// Whether an interrupted run has begun, so that the header may be gone.
    pub resumes: bool,
}
