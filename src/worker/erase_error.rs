//! Why a volume is not erased.

use std::io;
use std::ops::Range;

/// A disk whose volume cannot be erased, or not completely.
#[derive(Debug, thiserror::Error)]
pub(super) enum EraseError {
    /// It has less than a header.
    #[error("it has {0} bytes, less than a LUKS2 header")]
    TooSmall(u64),
    /// There is something else on it.
    #[error("somebody has used the disk for something else since its erasing was interrupted: {0}")]
    Reused(String),
    /// Writing failed.
    #[error("cannot overwrite bytes {} to {}", .part.start, .part.end)]
    Write {
        /// Which bytes.
        part: Range<u64>,
        /// Why.
        source: io::Error,
    },
    /// No random bytes.
    #[error("cannot read /dev/urandom")]
    Random(#[source] io::Error),
    /// The disk does not return what was written.
    #[error("bytes {} to {} do not read back as they were written, so the volume may not be erased; run the command again", .0.start, .0.end)]
    NotWritten(Range<u64>),
}
