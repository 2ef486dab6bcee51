//! The agent's LUKS2 token.
//!
//! With it a volume can be recovered without the boot volume: it holds the wrapped key and names the KMS key that unwraps it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::key::WrappedKey;

/// Token type. Types that start with `luks2-` are cryptsetup's own (LUKS2 on-disk format, section 3.3).
pub const TOKEN_TYPE: &str = "luks-agent-awskms";
/// Subsystem label of the header, by which blkid and udev recognise volumes of luks-agent.
pub const SUBSYSTEM: &str = "luks-agent";

/// The token in the JSON area of a header.
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
    /// The instance that made the volume, if there was an instance metadata service.
    pub instance_id: Option<String>,
}

impl Token {
    /// Makes a token that is not assigned to a keyslot yet.
    pub fn new(wrapped_key: WrappedKey, key_arn: String, instance_id: Option<String>) -> Self {
        Self { kind: TOKEN_TYPE.to_owned(), keyslots: Vec::new(), version: 1, wrapped_key, key_arn, instance_id }
    }

    /// Finds the first luks-agent token in LUKS2 metadata.
    ///
    /// # Errors
    /// If this release cannot read it. The volume belongs to the agent all the same.
    pub fn find(metadata: &Value) -> Result<Option<Self>, serde_json::Error> {
        ours(metadata).next().map(|(_, token)| Self::deserialize(token)).transpose()
    }

    /// Returns the number of that token.
    pub fn find_id(metadata: &Value) -> Option<u32> {
        ours(metadata).next().and_then(|(id, _)| id.parse().ok())
    }
}

pub(super) fn ours(metadata: &Value) -> impl Iterator<Item = (&String, &Value)> {
    let tokens = metadata.get("tokens").and_then(Value::as_object);
    tokens.into_iter().flatten().filter(|(_, token)| token.get("type").and_then(Value::as_str) == Some(TOKEN_TYPE))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn token() -> Token {
        Token::new(WrappedKey::new(vec![1, 2, 3]).unwrap(), "arn:aws:kms:x".into(), Some("i-1".into()))
    }

    #[test]
    fn a_token_has_the_fields_that_break_glass_needs() {
        let json = serde_json::to_value(token()).unwrap();
        assert_eq!(
            json,
            json!({"type": "luks-agent-awskms", "keyslots": [], "version": 1, "wrapped_key": "AQID",
                   "key_arn": "arn:aws:kms:x", "instance_id": "i-1"})
        );
        assert_eq!(
            Token::find(&json!({"tokens": {"0": {"type": "luks2-keyring"}, "1": token()}})).unwrap(),
            Some(token())
        );
    }
}
