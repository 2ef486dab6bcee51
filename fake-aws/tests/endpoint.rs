//! The endpoint as the AWS SDK and a plain HTTP client see it.
#![allow(clippy::unwrap_used, missing_docs)]

use std::error::Error as _;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use aws_config::imds::credentials::ImdsCredentialsProvider;
use aws_config::imds::region::ImdsRegionProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::{BehaviorVersion, Region, imds};
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials as _;
use aws_sdk_kms::Client;
use aws_sdk_kms::config::timeout::TimeoutConfig;
use aws_sdk_kms::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{DataKeySpec, DryRunModifierType, KeyManagerType, KeyState as SdkKeyState};
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use fake_aws::{Effect, Fault, Key, KeyKind, KeyManager, KeyState, Options, Server, TestCa};
use serde_json::{Value, json};

fn config(url: String) -> aws_sdk_kms::config::Builder {
    aws_sdk_kms::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(url)
        .credentials_provider(Credentials::for_tests_with_session_token())
        .retry_config(RetryConfig::disabled())
}

fn client(server: &Server) -> Client {
    Client::from_conf(config(server.url()).build())
}

fn code<T: std::fmt::Debug, E: ProvideErrorMetadata>(result: Result<T, SdkError<E>>) -> String {
    result.map(|_| ()).unwrap_err().code().unwrap_or("no code").to_owned()
}

async fn wrapped_key(client: &Client) -> Blob {
    let answer = client.generate_data_key().key_id("alias/luks-agent").key_spec(DataKeySpec::Aes256).send();
    answer.await.unwrap().ciphertext_blob.unwrap()
}

#[tokio::test]
async fn the_sdk_describes_generates_and_decrypts() {
    let server = Server::start(Options::default()).await.unwrap();
    let client = client(&server);
    let metadata = client.describe_key().key_id("alias/luks-agent").send().await.unwrap().key_metadata.unwrap();
    assert_eq!(metadata.arn, Some(server.key_arn()));
    assert_eq!(metadata.key_manager, Some(KeyManagerType::Customer));
    assert!(metadata.enabled && metadata.deletion_date.is_none() && metadata.current_key_material_id.is_some());

    let generated = client.generate_data_key().key_id(server.key_arn()).key_spec(DataKeySpec::Aes256);
    let generated = generated.send().await.unwrap();
    assert_eq!(generated.key_id, Some(server.key_arn()));
    let blob = generated.ciphertext_blob.unwrap();
    let decrypted = client.decrypt().key_id(server.key_arn()).ciphertext_blob(blob.clone()).send().await.unwrap();
    assert_eq!(decrypted.plaintext.as_ref().unwrap().as_ref().len(), 32);
    assert!(decrypted.plaintext == generated.plaintext);
    assert_eq!(decrypted.key_id, Some(server.key_arn()));

    client.decrypt().ciphertext_blob(blob.clone()).encryption_context("a", "b").send().await.unwrap_err();
    let requests = server.requests();
    let operations: Vec<_> = requests.iter().map(|request| request.operation.as_str()).collect();
    assert_eq!(operations, ["DescribeKey", "GenerateDataKey", "Decrypt", "Decrypt"]);
    assert_eq!(requests[1].key_spec.as_deref(), Some("AES_256"));
    assert_eq!(requests[1].signed_region.as_deref(), Some("us-east-1"));
    assert_eq!(requests[1].access_key_id.as_deref(), Some("ANOTREAL"));
    assert!(requests[1].user_agent.as_deref().unwrap().starts_with("aws-sdk-rust/"));
    assert_eq!(requests[2].encryption_context, None);
    assert_eq!(requests[2].status, Some(200));
    assert_eq!(requests[3].encryption_context, Some(json!({ "EncryptionContext": { "a": "b" } })));
    assert_eq!(requests[3].error.as_deref(), Some("InvalidCiphertextException"));
}

