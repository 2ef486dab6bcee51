//! The operations that use key material: `GenerateDataKey`, `Encrypt`, `Decrypt` and `ReEncrypt`.

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::error::{Answer, KmsError};
use super::parameters::{self, blob, context, refuse_dry_run};
use super::registry::Kms;
use crate::key::{Context, Key};

impl Kms {
    pub(super) fn generate_data_key(&self, operation: &str, body: &Value) -> Answer {
        let key = self.target(body, "KeyId", operation)?;
        let length = parameters::data_key_length(body)?;
        let context = context(body, "EncryptionContext")?;
        self.usable(&key, operation)?;
        refuse_dry_run(body)?;
        let mut plaintext = vec![0; length];
        rand::fill(&mut plaintext).map_err(KmsError::internal)?;
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
        Ok(BASE64.encode(self.root.seal(&key.id, context, plaintext).map_err(KmsError::internal)?))
    }

    pub(super) fn encrypt(&self, body: &Value) -> Answer {
        let key = self.target(body, "KeyId", "Encrypt")?;
        let plaintext = blob(body, "Plaintext", 4096)?;
        let context = context(body, "EncryptionContext")?;
        self.usable(&key, "Encrypt")?;
        refuse_dry_run(body)?;
        Ok(json!({
            "CiphertextBlob": self.seal(&key, &context, &plaintext)?,
            "EncryptionAlgorithm": "SYMMETRIC_DEFAULT",
            "KeyId": self.arn(&key.id),
        }))
    }

    /// Unwraps the ciphertext of `Decrypt` and `ReEncrypt`. The plaintext is `None` if the request asks to ignore the ciphertext.
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
            let key = named.ok_or_else(|| KmsError::missing(key_field))?;
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

    pub(super) fn decrypt(&self, body: &Value) -> Answer {
        let (key, plaintext) = self.unwrap(body, ["KeyId", "EncryptionContext"], "Decrypt")?;
        refuse_dry_run(body)?;
        let plaintext = plaintext.ok_or_else(|| KmsError::validation("DryRunModifiers needs DryRun"))?;
        Ok(json!({
            "EncryptionAlgorithm": "SYMMETRIC_DEFAULT",
            "KeyId": self.arn(&key.id),
            "KeyMaterialId": self.root.material_id(&key.id),
            "Plaintext": BASE64.encode(plaintext),
        }))
    }

    pub(super) fn re_encrypt(&self, body: &Value) -> Answer {
        let destination = self.target(body, "DestinationKeyId", "ReEncryptTo")?;
        let new_context = context(body, "DestinationEncryptionContext")?;
        let (source, plaintext) = self.unwrap(body, ["SourceKeyId", "SourceEncryptionContext"], "ReEncryptFrom")?;
        self.usable(&destination, "ReEncrypt")?;
        refuse_dry_run(body)?;
        let plaintext = plaintext.ok_or_else(|| KmsError::validation("DryRunModifiers needs DryRun"))?;
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
}
