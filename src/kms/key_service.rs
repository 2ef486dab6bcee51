//! The key service as the agent uses it.

use std::future::Future;

use super::error::KmsError;
use crate::key::{DataKey, KeySource, Provider, WrappedKey};

/// A new data key.
#[derive(Debug)]
pub struct GeneratedKey {
    /// The plaintext.
    pub data_key: DataKey,
    /// The key service that generated it.
    pub provider: Provider,
    /// The data key, wrapped.
    pub wrapped_key: WrappedKey,
    /// The key that wrapped it, as [`KeySource::key_arn`], whatever alias or ID is configured.
    pub key_arn: String,
}

impl GeneratedKey {
    /// Returns its wrapped key, and who unwraps it.
    pub fn source(&self) -> KeySource {
        let Self { provider, wrapped_key, key_arn, .. } = self;
        KeySource { provider: *provider, wrapped_key: wrapped_key.clone(), key_arn: key_arn.clone() }
    }
}

/// A data key that was wrapped again.
#[derive(Debug)]
pub struct RewrappedKey {
    /// The data key, encrypted under the other KMS key.
    pub wrapped_key: WrappedKey,
    /// ARN of that KMS key.
    pub key_arn: String,
}

/// The requests to key services; the tests of `apply` use a fake.
pub trait KeyService {
    /// Generates the data key of the node with the configured provider and key, after checking that the key may be used.
    ///
    /// With AWS KMS, that is one `DescribeKey`, then one `GenerateDataKey` of `AES_256` without an encryption context. If KMS throttles
    /// `DescribeKey`, it is not repeated, and KMS alone checks the key.
    ///
    /// # Errors
    /// [`KmsError`], after the retries of its class.
    fn generate(&self) -> impl Future<Output = Result<GeneratedKey, KmsError>>;

    /// Unwraps a data key. The provider of the source decides which key service does it.
    ///
    /// With AWS KMS, that is one `Decrypt` without an encryption context. A response from another key is an error, except
    /// from a replica of the same multi-Region key in another Region.
    ///
    /// # Errors
    /// [`KmsError`], after the retries of its class.
    fn unwrap(&self, source: &KeySource) -> impl Future<Output = Result<DataKey, KmsError>>;

    /// Wraps a data key of AWS KMS with another KMS key, `to`, after checking that this key may be used. The plaintext does not leave
    /// the service.
    ///
    /// That is one `DescribeKey`, then one `ReEncrypt` without encryption contexts.
    ///
    /// # Errors
    /// [`KmsError`], after the retries of its class; also if both keys are in different Regions, or another provider wrapped the data
    /// key.
    fn rewrap(&self, source: &KeySource, to: &str) -> impl Future<Output = Result<RewrappedKey, KmsError>>;
}
