//! What plans say: contents, uses and reasons in words.

use std::fmt;
use std::path::{Path, PathBuf};

use super::Basis;
use crate::disk::{Content, DeviceFacts};
use crate::state::VolumeRole;

/// What keeps a disk from being used.
pub(super) fn in_use(facts: &DeviceFacts) -> String {
    let list = |what: &str, items: Vec<String>| match items.as_slice() {
        [] => None,
        items => Some(format!("{what} {}", items.join(", "))),
    };
    let at = |path: &PathBuf| Path::display(path).to_string();
    let holders = facts.holders.iter().map(|h| h.dm_name.clone().unwrap_or_else(|| h.name.clone())).collect();
    let mounts = facts.mounts.iter().chain(facts.holders.iter().flat_map(|h| &h.mounts)).map(at).collect();
    let parts = [list("held by", holders), list("mounted at", mounts)];
    match parts.into_iter().flatten().collect::<Vec<_>>().as_slice() {
        [] => "it was not examined".to_owned(),
        parts => format!("it is {}", parts.join(" and ")),
    }
}

/// Names of disks for a sentence.
pub(super) fn names<'a>(devices: impl IntoIterator<Item = &'a DeviceFacts>) -> String {
    devices.into_iter().map(|d| d.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// A content in words.
pub fn describe(content: &Content) -> String {
    match content {
        Content::Blank { evidence } => format!("blank ({evidence})"),
        Content::Luks2 { luks_uuid, token } => {
            let whose = if token.is_some() { " of luks-agent" } else { "" };
            format!("LUKS2 volume {luks_uuid}{whose}")
        }
        Content::Unfinished => "the beginning of a LUKS2 header of luks-agent".to_owned(),
        Content::Foreign { signatures } => signatures.join(", "),
        Content::Noise { offset, evidence } => format!("{evidence}, first seen at byte {offset}"),
        Content::Unrecognised { offset } => format!("data without a known signature, first seen at byte {offset}"),
        Content::Unknown { reason } => format!("it could not be examined: {reason}"),
    }
}

impl fmt::Display for Basis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blank { evidence, replaces: None } => write!(f, "{evidence}"),
            Self::Blank { evidence, replaces: Some(uuid) } => {
                write!(f, "{evidence}; replaces {uuid}, lost with the instance store")
            }
            Self::Noise { evidence, .. } => write!(f, "volumes.noise is format-ebs; {evidence}"),
            Self::Unfinished { luks_uuid } => write!(f, "finishes formatting {luks_uuid}, which holds no data"),
            Self::Wipe { found, .. } => write!(f, "wipe-instance-store is configured; overwrites {}", describe(found)),
        }
    }
}

impl fmt::Display for VolumeRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ebs => "ebs",
            Self::InstanceStore => "instance-store",
        })
    }
}
