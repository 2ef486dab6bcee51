//! The instance metadata service (IMDSv2), through the SDK's client: where the agent runs, and which device is which.
//!
//! `AWS_EC2_METADATA_SERVICE_ENDPOINT`, its `_MODE` and `AWS_EC2_METADATA_DISABLED` work as in every AWS tool;
//! `imds.endpoint_mode` overrides the mode. It never uses a proxy, because IMDS answers only the instance itself.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_config::imds::Client;
use aws_config::imds::client::EndpointMode;
use aws_config::imds::client::error::ImdsError as SdkError;
use aws_config::provider_config::ProviderConfig;
use aws_sdk_kms::config::SharedHttpClient;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use tokio::time::{Instant, sleep};

use super::http::limit_responses;
use crate::config;

/// Average wait between two attempts while IMDS does not respond.
const PAUSE: Duration = Duration::from_secs(1);
/// Limit for connecting, and for a response.
const TIMEOUT: Duration = Duration::from_secs(1);

/// No instance id, Region or role name is longer.
const WORD_MAX: usize = 64;
/// Header with the lifetime of a session token in seconds.
const TOKEN_TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";
/// Longest lifetime that can be requested, in seconds.
const TOKEN_TTL_MAX: u64 = 21_600;
/// An HTTP status by which the SDK recognises that there is no session token.
const BAD_REQUEST: u16 = 400;

/// A response of IMDS other than the requested value.
#[derive(Debug, thiserror::Error)]
pub enum ImdsError {
    /// An error status.
    #[error("IMDS returned HTTP status {status} for {path}; check MetadataOptions in `aws ec2 describe-instances`")]
    Status {
        /// Requested path.
        path: String,
        /// HTTP status.
        status: u16,
    },
    /// No session token; status 403 means that IMDS is turned off for the instance.
    #[error(
        "IMDS returned no session token; enable IMDS: `aws ec2 modify-instance-metadata-options --http-endpoint enabled`"
    )]
    Token,
    /// A response of another service, or one that was changed on the way.
    #[error(
        "unexpected response from IMDS for {path}; another service may be answering at 169.254.169.254, at fd00:ec2::254 if imds.endpoint_mode is \"ipv6\", or at AWS_EC2_METADATA_SERVICE_ENDPOINT if it is set"
    )]
    Garbled {
        /// Requested path.
        path: String,
    },
    /// Another failure, such as an endpoint that is not a URL.
    #[error(
        "cannot query IMDS for {path}; check AWS_EC2_METADATA_SERVICE_ENDPOINT and AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE"
    )]
    Other {
        /// Requested path.
        path: String,
    },
}

/// Returns whether `AWS_EC2_METADATA_DISABLED` forbids asking.
pub fn is_disabled() -> bool {
    std::env::var("AWS_EC2_METADATA_DISABLED").is_ok_and(|v| v.eq_ignore_ascii_case("true"))
}

/// A client of IMDS. Creating one sends no request.
#[derive(Debug, Clone)]
pub struct Imds {
    client: Client,
    wait_until: Option<Instant>,
}

impl Imds {
    /// Creates a client that asks once, for at most a few seconds.
    pub fn new(config: config::Imds) -> Self {
        Self::over(aws_smithy_http_client::Builder::new().build_http(), config)
    }

    /// Creates a client like [`Imds::new`], over another HTTP client than the default one, which has neither TLS nor
    /// proxies.
    pub fn over(http: SharedHttpClient, config: config::Imds) -> Self {
        let http = limit_responses(http);
        let http = http_client_fn(move |settings, components| {
            SharedHttpConnector::new(SoundAnswers(http.http_connector(settings, components)))
        });
        let mut client = Client::builder()
            .configure(&ProviderConfig::without_region().with_http_client(http))
            .connect_timeout(TIMEOUT)
            .read_timeout(TIMEOUT)
            .max_attempts(1);
        // without a mode, the client asks the environment, then the profile
        if let Some(mode) = config.endpoint_mode {
            client = client.endpoint_mode(match mode {
                config::EndpointMode::Ipv4 => EndpointMode::IpV4,
                config::EndpointMode::Ipv6 => EndpointMode::IpV6,
            });
        }
        Self { client: client.build(), wait_until: None }
    }

    /// Makes the client retry until `instant` while there is no response or a temporary error, because at boot the
    /// network may come up after the agent.
    #[must_use]
    pub fn wait_until(self, instant: Instant) -> Self {
        Self { wait_until: Some(instant), ..self }
    }

    /// Returns the client of the SDK.
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// Returns the instance ID (`i-...`); `None` if there is no IMDS.
    ///
    /// # Errors
    /// [`ImdsError`] if IMDS returns an error.
    pub async fn instance_id(&self) -> Result<Option<String>, ImdsError> {
        self.word("/latest/meta-data/instance-id", "").await
    }

    /// Returns the Region; `None` if there is no IMDS.
    ///
    /// # Errors
    /// [`ImdsError`] if IMDS returns an error.
    pub async fn region(&self) -> Result<Option<String>, ImdsError> {
        self.word("/latest/meta-data/placement/region", "").await
    }

