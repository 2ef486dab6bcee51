//! Which calls are made to which service, with which credentials, and what the logs show.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use fake_aws::{Effect, Fault as Scripted, Key, KeyState, Server, TestCa};
use luks_agent::config;
use luks_agent::key::{KeySource, WrappedKey};
use luks_agent::kms::imds::Imds;
use luks_agent::kms::{AwsKms, Class, Fault, GeneratedKey, InstanceIdentity, KeyService, KmsError, Options};

use super::{Captured, bare, block_on, in_child, quick};

const KEY: &str = Key::DEFAULT_ID;

fn config(server: &Server, key_id: &str) -> config::Kms {
    config::Kms {
        region: Some("us-east-1".to_owned()),
        endpoint_url: Some(server.url()),
        ..bare(key_id, Duration::from_secs(60))
    }
}

async fn server() -> Server {
    server_with(fake_aws::Options::default()).await
}

async fn server_with(options: fake_aws::Options) -> Server {
    Server::start(options).await.unwrap()
}

async fn connect(config: &config::Kms) -> AwsKms {
    let credentials = Credentials::new("AKIDTEST", "secret", None, None, "test");
    let options = Options { credentials: Some(SharedCredentialsProvider::new(credentials)), ..quick() };
    AwsKms::connect_with(config, options).await.unwrap()
}

