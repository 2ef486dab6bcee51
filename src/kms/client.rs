//! The client of AWS KMS.

use aws_config::{Region, SdkConfig};
use aws_sdk_kms::Client;
use aws_sdk_kms::config::SharedHttpClient;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{DataKeySpec, KeyMetadata};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::class::Class;
use super::clock::ServiceClock;
use super::error::{KmsError, Operation};
use super::failure::{Context, Failure, Tries};
use super::http::limit_responses;
use super::key_facts::{
    KeyState, check, check_name, check_state, is_same_key, key_id_of, key_state, may_be_named, region_of,
};
use super::key_service::{GeneratedKey, KeyService, RewrappedKey};
use super::retry::{Limits, retry};
use super::setup::{self, Options};
use super::usage::{Meter, Usage};
use crate::config;
use crate::key::{DataKey, KeyError, KeySource, Provider, WrappedKey};

/// AWS KMS, or the service at `kms.endpoint_url`.
#[derive(Debug)]
pub struct AwsKms {
    pub(super) config: config::Kms,
    /// `kms.key_id`.
    pub(super) key_id: String,
    pub(super) sdk: SdkConfig,
    limits: Limits,
    /// `kms.deadline`, counted from [`AwsKms::connect`].
    deadline: Instant,
    meter: Meter,
    pub(super) clock: ServiceClock,
}

impl AwsKms {
    /// Determines the Region and the source of credentials.
    ///
    /// It asks IMDS only if nothing else names a Region, and does not ask KMS. `kms.deadline` begins here and limits
    /// everything that is done with the value together.
    ///
    /// # Errors
    /// [`KmsError`] if there is no Region, or if the configured Region contradicts the ARN of the key.
    pub async fn connect(config: &config::Kms) -> Result<Self, KmsError> {
        Self::connect_with(config, Options::default()).await
    }

    /// Connects like [`AwsKms::connect`], with other time limits or credentials.
    ///
    /// # Errors
    /// As [`AwsKms::connect`].
    pub async fn connect_with(config: &config::Kms, options: Options) -> Result<Self, KmsError> {
        Self::connect_over(setup::https_client(), config, options).await
    }

    /// Returns whether calls to KMS go to a FIPS endpoint. An endpoint of one's own says so by its host, as those of AWS do.
    pub fn uses_fips_endpoint(&self) -> bool {
        self.sdk.use_fips() == Some(true) || setup::has_fips_host(&self.config, &self.sdk)
    }

    /// Connects like [`AwsKms::connect_with`], over an HTTP client that replaces the default one with its trust store
    /// and proxies.
    ///
    /// # Errors
    /// As [`AwsKms::connect`].
    pub async fn connect_over(
        http: SharedHttpClient,
        config: &config::Kms,
        options: Options,
    ) -> Result<Self, KmsError> {
        let Some(key_id) = config.key_id.clone() else {
            return Err(KmsError::configuration(
                "AWS KMS wrapped a data key of this node, but kms.key_id is missing; set kms.key_id".to_owned(),
            ));
        };
        let deadline = Instant::now() + config.deadline;
        let limits = options.limits.clone();
        let meter = Meter::default();
        let clock = ServiceClock::default();
        let http = clock.watch(limit_responses(http));
        let sdk = setup::sdk_config(http, &key_id, config, options, deadline, &meter).await?;
        Ok(Self { config: config.clone(), key_id, sdk, limits, deadline, meter, clock })
    }

