//! The keys of one account in one region: finds them, and decides who may use them and whether they can be used.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use super::error::KmsError;
use super::parameters;
use super::signatures::KeyPair;
use crate::key::{Key, KeyKind, KeyManager, KeyState, Root};

/// The KMS of one account in one region.
pub(crate) struct Kms {
    region: String,
    pub(super) account: String,
    principal: String,
    pub(super) root: Root,
    keys: Mutex<Vec<Key>>,
    /// The key pairs of asymmetric keys by key id, made when they are first used. They are random, also with a seed.
    pub(super) pairs: Mutex<BTreeMap<String, Arc<KeyPair>>>,
    allow: Mutex<Option<Vec<String>>>,
}

impl Kms {
    /// `allow` lists the only actions that the caller may perform, without the `kms:` prefix; `None` allows all.
    pub(crate) fn new(
        region: &str,
        account: &str,
        principal: String,
        root: Root,
        keys: Vec<Key>,
        allow: Option<Vec<String>>,
    ) -> Self {
        Self {
            region: region.to_owned(),
            account: account.to_owned(),
            principal,
            root,
            keys: Mutex::new(keys),
            pairs: Mutex::default(),
            allow: Mutex::new(allow),
        }
    }

    pub(super) fn keys(&self) -> MutexGuard<'_, Vec<Key>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the list of allowed actions.
    pub(crate) fn set_allow(&self, allow: Option<Vec<String>>) {
        *self.allow.lock().unwrap_or_else(PoisonError::into_inner) = allow;
    }

    pub(super) fn arn_prefix(&self) -> String {
        format!("arn:aws:kms:{}:{}:", self.region, self.account)
    }

    /// Returns the ARN of a key id, whether or not the key exists.
    pub(crate) fn arn(&self, key_id: &str) -> String {
        format!("{}key/{key_id}", self.arn_prefix())
    }

    /// Sets the state of a key, by any of its names.
    pub(crate) fn set_state(&self, name: &str, state: KeyState) -> Result<(), KmsError> {
        self.change(name, |key| key.state = state)
    }

    /// Sets the state of the first key.
    pub(crate) fn set_first_state(&self, state: KeyState) {
        if let Some(key) = self.keys().first_mut() {
            key.state = state;
        }
    }

    pub(super) fn change(&self, name: &str, change: impl FnOnce(&mut Key)) -> Result<(), KmsError> {
        let id = self.find(name)?.id;
        if let Some(key) = self.keys().iter_mut().find(|key| key.id == id) {
            change(key);
        }
        Ok(())
    }

    /// Finds a key by its id, ARN, alias name or alias ARN.
    pub(super) fn find(&self, name: &str) -> Result<Key, KmsError> {
        let prefix = self.arn_prefix();
        let local = match name.strip_prefix(&prefix) {
            Some(local) => local,
            None if name.starts_with("arn:") => {
                return Err(KmsError::new("NotFoundException", format!("Invalid arn {name}")));
            }
            None => name,
        };
        let keys = self.keys();
        if local.starts_with("alias/") {
            let alias = |key: &&Key| key.aliases.iter().any(|alias| alias == local);
            let message = || format!("Alias {prefix}{local} is not found.");
            return keys.iter().find(alias).cloned().ok_or_else(|| KmsError::new("NotFoundException", message()));
        }
        let id = local.strip_prefix("key/").unwrap_or(local);
        let message = || format!("Key '{}' does not exist", self.arn(id));
        keys.iter().find(|key| key.id == id).cloned().ok_or_else(|| KmsError::new("NotFoundException", message()))
    }

    /// Returns the key that the request names, if the caller may perform the action on it.
    pub(super) fn target(&self, body: &Value, field: &str, action: &str) -> Result<Key, KmsError> {
        let key = self.find(parameters::text(body, field)?)?;
        self.authorize(action, &key)?;
        Ok(key)
    }

    pub(super) fn authorize(&self, action: &str, key: &Key) -> Result<(), KmsError> {
        self.permit(action, &self.arn(&key.id), key.manager == KeyManager::Aws && uses_key_material(action))
    }

    pub(super) fn permit(&self, action: &str, resource: &str, aws_managed: bool) -> Result<(), KmsError> {
        let allow = self.allow.lock().unwrap_or_else(PoisonError::into_inner);
        let policy = match &*allow {
            Some(actions) if !actions.iter().any(|allowed| allowed == action) => "identity",
            _ if aws_managed => "resource",
            _ => return Ok(()),
        };
        Err(KmsError::new(
            "AccessDeniedException",
            format!(
                "User: {} is not authorized to perform: kms:{action} on resource: {resource} because no \
                 {policy}-based policy allows the kms:{action} action",
                self.principal
            ),
        ))
    }

    /// Fails unless the key supports symmetric encryption and its state allows it now.
    pub(super) fn usable(&self, key: &Key, operation: &str) -> Result<(), KmsError> {
        self.available(key)?;
        if key.kind == KeyKind::Symmetric { Ok(()) } else { Err(self.wrong_usage(key, operation)) }
    }

    /// The error for a key that is for something else.
    pub(super) fn wrong_usage(&self, key: &Key, operation: &str) -> KmsError {
        let (arn, usage) = (self.arn(&key.id), key.kind.usage());
        let message = format!("{arn} key usage is {usage} which is not valid for {operation}.");
        KmsError::new("InvalidKeyUsageException", message)
    }

    /// Fails unless the state of the key allows its use now.
    pub(super) fn available(&self, key: &Key) -> Result<(), KmsError> {
        let arn = self.arn(&key.id);
        let what = match key.state {
            KeyState::Enabled => return Ok(()),
            KeyState::Disabled => return Err(KmsError::new("DisabledException", format!("{arn} is disabled."))),
            KeyState::PendingDeletion => "pending deletion",
            KeyState::PendingImport => "pending import",
            KeyState::Creating => "creating",
            KeyState::Updating => "updating",
            KeyState::Unavailable => "unavailable",
        };
        Err(KmsError::new("KMSInvalidStateException", format!("{arn} is {what}.")))
    }
}

/// Whether the key policy of an AWS managed key denies the action.
fn uses_key_material(action: &str) -> bool {
    action.starts_with("GenerateDataKey") || action.contains("crypt")
}
