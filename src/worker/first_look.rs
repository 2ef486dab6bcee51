//! What the first look at a blank disk leaves for the second, right before the disk is formatted.

use std::fs::File;

use uuid::Uuid;

use super::probe::{path_of, probe_for};
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
    /// How many bytes the look read.
    read: u64,
}

impl FirstLook {
    /// Remembers a look that found `content`; `counts` are those before it.
    pub(super) fn remember(target: &Target, counts: Option<SectorCounts>, content: &Content) -> Option<Self> {
        let Content::Blank { evidence } = content else { return None };
        // without a sequence number, another disk of this size could have the name by then (before Linux 5.15)
        target.diskseq?;
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
        stage.enter("flushing what others have written");
        // what is only in the page cache counts once it is on the disk
        if let Err(e) = disk.sync_all() {
            return Some(Content::Unknown { reason: format!("what others have written to it cannot be flushed: {e}") });
        }
        match SectorCounts::of(target.devno)?.is_written_since(self.counts, self.read + evidence.read)? {
            false => Some(found),
            true => Some(Content::Written),
        }
    }
}

/// Examines the disk through the descriptor of the claim.
pub(super) fn examine_content(
    what: &str,
    disk: &File,
    intent: Option<Uuid>,
    scan: Scan,
    look: Look,
    stage: &mut Stage<'_>,
) -> Content {
    stage.enter(what);
    probe_for(look, &path_of(disk), intent, scan, &mut |done, total| stage.percent(what, done, total))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::disk::{BlankScan, DevNo, Evidence};

    #[test]
    fn a_first_look_counts_only_for_a_blank_disk_and_only_for_that_one() {
        let blank = Content::Blank { evidence: Evidence { read: 4096, of: 4096 } };
        let target =
            |diskseq| Target { path: "/dev/x".into(), devno: DevNo { major: 1, minor: 3 }, diskseq, size: 4096 };
        let counts = SectorCounts::parse("0 0 8 0 0 0 0 0 0 0 0 0 0 0 0 0 0");
        assert!(FirstLook::remember(&target(Some(7)), counts, &Content::Unrecognised { offset: 0 }).is_none());
        assert!(FirstLook::remember(&target(Some(7)), None, &blank).is_none(), "nothing is counted");
        assert!(FirstLook::remember(&target(None), counts, &blank).is_none(), "no sequence number");
        let first = FirstLook::remember(&target(Some(7)), counts, &blank).unwrap();
        let mut stage = Stage { send: &mut |_| Ok(()), last: None, since: Instant::now() };
        let scan = Scan { how: BlankScan::Sampled, within: Duration::from_secs(60) };
        let disk = tempfile::tempfile().unwrap();
        assert_eq!(first.look_again(&target(Some(8)), &disk, scan, &mut stage), None, "another disk");
    }
}
