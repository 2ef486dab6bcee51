//! A copy of a LUKS2 header, in memory, that volumes are opened from.
//!
//! What was checked is what is used, then, whatever happens to the disk meanwhile, and whatever it gives to whoever reads next. To
//! check what libcryptsetup itself has loaded from the disk would do as well, but libcryptsetup tells it only since 2.4.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::luks2::{DATA_OFFSET, KeyslotArea, Luks2Header, PolicyViolation, ProvenKeyslot, keyslot_areas};

/// A header that cannot be copied, or a copy that does not say what opened it.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// There are no metadata, or more than fit.
    #[error("its metadata is missing or does not fit")]
    NoRoom,
    /// The header names areas that cannot be.
    #[error(transparent)]
    Areas(#[from] PolicyViolation),
    /// A keyslot would overwrite the metadata.
    #[error("one of its keyslots overlaps its metadata")]
    Overlap,
    /// The disk or the kernel failed.
    #[error("cannot copy it")]
    Copy(#[source] io::Error),
    /// A keyslot opened that the header does not name.
    #[error("keyslot {number} opened, but the header does not list it")]
    OtherKeyslot {
        /// Its number.
        number: u32,
    },
    /// A keyslot of the copy cannot be read.
    #[error("cannot read keyslot {number}")]
    Keyslot {
        /// Its number.
        number: u32,
        /// Why.
        source: io::Error,
    },
}

/// A header and the keyslots that it names.
pub(super) struct HeaderCopy {
    file: File,
    areas: Vec<KeyslotArea>,
}

impl HeaderCopy {
    /// Copies `header`, and from `disk` the key material of its keyslots: 252 KiB each.
    ///
    /// # Errors
    /// What in the header makes it impossible, or whatever the disk or the kernel says.
    pub(super) fn new(header: &Luks2Header, disk: &File) -> Result<Self, CopyError> {
        let both = header.copies().ok_or(CopyError::NoRoom)?;
        let areas = header.metadata.as_ref().map(keyslot_areas).transpose()?;
        let areas = areas.unwrap_or_default();
        // the areas are bounded by what the metadata say of their own size, which this is
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

    /// Describes a keyslot, which has just opened from this copy.
    ///
    /// # Errors
    /// When there is no such keyslot, or the copy cannot be read.
    pub(super) fn proven(&self, number: u32) -> Result<ProvenKeyslot, CopyError> {
        let area = self.areas.iter().find(|area| area.number == number);
        let area = area.ok_or(CopyError::OtherKeyslot { number })?;
        ProvenKeyslot::read(&self.file, area).map_err(|source| CopyError::Keyslot { number, source })
    }

    /// Where the copy is found for as long as it lives.
    pub(super) fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.file.as_raw_fd()).into()
    }
}

/// An empty file in memory, which nobody executes: kernels can be told to make no others (sysctl vm.memfd_noexec), and before 6.3
/// know no such flag.
fn memory_file() -> nix::Result<File> {
    let file = |flags| memfd_create(c"luks2-header", MFdFlags::MFD_CLOEXEC | flags).map(File::from);
    // nix has no name for it
    match file(MFdFlags::from_bits_retain(nix::libc::MFD_NOEXEC_SEAL)) {
        Err(Errno::EINVAL) => file(MFdFlags::empty()),
        made => made,
    }
}
