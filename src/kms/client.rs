//! AWS KMS.

use aws_config::{Region, SdkConfig};
use aws_sdk_kms::Client;
use aws_sdk_kms::config::SharedHttpClient;
use aws_sdk_kms::error::ProvideErrorMetadata;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{DataKeySpec, KeyMetadata};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::class::Class;
use super::error::{Context, Failure, KmsError, Operation};
use super::http::limited;
use super::key_facts::{KeyState, check, key_state, region_of, same_key, usable};
use super::key_service::{GeneratedKey, KeyService};
use super::retry::{Limits, retry};
use super::setup::{self, Options};
use super::usage::{Meter, Usage};
use crate::config;
use crate::key::{DataKey, KeyError, WrappedKey};

/// AWS KMS, or what `kms.endpoint_url` puts in its place.
#[derive(Debug)]
pub struct AwsKms {
    config: config::Kms,
    sdk: SdkConfig,
    limits: Limits,
    /// `kms.deadline`, counted from [`AwsKms::connect`].
    deadline: Instant,
    meter: Meter,
}

impl AwsKms {
    /// Finds out the Region and where credentials come from; asks IMDS if nothing else names a Region, and KMS nothing.
    /// `kms.deadline` begins here and holds for all that is done with the value together.
    ///
    /// # Errors
    /// [`KmsError`] when no Region can be found, or when the configured one contradicts the key's ARN.
    pub async fn connect(config: &config::Kms) -> Result<Self, KmsError> {
        Self::connect_with(config, Options::default()).await
    }

    /// As [`AwsKms::connect`], with other time limits or credentials.
    ///
    /// # Errors
    /// As [`AwsKms::connect`].
    pub async fn connect_with(config: &config::Kms, options: Options) -> Result<Self, KmsError> {
        Self::connect_over(setup::https_client(), config, options).await
    }

    /// As [`AwsKms::connect_with`], over another HTTP client than the system's trust store and proxies ask for.
    ///
    /// # Errors
    /// As [`AwsKms::connect`].
    pub async fn connect_over(
        http: SharedHttpClient,
        config: &config::Kms,
        options: Options,
    ) -> Result<Self, KmsError> {
        let deadline = Instant::now() + config.deadline;
        let limits = options.limits.clone();
        let meter = Meter::default();
        let sdk = setup::sdk_config(limited(http), config, options, deadline, &meter).await?;
        Ok(Self { config: config.clone(), sdk, limits, deadline, meter })
    }

    /// The client for a key: an ARN names the Region to ask, and the one recorded in the state file need not be the
    /// configured key's.
    fn asking<'a>(&self, operation: Operation, key: &'a str) -> Asking<'a> {
        let configured = self.sdk.region().map(Region::as_ref).unwrap_or_default();
        let region = region_of(key).unwrap_or(configured).to_owned();
        let place = setup::place(&self.config, &region);
        let sdk = self.sdk.to_builder().region(Region::new(region)).build();
        Asking { client: Client::new(&sdk), operation, key, place }
    }

    async fn describe(&self, key: &str) -> Result<String, KmsError> {
        let asking = &self.asking(Operation::DescribeKey, key);
        self.retry(asking, || async { check(&asking.describe().await?) }).await
    }

    /// What KMS says of the state of a key; `None` where the caller may not ask.
    ///
    /// # Errors
    /// [`KmsError`], after the retries that its class deserves.
    pub async fn key_state(&self, key_id: &str) -> Result<Option<KeyState>, KmsError> {
        let asking = &self.asking(Operation::DescribeKey, key_id);
        // a policy that does not allow DescribeKey stays as it is
        let described = self.retry(asking, || async {
            match asking.describe().await {
                Ok(key) => Ok(Some(key_state(&key))),
                Err(failure) if failure.class == Class::Denied => Ok(None),
                Err(failure) => Err(failure),
            }
        });
        described.await
    }

    /// Whether the data key could be unwrapped at the next boot: a dry run of `Decrypt`. A service that knows no dry runs, as
    /// LocalStack, unwraps it; what it gives is wiped.
    ///
    /// # Errors
    /// [`KmsError`], after the retries that its class deserves.
    pub async fn try_unwrap(&self, wrapped: &WrappedKey, key_id: &str) -> Result<(), KmsError> {
        let asking = &self.asking(Operation::Decrypt, key_id);
        self.retry(asking, || async {
            let blob = Blob::new(wrapped.as_bytes());
            match asking.client.decrypt().key_id(key_id).ciphertext_blob(blob).dry_run(true).send().await {
                Ok(mut answer) => take_data_key(answer.plaintext.take()).map(|_| ()),
                Err(error) if error.code() == Some("DryRunOperationException") => Ok(()),
                Err(error) => Err(asking.explain(Failure::of(&error, asking.context())).await),
            }
        })
        .await
    }

    /// What was asked so far.
    pub fn usage(&self) -> Usage {
        self.meter.usage()
    }

    async fn retry<T, F>(&self, asking: &Asking<'_>, mut attempt: impl FnMut() -> F) -> Result<T, KmsError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let metered = || self.meter.call(asking.operation, attempt());
        retry(&self.limits, self.deadline, asking.operation, metered)
            .await
            .map_err(|(failure, tries)| failure.into_error(asking.context(), tries))
    }
}

