//! The keyslot that a volume's data key opens, and the check that it is still intact.
//!
//! A keyslot's area holds the volume key, encrypted and split into 4000 stripes: with one wrong byte, no key opens the volume. The
//! header's checksum does not cover the area, and nothing else reads it while the volume is open. Without this check, damage would
//! show only at the next boot, when it is too late.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::areas::{KeyslotArea, keyslot_areas};
use super::violation::PolicyViolation;
use crate::digest::sha256_hex;

/// A keyslot that has changed since it opened the volume.
#[derive(Debug, thiserror::Error)]
pub enum KeyslotError {
    /// The header has invalid keyslot areas.
    #[error(transparent)]
    Areas(#[from] PolicyViolation),
    /// The header has no such keyslot.
    #[error("keyslot {number}, which the data key opened, no longer exists{LOST}")]
    Gone {
        /// Its number.
        number: u32,
    },
    /// Its area has changed.
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

/// The consequence of a lost keyslot, and the remedy.
const LOST: &str = ", so the data key cannot open the volume again; back up its data now, while it is open, then restore the LUKS2 header from a backup or reformat the volume";

/// A keyslot that the data key has opened. It can be checked later without the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProvenKeyslot {
    /// The number of the keyslot.
    pub number: u32,
    /// The SHA-256 of its area, in hex.
    pub sha256: String,
}

impl ProvenKeyslot {
    /// Describes the keyslot in this area of `file`, a disk or a copy of its header.
    ///
    /// # Errors
    /// If the area cannot be read.
    pub(crate) fn read(file: &File, area: &KeyslotArea) -> io::Result<Self> {
        let bytes = &area.bytes;
        let mut material = vec![0; usize::try_from(bytes.end - bytes.start).map_err(io::Error::other)?];
        file.read_exact_at(&mut material, bytes.start)?;
        Ok(Self { number: area.number, sha256: sha256_hex(&[&material]) })
    }

    /// Checks that the keyslot on the disk is unchanged. `metadata` is that of the header on the disk.
    ///
    /// # Errors
    /// Names what has changed.
    pub(crate) fn check(&self, disk: &File, metadata: &Value) -> Result<(), KeyslotError> {
        let areas = keyslot_areas(metadata)?;
        let number = self.number;
        let area = areas.iter().find(|area| area.number == number).ok_or(KeyslotError::Gone { number })?;
        forget_cached(disk, &area.bytes);
        match Self::read(disk, area) {
            Ok(found) if found == *self => Ok(()),
            Ok(_) => Err(KeyslotError::Damaged { number }),
            Err(reason) => Err(KeyslotError::Unreadable { number, reason }),
        }
    }
}

/// Drops cached bytes of a disk, so that the kernel reads them from the disk.
///
/// The cache may date from when the volume was opened. If dropping it fails, a check still runs, but on cached bytes.
pub(crate) fn forget_cached(disk: &File, bytes: &Range<u64>) {
    if let (Ok(offset), Ok(length)) = (bytes.start.try_into(), (bytes.end - bytes.start).try_into())
        && let Err(e) = posix_fadvise(disk, offset, length, PosixFadviseAdvice::POSIX_FADV_DONTNEED)
    {
        tracing::debug!("cannot drop cached bytes of a header: {e}");
    }
}
