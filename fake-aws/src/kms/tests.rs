#![allow(clippy::unwrap_used)]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;

use super::*;
use crate::key::{Key, KeyKind, Root};

fn kms(key: Key) -> Kms {
    let root = Root::new(Some("test")).unwrap();
    Kms::new("us-east-1", "111122223333", "arn:aws:sts::111122223333:x".to_owned(), root, vec![key], None)
}

fn code(answer: Answer) -> String {
    answer.unwrap_err().code
}

#[test]
fn finds_a_key_by_every_kind_of_name_and_answers_with_its_arn() {
    let kms = kms(Key::default());
    let arn = kms.arn(Key::DEFAULT_ID);
    let alias_arn = "arn:aws:kms:us-east-1:111122223333:alias/luks-agent";
    for name in [Key::DEFAULT_ID, &arn, "alias/luks-agent", alias_arn] {
        let answer = kms.call("GenerateDataKey", &json!({ "KeyId": name, "KeySpec": "AES_256" })).unwrap();
        assert_eq!(answer["KeyId"], arn, "{name}");
    }
    for name in ["alias/other", "other", "arn:aws:kms:eu-west-1:111122223333:alias/luks-agent", ""] {
        assert_eq!(code(kms.call("DescribeKey", &json!({ "KeyId": name }))), "NotFoundException", "{name}");
    }
}

#[test]
fn key_states_restrict_use_but_never_describe_key() {
    let kms = kms(Key::default());
    let body = json!({ "KeyId": Key::DEFAULT_ID, "KeySpec": "AES_256" });
    for (state, expected) in [
        (KeyState::Disabled, "DisabledException"),
        (KeyState::PendingDeletion, "KMSInvalidStateException"),
        (KeyState::PendingImport, "KMSInvalidStateException"),
        (KeyState::Unavailable, "KMSInvalidStateException"),
    ] {
        kms.set_state("alias/luks-agent", state).unwrap();
        assert_eq!(code(kms.call("GenerateDataKey", &body)), expected);
        let metadata = kms.call("DescribeKey", &body).unwrap();
        assert_eq!(metadata["KeyMetadata"]["KeyState"], format!("{state:?}"));
        assert_eq!(metadata["KeyMetadata"]["Enabled"], false);
    }
    assert_eq!(code(kms.call("CancelKeyDeletion", &body)), "KMSInvalidStateException");
    kms.call("EnableKey", &body).unwrap();
    kms.call("GenerateDataKey", &body).unwrap();
}

#[test]
fn requires_exactly_one_of_key_spec_and_number_of_bytes() {
    let kms = kms(Key::default());
    let call = |fields: Value| {
        let mut body = json!({ "KeyId": Key::DEFAULT_ID });
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        kms.call("GenerateDataKey", &body)
    };
    for (fields, length) in [
        (json!({ "KeySpec": "AES_256" }), 32),
        (json!({ "KeySpec": "AES_128" }), 16),
        (json!({ "NumberOfBytes": 64 }), 64),
    ] {
        let plaintext = call(fields).unwrap()["Plaintext"].as_str().unwrap().to_owned();
        assert_eq!(BASE64.decode(plaintext).unwrap().len(), length);
    }
    for fields in [
        json!({}),
        json!({ "KeySpec": "AES_256", "NumberOfBytes": 32 }),
        json!({ "KeySpec": "AES_512" }),
        json!({ "NumberOfBytes": 0 }),
        json!({ "NumberOfBytes": 1025 }),
    ] {
        assert_eq!(code(call(fields)), "ValidationException");
    }
}

#[test]
fn refuses_a_key_that_is_not_symmetric() {
    for kind in [KeyKind::Rsa, KeyKind::RsaForSignatures, KeyKind::Ecc, KeyKind::Ecc384, KeyKind::Hmac] {
        let kms = kms(Key { kind, ..Key::default() });
        let body = json!({ "KeyId": Key::DEFAULT_ID, "KeySpec": "AES_256" });
        assert_eq!(code(kms.call("GenerateDataKey", &body)), "InvalidKeyUsageException");
        assert_eq!(kms.call("DescribeKey", &body).unwrap()["KeyMetadata"]["KeySpec"], kind.key_spec());
    }
}

#[test]
fn re_encrypt_keeps_the_plaintext_and_changes_the_key() {
    let kms = kms(Key::default());
    let other = kms.call("CreateKey", &json!({})).unwrap()["KeyMetadata"]["KeyId"].clone();
    let made = kms.call("GenerateDataKey", &json!({ "KeyId": Key::DEFAULT_ID, "KeySpec": "AES_256" })).unwrap();
    let body = json!({ "CiphertextBlob": made["CiphertextBlob"], "DestinationKeyId": other });
    let rewrapped = kms.call("ReEncrypt", &body).unwrap();
    assert_eq!(rewrapped["SourceKeyId"], made["KeyId"]);
    let body = json!({ "CiphertextBlob": rewrapped["CiphertextBlob"], "KeyId": Key::DEFAULT_ID });
    assert_eq!(code(kms.call("Decrypt", &body)), "IncorrectKeyException");
    let body = json!({ "CiphertextBlob": rewrapped["CiphertextBlob"], "KeyId": other });
    assert!(kms.call("Decrypt", &body).unwrap()["Plaintext"] == made["Plaintext"]);
}

