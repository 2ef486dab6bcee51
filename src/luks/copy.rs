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

use crate::header::Luks2Header;
use crate::token::{DATA_OFFSET, keyslot_areas};

/// A header and the keyslots that it names.
pub(super) struct HeaderCopy(File);

impl HeaderCopy {
    /// Copies `header`, and from `disk` the key material of its keyslots: 252 KiB each.
    ///
    /// # Errors
    /// What in the header makes it impossible, or whatever the disk or the kernel says.
    pub(super) fn new(header: &Luks2Header, disk: &File) -> Result<Self, String> {
        let both = header.copies().ok_or("its metadata have no room in it")?;
        let areas = header.metadata.as_ref().map(keyslot_areas).transpose().map_err(|e| e.to_string())?;
        let areas = areas.unwrap_or_default();
        // the areas are bounded by what the metadata say of their own size, which this is
        if areas.iter().any(|area| area.start < both.len() as u64) {
            return Err("it has a keyslot that lies in its metadata".to_owned());
        }
        let copy = |from: &File| {
            let to = memory_file()?;
            to.set_len(DATA_OFFSET)?;
            to.write_all_at(&both, 0)?;
            for area in areas {
                let mut material = vec![0; usize::try_from(area.end - area.start).map_err(io::Error::other)?];
                from.read_exact_at(&mut material, area.start)?;
                to.write_all_at(&material, area.start)?;
            }
            Ok::<_, io::Error>(to)
        };
        copy(disk).map(Self).map_err(|e| format!("it cannot be copied: {e}"))
    }

    /// Where the copy is found for as long as it lives.
    pub(super) fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
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
