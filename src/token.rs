//! The agent's LUKS2 token, and what a header must look like before it is used.
//!
//! The token makes a volume recoverable without the boot volume that made it: it holds the wrapped key and says which KMS
//! key unwraps it.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::Cipher;
use crate::key::WrappedKey;

/// Token type. Types that start with `luks2-` are cryptsetup's own (LUKS2 on-disk format, section 3.3).
pub const TOKEN_TYPE: &str = "luks-agent-awskms";
/// Subsystem label of the header: how blkid and udev tell our volumes.
pub const SUBSYSTEM: &str = "luks-agent";
/// Where the data segment starts, in bytes: libcryptsetup's default, set explicitly.
pub const DATA_OFFSET: u64 = 16 << 20;

/// The token as it stands in the JSON area.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Always [`TOKEN_TYPE`].
    #[serde(rename = "type")]
    pub kind: String,
    /// The keyslots that the wrapped key opens, as LUKS2 writes them: decimal strings.
    pub keyslots: Vec<String>,
    /// Version of this token's fields.
    pub version: u32,
    /// The data key, wrapped.
    pub wrapped_key: WrappedKey,
    /// ARN of the KMS key that unwraps it.
    pub key_arn: String,
    /// The instance that made the volume, where there was an instance metadata service to tell.
    pub instance_id: Option<String>,
}

impl Token {
    /// A token that is not assigned to a keyslot yet.
    pub fn new(wrapped_key: WrappedKey, key_arn: String, instance_id: Option<String>) -> Self {
        Self { kind: TOKEN_TYPE.to_owned(), keyslots: Vec::new(), version: 1, wrapped_key, key_arn, instance_id }
    }

    /// The first token of ours in a LUKS2 metadata object.
    ///
    /// # Errors
    /// When there is one that this release cannot read: then the volume is the agent's all the same.
    pub fn find(metadata: &Value) -> Result<Option<Self>, serde_json::Error> {
        ours(metadata).map(|(_, token)| Self::deserialize(token)).transpose()
    }

    /// The number of that token.
    pub fn find_id(metadata: &Value) -> Option<u32> {
        ours(metadata).and_then(|(id, _)| id.parse().ok())
    }
}

fn ours(metadata: &Value) -> Option<(&String, &Value)> {
    let tokens = metadata.get("tokens")?.as_object()?;
    tokens.iter().find(|(_, token)| token.get("type").and_then(Value::as_str) == Some(TOKEN_TYPE))
}

/// A header that is valid LUKS2 but not one the agent makes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct PolicyViolation(String);

impl fmt::Display for PolicyViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the LUKS2 header is not as luks-agent makes it: {}", self.0)
    }
}

/// Checks LUKS2 metadata against what the agent makes: whoever can write to the disk could otherwise have it opened with a
/// null cipher or another layout.
///
/// # Errors
/// The first thing found that is not as it should be.
pub fn check_header(metadata: &Value) -> Result<(), PolicyViolation> {
    let violation = |text: String| Err(PolicyViolation(text));
    let section = |name: &str| metadata.get(name).and_then(Value::as_object);

    let segments = section("segments").map(|s| s.values().collect::<Vec<_>>()).unwrap_or_default();
    let [segment] = segments.as_slice() else {
        return violation(format!("it has {} segments, expected 1", segments.len()));
    };
    let text = |key: &str| segment.get(key).and_then(Value::as_str).unwrap_or("missing");
    if text("type") != "crypt" {
        return violation(format!("segment type '{}', expected 'crypt'", text("type")));
    }
    if serde_json::from_value::<Cipher>(text("encryption").into()).is_err() {
        return violation(format!("cipher '{}' is not one of the agent's", text("encryption")));
    }
    if text("offset") != DATA_OFFSET.to_string() {
        return violation(format!("data offset {}, expected {DATA_OFFSET}", text("offset")));
    }
    if text("size") != "dynamic" {
        return violation(format!("segment size {}, expected dynamic", text("size")));
    }
    if let Some(key) = ["integrity", "flags"].into_iter().find(|key| segment.get(key).is_some()) {
        return violation(format!("the segment has '{key}'"));
    }
    let requirements = metadata.pointer("/config/requirements/mandatory").and_then(Value::as_array);
    if requirements.is_some_and(|list| !list.is_empty()) {
        return violation("it has mandatory requirements".to_owned());
    }
    match Token::find(metadata) {
        Ok(Some(_)) => {}
        Ok(None) => return violation(format!("it has no {TOKEN_TYPE} token")),
        Err(e) => return violation(format!("its {TOKEN_TYPE} token cannot be read: {e}")),
    }
    for (id, keyslot) in section("keyslots").into_iter().flatten() {
        let encryption = keyslot.pointer("/area/encryption").cloned().unwrap_or_default();
        if serde_json::from_value::<Cipher>(encryption.clone()).is_err() {
            return violation(format!("keyslot {id} is encrypted with '{encryption}'"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn token() -> Token {
        Token::new(WrappedKey::new(vec![1, 2, 3]).unwrap(), "arn:aws:kms:x".into(), Some("i-1".into()))
    }

    fn header() -> Value {
        json!({
            "keyslots": {"0": {"type": "luks2", "area": {"encryption": "aes-xts-plain64"}}},
            "tokens": {"0": token()},
            "segments": {"0": {"type": "crypt", "offset": "16777216", "size": "dynamic", "encryption": "aes-xts-plain64"}},
            "digests": {},
            "config": {"json_size": "12288"},
        })
    }

    #[test]
    fn a_token_has_the_fields_that_break_glass_needs() {
        let json = serde_json::to_value(token()).unwrap();
        assert_eq!(
            json,
            json!({"type": "luks-agent-awskms", "keyslots": [], "version": 1, "wrapped_key": "AQID",
                   "key_arn": "arn:aws:kms:x", "instance_id": "i-1"})
        );
        assert_eq!(Token::find(&header()).unwrap(), Some(token()));
    }

    #[test]
    fn the_header_that_we_make_passes() {
        assert_eq!(check_header(&header()), Ok(()));
    }

    #[test]
    fn tampered_headers_are_refused() {
        let cases: [(&str, Value); 10] = [
            ("/segments/0/encryption", json!("cipher_null-ecb")),
            ("/segments/0/encryption", json!("aes-cbc-plain")),
            ("/segments/0/type", json!("linear")),
            ("/segments/0/offset", json!("4096")),
            ("/segments/0/size", json!("512")),
            ("/segments", json!({})),
            ("/segments", json!({"0": {}, "1": {}})),
            ("/tokens", json!({})),
            ("/keyslots/0/area/encryption", json!("cipher_null")),
            ("/config", json!({"requirements": {"mandatory": ["online-reencrypt-v2"]}})),
        ];
        for (pointer, value) in cases {
            let mut metadata = header();
            *metadata.pointer_mut(pointer).unwrap() = value;
            assert!(check_header(&metadata).is_err(), "{pointer}");
        }
        let mut metadata = header();
        metadata["segments"]["0"]["integrity"] = json!({"type": "none"});
        assert!(check_header(&metadata).is_err());
    }
}
