//! Turns a security configuration into configuration of the agent.

use serde::Serialize;
use serde_json::{Value, json};

use super::document::{Document, Form};
use super::judgement::problems;
use super::key_arn::KeyName;
use super::local_disks::{DiskEncryption, LocalDisks};
use super::not_done::NotDone;
use super::pointer::Pointer;
use super::problem::{Problem, ProblemKind};
use super::view::{AT_REST_FLAG, LOCAL, S3};

/// Name of the JSON schema.
const SCHEMA: &str = "luks-agent/emr-import";
/// Version of the schema. It grows when a field changes its meaning or is removed.
const SCHEMA_VERSION: u32 = 1;

/// What the agent takes over from a document, and what not.
#[derive(Debug, Clone, Serialize)]
pub struct Import {
    schema: &'static str,
    schema_version: u32,
    agent_version: &'static str,
    /// The document: what it is, and where it came from.
    pub source: String,
    /// How it was handed over.
    pub form: Form,
    /// Its name, if what is around it has one.
    pub name: Option<String>,
    /// What the agent does.
    pub settings: Vec<Setting>,
    /// What must be known besides.
    pub notes: Vec<String>,
    /// What the agent does not do.
    pub not_done: Vec<NotDone>,
    /// The KMS key for local disks: a key ARN or an alias ARN.
    #[serde(skip)]
    pub key_id: String,
    /// Whether EBS volumes are left to EBS encryption.
    #[serde(skip)]
    pub ebs_encryption: bool,
    /// Why nothing was taken over.
    error: Option<String>,
}

/// One key of the agent's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// The section.
    pub section: &'static str,
    /// The key in it.
    pub key: &'static str,
    /// The value, a string.
    pub value: String,
    /// The places in the document that say so.
    pub at: Vec<Pointer>,
    /// Why.
    pub reason: &'static str,
}

/// Why a document cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// Something in it cannot be understood, or EMR would reject it.
    #[error("{0}")]
    Problem(Problem),
    /// It encrypts no local disks.
    #[error(
        "it encrypts no local disks: {reason} (at {at}); import a configuration with LocalDiskEncryptionConfiguration, or write kms.key_id into the configuration of luks-agent yourself"
    )]
    NoLocalDisks {
        /// Why.
        reason: String,
        /// The place that decides.
        at: Pointer,
    },
    /// Its part for local disks cannot work.
    #[error("it cannot encrypt local disks: {reason} (at {at}); luks-agent takes AwsKms with a key ARN")]
    Invalid {
        /// Why.
        reason: String,
        /// The place that decides.
        at: Pointer,
    },
    /// Keys come from a Java class.
    #[error(
        "its keys come from the Java class {class} (at {at}), which luks-agent cannot run; set keys.provider = \"exec\", exec.command to a program that gets keys from the same key service, and exec.key_id to the name of the key there: see docs/exec-provider.md"
    )]
    Custom {
        /// The class.
        class: String,
        /// The place that names it.
        at: Pointer,
    },
    /// The key is not one that the agent could use.
    #[error(
        "the KMS key for local disks is {key} (at {at}), which is not a key ARN; expected arn:aws:kms:REGION:ACCOUNT:key/ID"
    )]
    Key {
        /// What is there.
        key: String,
        /// The place.
        at: Pointer,
    },
}

impl ImportError {
    /// Returns whether the document is a good one, which only asks for nothing that the agent does.
    pub fn is_about_nothing(&self) -> bool {
        matches!(self, Self::NoLocalDisks { .. })
    }
}

const NOT_TWICE: &str = "EMR would encrypt the same disks itself, and luks-agent refuses disks that are in use. Launch the cluster with a \
                         security configuration without LocalDiskEncryptionConfiguration, and with the rest as it is";
const HADOOP: &str = "With local disk encryption, EMR also turns on encryption of HDFS block transfer (AES 256) and privacy of Hadoop RPC. \
                      It does so only for a cluster whose security configuration has that part: set dfs.encrypt.data.transfer and \
                      hadoop.rpc.protection yourself";
const BOOT_VOLUME: &str = "The boot volume stays as it is: EMR does not put it under LUKS, and neither does luks-agent. Use EBS encryption by \
                           default, or an encrypted AMI";
const EBS_ELSEWHERE: &str = "WARNING: a launch without LocalDiskEncryptionConfiguration also ends EBS encryption of the boot volume and the EBS \
                             volumes, which EnableEbsEncryption turned on. First turn on EBS encryption by default, with your KMS key, in \
                             the account and Region of the cluster; or set volumes.ebs = \"encrypt\", and luks-agent encrypts the EBS \
                             volumes, but not the boot volume";
