//! The key service against the fake AWS endpoint: what is asked, how failures are told apart, and what they say.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use fake_aws::{Effect, Fault as Scripted, Key, KeyKind, KeyManager, KeyState, Server, TestCa};
use luks_agent::config;
use luks_agent::imds::Imds;
use luks_agent::key::WrappedKey;
use luks_agent::kms::{AwsKms, Class, Fault, GeneratedKey, KeyService, KmsError, Limits, Options};

const KEY: &str = Key::DEFAULT_ID;

/// Short waits; whatever bounds the work itself is longer than a busy machine can make it take.
fn limits() -> Limits {
    Limits {
        connect: Duration::from_secs(10),
        attempt: Duration::from_secs(10),
        first_wait: Duration::from_millis(10),
        first_slow_wait: Duration::from_millis(20),
        longest_wait: Duration::from_millis(50),
        patience: Duration::from_secs(10),
        few: 3,
    }
}

fn config(server: &Server, key_id: &str) -> config::Kms {
    config::Kms {
        key_id: key_id.to_owned(),
        region: Some("us-east-1".to_owned()),
        endpoint_url: Some(server.url()),
        deadline: Duration::from_secs(60),
    }
}

async fn server() -> Server {
    server_with(fake_aws::Options::default()).await
}

async fn server_with(options: fake_aws::Options) -> Server {
    Server::start(options).await.unwrap()
}

async fn connect(config: &config::Kms) -> AwsKms {
    connect_within(config, limits()).await
}

async fn connect_within(config: &config::Kms, limits: Limits) -> AwsKms {
    let credentials = Credentials::new("AKIDTEST", "secret", None, None, "test");
    let options = Options { limits, credentials: Some(SharedCredentialsProvider::new(credentials)) };
    AwsKms::connect_with(config, options).await.unwrap()
}

async fn generate(server: &Server, key_id: &str) -> Result<GeneratedKey, KmsError> {
    connect(&config(server, key_id)).await.generate().await
}

async fn generate_fails(server: &Server, key_id: &str) -> KmsError {
    generate(server, key_id).await.unwrap_err()
}

