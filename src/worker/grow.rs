//! Grows an open volume.

use super::check::read_checked_header;
use super::claim::claim;
use super::error::WorkerError;
use super::stage::Stage;
use crate::job::{self, Answer};
use crate::key::Passphrase;
use crate::storage::{cryptsetup, dm, filesystem};

/// Grows the mapping, then the file system.
///
/// If a run is interrupted between the two, the file system is smaller than its mapping and the next run grows it.
pub(super) fn grow(job: &job::Grow, key: Option<Passphrase>, stage: &mut Stage<'_>) -> Result<Answer, WorkerError> {
    let job::Grow { target, expected, mapper, filesystem, mount_point, .. } = job;
    let disk = claim(target, stage)?;
    read_checked_header(&disk, expected)?;
    dm::check(mapper, target.devno, expected.header)?;
    let mapping = dm::node(mapper)?;
    let size = || {
        let at = mount_point.as_ref().map(|at| filesystem::filesystem_size(*filesystem, &mapping, at));
        at.transpose()
    };
    let before = size()?;
    let mut grown = false;
    if let Some(key) = key {
        stage.enter("growing the mapping");
        grown = cryptsetup::grow(&target.path, target.size, mapper, expected, &key)?;
    }
    if let Some(at) = mount_point {
        stage.enter("growing the file system");
        filesystem::grow_filesystem(*filesystem, &mapping, at)?;
    }
    Ok(if grown || size()? > before { Answer::Grown } else { Answer::Unchanged })
}
