//! The keys that a plan needs, and where they come from.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::FutureExt as _;
use jiff::Timestamp;

use super::context::Apply;
use super::outcome::KeyError;
use crate::job::{Basis, Host};
use crate::key::{Passphrase, Provider};
use crate::kms::{Class, KeyService};
use crate::plan::{Action, Format, Grow, Plan, Rekey, Step, Unlock};
use crate::state::{KeyRecord, State, VERSION};

/// The keys from the key service.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// By id; `None` for a key that the service did not return.
    known: BTreeMap<u32, Option<Passphrase>>,
    /// The first error.
    pub(super) error: Option<KeyError>,
    /// The recovery key, which opens all volumes in place of the others.
    recovery: Option<Passphrase>,
}

impl Keys {
    /// Returns the recovery key as the key of every volume.
    pub(super) fn of_recovery_key(recovery: Passphrase) -> Self {
        Self { recovery: Some(recovery), ..Self::default() }
    }

    /// Whether the key service has to unwrap keys.
    pub(super) fn are_wrapped(&self) -> bool {
        self.recovery.is_none()
    }

    pub(super) fn insert(&mut self, id: u32, result: Result<Passphrase, KeyError>) {
        let passphrase = result.map_err(|e| self.fail(e)).ok();
        self.known.insert(id, passphrase);
    }

    pub(super) fn fail(&mut self, error: KeyError) {
        self.error.get_or_insert(error);
    }

    pub(super) fn get(&self, id: u32) -> Option<&Passphrase> {
        self.recovery.as_ref().or_else(|| self.known.get(&id)?.as_ref())
    }

    /// Whether a call has waited for this service until the deadline. Another call would wait as long again.
    pub(super) fn gave_up_waiting(&self, provider: Provider) -> bool {
        let Some(KeyError::Service(e)) = &self.error else { return false };
        e.provider() == provider && matches!(e.class(), Class::Transient | Class::KeyNotReady | Class::NoCredentials)
    }
}

/// Whether a plan needs a key.
pub fn needs_key(plan: &Plan, state: &State) -> bool {
    !keys_to_unwrap(plan, state).is_empty() || plan.steps.iter().any(|step| is_new(&step.action))
}

/// Returns the keys of volumes to open or to change, and of volumes whose formatting was interrupted.
pub(super) fn keys_to_unwrap(plan: &Plan, state: &State) -> BTreeSet<u32> {
    let keys = |step: &Step| match &step.action {
        Action::Unlock(Unlock { key, is_open: false, .. }) | Action::Grow(Grow { key, grows_mapping: true, .. }) => {
            [Some(*key), None]
        }
        Action::Format(Format { basis: Basis::Unfinished { luks_uuid }, .. }) => {
            [state.volume(*luks_uuid).map(|v| v.key), None]
        }
        Action::Rekey(Rekey { key, wanted, .. }) => [Some(*key), Some(*wanted)],
        Action::Unlock(_) | Action::Grow(_) | Action::Format(_) => [None, None],
    };
    plan.steps.iter().flat_map(keys).flatten().collect()
}

/// Whether a volume is to be made with the node's key rather than with the key recorded for it.
pub(super) fn is_new(action: &Action) -> bool {
    match action {
        Action::Format(format) => !matches!(format.basis, Basis::Unfinished { .. }),
        Action::Unlock(_) | Action::Grow(_) | Action::Rekey(_) => false,
    }
}

/// Unwraps a recorded key and returns the passphrase of its volumes.
///
/// # Errors
/// If no such key is recorded, or the key service does not unwrap it.
pub async fn unwrap(keys: &impl KeyService, state: &State, id: u32) -> Result<Passphrase, KeyError> {
    let record = state.key_to_unwrap(id).ok_or(KeyError::Unrecorded(id))?;
    // boxed, because the SDK's futures nest deeper than the compiler looks
    let data_key = keys.unwrap(&record.source()).boxed_local().await?;
    Ok(data_key.passphrase())
}

impl<K: KeyService, H: Host> Apply<'_, K, H> {
    pub(super) async fn unwrap(&self, state: &State, id: u32) -> Result<Passphrase, KeyError> {
        unwrap(self.keys, state, id).await
    }

    /// Returns the id of the key for new volumes: the node's key, or a new one.
    ///
    /// The node gets a new key if it has none, or if the state file came or may have come from another instance (an
    /// image or a snapshot), because the key of that instance must not get new volumes. Returns `None` if the service
    /// has just failed; it is not called again.
    pub(super) async fn key_for_new_volumes(
        &self,
        state: &mut State,
        keys: &mut Keys,
    ) -> Result<Option<u32>, KeyError> {
        // if only one of them is known, this may be any instance
        let same_instance = state.instance_id == self.instance_id;
        // a key that has no volumes, and was wrapped by what is no longer configured, never worked
        let wanted = &self.config.keys;
        let is_wanted = |key: &KeyRecord| key.provider == wanted.provider && key.configured_key_id == wanted.key_id;
        let abandoned = |key: &KeyRecord| !is_wanted(key) && !state.volumes.iter().any(|volume| volume.key == key.id);
        if let Some(record) = state.node_key().filter(|key| !abandoned(key))
            && same_instance
        {
            let id = record.id;
            if !is_wanted(record) {
                tracing::warn!(
                    kms_key = record.key_arn,
                    "{} is now {}, but {} still wraps this node's data key, also for new volumes",
                    wanted.setting(),
                    wanted.key_id,
                    record.key_arn
                );
            }
            if !keys.known.contains_key(&id) {
                keys.insert(id, self.unwrap(state, id).await);
            }
            return Ok(keys.get(id).map(|_| id));
        }
        if keys.gave_up_waiting(wanted.provider) {
            return Ok(None);
        }
        let generated = self.keys.generate().await?;
        let id = state.next_key_id();
        let mut next = state.clone();
        next.version = VERSION;
        next.keys.retain(|key| !abandoned(key));
        next.instance_id.clone_from(&self.instance_id);
        next.keys.push(KeyRecord {
            id,
            provider: generated.provider,
            wrapped_key: generated.wrapped_key,
            configured_key_id: wanted.key_id.clone(),
            key_arn: generated.key_arn.clone(),
            created: Timestamp::now(),
            rewraps: None,
            replaced_by: None,
            adopted: false,
        });
        self.save(&next)?;
        *state = next;
        // prove the key with what is now on disk, before the first write to any volume
        let stored = match self.store {
            Some(store) => store.load()?,
            None => state.clone(),
        };
        let record = stored.key(id).ok_or(KeyError::Unrecorded(id))?;
        let unwrapped = self.keys.unwrap(&record.source()).await?;
        if !unwrapped.same_as(&generated.data_key) {
            // no volume uses this key, and none may
            state.keys.retain(|key| key.id != id);
            self.save(state)?;
            return Err(KeyError::NotProven { provider: generated.provider, key_arn: generated.key_arn });
        }
        tracing::info!(kms_key = record.key_arn, "the node's data key is wrapped, stored and proven");
        keys.insert(id, Ok(unwrapped.passphrase()));
        Ok(Some(id))
    }
}
