//! Finds mappings whose disk is gone.

use super::error::DiscoverError;
use super::holder::read_holder;
use super::kind::kind_of;
use super::mount_points::MountPoints;
use super::roots::Roots;
use super::sysfs::{Node, Sysfs, is_gone};
use super::table::Mounts;
use crate::disk::{DiskKind, Holder};

/// Returns the mappings of LUKS2 volumes that lead to no disk.
///
/// Their disk was pulled, or they have no active table because the process that created them was killed. The latter
/// hold their disk.
///
/// sysfs must say so of the mapping itself. That a disk was not found proves nothing: its facts may be unreadable for
/// a moment.
///
/// # Errors
/// [`DiscoverError`] when `/sys/block` cannot be listed.
pub fn orphans(roots: &Roots) -> Result<Vec<Holder>, DiscoverError> {
    let sysfs = Sysfs::new(roots);
    let mounted = Mounts::read(roots).map(|mounts| MountPoints::from_table(&sysfs, &mounts)).unwrap_or_default();
    let orphan = |name: &String| {
        // a mapping that vanishes meanwhile is not an orphan
        let node = sysfs.disk(name).ok()?;
        let size: u64 = node.number("size").ok()?;
        let mapping = read_holder(&sysfs, name.clone(), &mounted).ok()?;
        mapping.luks_uuid()?;
        (size == 0 || leads_nowhere(&node)).then_some(mapping)
    };
    Ok(sysfs.disk_names()?.iter().filter(|name| kind_of(name) == DiskKind::DeviceMapper).filter_map(orphan).collect())
}

/// Returns whether all devices of a mapping are certainly gone. A device that cannot be read is not gone.
fn leads_nowhere(mapping: &Node) -> bool {
    let was_pulled = |below: &String| match mapping.below(below) {
        // another disk may have taken the place of a pulled one, and then nothing is stacked on it
        Ok(disk) => disk.links("holders").is_ok_and(|holders| !holders.contains(&mapping.name)),
        Err(error) => is_gone(&error),
    };
    mapping.links("slaves").is_ok_and(|slaves| slaves.iter().all(was_pulled))
}