const NOTHING_LEFT: &str = "Without LocalDiskEncryptionConfiguration nothing is left below AtRestEncryptionConfiguration, and EMR may refuse \
                            EnableAtRestEncryption true with nothing below it: set it to false then";

impl Import {
    /// Returns the fields that JSON has if nothing was taken over.
    pub fn failure(error: &str) -> Value {
        json!({
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "agent_version": env!("CARGO_PKG_VERSION"),
            "error": error,
            "source": null,
            "form": null,
            "name": null,
            "settings": [],
            "notes": [],
            "not_done": [],
        })
    }

    /// Takes over a document. `file` is the name of its file, for the text.
    ///
    /// # Errors
    /// If it does not say how to encrypt local disks, or the agent cannot do so.
    pub fn of(document: &Document, file: &str) -> Result<Self, ImportError> {
        let problems = problems(document);
        let first = problems.iter().find(|problem| problem.kind != ProblemKind::Doubtful);
        if let Some(problem) = first {
            return Err(ImportError::Problem(problem.clone()));
        }
        let view = document.view();
        let disks = LocalDisks::of(view);
        let [provider, ebs, key, class] =
            ["EncryptionKeyProviderType", "EnableEbsEncryption", "AwsKmsKey", "EncryptionKeyProviderClass"]
                .map(|name| Pointer::new(LOCAL).child(name));
        let ebs_encryption = match disks.encryption {
            DiskEncryption::Luks => false,
            DiskEncryption::EbsEncryption => true,
            DiskEncryption::None => return Err(ImportError::NoLocalDisks { reason: disks.reason, at: disks.at }),
            DiskEncryption::Invalid | DiskEncryption::Unknown => {
                return Err(ImportError::Invalid { reason: disks.reason, at: disks.at });
            }
            DiskEncryption::CustomProvider => {
                let name = view.says(class.as_str()).trim_start_matches("is ").to_owned();
                return Err(ImportError::Custom { class: name, at: class });
            }
        };
        let key_arn = disks.key.unwrap_or_default();
        if KeyName::of(&key_arn) == KeyName::Other {
            return Err(ImportError::Key {
                key: view.says(key.as_str()).trim_start_matches("is ").to_owned(),
                at: key,
            });
        }
        let done = vec![Pointer::new(AT_REST_FLAG), provider.clone(), key.clone(), ebs.clone()];
        let mut notes: Vec<String> = vec![NOT_TWICE.to_owned(), HADOOP.to_owned()];
        notes.push(if ebs_encryption { EBS_ELSEWHERE } else { BOOT_VOLUME }.to_owned());
        notes.extend((!view.has(S3)).then(|| NOTHING_LEFT.to_owned()));
        notes.extend(problems.iter().map(ToString::to_string));
        let ebs_at = if view.has(ebs.as_str()) { ebs } else { provider.clone() };
        Ok(Self {
            schema: SCHEMA,
            schema_version: SCHEMA_VERSION,
            agent_version: env!("CARGO_PKG_VERSION"),
            source: format!("{} in {file}", document.title()),
            form: document.form,
            name: document.name.clone(),
            settings: settings(&key_arn, ebs_encryption, [provider, key, ebs_at]),
            notes,
            not_done: NotDone::all(&document.value, &done),
            key_id: key_arn,
            ebs_encryption,
            error: None,
        })
    }
}

fn settings(key_arn: &str, ebs_encryption: bool, [provider, key, ebs]: [Pointer; 3]) -> Vec<Setting> {
    let setting = |section, key, value: &str, at: Pointer, reason| Setting {
        section,
        key,
        value: value.to_owned(),
        at: vec![at],
        reason,
    };
    let is_alias = matches!(KeyName::of(key_arn), KeyName::Alias { .. });
    let why_key = if is_alias { "an alias ARN; the key ARN is safer" } else { "the KMS key for local disks" };
    let (what_ebs, why_ebs) = match ebs_encryption {
        true => ("ignore", "left to EBS encryption, which must be turned on elsewhere: see below"),
        false => ("encrypt", "without EnableEbsEncryption, EBS volumes get LUKS"),
    };
    vec![
        setting("keys", "provider", "aws-kms", provider, "provider type AwsKms"),
        setting("kms", "key_id", key_arn, key, why_key),
        Setting {
            at: vec![Pointer::new(LOCAL)],
            ..setting(
                "volumes",
                "instance_store",
                "encrypt",
                Pointer::default(),
                "instance store gets LUKS; EMR leaves NVMe to the hardware",
            )
        },
        setting("volumes", "ebs", what_ebs, ebs, why_ebs),
    ]
}
