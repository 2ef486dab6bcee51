//! What is wrong with a state directory or its file.

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
    /// Another agent is at work.
    #[error("another luks-agent is running ({holder}) and holds the lock on {path}; gave up after {} s; wait for it to finish, then run the command again", .waited.as_secs())]
    Locked {
        /// The locked directory.
        path: PathBuf,
        /// The process that holds the lock: its pid and command.
        holder: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// Somebody put another directory in its place.
    #[error("the state directory {path} was replaced while this command ran; nothing was saved, run the command again")]
    Replaced {
        /// The directory.
        path: PathBuf,
    },
    /// No state file, where there must be one.
    #[error(
        "this node was never provisioned, or its state file is lost: {path} does not exist; run 'luks-agent provision' first, which formats nothing if a volume of luks-agent is attached"
    )]
    NeverProvisioned {
        /// The file looked for.
        path: PathBuf,
    },
    /// A file that is not what this release writes.
    #[error(
        "{path} is damaged: {reason}; restore it from a backup, or see 'break-glass' in the README to open the volumes without it; until then, the agent formats nothing"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A file of a newer release.
    #[error(
        "{path} has format version {version}, but this luks-agent supports 1 to {VERSION}; install the release that wrote it"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u64,
    },
    /// A file of a newer release that kept the format version.
    #[error(
        "{path} is intact, but a later luks-agent wrote it: {reason}; install the release that wrote it; until then, the agent formats nothing"
    )]
    Later {
        /// The file.
        path: PathBuf,
        /// What this release does not know.
        reason: String,
    },
    /// Others may write to it.
    #[error(
        "{path} {reason}; expected owner {owner} and no write permission for others: find out who changed it, then run 'chown {owner} {path}' and 'chmod go-w {path}'"
    )]
    Permissions {
        /// File or directory.
        path: PathBuf,
        /// What is wrong.
        reason: String,
        /// User id expected.
        owner: u32,
    },
    /// A directory that a reboot empties, and nothing in it yet.
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
