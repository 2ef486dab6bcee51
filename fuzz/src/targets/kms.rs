//! Answers of KMS: first the line `generate` or `unwrap`, then the answers, lines `%%` between them.

use std::sync::{LazyLock, Mutex};
use std::time::Duration;
use std::{io, mem};

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use luks_agent::config;
use luks_agent::key::{DataKey, KeySource, WrappedKey};
use luks_agent::kms::{AwsKms, GeneratedKey, KeyService, KmsError, Options};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::header::KEY_ARN;
use crate::http::{Exchange, MARKER, MARKER_BYTES, Scripted};

const DEADLINE: Duration = Duration::from_secs(30);

enum Outcome {
    Generated(GeneratedKey),
    Unwrapped(DataKey),
    Failed(KmsError),
}

pub(crate) fn run(data: &[u8]) -> String {
    thread_local! {
        static RUNTIME: Runtime =
            Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    }
    let mut parts = super::split(data);
    let generate = parts.remove(0) == b"generate";
    let http = Scripted::new(&parts);
    // the waits between attempts are random
    fastrand::seed(1);
    log();
    let (outcome, took) = RUNTIME.with(|runtime| runtime.block_on(ask(&http, generate)));
    assert!(took <= DEADLINE + Duration::from_secs(1), "it took {took:?}");
    let exchanges = http.exchanges();
    assert!(exchanges.len() < 200, "{} requests", exchanges.len());

    let log = log();
    let text = match outcome {
        Outcome::Generated(key) => {
            let answer = accepted(&exchanges, "GenerateDataKey");
            assert!(generate && key.key_arn == described(&exchanges).unwrap_or_else(|| KEY_ARN.to_owned()));
            assert_eq!(answer["KeyId"].as_str().map(same_key), Some(same_key(&key.key_arn)), "another KMS key");
            assert_eq!(decoded(&answer["CiphertextBlob"]), key.wrapped_key.as_bytes());
            assert_eq!(STANDARD.decode(key.data_key.passphrase().expose()).ok(), Some(decoded(&answer["Plaintext"])));
            format!("{key:?}")
        }
        Outcome::Unwrapped(key) => {
            let answer = accepted(&exchanges, "Decrypt");
            assert!(!generate);
            assert_eq!(answer["KeyId"].as_str().map(same_key), Some(same_key(KEY_ARN)), "another KMS key");
            assert_eq!(STANDARD.decode(key.passphrase().expose()).ok(), Some(decoded(&answer["Plaintext"])));
            format!("{key:?}")
        }
        Outcome::Failed(error) => {
            let mut text = format!("{error:?}");
            let mut cause: Option<&dyn std::error::Error> = Some(&error);
            while let Some(error) = cause {
                text = format!("{text}\n{error}\n{error:?}");
                cause = error.source();
            }
            text
        }
    };
    for said in [&text, &log] {
        assert!(!shows_the_marker(said), "key material is shown: {said}");
    }
    format!("{} {text}", exchanges.len())
}

async fn ask(http: &Scripted, generate: bool) -> (Outcome, Duration) {
    let config = config::Kms {
        key_id: Some(KEY_ARN.to_owned()),
        region: None,
        endpoint_url: Some("http://kms.test".to_owned()),
        fips: None,
        dual_stack: None,
        allow_http: true,
        deadline: DEADLINE,
    };
    let credentials = Credentials::new("AKIDTEST", "secret", None, None, "test");
    let options = Options { credentials: Some(SharedCredentialsProvider::new(credentials)), ..Options::default() };
    let since = Instant::now();
    let kms = AwsKms::connect_over(http.client(), &config, options).await.expect("the ARN names the region");
    let outcome = if generate {
        kms.generate().await.map_or_else(Outcome::Failed, Outcome::Generated)
    } else {
        let wrapped = WrappedKey::new(super::header::wrapped_key()).expect("64 bytes");
        kms.unwrap(&KeySource::aws_kms(wrapped, KEY_ARN)).await.map_or_else(Outcome::Failed, Outcome::Unwrapped)
    };
    (outcome, since.elapsed())
}

/// The answer that the result must come from: the last one, to this operation.
fn accepted(exchanges: &[Exchange], operation: &str) -> Value {
    let last = exchanges.last().expect("an exchange");
    assert_eq!(last.asked, operation);
    assert!(last.status.is_some_and(|status| (200..300).contains(&status)), "{:?}", last.status);
    let answer: Value = serde_json::from_slice(&last.body).expect("JSON");
    assert_eq!(decoded(&answer["Plaintext"]).len(), 32);
    answer
}

/// The ARN of the KMS key that was found fit for use; none if the service had no time for the question.
fn described(exchanges: &[Exchange]) -> Option<String> {
    // later ones explain why GenerateDataKey failed
    let first = exchanges.iter().take_while(|e| e.asked != "GenerateDataKey");
    let looked = first.filter(|e| e.asked == "DescribeKey").last().expect("a key is looked at first");
    if !looked.status.is_some_and(|status| (200..300).contains(&status)) {
        return None;
    }
    let answer: Value = serde_json::from_slice(&looked.body).expect("JSON");
    let key = &answer["KeyMetadata"];
    assert_eq!(key["KeyManager"], "CUSTOMER");
    assert_eq!(key["KeySpec"], "SYMMETRIC_DEFAULT");
    assert_eq!(key["KeyUsage"], "ENCRYPT_DECRYPT");
    assert_eq!(key["KeyState"], "Enabled");
    Some(key["Arn"].as_str().expect("an ARN").to_owned())
}

/// An ARN, without the Region if it is of a multi-Region key.
fn same_key(arn: &str) -> String {
    match arn.split(':').collect::<Vec<_>>()[..] {
        ["arn", partition, "kms", _, account, key] if key.starts_with("key/mrk-") => {
            format!("{partition} {account} {key}")
        }
        _ => arn.to_owned(),
    }
}

fn decoded(value: &Value) -> Vec<u8> {
    STANDARD.decode(value.as_str().unwrap_or_default()).expect("base64")
}

/// As text, decoded, and as the numbers of a byte list.
fn shows_the_marker(text: &str) -> bool {
    let numbers = format!("{:?}", &MARKER_BYTES[..12]);
    let raw = std::str::from_utf8(&MARKER_BYTES[..12]).expect("ASCII");
    [&MARKER[..16], &MARKER[20..36], raw, numbers.trim_matches(['[', ']'])].iter().any(|form| text.contains(form))
}

/// What was logged since the last call, at the levels that the program logs at most.
fn log() -> String {
    static LINES: LazyLock<Mutex<Vec<u8>>> = LazyLock::new(|| {
        let filter = Targets::new().with_target("luks_agent", LevelFilter::TRACE).with_default(LevelFilter::WARN);
        let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(|| Lines).with_filter(filter);
        tracing_subscriber::registry().with(lines).init();
        Mutex::default()
    });

    struct Lines;

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            LINES.lock().expect("nobody panics with it").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let lines = mem::take(&mut *LINES.lock().expect("nobody panics with it"));
    String::from_utf8_lossy(&lines).into_owned()
}
