//! The certificates of a bundle against each other, the clock and the names of nodes.

use jiff::{SignedDuration, Timestamp};

use super::certificate::{Certificate, ENOUGH_RSA_BITS};
use super::finding::{CertificateFinding, Weight};
use super::member::{CHAIN, TRUSTED};
use super::pem::{Body, describe, sections};
use super::region::{Region, covers, covers_any};

/// How long before its end a certificate is told.
const SOON: SignedDuration = SignedDuration::from_hours(30 * 24);
/// How many certificates of a file are looked at.
const MAX_CERTIFICATES: usize = 200;

/// Reads the certificates of a file, and what is wrong with it.
pub(super) fn read(file: &[u8], member: &'static str) -> (Vec<Certificate>, Vec<CertificateFinding>) {
    let wrong = |id, message: String| CertificateFinding::wrong(id, member, message);
    let (mut certificates, mut findings) = (Vec::new(), Vec::new());
    let found = sections(file);
    let ours = found.iter().filter(|section| section.label == "CERTIFICATE");
    let count = ours.clone().count();
    for (index, section) in ours.take(MAX_CERTIFICATES).enumerate() {
        let certificate = match &section.body {
            Body::Der(der) => Certificate::read(der),
            Body::Encrypted | Body::Damaged => None,
        };
        match certificate {
            Some(certificate) => certificates.push(certificate),
            None => findings
                .push(wrong("certificate-damaged", format!("certificate {} cannot be read; copy it again", index + 1))),
        }
    }
    if count == 0 {
        let message = format!(
            "no certificate in PEM: {}, expected 'BEGIN CERTIFICATE'; 'openssl x509' writes it, and reads DER with -inform DER",
            describe(file, &found)
        );
        findings.push(wrong("certificate-not-pem", message));
    }
    if count > MAX_CERTIFICATES {
        findings.push(CertificateFinding::doubtful(
            "too-many-certificates",
            member,
            format!("{count} certificates, of which only the first {MAX_CERTIFICATES} are checked"),
        ));
    }
    (certificates, findings)
}

/// Checks the dates of the certificates in the chain.
pub(super) fn dates(chain: &[Certificate], now: Timestamp) -> Vec<CertificateFinding> {
    chain.iter().enumerate().filter_map(|one| date(one, CHAIN, now)).collect()
}

/// Checks the dates of trusted certificates that are not in the chain too. Java trusts an expired root, but perhaps not what it issued.
pub(super) fn dates_of_trusted(
    trusted: &[Certificate],
    chain: &[Certificate],
    now: Timestamp,
) -> Vec<CertificateFinding> {
    let others = trusted.iter().enumerate().filter(|(_, one)| !chain.iter().any(|known| known.is(one)));
    let found = others.filter_map(|one| date(one, TRUSTED, now));
    found.map(|finding| CertificateFinding { weight: Weight::Doubtful, ..finding }).collect()
}

fn date(
    (index, certificate): (usize, &Certificate),
    member: &'static str,
    now: Timestamp,
) -> Option<CertificateFinding> {
    let number = index + 1;
    let (from, until) = (certificate.not_before, certificate.not_after);
    if until < now {
        let message = format!("certificate {number} expired on {until}; have a new one issued");
        Some(CertificateFinding::wrong("certificate-expired", member, message))
    } else if from > now {
        let message =
            format!("certificate {number} is valid only from {from} on; wait, or have one issued that begins now");
        Some(CertificateFinding::wrong("certificate-not-yet-valid", member, message))
    } else if until.duration_since(now) <= SOON {
        let message = format!(
            "certificate {number} expires on {until}; nodes that start after that need another bundle, and running clusters keep this one"
        );
        Some(CertificateFinding::doubtful("certificate-expires-soon", member, message))
    } else {
        None
    }
}

