//! Which host is called: the endpoints of Regions, FIPS and dual-stack endpoints, IMDS over IPv4 and IPv6, and proxies.

use std::collections::BTreeSet;
use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_types::body::SdkBody;
use luks_agent::config::{self, EndpointMode};
use luks_agent::kms::imds::Imds;
use luks_agent::kms::{AwsKms, Class, Fault, KmsError, Options};

use super::{bare, block_on, in_child, quick};

const IN_US: &str = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
const IN_CHINA: &str = "arn:aws-cn:kms:cn-north-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
const IN_GOVCLOUD: &str = "arn:aws-us-gov:kms:us-gov-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

/// The hosts that requests go to. It denies all of them.
#[derive(Debug, Clone, Default)]
struct Hosts(Arc<Mutex<BTreeSet<String>>>);

impl HttpConnector for Hosts {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let uri: hyper::Uri = request.uri().parse().unwrap();
        self.0.lock().unwrap().insert(format!("{}://{}", uri.scheme_str().unwrap(), uri.host().unwrap()));
        let denial = SdkBody::from(r#"{"__type": "AccessDeniedException", "message": "denied"}"#);
        HttpConnectorFuture::ready(Ok(HttpResponse::new(400.try_into().unwrap(), denial)))
    }
}

impl Hosts {
    fn client(&self) -> SharedHttpClient {
        let hosts = self.clone();
        http_client_fn(move |_, _| SharedHttpConnector::new(hosts.clone()))
    }

    /// The hosts since the last call.
    fn take(&self) -> String {
        std::mem::take(&mut *self.0.lock().unwrap()).into_iter().collect::<Vec<_>>().join(" ")
    }
}

async fn connect(hosts: &Hosts, config: &config::Kms) -> Result<AwsKms, KmsError> {
    let credentials = Credentials::new("AKIDTEST", "secret", None, None, "test");
    let options = Options { credentials: Some(SharedCredentialsProvider::new(credentials)), ..quick() };
    AwsKms::connect_over(hosts.client(), config, options).await
}

/// The host of KMS that is asked about a key.
async fn host(config: &config::Kms) -> String {
    let hosts = Hosts::default();
    let kms = connect(&hosts, config).await.unwrap();
    kms.key_state(config.key_id.as_deref().unwrap()).await.unwrap();
    let host = hosts.take();
    assert_eq!(kms.uses_fips_endpoint(), host.contains("kms-fips"), "{host}");
    host
}

fn kms(key_id: &str, fips: Option<bool>, dual_stack: Option<bool>) -> config::Kms {
    config::Kms { fips, dual_stack, ..bare(key_id, Duration::from_secs(30)) }
}

#[tokio::test]
async fn fips_and_dual_stack_choose_the_endpoint_in_every_partition() {
    for (key_id, fips, dual_stack, expected) in [
        (IN_US, None, None, "https://kms.us-east-1.amazonaws.com"),
        (IN_US, Some(true), None, "https://kms-fips.us-east-1.amazonaws.com"),
        (IN_US, None, Some(true), "https://kms.us-east-1.api.aws"),
        (IN_US, Some(true), Some(true), "https://kms-fips.us-east-1.api.aws"),
        (IN_CHINA, None, None, "https://kms.cn-north-1.amazonaws.com.cn"),
        (IN_CHINA, Some(true), None, "https://kms-fips.cn-north-1.amazonaws.com.cn"),
        (IN_CHINA, None, Some(true), "https://kms.cn-north-1.api.amazonwebservices.com.cn"),
        (IN_CHINA, Some(true), Some(true), "https://kms-fips.cn-north-1.api.amazonwebservices.com.cn"),
        (IN_GOVCLOUD, None, None, "https://kms.us-gov-west-1.amazonaws.com"),
        (IN_GOVCLOUD, Some(true), None, "https://kms-fips.us-gov-west-1.amazonaws.com"),
        (IN_GOVCLOUD, None, Some(true), "https://kms.us-gov-west-1.api.aws"),
        (IN_GOVCLOUD, Some(true), Some(true), "https://kms-fips.us-gov-west-1.api.aws"),
    ] {
        assert_eq!(host(&kms(key_id, fips, dual_stack)).await, expected);
    }
}

