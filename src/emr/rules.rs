//! Rules of EMR that concern several values at once.

use serde_json::{Map, Value};

use super::key_arn::KeyName;
use super::local_disks::{DiskEncryption, LocalDisks};
use super::pointer::Pointer;
use super::problem::Problem;
use super::schema::S3_MODES;
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
        | DiskEncryption::CustomProvider
        | DiskEncryption::Unknown => {}
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
    let disks = LocalDisks::of(view);
    for (at, what) in key_places(view) {
        let Some(key) = view.text(at.as_str()) else {
            // if disks cannot be encrypted without it, that is told already
            if view.get(at.as_str()).is_some_and(Value::is_string) && disks.at != at {
                found.push(empty_key(at, what));
            }
            continue;
        };
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

fn empty_key(at: Pointer, what: &str) -> Problem {
    let message = format!(
        "the key for {what} is empty; write arn:aws:kms:REGION:ACCOUNT:key/ID, or remove AwsKmsKey if no key of yours is meant"
    );
    Problem::doubtful("empty-key", at, message)
}

fn s3(view: View<'_>) -> Vec<Problem> {
    let mut found = Vec::new();
    if let Some(part) = view.object(S3).filter(|_| view.function(S3).is_none()) {
        found.extend(s3_part(part, &Pointer::new(S3)));
    }
    for (at, entry) in view.overrides() {
        let Some(part) = entry.as_object().filter(|_| view.function(at.as_str()).is_none()) else { continue };
        let name = at.child("BucketName");
        if !view.will_be_text(name.as_str()) && part.get("BucketName").is_none_or(Value::is_string) {
            let message = format!(
                "BucketName {}, so nobody knows which bucket this is for; name the bucket",
                view.says(name.as_str())
            );
            found.push(Problem::doubtful("override-without-bucket", name, message));
        }
        found.extend(s3_part(part, &at));
    }
    found
}

/// Looks at `S3EncryptionConfiguration`, or at one bucket of `Overrides`.
fn s3_part(part: &Map<String, Value>, at: &Pointer) -> Vec<Problem> {
    let missing: &[&str] = match part.get("EncryptionMode") {
        None => {
            let message = format!(
                "EncryptionMode is missing, and EMR documents none to fall back to; write one of {}",
                S3_MODES.join(", ")
            );
            return vec![Problem::doubtful("s3-mode-missing", at.child("EncryptionMode"), message)];
        }
        Some(mode) => match mode.as_str() {
            Some("SSE-KMS" | "CSE-KMS") => &["AwsKmsKey"],
            Some("CSE-Custom") => &["S3Object", "EncryptionKeyProviderClass"],
            _ => &[],
        },
    };
    let missing = missing.iter().filter(|name| !part.contains_key(**name));
    let incomplete = missing.map(|name| {
        let message = format!("{name} is missing, and the EncryptionMode beside it needs one");
        Problem::doubtful("s3-mode-incomplete", at.child(name), message)
    });
    incomplete.collect()
}

fn in_transit(view: View<'_>) -> Vec<Problem> {
    let at = |name: &str| Pointer::new(TLS).child(name);
    let mut found = Vec::new();
    if view.flag(IN_TRANSIT_FLAG) != Flag::On {
        if view.has(IN_TRANSIT) && view.flag(IN_TRANSIT_FLAG) != Flag::Unresolved {
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
        None if view.function(kind.as_str()).is_some() => &[],
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
    let is_away = !view.has(KERBEROS) && view.function(KERBEROS).is_none();
    let without = needs_it.into_iter().filter(|(at, _)| view.has(at) && is_away);
    let mut found: Vec<Problem> = without
        .map(|(at, what)| {
            let message = format!("{what} needs Kerberos; add AuthenticationConfiguration with KerberosConfiguration");
            Problem::rejected("kerberos-needed", Pointer::new(at), message)
        })
        .collect();
    found.extend(kerberos_provider(view));
    let runtime = "/AuthorizationConfiguration/LakeFormationConfiguration";
    if view.has(runtime) && matches!(view.flag(IN_TRANSIT_FLAG), Flag::Off | Flag::Invalid) {
        let message =
            "EMR documents runtime roles with Lake Formation together with in-transit encryption only; turn it on";
        found.push(Problem::doubtful("lake-formation-in-clear", Pointer::new(runtime), message));
    }
    found
}

/// Looks at what `KerberosConfiguration` needs if it is there.
fn kerberos_provider(view: View<'_>) -> Option<Problem> {
    let part = view.object(KERBEROS).filter(|_| view.function(KERBEROS).is_none())?;
    let name = match part.get("Provider") {
        None => "Provider",
        Some(provider) => match provider.as_str() {
            Some("ClusterDedicatedKdc") => "ClusterDedicatedKdcConfiguration",
            Some("ExternalKdc") => "ExternalKdcConfiguration",
            _ => return None,
        },
    };
    if part.contains_key(name) {
        return None;
    }
    let what = match name {
        "Provider" => "write ClusterDedicatedKdc or ExternalKdc, and the part that belongs to it",
        _ => "EMR documents this Provider together with it only",
    };
    Some(Problem::doubtful(
        "kerberos-incomplete",
        Pointer::new(KERBEROS).child(name),
        format!("{name} is missing; {what}"),
    ))
}

fn metadata_service(view: View<'_>) -> Vec<Problem> {
    let Some(part) = view.object(IMDS).filter(|_| view.function(IMDS).is_none()) else { return Vec::new() };
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
