//! Mappings whose disk is gone.

use super::error::DiscoverError;
use super::holder::read_holder;
use super::kind::kind;
use super::mount_points::MountPoints;
use super::roots::Roots;
use super::sysfs::{Node, Sysfs, gone};
use super::table::Mounts;
use crate::disk::{DiskKind, Holder};

/// The mappings of LUKS2 volumes that lead to no disk: those of a disk that was pulled, and those without a table in use, which a
/// process leaves behind that is killed while it makes one. The latter hold their disk.
///
/// sysfs must say so of the mapping itself. That a disk was not found proves nothing: its facts may be unreadable for a moment.
///
/// # Errors
/// [`DiscoverError`] when `/sys/block` cannot be listed.
pub fn orphans(roots: &Roots) -> Result<Vec<Holder>, DiscoverError> {
    let sysfs = Sysfs::new(roots);
    let mounted = Mounts::read(roots).map(|mounts| MountPoints::from_table(&sysfs, &mounts)).unwrap_or_default();
    let orphan = |name: &String| {
        // what vanishes meanwhile is none
        let node = sysfs.disk(name).ok()?;
        let size: u64 = node.number("size").ok()?;
        let mapping = read_holder(&sysfs, name.clone(), &mounted).ok()?;
        mapping.luks_uuid()?;
        (size == 0 || leads_nowhere(&node)).then_some(mapping)
    };
    Ok(sysfs.disk_names()?.iter().filter(|name| kind(name) == DiskKind::DeviceMapper).filter_map(orphan).collect())
}

/// Whether each device that a mapping was made on is gone for certain. What cannot be read is not gone.
fn leads_nowhere(mapping: &Node) -> bool {
    let is_gone = |below: &String| match mapping.below(below) {
        // another disk can have taken the place of a pulled one, and nothing is stacked on that
        Ok(disk) => disk.links("holders").is_ok_and(|holders| !holders.contains(&mapping.name)),
        Err(error) => gone(&error),
    };
    mapping.links("slaves").is_ok_and(|slaves| slaves.iter().all(is_gone))
}
