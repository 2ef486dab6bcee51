//! Rules of EMR that concern several values at once.

use serde_json::Value;

use super::key_arn::KeyName;
use super::local_disks::{DiskEncryption, LocalDisks};
use super::pointer::Pointer;
use super::problem::Problem;
use super::view::{AT_REST_FLAG, Flag, IMDS, IN_TRANSIT, IN_TRANSIT_FLAG, KERBEROS, LOCAL, S3, TLS, View, WAL};

/// Certificates that last longer need no warning.
const ENOUGH_DAYS: u64 = 3 * 365;

/// Returns what EMR rejects although each value is one that the schema knows, and what is hardly meant.
pub(super) fn problems(view: View<'_>) -> Vec<Problem> {
    let mut found = local_disks(view);
    found.extend(keys(view));
    found.extend(s3(view));
    found.extend(in_transit(view));
    found.extend(kerberos(view));
    found.extend(metadata_service(view));
    found
}

fn local_disks(view: View<'_>) -> Vec<Problem> {
    let mut found = Vec::new();
    let at = |name: &str| Pointer::new(LOCAL).child(name);
    let provider = at("EncryptionKeyProviderType");
    if view.flag(at("EnableEbsEncryption").as_str()) == Flag::On
        && view.text(provider.as_str()).is_some_and(|text| text != "AwsKms")
    {
        found.push(Problem::rejected(
            "ebs-encryption-needs-aws-kms",
            at("EnableEbsEncryption"),
            "EnableEbsEncryption is possible with EncryptionKeyProviderType AwsKms only; use AwsKms, or remove EnableEbsEncryption",
        ));
    }
    let class = at("EncryptionKeyProviderClass");
    if let Some(name) = view.text(class.as_str())
        && view.text(&format!("{S3}/EncryptionKeyProviderClass")) == Some(name)
    {
        found.push(Problem::doubtful(
            "same-provider-class",
            class,
            "the class for local disks has the name of the class for S3, which EMR's documentation forbids; give it another name",
        ));
    }
    let disks = LocalDisks::of(view);
    match disks.encryption {
        DiskEncryption::Invalid => found.push(Problem::doubtful(
            "local-disks-cannot-work",
            disks.at,
            format!("encryption at rest is on, and local disks cannot be encrypted: {}", disks.reason),
        )),
        DiskEncryption::None if view.has(LOCAL) => found.push(Problem::doubtful(
            "local-disks-not-in-force",
            Pointer::new(AT_REST_FLAG),
            format!("{}; set EnableAtRestEncryption to true", disks.reason),
        )),
        DiskEncryption::None if view.flag(AT_REST_FLAG) == Flag::On && !view.has(S3) => found.push(Problem::doubtful(
            "at-rest-without-a-part",
            Pointer::new(AT_REST_FLAG),
            "EnableAtRestEncryption is true, and nothing below AtRestEncryptionConfiguration says what to encrypt; EMR may refuse it",
        )),
        DiskEncryption::None
        | DiskEncryption::Luks
        | DiskEncryption::EbsEncryption
        | DiskEncryption::CustomProvider => {}
    }
    found
}

/// The places of `AwsKmsKey`, and what each is for.
fn key_places(view: View<'_>) -> Vec<(Pointer, &'static str)> {
    let mut places = vec![
        (Pointer::new(LOCAL).child("AwsKmsKey"), "local disks"),
        (Pointer::new(S3).child("AwsKmsKey"), "S3"),
        (Pointer::new(TLS).child("AwsKmsKey"), "the secret of the certificates"),
        (Pointer::new(WAL).child("AwsKmsKey"), "the HBase write-ahead log"),
    ];
    places.extend(view.overrides().map(|(at, _)| (at.child("AwsKmsKey"), "a bucket")));
    places
}

fn keys(view: View<'_>) -> Vec<Problem> {
    let mut found = Vec::new();
    let disk_key = Pointer::new(LOCAL).child("AwsKmsKey");
    let disk_region = view.text(disk_key.as_str()).and_then(|key| KeyName::of(key).region());
    for (at, what) in key_places(view) {
        let Some(key) = view.text(at.as_str()) else { continue };
        match KeyName::of(key) {
            KeyName::Key { .. } => {}
            KeyName::Alias { .. } => found.push(Problem::doubtful(
                "alias-arn",
                at.clone(),
                format!(
                    "the key for {what} is an alias ARN, and EMR's documentation asks for a key ARN; EMR accepts it, and the alias may point at another key when the next node starts"
                ),
            )),
            KeyName::Other => found.push(Problem::doubtful(
                "no-key-arn",
                at.clone(),
                format!(
                    "the key for {what} is not the ARN of a KMS key, which EMR's documentation asks for; expected arn:aws:kms:REGION:ACCOUNT:key/ID"
                ),
            )),
        }
        if let (Some(region), Some(disks)) = (KeyName::of(key).region(), disk_region)
            && region != disks
        {
            found.push(Problem::doubtful(
                "several-regions",
                at,
                format!("the key for {what} is in {region}, and that for local disks in {disks}; both must be in the cluster's Region"),
            ));
        }
    }
    found
}

