//! Sets up the connection with KMS: Region, endpoint, credentials and HTTP client.

use std::path::Path;
use std::sync::LazyLock;

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::default_provider::use_dual_stack::use_dual_stack_provider;
use aws_config::default_provider::use_fips::use_fips_provider;
use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_kms::config::{AppName, IdentityCache, SharedHttpClient, StalledStreamProtectionConfig};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use aws_types::service_config::ServiceConfigKey;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::RootCertStore;
use tokio::time::Instant;

use super::class::Class;
use super::error::{KmsError, Operation};
use super::failure::{Context, Failure};
use super::http::by_scheme;
use super::imds::{self, Imds};
use super::key_facts::region_of;
use super::retry::{Limits, retry};
use super::usage::{Meter, Metered};
use crate::config::{self, crosses_in_clear};

/// The cryptography of TLS.
#[cfg(not(feature = "fips"))]
const CRYPTO: CryptoMode = CryptoMode::AwsLc;
#[cfg(feature = "fips")]
const CRYPTO: CryptoMode = CryptoMode::AwsLcFips;

/// Options of [`super::AwsKms::connect_with`].
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Time limits.
    pub limits: Limits,
    /// Credentials that replace those of the default chain.
    pub credentials: Option<SharedCredentialsProvider>,
    /// How IMDS is reached.
    pub imds: config::Imds,
}

/// Returns the configuration of the SDK for calls to KMS.
pub(super) async fn sdk_config(
    http: SharedHttpClient,
    key_id: &str,
    config: &config::Kms,
    options: Options,
    deadline: Instant,
    meter: &Meter,
) -> Result<SdkConfig, KmsError> {
    let imds = Imds::new(options.imds);
    let region = region(key_id, config, &imds, &options.limits, deadline).await?;
    let provider = ProviderConfig::without_region()
        .with_region(Some(region.clone()))
        .with_http_client(http.clone())
        .with_retry_config(RetryConfig::disabled());
    let (fips, dual_stack) = (use_fips(config, &provider).await, use_dual_stack(config, &provider).await);
    let credentials = match options.credentials {
        Some(credentials) => credentials,
        None => SharedCredentialsProvider::new(
            DefaultCredentialsChain::builder()
                // STS, which assumes the role of a profile, has such endpoints, too
                .configure(provider.with_use_fips(Some(fips)).with_use_dual_stack(Some(dual_stack)))
                .region(region.clone())
                .imds_client(imds.client())
                .build()
                .await,
        ),
    };
    let limits = options.limits;
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .region(region)
        .use_fips(fips)
        .use_dual_stack(dual_stack)
        .http_client(http)
        .credentials_provider(Metered(credentials, meter.clone()))
        // every attempt gets credentials again: IMDS may have renewed them, and the process is short-lived
        .identity_cache(IdentityCache::no_cache())
        .retry_config(RetryConfig::disabled())
        // a response that stalls has the time of its attempt, like one that does not come
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .timeout_config(
            TimeoutConfig::builder().connect_timeout(limits.connect).operation_attempt_timeout(limits.attempt).build(),
        );
    if let Ok(name) = AppName::new(concat!("luks-agent-", env!("CARGO_PKG_VERSION"))) {
        loader = loader.app_name(name);
    }
    if let Some(url) = &config.endpoint_url {
        loader = loader.endpoint_url(url);
    }
    let sdk = loader.load().await;
    check_endpoint(key_id, config, &sdk)?;
    Ok(sdk)
}

/// Refuses an endpoint to which the data key would be sent unencrypted, and one beside the FIPS or dual-stack endpoint.
fn check_endpoint(key_id: &str, config: &config::Kms, sdk: &SdkConfig) -> Result<(), KmsError> {
    let Some(url) = configured_endpoint(config, sdk) else { return Ok(()) };
    if !config.allow_http && crosses_in_clear(&url) {
        return Err(KmsError::configuration(format!(
            "the data key under KMS key {key_id} would cross the network to '{url}' unencrypted; use https:// in kms.endpoint_url, AWS_ENDPOINT_URL_KMS, \
             AWS_ENDPOINT_URL and the profile, or set kms.allow_http = true if you trust that network"
        )));
    }
    let choices = [
        (sdk.use_fips(), "FIPS", "kms.fips", "AWS_USE_FIPS_ENDPOINT", "use_fips_endpoint"),
        (sdk.use_dual_stack(), "dual-stack", "kms.dual_stack", "AWS_USE_DUALSTACK_ENDPOINT", "use_dualstack_endpoint"),
    ];
    match choices.into_iter().find(|(chosen, ..)| *chosen == Some(true)) {
        Some((_, kind, key, variable, setting)) => Err(KmsError::configuration(format!(
            "the endpoint '{url}' for KMS key {key_id} and the {kind} endpoint contradict each other; remove that URL from kms.endpoint_url, \
             AWS_ENDPOINT_URL_KMS, AWS_ENDPOINT_URL and the profile, or set {key} = false, which overrides {variable} and {setting} in the profile"
        ))),
        None => Ok(()),
    }
}

