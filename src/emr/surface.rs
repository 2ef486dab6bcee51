//! What of a cluster's data EMR would really encrypt.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::local_disks::{DiskEncryption, LocalDisks};
use super::pointer::Pointer;
use super::view::{AT_REST_FLAG, Flag, IN_TRANSIT_FLAG, S3, TLS, View, WAL, is_intrinsic, shown};

/// Where data is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// The boot volume of each node.
    BootVolume,
    /// The other EBS volumes.
    EbsVolumes,
    /// Instance store on NVMe.
    InstanceStoreNvme,
    /// Instance store of older instance types.
    InstanceStoreOther,
    /// What EMRFS writes to S3.
    S3,
    /// The write-ahead log of HBase on S3.
    HbaseWal,
    /// Data on the network between nodes.
    InTransit,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::BootVolume => "boot volume",
            Self::EbsVolumes => "EBS volumes",
            Self::InstanceStoreNvme => "instance store, NVMe",
            Self::InstanceStoreOther => "instance store, other",
            Self::S3 => "S3",
            Self::HbaseWal => "HBase write-ahead log",
            Self::InTransit => "in transit",
        })
    }
}

/// Whether data is encrypted there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protection {
    /// Encrypted, because this configuration says so.
    Encrypted,
    /// Encrypted by the hardware or the service alone, whatever this configuration says.
    Otherwise,
    /// In clear, as far as this configuration goes.
    InClear,
    /// Not known before a template is deployed.
    Unknown,
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Encrypted => "encrypted",
            Self::Otherwise => "not by EMR",
            Self::InClear => "in clear",
            Self::Unknown => "unknown",
        })
    }
}

/// One place, and what happens to data there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Surface {
    /// The place.
    pub place: Place,
    /// The bucket that an override is for.
    pub bucket: Option<String>,
    /// Whether data is encrypted there.
    pub protection: Protection,
    /// How, in few words.
    pub by: &'static str,
    /// The KMS key, if one is named.
    pub key: Option<String>,
    /// The place in the document that decides.
    pub at: Pointer,
    /// Why, and what that means.
    pub reason: String,
}

impl Surface {
    fn new(place: Place, protection: Protection, by: &'static str, at: Pointer, reason: impl Into<String>) -> Self {
        Self { place, bucket: None, protection, by, key: None, at, reason: reason.into() }
    }

    fn with_key(self, key: Option<String>) -> Self {
        Self { key, ..self }
    }

    /// Returns how it is called: its place, and the bucket if it is an override.
    pub fn title(&self) -> String {
        match &self.bucket {
            Some(bucket) => format!("{}, bucket {bucket}", self.place),
            None => self.place.to_string(),
        }
    }

    /// Returns everything that a document says about.
    pub(super) fn all(view: View<'_>, disks: &LocalDisks) -> Vec<Self> {
        let mut all = vec![boot_volume(disks), ebs_volumes(disks), nvme(disks), other_instance_store(disks)];
        all.extend(s3(view));
        all.extend(wal(view));
        all.push(in_transit(view));
        all
    }
}

/// A place that is not encrypted, as far as is known.
fn in_clear(place: Place, disks: &LocalDisks, what: &str) -> Surface {
    if disks.encryption == DiskEncryption::Unknown {
        return Surface::new(place, Protection::Unknown, "-", disks.at.clone(), disks.reason.clone());
    }
    Surface::new(place, Protection::InClear, "-", disks.at.clone(), format!("{}; {what}", disks.reason))
}

const BY_DEFAULT: &str = "in clear unless the AMI or EC2's encryption by default encrypts it";

fn boot_volume(disks: &LocalDisks) -> Surface {
    match disks.encryption {
        DiskEncryption::EbsEncryption => {
            let reason = "EnableEbsEncryption encrypts the boot volume too";
            let found = Surface::new(Place::BootVolume, Protection::Encrypted, "EBS", disks.at.clone(), reason);
            found.with_key(disks.key.clone())
        }
        DiskEncryption::Luks | DiskEncryption::CustomProvider => {
            let reason = format!("EMR never puts the boot volume under LUKS; {BY_DEFAULT}");
            Surface::new(Place::BootVolume, Protection::InClear, "-", disks.at.clone(), reason)
        }
        DiskEncryption::None | DiskEncryption::Invalid | DiskEncryption::Unknown => {
            in_clear(Place::BootVolume, disks, BY_DEFAULT)
        }
    }
}

fn ebs_volumes(disks: &LocalDisks) -> Surface {
    let (by, reason) = match disks.encryption {
        DiskEncryption::EbsEncryption => ("EBS", disks.reason.clone()),
        DiskEncryption::Luks => {
            ("LUKS", format!("{}; EC2 and the console call these volumes not encrypted", disks.reason))
        }
        DiskEncryption::CustomProvider => ("LUKS", disks.reason.clone()),
        DiskEncryption::None | DiskEncryption::Invalid | DiskEncryption::Unknown => {
            return in_clear(Place::EbsVolumes, disks, BY_DEFAULT);
        }
    };
    let found = Surface::new(Place::EbsVolumes, Protection::Encrypted, by, disks.at.clone(), reason);
    found.with_key(disks.key.clone())
}

fn nvme(disks: &LocalDisks) -> Surface {
    let reason = "EMR leaves it to the encryption in the hardware, which cannot be turned off and has no key of yours; luks-agent puts LUKS on it";
    Surface::new(Place::InstanceStoreNvme, Protection::Otherwise, "hardware", disks.at.clone(), reason)
}