/// Checks that each certificate of the chain is issued by the next.
pub(super) fn order(chain: &[Certificate]) -> Vec<CertificateFinding> {
    for (index, pair) in chain.windows(2).enumerate() {
        let [certificate, next] = pair else { continue };
        if certificate.is_issued_by(next) && !certificate.is(next) {
            continue;
        }
        let (number, following) = (index + 1, index + 2);
        let issuer = chain.iter().position(|other| !certificate.self_signed && certificate.is_issued_by(other));
        let what = match issuer {
            Some(issuer) => format!("certificate {} issued it", issuer + 1),
            None => "its issuer is not in the chain".to_owned(),
        };
        let message = format!(
            "certificate {following} did not issue certificate {number}: {what}; write the certificate of the key first, and after each one its issuer"
        );
        return vec![CertificateFinding::wrong("chain-order", CHAIN, message)];
    }
    Vec::new()
}

/// Checks that the names of the first certificate are those of the nodes in each Region, or in any Region if none is given.
pub(super) fn names(chain: &[Certificate], regions: &[Region]) -> Vec<CertificateFinding> {
    const WHAT_THEN: &str =
        "without such a name, EMR asks for hadoop.ssl.hostname.verifier = ALLOW_ALL, and nobody verifies host names";
    let Some(first) = chain.first() else { return Vec::new() };
    let has = match first.names.as_slice() {
        [] => "it has no host names".to_owned(),
        names => format!("it is for {}", shown_list(names)),
    };
    if regions.is_empty() {
        if first.names.iter().any(|name| covers_any(name)) {
            return Vec::new();
        }
        let message = format!(
            "certificate 1 is not for the nodes of any Region: {has}, expected *.REGION.compute.internal, or *.ec2.internal in us-east-1; {WHAT_THEN}"
        );
        return vec![CertificateFinding::doubtful("certificate-names", CHAIN, message)];
    }
    let missing = regions.iter().filter(|region| !first.names.iter().any(|name| covers(name, &region.domain())));
    let of_one = |region: &Region| {
        let message = format!(
            "certificate 1 is not for the nodes in {region}: {has}, expected *.{}; {WHAT_THEN}",
            region.domain()
        );
        CertificateFinding::wrong("certificate-names", CHAIN, message)
    };
    missing.map(of_one).collect()
}

fn shown_list(names: &[String]) -> String {
    let shown: Vec<String> = names.iter().take(5).map(|name| name.chars().take(80).collect()).collect();
    let more = names.len() - shown.len();
    let list = shown.join(", ");
    if more > 0 { format!("{list} and {more} more") } else { list }
}

/// Checks whether nodes will trust the chain. `trusted` is nothing if the bundle has no such file.
pub(super) fn trust(chain: &[Certificate], trusted: Option<&[Certificate]>) -> Vec<CertificateFinding> {
    let (Some(first), Some(last)) = (chain.first(), chain.last()) else { return Vec::new() };
    let mut found = Vec::new();
    if first.self_signed {
        let message = "certificate 1 is self-signed, which EMR's documentation calls a proof of concept only; have a certification authority issue one";
        found.push(CertificateFinding::doubtful("certificate-self-signed", CHAIN, message));
    }
    let anchors = trusted.unwrap_or_default();
    let is_trusted = anchors.iter().any(|anchor| chain.iter().any(|one| one.is(anchor)) || last.is_issued_by(anchor));
    if is_trusted {
        return found;
    }
    let file = if trusted.is_some() { "has no certificate that issued the chain" } else { "is missing" };
    found.push(if first.self_signed {
        let message = format!("it {file}, so nodes would not trust the self-signed certificate; copy {CHAIN} to {TRUSTED}");
        CertificateFinding::wrong("certificate-not-trusted", TRUSTED, message)
    } else {
        let message = format!(
            "it {file}, so nodes trust the chain only if one of Java's default roots issued it; otherwise write the root of the chain into it"
        );
        CertificateFinding::doubtful("certificate-not-trusted", TRUSTED, message)
    });
    found
}

/// Tells keys that are too short.
pub(super) fn weak(chain: &[Certificate]) -> Vec<CertificateFinding> {
    let weak = chain.iter().enumerate().filter(|(_, certificate)| certificate.is_weak());
    weak.map(|(index, certificate)| {
        let message = format!(
            "the RSA key of certificate {} has {} bits, expected at least {ENOUGH_RSA_BITS}",
            index + 1,
            certificate.rsa_bits.unwrap_or_default()
        );
        CertificateFinding::doubtful("certificate-weak-key", CHAIN, message)
    })
    .collect()
}
