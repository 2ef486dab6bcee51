//! The KMS operations: JSON in, JSON or an error code out. Nothing here knows of HTTP.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use crate::key::{Context, Key, KeyKind, KeyManager, KeyState, Root};

/// An error as KMS answers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KmsError {
    /// The code, `DisabledException` say.
    pub code: String,
    /// The message; KMS gives none with an `InvalidCiphertextException`.
    pub message: Option<String>,
}

impl KmsError {
    fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: Some(message.into()) }
    }

    fn validation(message: impl Into<String>) -> Self {
        Self::new("ValidationException", message)
    }

    fn invalid_ciphertext() -> Self {
        Self { code: "InvalidCiphertextException".to_owned(), message: None }
    }

    /// The HTTP status that KMS sends with the code: callers are to look at the code.
    pub fn status(code: &str) -> u16 {
        match code {
            "KMSInternalException" | "KeyUnavailableException" | "InternalFailure" => 500,
            "DependencyTimeoutException" | "ServiceUnavailable" | "ServiceUnavailableException" => 503,
            _ => 400,
        }
    }
}

impl fmt::Display for KmsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message.as_deref().unwrap_or("no message"))
    }
}

impl std::error::Error for KmsError {}

type Answer = Result<Value, KmsError>;

/// The KMS of one account in one region.
pub(crate) struct Kms {
    region: String,
    account: String,
    principal: String,
    root: Root,
    keys: Mutex<Vec<Key>>,
    allow: Mutex<Option<Vec<String>>>,
}

