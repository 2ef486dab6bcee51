//! The KMS operations. Requests and responses are JSON; nothing here depends on HTTP.

use serde_json::Value;

use self::error::Answer;
use crate::key::KeyState;

mod administration;
mod cryptography;
mod error;
mod parameters;
mod registry;
mod signatures;

pub use error::KmsError;
pub(crate) use registry::Kms;

impl Kms {
    /// Performs one operation.
    pub(crate) fn call(&self, operation: &str, body: &Value) -> Answer {
        match operation {
            "DescribeKey" => self.describe_key(body),
            "GenerateDataKey" | "GenerateDataKeyWithoutPlaintext" => self.generate_data_key(operation, body),
            "Encrypt" => self.encrypt(body),
            "Decrypt" => self.decrypt(body),
            "ReEncrypt" => self.re_encrypt(body),
            "Sign" => self.sign(body),
            "GetPublicKey" => self.get_public_key(body),
            "CreateKey" => self.create_key(body),
            "EnableKey" => self.set_state_by(operation, body, KeyState::Enabled),
            "DisableKey" => self.set_state_by(operation, body, KeyState::Disabled),
            "ScheduleKeyDeletion" => self.set_state_by(operation, body, KeyState::PendingDeletion),
            "CancelKeyDeletion" => self.set_state_by(operation, body, KeyState::Disabled),
            "CreateAlias" | "UpdateAlias" => self.set_alias(operation, body),
            "ListKeys" => self.list_keys(),
            _ => Err(KmsError::new("UnknownOperationException", format!("fake-aws does not implement {operation:?}"))),
        }
    }
}

#[cfg(test)]
mod tests;