#[test]
fn the_environment_chooses_the_endpoint_unless_the_configuration_does() {
    let test = "endpoints::the_environment_chooses_the_endpoint_unless_the_configuration_does";
    let env = ["AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT"].map(|name| (name, "true".to_owned()));
    if in_child(test, &env) {
        block_on(async {
            assert_eq!(host(&kms(IN_US, None, None)).await, "https://kms-fips.us-east-1.api.aws");
            assert_eq!(host(&kms(IN_US, Some(false), None)).await, "https://kms.us-east-1.api.aws");
            assert_eq!(host(&kms(IN_US, Some(false), Some(false))).await, "https://kms.us-east-1.amazonaws.com");
        });
    }
}

/// A file with profiles, for `AWS_CONFIG_FILE`.
fn profiles(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    file
}

#[test]
fn a_profile_chooses_the_endpoint() {
    let file = profiles("[default]\nuse_fips_endpoint = true\nuse_dualstack_endpoint = true\n");
    let env = [("AWS_CONFIG_FILE", file.path().display().to_string())];
    if in_child("endpoints::a_profile_chooses_the_endpoint", &env) {
        block_on(async {
            assert_eq!(host(&kms(IN_US, None, None)).await, "https://kms-fips.us-east-1.api.aws");
            assert_eq!(host(&kms(IN_US, Some(false), None)).await, "https://kms.us-east-1.api.aws");
        });
    }
}

/// What assumes the role of a profile is STS, with an endpoint of its own.
#[test]
fn the_role_of_a_profile_is_assumed_at_the_same_kind_of_endpoint() {
    let test = "endpoints::the_role_of_a_profile_is_assumed_at_the_same_kind_of_endpoint";
    let file = profiles(
        "[default]\nrole_arn = arn:aws:iam::111122223333:role/Node\nsource_profile = base\n\
         [profile base]\naws_access_key_id = AKIDBASE\naws_secret_access_key = secret\n",
    );
    let env = [
        ("AWS_CONFIG_FILE", file.path().display().to_string()),
        ("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent".to_owned()),
    ];
    if in_child(test, &env) {
        block_on(async {
            for (fips, dual_stack, expected) in [
                (None, None, "https://sts.us-east-1.amazonaws.com"),
                (Some(true), None, "https://sts-fips.us-east-1.amazonaws.com"),
                (None, Some(true), "https://sts.us-east-1.api.aws"),
            ] {
                let hosts = Hosts::default();
                let config = config::Kms { deadline: Duration::from_secs(1), ..kms(IN_US, fips, dual_stack) };
                let kms = AwsKms::connect_over(hosts.client(), &config, quick()).await.unwrap();
                kms.credentials().await.unwrap_err();
                assert_eq!(hosts.take(), expected);
            }
        });
    }
}

#[test]
fn an_endpoint_of_ones_own_and_one_that_is_chosen_contradict_each_other() {
    let test = "endpoints::an_endpoint_of_ones_own_and_one_that_is_chosen_contradict_each_other";
    if !in_child(test, &[("AWS_USE_FIPS_ENDPOINT", "true".to_owned())]) {
        return;
    }
    let own = "https://vpce-1.kms-fips.us-east-1.vpce.amazonaws.com";
    block_on(async {
        for (fips, dual_stack, says) in [
            (None, None, "the FIPS endpoint contradict each other"),
            (Some(true), None, "set kms.fips = false"),
            (Some(false), Some(true), "set kms.dual_stack = false"),
        ] {
            let config = config::Kms { endpoint_url: Some(own.to_owned()), ..kms(IN_US, fips, dual_stack) };
            let error = connect(&Hosts::default(), &config).await.unwrap_err();
            let text = error.to_string();
            assert_eq!((error.class(), error.fault()), (Class::Configuration, Fault::Configuration), "{text}");
            assert!(text.contains(own) && text.contains(says) && text.contains("kms.endpoint_url"), "{text}");
        }
        let config = config::Kms { endpoint_url: Some(own.to_owned()), ..kms(IN_US, Some(false), None) };
        assert_eq!(host(&config).await, own);
    });
}

#[tokio::test]
async fn a_message_about_an_endpoint_that_does_not_answer_says_which_kind_it_is() {
    let refused = http_client_fn(|_, _| SharedHttpConnector::new(Refused));
    let credentials = Credentials::new("AKIDTEST", "secret", None, None, "test");
    let options = Options { credentials: Some(SharedCredentialsProvider::new(credentials)), ..quick() };
    let config = config::Kms { deadline: Duration::from_millis(50), ..kms(IN_US, Some(true), Some(true)) };
    let kms = AwsKms::connect_over(refused, &config, options).await.unwrap();
    let text = kms.key_state(IN_US).await.unwrap_err().to_string();
    assert!(text.contains("the dual-stack FIPS endpoint of KMS in us-east-1"), "{text}");
}

