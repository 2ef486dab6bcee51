//! The agent's LUKS2 token.
//!
//! With it a volume can be recovered without the boot volume: it holds the wrapped key and names the KMS key that unwraps it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::key::{KeySource, Provider, WrappedKey};

/// Token type of a key that AWS KMS unwraps. Types that start with `luks2-` are cryptsetup's own (LUKS2 on-disk format, section 3.3).
pub const TOKEN_TYPE: &str = "luks-agent-awskms";
/// Token type of a key that the customer's own program unwraps.
pub const EXEC_TOKEN_TYPE: &str = "luks-agent-exec";
/// Subsystem label of the header, by which blkid and udev recognise volumes of luks-agent.
pub const SUBSYSTEM: &str = "luks-agent";

/// The token in the JSON area of a header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// [`TOKEN_TYPE`] or [`EXEC_TOKEN_TYPE`].
    #[serde(rename = "type")]
    pub kind: String,
    /// The keyslots that the wrapped key opens, as LUKS2 writes them: decimal strings.
    pub keyslots: Vec<String>,
    /// Version of this token's fields.
    pub version: u32,
    /// The data key, wrapped.
    pub wrapped_key: WrappedKey,
    /// The key that unwraps it, as [`KeySource::key_arn`].
    pub key_arn: String,
    /// The instance that made the volume, if there was an instance metadata service.
    pub instance_id: Option<String>,
    /// Whether its keyslots were found to be the agent's and are about to be removed. libcryptsetup overwrites a keyslot before it
    /// takes it out of the header, so an interrupted removal leaves one that nothing recognises any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub removing: bool,
}

impl Token {
    /// Makes a token that is not assigned to a keyslot yet.
    pub fn new(source: KeySource, instance_id: Option<String>) -> Self {
        let KeySource { provider, wrapped_key, key_arn } = source;
        let kind = match provider {
            Provider::AwsKms => TOKEN_TYPE,
            Provider::Exec => EXEC_TOKEN_TYPE,
        };
        Self {
            kind: kind.to_owned(),
            keyslots: Vec::new(),
            version: 1,
            wrapped_key,
            key_arn,
            instance_id,
            removing: false,
        }
    }

    /// Returns the key service that unwraps its key.
    pub fn provider(&self) -> Provider {
        if self.kind == EXEC_TOKEN_TYPE { Provider::Exec } else { Provider::AwsKms }
    }

    /// Returns its wrapped key, and who unwraps it.
    pub fn source(&self) -> KeySource {
        let Self { wrapped_key, key_arn, .. } = self.clone();
        KeySource { provider: self.provider(), wrapped_key, key_arn }
    }

    /// Whether its key is named as KMS names keys: `arn:PARTITION:kms:REGION:ACCOUNT:key/ID`.
    ///
    /// Anybody who can write to the disk can write the token, and the ARN decides which endpoint is asked.
    pub fn names_a_kms_key(&self) -> bool {
        let word = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let [arn, partition, kms, region, account, key] = self.key_arn.split(':').collect::<Vec<_>>()[..] else {
            return false;
        };
        (arn, kms) == ("arn", "kms")
            && [partition, region].into_iter().all(word)
            && account.len() == 12
            && account.bytes().all(|b| b.is_ascii_digit())
            && key.strip_prefix("key/").is_some_and(word)
            && self.key_arn.len() <= 256
    }

    /// Returns how many luks-agent tokens are in LUKS2 metadata.
    pub(crate) fn count(metadata: &Value) -> usize {
        ours(metadata).count()
    }

    /// Finds the first luks-agent token in LUKS2 metadata.
    ///
    /// # Errors
    /// If this release cannot read it. The volume belongs to the agent all the same.
    pub fn find(metadata: &Value) -> Result<Option<Self>, serde_json::Error> {
        ours(metadata).next().map(|(_, token)| Self::deserialize(token)).transpose()
    }

    /// Returns the token of this key, with its number.
    pub(crate) fn find_of(metadata: &Value, source: &KeySource) -> Option<(u32, Self)> {
        ours(metadata).find_map(|(id, token)| {
            let token = Self::deserialize(token).ok().filter(|token| token.source() == *source)?;
            Some((id.parse().ok()?, token))
        })
    }
}

pub(super) fn ours(metadata: &Value) -> impl Iterator<Item = (&String, &Value)> {
    let tokens = metadata.get("tokens").and_then(Value::as_object);
    tokens.into_iter().flatten().filter(|(_, token)| {
        token.get("type").and_then(Value::as_str).is_some_and(|kind| [TOKEN_TYPE, EXEC_TOKEN_TYPE].contains(&kind))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn token() -> Token {
        let source = KeySource::aws_kms(WrappedKey::new(vec![1, 2, 3]).unwrap(), "arn:aws:kms:x");
        Token::new(source, Some("i-1".into()))
    }

    #[test]
    fn an_arn_of_a_key_is_told_from_what_somebody_made_up() {
        let named =
            |arn: &str| Token::new(KeySource::aws_kms(WrappedKey::new(vec![1]).unwrap(), arn), None).names_a_kms_key();
        for arn in [
            "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
            "arn:aws-us-gov:kms:us-gov-west-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab",
        ] {
            assert!(named(arn), "{arn}");
        }
        for arn in [
            "",
            "alias/nodes",
            "arn:aws:kms:us-east-1:111122223333:alias/nodes",
            "arn:aws:s3:us-east-1:111122223333:key/1",
            "arn:aws:kms:us-east-1.example.com/:111122223333:key/1",
            "arn:aws:kms::111122223333:key/1",
            "arn:aws:kms:us-east-1:11112222333x:key/1",
            "arn:aws:kms:us-east-1:111122223333:key/",
            "arn:aws:kms:us-east-1:111122223333:key/1:2",
            "arn:aws:kms:us-east-1:111122223333:key/\u{1b}[2J",
        ] {
            assert!(!named(arn), "{arn}");
        }
        assert!(!named(&format!("arn:aws:kms:us-east-1:111122223333:key/{}", "a".repeat(256))));
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