impl Kms {
    /// `allow`: the only actions (`Decrypt`, without `kms:`) which the caller may do; `None` for all of them.
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
            allow: Mutex::new(allow),
        }
    }

    fn keys(&self) -> MutexGuard<'_, Vec<Key>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_allow(&self, allow: Option<Vec<String>>) {
        *self.allow.lock().unwrap_or_else(PoisonError::into_inner) = allow;
    }

    fn arn_prefix(&self) -> String {
        format!("arn:aws:kms:{}:{}:", self.region, self.account)
    }

    /// The ARN of a key by its id, whether or not it exists.
    pub(crate) fn arn(&self, key_id: &str) -> String {
        format!("{}key/{key_id}", self.arn_prefix())
    }

    pub(crate) fn set_state(&self, name: &str, state: KeyState) -> Result<(), KmsError> {
        self.change(name, |key| key.state = state)
    }

    /// Sets the state of the first key.
    pub(crate) fn set_first_state(&self, state: KeyState) {
        if let Some(key) = self.keys().first_mut() {
            key.state = state;
        }
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Key)) -> Result<(), KmsError> {
        let id = self.find(name)?.id;
        if let Some(key) = self.keys().iter_mut().find(|key| key.id == id) {
            change(key);
        }
        Ok(())
    }

    /// A key by its id, ARN, alias name or alias ARN.
    fn find(&self, name: &str) -> Result<Key, KmsError> {
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

    /// The key which the request names, once the caller is known to be allowed the action on it.
    fn target(&self, body: &Value, field: &str, action: &str) -> Result<Key, KmsError> {
        let name = body.get(field).and_then(Value::as_str).ok_or_else(|| missing(field))?;
        let key = self.find(name)?;
        self.authorize(action, &key)?;
        Ok(key)
    }

    fn authorize(&self, action: &str, key: &Key) -> Result<(), KmsError> {
        self.permit(action, &self.arn(&key.id), key.manager == KeyManager::Aws && needs_use(action))
    }

    fn permit(&self, action: &str, resource: &str, aws_managed: bool) -> Result<(), KmsError> {
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

    /// Whether the key can do symmetric encryption now.
    fn usable(&self, key: &Key, operation: &str) -> Result<(), KmsError> {
        let arn = self.arn(&key.id);
        let what = match key.state {
            KeyState::Enabled => {
                return match key.kind {
                    KeyKind::Symmetric => Ok(()),
                    KeyKind::Rsa | KeyKind::Ecc | KeyKind::Hmac => Err(KmsError::new(
                        "InvalidKeyUsageException",
                        format!("{arn} key usage is {} which is not valid for {operation}.", key.kind.usage()),
                    )),
                };
            }
            KeyState::Disabled => return Err(KmsError::new("DisabledException", format!("{arn} is disabled."))),
            KeyState::PendingDeletion => "pending deletion",
            KeyState::PendingImport => "pending import",
            KeyState::Creating => "creating",
            KeyState::Updating => "updating",
            KeyState::Unavailable => "unavailable",
        };
        Err(KmsError::new("KMSInvalidStateException", format!("{arn} is {what}.")))
    }

    /// Answers one operation.
    pub(crate) fn call(&self, operation: &str, body: &Value) -> Answer {
        match operation {
            "DescribeKey" => Ok(json!({ "KeyMetadata": self.metadata(&self.target(body, "KeyId", "DescribeKey")?) })),
            "GenerateDataKey" | "GenerateDataKeyWithoutPlaintext" => self.generate_data_key(operation, body),
            "Encrypt" => self.encrypt(body),
            "Decrypt" => self.decrypt(body),
            "ReEncrypt" => self.re_encrypt(body),
            "CreateKey" => self.create_key(body),
            "EnableKey" => self.set_state_by(operation, body, KeyState::Enabled),
            "DisableKey" => self.set_state_by(operation, body, KeyState::Disabled),
            "ScheduleKeyDeletion" => self.set_state_by(operation, body, KeyState::PendingDeletion),
            "CancelKeyDeletion" => self.set_state_by(operation, body, KeyState::Disabled),
            "CreateAlias" | "UpdateAlias" => self.set_alias(operation, body),
            "ListKeys" => {
                self.permit(operation, "*", false)?;
                let keys = self.keys();
                let keys = keys.iter().map(|key| json!({ "KeyId": key.id, "KeyArn": self.arn(&key.id) }));
                Ok(json!({ "Keys": keys.collect::<Vec<_>>(), "Truncated": false }))
            }
            _ => Err(KmsError::new("UnknownOperationException", format!("fake-aws has no operation {operation:?}"))),
        }
    }

    fn metadata(&self, key: &Key) -> Value {
        let (algorithms, names) = key.kind.algorithms();
        let mut metadata = json!({
            "AWSAccountId": self.account,
            "Arn": self.arn(&key.id),
            "CreationDate": key.created.as_second(),
            "CustomerMasterKeySpec": key.kind.key_spec(),
            "Description": "",
            "Enabled": key.state == KeyState::Enabled,
            "KeyId": key.id,
            "KeyManager": key.manager,
            "KeySpec": key.kind.key_spec(),
            "KeyState": key.state,
            "KeyUsage": key.kind.usage(),
            "MultiRegion": key.id.starts_with("mrk-"),
            "Origin": if key.state == KeyState::PendingImport { "EXTERNAL" } else { "AWS_KMS" },
        });
        metadata[algorithms] = json!(names);
        if key.kind == KeyKind::Symmetric {
            metadata["CurrentKeyMaterialId"] = self.root.material_id(&key.id).into();
        }
        if key.state == KeyState::PendingDeletion {
            metadata["DeletionDate"] = deletion_date().as_second().into();
        }
        metadata
    }

    fn generate_data_key(&self, operation: &str, body: &Value) -> Answer {
        let key = self.target(body, "KeyId", operation)?;
        let spec = body.get("KeySpec").filter(|spec| !spec.is_null());
        let length = match (spec, body.get("NumberOfBytes").filter(|number| !number.is_null())) {
            (Some(spec), None) if spec == "AES_256" => 32,
            (Some(spec), None) if spec == "AES_128" => 16,
            (Some(spec), None) => return Err(KmsError::validation(format!("no such KeySpec: {spec}"))),
            (None, Some(number)) => number
                .as_u64()
                .and_then(|number| usize::try_from(number).ok())
                .filter(|number| (1..=1024).contains(number))
                .ok_or_else(|| KmsError::validation("NumberOfBytes is from 1 to 1024"))?,
            (None, None) | (Some(_), Some(_)) => {
                return Err(KmsError::validation("Please specify either number of bytes or key spec."));
            }
        };
        let context = context(body, "EncryptionContext")?;
        self.usable(&key, operation)?;
        dry_run(body)?;
        let mut plaintext = vec![0; length];
        rand::fill(&mut plaintext).map_err(internal)?;
        let mut answer = json!({
            "CiphertextBlob": self.seal(&key, &context, &plaintext)?,
            "KeyId": self.arn(&key.id),
            "KeyMaterialId": self.root.material_id(&key.id),
        });
        if operation == "GenerateDataKey" {
            answer["Plaintext"] = BASE64.encode(plaintext).into();
        }
        Ok(answer)
    }

    fn seal(&self, key: &Key, context: &Context, plaintext: &[u8]) -> Result<String, KmsError> {
        Ok(BASE64.encode(self.root.seal(&key.id, context, plaintext).map_err(internal)?))
    }

    fn encrypt(&self, body: &Value) -> Answer {
        let key = self.target(body, "KeyId", "Encrypt")?;
        let plaintext = blob(body, "Plaintext", 4096)?;
        let context = context(body, "EncryptionContext")?;
        self.usable(&key, "Encrypt")?;
        dry_run(body)?;
        Ok(json!({
            "CiphertextBlob": self.seal(&key, &context, &plaintext)?,
            "EncryptionAlgorithm": "SYMMETRIC_DEFAULT",
            "KeyId": self.arn(&key.id),
        }))
    }

    /// The source key and the plaintext of `Decrypt` and `ReEncrypt`; no plaintext if the ciphertext is to be ignored.
    fn unwrap(
        &self,
        body: &Value,
        [key_field, context_field]: [&str; 2],
        action: &str,
    ) -> Result<(Key, Option<Vec<u8>>), KmsError> {
        let context = context(body, context_field)?;
        let named = match body.get(key_field).and_then(Value::as_str) {
            Some(name) => Some(self.find(name)?),
            None => None,
        };
        let ignored = body.get("DryRunModifiers").and_then(Value::as_array);
        if ignored.is_some_and(|modifiers| modifiers.iter().any(|modifier| modifier == "IGNORE_CIPHERTEXT")) {
            let key = named.ok_or_else(|| missing(key_field))?;
            self.authorize(action, &key)?;
            self.usable(&key, action)?;
            return Ok((key, None));
        }
        let blob = blob(body, "CiphertextBlob", 6144)?;
        let id = self.root.key_id_of(&blob).map_err(|_| KmsError::invalid_ciphertext())?;
        if named.is_some_and(|key| key.id != id) {
            let message = "The key ID in the request does not identify a CMK that can perform this operation.";
            return Err(KmsError::new("IncorrectKeyException", message));
        }
        let key = self.find(id).map_err(|_| {
            let message = "The ciphertext refers to a customer master key that does not exist, does not exist in this \
                           region, or you are not allowed to access.";
            KmsError::new("AccessDeniedException", message)
        })?;
        self.authorize(action, &key)?;
        self.usable(&key, action)?;
        let plaintext = self.root.open(&blob, &context).map_err(|_| KmsError::invalid_ciphertext())?;
        Ok((key, Some(plaintext)))
    }

    fn decrypt(&self, body: &Value) -> Answer {
        let (key, plaintext) = self.unwrap(body, ["KeyId", "EncryptionContext"], "Decrypt")?;
        dry_run(body)?;
        let plaintext = plaintext.ok_or_else(|| KmsError::validation("DryRunModifiers are for a dry run"))?;
        Ok(json!({
            "EncryptionAlgorithm": "SYMMETRIC_DEFAULT",
            "KeyId": self.arn(&key.id),
            "KeyMaterialId": self.root.material_id(&key.id),
            "Plaintext": BASE64.encode(plaintext),
        }))
    }

    fn re_encrypt(&self, body: &Value) -> Answer {
        let destination = self.target(body, "DestinationKeyId", "ReEncryptTo")?;
        let new_context = context(body, "DestinationEncryptionContext")?;
        let (source, plaintext) = self.unwrap(body, ["SourceKeyId", "SourceEncryptionContext"], "ReEncryptFrom")?;
        self.usable(&destination, "ReEncrypt")?;
        dry_run(body)?;
        let plaintext = plaintext.ok_or_else(|| KmsError::validation("DryRunModifiers are for a dry run"))?;
        Ok(json!({
            "CiphertextBlob": self.seal(&destination, &new_context, &plaintext)?,
            "DestinationEncryptionAlgorithm": "SYMMETRIC_DEFAULT",
            "DestinationKeyMaterialId": self.root.material_id(&destination.id),
            "KeyId": self.arn(&destination.id),
            "SourceEncryptionAlgorithm": "SYMMETRIC_DEFAULT",
            "SourceKeyId": self.arn(&source.id),
            "SourceKeyMaterialId": self.root.material_id(&source.id),
        }))
    }

    fn create_key(&self, body: &Value) -> Answer {
        self.permit("CreateKey", "*", false)?;
        let mut key = Key::new(uuid::Uuid::new_v4().to_string());
        if let Some(spec) = body.get("KeySpec").filter(|spec| !spec.is_null()) {
            key.kind = serde_json::from_value(spec.clone()).map_err(|error| KmsError::validation(error.to_string()))?;
        }
        key.created = Timestamp::now();
        let metadata = self.metadata(&key);
        self.keys().push(key);
        Ok(json!({ "KeyMetadata": metadata }))
    }

    fn set_state_by(&self, operation: &str, body: &Value, state: KeyState) -> Answer {
        let key = self.target(body, "KeyId", operation)?;
        if (operation == "CancelKeyDeletion") != (key.state == KeyState::PendingDeletion) {
            return Err(KmsError::new(
                "KMSInvalidStateException",
                format!("{} is {:?}.", self.arn(&key.id), key.state),
            ));
        }
        self.change(&key.id, |key| key.state = state)?;
        Ok(match operation {
            "ScheduleKeyDeletion" => json!({
                "DeletionDate": deletion_date().as_second(),
                "KeyId": self.arn(&key.id),
                "KeyState": state,
                "PendingWindowInDays": 30,
            }),
            "CancelKeyDeletion" => json!({ "KeyId": self.arn(&key.id) }),
            _ => json!({}),
        })
    }

    fn set_alias(&self, operation: &str, body: &Value) -> Answer {
        let key = self.target(body, "TargetKeyId", operation)?;
        let alias = body.get("AliasName").and_then(Value::as_str).ok_or_else(|| missing("AliasName"))?;
        if !alias.starts_with("alias/") {
            return Err(KmsError::validation("an alias name starts with alias/"));
        }
        match (operation, self.find(alias)) {
            ("CreateAlias", Ok(_)) => {
                let message = format!("An alias with the name {}{alias} already exists", self.arn_prefix());
                return Err(KmsError::new("AlreadyExistsException", message));
            }
            ("UpdateAlias", Err(error)) => return Err(error),
            _ => {}
        }
        for key in self.keys().iter_mut() {
            key.aliases.retain(|other| other != alias);
        }
        self.change(&key.id, |key| key.aliases.push(alias.to_owned()))?;
        Ok(json!({}))
    }
}

fn needs_use(action: &str) -> bool {
    action.starts_with("GenerateDataKey") || action.contains("crypt")
}

fn deletion_date() -> Timestamp {
    Timestamp::now() + SignedDuration::from_hours(30 * 24)
}

fn missing(field: &str) -> KmsError {
    KmsError::validation(format!(
        "1 validation error detected: Value null at '{field}' failed to satisfy constraint: Member must not be null"
    ))
}

fn internal(_: aws_lc_rs::error::Unspecified) -> KmsError {
    KmsError::new("KMSInternalException", "the fake's cryptography failed")
}

fn dry_run(body: &Value) -> Result<(), KmsError> {
    if body.get("DryRun").and_then(Value::as_bool) == Some(true) {
        let message = "The request would have succeeded, but the DryRun option is set.";
        return Err(KmsError::new("DryRunOperationException", message));
    }
    Ok(())
}

fn context(body: &Value, field: &str) -> Result<Context, KmsError> {
    let empty = Map::new();
    let object = match body.get(field) {
        None | Some(Value::Null) => &empty,
        Some(value) => value.as_object().ok_or_else(|| KmsError::validation(format!("{field} is a map")))?,
    };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let pair = |(name, value): (&String, &Value)| Some((name.clone(), text(value)?));
    object
        .iter()
        .map(pair)
        .collect::<Option<_>>()
        .ok_or_else(|| KmsError::validation(format!("{field} maps to strings")))
}

fn blob(body: &Value, field: &str, most: usize) -> Result<Vec<u8>, KmsError> {
    let text = body.get(field).and_then(Value::as_str).ok_or_else(|| missing(field))?;
    let bytes =
        BASE64.decode(text).map_err(|_| KmsError::new("SerializationException", format!("{field} is base64")))?;
    if bytes.is_empty() || bytes.len() > most {
        return Err(KmsError::validation(format!("{field} has from 1 to {most} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn kms(key: Key) -> Kms {
        let root = Root::new(Some("test")).unwrap();
        Kms::new("us-east-1", "111122223333", "arn:aws:sts::111122223333:x".to_owned(), root, vec![key], None)
    }

    fn code(answer: Answer) -> String {
        answer.unwrap_err().code
    }

    #[test]
    fn every_way_to_name_a_key_finds_it_and_is_answered_with_the_arn() {
        let kms = kms(Key::default());
        let arn = kms.arn(Key::DEFAULT_ID);
        let alias_arn = "arn:aws:kms:us-east-1:111122223333:alias/luks-agent";
        for name in [Key::DEFAULT_ID, &arn, "alias/luks-agent", alias_arn] {
            let answer = kms.call("GenerateDataKey", &json!({ "KeyId": name, "KeySpec": "AES_256" })).unwrap();
            assert_eq!(answer["KeyId"], arn, "{name}");
        }
        for name in ["alias/other", "other", "arn:aws:kms:eu-west-1:111122223333:alias/luks-agent", ""] {
            assert_eq!(code(kms.call("DescribeKey", &json!({ "KeyId": name }))), "NotFoundException", "{name}");
        }
    }

    #[test]
    fn states_decide_what_a_key_can_do_and_never_hide_it() {
        let kms = kms(Key::default());
        let body = json!({ "KeyId": Key::DEFAULT_ID, "KeySpec": "AES_256" });
        for (state, expected) in [
            (KeyState::Disabled, "DisabledException"),
            (KeyState::PendingDeletion, "KMSInvalidStateException"),
            (KeyState::PendingImport, "KMSInvalidStateException"),
            (KeyState::Unavailable, "KMSInvalidStateException"),
        ] {
            kms.set_state("alias/luks-agent", state).unwrap();
            assert_eq!(code(kms.call("GenerateDataKey", &body)), expected);
            let metadata = kms.call("DescribeKey", &body).unwrap();
            assert_eq!(metadata["KeyMetadata"]["KeyState"], format!("{state:?}"));
            assert_eq!(metadata["KeyMetadata"]["Enabled"], false);
        }
        assert_eq!(code(kms.call("CancelKeyDeletion", &body)), "KMSInvalidStateException");
        kms.call("EnableKey", &body).unwrap();
        kms.call("GenerateDataKey", &body).unwrap();
    }

    #[test]
    fn exactly_one_of_key_spec_and_number_of_bytes() {
        let kms = kms(Key::default());
        let call = |fields: Value| {
            let mut body = json!({ "KeyId": Key::DEFAULT_ID });
            body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            kms.call("GenerateDataKey", &body)
        };
        for (fields, length) in [
            (json!({ "KeySpec": "AES_256" }), 32),
            (json!({ "KeySpec": "AES_128" }), 16),
            (json!({ "NumberOfBytes": 64 }), 64),
        ] {
            let plaintext = call(fields).unwrap()["Plaintext"].as_str().unwrap().to_owned();
            assert_eq!(BASE64.decode(plaintext).unwrap().len(), length);
        }
        for fields in [
            json!({}),
            json!({ "KeySpec": "AES_256", "NumberOfBytes": 32 }),
            json!({ "KeySpec": "AES_512" }),
            json!({ "NumberOfBytes": 0 }),
            json!({ "NumberOfBytes": 1025 }),
        ] {
            assert_eq!(code(call(fields)), "ValidationException");
        }
    }

    #[test]
    fn another_kind_of_key_is_refused_for_its_usage() {
        for kind in [KeyKind::Rsa, KeyKind::Ecc, KeyKind::Hmac] {
            let kms = kms(Key { kind, ..Key::default() });
            let body = json!({ "KeyId": Key::DEFAULT_ID, "KeySpec": "AES_256" });
            assert_eq!(code(kms.call("GenerateDataKey", &body)), "InvalidKeyUsageException");
            assert_eq!(kms.call("DescribeKey", &body).unwrap()["KeyMetadata"]["KeySpec"], kind.key_spec());
        }
    }

    #[test]
    fn rewrapping_keeps_the_plaintext_and_changes_the_key() {
        let kms = kms(Key::default());
        let other = kms.call("CreateKey", &json!({})).unwrap()["KeyMetadata"]["KeyId"].clone();
        let made = kms.call("GenerateDataKey", &json!({ "KeyId": Key::DEFAULT_ID, "KeySpec": "AES_256" })).unwrap();
        let body = json!({ "CiphertextBlob": made["CiphertextBlob"], "DestinationKeyId": other });
        let rewrapped = kms.call("ReEncrypt", &body).unwrap();
        assert_eq!(rewrapped["SourceKeyId"], made["KeyId"]);
        let body = json!({ "CiphertextBlob": rewrapped["CiphertextBlob"], "KeyId": Key::DEFAULT_ID });
        assert_eq!(code(kms.call("Decrypt", &body)), "IncorrectKeyException");
        let body = json!({ "CiphertextBlob": rewrapped["CiphertextBlob"], "KeyId": other });
        assert!(kms.call("Decrypt", &body).unwrap()["Plaintext"] == made["Plaintext"]);
    }

    #[test]
    fn a_dry_run_is_an_error_when_it_would_have_succeeded() {
        let kms = kms(Key::default());
        let body = json!({ "KeyId": Key::DEFAULT_ID, "KeySpec": "AES_256", "DryRun": true });
        assert_eq!(code(kms.call("GenerateDataKey", &body)), "DryRunOperationException");
        let body = json!({ "KeyId": Key::DEFAULT_ID, "DryRun": true, "DryRunModifiers": ["IGNORE_CIPHERTEXT"] });
        assert_eq!(code(kms.call("Decrypt", &body)), "DryRunOperationException");
        kms.set_state(Key::DEFAULT_ID, KeyState::Disabled).unwrap();
        assert_eq!(code(kms.call("Decrypt", &body)), "DisabledException");
    }
}
