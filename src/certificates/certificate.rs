//! One certificate: what it says, and who signed it.

use jiff::Timestamp;
use rustls::crypto::aws_lc_rs::default_provider;
use serde::Serialize;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::time::ASN1Time;

/// How many names of a certificate are kept.
const MAX_NAMES: usize = 100;
/// RSA keys with fewer bits are weak, and their signatures are not verified here.
pub(super) const ENOUGH_RSA_BITS: usize = 2048;

/// A certificate.
#[derive(Debug, Clone, Serialize)]
pub struct Certificate {
    /// Its subject.
    pub subject: String,
    /// Who issued it, as it says.
    pub issuer: String,
    /// From when on it is valid.
    pub not_before: Timestamp,
    /// Until when it is valid.
    pub not_after: Timestamp,
    /// The host names that it is for: its DNS names, or its common names if it has none, as TLS clients take them.
    pub names: Vec<String>,
    /// Whether its own key signed it.
    pub self_signed: bool,
    /// The bits of its key, if that is RSA.
    pub rsa_bits: Option<usize>,
    /// The public key, without its algorithm.
    #[serde(skip)]
    pub(super) public_key: Vec<u8>,
    #[serde(skip)]
    der: Vec<u8>,
}

impl Certificate {
    /// Reads a certificate. Returns nothing if it is none.
    pub(super) fn read(der: &[u8]) -> Option<Self> {
        let parsed = parse(der)?;
        Some(Self {
            subject: parsed.subject().to_string(),
            issuer: parsed.issuer().to_string(),
            not_before: timestamp(&parsed.validity().not_before),
            not_after: timestamp(&parsed.validity().not_after),
            names: names(&parsed),
            self_signed: parsed.subject().as_raw() == parsed.issuer().as_raw()
                && signature_fits(&parsed, &parsed) != Some(false),
            rsa_bits: rsa_bits(&parsed),
            public_key: parsed.public_key().subject_public_key.data.to_vec(),
            der: der.to_vec(),
        })
    }

    /// Returns whether it is the same certificate, byte for byte.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.der == other.der
    }

    /// Returns whether another certificate issued it: its subject is the issuer here, and its key signed this certificate as far as can
    /// be verified.
    pub(super) fn is_issued_by(&self, other: &Self) -> bool {
        // two encodings of one name are shown alike
        if self.issuer != other.subject {
            return false;
        }
        let parsed = parse(&self.der).zip(parse(&other.der));
        parsed.is_some_and(|(this, other)| signature_fits(&this, &other) != Some(false))
    }

    /// Returns whether its key is RSA with fewer bits than is safe.
    pub(super) fn is_weak(&self) -> bool {
        self.rsa_bits.is_some_and(|bits| bits < ENOUGH_RSA_BITS)
    }
}

fn parse(der: &[u8]) -> Option<X509Certificate<'_>> {
    X509Certificate::from_der(der).ok().filter(|(rest, _)| rest.is_empty()).map(|(_, parsed)| parsed)
}

/// Returns a time, or the last one that there is if it is later.
fn timestamp(time: &ASN1Time) -> Timestamp {
    Timestamp::from_second(time.timestamp()).unwrap_or(Timestamp::MAX)
}

/// Returns the bits of the key, if that is RSA.
fn rsa_bits(parsed: &X509Certificate<'_>) -> Option<usize> {
    let Ok(PublicKey::RSA(rsa)) = parsed.public_key().parsed() else { return None };
    Some(rsa.key_size())
}

fn names(parsed: &X509Certificate<'_>) -> Vec<String> {
    let extension = parsed.subject_alternative_name().ok().flatten();
    let alternative = extension.iter().flat_map(|extension| &extension.value.general_names);
    let dns = alternative.filter_map(|name| {
        let GeneralName::DNSName(name) = name else { return None };
        Some((*name).to_owned())
    });
    let dns: Vec<String> = dns.take(MAX_NAMES).collect();
    if !dns.is_empty() {
        return dns;
    }
    let common = parsed.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    common.take(MAX_NAMES).map(str::to_owned).collect()
}

/// Returns whether the key of `issuer` signed a certificate, or nothing if that cannot be verified: with SHA-1, or a short key.
fn signature_fits(signed: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> Option<bool> {
    if rsa_bits(issuer).is_some_and(|bits| bits < ENOUGH_RSA_BITS) {
        return None;
    }
    let oid = signed.signature_algorithm.algorithm.as_bytes();
    // an AlgorithmIdentifier begins with the tag, the length and the bytes of its object identifier
    let has_oid = |id: &[u8]| {
        id.get(2..).is_some_and(|rest| rest.starts_with(oid)) && id.get(1).copied() == u8::try_from(oid.len()).ok()
    };
    let provider = default_provider();
    let known: Vec<_> = provider
        .signature_verification_algorithms
        .all
        .iter()
        .filter(|algorithm| has_oid(algorithm.signature_alg_id().as_ref()))
        .collect();
    if known.is_empty() {
        return None;
    }
    let key = &issuer.public_key().subject_public_key.data;
    let message = signed.tbs_certificate.as_ref();
    // one identifier stands for several curves and parameters
    Some(known.iter().any(|algorithm| algorithm.verify_signature(key, message, &signed.signature_value.data).is_ok()))
}
