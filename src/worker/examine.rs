//! Examines a disk, or only its header.

use uuid::Uuid;

use super::claim::claim;
use super::error::WorkerError;
use super::first_look::{FirstLook, examine_content};
use super::probe;
use super::sample::Look;
use super::sector_counts::SectorCounts;
use super::stage::Stage;
use crate::disk::Scan;
use crate::job::{Answer, Target};

/// Examines a disk, and remembers the look in `first` if the disk may be formatted next.
pub(super) fn examine(
    target: &Target,
    intent: Option<Uuid>,
    scan: Scan,
    first: &mut Option<FirstLook>,
    stage: &mut Stage<'_>,
) -> Result<Answer, WorkerError> {
    let disk = claim(target, stage)?;
    let counts = SectorCounts::of(target.devno);
    let content = examine_content("examining", &disk, intent, scan, Look::First, stage);
    *first = FirstLook::remember(target, counts, &content);
    Ok(Answer::Content { content })
}

pub(super) fn read_header(target: &Target, stage: &mut Stage<'_>) -> Result<Answer, WorkerError> {
    let disk = claim(target, stage)?;
    stage.enter("reading the header");
    Ok(Answer::Header { content: probe::read_volume(&disk)? })
}
