//! Whether a known volume may leave the state file.

use super::finding::Finding;
use super::owner::{disk_of, has_header};
use crate::disk::{DeviceFacts, Inventory};
use crate::state::{State, VolumeRecord};

/// Returns why a volume must not be forgotten. `inventory` has the headers of all disks that may hold volumes of luks-agent.
pub fn objection_to_forgetting(
    state: &State,
    inventory: &Inventory,
    volume: &VolumeRecord,
    even_if_attached: bool,
) -> Option<Finding> {
    let luks_uuid = volume.luks_uuid;
    if let Some(open) = inventory.open_on(luks_uuid) {
        let remedy = format!("run 'luks-agent close {}' first", open.name);
        return Some(Finding::refused(format!("LUKS UUID {luks_uuid} is open on {}", open.name), remedy));
    }
    let disk = attached_disk(state, inventory, volume).filter(|_| !even_if_attached)?;
    let evidence = format!("the disk of LUKS UUID {luks_uuid}, {}, is attached", disk.name);
    let remedy =
        "detach it, then try again; with --even-if-attached, the node forgets a volume that it could still use";
    Some(Finding::refused(evidence, remedy))
}

/// Returns the disk that a volume is on, or whose record it is.
pub fn attached_disk<'a>(state: &State, inventory: &'a Inventory, volume: &VolumeRecord) -> Option<&'a DeviceFacts> {
    let with_header = inventory.devices.iter().find(|facts| has_header(facts, volume));
    with_header.or_else(|| disk_of(state, volume, &inventory.devices))
}
