//! Makes the key that takes the place of others: a new data key, or the same one under another KMS key.

use jiff::Timestamp;

use super::context::Apply;
use super::outcome::KeyError;
use crate::job::Host;
use crate::key::{DataKey, KeySource};
use crate::kms::{KeyService, RewrappedKey};
use crate::state::{KeyChange, KeyRecord, State, VERSION, VolumeRecord};

impl<K: KeyService, H: Host> Apply<'_, K, H> {
    /// Makes a new data key that takes the place of all others. It is proven, then durable and read back, before anything refers to it.
    ///
    /// # Errors
    /// If the key service refuses, or the state file cannot be written; the state is then as it was.
    pub async fn rotate(&self, state: &mut State) -> Result<(), KeyError> {
        let generated = self.keys.generate().await?;
        let source = generated.source();
        prove(&self.keys.unwrap(&source).await?, &generated.data_key, &source)?;
        let KeySource { provider, wrapped_key, key_arn } = source;
        let id = state.next_key_id();
        let key = KeyRecord {
            id,
            provider,
            wrapped_key,
            configured_key_id: self.config.keys.key_id.clone(),
            key_arn,
            created: Timestamp::now(),
            rewraps: None,
            replaced_by: None,
            adopted: false,
        };
        let mut next = state.clone();
        next.keys.iter_mut().for_each(|key| key.replaced_by = Some(id));
        next.keys.push(key);
        next.instance_id = self.instance_id.clone().or(next.instance_id);
        self.replace(next, state)
    }

    /// Wraps every data key in use with the KMS key `to`, and proves each. The passphrases of the volumes stay as they are.
    ///
    /// # Errors
    /// As [`Apply::rotate`].
    pub async fn rewrap(&self, state: &mut State, to: &str) -> Result<(), KeyError> {
        let mut next = state.clone();
        let current: Vec<KeyRecord> = state.keys.iter().filter(|key| key.replaced_by.is_none()).cloned().collect();
        for old in current {
            let RewrappedKey { wrapped_key, key_arn } = self.keys.rewrap(&old.source(), to).await?;
            if key_arn == old.key_arn {
                continue;
            }
            let before = self.keys.unwrap(&old.source()).await?;
            let source = KeySource::aws_kms(wrapped_key, key_arn);
            prove(&self.keys.unwrap(&source).await?, &before, &source)?;
            let KeySource { wrapped_key, key_arn, .. } = source;
            let id = next.next_key_id();
            // a key that waits for volumes that are away waits for the newer one from now on
            for key in &mut next.keys {
                if key.id == old.id || key.replaced_by == Some(old.id) {
                    key.replaced_by = Some(id);
                }
            }
            next.keys.push(KeyRecord {
                id,
                wrapped_key,
                configured_key_id: to.to_owned(),
                key_arn,
                created: Timestamp::now(),
                rewraps: Some(old.data_key()),
                ..old
            });
        }
        if next == *state { Ok(()) } else { self.replace(next, state) }
    }

    fn replace(&self, mut next: State, state: &mut State) -> Result<(), KeyError> {
        next.version = VERSION;
        self.save(&next)?;
        *state = next;
        Ok(())
    }
}

/// Removes the keys that no volume needs any more from the records: those that were replaced.
pub(super) fn without_replaced(state: &State) -> State {
    let is_used = |id: u32| {
        let by = |v: &VolumeRecord| v.key == id || v.key_change.as_ref().map(KeyChange::key) == Some(id);
        state.volumes.iter().any(by)
    };
    let mut next = state.clone();
    next.keys.retain(|key| key.replaced_by.is_none() || is_used(key.id));
    next
}

fn prove(unwrapped: &DataKey, made: &DataKey, source: &KeySource) -> Result<(), KeyError> {
    match unwrapped.same_as(made) {
        true => Ok(()),
        false => Err(KeyError::NotProven { provider: source.provider, key_arn: source.key_arn.clone() }),
    }
}