fn other_instance_store(disks: &LocalDisks) -> Surface {
    let place = Place::InstanceStoreOther;
    match disks.encryption {
        DiskEncryption::Luks | DiskEncryption::EbsEncryption | DiskEncryption::CustomProvider => {
            let reason = "EMR puts LUKS on it whatever EnableEbsEncryption says";
            let found = Surface::new(place, Protection::Encrypted, "LUKS", disks.at.clone(), reason);
            found.with_key(disks.key.clone())
        }
        DiskEncryption::None | DiskEncryption::Invalid | DiskEncryption::Unknown => {
            in_clear(place, disks, "nothing else encrypts it")
        }
    }
}

const S3_DEFAULT: &str = "S3 encrypts new objects with its own keys";

fn s3(view: View<'_>) -> Vec<Surface> {
    let without = |at: &str, reason: String| {
        let is_unknown = view.function(at).is_some();
        let protection = if is_unknown { Protection::Unknown } else { Protection::Otherwise };
        vec![Surface::new(Place::S3, protection, "S3", Pointer::new(at), format!("{reason}; {S3_DEFAULT}"))]
    };
    match view.flag(AT_REST_FLAG) {
        Flag::On => {}
        Flag::Off | Flag::Unresolved | Flag::Invalid => {
            return without(AT_REST_FLAG, format!("EnableAtRestEncryption {}", view.says(AT_REST_FLAG)));
        }
    }
    if view.function(S3).is_some() {
        return without(S3, format!("S3EncryptionConfiguration {}", view.says(S3)));
    }
    let Some(part) = view.get(S3) else { return without(S3, "there is no S3EncryptionConfiguration".to_owned()) };
    let first = s3_mode(part, Pointer::new(S3));
    let overrides = view.overrides().map(|(at, entry)| {
        let bucket = entry.get("BucketName").and_then(Value::as_str).unwrap_or("without a name").to_owned();
        Surface { bucket: Some(bucket), ..s3_mode(entry, at) }
    });
    std::iter::once(first).chain(overrides).collect()
}

fn s3_mode(part: &Value, at: Pointer) -> Surface {
    let at = at.child("EncryptionMode");
    let mode = part.get("EncryptionMode");
    let (by, reason) = match mode.and_then(Value::as_str) {
        Some("SSE-S3") => ("SSE-S3", "S3 encrypts with its own keys"),
        Some("SSE-KMS") => ("SSE-KMS", "S3 encrypts with a KMS key"),
        Some("CSE-KMS") => ("CSE-KMS", "EMRFS encrypts on the node with a KMS key"),
        Some("CSE-Custom") => ("CSE-Custom", "EMRFS encrypts on the node with keys from a Java class of yours"),
        _ => {
            let function = mode.or(Some(part)).filter(|value| is_intrinsic(value));
            let said = mode.or(function).map_or_else(|| "is missing".to_owned(), |said| format!("is {}", shown(said)));
            let protection = if function.is_some() { Protection::Unknown } else { Protection::Otherwise };
            return Surface::new(Place::S3, protection, "S3", at, format!("EncryptionMode {said}; {S3_DEFAULT}"));
        }
    };
    let key = part.get("AwsKmsKey").and_then(Value::as_str).map(str::to_owned);
    Surface::new(Place::S3, Protection::Encrypted, by, at, reason).with_key(key)
}

fn wal(view: View<'_>) -> Option<Surface> {
    if view.function(WAL).is_some() {
        let reason = format!("EMRWALEncryptionConfiguration {}", view.says(WAL));
        return Some(Surface::new(Place::HbaseWal, Protection::Unknown, "-", Pointer::new(WAL), reason));
    }
    let part = view.get(WAL)?;
    let key = part.get("AwsKmsKey").and_then(Value::as_str).map(str::to_owned);
    let by = if part.get("AwsKmsKey").is_some() { "KMS key" } else { "EMR" };
    let reason = "EMR WAL encrypts it whatever the two flags say";
    Some(Surface::new(Place::HbaseWal, Protection::Encrypted, by, Pointer::new(WAL), reason).with_key(key))
}

fn in_transit(view: View<'_>) -> Surface {
    let flag = view.flag(IN_TRANSIT_FLAG);
    if flag != Flag::On {
        let protection = if flag == Flag::Unresolved { Protection::Unknown } else { Protection::InClear };
        let reason = format!("EnableInTransitEncryption {}", view.says(IN_TRANSIT_FLAG));
        return Surface::new(Place::InTransit, protection, "-", Pointer::new(IN_TRANSIT_FLAG), reason);
    }
    let at = Pointer::new(TLS).child("CertificateProviderType");
    let (by, reason) = match view.text(at.as_str()) {
        Some("PEM") => ("PEM", "certificates from a ZIP file in S3"),
        Some("Custom") => ("Custom", "certificates from a Java class of yours"),
        Some("EMR") => ("EMR", "certificates that EMR makes"),
        _ => {
            let said = view.says(at.as_str());
            let (protection, reason) = match view.function(at.as_str()) {
                Some(_) => (Protection::Unknown, format!("CertificateProviderType {said}")),
                None => (
                    Protection::InClear,
                    format!(
                        "EnableInTransitEncryption is on, but CertificateProviderType {said}: there are no certificates"
                    ),
                ),
            };
            return Surface::new(Place::InTransit, protection, "-", at, reason);
        }
    };
    Surface::new(Place::InTransit, Protection::Encrypted, by, at, reason)
}
