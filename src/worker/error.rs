//! The errors of a worker's jobs.

use std::io;
use std::path::PathBuf;

use super::claim::ClaimError;
use super::close::CloseError;
use super::erase_error::EraseError;
use super::probe::ProbeError;
use super::reader::ReadError;
use super::signatures::SignatureError;
use crate::error::IoError;
use crate::key::KeyError;
use crate::luks2::{BackupError, HeaderError, KeyslotError, PolicyViolation};
use crate::storage::ToolError;
use crate::storage::cryptsetup::LuksError;
use crate::storage::dm::DmError;
use crate::storage::filesystem::FilesystemError;
use crate::storage::mount::MountError;

/// A job that failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum WorkerError {
    /// Reading a job failed.
    #[error("cannot read the job")]
    Job(#[source] io::Error),
    /// A line of the input is not a job.
    #[error("invalid job")]
    NotAJob(#[source] serde_json::Error),
    /// Reading a passphrase failed.
    #[error("cannot read the passphrase")]
    Passphrase(#[source] io::Error),
    /// A line of the input is not a passphrase.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A job needs a passphrase but has none.
    #[error("the job has no passphrase")]
    NoPassphrase,
    /// The thread that does the work panicked.
    #[error("the worker's thread panicked; this is a bug of luks-agent")]
    Panicked,
    /// The mount point of a new volume cannot be used, so the disk was not formatted.
    #[error("nothing was done")]
    NothingDone(#[source] MountError),
    /// The disk could not be claimed.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The disk could not be examined.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// The LUKS2 header could not be read.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The LUKS2 header is not what the agent wrote.
    #[error(transparent)]
    Policy(#[from] PolicyViolation),
    /// The keyslot has changed.
    #[error(transparent)]
    Keyslot(#[from] KeyslotError),
    /// libcryptsetup failed.
    #[error(transparent)]
    Luks(#[from] LuksError),
    /// The mapping is not what the agent created, or device-mapper failed.
    #[error(transparent)]
    Dm(#[from] DmError),
    /// An open volume whose header or mapping is not what the state file says.
    #[error(
        "the volume is open, but not as recorded, and was not mounted; it stays open: if you trust it, mount /dev/mapper/{mapper} yourself, and copy its data before you close it"
    )]
    OpenOtherwise {
        /// Mapper name.
        mapper: String,
        /// The difference.
        source: Box<Self>,
    },
    /// Another device has the name that the volume would get.
    #[error("the mapping {mapper} exists and is another device; remove it with 'dmsetup remove {mapper}'")]
    NameTaken {
        /// Mapper name.
        mapper: String,
    },
    /// A program failed.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// The file system could not be made, read or grown.
    #[error(transparent)]
    Filesystem(#[from] FilesystemError),
    /// The volume could not be mounted.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The volume could not be closed.
    #[error(transparent)]
    Close(#[from] CloseError),
    /// The file of a backup is not usable.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// A system call on a file failed.
    #[error(transparent)]
    Io(#[from] IoError),
    /// A backup would overwrite a file.
    #[error("{} exists already, and a backup never overwrites a file; choose another name", .0.display())]
    FileExists(PathBuf),
    /// A backup would be on the volume that it is of.
    #[error("{} is on the volume itself, where a backup of its header helps nobody; choose another place", .0.display())]
    OnTheVolume(PathBuf),
    /// The file or the header has changed since they were inspected.
    #[error("the backup or the header on the disk changed meanwhile, so nothing was written; run the command again")]
    ChangedMeanwhile,
    /// The header of a volume to adopt has no layout that the agent makes.
    #[error(
        "the LUKS2 header has a layout that luks-agent does not make; see 'break-glass' in the README to open it without luks-agent"
    )]
    NoLayout,
    /// The header of a volume to adopt has the tokens of several keys.
    #[error(
        "the LUKS2 header has {0} tokens of luks-agent: a change of its key was interrupted; run 'luks-agent provision' on the node that made it, which finishes it, or see 'break-glass' in the README"
    )]
    SeveralKeys(usize),
    /// The volume could not be erased.
    #[error(transparent)]
    Erase(#[from] EraseError),
    /// The disk could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// blkid could not examine the disk.
    #[error(transparent)]
    Signatures(#[from] SignatureError),
}
