//! Signing with an asymmetric KMS key.

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use fake_aws::{Fault as Scripted, Key, KeyKind, KeyState, Server};
use luks_agent::kms::{AwsKms, Class, Fault, KmsError, KmsSignature, Options};

use super::{bare, quick};

/// More than KMS takes as a message.
const MESSAGE: [u8; 5000] = [7; 5000];

async fn server(kind: KeyKind) -> Server {
    let keys = vec![Key { kind, ..Key::default() }];
    Server::start(fake_aws::Options { keys, ..fake_aws::Options::default() }).await.unwrap()
}

async fn sign(server: &Server, key_id: &str) -> Result<KmsSignature, KmsError> {
    let config = luks_agent::config::Kms {
        region: Some("us-east-1".to_owned()),
        endpoint_url: Some(server.url()),
        ..bare(key_id, std::time::Duration::from_secs(60))
    };
    let credentials = Credentials::new("AKIDTEST", "secret", None, None, "test");
    let options = Options { credentials: Some(SharedCredentialsProvider::new(credentials)), ..quick() };
    AwsKms::connect_with(&config, options).await.unwrap().sign(&MESSAGE).await
}

async fn refused(server: &Server, class: Class, fault: Fault, parts: &[&str]) {
    let error = sign(server, "alias/luks-agent").await.unwrap_err();
    let text = error.to_string();
    assert_eq!((error.class(), error.fault()), (class, fault), "{text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

#[tokio::test]
async fn each_kind_of_key_signs_the_digest_with_one_call_by_its_arn() {
    for kind in [KeyKind::Ecc, KeyKind::Ecc384, KeyKind::RsaForSignatures] {
        let server = server(kind).await;
        let signed = sign(&server, "alias/luks-agent").await.unwrap();
        assert!(signed.key_arn == server.key_arn() && signed.bytes.len() > 60, "{signed:?}");
        let requests = server.requests();
        let asked: Vec<_> = requests.iter().map(|r| (r.operation.as_str(), r.key_id.as_deref().unwrap())).collect();
        assert_eq!(asked, [("DescribeKey", "alias/luks-agent"), ("Sign", server.key_arn().as_str())]);
    }
}

#[tokio::test]
async fn a_key_that_cannot_sign_is_refused_before_sign_is_called() {
    for kind in [KeyKind::Symmetric, KeyKind::Rsa, KeyKind::Hmac] {
        let server = server(kind).await;
        refused(&server, Class::Configuration, Fault::Configuration, &["set audit.signing_key to"]).await;
        assert_eq!(server.count("Sign"), 0);
    }
    let server = server(KeyKind::Ecc).await;
    let error = sign(&server, "alias/none").await.unwrap_err().to_string();
    assert!(error.contains("alias/none") && error.contains("correct audit.signing_key"), "{error}");
}

#[tokio::test]
async fn failures_of_sign_say_what_to_do() {
    let server = server(KeyKind::Ecc).await;
    server.set_allow(Some(&["DescribeKey"]));
    refused(&server, Class::Denied, Fault::Unavailable, &["lacks kms:Sign on", "allow kms:Sign on this key"]).await;
    server.set_allow(None);
    server.push_fault(Scripted::error("Sign", "InvalidKeyUsageException"));
    refused(&server, Class::Configuration, Fault::Configuration, &["correct audit.signing_key"]).await;
    server.clear_faults();
    server.push_fault(Scripted::error("Sign", "ThrottlingException").times(2));
    sign(&server, "alias/luks-agent").await.unwrap();
    server.set_key_state("alias/luks-agent", KeyState::Disabled).unwrap();
    refused(&server, Class::KeyState, Fault::Unavailable, &["is disabled", "aws kms enable-key"]).await;
}