async fn generate(server: &Server, key_id: &str) -> Result<GeneratedKey, KmsError> {
    connect(&config(server, key_id)).await.generate().await
}
#[track_caller]
fn assert_says(error: &KmsError, class: Class, fault: Fault, parts: &[&str]) {
    let text = error.to_string();
    assert_eq!((error.class(), error.fault()), (class, fault), "{text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}
#[tokio::test]
async fn a_key_is_described_generated_and_unwrapped_with_one_call_each_and_no_context() {
    let server = server().await;
    let kms = connect(&config(&server, "alias/luks-agent")).await;
    let made = kms.generate().await.unwrap();
    assert_eq!(made.key_arn, server.key_arn());
    let again = kms.unwrap(&made.source()).await.unwrap();
    assert!(again.same_as(&made.data_key));

    let requests = server.requests();
    let asked: Vec<_> = requests.iter().map(|r| (r.operation.as_str(), r.key_id.as_deref().unwrap())).collect();
    let arn = made.key_arn.as_str();
    assert_eq!(asked, [("DescribeKey", "alias/luks-agent"), ("GenerateDataKey", arn), ("Decrypt", arn)]);
    assert_eq!(requests[1].key_spec.as_deref(), Some("AES_256"));
    let name = format!("app/luks-agent-{}", env!("CARGO_PKG_VERSION"));
    for request in &requests {
        assert_eq!(request.encryption_context, None);
        assert_eq!(request.number_of_bytes, None);
        assert!(!request.dry_run);
        assert_eq!(request.signed_region.as_deref(), Some("us-east-1"));
        assert!(request.user_agent.as_deref().unwrap().contains(&name), "{:?}", request.user_agent);
    }
}

#[tokio::test]
async fn a_first_boot_does_without_a_description_of_the_key_that_kms_throttles() {
    let server = server().await;
    let arn = server.key_arn();
    for (configured, code) in [
        ("alias/luks-agent", "ThrottlingException"),
        (&arn.replace(&format!("key/{KEY}"), "alias/luks-agent"), "TooManyRequestsException"),
        (KEY, "ThrottlingException"),
        (&arn, "RequestLimitExceeded"),
    ] {
        server.clear_requests();
        server.push_fault(Scripted::error("DescribeKey", code).times(1));
        let kms = connect(&config(&server, configured)).await;
        let made = kms.generate().await.unwrap();
        assert_eq!(made.key_arn, arn, "{configured}");
        assert!(kms.unwrap(&made.source()).await.unwrap().same_as(&made.data_key));
        let requests = server.requests();
        let asked: Vec<_> = requests.iter().map(|r| (r.operation.as_str(), r.key_id.as_deref().unwrap())).collect();
        assert_eq!(asked, [("DescribeKey", configured), ("GenerateDataKey", configured), ("Decrypt", &arn)]);
    }

    // nor does a health check ask again
    server.push_fault(Scripted::error("DescribeKey", "ThrottlingException").times(2));
    let described = server.count("DescribeKey");
    assert_eq!(connect(&config(&server, KEY)).await.key_state(&arn).await.unwrap(), None);
    assert_eq!(server.count("DescribeKey"), described + 1);

    // KMS knows which key is meant, and another one is an error
    server.push_fault(Scripted::new("GenerateDataKey", Effect::WrongKeyId).times(1));
    let error = generate(&server, KEY).await.unwrap_err();
    assert_says(&error, Class::Unexpected, Fault::Data, &["KMS answered with a different key"]);
}

#[tokio::test]
async fn a_key_that_no_data_key_may_be_made_with_is_refused_although_its_description_is_throttled() {
    for (key, class, says) in [
        (Key { kind: fake_aws::KeyKind::Rsa, ..Key::default() }, Class::Configuration, "InvalidKeyUsageException"),
        (Key { kind: fake_aws::KeyKind::Hmac, ..Key::default() }, Class::Configuration, "InvalidKeyUsageException"),
        (Key { state: KeyState::Disabled, ..Key::default() }, Class::KeyState, "the KMS key is disabled"),
        (Key { state: KeyState::PendingDeletion, ..Key::default() }, Class::KeyState, "scheduled for deletion on 20"),
        (Key { manager: fake_aws::KeyManager::Aws, ..Key::default() }, Class::Denied, "lacks kms:GenerateDataKey"),
    ] {
        let server = server_with(fake_aws::Options { keys: vec![key], ..fake_aws::Options::default() }).await;
        server.push_fault(Scripted::error("DescribeKey", "ThrottlingException").times(1));
        let limits = luks_agent::kms::Limits { patience: Duration::from_millis(50), ..crate::limits() };
        let credentials = Credentials::new("AKIDTEST", "secret", None, None, "test");
        let options =
            Options { limits, credentials: Some(SharedCredentialsProvider::new(credentials)), ..Options::default() };
        let kms = AwsKms::connect_with(&config(&server, KEY), options).await.unwrap();
        let error = kms.generate().await.unwrap_err();
        assert_eq!(error.class(), class, "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[tokio::test]
async fn the_name_of_an_aws_managed_key_is_refused_although_its_description_is_throttled() {
    let server = server().await;
    for name in ["alias/aws/ebs", "arn:aws:kms:us-east-1:111122223333:alias/aws/ebs"] {
        server.push_fault(Scripted::error("DescribeKey", "ThrottlingException").times(1));
        let error = generate(&server, name).await.unwrap_err();
        assert_says(&error, Class::Configuration, Fault::Configuration, &["this is an AWS managed key"]);
    }
    assert_eq!(server.count("GenerateDataKey"), 0);
}

/// KMS throttles the question before the call, and does not answer the one after it that would tell the state.
#[tokio::test]
async fn a_key_that_is_not_ready_yet_is_waited_for_although_its_description_is_throttled() {
    for unanswered in ["ThrottlingException", "KMSInternalException"] {
        let server = server().await;
        server.set_key_state(KEY, KeyState::Creating).unwrap();
        for code in ["ThrottlingException", unanswered] {
            server.push_fault(Scripted::error("DescribeKey", code).times(1));
        }
        let enable = async {
            while server.count("DescribeKey") < 3 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            server.set_key_state(KEY, KeyState::Enabled).unwrap();
        };
        let kms = connect(&config(&server, KEY)).await;
        let both = async { tokio::join!(kms.generate(), enable) };
        let (made, ()) = tokio::time::timeout(Duration::from_secs(60), both).await.expect("it waits for the key");
        assert_eq!(made.unwrap().key_arn, server.key_arn(), "{unanswered}");
    }
}

#[tokio::test]
async fn a_key_that_is_not_ready_yet_is_waited_for() {
    let server = server().await;
    let made = generate(&server, KEY).await.unwrap();
    for state in [KeyState::Creating, KeyState::Updating, KeyState::Unavailable] {
        server.set_key_state(KEY, state).unwrap();
        server.clear_requests();
        let kms = connect(&config(&server, KEY)).await;
        let enable = async {
            while server.count("DescribeKey") < 3 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            server.set_key_state(KEY, KeyState::Enabled).unwrap();
        };
        let source = made.source();
        let (key, ()) = tokio::join!(kms.unwrap(&source), enable);
        assert!(key.unwrap().same_as(&made.data_key), "{state:?}");
    }
}

#[tokio::test]
async fn a_key_that_is_all_right_when_asked_about_is_tried_again() {
    let server = server().await;
    let made = generate(&server, KEY).await.unwrap();
    for code in ["KMSInvalidStateException", "DisabledException"] {
        server.push_fault(Scripted::error("Decrypt", code).times(1));
        let kms = connect(&config(&server, KEY)).await;
        let key = kms.unwrap(&made.source()).await.unwrap();
        assert!(key.same_as(&made.data_key), "{code}");
    }
}

#[tokio::test]
async fn a_damaged_wrapped_key_or_another_key_is_told_at_once() {
    let keys = vec![Key::default(), Key::new("other")];
    let server = server_with(fake_aws::Options { keys, ..fake_aws::Options::default() }).await;
    let kms = connect(&config(&server, KEY)).await;
    let made = kms.generate().await.unwrap();

    let mut blob = made.wrapped_key.as_bytes().to_vec();
    *blob.last_mut().unwrap() ^= 1;
    let error =
        kms.unwrap(&KeySource { wrapped_key: WrappedKey::new(blob).unwrap(), ..made.source() }).await.unwrap_err();
    let parts = ["the wrapped key is damaged", "from the LUKS2 token of a volume"];
    assert_says(&error, Class::WrappedKey, Fault::Data, &parts);

    let other = made.key_arn.replace(KEY, "other");
    let error = kms.unwrap(&KeySource { key_arn: other, ..made.source() }).await.unwrap_err();
    assert_says(&error, Class::WrappedKey, Fault::Data, &["the wrapped key was encrypted under a different KMS key"]);
    assert_eq!(server.count("Decrypt"), 2);
}

#[tokio::test]
async fn the_region_comes_from_the_arn() {
    let eu = fake_aws::Options { region: "eu-west-1".to_owned(), ..fake_aws::Options::default() };
    let server = server_with(eu).await;
    let mut config = config(&server, &server.key_arn());
    config.region = None;
    let kms = connect(&config).await;
    let made = kms.generate().await.unwrap();
    assert_eq!(server.requests()[1].signed_region.as_deref(), Some("eu-west-1"));

    // the key in the state file counts, not the key that is configured now
    config.key_id = Some("alias/luks-agent".to_owned());
    config.region = Some("us-east-1".to_owned());
    connect(&config).await.unwrap(&made.source()).await.unwrap();
    assert_eq!(server.requests()[2].signed_region.as_deref(), Some("eu-west-1"));
}

/// A multi-Region key whose replica in one of two Regions cannot be used: there it does not exist.
#[tokio::test]
async fn a_data_key_is_unwrapped_in_the_region_that_works() {
    const MULTI: &str = "mrk-1234abcd12ab34cd56ef1234567890ab";
    let keys = vec![Key::new(MULTI)];
    let server = server_with(fake_aws::Options { keys, ..fake_aws::Options::default() }).await;
    let mut config = config(&server, MULTI);
    let made = connect(&config).await.generate().await.unwrap();
    let elsewhere = made.key_arn.replace("us-east-1", "eu-west-1");
    let regions = |from: usize| {
        let requests = server.requests();
        let decrypts = requests[from..].iter().filter(|request| request.operation == "Decrypt");
        decrypts.map(|request| request.signed_region.clone().unwrap()).collect::<Vec<_>>()
    };
    // recorded by the ARN that works, configured by the other, and the reverse
    config.region = None;
    for (recorded, configured, asked) in [
        (&made.key_arn, &elsewhere, vec!["eu-west-1", "us-east-1"]),
        (&elsewhere, &made.key_arn, vec!["us-east-1"]),
        (&made.key_arn, &made.key_arn, vec!["us-east-1"]),
    ] {
        let before = server.requests().len();
        config.key_id = Some(configured.clone());
        let source = KeySource { key_arn: recorded.clone(), ..made.source() };
        let key = connect(&config).await.unwrap(&source).await.unwrap();
        assert!(key.same_as(&made.data_key));
        assert_eq!(regions(before), asked, "recorded {recorded}, configured {configured}");
        // nor does a check of the node, which asks nothing else, raise a false alarm
        let before = server.requests().len();
        let kms = connect(&config).await;
        let state = kms.key_state(recorded).await.unwrap().map(|state| state.name);
        assert_eq!(state, (*recorded == made.key_arn).then(|| "Enabled".to_owned()), "of the recorded key, or of none");
        kms.try_unwrap(&source.wrapped_key, recorded).await.unwrap();
        assert_eq!(regions(before), asked, "tried: recorded {recorded}, configured {configured}");
    }
}

#[tokio::test]
async fn a_region_that_contradicts_the_arn_is_a_configuration_error() {
    let server = server().await;
    let mut config = config(&server, &server.key_arn());
    config.region = Some("eu-west-1".to_owned());
    let error = AwsKms::connect(&config).await.unwrap_err();
    assert_says(&error, Class::Configuration, Fault::Configuration, &["kms.region is eu-west-1"]);
    assert!(server.requests().is_empty());
}

/// The environment of an instance, and nothing else.
fn instance(server: &Server) -> Vec<(&'static str, String)> {
    vec![("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url()), ("AWS_ENDPOINT_URL_KMS", server.url())]
}
#[test]
fn on_an_instance_region_and_credentials_come_from_imds() {
    let server = Server::start_blocking(fake_aws::Options::default()).unwrap();
    if in_child("calls::on_an_instance_region_and_credentials_come_from_imds", &instance(&server)) {
        return block_on(async {
            let config = bare("alias/luks-agent", Duration::from_secs(60));
            AwsKms::connect_with(&config, quick()).await.unwrap().generate().await.unwrap();
        });
    }
    let request = server.requests().into_iter().find(|r| r.operation == "GenerateDataKey").unwrap();
    assert_eq!(request.access_key_id.as_deref(), Some(fake_aws::Options::ACCESS_KEY_ID));
    assert_eq!(request.signed_region.as_deref(), Some("us-east-1"));
}

#[test]
fn elsewhere_region_and_credentials_come_from_the_environment() {
    let server = Server::start_blocking(fake_aws::Options::default()).unwrap();
    let env = [
        ("AWS_ACCESS_KEY_ID", "AKIDENV".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "secret".to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
        ("AWS_ENDPOINT_URL", server.url()),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url()),
    ];
    if in_child("calls::elsewhere_region_and_credentials_come_from_the_environment", &env) {
        return block_on(async {
            let config = bare("alias/luks-agent", Duration::from_secs(60));
            AwsKms::connect(&config).await.unwrap().generate().await.unwrap();
        });
    }
    let requests = server.requests();
    assert!(requests.iter().all(|r| r.access_key_id.as_deref() == Some("AKIDENV")), "IMDS was not needed");
    assert_eq!(requests.len(), 2);
}

fn tls_server(ca: &TestCa, name: &str) -> Server {
    Server::start_blocking(fake_aws::Options {
        listen: Vec::new(),
        tls_listen: vec![([127, 0, 0, 1], 0).into()],
        tls: Some(ca.identity(&[name]).unwrap()),
        ..fake_aws::Options::default()
    })
    .unwrap()
}

fn tls_env(server: &Server, ca: &std::path::Path) -> Vec<(&'static str, String)> {
    vec![
        ("AWS_ENDPOINT_URL_KMS", server.tls_url()),
        ("SSL_CERT_FILE", ca.to_str().unwrap().to_owned()),
        ("AWS_ACCESS_KEY_ID", "AKIDENV".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "secret".to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
    ]
}

fn ca_file(ca: &TestCa) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), ca.pem()).unwrap();
    file
}

#[test]
fn a_ca_of_the_system_trust_store_is_trusted() {
    let ca = TestCa::new().unwrap();
    let (server, file) = (tls_server(&ca, "127.0.0.1"), ca_file(&ca));
    if in_child("calls::a_ca_of_the_system_trust_store_is_trusted", &tls_env(&server, file.path())) {
        return block_on(async {
            let config = bare("alias/luks-agent", Duration::from_secs(60));
            AwsKms::connect(&config).await.unwrap().generate().await.unwrap();
        });
    }
    assert!(server.requests().iter().all(|r| r.tls));
    assert_eq!(server.count("GenerateDataKey"), 1);
}

#[test]
fn a_system_without_ca_certificates_can_do_without_tls() {
    let server = Server::start_blocking(fake_aws::Options::default()).unwrap();
    let mut env = tls_env(&server, std::path::Path::new("/nonexistent/ca.pem"));
    env[0].1 = server.url();
    if in_child("calls::a_system_without_ca_certificates_can_do_without_tls", &env) {
        return block_on(async {
            let config = bare("alias/luks-agent", Duration::from_secs(60));
            AwsKms::connect(&config).await.unwrap().generate().await.unwrap();
        });
    }
    assert_eq!(server.count("GenerateDataKey"), 1);
}

#[test]
fn imds_names_instance_region_and_devices() {
    let devices = [("ami", "xvda"), ("ebs1", "sdb"), ("ephemeral0", "sdc")];
    let mapping: BTreeMap<String, String> =
        devices.into_iter().map(|(name, device)| (name.to_owned(), device.to_owned())).collect();
    let block_device_mapping = mapping.clone().into_iter().collect();
    let options = fake_aws::Options { block_device_mapping, ..fake_aws::Options::default() };
    let server = Server::start_blocking(options).unwrap();
    if in_child("calls::imds_names_instance_region_and_devices", &instance(&server)) {
        block_on(async {
            let imds = Imds::new(config::Imds::default());
            assert_eq!(imds.instance_id().await.unwrap().as_deref(), Some("i-1234567890abcdef0"));
            assert_eq!(imds.region().await.unwrap().as_deref(), Some("us-east-1"));
            assert_eq!(imds.block_device_mapping().await.unwrap(), Some(mapping));
            let InstanceIdentity { document, rsa2048, identity } = imds.identity_document().await.unwrap().unwrap();
            assert_eq!((identity.account_id.as_str(), identity.instance_type.as_str()), ("111122223333", "m5d.xlarge"));
            assert!(document.contains("ami-1234567890abcdef0") && rsa2048.unwrap().contains('\n'));
        });
    }
}

#[test]
fn no_imds_is_no_error_and_does_not_take_long() {
    let server = Server::start_blocking(fake_aws::Options::default()).unwrap();
    let env = instance(&server);
    drop(server);
    if in_child("calls::no_imds_is_no_error_and_does_not_take_long", &env) {
        block_on(async {
            let start = Instant::now();
            assert_eq!(Imds::new(config::Imds::default()).instance_id().await.unwrap(), None);
            assert_eq!(Imds::new(config::Imds::default()).block_device_mapping().await.unwrap(), None);
            assert_eq!(Imds::new(config::Imds::default()).identity_document().await.unwrap(), None);
            assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        });
    }
}

#[test]
fn imds_that_is_turned_off_says_how_to_turn_it_on() {
    let server = Server::start_blocking(fake_aws::Options::default()).unwrap();
    let off = Effect::Error { code: "Forbidden".to_owned(), status: Some(403), message: None };
    server.push_fault(Scripted::new("imds:*", off));
    if in_child("calls::imds_that_is_turned_off_says_how_to_turn_it_on", &instance(&server)) {
        block_on(async {
            let error = Imds::new(config::Imds::default()).instance_id().await.unwrap_err();
            assert!(error.to_string().contains("--http-endpoint enabled"), "{error}");
        });
    }
}

#[test]
fn no_log_shows_the_data_key_and_every_wait_is_logged() {
    if in_child("calls::no_log_shows_the_data_key_and_every_wait_is_logged", &[]) {
        let captured = Captured::default();
        let writer = captured.clone();
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .init();
        let made = block_on(async {
            let server = server().await;
            server.push_fault(Scripted::error("GenerateDataKey", "ThrottlingException").times(1));
            server.push_fault(Scripted::new("Decrypt", Effect::TruncatedJson).times(1));
            let kms = connect(&config(&server, KEY)).await;
            let made = kms.generate().await.unwrap();
            kms.unwrap(&made.source()).await.unwrap();
            made
        });
        let log = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
        let passphrase = made.data_key.passphrase();
        assert!(!log.contains(std::str::from_utf8(passphrase.expose()).unwrap()));
        assert!(log.contains("KMS GenerateDataKey failed, trying again in"), "{log}");
        assert!(log.contains("ThrottlingException"));
        assert!(log.contains("KMS Decrypt failed, trying again in"));
    }
}

#[tokio::test]
async fn trials_tell_what_is_allowed_and_make_no_key() {
    let server = server().await;
    let kms = connect(&config(&server, "alias/luks-agent")).await;
    let described = kms.describe_configured().await.unwrap();
    assert_eq!(described.arn, Some(server.key_arn()));
    assert!(described.kind.is_ok() && described.state.1.is_ok());
    assert_eq!(kms.try_generate(&server.key_arn()).await.unwrap(), None);
    kms.try_unwrap_any(&server.key_arn()).await.unwrap();
    let real = |server: &Server| server.requests().iter().filter(|r| r.status == Some(200) && !r.dry_run).count();
    assert_eq!(real(&server), 1, "{:?}", server.requests());

    // a policy that denies describing the key does not hide what else is missing
    server.set_allow(Some(&["GenerateDataKey"]));
    let denied = kms.describe_configured().await.unwrap_err();
    assert_eq!(denied.denial().unwrap().resource, Some(server.key_arn()));
    let denied = kms.try_unwrap_any("alias/luks-agent").await.unwrap_err();
    assert_says(&denied, Class::Denied, Fault::Unavailable, &["lacks kms:Decrypt on alias/luks-agent"]);
    assert!(denied.what().starts_with("access denied: ") && denied.remedy().unwrap().starts_with("allow kms:Decrypt"));
    kms.try_generate(&server.key_arn()).await.unwrap();
    server.set_allow(None);

    server.set_key_state(KEY, KeyState::Disabled).unwrap();
    let (state, usable) = kms.describe_configured().await.unwrap().state;
    assert_eq!(state.name, "Disabled");
    assert_says(&usable.unwrap_err(), Class::KeyState, Fault::Unavailable, &["is disabled", "enable-key"]);
}

#[tokio::test]
async fn a_service_without_dry_runs_makes_a_key_that_is_wiped_and_can_be_tried() {
    let server = server().await;
    let kms = connect(&config(&server, KEY)).await;
    server.push_fault(Scripted::new("kms:*", Effect::IgnoreDryRun));
    let wrapped = kms.try_generate(&server.key_arn()).await.unwrap().expect("no wrapped key");
    kms.try_unwrap(&wrapped, &server.key_arn()).await.unwrap();
    let unknown = kms.try_unwrap_any(&server.key_arn()).await.unwrap_err();
    assert!(unknown.is_invalid_request(), "{unknown}");
}

#[tokio::test]
async fn a_key_of_the_wrong_kind_is_described_and_told() {
    let server = server_with(fake_aws::Options {
        keys: vec![Key { manager: fake_aws::KeyManager::Aws, ..Key::default() }],
        ..fake_aws::Options::default()
    })
    .await;
    let described = connect(&config(&server, KEY)).await.describe_configured().await.unwrap();
    let kind = described.kind.unwrap_err();
    assert_says(&kind, Class::Configuration, Fault::Configuration, &["AWS managed key"]);
    assert!(described.state.1.is_ok());
}

#[test]
fn the_caller_is_named_by_sts_and_the_source_by_the_credentials() {
    let test = "calls::the_caller_is_named_by_sts_and_the_source_by_the_credentials";
    let server = Server::start_blocking(fake_aws::Options::default()).unwrap();
    let env = [("AWS_ENDPOINT_URL", server.url()), ("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url())];
    if in_child(test, &env) {
        block_on(async {
            let kms = AwsKms::connect_with(&bare("alias/luks-agent", Duration::from_secs(30)), quick()).await.unwrap();
            let source = kms.credentials().await.unwrap();
            assert!(source.is_instance_role, "{source:?}");
            let arn = "arn:aws:sts::111122223333:assumed-role/luks-agent-node/i-1234567890abcdef0";
            assert_eq!(kms.caller().await.as_deref(), Ok(arn));
            assert_eq!(Imds::new(config::Imds::default()).role().await.unwrap().as_deref(), Some("luks-agent-node"));
            assert!(kms.clock_lead().unwrap().as_secs().abs() < 30);
        });
    }
}

#[test]
fn the_endpoint_of_kms_is_not_asked_who_the_caller_is() {
    let [kms_only, sts] = [(); 2].map(|()| Server::start_blocking(fake_aws::Options::default()).unwrap());
    let env = [("KMS", kms_only.url()), ("AWS_ENDPOINT_URL_STS", sts.url())];
    if in_child("calls::the_endpoint_of_kms_is_not_asked_who_the_caller_is", &env) {
        block_on(async {
            let config = config::Kms { endpoint_url: std::env::var("KMS").ok(), ..config(&kms_only, KEY) };
            connect(&config).await.caller().await.unwrap();
        });
        return;
    }
    assert_eq!((kms_only.requests().len(), sts.count("sts:GetCallerIdentity")), (0, 1));
}
