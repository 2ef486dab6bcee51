//! What of a document the agent does not do, and who does.

use serde::Serialize;
use serde_json::Value;

use super::pointer::Pointer;
use crate::text::escape_controls;

/// A part of a document that is not the agent's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotDone {
    /// What it is about.
    pub part: &'static str,
    /// Who does it.
    pub who: &'static str,
    /// Everything that the document says about it.
    pub entries: Vec<Entry>,
}

/// One value of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Where it is.
    pub at: Pointer,
    /// What it is.
    pub value: Value,
}

impl Entry {
    /// Returns the whole value as text.
    pub(super) fn shown(&self) -> String {
        escape_controls(&self.value.to_string()).into_owned()
    }
}

/// The parts: where they are in a document, what they are about, and who does them.
const PARTS: [(&str, &str, &str); 12] = [
    (
        "/EncryptionConfiguration/AtRestEncryptionConfiguration/S3EncryptionConfiguration",
        "data in S3",
        "EMRFS on each node, as EMR configures it",
    ),
    (
        "/EncryptionConfiguration/EnableInTransitEncryption",
        "encryption in transit",
        "EMR, for the applications that it installs",
    ),
    (
        "/EncryptionConfiguration/InTransitEncryptionConfiguration",
        "encryption in transit",
        "EMR, for the applications that it installs",
    ),
    (
        "/EncryptionConfiguration/EMRWALEncryptionConfiguration",
        "write-ahead log of HBase",
        "the service EMR WAL, independent of the flags",
    ),
    ("/AuthenticationConfiguration/KerberosConfiguration", "Kerberos", "EMR, with Kerberos attributes of the cluster"),
    ("/AuthenticationConfiguration/IdentityCenterConfiguration", "IAM Identity Center", "EMR"),
    ("/AuthorizationConfiguration/EmrFsConfiguration", "roles for requests to S3", "EMRFS on each node"),
    ("/AuthorizationConfiguration/IAMConfiguration", "runtime roles of steps", "EMR"),
    ("/AuthorizationConfiguration/LakeFormationConfiguration", "Lake Formation", "EMR, with runtime roles"),
    ("/AuthorizationConfiguration/RangerConfiguration", "Apache Ranger", "EMR and the Ranger plug-ins"),
    ("/LakeFormationConfiguration", "Lake Formation with SAML", "EMR"),
    (
        "/InstanceMetadataServiceConfiguration",
        "instance metadata service",
        "EMR, when it launches the instances; the agent speaks IMDSv2, and a hop limit of 1 is enough",
    ),
];

impl NotDone {
    /// Returns all of a document but what is at the places in `done`.
    pub(super) fn all(document: &Value, done: &[Pointer]) -> Vec<Self> {
        let mut leaves = Vec::new();
        collect(document, Pointer::default(), &mut leaves);
        let mut parts: Vec<Self> = Vec::new();
        for entry in leaves.into_iter().filter(|entry| !done.contains(&entry.at)) {
            let known = PARTS.iter().find(|(at, ..)| entry.at.is_within(at));
            let (part, who) =
                known.map_or(("other", "nobody that luks-agent knows of"), |(_, part, who)| (*part, *who));
            match parts.iter_mut().find(|found| found.part == part) {
                Some(found) => found.entries.push(entry),
                None => parts.push(Self { part, who, entries: vec![entry] }),
            }
        }
        parts
    }
}

/// Collects the values that hold no other values.
fn collect(value: &Value, at: Pointer, found: &mut Vec<Entry>) {
    match value {
        Value::Object(object) if !object.is_empty() => {
            object.iter().for_each(|(key, value)| collect(value, at.child(key), found));
        }
        Value::Array(items) if !items.is_empty() => {
            items.iter().enumerate().for_each(|(index, item)| collect(item, at.item(index), found));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            found.push(Entry { at, value: value.clone() });
        }
    }
}