#[derive(Debug)]
struct Refused;

impl HttpConnector for Refused {
    fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
        let error = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        HttpConnectorFuture::ready(Err(aws_smithy_runtime_api::client::result::ConnectorError::io(error.into())))
    }
}

/// The address at which IMDS is asked.
async fn imds(endpoint_mode: Option<EndpointMode>) -> String {
    let hosts = Hosts::default();
    Imds::over(hosts.client(), config::Imds { endpoint_mode }).instance_id().await.unwrap_err();
    hosts.take()
}

const IPV4: &str = "http://169.254.169.254";
const IPV6: &str = "http://[fd00:ec2::254]";

#[test]
fn imds_is_asked_over_ipv4_unless_the_configuration_says_ipv6() {
    if in_child("endpoints::imds_is_asked_over_ipv4_unless_the_configuration_says_ipv6", &[]) {
        block_on(async {
            assert_eq!(imds(None).await, IPV4);
            assert_eq!(imds(Some(EndpointMode::Ipv4)).await, IPV4);
            assert_eq!(imds(Some(EndpointMode::Ipv6)).await, IPV6);
        });
    }
}

#[test]
fn the_environment_says_how_imds_is_asked_unless_the_configuration_does() {
    let test = "endpoints::the_environment_says_how_imds_is_asked_unless_the_configuration_does";
    if in_child(test, &[("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "IPv6".to_owned())]) {
        block_on(async {
            assert_eq!(imds(None).await, IPV6);
            assert_eq!(imds(Some(EndpointMode::Ipv4)).await, IPV4);
        });
    }
}

#[test]
fn an_address_of_imds_in_the_environment_is_used_whatever_the_mode() {
    let test = "endpoints::an_address_of_imds_in_the_environment_is_used_whatever_the_mode";
    if in_child(test, &[("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1338".to_owned())]) {
        block_on(async { assert_eq!(imds(Some(EndpointMode::Ipv6)).await, "http://127.0.0.1") });
    }
}

#[test]
fn the_credentials_of_the_role_come_from_the_same_address_of_imds() {
    let test = "endpoints::the_credentials_of_the_role_come_from_the_same_address_of_imds";
    if !in_child(test, &[("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "nonsense".to_owned())]) {
        return;
    }
    block_on(async {
        let config = config::Kms { deadline: Duration::from_secs(1), ..kms(IN_US, None, None) };
        for (mode, is_asked) in [(None, false), (Some(EndpointMode::Ipv6), true)] {
            let options = Options { imds: config::Imds { endpoint_mode: mode }, ..quick() };
            let kms = AwsKms::connect_over(Hosts::default().client(), &config, options).await.unwrap();
            let error = format!("{:?}", kms.credentials().await.unwrap_err());
            assert_eq!(!error.contains("nonsense"), is_asked, "{error}");
        }
    });
}

#[test]
fn an_endpoint_for_kms_alone_in_a_profile_counts_as_any_other() {
    let test = "endpoints::an_endpoint_for_kms_alone_in_a_profile_counts_as_any_other";
    let file = profiles("[default]\nservices = s\n[services s]\nkms =\n  endpoint_url = https://kms.example\n");
    if !in_child(test, &[("AWS_CONFIG_FILE", file.path().display().to_string())]) {
        return;
    }
    block_on(async {
        assert_eq!(host(&kms(IN_US, None, None)).await, "https://kms.example");
        let error = connect(&Hosts::default(), &kms(IN_US, Some(true), None)).await.unwrap_err().to_string();
        assert!(error.contains("'https://kms.example'") && error.contains("contradict each other"), "{error}");
    });
}

#[test]
fn a_data_key_does_not_cross_a_network_in_clear_to_an_endpoint_for_kms_alone_in_a_profile() {
    let test = "endpoints::a_data_key_does_not_cross_a_network_in_clear_to_an_endpoint_for_kms_alone_in_a_profile";
    let file = profiles("[default]\nservices = s\n[services s]\nkms =\n  endpoint_url = http://kms.example\n");
    if in_child(test, &[("AWS_CONFIG_FILE", file.path().display().to_string())]) {
        block_on(async {
            let error = connect(&Hosts::default(), &kms(IN_US, None, None)).await.unwrap_err().to_string();
            assert!(error.contains("would cross the network to 'http://kms.example' unencrypted"), "{error}");
        });
    }
}