    /// Returns a client for a key.
    ///
    /// An ARN names the Region to ask, and the key in the state file need not be the configured one.
    pub(super) fn asking<'a>(&self, operation: Operation, key: &'a str) -> Asking<'a> {
        let configured = self.sdk.region().map(Region::as_ref).unwrap_or_default();
        let region = region_of(key).unwrap_or(configured).to_owned();
        let place = setup::place(&self.config, &self.sdk, &region);
        let sdk = self.sdk.to_builder().region(Region::new(region)).build();
        Asking { client: Client::new(&sdk), operation, key, place }
    }

    /// Returns the configured key if it is a replica, in another Region, of the multi-Region key that wrapped a data key.
    ///
    /// Both unwrap it, so a node can start as long as KMS answers in one of the two Regions.
    fn replica_of(&self, recorded: &str) -> Option<&str> {
        (self.key_id != recorded && is_same_key(&self.key_id, recorded)).then_some(&self.key_id)
    }

    async fn describe(&self, key: &str) -> Result<String, KmsError> {
        let asking = &self.asking(Operation::DescribeKey, key);
        self.retry(asking, || async { check(&asking.describe().await?) }).await
    }

    /// Checks the configured key, and returns its ARN; `None` if KMS throttles the check.
    ///
    /// `DescribeKey` has a quota of its own, a fifth or less of what the calls share that a first boot cannot do without, and would
    /// hold up a large cluster. KMS makes the same checks: it generates data keys only with symmetric keys that are enabled, and lets
    /// nobody but its services use an AWS managed key.
    async fn describe_unless_throttled(&self) -> Result<Option<String>, KmsError> {
        let asking = &self.asking(Operation::DescribeKey, &self.key_id);
        self.retry(asking, || async {
            match asking.describe().await {
                Ok(key) => check(&key).map(Some),
                Err(failure) if failure.is_throttling() => {
                    check_name(&self.key_id)?;
                    tracing::info!(
                        kms_key = self.key_id,
                        "KMS throttles DescribeKey, so KMS key {} is used without it: {failure}",
                        self.key_id
                    );
                    Ok(None)
                }
                Err(failure) => Err(failure),
            }
        })
        .await
    }

    /// Returns the state of a key as KMS reports it; `None` if the caller may not ask or KMS throttles the question, or if it does not answer
    /// and has a configured replica, which has a state of its own.
    ///
    /// # Errors
    /// [`KmsError`], after the retries of its class.
    pub async fn key_state(&self, key_id: &str) -> Result<Option<KeyState>, KmsError> {
        let asking = &self.asking(Operation::DescribeKey, key_id);
        let has_replica = self.replica_of(key_id).is_some();
        // a policy that denies DescribeKey will not change, and its quota is small, so these are not retried
        let described = self.retry(asking, || async {
            match asking.describe().await {
                Ok(key) => Ok(Some(key_state(&key))),
                Err(failure) if has_replica || failure.class == Class::Denied || failure.is_throttling() => Ok(None),
                Err(failure) => Err(failure),
            }
        });
        described.await
    }

    /// Asks the configured replica of a key, if there is one, and if that fails the key itself.
    pub(super) async fn ask_either<T>(
        &self,
        operation: Operation,
        key_id: &str,
        ask: impl AsyncFn(&Asking<'_>) -> Result<T, Failure>,
    ) -> Result<T, KmsError> {
        let recorded = &self.asking(operation, key_id);
        let replica = self.replica_of(key_id).map(|replica| self.asking(operation, replica));
        self.retry(recorded, || async {
            if let Some(replica) = &replica {
                match ask(replica).await {
                    Ok(answer) => return Ok(answer),
                    Err(failure) => tracing::warn!(
                        kms_key = replica.key,
                        "the configured replica is of no use now, so {key_id} is tried: {failure}"
                    ),
                }
            }
            ask(recorded).await
        })
        .await
    }

    /// Returns the calls so far.
    pub fn usage(&self) -> Usage {
        self.meter.usage()
    }

    pub(super) async fn retry<T, F>(&self, asking: &Asking<'_>, mut attempt: impl FnMut() -> F) -> Result<T, KmsError>
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
        // uses the key that was checked, even if the alias points elsewhere meanwhile
        let described = self.describe_unless_throttled().await?;
        let asked = described.as_ref().unwrap_or(&self.key_id);
        let asking = &self.asking(Operation::GenerateDataKey, asked);
        let key = self
            .retry(asking, || async {
                let call = asking.client.generate_data_key().key_id(asked).key_spec(DataKeySpec::Aes256);
                let mut answer = match call.send().await {
                    Ok(answer) => answer,
                    Err(error) => return Err(asking.explain(Failure::of(&error, asking.context())).await),
                };
                let data_key = take_data_key(answer.plaintext.take())?;
                let blob = answer.ciphertext_blob.take().map(Blob::into_inner).unwrap_or_default();
                let wrapped_key = WrappedKey::new(blob).map_err(|e| unexpected(&e))?;
                let key_arn = asking.arn_of(answer.key_id())?;
                Ok(GeneratedKey { data_key, provider: Provider::AwsKms, wrapped_key, key_arn })
            })
            .await?;
        tracing::info!(kms_key = %key.key_arn, "generated the data key with KMS key {}", key.key_arn);
        Ok(key)
    }

    async fn unwrap(&self, source: &KeySource) -> Result<DataKey, KmsError> {
        let KeySource { wrapped_key, key_arn, .. } = source;
        let decrypt = async |asking: &Asking<'_>| asking.decrypt(wrapped_key).await;
        let key = self.ask_either(Operation::Decrypt, key_arn, decrypt).await?;
        tracing::info!(kms_key = key_arn, "unwrapped the data key with KMS key {key_arn}");
        Ok(key)
    }

    async fn rewrap(&self, source: &KeySource, to: &str) -> Result<RewrappedKey, KmsError> {
        let KeySource { wrapped_key: wrapped, key_arn: key_id, .. } = source;
        let arn = self.describe(to).await?;
        let asking = &self.asking(Operation::ReEncrypt, &arn);
        if let Some(failure) = cannot_rewrap(key_id, &arn) {
            return Err(failure.into_error(asking.context(), Tries::ONE));
        }
        let rewrapped = self
            .retry(asking, || async {
                let call = asking.client.re_encrypt().source_key_id(key_id).destination_key_id(&arn);
                let mut answer = match call.ciphertext_blob(Blob::new(wrapped.as_bytes())).send().await {
                    Ok(answer) => answer,
                    Err(error) => return Err(asking.explain(Failure::of(&error, asking.context())).await),
                };
                let blob = answer.ciphertext_blob.take().map(Blob::into_inner).unwrap_or_default();
                let wrapped_key = WrappedKey::new(blob).map_err(|e| unexpected(&e))?;
                asking.expect_key(answer.key_id())?;
                Ok(RewrappedKey { wrapped_key, key_arn: arn.clone() })
            })
            .await?;
        tracing::info!(kms_key = arn, "wrapped the data key again, with KMS key {arn} instead of {key_id}");
        Ok(rewrapped)
    }
}

