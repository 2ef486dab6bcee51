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
/// How the names of Regions begin that are not in the partition `aws`, and the partition that they are in.
const PARTITIONS: [(&str, &str); 7] = [
    ("cn-", "aws-cn"),
    ("us-gov-", "aws-us-gov"),
    ("us-iso-", "aws-iso"),
    ("us-isob-", "aws-iso-b"),
    ("eu-isoe-", "aws-iso-e"),
    ("us-isof-", "aws-iso-f"),
    ("eusc-", "aws-eusc"),
];

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

    /// Whether its key is named as KMS names keys: `arn:PARTITION:kms:REGION:ACCOUNT:key/ID`, with a Region of that partition.
    ///
    /// Anybody who can write to the disk can write the token, and the Region becomes part of the name of the host that is asked.
    pub fn names_a_kms_key(&self) -> bool {
        let word = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let [arn, partition, kms, region, account, key] = self.key_arn.split(':').collect::<Vec<_>>()[..] else {
            return false;
        };
        (arn, kms) == ("arn", "kms")
            && partition_of(region) == Some(partition)
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

/// Returns the partition that a Region is in. `None` if no Region is named like this: lower-case words joined by hyphens, and a number.
fn partition_of(region: &str) -> Option<&'static str> {
    let (words, number) = region.rsplit_once('-')?;
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase());
    let is_region = words.contains('-')
        && words.split('-').all(is_word)
        && (1..=2).contains(&number.len())
        && number.bytes().all(|b| b.is_ascii_digit());
    let of_others = PARTITIONS.iter().find(|(prefix, _)| region.starts_with(prefix));
    is_region.then(|| of_others.map_or("aws", |(_, partition)| partition))
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
        for (partition, region) in [
            ("aws", "ap-southeast-7"),
            ("aws", "mx-central-1"),
            ("aws-cn", "cn-north-1"),
            ("aws-us-gov", "us-gov-east-1"),
            ("aws-iso", "us-iso-east-1"),
            ("aws-iso-b", "us-isob-east-1"),
            ("aws-iso-e", "eu-isoe-west-1"),
            ("aws-iso-f", "us-isof-south-1"),
            ("aws-eusc", "eusc-de-east-1"),
        ] {
            let arn = |partition: &str| format!("arn:{partition}:kms:{region}:111122223333:key/1");
            assert!(named(&arn(partition)), "{region}");
            let others = ["aws", "aws-cn", "aws-iso", "aws-us-gov", "aws-made-up", ""];
            for other in others.into_iter().filter(|other| *other != partition) {
                assert!(!named(&arn(other)), "{region} in {other}");
            }
        }
        for region in
            ["s3", "us-east", "us-1", "US-EAST-1", "us--east-1", "-us-east-1", "us-east-", "us-east-123", "us-e4st-1"]
        {
            assert!(!named(&format!("arn:aws:kms:{region}:111122223333:key/1")), "{region}");
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
