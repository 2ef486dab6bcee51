//! KMS keys, and how they wrap data keys.
//!
//! The layout of a wrapped key is `version (1) | length of key id (1) | key id | check (8) | nonce (12) | ciphertext and tag`.
//! The cipher is AES-256-GCM. Its associated data is everything before the nonce, followed by the encryption context. `check`
//! is a MAC over the fields before it, so that a damaged key id is an invalid ciphertext and not an unknown key.

use std::collections::BTreeMap;
use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::{hmac, rand};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// An encryption context, in the order in which it is authenticated.
pub(crate) type Context = BTreeMap<String, String>;

const VERSION: u8 = 1;
const CHECK_LEN: usize = 8;
const NONCE_LEN: usize = 12;

/// The state of a key. The names are those of the KMS API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum KeyState {
    #[default]
    Enabled,
    Disabled,
    PendingDeletion,
    PendingImport,
    Creating,
    Updating,
    Unavailable,
}

/// The manager of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum KeyManager {
    /// An AWS managed key such as `aws/ebs`: the caller may describe it but not use it.
    Aws,
    /// A customer managed key.
    #[default]
    Customer,
}

/// A key spec and what it is for: `GenerateDataKey` accepts the first and refuses the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum KeyKind {
    /// Symmetric, encrypts and decrypts.
    #[default]
    #[serde(rename = "SYMMETRIC_DEFAULT")]
    Symmetric,
    /// RSA for encryption.
    #[serde(rename = "RSA_2048")]
    Rsa,
    /// RSA for signatures. The name is not one of KMS, which has the same spec for both.
    #[serde(rename = "RSA_2048_SIGN_VERIFY")]
    RsaForSignatures,
    /// Elliptic curve for signatures.
    #[serde(rename = "ECC_NIST_P256")]
    Ecc,
    /// A longer elliptic curve for signatures.
    #[serde(rename = "ECC_NIST_P384")]
    Ecc384,
    /// HMAC.
    #[serde(rename = "HMAC_256")]
    Hmac,
}

impl KeyKind {
    pub(crate) fn key_spec(self) -> &'static str {
        match self {
            Self::Symmetric => "SYMMETRIC_DEFAULT",
            Self::Rsa | Self::RsaForSignatures => "RSA_2048",
            Self::Ecc => "ECC_NIST_P256",
            Self::Ecc384 => "ECC_NIST_P384",
            Self::Hmac => "HMAC_256",
        }
    }

    pub(crate) fn usage(self) -> &'static str {
        match self {
            Self::Symmetric | Self::Rsa => "ENCRYPT_DECRYPT",
            Self::RsaForSignatures | Self::Ecc | Self::Ecc384 => "SIGN_VERIFY",
            Self::Hmac => "GENERATE_VERIFY_MAC",
        }
    }

    pub(crate) fn algorithms(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::Symmetric => ("EncryptionAlgorithms", &["SYMMETRIC_DEFAULT"]),
            Self::Rsa => ("EncryptionAlgorithms", &["RSAES_OAEP_SHA_1", "RSAES_OAEP_SHA_256"]),
            Self::RsaForSignatures => ("SigningAlgorithms", &["RSASSA_PKCS1_V1_5_SHA_256", "RSASSA_PSS_SHA_256"]),
            Self::Ecc => ("SigningAlgorithms", &["ECDSA_SHA_256"]),
            Self::Ecc384 => ("SigningAlgorithms", &["ECDSA_SHA_384"]),
            Self::Hmac => ("MacAlgorithms", &["HMAC_SHA_256"]),
        }
    }
}

/// A KMS key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// The key id, a UUID or `mrk-...`; at most 255 bytes.
    pub id: String,
    /// Alias names, each with the prefix `alias/`.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// The manager.
    #[serde(default)]
    pub manager: KeyManager,
    /// The key spec.
    #[serde(default)]
    pub kind: KeyKind,
    /// The state.
    #[serde(default)]
    pub state: KeyState,
    /// When the key was created.
    #[serde(default)]
    pub created: Timestamp,
}

impl Key {
    /// The id of the key in [`Key::default`].
    pub const DEFAULT_ID: &str = "1234abcd-12ab-34cd-56ef-1234567890ab";

    /// Creates an enabled, symmetric, customer managed key without an alias.
    pub fn new(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            aliases: Vec::new(),
            manager: KeyManager::Customer,
            kind: KeyKind::Symmetric,
            state: KeyState::Enabled,
            created: Timestamp::UNIX_EPOCH,
        }
    }

    /// Adds an alias. The name includes the prefix `alias/`.
    #[must_use]
    pub fn alias(mut self, alias: impl Into<String>) -> Self {
        self.aliases.push(alias.into());
        self
    }
}

impl Default for Key {
    fn default() -> Self {
        Self::new(Self::DEFAULT_ID).alias("alias/luks-agent")
    }
}

/// The secret from which an endpoint derives all its key material.
pub(crate) struct Root(hmac::Key);

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Root(..)")
    }
}

impl Root {
    /// Derives the secret from a seed, the same in every process. Without a seed it is random.
    pub(crate) fn new(seed: Option<&str>) -> Result<Self, Unspecified> {
        let key = match seed {
            Some(seed) => hmac::Key::new(hmac::HMAC_SHA256, seed.as_bytes()),
            None => {
                let mut bytes = [0; 32];
                rand::fill(&mut bytes)?;
                hmac::Key::new(hmac::HMAC_SHA256, &bytes)
            }
        };
        Ok(Self(key))
    }