#[tokio::test]
async fn every_error_has_its_code() {
    let mut options = Options::default();
    options.keys.push(Key { kind: KeyKind::Rsa, ..Key::new("rsa") });
    options.keys.push(Key { manager: KeyManager::Aws, ..Key::new("ebs").alias("alias/aws/ebs") });
    options.keys.push(Key::new("second"));
    let server = Server::start(options).await.unwrap();
    let client = client(&server);
    let generate = |key: &str| client.generate_data_key().key_id(key).key_spec(DataKeySpec::Aes256).send();
    assert_eq!(code(generate("nothing").await), "NotFoundException");
    assert_eq!(code(generate("rsa").await), "InvalidKeyUsageException");
    assert_eq!(code(generate("alias/aws/ebs").await), "AccessDeniedException");
    let ebs = client.describe_key().key_id("alias/aws/ebs").send().await.unwrap().key_metadata.unwrap();
    assert_eq!(ebs.key_manager, Some(KeyManagerType::Aws));

    let blob = wrapped_key(&client).await;
    let decrypt = |key: &str, blob: &Blob| client.decrypt().key_id(key).ciphertext_blob(blob.clone()).send();
    assert_eq!(code(decrypt("second", &blob).await), "IncorrectKeyException");
    let mut damaged = blob.clone().into_inner();
    damaged[60] ^= 1;
    assert_eq!(code(decrypt(Key::DEFAULT_ID, &Blob::new(damaged)).await), "InvalidCiphertextException");
    let dry = client.decrypt().key_id(Key::DEFAULT_ID).dry_run(true);
    let ignoring = dry.clone().dry_run_modifiers(DryRunModifierType::IgnoreCiphertext);
    assert_eq!(code(dry.ciphertext_blob(blob.clone()).send().await), "DryRunOperationException");
    assert_eq!(code(ignoring.send().await), "DryRunOperationException");

    server.set_key_state(Key::DEFAULT_ID, KeyState::Disabled).unwrap();
    assert_eq!(code(decrypt(Key::DEFAULT_ID, &blob).await), "DisabledException");
    client.enable_key().key_id(Key::DEFAULT_ID).send().await.unwrap();
    client.schedule_key_deletion().key_id(Key::DEFAULT_ID).send().await.unwrap();
    assert_eq!(code(decrypt(Key::DEFAULT_ID, &blob).await), "KMSInvalidStateException");
    let metadata = client.describe_key().key_id(Key::DEFAULT_ID).send().await.unwrap().key_metadata.unwrap();
    assert_eq!(metadata.key_state, Some(SdkKeyState::PendingDeletion));
    assert!(metadata.deletion_date.is_some());

    server.set_allow(Some(&["Decrypt"]));
    let error = generate("second").await.unwrap_err();
    assert_eq!(error.code(), Some("AccessDeniedException"));
    assert_eq!(
        error.message().unwrap(),
        "User: arn:aws:sts::111122223333:assumed-role/luks-agent-node/i-1234567890abcdef0 is not authorized to perform: \
         kms:GenerateDataKey on resource: arn:aws:kms:us-east-1:111122223333:key/second because no identity-based \
         policy allows the kms:GenerateDataKey action"
    );
}

#[tokio::test]
async fn a_seed_keeps_wrapped_keys_readable_after_a_restart() {
    let options = || Options { seed: Some("a seed".to_owned()), ..Options::default() };
    let server = Server::start(options()).await.unwrap();
    let blob = wrapped_key(&client(&server)).await;
    server.stop().await;
    let server = Server::start(options()).await.unwrap();
    client(&server).decrypt().ciphertext_blob(blob).send().await.unwrap();
}

#[tokio::test]
async fn errors_by_fault_are_answered_as_often_as_asked_and_marked_in_the_log() {
    let server = Server::start(Options::default()).await.unwrap();
    let client = client(&server);
    server.push_fault(Fault::error("DescribeKey", "ThrottlingException").times(1));
    server.push_fault(Fault::error("DescribeKey", "KMSInternalException").times(1));
    let describe = || client.describe_key().key_id(Key::DEFAULT_ID).send();
    assert_eq!(code(describe().await), "ThrottlingException");
    assert_eq!(code(describe().await), "KMSInternalException");
    describe().await.unwrap();
    let log = server.requests().into_iter().map(|request| (request.status, request.fault));
    let error = Some("error".to_owned());
    assert!(log.eq([(Some(400), error.clone()), (Some(500), error), (Some(200), None)]));
}

