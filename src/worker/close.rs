//! Closing a volume: all of it or nothing, or as far as it can be; and who holds it. Runs in the worker.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::discover::{Mount, Mounts, Roots};
use crate::disk::DevNo;
use crate::error::chain;
use crate::job::Extent;
use crate::storage::cryptsetup::{self, Mapping};
use crate::storage::holders::{Volume, list};
use crate::storage::{MountSpec, dm, mount};

/// How long whoever holds a volume is waited for, as udev does while it looks at it, and how often it is looked whether they still do.
const PATIENCE: Duration = Duration::from_millis(1500);
const PAUSE: Duration = Duration::from_millis(250);

/// Unmounts a volume and removes its mapping; one that is not open stays so.
///
/// # Errors
/// Who holds it, and what was changed.
pub(crate) fn close(mapper: &str, extent: &Extent) -> Result<(), String> {
    match cryptsetup::mapping(mapper).map_err(chain)? {
        Mapping::Absent => return Ok(()),
        // libcryptsetup closes nothing that is not open
        Mapping::Empty => return dm::remove(mapper).map_err(chain),
        Mapping::Open => {}
    }
    let node = dm::node(mapper).map_err(chain)?;
    let metadata = fs::metadata(&node).map_err(|e| format!("{} cannot be examined: {e}", node.display()))?;
    let device = DevNo::from_rdev(metadata.rdev()).ok_or("its mapping has no device number")?;
    let volume = Volume { mapper, device };
    match extent {
        Extent::Whole { mount } => close_whole(&volume, &node, mount.as_ref()),
        Extent::AsFarAsPossible => close_as_far_as_possible(&volume),
    }
}

fn close_whole(volume: &Volume<'_>, node: &Path, how: Option<&MountSpec>) -> Result<(), String> {
    let own = patiently(|| {
        let table = mount_table()?;
        let own = how.and_then(|how| own_mount(volume, &table, how)).cloned();
        nobody(&volume.holders(&table, own.as_ref())?)?;
        let Some(mount) = &own else { return Ok(None) };
        let Err(e) = unmount(mount) else { return Ok(own) };
        // such as a process that works in it in another mount namespace
        nobody(&volume.hinderers(&table, Some(mount))?)?;
        Err(unchanged(&e))
    })?;
    let Err(why) = patiently(|| remove(volume)) else { return Ok(()) };
    let again = match (how, own) {
        (Some(how), Some(own)) => match mount::mount(node, &MountSpec { at: own.point.clone(), ..how.clone() }) {
            Ok(_) => format!("it stays open, and was mounted at {} again", own.point.display()),
            Err(e) => format!("it stays open, and could not be mounted at {} again: {}", own.point.display(), chain(e)),
        },
        _ => "it stays open".to_owned(),
    };
    Err(format!("{why}; {again}"))
}

/// That nothing was changed, as somebody holds the volume.
fn nobody(holders: &[String]) -> Result<(), String> {
    if holders.is_empty() { Ok(()) } else { Err(format!("{}; end that, then try again", unchanged(&list(holders)))) }
}

fn unchanged(why: &str) -> String {
    format!("it is in use, and nothing was changed: {why}")
}

/// The mount that the agent made: where the volume belongs, or the first of all that is in it, as a record may have moved.
fn own_mount<'t>(volume: &Volume<'_>, table: &'t Mounts, how: &MountSpec) -> Option<&'t Mount> {
    let whole = || volume.mounts(table).filter(|mount| mount.root == Path::new("/"));
    whole().find(|mount| mount.point == how.at).or_else(|| whole().next())
}

fn close_as_far_as_possible(volume: &Volume<'_>) -> Result<(), String> {
    patiently(|| {
        // what is mounted on another of its mounts goes first
        for mount in volume.mounts(&mount_table()?).rev() {
            // what stays mounted is named below
            let _ = unmount(mount);
        }
        remove(volume)
    })
}

/// Removes the mapping; says who holds it, where it cannot be removed.
fn remove(volume: &Volume<'_>) -> Result<(), String> {
    match cryptsetup::mapping(volume.mapper).map_err(chain)? {
        // systemd or an administrator was faster
        Mapping::Absent => return Ok(()),
        Mapping::Empty | Mapping::Open => {}
    }
    let Err(e) = cryptsetup::close(volume.mapper) else { return Ok(()) };
    let holders = volume.hinderers(&mount_table()?, None)?;
    Err(match holders.as_slice() {
        [] => chain(e),
        holders => format!("it could not be closed: {}", list(holders)),
    })
}

/// Unmounts what the mount table has there, and nothing that was mounted over it: `umount` takes what is topmost at a path.
fn unmount(mount: &Mount) -> Result<(), String> {
    let table = mount_table()?;
    if !table.iter().any(|now| now.id == mount.id) {
        return Ok(());
    }
    let top = table.of(&mount.point).map_err(chain)?;
    if top.id != mount.id {
        return Err(format!("{} is mounted over it, at {}", top.source.display(), top.point.display()));
    }
    mount::unmount(&mount.point).map_err(chain)
}

fn mount_table() -> Result<Mounts, String> {
    Mounts::read(&Roots::host()).map_err(chain)
}

/// Tries something until it succeeds, for a while.
fn patiently<T>(mut attempt: impl FnMut() -> Result<T, String>) -> Result<T, String> {
    let since = Instant::now();
    loop {
        match attempt() {
            Err(_) if since.elapsed() < PATIENCE => sleep(PAUSE),
            other => return other,
        }
    }
}
