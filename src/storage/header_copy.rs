//! Copies a LUKS2 header to memory. Volumes are opened from that copy.
//!
//! So the agent uses exactly the header and the key material that it has checked, even if the disk changes meanwhile or returns
//! something else to the next reader. libcryptsetup reads key material from the disk again when it opens a volume, and shows the
//! header that it has loaded only since 2.4.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::luks2::{DATA_OFFSET, KeyslotArea, Luks2Header, PolicyViolation, ProvenKeyslot, keyslot_areas};

/// A header that cannot be copied, or a copy whose keyslot cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The metadata is missing or too large.
    #[error("its metadata is missing or does not fit")]
    NoRoom,
    /// The header has invalid keyslot areas.
    #[error(transparent)]
    Areas(#[from] PolicyViolation),
    /// A keyslot area would overwrite the metadata.
    #[error("one of its keyslots overlaps its metadata")]
    Overlap,
    /// Reading the disk or writing the copy failed.
    #[error("cannot copy it")]
    Copy(#[source] io::Error),
    /// The key opened a keyslot that the header does not list.
    #[error("keyslot {number} opened, but the header does not list it")]
    OtherKeyslot {
        /// Its number.
        number: u32,
    },
    /// Reading a keyslot from the copy failed.
    #[error("cannot read keyslot {number}")]
    Keyslot {
        /// Its number.
        number: u32,
        /// Why.
        source: io::Error,
    },
}

/// A header in memory, with the areas of its keyslots.
pub(super) struct HeaderCopy {
    file: File,
    areas: Vec<KeyslotArea>,
}

impl HeaderCopy {
    /// Copies `header`, and the key material of its keyslots from `disk`: 252 KiB each.
    ///
    /// # Errors
    /// If the header is invalid, the disk cannot be read or the copy cannot be written.
    pub(super) fn new(header: &Luks2Header, disk: &File) -> Result<Self, CopyError> {
        let both = header.copies().ok_or(CopyError::NoRoom)?;
        let areas = header.metadata.as_ref().map(keyslot_areas).transpose()?;
        let areas = areas.unwrap_or_default();
        // keyslot_areas() only knows the size that the metadata claims; this is the real one
        if areas.iter().any(|area| area.bytes.start < both.len() as u64) {
            return Err(CopyError::Overlap);
        }
        let copy = |from: &File| {
            let to = memory_file()?;
            to.set_len(DATA_OFFSET)?;
            to.write_all_at(&both, 0)?;
            for KeyslotArea { bytes: area, .. } in &areas {
                let mut material = vec![0; usize::try_from(area.end - area.start).map_err(io::Error::other)?];
                from.read_exact_at(&mut material, area.start)?;
                to.write_all_at(&material, area.start)?;
            }
            Ok::<_, io::Error>(to)
        };
        let file = copy(disk).map_err(CopyError::Copy)?;
        Ok(Self { file, areas })
    }

    /// Describes a keyslot that the key has just opened from this copy.
    ///
    /// # Errors
    /// If there is no such keyslot or the copy cannot be read.
    pub(super) fn proven(&self, number: u32) -> Result<ProvenKeyslot, CopyError> {
        let area = self.areas.iter().find(|area| area.number == number);
        let area = area.ok_or(CopyError::OtherKeyslot { number })?;
        ProvenKeyslot::read(&self.file, area).map_err(|source| CopyError::Keyslot { number, source })
    }

    /// Returns the copy itself: the header from byte 0 on, and the areas of its keyslots.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Returns the path of the copy, valid as long as the copy lives.
    pub(super) fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.file.as_raw_fd()).into()
    }
}

/// Creates an empty file in memory that nobody can execute.
///
/// A kernel may refuse any other (sysctl vm.memfd_noexec). Kernels before 6.3 do not know the flag.
fn memory_file() -> nix::Result<File> {
    let file = |flags| memfd_create(c"luks2-header", MFdFlags::MFD_CLOEXEC | flags).map(File::from);
    // nix has no name for it
    match file(MFdFlags::from_bits_retain(nix::libc::MFD_NOEXEC_SEAL)) {
        Err(Errno::EINVAL) => file(MFdFlags::empty()),
        made => made,
    }
}