#[tokio::test]
async fn broken_answers_reach_the_caller() {
    let server = Server::start(Options::default()).await.unwrap();
    let timeout = TimeoutConfig::builder().operation_timeout(Duration::from_millis(300)).build();
    let hasty = Client::from_conf(config(server.url()).timeout_config(timeout).build());
    let never = [Fault::new("*", Effect::Hang), Fault::new("*", Effect::StallMidBody), Fault::delay("*", 600_000)];
    for fault in never {
        server.push_fault(fault);
        let error = hasty.describe_key().key_id(Key::DEFAULT_ID).send().await.unwrap_err();
        assert!(matches!(error, SdkError::TimeoutError(_)));
        server.clear_faults();
    }
    let client = client(&server);
    let generate = || client.generate_data_key().key_id(Key::DEFAULT_ID).key_spec(DataKeySpec::Aes256).send();
    for effect in [Effect::Close, Effect::Reset, Effect::CloseMidBody, Effect::TruncatedJson] {
        server.push_fault(Fault::new("GenerateDataKey", effect.clone()).times(1));
        let error = generate().await.map(|_| ()).unwrap_err();
        // not printed: an SDK error holds the raw answer
        assert!(!matches!(error, SdkError::TimeoutError(_)) && error.code().is_none(), "{effect:?}");
    }
    let html = Effect::Raw { status: 502, body: "<html>".to_owned(), content_type: "text/html".to_owned() };
    server.push_fault(Fault::new("GenerateDataKey", html).times(1));
    assert_eq!(generate().await.map(|_| ()).unwrap_err().raw_response().unwrap().status().as_u16(), 502);
    server.push_fault(Fault::new("GenerateDataKey", Effect::PlaintextLength { bytes: 16 }).times(1));
    assert_eq!(generate().await.unwrap().plaintext.unwrap().as_ref().len(), 16);
    server.push_fault(Fault::new("GenerateDataKey", Effect::CiphertextLength { bytes: 0 }).times(1));
    assert_eq!(generate().await.unwrap().ciphertext_blob.unwrap().as_ref().len(), 0);
    server.push_fault(Fault::new("GenerateDataKey", Effect::WrongKeyId).times(1));
    assert_ne!(generate().await.unwrap().key_id, Some(server.key_arn()));
    server.push_fault(Fault::new("GenerateDataKey", Effect::Oversized { bytes: 100_000 }).times(1));
    generate().await.unwrap();
    generate().await.unwrap();
}

fn imds(server: &Server) -> imds::Client {
    // longer than the default of a second: the machine may be busy
    let wait = Duration::from_secs(30);
    let client = imds::Client::builder().connect_timeout(wait).read_timeout(wait).operation_attempt_timeout(wait);
    client.endpoint(server.url()).unwrap().max_attempts(1).build()
}

#[tokio::test]
async fn imds_gives_the_sdk_credentials_and_a_region() {
    let server = Server::start(Options { region: "eu-west-1".to_owned(), ..Options::default() }).await.unwrap();
    let provider = ImdsCredentialsProvider::builder().imds_client(imds(&server)).build();
    let credentials = provider.provide_credentials().await.unwrap();
    assert_eq!(credentials.access_key_id(), Options::ACCESS_KEY_ID);
    assert!(credentials.expiry().is_some() && credentials.session_token().is_some());
    let provider_config = ProviderConfig::default();
    let region = ImdsRegionProvider::builder().configure(&provider_config).imds_client(imds(&server)).build();
    assert_eq!(region.region().await, Some(Region::new("eu-west-1")));
    let operations: Vec<_> = server.requests().into_iter().map(|request| request.operation).collect();
    assert_eq!(operations[..3], ["imds:token", "imds:role", "imds:credentials"]);
}

#[tokio::test]
async fn imds_without_a_role_and_with_faults() {
    let server = Server::start(Options { role: None, ..Options::default() }).await.unwrap();
    let error = imds(&server).get("/latest/meta-data/iam/security-credentials/").await.unwrap_err();
    assert!(DisplayErrorContext(&error).to_string().contains("404"), "{error:?}");
    let mapping = imds(&server).get("/latest/meta-data/block-device-mapping/ami").await.unwrap();
    assert_eq!(mapping.as_ref(), "xvda");
    server.push_fault(Fault::error("imds:*", "Forbidden").times(1));
    imds(&server).get("/latest/meta-data/instance-id").await.unwrap_err();
    assert_eq!(server.requests().last().unwrap().operation, "imds:token");
}

