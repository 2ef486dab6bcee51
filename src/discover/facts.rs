//! The facts of one disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::error::DiscoverError;
use super::holder::read_holder;
use super::kind::kind_of;
use super::mount_points::MountPoints;
use super::sysfs::{Node, Sysfs, is_gone};
use super::udev::udev_properties;
use crate::disk::{DeviceFacts, DiskKind, Holder};

/// Reads the facts of one disk.
///
/// `None` for an entry of `/sys/block` that is not a disk of its own (a path of an NVMe multipath head, a device that re-encryption
/// puts below a mapping), and for a disk whose name was reused while it was read.
pub(super) fn read_facts(
    sysfs: &Sysfs<'_>,
    name: &str,
    mounted: &MountPoints,
) -> Result<Option<DeviceFacts>, DiscoverError> {
    let disk = sysfs.disk(name)?;
    if disk.optional("hidden")?.as_deref() == Some("1") {
        return Ok(None);
    }
    if is_between(&disk)? {
        return Ok(None);
    }
    let seen = diskseq(&disk)?;

    let kind = kind_of(name);
    let udev = udev_properties(sysfs.roots, disk.devno()?);
    let serial = serial_number(&disk, kind, &udev)?;
    let partitions = disk.partitions()?;
    let nodes = || std::iter::once(&disk).chain(&partitions);
    let holders = holders(sysfs, nodes(), mounted)?;
    let mut mounts = Vec::new();
    for node in nodes() {
        mounts.extend(mounted.of(node)?);
    }
    let facts = DeviceFacts {
        name: name.to_owned(),
        path: Path::new("/dev").join(name.replace('!', "/")),
        links: mapper_link(sysfs, &disk)?.into_iter().collect(),
        devno: disk.devno()?,
        diskseq: seen,
        size: disk.size()?,
        logical_block_size: disk.number("queue/logical_block_size")?,
        physical_block_size: disk.number("queue/physical_block_size")?,
        kind,
        model: disk.optional("device/model")?,
        serial,
        removable: disk.text("removable")? != "0",
        read_only: disk.text("ro")? != "0",
        zoned: disk.optional("queue/zoned")?.is_some_and(|zoned| zoned != "none"),
        partitions: partitions.into_iter().map(|p| p.name).collect(),
        holders,
        mounts,
        system: None,
        mapping: None,
        content: None,
    };
    // after everything else was read, so that all of it is of one disk
    if diskseq(&disk)? != seen {
        tracing::debug!(disk = name, "another disk took the name while it was read");
        return Ok(None);
    }
    Ok(Some(facts))
}

/// Returns the sequence number that the kernel gave a disk, if it supports them.
fn diskseq(disk: &Node) -> Result<Option<u64>, DiscoverError> {
    disk.number("diskseq").map(Some).or_else(|e| if is_gone(&e) { Ok(None) } else { Err(e) })
}

/// Returns the serial number of a disk, from the kernel or from udev's record.
fn serial_number(
    disk: &Node,
    kind: DiskKind,
    udev: &BTreeMap<String, String>,
) -> Result<Option<String>, DiscoverError> {
    let property = |key: &str| udev.get(key).cloned();
    Ok(match kind {
        // Reading `serial` makes the kernel ask the device and wait for it, so the copy of udev comes first.
        DiskKind::Virtio => match property("ID_SERIAL") {
            Some(serial) => Some(serial),
            None => disk.optional("serial")?,
        },
        DiskKind::Scsi => property("ID_SERIAL_SHORT").or_else(|| property("ID_SERIAL")),
        DiskKind::DeviceMapper | DiskKind::Md | DiskKind::Loop | DiskKind::Ram => None,
        DiskKind::Nvme | DiskKind::Xen | DiskKind::Optical => {
            disk.optional("device/serial")?.or_else(|| property("ID_SERIAL_SHORT"))
        }
        // User-Mode Linux has it on the disk itself, and `(null)` if there is none.
        DiskKind::Other => disk
            .optional("device/serial")?
            .or(disk.optional("serial")?.filter(|serial| serial != "(null)"))
            .or_else(|| property("ID_SERIAL_SHORT")),
    })
}

/// Returns the devices that are stacked on a disk and its partitions, sorted by name.
fn holders<'a>(
    sysfs: &Sysfs<'_>,
    nodes: impl Iterator<Item = &'a Node>,
    mounted: &MountPoints,
) -> Result<Vec<Holder>, DiscoverError> {
    let mut holders: Vec<Holder> = Vec::new();
    for node in nodes {
        for holder in node.links("holders")? {
            add_holder(sysfs, holder, mounted, &mut holders)?;
        }
    }
    holders.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(holders)
}

/// Whether libcryptsetup has put a device between a disk and a mapping, for as long as it re-encrypts the volume.
fn is_between(node: &Node) -> Result<bool, DiscoverError> {
    Ok(node.optional("dm/uuid")?.is_some_and(|uuid| uuid.starts_with("CRYPT-SUBDEV-")))
}

/// Adds a holder; or, if it is a device that libcryptsetup puts below a mapping while it re-encrypts a volume, what holds that.
fn add_holder(
    sysfs: &Sysfs<'_>,
    name: String,
    mounted: &MountPoints,
    holders: &mut Vec<Holder>,
) -> Result<(), DiscoverError> {
    let node = sysfs.disk(&name)?;
    let above = if is_between(&node)? { node.links("holders")? } else { Vec::new() };
    if !above.is_empty() {
        return above.into_iter().try_for_each(|above| add_holder(sysfs, above, mounted, holders));
    }
    if !holders.iter().any(|holder| holder.name == name) {
        holders.push(read_holder(sysfs, name, mounted)?);
    }
    Ok(())
}

/// Returns the path of a mapping below `/dev/mapper`, which without udev is a device node and not a link.
fn mapper_link(sysfs: &Sysfs<'_>, disk: &Node) -> Result<Option<PathBuf>, DiscoverError> {
    let path = disk.optional("dm/name")?.map(|name| Path::new("mapper").join(name));
    Ok(path.filter(|path| sysfs.roots.dev.join(path).exists()).map(|path| Path::new("/dev").join(path)))
}