/// Returns whether the FIPS endpoint is used: as the configuration says, else the environment or profile.
async fn use_fips(config: &config::Kms, provider: &ProviderConfig) -> bool {
    match config.fips {
        Some(fips) => fips,
        None => use_fips_provider(provider).await.unwrap_or(false),
    }
}

/// Returns whether the dual-stack endpoint is used: as the configuration says, else the environment or profile.
async fn use_dual_stack(config: &config::Kms, provider: &ProviderConfig) -> bool {
    match config.dual_stack {
        Some(dual_stack) => dual_stack,
        None => use_dual_stack_provider(provider).await.unwrap_or(false),
    }
}

/// Returns the name of the service in messages: the endpoint if one is configured, else the KMS of the Region.
pub(super) fn place(config: &config::Kms, sdk: &SdkConfig, region: &str) -> String {
    let is = |chosen: Option<bool>| chosen == Some(true);
    configured_endpoint(config, sdk).unwrap_or_else(|| match (is(sdk.use_fips()), is(sdk.use_dual_stack())) {
        (false, false) => format!("KMS in {region}"),
        (true, false) => format!("the FIPS endpoint of KMS in {region}"),
        (false, true) => format!("the dual-stack endpoint of KMS in {region}"),
        (true, true) => format!("the dual-stack FIPS endpoint of KMS in {region}"),
    })
}

/// Returns the endpoint that the SDK takes from the configuration, the environment or the profile, in place of that of the Region.
fn configured_endpoint(config: &config::Kms, sdk: &SdkConfig) -> Option<String> {
    // AWS_ENDPOINT_URL_KMS, or a `services` section of the profile, before what is for all services
    let key = ServiceConfigKey::builder().service_id("KMS").env("AWS_ENDPOINT_URL").profile("endpoint_url").build();
    let for_kms = || sdk.service_config()?.load_config(key.ok()?).filter(|url| !url.is_empty());
    let for_all = || sdk.endpoint_url().map(str::to_owned);
    config.endpoint_url.clone().or_else(for_kms).or_else(for_all)
}

/// Returns whether the host of the endpoint has the label of FIPS endpoints, as `vpce-1.kms-fips.us-east-1.vpce.amazonaws.com` has.
pub(super) fn has_fips_host(config: &config::Kms, sdk: &SdkConfig) -> bool {
    let host =
        configured_endpoint(config, sdk).and_then(|url| url.parse::<hyper::Uri>().ok()?.host().map(str::to_owned));
    host.is_some_and(|host| host.split('.').any(|label| label == "kms-fips"))
}

/// Returns the value of an environment variable, unless it is empty.
pub(super) fn from_environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Returns the Region: from the key ARN, else the configuration, else the environment or profile, else IMDS.
async fn region(
    key_id: &str,
    config: &config::Kms,
    imds: &Imds,
    limits: &Limits,
    deadline: Instant,
) -> Result<Region, KmsError> {
    if let Some(named) = named_region(key_id, config.region.as_deref())? {
        return Ok(Region::new(named));
    }
    let chain = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
        .or_else(ProfileFileRegionProvider::new());
    if let Some(region) = chain.region().await {
        return Ok(region);
    }
    if imds::is_disabled() {
        return Err(KmsError::configuration(format!(
            "no region for KMS key {key_id}: neither key ARN, kms.region, AWS_REGION nor a profile names one, and \
             AWS_EC2_METADATA_DISABLED forbids asking IMDS; set kms.region"
        )));
    }
    let ask = || async {
        match imds.region().await {
            Ok(Some(region)) => Ok(Region::new(region)),
            Ok(None) => Err(Failure::new(
                Class::Transient,
                "neither key ARN, kms.region, AWS_REGION nor a profile names a region, and IMDS does not respond",
            )),
            Err(error) => Err(Failure::new(Class::Transient, "cannot get the region from IMDS").with_cause(&error)),
        }
    };
    let context = Context { operation: Operation::FindRegion, key: key_id, place: "IMDS" };
    let found = retry(limits, deadline, Operation::FindRegion, ask).await;
    found.map_err(|(failure, tries)| failure.into_error(context, tries))
}

