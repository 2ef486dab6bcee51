//! The private key, and whether it belongs to a certificate. Of the key itself nothing is kept.

use std::ops::RangeInclusive;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};
use serde::Serialize;
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::certificate::ENOUGH_RSA_BITS;
use super::finding::CertificateFinding;
use super::member::KEY;
use super::pem::{Body, Section, describe, sections};

/// What is found if a key is of a kind that cannot be read here, or is none.
pub(super) const UNREADABLE: &str = "private-key-unreadable";
/// The sizes of RSA keys that can be read here.
pub(super) const COMMON_RSA_BITS: RangeInclusive<usize> = ENOUGH_RSA_BITS..=8192;

/// What is known of the private key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyState {
    /// It is that of the first certificate.
    Fits,
    /// It is that of another certificate of the chain.
    FitsAnother,
    /// It is that of no certificate of the chain.
    Mismatch,
    /// It or the certificates cannot be read.
    Unknown,
    /// There is none.
    Missing,
}

/// The public part of the key in a file, if it can be read, and what is wrong with the file.
pub(super) fn read(file: &[u8]) -> (Option<Vec<u8>>, Vec<CertificateFinding>) {
    let wrong = |id, message: String| CertificateFinding::wrong(id, KEY, message);
    let found = sections(file);
    let keys: Vec<&Section> = found.iter().filter(|section| section.label.ends_with("PRIVATE KEY")).collect();
    let key = match keys.as_slice() {
        [] => {
            let message = format!(
                "no private key in PEM: {}, expected 'BEGIN PRIVATE KEY'; 'openssl pkey' writes it, and reads DER with -inform DER",
                describe(file, &found)
            );
            return (None, vec![wrong("private-key-not-pem", message)]);
        }
        [key] => key,
        [_, _, ..] => {
            let message = format!("{} private keys, expected one", keys.len());
            return (None, vec![wrong("several-private-keys", message)]);
        }
    };
    match (&key.body, key.label.as_str()) {
        (Body::Encrypted, _) => {
            let message = "the key is encrypted, and EMR has no passphrase for it; decrypt it with 'openssl pkey'";
            (None, vec![wrong("private-key-encrypted", message.to_owned())])
        }
        (Body::Damaged, label) => {
            let message = format!("'BEGIN {label}' is not followed by base64 and its end line; copy the key again");
            (None, vec![wrong("private-key-damaged", message)])
        }
        (Body::Der(der), label) => of_der(der, label),
    }
}

fn of_der(der: &[u8], label: &str) -> (Option<Vec<u8>>, Vec<CertificateFinding>) {
    let parsed = match label {
        "PRIVATE KEY" => PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der)),
        "RSA PRIVATE KEY" => PrivateKeyDer::Pkcs1(PrivatePkcs1KeyDer::from(der)),
        "EC PRIVATE KEY" => PrivateKeyDer::Sec1(PrivateSec1KeyDer::from(der)),
        other => {
            let message = format!("'BEGIN {other}' is not a kind of key that TLS uses; expected RSA or ECDSA");
            return (None, vec![CertificateFinding::wrong(UNREADABLE, KEY, message)]);
        }
    };
    let mut findings = Vec::new();
    if label != "PRIVATE KEY" {
        let message = format!(
            "'BEGIN {label}' is not PKCS #8, which EMR's documentation makes, and it does not say whether EMR takes another form; \
             convert it with 'openssl pkcs8 -topk8 -nocrypt'"
        );
        findings.push(CertificateFinding::doubtful("private-key-not-pkcs8", KEY, message));
    }
    let signer = any_supported_type(&parsed).ok();
    let public = signer.and_then(|signer| {
        let info = signer.public_key()?;
        let (_, info) = SubjectPublicKeyInfo::from_der(info.as_ref()).ok()?;
        Some(info.subject_public_key.data.to_vec())
    });
    if public.is_none() {
        let message = "the key cannot be read here, so it is not compared with the certificate; expected RSA of 2048 to 8192 bits, \
                       ECDSA on P-256, P-384 or P-521, or Ed25519";
        findings.push(CertificateFinding::doubtful(UNREADABLE, KEY, message));
    }
    (public, findings)
}
