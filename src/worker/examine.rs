//! Examines a disk, or only its header.

use std::fs::File;

use uuid::Uuid;

use super::claim::claim;
use super::error::WorkerError;
use super::probe::{self, path_of};
use super::stage::Stage;
use crate::disk::{Content, Scan};
use crate::job::{Answer, Target};

pub(super) fn examine(
    target: &Target,
    intent: Option<Uuid>,
    scan: Scan,
    stage: &mut Stage<'_>,
) -> Result<Answer, WorkerError> {
    let disk = claim(target, stage)?;
    Ok(Answer::Content { content: examine_content("examining", &disk, intent, scan, stage) })
}

pub(super) fn read_header(target: &Target, stage: &mut Stage<'_>) -> Result<Answer, WorkerError> {
    let disk = claim(target, stage)?;
    stage.enter("reading the header");
    Ok(Answer::Header { content: probe::read_volume(&disk)? })
}

/// Examines the disk through the descriptor of the claim.
pub(super) fn examine_content(
    what: &str,
    disk: &File,
    intent: Option<Uuid>,
    scan: Scan,
    stage: &mut Stage<'_>,
) -> Content {
    stage.enter(what);
    probe::probe(&path_of(disk), intent, scan, &mut |done, total| stage.percent(what, done, total))
}
