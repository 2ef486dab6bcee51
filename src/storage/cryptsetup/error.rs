//! The errors of LUKS2 volumes and their mappings.

use std::{fmt, io};

use libcryptsetup_rs::LibcryptErr;
use uuid::Uuid;

use crate::error::chain;
use crate::luks2::{DATA_OFFSET, HeaderError, PolicyViolation};
use crate::storage::header_copy::CopyError;
use crate::storage::header_swap::SwapError;

/// A volume that cannot be formatted, opened, grown or closed.
#[derive(Debug, thiserror::Error)]
pub enum LuksError {
    /// A call of libcryptsetup failed.
    #[error("cannot {action}{}", LogLines(.log))]
    Call {
        /// The action that failed, as a verb phrase.
        action: String,
        /// The error messages that libcryptsetup logged.
        log: Vec<String>,
        /// The error.
        #[source]
        source: LibcryptErr,
    },
    /// The passphrase opens no keyslot.
    #[error(
        "the data key opens no keyslot of {luks_uuid}: its keyslots were changed, or it was formatted with another key; restore the state file or the LUKS2 header, whichever was changed, from a backup"
    )]
    WrongKey {
        /// The volume.
        luks_uuid: Uuid,
    },
    /// The recovery key opens no keyslot.
    #[error(
        "the recovery key opens no keyslot of {luks_uuid}; check it letter by letter, and whether it is the one that was enrolled last"
    )]
    WrongRecoveryKey {
        /// The volume.
        luks_uuid: Uuid,
    },
    /// A token claims a keyslot that is not one of a recovery key.
    #[error(
        "keyslot {keyslot} belongs to another token or to the data key, but a {kind} token names it, so nothing was removed; find out who changed the header"
    )]
    NotRecovery {
        /// The keyslot.
        keyslot: u32,
        /// The type of the token.
        kind: &'static str,
    },
    /// libcryptsetup has loaded the header, but the agent cannot read or copy it.
    #[error(
        "cannot check the LUKS2 header: {}; find out what else writes to the disk, then restore the header from a backup",
        chain(.0)
    )]
    Header(HeaderFault),
    /// The header belongs to another volume.
    #[error("the header has LUKS UUID {found}, expected {expected}")]
    OtherVolume {
        /// UUID expected.
        expected: Uuid,
        /// UUID found.
        found: Uuid,
    },
    /// The header does not pass the policy.
    #[error(transparent)]
    Policy(#[from] PolicyViolation),
    /// The mapping does not fit on its disk.
    #[error(
        "mapping {mapper} has {mapping} bytes, more than fit on its disk of {disk} bytes; check that the right disk is attached"
    )]
    LargerThanDisk {
        /// Mapper name.
        mapper: String,
        /// Size of the mapping in bytes.
        mapping: u64,
        /// Size of the disk in bytes.
        disk: u64,
    },
    /// The disk has no room for data behind the header.
    #[error(
        "the disk is too small: {size} bytes, of which the LUKS2 header takes {DATA_OFFSET}; use a disk of at least twice that size"
    )]
    TooSmall {
        /// Size in bytes.
        size: u64,
    },
    /// The header could not be replaced.
    #[error(transparent)]
    Swap(#[from] SwapError),
    /// The header could not be flushed to the disk.
    #[error("cannot flush the header to the disk")]
    Sync(#[source] io::Error),
}

/// Why a header cannot be checked.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub enum HeaderFault {
    /// Its disk cannot be opened.
    Disk(#[from] io::Error),
    /// It cannot be read.
    Read(#[from] HeaderError),
    /// It cannot be copied.
    Copy(#[from] CopyError),
}

impl LuksError {
    /// Whether opening failed because something has the name of the mapping, or the disk.
    pub fn name_is_taken(&self) -> bool {
        matches!(self, Self::Call { source: LibcryptErr::IOError(e), .. }
            if [Some(nix::libc::EEXIST), Some(nix::libc::EBUSY)].contains(&e.raw_os_error()))
    }
}

struct LogLines<'a>(&'a [String]);

impl fmt::Display for LogLines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|line| write!(f, ": {}", line.trim_end_matches('.')))
    }
}