#[track_caller]
fn assert_says(error: &KmsError, class: Class, fault: Fault, parts: &[&str]) {
    let text = error.to_string();
    assert_eq!((error.class(), error.fault()), (class, fault), "{text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

/// Runs the calling test again in a process of its own with just this environment: a process cannot change its own
/// without `unsafe`. True in that process.
fn in_child(test: &str, env: &[(&str, String)]) -> bool {
    const MARK: &str = "LUKS_AGENT_TEST_CHILD";
    if std::env::var(MARK).is_ok_and(|name| name == test) {
        return true;
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env_clear()
        .envs(env.iter().map(|(name, value)| (*name, value.as_str())))
        .env(MARK, test)
        .output()
        .unwrap();
    let printed = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (printed(&child.stdout), printed(&child.stderr));
    assert!(child.status.success() && out.contains("1 passed"), "{test} failed in its child:\n{out}\n{err}");
    false
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[tokio::test]
async fn a_key_is_described_generated_and_unwrapped_with_one_call_each_and_no_context() {
    let server = server().await;
    let kms = connect(&config(&server, "alias/luks-agent")).await;
    let made = kms.generate().await.unwrap();
    assert_eq!(made.key_arn, server.key_arn());
    let again = kms.unwrap(&made.wrapped_key, &made.key_arn).await.unwrap();
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
async fn passing_failures_are_tried_again() {
    let code = |code: &str| Effect::Error { code: code.to_owned(), status: None, message: None };
    for effect in [
        code("ThrottlingException"),
        code("KMSInternalException"),
        code("DependencyTimeoutException"),
        code("KeyUnavailableException"),
        code("LimitExceededException"),
        code("AccessDeniedException"),
        code("UnrecognizedClientException"),
        code("ExpiredTokenException"),
        code("InvalidSignatureException"),
        Effect::Raw { status: 503, body: "<html>busy</html>".to_owned(), content_type: "text/html".to_owned() },
        Effect::Close,
        Effect::Reset,
        Effect::CloseMidBody,
        Effect::TruncatedJson,
    ] {
        let server = server().await;
        for operation in ["DescribeKey", "GenerateDataKey", "Decrypt"] {
            server.push_fault(Scripted::new(operation, effect.clone()).times(1));
        }
        let kms = connect(&config(&server, KEY)).await;
        let made = kms.generate().await.unwrap_or_else(|e| panic!("{effect:?}: {}", e));
        let again = kms.unwrap(&made.wrapped_key, &made.key_arn).await;
        assert!(again.unwrap().same_as(&made.data_key), "{effect:?}");
        assert_eq!(server.requests().len(), 6, "{effect:?}");
    }
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_not_waited_for() {
    for effect in [Effect::Hang, Effect::StallMidBody] {
        let server = server().await;
        server.push_fault(Scripted::new("GenerateDataKey", effect.clone()).times(1));
        let kms = connect_within(&config(&server, KEY), Limits { attempt: Duration::from_secs(1), ..limits() }).await;
        kms.generate().await.unwrap_or_else(|e| panic!("{effect:?}: {e}"));
        assert!(server.count("GenerateDataKey") >= 2, "{effect:?}");
    }
}

#[tokio::test]
async fn what_does_not_pass_ends_at_the_deadline_with_cause_and_remedy() {
    let server = server().await;
    let mut config = config(&server, KEY);
    config.deadline = Duration::from_secs(1);
    let short = Limits { attempt: Duration::from_millis(300), ..limits() };
    let cases = [
        (Effect::Hang, "did not answer in time"),
        (Effect::Reset, "cannot reach http://127.0.0.1"),
        (Effect::Error { code: "ThrottlingException".into(), status: None, message: None }, "KMS answered Throttling"),
    ];
    for (effect, text) in cases {
        server.clear_faults();
        server.push_fault(Scripted::new("DescribeKey", effect));
        let start = Instant::now();
        let error = connect_within(&config, short.clone()).await.generate().await.unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(9), "{:?}", start.elapsed());
        assert_says(&error, Class::Transient, Fault::Unavailable, &["KMS DescribeKey with KMS key 1234abcd", text]);
    }
    assert_eq!(server.count("GenerateDataKey"), 0);

    let closed = server.url();
    server.stop().await;
    let error = connect(&config).await.generate().await.unwrap_err();
    let reach = format!("see whether this node can reach {closed}: route");
    assert_says(&error, Class::Transient, Fault::Unavailable, &["Connection refused", "attempts in", &reach]);
}

#[tokio::test]
async fn a_denial_names_who_lacks_which_action_on_which_key() {
    let server = server().await;
    let arn = &server.key_arn();
    let actions = ["DescribeKey", "GenerateDataKey", "Decrypt"];
    let made = generate(&server, KEY).await.unwrap();
    for action in actions {
        let others: Vec<_> = actions.into_iter().filter(|a| *a != action).collect();
        server.set_allow(Some(&others));
        let impatient = Limits { patience: Duration::from_millis(200), ..limits() };
        let kms = connect_within(&config(&server, arn), impatient).await;
        let error = match action {
            "Decrypt" => kms.unwrap(&made.wrapped_key, arn).await.unwrap_err(),
            _ => kms.generate().await.unwrap_err(),
        };
        let who = "arn:aws:sts::111122223333:assumed-role/luks-agent-node/";
        let lacks = format!("lacks kms:{action} on {arn}");
        let allow = format!("allow kms:{action} on this key in the key policy");
        assert_says(&error, Class::Denied, Fault::Unavailable, &[who, &lacks, &allow, "AccessDeniedException"]);
        assert!(error.request_id().is_some());
    }
}

#[tokio::test]
async fn keys_that_may_not_be_used_are_refused_before_anything_is_generated() {
    let mut aws = Key::new("aws-managed").alias("alias/aws/ebs");
    aws.manager = KeyManager::Aws;
    let kind = |id: &str, kind| Key { kind, ..Key::new(id) };
    let keys = vec![aws, kind("rsa", KeyKind::Rsa), kind("ecc", KeyKind::Ecc), kind("hmac", KeyKind::Hmac)];
    let server = server_with(fake_aws::Options { keys, ..fake_aws::Options::default() }).await;
    for (key, text) in [
        ("alias/aws/ebs", "an AWS managed key"),
        ("rsa", "an asymmetric key (RSA_2048)"),
        ("ecc", "an asymmetric key (ECC_NIST_P256)"),
        ("hmac", "an HMAC key (HMAC_256)"),
    ] {
        let error = generate_fails(&server, key).await;
        assert_says(&error, Class::Configuration, Fault::Configuration, &[text, "give a customer managed, symmetric"]);
    }
    let arn = "arn:aws:kms:us-east-1:111122223333:key/none";
    for key in ["none", "alias/none", arn] {
        let error = generate_fails(&server, key).await;
        let (this, key) = ("no such KMS key", format!("with KMS key {key}: "));
        assert_says(&error, Class::Configuration, Fault::Configuration, &[this, &key, "correct kms.key_id"]);
        assert_eq!(error.code(), Some("NotFoundException"));
    }
    assert_eq!(server.count("GenerateDataKey"), 0);
    assert_eq!(server.count("DescribeKey"), 7, "nothing is tried again");
}

#[tokio::test]
async fn states_of_the_key_are_named() {
    let server = server().await;
    let made = generate(&server, KEY).await.unwrap();
    for (state, text, remedy) in [
        (KeyState::Disabled, "the KMS key is disabled", "enable-key"),
        (KeyState::PendingDeletion, "the KMS key is to be deleted on 20", "cancel-key-deletion"),
        (KeyState::PendingImport, "no key material", "import-key-material"),
    ] {
        server.set_key_state(KEY, state).unwrap();
        server.clear_requests();
        let error = generate_fails(&server, KEY).await;
        assert_says(&error, Class::KeyState, Fault::Unavailable, &[text, remedy]);
        assert_eq!((server.count("DescribeKey"), server.count("GenerateDataKey")), (1, 0));

        let kms = connect(&config(&server, KEY)).await;
        let error = kms.unwrap(&made.wrapped_key, &made.key_arn).await.unwrap_err();
        assert_says(&error, Class::KeyState, Fault::Unavailable, &["KMS Decrypt", text, remedy]);
        assert_eq!(server.count("Decrypt"), 1);

        // without kms:DescribeKey, what Decrypt said must do
        server.set_allow(Some(&["Decrypt"]));
        let error = kms.unwrap(&made.wrapped_key, &made.key_arn).await.unwrap_err();
        assert_says(&error, Class::KeyState, Fault::Unavailable, &["KMS Decrypt", "the KMS key "]);
        server.set_allow(None);
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
        let (key, ()) = tokio::join!(kms.unwrap(&made.wrapped_key, &made.key_arn), enable);
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
        let key = kms.unwrap(&made.wrapped_key, &made.key_arn).await.unwrap();
        assert!(key.same_as(&made.data_key), "{code}");
    }
}

#[tokio::test]
async fn answers_that_cannot_be_right_are_errors() {
    let server = server().await;
    for (effect, class, text) in [
        (Effect::PlaintextLength { bytes: 16 }, Class::Unexpected, "the data key has 16 bytes, expected 32"),
        (Effect::PlaintextLength { bytes: 0 }, Class::Unexpected, "the data key has 0 bytes"),
        (Effect::EmptyCiphertext, Class::Unexpected, "the wrapped key has 0 bytes"),
        (Effect::WrongKeyId, Class::Unexpected, "KMS answered for another key, arn:aws:kms:"),
    ] {
        server.clear_faults();
        server.clear_requests();
        server.push_fault(Scripted::new("GenerateDataKey", effect));
        let error = generate_fails(&server, KEY).await;
        assert_says(&error, class, Fault::Data, &["KMS GenerateDataKey", text]);
        assert_eq!(server.count("GenerateDataKey"), 1);
    }
    server.clear_faults();
    let made = generate(&server, KEY).await.unwrap();
    let kms = connect(&config(&server, KEY)).await;
    server.push_fault(Scripted::new("Decrypt", Effect::WrongKeyId));
    let error = kms.unwrap(&made.wrapped_key, &made.key_arn).await.unwrap_err();
    assert_says(&error, Class::WrappedKey, Fault::Data, &["KMS answered for another key"]);
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_is_not_shown() {
    let server = server().await;
    server.push_fault(Scripted::new("GenerateDataKey", Effect::TruncatedJson));
    let error = generate_fails(&server, KEY).await;
    assert_says(&error, Class::Garbled, Fault::Data, &["cannot be read", "3 attempts in"]);
    let shown = format!("{error} {error:?} {error:#?}");
    assert!(!shown.contains("Plaintext") && !shown.contains("CiphertextBlob"), "{shown}");
    assert!(shown.len() < 2000, "{shown}");
}

#[tokio::test]
async fn a_damaged_wrapped_key_or_another_key_is_told_at_once() {
    let keys = vec![Key::default(), Key::new("other")];
    let server = server_with(fake_aws::Options { keys, ..fake_aws::Options::default() }).await;
    let kms = connect(&config(&server, KEY)).await;
    let made = kms.generate().await.unwrap();

    let mut blob = made.wrapped_key.as_bytes().to_vec();
    *blob.last_mut().unwrap() ^= 1;
    let error = kms.unwrap(&WrappedKey::new(blob).unwrap(), &made.key_arn).await.unwrap_err();
    let parts = ["the wrapped key is damaged", "from the LUKS2 token of a volume"];
    assert_says(&error, Class::WrappedKey, Fault::Data, &parts);

    let other = made.key_arn.replace(KEY, "other");
    let error = kms.unwrap(&made.wrapped_key, &other).await.unwrap_err();
    assert_says(&error, Class::WrappedKey, Fault::Data, &["another KMS key wrapped the wrapped key"]);
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

    // what the state file names counts, not what is configured by now
    config.key_id = "alias/luks-agent".to_owned();
    config.region = Some("us-east-1".to_owned());
    connect(&config).await.unwrap(&made.wrapped_key, &made.key_arn).await.unwrap();
    assert_eq!(server.requests()[2].signed_region.as_deref(), Some("eu-west-1"));
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

/// Environment of an instance, and nothing else.
fn instance(server: &Server) -> Vec<(&'static str, String)> {
    vec![("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url()), ("AWS_ENDPOINT_URL_KMS", server.url())]
}

fn bare(key_id: &str, deadline: Duration) -> config::Kms {
    config::Kms { key_id: key_id.to_owned(), region: None, endpoint_url: None, deadline }
}

fn quick() -> Options {
    Options { limits: limits(), credentials: None }
}

#[test]
fn on_an_instance_region_and_credentials_come_from_imds() {
    let server = Server::start_blocking(fake_aws::Options::default()).unwrap();
    // up only after a while, as at boot
    server.push_fault(Scripted::error("imds:token", "Service Unavailable").times(1));
    server.push_fault(Scripted::new("imds:role", Effect::Close).times(1));
    if in_child("on_an_instance_region_and_credentials_come_from_imds", &instance(&server)) {
        return block_on(async {
            let config = bare("alias/luks-agent", Duration::from_secs(60));
            AwsKms::connect_with(&config, quick()).await.unwrap().generate().await.unwrap();
        });
    }
    let request = server.requests().into_iter().find(|r| r.operation == "GenerateDataKey").unwrap();
    assert_eq!(request.access_key_id.as_deref(), Some(fake_aws::Options::ACCESS_KEY_ID));
    assert_eq!(request.signed_region.as_deref(), Some("us-east-1"));
    assert_eq!(server.count("GenerateDataKey"), 1);
}

#[test]
fn an_instance_without_a_role_is_told_to_get_one() {
    let options = fake_aws::Options { role: None, ..fake_aws::Options::default() };
    let server = Server::start_blocking(options).unwrap();
    if in_child("an_instance_without_a_role_is_told_to_get_one", &instance(&server)) {
        return block_on(async {
            let config = bare("alias/luks-agent", Duration::from_secs(2));
            let kms = AwsKms::connect_with(&config, quick()).await.unwrap();
            let error = kms.generate().await.unwrap_err();
            let parts = ["no AWS credentials", "role: received 404 from IMDS (", "attach an instance profile"];
            assert_says(&error, Class::NoCredentials, Fault::Unavailable, &parts);
        });
    }
    assert_eq!(server.count("DescribeKey"), 0);
}

#[test]
fn without_imds_missing_credentials_or_region_fail_at_once() {
    let env = [("AWS_EC2_METADATA_DISABLED", "true".to_owned())];
    if in_child("without_imds_missing_credentials_or_region_fail_at_once", &env) {
        block_on(async {
            let start = Instant::now();
            let hour = Duration::from_secs(3600);
            let error = AwsKms::connect(&bare("alias/x", hour)).await.unwrap_err();
            assert_says(&error, Class::Configuration, Fault::Configuration, &["no region", "set kms.region"]);
            let kms = AwsKms::connect(&bare("arn:aws:kms:us-east-1:111122223333:key/x", hour)).await.unwrap();
            let error = kms.generate().await.unwrap_err();
            let parts = ["no AWS credentials", "role: IMDS disabled by AWS_EC2_METADATA_DISABLED"];
            assert_says(&error, Class::NoCredentialSource, Fault::Unavailable, &parts);
            assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
            assert_eq!(Imds::new().instance_id().await.unwrap(), None);
        });
    }
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
    if in_child("elsewhere_region_and_credentials_come_from_the_environment", &env) {
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
    if in_child("a_ca_of_the_system_trust_store_is_trusted", &tls_env(&server, file.path())) {
        return block_on(async {
            let config = bare("alias/luks-agent", Duration::from_secs(60));
            AwsKms::connect(&config).await.unwrap().generate().await.unwrap();
        });
    }
    assert!(server.requests().iter().all(|r| r.tls));
    assert_eq!(server.count("GenerateDataKey"), 1);
}

#[track_caller]
fn certificate_refused(parts: &[&str]) {
    let start = Instant::now();
    let error = block_on(async {
        let config = bare("alias/luks-agent", Duration::from_secs(600));
        AwsKms::connect(&config).await.unwrap().generate().await.unwrap_err()
    });
    assert_says(&error, Class::Certificate, Fault::Unavailable, parts);
    assert!(start.elapsed() < Duration::from_secs(60), "it is not tried again");
}

#[test]
fn an_unknown_certificate_is_refused() {
    let ca = TestCa::new().unwrap();
    let (server, file) = (tls_server(&ca, "127.0.0.1"), ca_file(&TestCa::new().unwrap()));
    if in_child("an_unknown_certificate_is_refused", &tls_env(&server, file.path())) {
        return certificate_refused(&[
            "the certificate of https://127.0.0.1:",
            "is not trusted by the system",
            "update-ca-certificates",
            "invalid peer certificate",
        ]);
    }
    assert!(server.requests().is_empty());
}

#[test]
fn a_certificate_for_another_host_is_refused() {
    let ca = TestCa::new().unwrap();
    let (server, file) = (tls_server(&ca, "kms.test"), ca_file(&ca));
    if in_child("a_certificate_for_another_host_is_refused", &tls_env(&server, file.path())) {
        return certificate_refused(&["is for another host", "correct kms.endpoint_url"]);
    }
    assert!(server.requests().is_empty());
}

#[test]
fn a_system_without_ca_certificates_can_do_without_tls() {
    let server = Server::start_blocking(fake_aws::Options::default()).unwrap();
    let mut env = tls_env(&server, std::path::Path::new("/nonexistent/ca.pem"));
    env[0].1 = server.url();
    if in_child("a_system_without_ca_certificates_can_do_without_tls", &env) {
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
    if in_child("imds_names_instance_region_and_devices", &instance(&server)) {
        block_on(async {
            let imds = Imds::new();
            assert_eq!(imds.instance_id().await.unwrap().as_deref(), Some("i-1234567890abcdef0"));
            assert_eq!(imds.region().await.unwrap().as_deref(), Some("us-east-1"));
            assert_eq!(imds.block_device_mapping().await.unwrap(), Some(mapping));
        });
    }
}

#[test]
fn no_imds_is_no_error_and_does_not_take_long() {
    let server = Server::start_blocking(fake_aws::Options::default()).unwrap();
    let env = instance(&server);
    drop(server);
    if in_child("no_imds_is_no_error_and_does_not_take_long", &env) {
        block_on(async {
            let start = Instant::now();
            assert_eq!(Imds::new().instance_id().await.unwrap(), None);
            assert_eq!(Imds::new().block_device_mapping().await.unwrap(), None);
            assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        });
    }
}

#[test]
fn imds_that_is_turned_off_says_how_to_turn_it_on() {
    let server = Server::start_blocking(fake_aws::Options::default()).unwrap();
    let off = Effect::Error { code: "Forbidden".to_owned(), status: Some(403), message: None };
    server.push_fault(Scripted::new("imds:*", off));
    if in_child("imds_that_is_turned_off_says_how_to_turn_it_on", &instance(&server)) {
        block_on(async {
            let error = Imds::new().instance_id().await.unwrap_err();
            assert!(error.to_string().contains("--http-endpoint enabled"), "{error}");
        });
    }
}

/// Everything that is logged, by everybody.
#[derive(Clone, Default)]
struct Captured(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn no_log_shows_the_data_key_and_every_wait_is_logged() {
    if in_child("no_log_shows_the_data_key_and_every_wait_is_logged", &[]) {
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
            kms.unwrap(&made.wrapped_key, &made.key_arn).await.unwrap();
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