fn s3(view: View<'_>) -> Vec<Problem> {
    let places = std::iter::once((Pointer::new(S3), view.get(S3)));
    let places = places.chain(view.overrides().map(|(at, entry)| (at, Some(entry))));
    let mut found = Vec::new();
    for (at, part) in places {
        let has = |name: &str| part.and_then(|part| part.get(name)).is_some();
        let missing: &[&str] = match part.and_then(|part| part.get("EncryptionMode")).and_then(Value::as_str) {
            Some("SSE-KMS" | "CSE-KMS") => &["AwsKmsKey"],
            Some("CSE-Custom") => &["S3Object", "EncryptionKeyProviderClass"],
            _ => &[],
        };
        found.extend(missing.iter().filter(|name| !has(name)).map(|name| {
            let at = at.child(name);
            Problem::doubtful(
                "s3-mode-incomplete",
                at,
                format!("{name} is missing, and the EncryptionMode beside it needs one"),
            )
        }));
    }
    found
}

fn in_transit(view: View<'_>) -> Vec<Problem> {
    let at = |name: &str| Pointer::new(TLS).child(name);
    let mut found = Vec::new();
    if view.flag(IN_TRANSIT_FLAG) != Flag::On {
        if view.has(IN_TRANSIT) {
            let message = format!(
                "EnableInTransitEncryption {}, so EMR does not use InTransitEncryptionConfiguration",
                view.says(IN_TRANSIT_FLAG)
            );
            found.push(Problem::doubtful("in-transit-not-in-force", Pointer::new(IN_TRANSIT_FLAG), message));
        }
        return found;
    }
    let kind = at("CertificateProviderType");
    let needed: &[&str] = match view.text(kind.as_str()) {
        Some("PEM") => &["S3Object"],
        Some("Custom") => &["S3Object", "CertificateProviderClass"],
        Some(_) => &[],
        None => {
            let message = "in-transit encryption is on, and there are no certificates; add TLSCertificateConfiguration with CertificateProviderType";
            found.push(Problem::doubtful("in-transit-without-certificates", Pointer::new(TLS), message));
            &[]
        }
    };
    for name in needed.iter().filter(|name| !view.will_be_text(at(name).as_str())) {
        let message = format!("{name} is missing, and the CertificateProviderType beside it needs one");
        found.push(Problem::doubtful("certificates-incomplete", at(name), message));
    }
    let validity = at("ValidityInDays");
    if let Some(days) = view.get(validity.as_str()).and_then(Value::as_u64).filter(|days| *days < ENOUGH_DAYS) {
        let message = format!(
            "the certificates expire after {days} days, and a security configuration cannot be changed; make another one before"
        );
        found.push(Problem::doubtful("certificates-expire", validity, message));
    }
    found
}

fn kerberos(view: View<'_>) -> Vec<Problem> {
    let needs_it = [
        ("/AuthorizationConfiguration/RangerConfiguration", "Apache Ranger"),
        ("/LakeFormationConfiguration", "Lake Formation with SAML"),
    ];
    let without = needs_it.into_iter().filter(|(at, _)| view.has(at) && !view.has(KERBEROS));
    let mut found: Vec<Problem> = without
        .map(|(at, what)| {
            let message = format!("{what} needs Kerberos; add AuthenticationConfiguration with KerberosConfiguration");
            Problem::rejected("kerberos-needed", Pointer::new(at), message)
        })
        .collect();
    let runtime = "/AuthorizationConfiguration/LakeFormationConfiguration";
    if view.has(runtime) && view.flag(IN_TRANSIT_FLAG) != Flag::On {
        let message =
            "EMR documents runtime roles with Lake Formation together with in-transit encryption only; turn it on";
        found.push(Problem::doubtful("lake-formation-in-clear", Pointer::new(runtime), message));
    }
    found
}

fn metadata_service(view: View<'_>) -> Vec<Problem> {
    let Some(part) = view.object(IMDS) else { return Vec::new() };
    let names = ["MinimumInstanceMetadataServiceVersion", "HttpPutResponseHopLimit"];
    let missing = names.into_iter().filter(|name| !part.contains_key(*name));
    missing
        .map(|name| {
            let message =
                format!("{name} is missing; EMR requires both properties of InstanceMetadataServiceConfiguration");
            Problem::rejected("metadata-service-incomplete", Pointer::new(IMDS).child(name), message)
        })
        .collect()
}