#[test]
fn a_dry_run_that_would_succeed_returns_an_error() {
    let kms = kms(Key::default());
    let body = json!({ "KeyId": Key::DEFAULT_ID, "KeySpec": "AES_256", "DryRun": true });
    assert_eq!(code(kms.call("GenerateDataKey", &body)), "DryRunOperationException");
    let body = json!({ "KeyId": Key::DEFAULT_ID, "DryRun": true, "DryRunModifiers": ["IGNORE_CIPHERTEXT"] });
    assert_eq!(code(kms.call("Decrypt", &body)), "DryRunOperationException");
    kms.set_state(Key::DEFAULT_ID, KeyState::Disabled).unwrap();
    assert_eq!(code(kms.call("Decrypt", &body)), "DisabledException");
}

#[test]
fn signs_a_digest_or_a_message_so_that_the_public_key_verifies_it() {
    use aws_lc_rs::digest::{SHA256, SHA384, digest};
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
        RSA_PSS_2048_8192_SHA256, VerificationAlgorithm,
    };
    let message = b"message";
    let cases: [(KeyKind, &str, &'static dyn VerificationAlgorithm, _); 4] = [
        (KeyKind::Ecc, "ECDSA_SHA_256", &ECDSA_P256_SHA256_ASN1, &SHA256),
        (KeyKind::Ecc384, "ECDSA_SHA_384", &ECDSA_P384_SHA384_ASN1, &SHA384),
        (KeyKind::RsaForSignatures, "RSASSA_PKCS1_V1_5_SHA_256", &RSA_PKCS1_2048_8192_SHA256, &SHA256),
        (KeyKind::RsaForSignatures, "RSASSA_PSS_SHA_256", &RSA_PSS_2048_8192_SHA256, &SHA256),
    ];
    for (kind, name, algorithm, hash) in cases {
        let kms = kms(Key { kind, ..Key::default() });
        let described = kms.call("GetPublicKey", &json!({ "KeyId": "alias/luks-agent" })).unwrap();
        assert_eq!(described["KeySpec"], kind.key_spec());
        let der = BASE64.decode(described["PublicKey"].as_str().unwrap()).unwrap();
        let public_key = ParsedPublicKey::new(algorithm, der).unwrap();
        for (message_type, text) in [("DIGEST", digest(hash, message).as_ref()), ("RAW", &message[..])] {
            let body = json!({ "KeyId": Key::DEFAULT_ID, "Message": BASE64.encode(text), "MessageType": message_type, "SigningAlgorithm": name });
            let answer = kms.call("Sign", &body).unwrap();
            assert_eq!(
                (&answer["KeyId"], &answer["SigningAlgorithm"]),
                (&json!(kms.arn(Key::DEFAULT_ID)), &json!(name))
            );
            let signature = BASE64.decode(answer["Signature"].as_str().unwrap()).unwrap();
            public_key.verify_sig(message, &signature).unwrap();
            public_key.verify_sig(b"massage", &signature).unwrap_err();
        }
    }
}

#[test]
fn refuses_to_sign_as_kms_does() {
    let kms = kms(Key { kind: KeyKind::Ecc, ..Key::default() });
    let body = |length: usize, message_type: &str, algorithm: &str| {
        let message = BASE64.encode(vec![0; length]);
        json!({ "KeyId": Key::DEFAULT_ID, "Message": message, "MessageType": message_type, "SigningAlgorithm": algorithm })
    };
    let sign = |body: &Value| kms.call("Sign", body);
    for (length, message_type, algorithm, expected) in [
        (20, "DIGEST", "ECDSA_SHA_256", "ValidationException"),
        (4097, "RAW", "ECDSA_SHA_256", "ValidationException"),
        (32, "HASH", "ECDSA_SHA_256", "ValidationException"),
        (32, "DIGEST", "ECDSA_SHA_384", "InvalidKeyUsageException"),
    ] {
        assert_eq!(code(sign(&body(length, message_type, algorithm))), expected, "{length} {message_type} {algorithm}");
    }
    let mut good = body(32, "DIGEST", "ECDSA_SHA_256");
    sign(&good).unwrap();
    kms.set_state(Key::DEFAULT_ID, KeyState::Disabled).unwrap();
    assert_eq!(code(sign(&good)), "DisabledException");
    kms.set_state(Key::DEFAULT_ID, KeyState::PendingDeletion).unwrap();
    assert_eq!(code(sign(&good)), "KMSInvalidStateException");
    kms.set_state(Key::DEFAULT_ID, KeyState::Enabled).unwrap();
    good["DryRun"] = true.into();
    assert_eq!(code(sign(&good)), "DryRunOperationException");
    kms.set_allow(Some(vec!["DescribeKey".to_owned()]));
    assert_eq!(code(sign(&good)), "AccessDeniedException");
}

#[test]
fn a_key_that_is_not_for_signatures_does_not_sign() {
    for (kind, public) in [(KeyKind::Symmetric, false), (KeyKind::Rsa, true)] {
        let kms = kms(Key { kind, ..Key::default() });
        let body = json!({ "KeyId": Key::DEFAULT_ID, "Message": "AAAA", "SigningAlgorithm": "ECDSA_SHA_256" });
        assert_eq!(code(kms.call("Sign", &body)), "InvalidKeyUsageException");
        match kms.call("GetPublicKey", &body) {
            Ok(answer) => assert!(public && answer["KeyUsage"] == "ENCRYPT_DECRYPT"),
            Err(error) => assert!(!public && error.code == "UnsupportedOperationException", "{error}"),
        }
    }
}
