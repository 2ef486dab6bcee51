//! Calls that find out whether the agent could do its work, and do none of it.

use aws_sdk_kms::error::ProvideErrorMetadata;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{DataKeySpec, DryRunModifierType};
use jiff::SignedDuration;

use super::client::{Asking, AwsKms, take_data_key};
use super::error::{KmsError, Operation};
use super::failure::{Failure, Tries};
use super::key_facts::{KeyState, check_kind, check_state, key_state};
use crate::key::WrappedKey;

/// The error code of a dry run that would have succeeded.
const WOULD_SUCCEED: &str = "DryRunOperationException";

/// What `DescribeKey` says about a KMS key.
#[derive(Debug)]
pub struct KeyDescription {
    /// Its ARN.
    pub arn: Option<String>,
    /// Why it is not the kind of key that the agent uses.
    pub kind: Result<(), KmsError>,
    /// Its state, and why it cannot be used in that state.
    pub state: (KeyState, Result<(), KmsError>),
}

impl AwsKms {
    /// Describes the configured KMS key.
    ///
    /// # Errors
    /// [`KmsError`], after the retries of its class.
    pub async fn describe_configured(&self) -> Result<KeyDescription, KmsError> {
        let asking = &self.asking(Operation::DescribeKey, &self.key_id);
        let key = self.retry(asking, || asking.describe()).await?;
        let explain = |failure: Failure| failure.into_error(asking.context(), Tries::ONE);
        Ok(KeyDescription {
            arn: key.arn().map(str::to_owned),
            kind: check_kind(&key).map_err(explain),
            state: (key_state(&key), check_state(&key).map_err(explain)),
        })
    }

    /// Checks that the agent may generate a data key, by a dry run.
    ///
    /// A service without dry runs, such as LocalStack, generates one: it is wiped, and its wrapped form returned.
    ///
    /// # Errors
    /// [`KmsError`], after the retries of its class.
    pub async fn try_generate(&self, key_id: &str) -> Result<Option<WrappedKey>, KmsError> {
        let asking = &self.asking(Operation::GenerateDataKey, key_id);
        self.retry(asking, || async {
            let call = asking.client.generate_data_key().key_id(key_id).key_spec(DataKeySpec::Aes256).dry_run(true);
            match call.send().await {
                Ok(mut answer) => {
                    take_data_key(answer.plaintext.take())?;
                    Ok(answer.ciphertext_blob.take().and_then(|blob| WrappedKey::new(blob.into_inner()).ok()))
                }
                Err(error) if error.code() == Some(WOULD_SUCCEED) => Ok(None),
                Err(error) => Err(asking.explain(Failure::of(&error, asking.context())).await),
            }
        })
        .await
    }

    /// Checks that the data key can be unwrapped at the next boot, by this key or its configured replica, by a dry run of `Decrypt`.
    ///
    /// A service without dry runs, such as LocalStack, unwraps it; the result is wiped.
    ///
    /// # Errors
    /// [`KmsError`], after the retries of its class.
    pub async fn try_unwrap(&self, wrapped: &WrappedKey, key_id: &str) -> Result<(), KmsError> {
        let attempt = async |asking: &Asking<'_>| try_decrypt(asking, Some(wrapped)).await;
        self.ask_either(Operation::Decrypt, key_id, attempt).await
    }

    /// Checks that the agent may unwrap what this KMS key wrapped, by a dry run of `Decrypt` without a wrapped key.
    ///
    /// # Errors
    /// [`KmsError`], after the retries of its class; [`KmsError::is_invalid_request`] if the service does not know such dry runs.
    pub async fn try_unwrap_any(&self, key_id: &str) -> Result<(), KmsError> {
        let asking = &self.asking(Operation::Decrypt, key_id);
        self.retry(asking, || try_decrypt(asking, None)).await
    }

    /// Returns how far this node's clock is ahead of the service; `None` if nothing answered.
    pub fn clock_lead(&self) -> Option<SignedDuration> {
        self.clock.lead()
    }
}

/// Checks, once, that a key would unwrap this wrapped key, or whatever it has wrapped.
async fn try_decrypt(asking: &Asking<'_>, wrapped: Option<&WrappedKey>) -> Result<(), Failure> {
    let call = asking.client.decrypt().key_id(asking.key).dry_run(true);
    let call = match wrapped {
        Some(wrapped) => call.ciphertext_blob(Blob::new(wrapped.as_bytes())),
        None => call.dry_run_modifiers(DryRunModifierType::IgnoreCiphertext),
    };
    match call.send().await {
        Ok(mut answer) => take_data_key(answer.plaintext.take()).map(|_| ()),
        Err(error) if error.code() == Some(WOULD_SUCCEED) => Ok(()),
        Err(error) => Err(asking.explain(Failure::of(&error, asking.context())).await),
    }
}
