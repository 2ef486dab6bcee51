//! Proves that a key opens a volume.

use super::claim::{self, claim};
use super::error::WorkerError;
use super::stage::Stage;
use crate::job::{self, Answer};
use crate::key::Passphrase;
use crate::storage::cryptsetup;

pub(super) fn verify(job: &job::Verify, key: Option<Passphrase>, stage: &mut Stage<'_>) -> Result<Answer, WorkerError> {
    let job::Verify { target, expected } = job;
    let key = key.ok_or(WorkerError::NoPassphrase)?;
    // the worker that re-encrypts holds the lock for hours
    let disk = if expected.reencrypting { claim::open(target)? } else { claim(target, stage)? };
    claim::check_same_disk(target, &disk)?;
    stage.enter("trying the key");
    Ok(Answer::Verified { keyslot: cryptsetup::prove(&target.path, expected, &key)?.keyslot })
}
