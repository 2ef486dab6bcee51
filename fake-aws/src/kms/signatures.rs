//! The operations of asymmetric keys: `Sign` and `GetPublicKey`.

use std::fmt;
use std::sync::{Arc, PoisonError};

use aws_lc_rs::digest::{self, Digest, SHA256, SHA384};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RSA_PSS_SHA256, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::error::{Answer, KmsError};
use super::parameters::{blob, refuse_dry_run, text};
use super::registry::Kms;
use crate::key::{Key, KeyKind};

/// The key pair of an asymmetric key.
pub(super) enum KeyPair {
    Ecdsa(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyPair(..)")
    }
}

impl KeyPair {
    /// Makes a key pair; `None` for keys without one.
    fn generate(kind: KeyKind) -> Result<Option<Self>, Unspecified> {
        Ok(Some(match kind {
            KeyKind::Symmetric | KeyKind::Hmac => return Ok(None),
            KeyKind::Rsa | KeyKind::RsaForSignatures => Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048)?),
            KeyKind::Ecc => Self::Ecdsa(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)?),
            KeyKind::Ecc384 => Self::Ecdsa(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING)?),
        }))
    }

    fn public_key(&self) -> Result<PublicKeyX509Der<'static>, Unspecified> {
        match self {
            Self::Ecdsa(pair) => pair.public_key().as_der(),
            Self::Rsa(pair) => pair.public_key().as_der(),
        }
    }

    fn sign(&self, algorithm: &str, digest: &Digest) -> Result<Vec<u8>, Unspecified> {
        match self {
            Self::Ecdsa(pair) => Ok(pair.sign_digest(digest)?.as_ref().to_vec()),
            Self::Rsa(pair) => {
                let padding = if algorithm.starts_with("RSASSA_PSS") { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign_digest(padding, digest, &mut signature)?;
                Ok(signature)
            }
        }
    }
}

impl Kms {
    pub(super) fn sign(&self, body: &Value) -> Answer {
        let key = self.target(body, "KeyId", "Sign")?;
        let message = blob(body, "Message", 4096)?;
        let algorithm = text(body, "SigningAlgorithm")?;
        self.available(&key)?;
        let (kind, algorithms) = key.kind.algorithms();
        if kind != "SigningAlgorithms" {
            return Err(self.wrong_usage(&key, "Sign"));
        }
        if !algorithms.contains(&algorithm) {
            let message = format!("Algorithm {algorithm} is incompatible with key spec {}.", key.kind.key_spec());
            return Err(KmsError::new("InvalidKeyUsageException", message));
        }
        let hash = if algorithm.ends_with("SHA_384") { &SHA384 } else { &SHA256 };
        let digest = match body.get("MessageType").and_then(Value::as_str) {
            None | Some("RAW") => digest::digest(hash, &message),
            Some("DIGEST") => Digest::import_less_safe(&message, hash)
                .map_err(|_| KmsError::validation(format!("Digest is invalid length for algorithm {algorithm}.")))?,
            Some(other) => return Err(KmsError::validation(format!("unknown MessageType {other}"))),
        };
        refuse_dry_run(body)?;
        let signature = self.pair(&key)?.sign(algorithm, &digest).map_err(KmsError::internal)?;
        Ok(json!({
            "KeyId": self.arn(&key.id),
            "Signature": BASE64.encode(signature),
            "SigningAlgorithm": algorithm,
        }))
    }

    pub(super) fn get_public_key(&self, body: &Value) -> Answer {
        let key = self.target(body, "KeyId", "GetPublicKey")?;
        self.available(&key)?;
        let public_key = self.pair(&key)?.public_key().map_err(KmsError::internal)?;
        let (kind, algorithms) = key.kind.algorithms();
        let mut answer = json!({
            "CustomerMasterKeySpec": key.kind.key_spec(),
            "KeyId": self.arn(&key.id),
            "KeySpec": key.kind.key_spec(),
            "KeyUsage": key.kind.usage(),
            "PublicKey": BASE64.encode(public_key.as_ref()),
        });
        answer[kind] = json!(algorithms);
        Ok(answer)
    }

    /// Returns the key pair of a key, which is made the first time.
    fn pair(&self, key: &Key) -> Result<Arc<KeyPair>, KmsError> {
        let mut pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pair) = pairs.get(&key.id) {
            return Ok(Arc::clone(pair));
        }
        let pair = KeyPair::generate(key.kind).map_err(KmsError::internal)?;
        let unsupported = || KmsError::new("UnsupportedOperationException", format!("{} has no key pair.", key.id));
        let pair = Arc::new(pair.ok_or_else(unsupported)?);
        pairs.insert(key.id.clone(), Arc::clone(&pair));
        Ok(pair)
    }
}
