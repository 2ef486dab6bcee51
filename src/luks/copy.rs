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
use serde_json::Value;

use crate::header::Luks2Header;
use crate::token::DATA_OFFSET;

/// A header and the keyslots that it names.
pub(super) struct HeaderCopy(File);

impl HeaderCopy {
    /// Copies `header`, and from `disk` the key material of its keyslots: 252 KiB each.
    ///
    /// # Errors
    /// What in the header makes it impossible, or whatever the disk or the kernel says.
    pub(super) fn new(header: &Luks2Header, disk: &File) -> Result<Self, String> {
        let both = header.copies().ok_or("its metadata have no room in it")?;
        let areas =
            header.metadata.as_ref().and_then(areas).ok_or("it has a keyslot that does not lie before the data")?;
        let copy = |from: &File| {
            let to = memory_file()?;
            to.set_len(DATA_OFFSET)?;
            to.write_all_at(&both, 0)?;
            for (offset, length) in areas {
                let mut area = vec![0; length];
                from.read_exact_at(&mut area, offset)?;
                to.write_all_at(&area, offset)?;
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

/// Offset and length in bytes of each keyslot's key material (LUKS2 on-disk format, section 3.2.1).
fn areas(metadata: &Value) -> Option<Vec<(u64, usize)>> {
    let area = |keyslot: &Value| {
        let number = |key: &str| keyslot["area"][key].as_str()?.parse::<u64>().ok();
        let (offset, length) = (number("offset")?, number("size")?);
        (offset.checked_add(length)? <= DATA_OFFSET).then_some((offset, usize::try_from(length).ok()?))
    };
    metadata["keyslots"].as_object()?.values().map(area).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_keyslot_lies_before_the_data() {
        let of =
            |offset: &str, size: &str| areas(&json!({"keyslots": {"3": {"area": {"offset": offset, "size": size}}}}));
        assert_eq!(of("32768", "258048"), Some(vec![(32768, 258_048)]));
        assert_eq!(of("16777215", "1"), Some(vec![(16_777_215, 1)]));
        assert_eq!(of("16777216", "1"), None);
        assert_eq!(of("1", "18446744073709551615"), None);
        assert_eq!(of("-1", "1"), None);
        assert_eq!(areas(&json!({"keyslots": {}})), Some(Vec::new()));
        assert_eq!(areas(&json!({"keyslots": {"0": {}}})), None);
    }
}
