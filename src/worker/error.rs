//! Why a job failed.

use std::io;

use super::claim::ClaimError;
use super::close::CloseError;
use super::probe::ProbeError;
use crate::key::KeyError;
use crate::luks2::{HeaderError, KeyslotError, PolicyViolation};
use crate::storage::ToolError;
use crate::storage::cryptsetup::LuksError;
use crate::storage::dm::DmError;
use crate::storage::filesystem::FilesystemError;
use crate::storage::mount::MountError;

/// A job that failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum WorkerError {
    /// The input could not be read up to the end of a job.
    #[error("cannot read the job")]
    Job(#[source] io::Error),
    /// A line of the input is something else.
    #[error("invalid job")]
    NotAJob(#[source] serde_json::Error),
    /// The input could not be read up to the end of a passphrase.
    #[error("cannot read the passphrase")]
    Passphrase(#[source] io::Error),
    /// A line of the input is no passphrase.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A job has no passphrase that needs one.
    #[error("the job has no passphrase")]
    NoPassphrase,
    /// A new volume could not be mounted, so that none was made.
    #[error("nothing was done")]
    NothingDone(#[source] MountError),
    /// The disk was not claimed.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The disk was not examined.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// The LUKS2 header was not read.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The LUKS2 header is not as the agent made it.
    #[error(transparent)]
    Policy(#[from] PolicyViolation),
    /// The keyslot is not what it was.
    #[error(transparent)]
    Keyslot(#[from] KeyslotError),
    /// libcryptsetup failed.
    #[error(transparent)]
    Luks(#[from] LuksError),
    /// The mapping is not as the agent made it, or device-mapper failed.
    #[error(transparent)]
    Dm(#[from] DmError),
    /// A program failed.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// The file system was not made, read or grown.
    #[error(transparent)]
    Filesystem(#[from] FilesystemError),
    /// The volume was not mounted.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The volume was not closed.
    #[error(transparent)]
    Close(#[from] CloseError),
}
