//! Lists the disks of the machine.

use std::collections::BTreeMap;
use std::path::Path;

use super::error::DiscoverError;
use super::facts::read_facts;
use super::links::links_by_name;
use super::memory::find_in_memory;
use super::mount_points::MountPoints;
use super::roots::Roots;
use super::sysfs::{Sysfs, is_being_removed, is_gone};
use super::table::Mounts;
use super::{boot, xen};
use crate::disk::{DeviceFacts, Inventory};
use crate::error::chain;

/// Lists the whole disks of the machine and finds those that carry the running system.
///
/// `state_dir` need not exist yet. `mapping` is the IMDS block device mapping, from key (`ami`, `ebs1`, `ephemeral0`)
/// to device name (`sdb`, `/dev/sda1`); only Xen disks need it. A disk that vanishes while it is read is skipped, and
/// so is, with a warning, a disk whose facts cannot be read. If the boot disk is unknown,
/// [`Inventory::boot_unresolved`] says why.
///
/// # Errors
/// [`DiscoverError`] when `/sys/block` cannot be listed.
pub fn discover(
    roots: &Roots,
    state_dir: &Path,
    mapping: Option<&BTreeMap<String, String>>,
) -> Result<Inventory, DiscoverError> {
    let sysfs = Sysfs::new(roots);
    let links = links_by_name(&roots.dev);
    let mounts = Mounts::read(roots);
    let mounted = mounts.as_ref().map(|mounts| MountPoints::from_table(&sysfs, mounts)).unwrap_or_default();

    let (mut devices, mut unreadable) = (Vec::new(), Vec::new());
    for name in sysfs.disk_names()? {
        match read_facts(&sysfs, &name, &mounted) {
            Ok(Some(mut facts)) => {
                if let Some(links) = links.get(&name) {
                    facts.links.extend(links.iter().cloned());
                    facts.links.sort();
                }
                devices.push(facts);
            }
            Ok(None) => {}
            Err(error) if is_gone(&error) || is_being_removed(&error) => {
                tracing::debug!(disk = name, "disk vanished while it was read")
            }
            Err(error) => {
                tracing::warn!(disk = name, "skipping a disk that cannot be read: {}", chain(error));
                unreadable.push(name);
            }
        }
    }

    // After the listing, so that a disk that joined the boot stack meanwhile does not count as free.
    let boot = boot::resolve(&sysfs, mounts.as_ref(), state_dir);
    for facts in &mut devices {
        facts.system = boot.describe(&facts.name).or_else(|| boot.describe_below(&sysfs, &facts.name));
    }
    let names = devices.iter().map(|facts| facts.name.clone());
    let with_system_mount = names.filter(|name| boot.carries_mount_below(&sysfs, name)).collect();
    let mut boot_unresolved = boot.unresolved.clone();
    if let Some(mapping) = mapping {
        let mismatch = xen::assign(&mut devices, mapping, &boot);
        boot_unresolved = boot_unresolved.or(mismatch);
    }
    devices.sort_by(|a, b| {
        let key = |d: &DeviceFacts| (d.serial.is_none(), d.serial.clone(), d.name.clone());
        key(a).cmp(&key(b))
    });
    // a path that cannot be followed leaves the boot disk unresolved, too
    let state_in_memory = mounts.ok().and_then(|mounts| find_in_memory(&sysfs, &mounts, state_dir).ok().flatten());
    Ok(Inventory {
        devices,
        boot_unresolved,
        state_in_memory,
        instance_id: None,
        missing_ciphers: Vec::new(),
        with_system_mount,
        unreadable,
    })
}
