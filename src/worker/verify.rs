//! Proves that a key opens a volume.

use super::claim::claim;
use super::error::WorkerError;
use super::stage::Stage;
use crate::job::{self, Answer};
use crate::key::Passphrase;
use crate::storage::cryptsetup;

pub(super) fn verify(job: &job::Verify, key: Option<Passphrase>, stage: &mut Stage<'_>) -> Result<Answer, WorkerError> {
    let job::Verify { target, expected } = job;
    let key = key.ok_or(WorkerError::NoPassphrase)?;
    let _lock = claim(target, stage)?;
    stage.enter("trying the key");
    Ok(Answer::Verified { keyslot: cryptsetup::prove(&target.path, expected, &key)? })
}
