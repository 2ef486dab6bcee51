//! Gives a volume another key, and takes the former one away. The volume may be open.

use super::claim::claim;
use super::error::WorkerError;
use super::stage::Stage;
use crate::job::{self, Answer};
use crate::key::Passphrase;
use crate::storage::cryptsetup::{self, BothKeyslots, Removal};

pub(super) fn add_key(
    job: &job::AddKey,
    keys: &mut impl Iterator<Item = Passphrase>,
    stage: &mut Stage<'_>,
) -> Result<Answer, WorkerError> {
    let job::AddKey { target, expected, token } = job;
    let (own, added) = (keys.next(), keys.next());
    let (own, added) = (own.ok_or(WorkerError::NoPassphrase)?, added.ok_or(WorkerError::NoPassphrase)?);
    let _lock = claim(target, stage)?;
    stage.enter("adding the key");
    let BothKeyslots { own, added } = cryptsetup::add_key(&target.path, expected, token, &own, &added)?;
    Ok(Answer::KeyAdded { own, added })
}

pub(super) fn remove_key(
    job: &job::RemoveKey,
    key: Option<Passphrase>,
    stage: &mut Stage<'_>,
) -> Result<Answer, WorkerError> {
    let job::RemoveKey { target, expected, keyslot } = job;
    let key = key.ok_or(WorkerError::NoPassphrase)?;
    let _lock = claim(target, stage)?;
    stage.enter("removing the former key");
    let left = match cryptsetup::remove_key(&target.path, expected, keyslot, &key)? {
        Removal::Done => None,
        Removal::KeyslotLeft { number } => Some(number),
    };
    Ok(Answer::KeyRemoved { left })
}
