//! Devices that are stacked on a disk.

use super::error::DiscoverError;
use super::mount_points::MountPoints;
use super::sysfs::Sysfs;
use crate::disk::Holder;

/// Reads the facts of a device that holds another one.
pub(super) fn read_holder(sysfs: &Sysfs<'_>, name: String, mounted: &MountPoints) -> Result<Holder, DiscoverError> {
    let node = sysfs.disk(&name)?;
    let partitions = node.partitions()?;
    let mut mounts = Vec::new();
    for on in std::iter::once(&node).chain(&partitions) {
        mounts.extend(mounted.of(on)?);
    }
    Ok(Holder {
        dm_name: node.optional("dm/name")?,
        dm_uuid: node.optional("dm/uuid")?,
        size: node.size()?,
        mounts,
        held: !partitions.is_empty() || !node.links("holders")?.is_empty(),
        name,
    })
}