/// One operation on one KMS key.
#[derive(Debug)]
pub(super) struct Asking<'a> {
    pub(super) client: Client,
    operation: Operation,
    pub(super) key: &'a str,
    place: String,
}

impl Asking<'_> {
    pub(super) fn context(&self) -> Context<'_> {
        Context { operation: self.operation, key: self.key, place: &self.place }
    }

    pub(super) async fn describe(&self) -> Result<KeyMetadata, Failure> {
        let answer = self.client.describe_key().key_id(self.key).send().await;
        let answer = answer.map_err(|error| Failure::of(&error, self.context()))?;
        answer.key_metadata.ok_or_else(|| Failure::new(Class::Unexpected, "DescribeKey returned no key"))
    }

    /// Unwraps a data key, once.
    async fn decrypt(&self, wrapped: &WrappedKey) -> Result<DataKey, Failure> {
        let call = self.client.decrypt().key_id(self.key).ciphertext_blob(Blob::new(wrapped.as_bytes()));
        let mut answer = match call.send().await {
            Ok(answer) => answer,
            Err(error) => return Err(self.explain(Failure::of(&error, self.context())).await),
        };
        let data_key = take_data_key(answer.plaintext.take())?;
        self.expect_key(answer.key_id())?;
        Ok(data_key)
    }

    /// Explains a failure by the state of the key.
    ///
    /// Decrypt and GenerateDataKey report only that the state of the key forbids the call. DescribeKey reports which
    /// state, until when, and whether it passes. If DescribeKey is denied, the failure stays as it is.
    pub(super) async fn explain(&self, mut failure: Failure) -> Failure {
        if failure.class != Class::KeyState {
            return failure;
        }
        match self.describe().await.and_then(|key| check_state(&key)) {
            Err(state) if matches!(state.class, Class::KeyState | Class::KeyNotReady) => failure.explained_by(state),
            // the key recovered between the two calls or is about to: KMS is eventually consistent
            Ok(()) => {
                failure.class = Class::KeyNotReady;
                failure
            }
            // not known: the next attempt asks again, and the state may be one that passes
            Err(asked)
                if asked.class == Class::Transient && failure.code.as_deref() == Some("KMSInvalidStateException") =>
            {
                failure.class = Class::KeyNotReady;
                failure
            }
            Err(_) => failure,
        }
    }

    pub(super) fn expect_key(&self, answered: Option<&str>) -> Result<(), Failure> {
        self.arn_of(answered).map(|_| ())
    }

    /// Returns the ARN of the key, which must be the one that KMS answered with.
    fn arn_of(&self, answered: Option<&str>) -> Result<String, Failure> {
        match answered {
            Some(answered) if key_id_of(self.key).is_some() && is_same_key(self.key, answered) => {
                Ok(self.key.to_owned())
            }
            // not described: KMS knows which key an alias means
            Some(answered) if may_be_named(answered, self.key) => Ok(answered.to_owned()),
            Some(other) => Err(Failure::new(Class::Unexpected, format!("KMS answered with a different key, {other}"))),
            None => Err(Failure::new(Class::Unexpected, "KMS did not name the key it used")),
        }
    }
}

/// Returns why KMS could not wrap again with the key `to` what the key `from` has wrapped: it works within one Region.
fn cannot_rewrap(from: &str, to: &str) -> Option<Failure> {
    if from == to || region_of(from) == region_of(to) {
        return None;
    }
    let failure = |what: &str, remedy: &str| Failure::new(Class::Configuration, what).with_remedy(remedy);
    Some(match is_same_key(from, to) {
        true => failure(
            "it is a replica of the multi-Region key that wraps the data key now",
            "nothing needs to be wrapped again: set kms.key_id to the ARN of the replica",
        ),
        false => failure(
            &format!("it is in another Region than {from}, which wraps the data key now"),
            "use a KMS key in the same Region, or 'luks-agent rotate' after changing kms.key_id",
        ),
    })
}

/// Takes the plaintext out of a response, and wipes the copy of the SDK.
pub(super) fn take_data_key(plaintext: Option<Blob>) -> Result<DataKey, Failure> {
    let bytes = Zeroizing::new(plaintext.map(Blob::into_inner).unwrap_or_default());
    DataKey::from_slice(&bytes).map_err(|e| unexpected(&e))
}

fn unexpected(error: &KeyError) -> Failure {
    Failure::new(Class::Unexpected, error.to_string())
}
