//! Closes a volume: either completely or not at all, or as far as possible. Reports who holds it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::discover::{BackingError, Mount, Mounts, Roots};
use crate::disk::DevNo;
use crate::error::{IoError, chain};
use crate::job::Extent;
use crate::storage::cryptsetup::{self, LuksError, Mapping};
use crate::storage::dm::{self, DmError};
use crate::storage::holders::{Volume, When, join_some};
use crate::storage::mount::{self, MountError};
use crate::storage::{MountSpec, ToolError};

/// How long to wait for holders of a volume to let go, such as udev while it examines the volume.
const PATIENCE: Duration = Duration::from_millis(1500);
/// The time between two attempts.
const PAUSE: Duration = Duration::from_millis(250);

/// A volume that was not closed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CloseError {
    /// libcryptsetup failed.
    #[error(transparent)]
    Luks(#[from] LuksError),
    /// Device-mapper did not report how often it is open.
    #[error(transparent)]
    Dm(#[from] DmError),
    /// A program failed.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// A system call failed.
    #[error(transparent)]
    Io(#[from] IoError),
    /// The node of its mapping has a device number that cannot be one.
    #[error("the device number of its mapping is invalid")]
    NoDeviceNumber,
    /// The mount table is unknown.
    #[error(transparent)]
    MountTable(#[from] BackingError),
    /// Something is mounted over it.
    #[error("{by} is mounted over it at {at}")]
    Covered {
        /// What.
        by: PathBuf,
        /// Where.
        at: PathBuf,
    },
    /// It is in use.
    #[error("it is in use, so nothing was changed: {}; stop what uses it, then try again", join_some(.holders))]
    InUse {
        /// Who uses it, as phrases.
        holders: Vec<String>,
    },
    /// It could not be unmounted.
    #[error("it is in use, so nothing was changed")]
    NotUnmounted(#[source] Box<Self>),
    /// Its data is being re-encrypted, or that was killed.
    #[error(
        "its data is being re-encrypted; stop 'luks-agent rotate --volume-key' first, or restart the node if that was killed"
    )]
    Reencrypting,
    /// Its mapping could not be removed.
    #[error("cannot close it: it is still in use: {}", join_some(.holders))]
    Held {
        /// Who uses it, as phrases.
        holders: Vec<String>,
    },
    /// Its mapping could not be removed after it was unmounted.
    #[error("{}; {after}", chain(.why))]
    StaysOpen {
        /// Why.
        why: Box<Self>,
        /// What happened to its mount.
        after: After,
    },
}

/// What happened to the mount of a volume that stays open.
#[derive(Debug, thiserror::Error)]
pub(crate) enum After {
    /// It had no mount of the agent.
    #[error("it stays open")]
    Open,
    /// It is mounted again.
    #[error("it stays open and is mounted at {at} again")]
    MountedAgain {
        /// The mount point.
        at: PathBuf,
    },
    /// It is no longer mounted.
    #[error("it stays open, but mounting it at {at} again failed: {}", chain(.reason))]
    NotMountedAgain {
        /// The mount point.
        at: PathBuf,
        /// Why.
        reason: MountError,
    },
}

/// Unmounts a volume and removes its mapping. Does nothing if the volume is not open.
///
/// # Errors
/// Names who holds the volume and what has changed.
pub(crate) fn close(mapper: &str, extent: &Extent) -> Result<(), CloseError> {
    match cryptsetup::mapping(mapper)? {
        Mapping::Absent => return Ok(()),
        // libcryptsetup does not close a mapping without a table
        Mapping::Empty => return Ok(dm::remove(mapper)?),
        Mapping::Open => {}
    }
    if matches!(extent, Extent::Whole { .. }) && dm::is_linear(mapper)? {
        return Err(CloseError::Reencrypting);
    }
    let node = dm::node(mapper)?;
    let metadata = fs::metadata(&node).map_err(IoError::when("examine", &node))?;
    let device = DevNo::from_rdev(metadata.rdev()).ok_or(CloseError::NoDeviceNumber)?;
    let volume = Volume { mapper, device };
    match extent {
        Extent::Whole { mount } => close_whole(&volume, &node, mount.as_ref()),
        Extent::AsFarAsPossible => close_as_far_as_possible(&volume),
    }
}

fn close_whole(volume: &Volume<'_>, node: &Path, how: Option<&MountSpec>) -> Result<(), CloseError> {
    let own = retry(|| {
        let table = read_mount_table()?;
        let own = how.and_then(|how| find_own_mount(volume, &table, how)).cloned();
        refuse_if_held(volume.find_holders(&table, own.as_ref(), When::Before)?)?;
        let Some(mount) = &own else { return Ok(None) };
        let Err(e) = unmount(mount) else { return Ok(own) };
        // for example a process in another mount namespace with its working directory there
        refuse_if_held(volume.find_holders(&table, Some(mount), When::AfterFailure)?)?;
        Err(CloseError::NotUnmounted(Box::new(e)))
    })?;
    let Err(why) = retry(|| remove(volume)) else { return Ok(()) };
    let after = match (how, own) {
        (Some(how), Some(own)) => {
            let at = own.point;
            match mount::mount(node, &MountSpec { at: at.clone(), ..how.clone() }) {
                Ok(_) => After::MountedAgain { at },
                Err(reason) => After::NotMountedAgain { at, reason },
            }
        }
        _ => After::Open,
    };
    Err(CloseError::StaysOpen { why: Box::new(why), after })
}

/// Fails if there are holders.
fn refuse_if_held(holders: Vec<String>) -> Result<(), CloseError> {
    if holders.is_empty() { Ok(()) } else { Err(CloseError::InUse { holders }) }
}

/// Returns the agent's own mount: the one at the recorded mount point, or else the first of the whole file system, because the
/// record may have changed.
fn find_own_mount<'t>(volume: &Volume<'_>, table: &'t Mounts, how: &MountSpec) -> Option<&'t Mount> {
    let whole = || volume.mounts(table).filter(|mount| mount.root == Path::new("/"));
    whole().find(|mount| mount.point == how.at).or_else(|| whole().next())
}

fn close_as_far_as_possible(volume: &Volume<'_>) -> Result<(), CloseError> {
    retry(|| {
        // unmount in reverse order, because later mounts may be on top of earlier ones
        for mount in volume.mounts(&read_mount_table()?).rev() {
            // `remove` reports mounts that are left
            let _ = unmount(mount);
        }
        remove(volume)
    })
}

/// Removes the mapping, or reports who holds it.
fn remove(volume: &Volume<'_>) -> Result<(), CloseError> {
    match cryptsetup::mapping(volume.mapper)? {
        // systemd or an administrator has closed it meanwhile
        Mapping::Absent => return Ok(()),
        Mapping::Empty | Mapping::Open => {}
    }
    let Err(e) = cryptsetup::close(volume.mapper) else { return Ok(()) };
    let holders = volume.find_holders(&read_mount_table()?, None, When::AfterFailure)?;
    Err(if holders.is_empty() { e.into() } else { CloseError::Held { holders } })
}

/// Unmounts one mount, but nothing that was mounted over it: `umount` takes the topmost mount at a path.
fn unmount(mount: &Mount) -> Result<(), CloseError> {
    let table = read_mount_table()?;
    if !table.iter().any(|now| now.id == mount.id) {
        return Ok(());
    }
    let top = table.of(&mount.point)?;
    if top.id != mount.id {
        return Err(CloseError::Covered { by: top.source.clone(), at: top.point.clone() });
    }
    Ok(mount::unmount(&mount.point)?)
}

fn read_mount_table() -> Result<Mounts, CloseError> {
    Ok(Mounts::read(&Roots::host())?)
}

/// Retries something for a while until it succeeds.
fn retry<T>(mut attempt: impl FnMut() -> Result<T, CloseError>) -> Result<T, CloseError> {
    let since = Instant::now();
    loop {
        match attempt() {
            Err(_) if since.elapsed() < PATIENCE => sleep(PAUSE),
            other => return other,
        }
    }
}
