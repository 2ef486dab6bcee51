//! Why libcryptsetup, or the agent before it, does not use a volume.

use std::{fmt, io};

use libcryptsetup_rs::LibcryptErr;
use uuid::Uuid;

use crate::error::chain;
use crate::luks2::{DATA_OFFSET, HeaderError, PolicyViolation};
use crate::storage::header_copy::CopyError;

/// What libcryptsetup said when it failed.
#[derive(Debug, thiserror::Error)]
pub enum LuksError {
    /// A call failed.
    #[error("cannot {action}{}", LogLines(.log))]
    Call {
        /// What was tried.
        action: String,
        /// libcryptsetup's own error messages meanwhile.
        log: Vec<String>,
        /// The error.
        #[source]
        source: LibcryptErr,
    },
    /// No keyslot takes the passphrase.
    #[error(
        "the data key opens no keyslot of {luks_uuid}: its keyslots were changed, or it was formatted with another key; restore the state file or the LUKS2 header, whichever was changed, from a backup"
    )]
    WrongKey {
        /// The volume.
        luks_uuid: Uuid,
    },
    /// A header that libcryptsetup has loaded, and that is not there to be read, or cannot be handed on.
    #[error(
        "cannot check the LUKS2 header: {}; find out what else writes to the disk, then restore the header from a backup",
        chain(.0)
    )]
    Header(HeaderFault),
    /// Another header than expected.
    #[error("the header has LUKS UUID {found}, expected {expected}")]
    OtherVolume {
        /// UUID expected.
        expected: Uuid,
        /// UUID found.
        found: Uuid,
    },
    /// A header that does not pass the policy.
    #[error(transparent)]
    Policy(#[from] PolicyViolation),
    /// A mapping that is not as it was made.
    #[error("mapping {mapper} is not what luks-agent created: {what}")]
    Mapping {
        /// Mapper name.
        mapper: String,
        /// What is otherwise.
        what: String,
    },
    /// A disk that has no room for data behind the header.
    #[error(
        "the disk is too small: {size} bytes, of which the LUKS2 header takes {DATA_OFFSET}; use a disk of at least twice that size"
    )]
    TooSmall {
        /// Size in bytes.
        size: u64,
    },
    /// The header could not be flushed to the disk.
    #[error("cannot flush the header to the disk")]
    Sync(#[source] io::Error),
}

/// What is the matter with a header.
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

struct LogLines<'a>(&'a [String]);

impl fmt::Display for LogLines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|line| write!(f, ": {}", line.trim_end_matches('.')))
    }
}
