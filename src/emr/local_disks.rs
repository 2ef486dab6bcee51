//! What EMR would do with the local disks of a node.

use std::fmt;

use serde::Serialize;

use super::pointer::Pointer;
use super::view::{AT_REST_FLAG, Flag, LOCAL, View};

/// How EMR would encrypt local disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskEncryption {
    /// LUKS on attached EBS volumes and on instance store other than NVMe.
    Luks,
    /// EBS encryption on all EBS volumes, the boot volume included; LUKS on instance store other than NVMe.
    EbsEncryption,
    /// LUKS with keys from a Java class of the customer.
    CustomProvider,
    /// Nothing.
    None,
    /// Encryption at rest is on, and the part for local disks cannot work.
    Invalid,
    /// A function of a template decides, so nobody knows before the deployment.
    Unknown,
}

impl DiskEncryption {
    /// Returns whether local disks would be encrypted.
    pub fn is_encrypted(self) -> bool {
        match self {
            Self::Luks | Self::EbsEncryption | Self::CustomProvider => true,
            Self::None | Self::Invalid | Self::Unknown => false,
        }
    }
}

impl fmt::Display for DiskEncryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Luks => "LUKS",
            Self::EbsEncryption => "EBS encryption",
            Self::CustomProvider => "custom provider",
            Self::None => "none",
            Self::Invalid => "invalid",
            Self::Unknown => "unknown",
        })
    }
}

/// What EMR would do with local disks, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LocalDisks {
    /// How it would encrypt them.
    pub encryption: DiskEncryption,
    /// The KMS key, if one is named.
    pub key: Option<String>,
    /// The place that decides.
    pub at: Pointer,
    /// Why.
    pub reason: String,
}

impl LocalDisks {
    pub(super) fn of(view: View<'_>) -> Self {
        let found = |encryption, at: &str, reason: String| Self { encryption, key: None, at: Pointer::new(at), reason };
        match view.flag(AT_REST_FLAG) {
            Flag::On => {}
            Flag::Off => {
                let unused =
                    if view.has(LOCAL) { ", so EMR does not use LocalDiskEncryptionConfiguration" } else { "" };
                let reason = format!("EnableAtRestEncryption {}{unused}", view.says(AT_REST_FLAG));
                return found(DiskEncryption::None, AT_REST_FLAG, reason);
            }
            Flag::Unresolved => {
                let reason = format!("EnableAtRestEncryption {}", view.says(AT_REST_FLAG));
                return found(DiskEncryption::Unknown, AT_REST_FLAG, reason);
            }
            Flag::Invalid => {
                let reason = format!("EnableAtRestEncryption {}, expected true or false", view.says(AT_REST_FLAG));
                return found(DiskEncryption::Invalid, AT_REST_FLAG, reason);
            }
        }
        if view.function(LOCAL).is_some() {
            let reason = format!("LocalDiskEncryptionConfiguration {}", view.says(LOCAL));
            return found(DiskEncryption::Unknown, LOCAL, reason);
        }
        match view.get(LOCAL) {
            None => found(DiskEncryption::None, LOCAL, "there is no LocalDiskEncryptionConfiguration".to_owned()),
            Some(part) if !part.is_object() => {
                let reason = format!("LocalDiskEncryptionConfiguration {}, expected an object", view.says(LOCAL));
                found(DiskEncryption::Invalid, LOCAL, reason)
            }
            Some(_) => Self::of_part(view),
        }
    }

    /// Looks at `LocalDiskEncryptionConfiguration`, which is there and in force.
    fn of_part(view: View<'_>) -> Self {
        let [provider, ebs, key, class, jar] =
            ["EncryptionKeyProviderType", "EnableEbsEncryption", "AwsKmsKey", "EncryptionKeyProviderClass", "S3Object"]
                .map(|name| Pointer::new(LOCAL).child(name));
        let named_key = view.text(key.as_str()).map(str::to_owned);
        let found = |encryption, at: &Pointer, reason: &str| Self {
            encryption,
            key: named_key.clone(),
            at: at.clone(),
            reason: reason.to_owned(),
        };
        let invalid = |at: &Pointer, reason: &str| found(DiskEncryption::Invalid, at, reason);
        let unresolved = [(&provider, "EncryptionKeyProviderType"), (&ebs, "EnableEbsEncryption")]
            .into_iter()
            .find(|(at, _)| view.function(at.as_str()).is_some());
        if let Some((at, name)) = unresolved {
            return found(DiskEncryption::Unknown, at, &format!("{name} {}", view.says(at.as_str())));
        }
        match (view.text(provider.as_str()), view.flag(ebs.as_str())) {
            (_, Flag::Unresolved | Flag::Invalid) => {
                let said = format!("EnableEbsEncryption {}, expected true or false", view.says(ebs.as_str()));
                invalid(&ebs, &said)
            }
            (Some("AwsKms"), _) if !view.will_be_text(key.as_str()) => {
                invalid(&key, &format!("AwsKmsKey {}, and provider type AwsKms needs one", view.says(key.as_str())))
            }
            (Some("AwsKms"), Flag::On) => found(DiskEncryption::EbsEncryption, &ebs, "EnableEbsEncryption is true"),
            (Some("AwsKms"), Flag::Off) => {
                found(DiskEncryption::Luks, &provider, "AwsKms without EnableEbsEncryption means LUKS")
            }
            (Some("Custom"), Flag::On) => invalid(&ebs, "EnableEbsEncryption needs provider type AwsKms"),
            (Some("Custom"), Flag::Off) => match [(&jar, "S3Object"), (&class, "EncryptionKeyProviderClass")]
                .into_iter()
                .find(|(at, _)| !view.will_be_text(at.as_str()))
            {
                Some((at, name)) => invalid(at, &format!("{name} is missing, and provider type Custom needs one")),
                None => found(DiskEncryption::CustomProvider, &provider, "keys come from a Java class of yours"),
            },
            (_, Flag::On | Flag::Off) => {
                let said = view.says(provider.as_str());
                invalid(&provider, &format!("EncryptionKeyProviderType {said}, expected AwsKms or Custom"))
            }
        }
    }
}
