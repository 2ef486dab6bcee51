//! The results of rows.

use std::fmt;

use serde::Serialize;

use super::exit_code::ExitCode;

/// The result of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// `plan`: provision would format it.
    WouldFormat,
    /// `plan`: provision would open and mount it.
    WouldUnlock,
    /// `plan`: provision would grow it.
    WouldGrow,
    /// Encrypted, open, mounted.
    Formatted,
    /// Opened and mounted.
    Unlocked,
    /// Grown to the size of its disk.
    Grown,
    /// Open and mounted already; of `grow`: as large as its disk.
    Unchanged,
    /// `plan`: provision would change its key.
    WouldRekey,
    /// Its key was changed.
    Rekeyed,
    /// All its data has a new volume key.
    Reencrypted,
    /// It was asked to stop before it was finished.
    Stopped,
    /// Unmounted and closed.
    Closed,
    /// Not touched for safety.
    Refused,
    /// A known volume that is not what it should be, or not where.
    Wrong,
    /// Failed.
    Failed,
    /// No answer within the deadline.
    Hung,
    /// Skipped: no key.
    NoKey,
    /// `health`: open, and as it was made.
    Sound,
    /// `health`: the next boot would open it, but something is wrong with it now.
    Unsound,
    /// `status`: open and, if it should be, mounted.
    Open,
    /// `status`: open, but not mounted where it should be.
    NotMounted,
    /// `status`: known and not open.
    Locked,
    /// `status`: known; its formatting was interrupted.
    Unfinished,
    /// `status`: known and not attached.
    Missing,
    /// `status`: should be encrypted, and is not in the state file.
    New,
    /// Not the agent's business.
    Left,
    /// `header backup`: its header is in the file.
    BackedUp,
    /// `header restore`: its header is that of the backup.
    Restored,
    /// `header restore --dry-run`: its header would be that of the backup.
    WouldRestore,
    /// `recovery-key enroll`: the recovery key opens it.
    Enrolled,
    /// `recovery-key remove`: no recovery key opens it any more.
    Removed,
    /// `adopt`: in the state file from now on, open and mounted.
    Adopted,
    /// `forget`: no longer in the state file; its record is kept aside.
    Forgotten,
    /// `erase`: no key opens it any more.
    Erased,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::WouldFormat => "would format",
            Self::WouldUnlock => "would unlock",
            Self::WouldGrow => "would grow",
            Self::Formatted => "formatted",
            Self::Unlocked => "unlocked",
            Self::Grown => "grown",
            Self::Unchanged => "unchanged",
            Self::WouldRekey => "would change key",
            Self::Rekeyed => "key changed",
            Self::Reencrypted => "re-encrypted",
            Self::Stopped => "stopped",
            Self::Closed => "closed",
            Self::Refused => "refused",
            Self::Wrong => "wrong",
            Self::Failed => "failed",
            Self::Hung => "hung",
            Self::NoKey => "no key",
            Self::Sound => "sound",
            Self::Unsound => "unsound",
            Self::Open => "open",
            Self::NotMounted => "not mounted",
            Self::Locked => "locked",
            Self::Unfinished => "unfinished",
            Self::Missing => "missing",
            Self::New => "new",
            Self::Left => "left alone",
            Self::BackedUp => "backed up",
            Self::Restored => "restored",
            Self::WouldRestore => "would restore",
            Self::Enrolled => "enrolled",
            Self::Removed => "removed",
            Self::Adopted => "adopted",
            Self::Forgotten => "forgotten",
            Self::Erased => "erased",
        })
    }
}

impl Verdict {
    pub(super) fn exit_code(self) -> ExitCode {
        match self {
            Self::Failed | Self::Hung | Self::Stopped | Self::Wrong | Self::Unsound => ExitCode::Failed,
            Self::NoKey => ExitCode::KeyService,
            Self::Refused => ExitCode::Refused,
            Self::WouldFormat
            | Self::WouldUnlock
            | Self::WouldGrow
            | Self::Formatted
            | Self::Unlocked
            | Self::Grown
            | Self::Unchanged
            | Self::WouldRekey
            | Self::Rekeyed
            | Self::Reencrypted
            | Self::Closed
            | Self::Sound
            | Self::Open
            | Self::NotMounted
            | Self::Locked
            | Self::Unfinished
            | Self::Missing
            | Self::New
            | Self::Left
            | Self::BackedUp
            | Self::Restored
            | Self::WouldRestore
            | Self::Enrolled
            | Self::Removed
            | Self::Adopted
            | Self::Forgotten
            | Self::Erased => ExitCode::Done,
        }
    }
}
