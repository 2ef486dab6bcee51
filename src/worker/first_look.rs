//! What the first look at a blank disk leaves for the second, right before the disk is formatted.

use std::fs::File;

use super::examine::examine_content;
use super::sample::Look;
use super::sector_counts::SectorCounts;
use super::stage::Stage;
use crate::disk::{Content, Scan};
use crate::job::Target;

/// A first look that found a disk blank, on a kernel that counts what is written to it.
#[derive(Debug)]
pub(super) struct FirstLook {
    target: Target,
    /// Before the look.
    counts: SectorCounts,
    /// How many bytes it read.
    read: u64,
}

impl FirstLook {
    /// Remembers a look that found `content`; `counts` are those before it.
    pub(super) fn remember(target: &Target, counts: Option<SectorCounts>, content: &Content) -> Option<Self> {
        let Content::Blank { evidence } = content else { return None };
        Some(Self { target: target.clone(), counts: counts?, read: evidence.read })
    }

    /// Looks at the disk again. Returns `None` if the first look does not count, because it was at another disk or the kernel did not
    /// count the sectors.
    ///
    /// If this node has written nothing to the disk since before the first look, only another instance to which the volume is attached can have
    /// changed it. The second look is for that. If this node has written something, the disk is not blank, whatever the samples say.
    pub(super) fn look_again(
        &self,
        target: &Target,
        disk: &File,
        scan: Scan,
        stage: &mut Stage<'_>,
    ) -> Option<Content> {
        if self.target != *target {
            return None;
        }
        let found = examine_content("examining once more", disk, None, scan, Look::Second, stage);
        let Content::Blank { evidence } = &found else { return Some(found) };
        // what is only in the page cache counts once it is on the disk
        if let Err(e) = disk.sync_all() {
            return Some(Content::Unknown { reason: format!("what others have written to it cannot be flushed: {e}") });
        }
        match SectorCounts::of(target.devno)?.is_written_since(self.counts, self.read + evidence.read)? {
            false => Some(found),
            true => Some(Content::Unknown { reason: "this node has written to it since the first look".to_owned() }),
        }
    }
}