/// What comes back for one request on a connection of its own, and how that ends.
fn exchange(server: &Server, request: &str, headers: &str, body: &str) -> (String, io::Result<usize>) {
    let mut stream = TcpStream::connect(server.addresses()[0]).unwrap();
    let length = body.len();
    let head = format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}");
    stream.write_all(format!("{head}\r\n{body}").as_bytes()).unwrap();
    let mut answer = Vec::new();
    let end = stream.read_to_end(&mut answer);
    (String::from_utf8(answer).unwrap(), end)
}

/// The whole answer to a request.
fn plain(server: &Server, request: &str, headers: &str, body: &str) -> String {
    let (answer, end) = exchange(server, request, headers, body);
    end.unwrap();
    answer
}

#[test]
fn connections_end_as_the_fault_says() {
    let server = Server::start_blocking(Options::default()).unwrap();
    let describe = |effect: Effect| {
        server.clear_faults();
        server.push_fault(Fault::new("DescribeKey", effect));
        let headers = "X-Amz-Target: TrentService.DescribeKey\r\nAuthorization: x\r\n";
        exchange(&server, "POST /", headers, r#"{"KeyId":"alias/luks-agent"}"#)
    };
    let (answer, end) = describe(Effect::Close);
    assert!(answer.is_empty() && end.is_ok());
    let (answer, end) = describe(Effect::Reset);
    assert!(answer.is_empty());
    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);

    let lengths = |answer: &str| {
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let promised = head.split_once("content-length: ").unwrap().1.lines().next().unwrap();
        (promised.parse::<usize>().unwrap(), body.len())
    };
    let (whole, body) = lengths(&describe(Effect::Pass).0);
    assert_eq!(whole, body);
    assert_eq!(lengths(&describe(Effect::CloseMidBody).0), (whole, whole / 2));
    assert_eq!(lengths(&describe(Effect::TruncatedJson).0), (whole - 1, whole - 1));
    assert_eq!(lengths(&describe(Effect::Oversized { bytes: 1 << 20 }).0), (1 << 20, 1 << 20));
    let faults: Vec<_> = server.requests().into_iter().map(|request| request.fault.unwrap()).collect();
    assert_eq!(faults, ["close", "reset", "pass", "close_mid_body", "truncated_json", "oversized"]);
}

#[test]
fn imds_wants_a_token() {
    let server = Server::start_blocking(Options::default()).unwrap();
    let ttl = "x-aws-ec2-metadata-token-ttl-seconds";
    let get = |headers: &str| plain(&server, "GET /latest/meta-data/instance-id", headers, "");
    let put = |headers: &str| plain(&server, "PUT /latest/api/token", headers, "");
    assert!(get("").starts_with("HTTP/1.1 401"));
    assert!(get("x-aws-ec2-metadata-token: none\r\n").starts_with("HTTP/1.1 401"));
    for bad in [String::new(), format!("{ttl}: 0\r\n"), format!("{ttl}: 21601\r\n"), format!("{ttl}: x\r\n")] {
        assert!(put(&bad).starts_with("HTTP/1.1 400"), "{bad}");
    }
    assert!(put(&format!("{ttl}: 60\r\nX-Forwarded-For: y\r\n")).starts_with("HTTP/1.1 403"));

    let token = |seconds: u32| {
        let answer = put(&format!("{ttl}: {seconds}\r\n"));
        assert!(answer.contains(&format!("{ttl}: {seconds}\r\n")), "{answer}");
        format!("x-aws-ec2-metadata-token: {}\r\n", answer.rsplit("\r\n").next().unwrap())
    };
    assert!(get(&token(600)).ends_with("\r\n\r\ni-1234567890abcdef0"));
    let header = token(1);
    let begun = Instant::now();
    while get(&header).starts_with("HTTP/1.1 200") {
        assert!(begun.elapsed() < Duration::from_secs(60), "the token does not expire");
    }
    assert!(get(&header).starts_with("HTTP/1.1 401"));
}

