//! What plans say: contents, uses and reasons in words.

use std::path::{Path, PathBuf};

use crate::disk::DeviceFacts;

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
