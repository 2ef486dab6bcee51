//! Locks a state directory, and finds out who holds the lock.

use std::fs::{self, File, Metadata, Permissions, TryLockError};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use super::error::StateError;
use super::file::{FILE, TEMPORARY};
use crate::error::IoError;

pub(super) fn lock_dir(dir: &Path) -> Result<File, StateError> {
    let io = |action| IoError::when(action, dir);
    loop {
        let file = File::open(dir).map_err(io("open"))?;
        // a user who can open the directory can lock it, and so block the agent
        let mode = file.metadata().map_err(io("examine"))?.mode();
        if mode & 0o077 != 0 {
            if !holds_state_only(dir).map_err(io("list"))? {
                tracing::warn!("other users can lock {}; give state.dir a directory of its own", dir.display());
            } else if let Err(e) = file.set_permissions(Permissions::from_mode(0o700)) {
                tracing::warn!("other users can lock {}: cannot change its mode to 0700: {e}", dir.display());
            }
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let waited = Duration::ZERO;
                return Err(StateError::Locked { path: dir.into(), holder: holder_of(&file), waited });
            }
            Err(TryLockError::Error(e)) => return Err(io("lock")(e).into()),
        }
        // the holder may have removed it, and another may have taken its place
        match fs::symlink_metadata(dir) {
            Ok(now) if is_same(&file, &now) => return Ok(file),
            Ok(_) => {}
            Err(e) => return Err(io("examine")(e).into()),
        }
    }
}

/// Returns whether a directory contains nothing but the state file, so that nobody else needs it.
fn holds_state_only(dir: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        if name != FILE && name != TEMPORARY {
            return Ok(false);
        }
    }
    Ok(true)
}

pub(super) fn is_same(file: &File, now: &Metadata) -> bool {
    file.metadata().is_ok_and(|locked| (locked.dev(), locked.ino()) == (now.dev(), now.ino()))
}

/// Returns the process that holds the lock on a file.
///
/// `/proc/locks` has lines such as `1: FLOCK  ADVISORY  WRITE 4711 fe:01:1234 0 EOF`.
fn holder_of(file: &File) -> String {
    // on an overlay, `stat` can return another inode number than `/proc/locks`
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd())).unwrap_or_default();
    let inode = info.lines().find_map(|line| line.strip_prefix("ino:")).map(|ino| ino.trim().to_owned());
    let inode = inode.or_else(|| Some(file.metadata().ok()?.ino().to_string())).unwrap_or_default();
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    let pid = locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, _, pid, file, ..] = fields.as_slice() else { return None };
        (file.rsplit(':').next() == Some(inode.as_str())).then(|| (*pid).to_owned())
    });
    let Some(pid) = pid else { return "an unknown process, which /proc/locks does not list".to_owned() };
    let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    format!("pid {pid}, {}", command.trim_end_matches('\0').replace('\0', " ").escape_debug())
}