#[test]
fn a_request_without_a_signature_is_refused() {
    let server = Server::start_blocking(Options::default()).unwrap();
    let answer = plain(&server, "POST /", "X-Amz-Target: TrentService.DescribeKey\r\n", "{}");
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(answer.contains("content-type: application/x-amz-json-1.1\r\n") && answer.contains("x-amzn-requestid: "));
    assert!(answer.contains(r#""__type":"MissingAuthenticationTokenException""#));
}

#[test]
fn the_control_api_sets_faults_states_and_permissions_and_gives_the_log() {
    let server = Server::start_blocking(Options::default()).unwrap();
    let describe = || {
        let headers = "X-Amz-Target: TrentService.DescribeKey\r\nAuthorization: x\r\n";
        plain(&server, "POST /", headers, r#"{"KeyId":"alias/luks-agent"}"#)
    };
    let control = |request: &str, body: &str| {
        let answer = plain(&server, request, "", body);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        serde_json::from_str::<Value>(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    };
    control("POST /_fake/faults", r#"[{"on":"*","date_skew_seconds":-86400,"effect":{"error":{"code":"X"}}}]"#);
    let answer = describe();
    assert!(answer.contains(r#""__type":"X""#) && answer.matches("date: ").count() == 1, "{answer}");
    assert_eq!(control("GET /_fake/faults", "").as_array().unwrap().len(), 1);
    control("DELETE /_fake/faults", "");
    control("POST /_fake/keys/alias/luks-agent/state", r#"{"state":"Disabled"}"#);
    assert!(describe().contains(r#""KeyState":"Disabled""#));
    control("POST /_fake/allow", r#"["Decrypt"]"#);
    assert!(describe().contains("AccessDeniedException"));
    control("POST /_fake/allow", "null");
    assert_eq!(control("GET /_fake/requests", "").as_array().unwrap().len(), 3);
    control("DELETE /_fake/requests", "");
    assert_eq!(control("GET /_fake/requests", ""), json!([]));
    assert!(plain(&server, "POST /_fake/faults", "", "[{}]").starts_with("HTTP/1.1 400"));
}

#[tokio::test]
async fn tls_is_spoken_to_who_trusts_the_ca() {
    let ca = TestCa::new().unwrap();
    let identity = ca.identity(&["localhost", "127.0.0.1"]).unwrap();
    let tls_listen = vec!["127.0.0.1:0".parse().unwrap()];
    let server = Server::start(Options { tls_listen, tls: Some(identity), ..Options::default() }).await.unwrap();
    let client = |ca: &TestCa| {
        let trust = TrustStore::empty().with_pem_certificate(ca.pem().as_bytes());
        let context = TlsContext::builder().with_trust_store(trust).build().unwrap();
        let provider = Provider::Rustls(CryptoMode::AwsLc);
        let http = aws_smithy_http_client::Builder::new().tls_provider(provider).tls_context(context).build_https();
        Client::from_conf(config(server.tls_url()).http_client(http).build())
    };
    client(&ca).describe_key().key_id(Key::DEFAULT_ID).send().await.unwrap();
    assert!(server.requests()[0].tls);
    let stranger = TestCa::new().unwrap();
    let error = client(&stranger).describe_key().key_id(Key::DEFAULT_ID).send().await.unwrap_err();
    assert!(matches!(error, SdkError::DispatchFailure(_)) && error.source().is_some());
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn the_log_file_has_every_request_and_no_key_material() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let server = Server::start(Options { log_file: Some(path.clone()), ..Options::default() }).await.unwrap();
    let client = client(&server);
    client.encrypt().key_id(Key::DEFAULT_ID).plaintext(Blob::new("plain text")).send().await.unwrap();
    let blob = wrapped_key(&client).await;
    client.decrypt().ciphertext_blob(blob).send().await.unwrap();
    let text = std::fs::read_to_string(path).unwrap();
    let requests: Vec<fake_aws::Request> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(requests, server.requests());
    assert!(!text.contains("laintext") && !text.contains("cGxhaW4gdGV4dA"));
}

#[test]
fn a_dropped_server_ends_its_connections() {
    let server = Server::start_blocking(Options::default()).unwrap();
    let mut open = TcpStream::connect(server.addresses()[0]).unwrap();
    drop(server);
    // returns, be it with the end or with a reset
    let _ended = open.read_to_end(&mut Vec::new());
}
