//! Texts of findings that several files share.

use std::path::{Path, PathBuf};

use crate::disk::{DeviceFacts, Holder};
use crate::state::VolumeRole;

/// Returns what keeps a disk from being used.
pub fn in_use(facts: &DeviceFacts) -> String {
    let list = |what: &str, items: Vec<String>| match items.as_slice() {
        [] => None,
        items => Some(format!("{what} {}", items.join(", "))),
    };
    let at = |path: &PathBuf| Path::display(path).to_string();
    let holders = facts.holders.iter().map(holder).collect();
    let mounts = facts.mounts.iter().chain(facts.holders.iter().flat_map(|h| &h.mounts)).map(at).collect();
    let parts = [list("held by", holders), list("mounted at", mounts)];
    match parts.into_iter().flatten().collect::<Vec<_>>().as_slice() {
        [] => "it was not examined".to_owned(),
        parts => format!("it is {}", parts.join(" and ")),
    }
}

/// Returns the name of what holds a disk.
fn holder(holder: &Holder) -> String {
    let name = holder.dm_name.as_ref().unwrap_or(&holder.name);
    if is_multipath(holder) { format!("{name}, a map of dm-multipath") } else { name.clone() }
}

fn is_multipath(holder: &Holder) -> bool {
    holder.dm_uuid.as_deref().is_some_and(|uuid| uuid.starts_with("mpath-"))
}

/// Returns what to do about a disk that is in use and could be a new volume. multipathd takes every disk that is not on its blacklist.
pub(super) fn release(facts: &DeviceFacts) -> &'static str {
    if facts.holders.iter().any(is_multipath) {
        "put the disks of EC2 on the blacklist in /etc/multipath.conf, and run 'multipathd reconfigure'"
    } else {
        "if it holds nothing you need, unmount and release it; otherwise add a [[volumes.match]] rule with role = \"ignore\""
    }
}

/// What to do about a volume whose erasing was interrupted.
pub const FINISH_ERASING: &str = "run 'luks-agent erase' for it again";

/// Returns the names of disks, for a message.
pub(super) fn names<'a>(devices: impl IntoIterator<Item = &'a DeviceFacts>) -> String {
    devices.into_iter().map(|d| d.name.as_str()).collect::<Vec<_>>().join(", ")
}

pub(super) const CHECK_VOLUME: &str = "check that the right volume is attached; nothing was changed";

pub(super) const CHECK_READABLE: &str =
    "check the volume, then try again; the agent does not touch a disk that it cannot read";

pub(super) const DETACH_ONE: &str =
    "detach one of them, or add a [[volumes.match]] rule with path and role = \"ignore\" for one";

pub(super) fn same_serial(facts: &DeviceFacts, twins: &[&DeviceFacts]) -> String {
    let serial = facts.identity();
    format!("it has the same serial number as {}, {serial}: they may be the same disk", names(twins.iter().copied()))
}

/// Returns what to do about a disk whose role is unclear.
pub fn name_it(facts: &DeviceFacts) -> String {
    let path = facts.path.display();
    format!(
        "add a [[volumes.match]] rule with path = \"{path}\" and role = \"ebs\" to have it encrypted if it is blank, or role = \"ignore\" to leave it as it is"
    )
}

/// Returns what to do about a disk that is not blank.
pub(super) fn wipe_or_ignore(facts: &DeviceFacts) -> String {
    let path = facts.path.display();
    format!(
        "if it holds nothing you need, make it blank with 'wipefs --all {path}' and 'blkdiscard --zeroout {path}'; otherwise add a [[volumes.match]] rule with role = \"ignore\""
    )
}

/// Returns what to do about a disk with noise on it.
pub(super) fn take_or_ignore(facts: &DeviceFacts, role: VolumeRole) -> String {
    match role {
        VolumeRole::Ebs if facts.serial.is_some() => format!(
            "unwritten blocks of a volume with EBS encryption look like this, and so does encrypted data without a header; if the volume is new, set volumes.noise = \"format-ebs\" (docs/configuration.md describes the risk); or {}",
            wipe_or_ignore(facts)
        ),
        VolumeRole::Ebs | VolumeRole::InstanceStore => wipe_or_ignore(facts),
    }
}
