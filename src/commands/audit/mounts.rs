//! Where volumes are mounted, and whether that is by way of their mapping.

use std::fs;
use std::path::Path;

use super::super::node::Node;
use crate::discover::{Mounts, Roots};
use crate::disk::{DevNo, DeviceFacts, Holder};
use crate::state::VolumeRecord;

/// The mount table, and the mappings of the node.
pub(super) struct MountTable {
    /// `None` if it cannot be read. The boot disk is not resolved then either, which fails the node.
    table: Option<Mounts>,
    /// The device numbers of the mappings of known volumes.
    mappings: Vec<DevNo>,
}

/// How a volume is mounted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Mounted {
    /// The ways past its mapping, in words.
    pub(super) around: Vec<String>,
    /// Other devices on its disk, in words.
    pub(super) beside: Vec<String>,
    /// Whether its mapping is at its mount point.
    pub(super) is_in_place: bool,
}

impl MountTable {
    pub(super) fn read(node: Node<'_>) -> Self {
        let open = |volume: &VolumeRecord| {
            let facts = node.inventory.open_on(volume.luks_uuid)?;
            device_number(facts.mapping_of(volume.luks_uuid)?)
        };
        Self {
            table: Mounts::read(&Roots::host()).ok(),
            mappings: node.state.volumes.iter().filter_map(open).collect(),
        }
    }

    /// Whether a path is no place of its own. The sandbox of a unit binds such directories, and nobody outside of it sees that.
    pub(super) fn is_bound_onto_itself(&self, path: &Path) -> bool {
        self.table.as_ref().is_some_and(|table| table.is_bound_onto_itself(path))
    }

    /// Returns how a volume on a disk is mounted.
    pub(super) fn of(&self, volume: &VolumeRecord, facts: &DeviceFacts) -> Mounted {
        let own = facts.mapping_of(volume.luks_uuid);
        let mut mounted = Mounted { is_in_place: volume.mount_point.is_none(), ..Mounted::default() };
        for at in &facts.mounts {
            mounted.around.push(format!("{} is mounted from the disk, past its mapping", at.display()));
        }
        for other in facts.holders.iter().filter(|holder| own.is_none_or(|own| own.name != holder.name)) {
            let name = other.dm_name.as_ref().unwrap_or(&other.name);
            mounted.beside.push(format!("{name} is stacked on the disk, and is not its mapping"));
            for at in &other.mounts {
                mounted.around.push(format!("{} is mounted from {name}, past its mapping", at.display()));
            }
        }
        let Some(at) = &volume.mount_point else { return mounted };
        let Some((source, devno)) = self.mounted_at(at) else { return mounted };
        if own.and_then(device_number) == Some(devno) {
            mounted.is_in_place = true;
        } else if !self.mappings.contains(&devno) {
            mounted.around.push(format!("{source} is mounted at {}, in place of its mapping", at.display()));
        }
        mounted
    }

    /// Returns the source and the device of what is mounted at a path, topmost; `None` if nothing is.
    fn mounted_at(&self, path: &Path) -> Option<(String, DevNo)> {
        let mount = self.table.as_ref()?.of(path).ok()?;
        let real = fs::canonicalize(path).ok()?;
        (mount.point == real).then(|| (mount.source.display().to_string(), mount.devno))
    }
}

fn device_number(holder: &Holder) -> Option<DevNo> {
    fs::read_to_string(format!("/sys/class/block/{}/dev", holder.name)).ok()?.trim().parse().ok()
}
