//! The operations that describe, create and change keys and aliases.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::error::{Answer, KmsError};
use super::parameters;
use super::registry::Kms;
use crate::key::{Key, KeyKind, KeyState};

impl Kms {
    pub(super) fn describe_key(&self, body: &Value) -> Answer {
        Ok(json!({ "KeyMetadata": self.metadata(&self.target(body, "KeyId", "DescribeKey")?) }))
    }

    pub(super) fn list_keys(&self) -> Answer {
        self.permit("ListKeys", "*", false)?;
        let keys = self.keys();
        let keys = keys.iter().map(|key| json!({ "KeyId": key.id, "KeyArn": self.arn(&key.id) }));
        Ok(json!({ "Keys": keys.collect::<Vec<_>>(), "Truncated": false }))
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

    pub(super) fn create_key(&self, body: &Value) -> Answer {
        self.permit("CreateKey", "*", false)?;
        let mut key = Key::new(uuid::Uuid::new_v4().to_string());
        if let Some(spec) = body.get("KeySpec").filter(|spec| !spec.is_null()) {
            key.kind = serde_json::from_value(spec.clone()).map_err(|error| KmsError::validation(error.to_string()))?;
            if key.kind == KeyKind::Rsa && body.get("KeyUsage").is_some_and(|usage| usage == "SIGN_VERIFY") {
                key.kind = KeyKind::RsaForSignatures;
            }
        }
        key.created = Timestamp::now();
        let metadata = self.metadata(&key);
        self.keys().push(key);
        Ok(json!({ "KeyMetadata": metadata }))
    }

    pub(super) fn set_state_by(&self, operation: &str, body: &Value, state: KeyState) -> Answer {
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

    pub(super) fn set_alias(&self, operation: &str, body: &Value) -> Answer {
        let key = self.target(body, "TargetKeyId", operation)?;
        let alias = parameters::text(body, "AliasName")?;
        if !alias.starts_with("alias/") {
            return Err(KmsError::validation("AliasName must begin with alias/"));
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

fn deletion_date() -> Timestamp {
    Timestamp::now() + SignedDuration::from_hours(30 * 24)
}
