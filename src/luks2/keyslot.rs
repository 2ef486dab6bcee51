//! The keyslot that a volume's data key opens, and whether it is still what it was.
//!
//! A keyslot's area holds the volume key, encrypted and split over 4000 stripes: with one wrong byte no key opens the volume any
//! more. The header's checksum does not cover the area. While the volume is open nothing else reads it, so that damage shows at
//! the next boot, too late.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::areas::{KeyslotArea, keyslot_areas};
use super::digest::sha256_hex;
use super::violation::PolicyViolation;

/// A keyslot that is not on the disk as it was.
#[derive(Debug, thiserror::Error)]
pub enum KeyslotError {
    /// The header names areas that cannot be.
    #[error(transparent)]
    Areas(#[from] PolicyViolation),
    /// It is gone.
    #[error("keyslot {number}, which the data key opened, no longer exists{LOST}")]
    Gone {
        /// Its number.
        number: u32,
    },
    /// Its area is not what it was.
    #[error("keyslot {number} is damaged: its area on the disk has changed since it opened the volume{LOST}")]
    Damaged {
        /// Its number.
        number: u32,
    },
    /// Its area cannot be read.
    #[error("cannot read keyslot {number}: {reason}{LOST}")]
    Unreadable {
        /// Its number.
        number: u32,
        /// Why.
        reason: io::Error,
    },
}

/// What follows from a keyslot that is lost.
const LOST: &str = ", so the data key cannot open the volume again; back up its data now, while it is open, then restore the LUKS2 header from a backup or reformat the volume";

/// A keyslot as it was when it opened with the data key, so that it can be checked without one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProvenKeyslot {
    /// Its number.
    pub number: u32,
    /// SHA-256 of its area, in hex.
    pub sha256: String,
}

impl ProvenKeyslot {
    /// Describes the keyslot whose area is in `file`, a disk or a copy of its header.
    ///
    /// # Errors
    /// When the area cannot be read.
    pub(crate) fn read(file: &File, area: &KeyslotArea) -> io::Result<Self> {
        let bytes = &area.bytes;
        let mut material = vec![0; usize::try_from(bytes.end - bytes.start).map_err(io::Error::other)?];
        file.read_exact_at(&mut material, bytes.start)?;
        Ok(Self { number: area.number, sha256: sha256_hex(&[&material]) })
    }

    /// Checks that the keyslot is on the disk as it was. `metadata` are those of the header on it.
    ///
    /// # Errors
    /// What of it is not.
    pub(crate) fn check(&self, disk: &File, metadata: &Value) -> Result<(), KeyslotError> {
        let areas = keyslot_areas(metadata)?;
        let number = self.number;
        let area = areas.iter().find(|area| area.number == number).ok_or(KeyslotError::Gone { number })?;
        forget_cached(disk, area);
        match Self::read(disk, area) {
            Ok(found) if found == *self => Ok(()),
            Ok(_) => Err(KeyslotError::Damaged { number }),
            Err(reason) => Err(KeyslotError::Unreadable { number, reason }),
        }
    }
}

/// Has the kernel read from the disk what it has in its cache, perhaps since the volume was opened. Without it the check is
/// weaker, and no less true.
fn forget_cached(disk: &File, KeyslotArea { bytes, .. }: &KeyslotArea) {
    if let (Ok(offset), Ok(length)) = (bytes.start.try_into(), (bytes.end - bytes.start).try_into())
        && let Err(e) = posix_fadvise(disk, offset, length, PosixFadviseAdvice::POSIX_FADV_DONTNEED)
    {
        tracing::debug!("cannot drop the cached area of a keyslot: {e}");
    }
}
