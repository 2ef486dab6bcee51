//! What the agent asks of a key service.

use std::future::Future;

use super::error::KmsError;
use crate::key::{DataKey, WrappedKey};

/// A new data key.
#[derive(Debug)]
pub struct GeneratedKey {
    /// The plaintext.
    pub data_key: DataKey,
    /// The same, wrapped by the KMS key.
    pub wrapped_key: WrappedKey,
    /// ARN of the KMS key that wrapped it, whatever alias or id was configured.
    pub key_arn: String,
}

/// What the agent asks of a key service; the tests of apply use a fake.
pub trait KeyService {
    /// Makes the node's data key with the configured KMS key, after making sure that this is a key that may be used:
    /// one `DescribeKey`, then one `GenerateDataKey` of `AES_256` without an encryption context.
    ///
    /// # Errors
    /// [`KmsError`], after the retries that its class deserves.
    fn generate(&self) -> impl Future<Output = Result<GeneratedKey, KmsError>>;

    /// Unwraps a data key: one `Decrypt`, without an encryption context. `key_id` is the ARN that [`GeneratedKey`] named;
    /// an answer from any other KMS key is an error, save another Region's replica of the same multi-Region key.
    ///
    /// # Errors
    /// [`KmsError`], after the retries that its class deserves.
    fn unwrap(&self, wrapped: &WrappedKey, key_id: &str) -> impl Future<Output = Result<DataKey, KmsError>>;
}