/// Returns the Region in the key ARN or the configuration.
fn named_region(key_id: &str, configured: Option<&str>) -> Result<Option<String>, KmsError> {
    match (region_of(key_id), configured) {
        (Some(arn), Some(other)) if arn != other => Err(KmsError::configuration(format!(
            "kms.region is {other}, but the KMS key {key_id} is in {arn}; remove kms.region, or use a key in {other}"
        ))),
        (arn, region) => Ok(arn.or(region).map(str::to_owned)),
    }
}

/// Returns the default client of the SDK (rustls with the trust store of the system, proxies from the environment),
/// which here also works without any CA certificate until something is sent over TLS. What is sent without TLS goes through no
/// proxy: the proxy would read the data key.
pub(super) fn https_client() -> SharedHttpClient {
    let bundle = bundle();
    let any = bundle.is_some() || !rustls_native_certs::load_native_certs().certs.is_empty();
    if !any {
        tracing::warn!("the system trusts no CA certificate, so https will fail; install the package ca-certificates");
    }
    let trust = LazyLock::new(move || trust_store(bundle, any));
    let over_tls = Builder::new().build_with_connector_fn(move |settings, _components| {
        let context = TlsContext::builder().with_trust_store(trust.clone()).build().unwrap_or_default();
        let mut connector = Connector::builder().tls_provider(Provider::Rustls(CRYPTO.clone())).tls_context(context);
        connector.set_connector_settings(settings.cloned());
        connector.set_proxy_config(Some(ProxyConfig::from_env()));
        connector.build()
    });
    by_scheme(over_tls, Builder::new().build_http())
}

/// Returns the CA certificates that the system trusts; `any` says whether there are some.
///
/// The bundle is one file. Debian also has a file for each certificate, which the client of the SDK would read as well: hundreds of
/// reads from a cold disk at every boot.
fn trust_store(bundle: Option<&Path>, any: bool) -> TrustStore {
    let Some(bundle) = bundle else { return TrustStore::empty().with_native_roots(any) };
    let certificates = certificates_in(bundle);
    if certificates.is_empty() {
        tracing::warn!("no certificate in {} can be used, so certificates are read from beside it", bundle.display());
    }
    let trust = TrustStore::empty().with_native_roots(certificates.is_empty());
    certificates.into_iter().fold(trust, TrustStore::with_pem_certificate)
}

/// Returns the certificates in a file, each in PEM, without those at which the client of the SDK would panic.
fn certificates_in(bundle: &Path) -> Vec<String> {
    let mut certificates = rustls_native_certs::load_certs_from_paths(Some(bundle), None).certs;
    certificates.retain(|one| RootCertStore::empty().add(one.clone()).is_ok());
    let pem = |one| format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(one));
    certificates.into_iter().map(pem).collect()
}

/// Returns the file with all certificates that the system trusts, unless the environment names another place.
fn bundle() -> Option<&'static Path> {
    const BUNDLES: [&str; 2] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];
    if ["SSL_CERT_FILE", "SSL_CERT_DIR"].iter().any(|name| std::env::var_os(name).is_some()) {
        return None;
    }
    BUNDLES.iter().map(Path::new).find(|path| std::fs::metadata(path).is_ok_and(|file| file.len() > 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kms::Fault;

    #[test]
    fn a_certificate_that_cannot_be_used_is_left_out_of_the_bundle() {
        let authority = fake_aws::TestCa::new().unwrap();
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let bundle = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(bundle.path(), format!("# ours\n{}{broken}{}", authority.pem(), authority.pem())).unwrap();
        let certificates = certificates_in(bundle.path());
        assert_eq!(certificates.len(), 1, "once, and without the broken one");
        let trust = certificates.into_iter().fold(TrustStore::empty(), TrustStore::with_pem_certificate);
        let context = TlsContext::builder().with_trust_store(trust).build().unwrap();
        // it panics at what it cannot use
        Connector::builder().tls_provider(Provider::Rustls(CryptoMode::AwsLc)).tls_context(context).build();
    }

    #[test]
    fn the_arn_names_the_region_and_the_configuration_may_not_contradict_it() {
        let arn = "arn:aws:kms:eu-west-1:111122223333:key/1";
        assert_eq!(named_region(arn, None).unwrap().as_deref(), Some("eu-west-1"));
        assert_eq!(named_region(arn, Some("eu-west-1")).unwrap().as_deref(), Some("eu-west-1"));
        assert_eq!(named_region("alias/x", Some("eu-west-2")).unwrap().as_deref(), Some("eu-west-2"));
        assert_eq!(named_region("alias/x", None).unwrap(), None);
        let error = named_region(arn, Some("us-east-1")).unwrap_err();
        assert_eq!(error.fault(), Fault::Configuration);
        assert!(
            error.to_string().contains("kms.region is us-east-1, but the KMS key arn:aws:kms:eu-west-1"),
            "{error}"
        );
    }
}
