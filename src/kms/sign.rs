//! Signs with an asymmetric KMS key.

use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{KeyMetadata, KeySpec, KeyUsageType, MessageType, SigningAlgorithmSpec};
use sha2::{Digest, Sha256, Sha384};

use super::class::Class;
use super::client::AwsKms;
use super::error::{KmsError, Operation};
use super::failure::Failure;
use super::key_facts::{check_state, region_of};
use super::setup::Options;
use crate::config;

const SETTINGS: &str = "correct audit.signing_key, kms.region or kms.endpoint_url";
const WANTED: &str = "set audit.signing_key to an asymmetric key for SIGN_VERIFY (ECC_NIST_P256, ECC_NIST_P384, RSA_2048, RSA_3072 or RSA_4096)";

/// A signature of KMS.
#[derive(Debug)]
pub struct KmsSignature {
    /// ARN of the key.
    pub key_arn: String,
    /// The signature: with an elliptic curve, as ASN.1 in DER.
    pub bytes: Vec<u8>,
}

/// How a key signs. The kind of the key decides, so whoever has the public key knows it too.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Signing {
    key_arn: String,
    algorithm: SigningAlgorithmSpec,
}

impl AwsKms {
    /// Connects like [`AwsKms::connect`], for a key that signs.
    ///
    /// # Errors
    /// As [`AwsKms::connect`].
    pub async fn connect_for_signing(config: &config::Kms, key_id: &str, imds: config::Imds) -> Result<Self, KmsError> {
        // kms.region is that of the key for volumes, and this key may be in another
        let region = config.region.clone().filter(|_| region_of(key_id).is_none());
        let config = config::Kms { key_id: Some(key_id.to_owned()), region, ..config.clone() };
        Self::connect_with(&config, Options { imds, ..Options::default() }).await
    }

    /// Signs a message. KMS gets its digest, because it takes no message of more than 4096 bytes.
    ///
    /// That is one `DescribeKey`, then one `Sign`.
    ///
    /// # Errors
    /// [`KmsError`], after the retries of its class; also if the key is not for signatures.
    pub async fn sign(&self, message: &[u8]) -> Result<KmsSignature, KmsError> {
        let asking = &self.asking(Operation::DescribeKey, &self.key_id);
        let described = self.retry(asking, || async { signing(&asking.describe().await.map_err(about_settings)?) });
        let Signing { key_arn, algorithm } = described.await?;
        let digest = if algorithm == SigningAlgorithmSpec::EcdsaSha384 {
            Sha384::digest(message).to_vec()
        } else {
            Sha256::digest(message).to_vec()
        };
        let asking = &self.asking(Operation::Sign, &key_arn);
        let bytes = self
            .retry(asking, || async {
                let call = asking.client.sign().key_id(&key_arn).signing_algorithm(algorithm.clone());
                let call = call.message_type(MessageType::Digest).message(Blob::new(digest.clone()));
                let answer = match call.send().await {
                    Ok(answer) => answer,
                    Err(error) => {
                        return Err(about_settings(asking.explain(Failure::of(&error, asking.context())).await));
                    }
                };
                asking.expect_key(answer.key_id())?;
                answer.signature.map(Blob::into_inner).filter(|bytes| !bytes.is_empty()).ok_or_else(unsigned)
            })
            .await?;
        Ok(KmsSignature { key_arn, bytes })
    }
}

/// Returns how a key signs, or refuses one that is not for signatures or cannot be used now.
fn signing(key: &KeyMetadata) -> Result<Signing, Failure> {
    let algorithm = match (key.key_usage(), key.key_spec()) {
        (Some(KeyUsageType::SignVerify), Some(KeySpec::EccNistP256)) => SigningAlgorithmSpec::EcdsaSha256,
        (Some(KeyUsageType::SignVerify), Some(KeySpec::EccNistP384)) => SigningAlgorithmSpec::EcdsaSha384,
        (Some(KeyUsageType::SignVerify), Some(KeySpec::Rsa2048 | KeySpec::Rsa3072 | KeySpec::Rsa4096)) => {
            SigningAlgorithmSpec::RsassaPkcs1V15Sha256
        }
        (usage, spec) => {
            let spec = spec.map_or("unknown spec", KeySpec::as_str);
            let usage = usage.map_or("unknown usage", KeyUsageType::as_str);
            let what = format!("the key signs no audit reports: it is {spec} for {usage}");
            return Err(Failure::new(Class::Configuration, what).with_remedy(WANTED));
        }
    };
    check_state(key)?;
    let key_arn = key.arn().ok_or_else(|| Failure::new(Class::Unexpected, "DescribeKey returned no ARN"))?;
    Ok(Signing { key_arn: key_arn.to_owned(), algorithm })
}

/// Names the settings of this key, and not those of the key for volumes.
fn about_settings(failure: Failure) -> Failure {
    if failure.class == Class::Configuration { failure.with_remedy(SETTINGS) } else { failure }
}

fn unsigned() -> Failure {
    Failure::new(Class::Unexpected, "Sign returned no signature")
}

#[cfg(test)]
mod tests {
    use aws_sdk_kms::types::KeyState;

    use super::*;

    fn key(spec: KeySpec, usage: KeyUsageType, state: KeyState) -> KeyMetadata {
        let key = KeyMetadata::builder().key_id("1").arn("arn:1").key_spec(spec).key_usage(usage).key_state(state);
        key.build().unwrap()
    }

    #[test]
    fn the_kind_of_the_key_decides_how_it_signs() {
        for (spec, algorithm) in [
            (KeySpec::EccNistP256, SigningAlgorithmSpec::EcdsaSha256),
            (KeySpec::EccNistP384, SigningAlgorithmSpec::EcdsaSha384),
            (KeySpec::Rsa2048, SigningAlgorithmSpec::RsassaPkcs1V15Sha256),
            (KeySpec::Rsa4096, SigningAlgorithmSpec::RsassaPkcs1V15Sha256),
        ] {
            let found = signing(&key(spec, KeyUsageType::SignVerify, KeyState::Enabled)).unwrap();
            assert_eq!(found, Signing { key_arn: "arn:1".to_owned(), algorithm });
        }
    }

    #[test]
    fn refuses_a_key_that_is_not_for_signatures_or_cannot_be_used() {
        for (spec, usage) in [
            (KeySpec::SymmetricDefault, KeyUsageType::EncryptDecrypt),
            (KeySpec::Rsa2048, KeyUsageType::EncryptDecrypt),
            (KeySpec::EccNistP256, KeyUsageType::KeyAgreement),
            (KeySpec::Hmac256, KeyUsageType::GenerateVerifyMac),
            (KeySpec::EccSecgP256K1, KeyUsageType::SignVerify),
        ] {
            let failure = signing(&key(spec.clone(), usage, KeyState::Enabled)).unwrap_err();
            assert_eq!(failure.class, Class::Configuration);
            assert!(failure.to_string().contains(spec.as_str()), "{failure}");
        }
        let disabled = signing(&key(KeySpec::EccNistP256, KeyUsageType::SignVerify, KeyState::Disabled)).unwrap_err();
        assert_eq!(disabled.class, Class::KeyState);
    }
}
