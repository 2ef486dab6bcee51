//! The instance metadata service (IMDSv2), through the SDK's client: where the agent runs, and which device is which.
//!
//! `AWS_EC2_METADATA_SERVICE_ENDPOINT`, its `_MODE` and `AWS_EC2_METADATA_DISABLED` work as in every AWS tool. A proxy is
//! never used: IMDS answers only the instance itself.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_config::imds::Client;
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

use super::http::limited;

/// Between two attempts while IMDS does not answer.
const PAUSE: Duration = Duration::from_secs(1);
/// Until a connection stands, and until an answer comes.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Longer than any instance id or Region.
const WORD_MAX: usize = 64;
/// How many seconds a session token is valid.
const TOKEN_TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";
/// The longest that can be asked for.
const TOKEN_TTL_MAX: u64 = 21_600;
/// One of the HTTP statuses by which the SDK's client sees that there is no session token.
const BAD_REQUEST: u16 = 400;

/// IMDS answered, but not what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ImdsError {
    /// An error status.
    #[error("IMDS returned HTTP status {status} for {path}; check MetadataOptions in `aws ec2 describe-instances`")]
    Status {
        /// What was asked for.
        path: String,
        /// HTTP status.
        status: u16,
    },
    /// No session token; 403 says that IMDS is turned off for the instance.
    #[error(
        "IMDS returned no session token; enable IMDS: `aws ec2 modify-instance-metadata-options --http-endpoint enabled`"
    )]
    Token,
    /// Something else than IMDS answered, or something between has changed the answer.
    #[error(
        "unexpected response from IMDS for {path}; another service may be answering at 169.254.169.254, or at AWS_EC2_METADATA_SERVICE_ENDPOINT if it is set"
    )]
    Garbled {
        /// What was asked for.
        path: String,
    },
    /// Something else, such as an endpoint that is not a URL.
    #[error("cannot query IMDS for {path}; check AWS_EC2_METADATA_SERVICE_ENDPOINT")]
    Other {
        /// What was asked for.
        path: String,
    },
}

/// Whether `AWS_EC2_METADATA_DISABLED` forbids asking.
pub fn is_disabled() -> bool {
    std::env::var("AWS_EC2_METADATA_DISABLED").is_ok_and(|v| v.eq_ignore_ascii_case("true"))
}

/// A client of IMDS. Making one asks nothing.
#[derive(Debug, Clone)]
pub struct Imds {
    client: Client,
    wait_until: Option<Instant>,
}

impl Default for Imds {
    fn default() -> Self {
        Self::new()
    }
}

impl Imds {
    /// A client that asks once, for at most a few seconds.
    pub fn new() -> Self {
        Self::over(aws_smithy_http_client::Builder::new().build_http())
    }

    /// The same, over another HTTP client than one that knows neither TLS nor proxies.
    pub fn over(http: SharedHttpClient) -> Self {
        let http = limited(http);
        let http = http_client_fn(move |settings, components| {
            SharedHttpConnector::new(SoundAnswers(http.http_connector(settings, components)))
        });
        let client = Client::builder()
            .configure(&ProviderConfig::without_region().with_http_client(http))
            .connect_timeout(TIMEOUT)
            .read_timeout(TIMEOUT)
            .max_attempts(1)
            .build();
        Self { client, wait_until: None }
    }

    /// A client that asks again until `instant` while there is no answer or a passing error: at boot the network may come
    /// up after the agent.
    #[must_use]
    pub fn wait_until(self, instant: Instant) -> Self {
        Self { wait_until: Some(instant), ..self }
    }

    /// The SDK's client, for what takes one.
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// The instance id (`i-...`); `None` where there is no IMDS.
    ///
    /// # Errors
    /// [`ImdsError`] when IMDS answers with an error.
    pub async fn instance_id(&self) -> Result<Option<String>, ImdsError> {
        self.word("/latest/meta-data/instance-id").await
    }

    /// The Region; `None` where there is no IMDS.
    ///
    /// # Errors
    /// [`ImdsError`] when IMDS answers with an error.
    pub async fn region(&self) -> Result<Option<String>, ImdsError> {
        self.word("/latest/meta-data/placement/region").await
    }

    /// The block device mapping: `ami`, `root`, `ebsN`, `ephemeralN` or `swap` to a device name such as `sdb`, without
    /// `/dev/`. NVMe instance store volumes and volumes attached later are not in it. `None` where there is no IMDS.
    ///
    /// # Errors
    /// [`ImdsError`] when IMDS answers with an error.
    pub async fn block_device_mapping(&self) -> Result<Option<BTreeMap<String, String>>, ImdsError> {
        let base = "/latest/meta-data/block-device-mapping/";
        let Some(names) = self.get(base).await? else { return Ok(None) };
        let mut mapping = BTreeMap::new();
        // the names become parts of paths, and the SDK's client panics at what cannot be one
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

    /// An identifier. What answers in place of IMDS, such as a proxy with a page of HTML, is not taken for one.
    async fn word(&self, path: &str) -> Result<Option<String>, ImdsError> {
        let answer = self.get(path).await?;
        let is_word = |text: &String| {
            (1..=WORD_MAX).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        };
        match answer {
            Some(text) if !is_word(&text) => Err(ImdsError::Garbled { path: path.to_owned() }),
            answer => Ok(answer),
        }
    }

    async fn get(&self, path: &str) -> Result<Option<String>, ImdsError> {
        if is_disabled() {
            tracing::debug!("not asking IMDS for {path}: AWS_EC2_METADATA_DISABLED is true");
            return Ok(None);
        }
        loop {
            let answer = match self.client.get(path).await {
                Ok(text) => return Ok(Some(text.as_ref().trim().to_owned())),
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

/// Keeps answers from the SDK's client that it does not stand (`aws-config` 1.13): session tokens make it panic that are not
/// text, or are valid for longer than time can be told.
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

/// `Ok(None)`: nobody there, or no such thing.
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
