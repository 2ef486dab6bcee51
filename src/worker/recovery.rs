//! Enrolls and removes recovery keys.

use std::fs::OpenOptions;

use super::claim::{check_same_disk, claim};
use super::error::WorkerError;
use super::stage::Stage;
use crate::error::IoError;
use crate::job::{self, Answer};
use crate::key::Passphrase;
use crate::storage::cryptsetup;

pub(super) fn enroll(
    job: &job::Verify,
    mut keys: impl Iterator<Item = Passphrase>,
    stage: &mut Stage<'_>,
) -> Result<Answer, WorkerError> {
    let job::Verify { target, expected } = job;
    let (Some(key), Some(recovery)) = (keys.next(), keys.next()) else { return Err(WorkerError::NoPassphrase) };
    let _lock = claim(target, stage)?;
    stage.enter("enrolling the recovery key");
    // not exclusively: the volume may be open
    let disk = OpenOptions::new().read(true).write(true).open(&target.path);
    let disk = disk.map_err(IoError::when("open for writing", &target.path))?;
    check_same_disk(target, &disk)?;
    let replaced = cryptsetup::enroll_recovery(&target.path, &disk, expected, &key, &recovery)?;
    Ok(Answer::RecoveryEnrolled { replaced })
}

pub(super) fn remove(job: &job::Verify, key: Option<Passphrase>, stage: &mut Stage<'_>) -> Result<Answer, WorkerError> {
    let job::Verify { target, expected } = job;
    let key = key.ok_or(WorkerError::NoPassphrase)?;
    let _lock = claim(target, stage)?;
    stage.enter("removing the recovery key");
    let removed = cryptsetup::remove_recovery(&target.path, expected, &key)?;
    Ok(Answer::RecoveryRemoved { any: removed > 0 })
}
