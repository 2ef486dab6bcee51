//! Checks an open volume.

use std::fs::File;
use std::path::Path;

use super::claim::{self, claim};
use super::error::WorkerError;
use super::stage::Stage;
use crate::error::chain;
use crate::job::{self, Answer};
use crate::luks2::{Expected, Luks2Header, check_header, reencrypted};
use crate::storage::cryptsetup::LuksError;
use crate::storage::{dm, filesystem};

pub(super) fn check(job: &job::Check, stage: &mut Stage<'_>) -> Result<Answer, WorkerError> {
    let job::Check { target, expected, mapper, filesystem, keyslot } = job;
    if expected.reencrypting {
        return check_reencrypting(job, stage);
    }
    let disk = claim(target, stage)?;
    stage.enter("checking");
    let metadata = read_checked_header(&disk, expected)?;
    keyslot.as_ref().map_or(Ok(()), |keyslot| keyslot.check(&disk, &metadata))?;
    if let Err(e) = dm::check(mapper, target.devno, expected.header) {
        return Ok(Answer::Sound { unsound: Some(chain(e)), filesystem_errors: false, reencrypted: None });
    }
    let (unsound, filesystem_errors) = match filesystem::has_errors(*filesystem, &Path::new("/dev/mapper").join(mapper))
    {
        Ok(has_errors) => (None, has_errors),
        Err(e) => (Some(chain(e)), false),
    };
    Ok(Answer::Sound { unsound, filesystem_errors, reencrypted: None })
}

/// Checks a volume whose re-encryption has begun: the worker that does it holds the lock on the disk, changes keyslots and mapping, and
/// makes some reads of the volume wait.
fn check_reencrypting(job: &job::Check, stage: &mut Stage<'_>) -> Result<Answer, WorkerError> {
    let job::Check { target, expected, mapper, .. } = job;
    let disk = claim::open(target)?;
    claim::check_same_disk(target, &disk)?;
    stage.enter("checking");
    let metadata = read_checked_header(&disk, expected)?;
    let reencrypted = reencrypted(&metadata, target.size);
    let unsound = was_killed(&disk, mapper)?.then(|| {
        "its re-encryption was killed, so some of its reads and writes wait until it is opened again; restart the node, nothing is lost".to_owned()
    });
    Ok(Answer::Sound { unsound, filesystem_errors: false, reencrypted: reencrypted.or(Some(0)) })
}

/// Whether the re-encryption of a volume was killed: nobody has the lock, but the mapping still has what is below it only meanwhile.
pub(super) fn was_killed(disk: &File, mapper: &str) -> Result<bool, WorkerError> {
    Ok(disk.try_lock().is_ok() && dm::is_linear(mapper)?)
}

/// Checks the header against the state file, as far as that is possible without a key. Returns its metadata.
pub(super) fn read_checked_header(disk: &File, expected: &Expected) -> Result<serde_json::Value, WorkerError> {
    let Luks2Header { luks_uuid, metadata, .. } = Luks2Header::read_intact(disk)?;
    let metadata = metadata.unwrap_or_default();
    if luks_uuid != expected.luks_uuid {
        return Err(LuksError::OtherVolume { expected: expected.luks_uuid, found: luks_uuid }.into());
    }
    check_header(&metadata, expected)?;
    Ok(metadata)
}
