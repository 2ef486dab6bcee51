//! Makes the key that takes the place of others: a new data key, or the same one under another KMS key.

use jiff::Timestamp;

use super::context::Apply;
use super::outcome::KeyError;
use crate::job::Host;
use crate::key::{DataKey, Provider};
use crate::kms::{GeneratedKey, KeyService, RewrappedKey};
use crate::state::{KeyChange, KeyRecord, State, VERSION, VolumeRecord};

impl<K: KeyService, H: Host> Apply<'_, K, H> {
    /// Makes a new data key that takes the place of all others. It is proven, then durable and read back, before anything refers to it.
    ///
    /// # Errors
    /// If the key service refuses, or the state file cannot be written; the state is then as it was.
    pub async fn rotate(&self, state: &mut State) -> Result<(), KeyError> {
        let GeneratedKey { data_key, wrapped_key, key_arn } = self.keys.generate().await?;
        self.prove(&self.keys.unwrap(&wrapped_key, &key_arn).await?, &data_key, &key_arn)?;
        let id = state.next_key_id();
        let key = KeyRecord {
            id,
            provider: Provider::AwsKms,
            wrapped_key,
            configured_key_id: self.config.kms.key_id.clone(),
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
            let RewrappedKey { wrapped_key, key_arn } = self.keys.rewrap(&old.wrapped_key, &old.key_arn, to).await?;
            if key_arn == old.key_arn {
                continue;
            }
            let before = self.keys.unwrap(&old.wrapped_key, &old.key_arn).await?;
            self.prove(&self.keys.unwrap(&wrapped_key, &key_arn).await?, &before, &key_arn)?;
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

    fn prove(&self, unwrapped: &DataKey, made: &DataKey, key_arn: &str) -> Result<(), KeyError> {
        if unwrapped.same_as(made) { Ok(()) } else { Err(KeyError::NotProven { key_arn: key_arn.to_owned() }) }
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