    /// Returns the block device mapping; `None` if there is no IMDS.
    ///
    /// It maps `ami`, `root`, `ebsN`, `ephemeralN` or `swap` to a device name such as `sdb`, without `/dev/`. NVMe
    /// instance store volumes and volumes attached later are not in it.
    ///
    /// # Errors
    /// [`ImdsError`] if IMDS returns an error.
    pub async fn block_device_mapping(&self) -> Result<Option<BTreeMap<String, String>>, ImdsError> {
        let base = "/latest/meta-data/block-device-mapping/";
        let Some(names) = self.get(base).await? else { return Ok(None) };
        let mut mapping = BTreeMap::new();
        // the names become parts of paths, and the client of the SDK panics on an invalid path
        if names.contains(|c: char| !c.is_ascii_alphanumeric() && !c.is_ascii_whitespace()) {
            return Err(ImdsError::Garbled { path: base.to_owned() });
        }
        for name in names.split_ascii_whitespace() {
            if let Some(device) = self.get(&format!("{base}{name}")).await? {
                mapping.insert(name.to_owned(), device);
            }
        }
        Ok(Some(mapping))
    }

    /// Returns the name of the instance's role; `None` if there is none, or no IMDS.
    ///
    /// # Errors
    /// [`ImdsError`] if IMDS returns an error.
    pub async fn role(&self) -> Result<Option<String>, ImdsError> {
        self.word("/latest/meta-data/iam/security-credentials/", "_+=,.@").await
    }

    /// Gets an identifier of letters, digits, '-' and `more`, and rejects anything else, such as an HTML page from a proxy.
    async fn word(&self, path: &str, more: &str) -> Result<Option<String>, ImdsError> {
        let answer = self.get(path).await?;
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || more.contains(c);
        let is_word = |text: &String| (1..=WORD_MAX).contains(&text.len()) && text.chars().all(is_part);
        match answer {
            Some(text) if !is_word(&text) => Err(ImdsError::Garbled { path: path.to_owned() }),
            answer => Ok(answer),
        }
    }

    async fn get(&self, path: &str) -> Result<Option<String>, ImdsError> {
        Ok(self.get_as_is(path).await?.map(|text| text.trim().to_owned()))
    }

    /// Gets a text with the white space around it.
    pub(super) async fn get_as_is(&self, path: &str) -> Result<Option<String>, ImdsError> {
        if is_disabled() {
            tracing::debug!("not asking IMDS for {path}: AWS_EC2_METADATA_DISABLED is true");
            return Ok(None);
        }
        loop {
            let answer = match self.client.get(path).await {
                Ok(text) => return Ok(Some(text.as_ref().to_owned())),
                Err(error) => outcome(error, path),
            };
            let passing = match &answer {
                Ok(_) => true,
                Err(ImdsError::Status { status, .. }) => matches!(status, 401 | 404 | 429 | 500..),
                Err(ImdsError::Token) => true,
                Err(ImdsError::Garbled { .. } | ImdsError::Other { .. }) => false,
            };
            let wait = PAUSE.mul_f64(0.5 + fastrand::f64());
            match self.wait_until {
                Some(end) if passing && Instant::now() + wait < end => {
                    let left = end.saturating_duration_since(Instant::now()).as_secs();
                    let wait_s = wait.as_secs_f64();
                    tracing::warn!(
                        "no response from IMDS for {path}, trying again in {wait_s:.1} s, giving up in {left} s"
                    );
                    sleep(wait).await;
                }
                Some(_) | None => {
                    tracing::debug!("no response from IMDS for {path}");
                    return answer;
                }
            }
        }
    }
}

/// Rejects responses on which the client of the SDK panics (`aws-config` 1.13): session tokens that are not text, or
/// whose lifetime overflows.
#[derive(Debug)]
struct SoundAnswers(SharedHttpConnector);

impl HttpConnector for SoundAnswers {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let for_token = request.method() == "PUT";
        let answer = self.0.call(request);
        HttpConnectorFuture::new(async move {
            let mut answer = answer.await?;
            if !for_token {
                return Ok(answer);
            }
            let body = ByteStream::new(answer.take_body())
                .collect()
                .await
                .map_err(|e| ConnectorError::io(e.into()))?
                .into_bytes();
            let seconds = answer.headers().get(TOKEN_TTL).and_then(|text| text.parse::<u64>().ok());
            if std::str::from_utf8(&body).is_ok() && seconds.is_none_or(|seconds| seconds <= TOKEN_TTL_MAX) {
                *answer.body_mut() = SdkBody::from(body);
            } else {
                *answer.status_mut() = BAD_REQUEST.try_into().map_err(|e| ConnectorError::user(Box::new(e)))?;
            }
            Ok(answer)
        })
    }
}

/// Interprets an error; `Ok(None)` if nothing responds or there is no such value.
fn outcome(error: SdkError, path: &str) -> Result<Option<String>, ImdsError> {
    match error {
        SdkError::ErrorResponse(answer) => match answer.response().status().as_u16() {
            404 => Ok(None),
            status => Err(ImdsError::Status { path: path.to_owned(), status }),
        },
        SdkError::FailedToLoadToken(token) if token.is_dispatch_failure() => Ok(None),
        SdkError::FailedToLoadToken(_) => Err(ImdsError::Token),
        SdkError::IoError(_) => Ok(None),
        SdkError::Unexpected(_) | _ => Err(ImdsError::Other { path: path.to_owned() }),
    }
}
