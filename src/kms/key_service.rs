//! The key service as the agent uses it.

use std::future::Future;

use super::error::KmsError;
use crate::key::{DataKey, WrappedKey};

/// A new data key.
#[derive(Debug)]
pub struct GeneratedKey {
    /// The plaintext.
    pub data_key: DataKey,
    /// The data key, encrypted under the KMS key.
    pub wrapped_key: WrappedKey,
    /// ARN of the KMS key that encrypted it, whatever alias or ID is configured.
    pub key_arn: String,
}

/// A data key that was wrapped again.
#[derive(Debug)]
pub struct RewrappedKey {
    /// The data key, encrypted under the other KMS key.
    pub wrapped_key: WrappedKey,
    /// ARN of that KMS key.
    pub key_arn: String,
}

/// The requests to a key service; the tests of `apply` use a fake.
pub trait KeyService {
    /// Generates the data key of the node with the configured KMS key, after checking that the KMS key may be used.
    ///
    /// That is one `DescribeKey`, then one `GenerateDataKey` of `AES_256` without an encryption context.
    ///
    /// # Errors
    /// [`KmsError`], after the retries of its class.
    fn generate(&self) -> impl Future<Output = Result<GeneratedKey, KmsError>>;

    /// Unwraps a data key by one `Decrypt` without an encryption context.
    ///
    /// `key_id` is the ARN from [`GeneratedKey`]. A response from another KMS key is an error, except from a replica
    /// of the same multi-Region key in another Region.
    ///
    /// # Errors
    /// [`KmsError`], after the retries of its class.
    fn unwrap(&self, wrapped: &WrappedKey, key_id: &str) -> impl Future<Output = Result<DataKey, KmsError>>;

    /// Wraps a data key with another KMS key, `to`, after checking that this key may be used. The plaintext does not leave the service.
    ///
    /// That is one `DescribeKey`, then one `ReEncrypt` without encryption contexts.
    ///
    /// # Errors
    /// [`KmsError`], after the retries of its class; also if both keys are in different Regions.
    fn rewrap(
        &self,
        wrapped: &WrappedKey,
        key_id: &str,
        to: &str,
    ) -> impl Future<Output = Result<RewrappedKey, KmsError>>;
}
