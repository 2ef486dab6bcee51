//! Everything that is to be said about a bundle.

use jiff::Timestamp;
use serde::Serialize;

use super::bundle::Bundle;
use super::certificate::Certificate;
use super::chain;
use super::finding::{CertificateFinding, Weight};
use super::member::{CHAIN, KEY, TRUSTED};
use super::private_key::{self, COMMON_RSA_BITS, KeyState, UNREADABLE};
use super::region::Region;

/// What is to be said about a bundle.
#[derive(Debug, Serialize)]
pub struct CheckedBundle {
    /// Its file.
    pub file: String,
    /// The Regions whose nodes it should be for.
    pub regions: Vec<Region>,
    /// What is known of the private key.
    pub private_key: KeyState,
    /// The certificates of `certificateChain.pem`.
    pub chain: Vec<Certificate>,
    /// The certificates of `trustedCertificates.pem`.
    pub trusted: Vec<Certificate>,
    /// What is wrong or odd, the gravest first.
    pub findings: Vec<CertificateFinding>,
}

impl CheckedBundle {
    /// Checks a bundle at a moment. `file` is its name, for messages.
    pub fn new(file: String, bundle: &Bundle, regions: &[Region], now: Timestamp) -> Self {
        let mut findings = missing(bundle);
        let (public_key, of_key) = bundle.key.as_ref().map_or((None, Vec::new()), |file| private_key::read(file));
        let (chain, found) = bundle.chain.as_ref().map_or((Vec::new(), Vec::new()), |file| chain::read(file, CHAIN));
        // numbers and neighbours mean nothing if one in between cannot be read
        let is_whole = found.iter().all(|finding| finding.weight == Weight::Doubtful);
        findings.extend(of_key.into_iter().map(|finding| weighed(finding, &chain)));
        findings.extend(found);
        let trusted = bundle.trusted.as_ref().map(|file| chain::read(file, TRUSTED));
        let (trusted, found) = trusted.map_or((None, Vec::new()), |(trusted, found)| (Some(trusted), found));
        findings.extend(found);
        let private_key = match (&bundle.key, public_key) {
            (None, _) => KeyState::Missing,
            (Some(_), Some(key)) if is_whole && !chain.is_empty() => fit(&key, &chain),
            (Some(_), _) => KeyState::Unknown,
        };
        findings.extend(of_fit(private_key));
        if is_whole {
            findings.extend(chain::dates(&chain, now));
            findings.extend(chain::order(&chain));
            findings.extend(chain::names(&chain, regions));
            findings.extend(chain::trust(&chain, trusted.as_deref()));
            findings.extend(chain::weak(&chain));
        }
        let trusted = trusted.unwrap_or_default();
        findings.extend(chain::dates_of_trusted(&trusted, &chain, now));
        findings.sort_by_key(|finding| finding.weight);
        Self { file, regions: regions.to_vec(), private_key, chain, trusted, findings }
    }

    /// Returns whether EMR or its nodes cannot use it.
    pub fn fails(&self) -> bool {
        self.findings.iter().any(|finding| finding.weight == Weight::Wrong)
    }
}

/// Tells files that are missing, and others that EMR does not read.
fn missing(bundle: &Bundle) -> Vec<CertificateFinding> {
    let mut found = Vec::new();
    for (member, file) in [(KEY, &bundle.key), (CHAIN, &bundle.chain)] {
        if file.is_none() {
            let similar =
                |name: &&String| name.rsplit(['/', '\\']).next().is_some_and(|last| last.eq_ignore_ascii_case(member));
            let hint = match bundle.others.iter().find(similar) {
                Some(other) => format!(
                    "; found '{}', and EMR takes only the exact name at the top level: 'zip -j' leaves folders out",
                    shown(other)
                ),
                None => String::new(),
            };
            found.push(CertificateFinding::wrong(
                "missing-file",
                member,
                format!("it is missing, and EMR requires it{hint}"),
            ));
        }
    }
    if !bundle.others.is_empty() {
        let names: Vec<String> = bundle.others.iter().map(|name| shown(name)).collect();
        let message = format!("EMR's documentation names no such file in a bundle: {}; leave it out", names.join(", "));
        found.push(CertificateFinding::doubtful("unknown-file", "", message));
    }
    found
}

/// A name in the zip file, as messages show it.
fn shown(name: &str) -> String {
    name.chars().take(80).collect()
}

/// Weighs a key that cannot be read: the key of a certificate with RSA of a common size could be.
fn weighed(finding: CertificateFinding, chain: &[Certificate]) -> CertificateFinding {
    let is_common = chain.first().and_then(|one| one.rsa_bits).is_some_and(|bits| COMMON_RSA_BITS.contains(&bits));
    match finding.id {
        UNREADABLE if is_common => CertificateFinding { weight: Weight::Wrong, ..finding },
        _ => finding,
    }
}

fn fit(key: &[u8], chain: &[Certificate]) -> KeyState {
    match chain.iter().position(|certificate| certificate.public_key == key) {
        Some(0) => KeyState::Fits,
        Some(_) => KeyState::FitsAnother,
        None => KeyState::Mismatch,
    }
}

fn of_fit(state: KeyState) -> Option<CertificateFinding> {
    let message = match state {
        KeyState::FitsAnother => {
            "the key is that of a later certificate of the chain; write the certificate of the key first, and after each one its issuer"
        }
        KeyState::Mismatch => {
            "the key is that of no certificate in certificateChain.pem; put the key and the certificate that was made for it together"
        }
        KeyState::Fits | KeyState::Unknown | KeyState::Missing => return None,
    };
    Some(CertificateFinding::wrong("private-key-mismatch", KEY, message))
}
