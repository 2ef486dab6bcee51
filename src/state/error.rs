//! Errors of the state directory and its file.

use std::path::PathBuf;
use std::time::Duration;

use super::record::VERSION;
use crate::error::IoError;

/// A state directory or file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A system call on it failed.
    #[error(transparent)]
    Io(#[from] IoError),
    /// Another agent is running.
    #[error("another luks-agent is running ({holder}) and holds the lock on {path}; gave up after {} s; wait for it to finish, then run the command again", .waited.as_secs())]
    Locked {
        /// The locked directory.
        path: PathBuf,
        /// PID and command of the process that holds the lock.
        holder: String,
        /// How long this run waited.
        waited: Duration,
    },
    /// Another directory took the place of the locked one.
    #[error("the state directory {path} was replaced while this command ran; nothing was saved, run the command again")]
    Replaced {
        /// The directory.
        path: PathBuf,
    },
    /// The state file does not exist, but must.
    #[error(
        "this node was never provisioned, or its state file is lost: {path} does not exist; run 'luks-agent provision' first, which formats nothing if a volume of luks-agent is attached"
    )]
    NeverProvisioned {
        /// The expected file.
        path: PathBuf,
    },
    /// A file that this release would not have written.
    #[error(
        "{path} is damaged: {reason}; restore it from a backup, or see 'break-glass' in the README to open the volumes without it; until then, the agent formats nothing"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A file with a newer format version.
    #[error(
        "{path} has format version {version}, but this luks-agent supports 1 to {VERSION}; install the release that wrote it"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u64,
    },
    /// A file of a newer release with the same format version.
    #[error(
        "{path} is intact, but a later luks-agent wrote it: {reason}; install the release that wrote it; until then, the agent formats nothing"
    )]
    Later {
        /// The file.
        path: PathBuf,
        /// The field or value that this release does not support.
        reason: String,
    },
    /// Other users can write to a file or directory.
    #[error(
        "{path} {reason}; expected owner {owner} and no write permission for others: find out who changed it, then run 'chown {owner} {path}' and 'chmod go-w {path}'"
    )]
    Permissions {
        /// File or directory.
        path: PathBuf,
        /// What is wrong.
        reason: String,
        /// Expected user ID.
        owner: u32,
    },
    /// A new state directory that a reboot would empty.
    #[error(
        "state.dir {path} is in memory: it lies on {on}, so a reboot would lose the wrapped key; choose a directory on the boot volume"
    )]
    InMemory {
        /// The directory.
        path: PathBuf,
        /// What it lies on.
        on: String,
    },
}