impl KeyService for AwsKms {
    async fn generate(&self) -> Result<GeneratedKey, KmsError> {
        // what was checked is what is used, even if the alias is pointed elsewhere meanwhile
        let arn = self.describe(&self.config.key_id).await?;
        let asking = &self.asking(Operation::GenerateDataKey, &arn);
        let key = self
            .retry(asking, || async {
                let call = asking.client.generate_data_key().key_id(&arn).key_spec(DataKeySpec::Aes256);
                let mut answer = match call.send().await {
                    Ok(answer) => answer,
                    Err(error) => return Err(asking.explain(Failure::of(&error, asking.context())).await),
                };
                let data_key = take_data_key(answer.plaintext.take())?;
                let blob = answer.ciphertext_blob.take().map(Blob::into_inner).unwrap_or_default();
                let wrapped_key = WrappedKey::new(blob).map_err(|e| unexpected(&e))?;
                asking.expect_key(answer.key_id())?;
                Ok(GeneratedKey { data_key, wrapped_key, key_arn: arn.clone() })
            })
            .await?;
        tracing::info!(kms_key = %key.key_arn, "generated the data key with KMS key {}", key.key_arn);
        Ok(key)
    }

    async fn unwrap(&self, wrapped: &WrappedKey, key_id: &str) -> Result<DataKey, KmsError> {
        let asking = &self.asking(Operation::Decrypt, key_id);
        let key = self
            .retry(asking, || async {
                let call = asking.client.decrypt().key_id(key_id).ciphertext_blob(Blob::new(wrapped.as_bytes()));
                let mut answer = match call.send().await {
                    Ok(answer) => answer,
                    Err(error) => return Err(asking.explain(Failure::of(&error, asking.context())).await),
                };
                let data_key = take_data_key(answer.plaintext.take())?;
                asking.expect_key(answer.key_id())?;
                Ok(data_key)
            })
            .await?;
        tracing::info!(kms_key = key_id, "unwrapped the data key with KMS key {key_id}");
        Ok(key)
    }
}

/// One operation on one KMS key.
#[derive(Debug)]
struct Asking<'a> {
    client: Client,
    operation: Operation,
    key: &'a str,
    place: String,
}

impl Asking<'_> {
    fn context(&self) -> Context<'_> {
        Context { operation: self.operation, key: self.key, place: &self.place }
    }

    async fn describe(&self) -> Result<KeyMetadata, Failure> {
        let answer = self.client.describe_key().key_id(self.key).send().await;
        let answer = answer.map_err(|error| Failure::of(&error, self.context()))?;
        answer.key_metadata.ok_or_else(|| Failure::new(Class::Unexpected, "DescribeKey returned no key"))
    }

    /// "The state of the key forbids it" is all that KMS says to Decrypt and GenerateDataKey: DescribeKey knows which
    /// state, until when, and whether it passes. If that is denied, what KMS said stands.
    async fn explain(&self, mut failure: Failure) -> Failure {
        if failure.class != Class::KeyState {
            return failure;
        }
        match self.describe().await.and_then(|key| usable(&key)) {
            Err(state) if matches!(state.class, Class::KeyState | Class::KeyNotReady) => failure.explained_by(state),
            // it has come right between the two calls, or will: what KMS knows of a key is eventually consistent
            Ok(()) => {
                failure.class = Class::KeyNotReady;
                failure
            }
            Err(_) => failure,
        }
    }

    fn expect_key(&self, answered: Option<&str>) -> Result<(), Failure> {
        match answered {
            Some(answered) if same_key(self.key, answered) => Ok(()),
            Some(other) => Err(Failure::new(Class::Unexpected, format!("KMS answered with a different key, {other}"))),
            None => Err(Failure::new(Class::Unexpected, "KMS did not name the key it used")),
        }
    }
}

/// The plaintext of an answer; the SDK's copy becomes ours and is wiped.
fn take_data_key(plaintext: Option<Blob>) -> Result<DataKey, Failure> {
    let bytes = Zeroizing::new(plaintext.map(Blob::into_inner).unwrap_or_default());
    DataKey::from_slice(&bytes).map_err(|e| unexpected(&e))
}

fn unexpected(error: &KeyError) -> Failure {
    Failure::new(Class::Unexpected, error.to_string())
}