    fn derive(&self, purpose: &str, data: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(purpose.as_bytes());
        context.update(&[0]);
        context.update(data);
        context.sign()
    }

    fn cipher(&self, key_id: &str) -> Result<RandomizedNonceKey, Unspecified> {
        RandomizedNonceKey::new(&AES_256_GCM, self.derive("material", key_id.as_bytes()).as_ref())
    }

    /// Returns the id of the key material: 64 hexadecimal digits.
    pub(crate) fn material_id(&self, key_id: &str) -> String {
        let tag = self.derive("material id", key_id.as_bytes());
        tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Wraps `plaintext` under the key `key_id`.
    pub(crate) fn seal(&self, key_id: &str, context: &Context, plaintext: &[u8]) -> Result<Vec<u8>, Unspecified> {
        let id_len = u8::try_from(key_id.len()).map_err(|_| Unspecified)?;
        let mut blob = vec![VERSION, id_len];
        blob.extend(key_id.as_bytes());
        let check = self.derive("check", &blob);
        blob.extend(&check.as_ref()[..CHECK_LEN]);
        let mut sealed = plaintext.to_vec();
        let aad = Aad::from(associated_data(&blob, context));
        let nonce = self.cipher(key_id)?.seal_in_place_append_tag(aad, &mut sealed)?;
        blob.extend(nonce.as_ref());
        blob.extend(sealed);
        Ok(blob)
    }

    /// Returns the id of the key that wrapped `blob`. Fails if this endpoint did not make the blob.
    pub(crate) fn key_id_of<'blob>(&self, blob: &'blob [u8]) -> Result<&'blob str, Unspecified> {
        let (head, _) = blob.split_at_checked(head_len(blob)).ok_or(Unspecified)?;
        let (named, check) = head.split_at_checked(head.len() - CHECK_LEN).ok_or(Unspecified)?;
        if named.first() != Some(&VERSION) || self.derive("check", named).as_ref()[..CHECK_LEN] != *check {
            return Err(Unspecified);
        }
        std::str::from_utf8(&named[2..]).map_err(|_| Unspecified)
    }

    /// Unwraps `blob`. Fails if it is damaged or if the context differs.
    pub(crate) fn open(&self, blob: &[u8], context: &Context) -> Result<Vec<u8>, Unspecified> {
        let key_id = self.key_id_of(blob)?;
        let (head, rest) = blob.split_at(head_len(blob));
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN).ok_or(Unspecified)?;
        let mut sealed = sealed.to_vec();
        let aad = Aad::from(associated_data(head, context));
        let nonce = Nonce::try_assume_unique_for_key(nonce)?;
        Ok(self.cipher(key_id)?.open_in_place(nonce, aad, &mut sealed)?.to_vec())
    }
}

fn head_len(blob: &[u8]) -> usize {
    2 + usize::from(blob.get(1).copied().unwrap_or(0)) + CHECK_LEN
}

fn associated_data(head: &[u8], context: &Context) -> Vec<u8> {
    let mut data = head.to_vec();
    for text in context.iter().flat_map(|(name, value)| [name, value]) {
        data.extend((text.len() as u64).to_be_bytes());
        data.extend(text.as_bytes());
    }
    data
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const PLAINTEXT: &[u8] = b"not really a key";

    fn context(pairs: &[(&str, &str)]) -> Context {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn only_the_same_seed_opens_a_blob_after_a_restart() {
        let blob = Root::new(Some("s")).unwrap().seal("k", &Context::new(), PLAINTEXT).unwrap();
        assert_eq!(Root::new(Some("s")).unwrap().open(&blob, &Context::new()).unwrap(), PLAINTEXT);
        Root::new(Some("t")).unwrap().open(&blob, &Context::new()).unwrap_err();
        Root::new(None).unwrap().open(&blob, &Context::new()).unwrap_err();
    }

    #[test]
    fn refuses_every_damaged_byte_and_every_truncated_blob() {
        let root = Root::new(None).unwrap();
        let blob = root.seal(Key::DEFAULT_ID, &Context::new(), PLAINTEXT).unwrap();
        for at in 0..blob.len() {
            let mut damaged = blob.clone();
            damaged[at] ^= 1;
            assert!(root.open(&damaged, &Context::new()).is_err(), "byte {at}");
            assert!(root.open(&blob[..at], &Context::new()).is_err(), "length {at}");
        }
    }

    #[test]
    fn opens_only_with_the_same_context() {
        let root = Root::new(None).unwrap();
        let given = context(&[("b", "2"), ("a", "1")]);
        let blob = root.seal("k", &given, PLAINTEXT).unwrap();
        assert_eq!(root.open(&blob, &context(&[("a", "1"), ("b", "2")])).unwrap(), PLAINTEXT);
        for other in [context(&[]), context(&[("a", "1")]), context(&[("a", "1b"), ("", "2")])] {
            assert!(root.open(&blob, &other).is_err(), "{other:?}");
        }
    }

    #[test]
    fn wrapping_twice_gives_two_blobs_without_the_plaintext() {
        let root = Root::new(Some("s")).unwrap();
        let (one, two) = (root.seal("k", &Context::new(), PLAINTEXT), root.seal("k", &Context::new(), PLAINTEXT));
        let one = one.unwrap();
        assert_ne!(one, two.unwrap());
        assert!(!one.windows(PLAINTEXT.len()).any(|window| window == PLAINTEXT));
    }
}
