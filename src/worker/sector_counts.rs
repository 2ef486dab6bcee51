//! What the kernel has counted of the requests to a disk.

use std::fs;

use crate::disk::DevNo;

/// The size of a sector that the kernel counts, in bytes.
const SECTOR: u64 = 512;

/// The sectors of 512 bytes that a disk has read and written since it appeared (`/sys/dev/block/*/stat`,
/// <https://docs.kernel.org/block/stat.html>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SectorCounts {
    read: u64,
    written: u64,
    discarded: u64,
}

impl SectorCounts {
    /// Returns the counts of a disk; `None` if not all that is written to it need be counted there: it is a partition, lies on other
    /// devices or in a file, or the kernel does not count discarded sectors (before Linux 4.19).
    pub(super) fn of(devno: DevNo) -> Option<Self> {
        let dir = format!("/sys/dev/block/{devno}");
        let has = |name: &str| fs::exists(format!("{dir}/{name}")).ok();
        let is_stacked = fs::read_dir(format!("{dir}/slaves")).ok()?.next().is_some();
        if has("partition")? || has("loop")? || is_stacked {
            return None;
        }
        Self::parse(&fs::read_to_string(format!("{dir}/stat")).ok()?)
    }

    pub(super) fn parse(stat: &str) -> Option<Self> {
        let fields: Vec<u64> = stat.split_ascii_whitespace().map(|field| field.parse().ok()).collect::<Option<_>>()?;
        Some(Self { read: *fields.get(2)?, written: *fields.get(6)?, discarded: *fields.get(13)? })
    }

    /// Returns whether anything was written or discarded since `before`; `None` if the kernel did not count at least `read` bytes that were
    /// read since, and so may not have counted what was written.
    pub(super) fn is_written_since(self, before: Self, read: u64) -> Option<bool> {
        let counted = self.read.checked_sub(before.read)?;
        (counted >= read / SECTOR).then_some((self.written, self.discarded) != (before.written, before.discarded))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sectors_are_read_as_the_kernel_prints_them() {
        let stat = "     405      11    20928      181        7        3       96       12        0      236      205        2        0      800        1       3        4\n";
        let counted = SectorCounts::parse(stat).unwrap();
        assert_eq!(counted, SectorCounts { read: 20_928, written: 96, discarded: 800 });
        let later = SectorCounts { read: 20_928 + 8, ..counted };
        assert_eq!(later.is_written_since(counted, 4096), Some(false));
        assert_eq!(SectorCounts { written: 97, ..later }.is_written_since(counted, 4096), Some(true));
        assert_eq!(SectorCounts { discarded: 801, ..later }.is_written_since(counted, 4096), Some(true));
        // not counted, or of another disk
        assert_eq!(later.is_written_since(counted, 4608), None);
        assert_eq!(SectorCounts { read: 3, ..counted }.is_written_since(counted, 0), None);
        // Linux 4.18
        assert_eq!(SectorCounts::parse(&stat[..100]), None);
        assert_eq!(SectorCounts::parse("unknown"), None);
    }
}
