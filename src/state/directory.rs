//! The state directory: creating it, locking it, and saving to it.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::error::StateError;
use super::file::{check_permissions, file, read, sync_dir, write};
use super::lock::{is_same, lock_dir};
use super::record::State;
use crate::discover::{Roots, in_memory};
use crate::error::{IoError, chain};

/// The locked state directory, which is the only way to write.
///
/// The lock is on the directory itself, which only root can open. It is created before anything else. A run that saves
/// nothing removes the directory that it created.
#[derive(Debug)]
pub struct StateDir {
    dir: PathBuf,
    lock: File,
    is_new: bool,
}

impl StateDir {
    /// Locks a state directory that must contain a state file.
    ///
    /// # Errors
    /// [`StateError::NeverProvisioned`], [`StateError::Locked`], or an I/O error.
    pub fn open(dir: &Path) -> Result<Self, StateError> {
        let path = file(dir);
        let exists = |path: &Path| path.try_exists().map_err(IoError::when("examine", path));
        if !exists(dir)? {
            return Err(StateError::NeverProvisioned { path });
        }
        // another run may be about to create the file
        let locked = Self::lock(dir)?;
        if exists(&path)? { Ok(locked) } else { Err(StateError::NeverProvisioned { path }) }
    }

    /// Locks a state directory, and creates it if it does not exist.
    ///
    /// A directory in memory is accepted only if it already contains a state file: its volumes can be opened, but a
    /// new one would be lost.
    ///
    /// # Errors
    /// [`StateError::Locked`], [`StateError::InMemory`], or an I/O error.
    pub fn create(dir: &Path) -> Result<Self, StateError> {
        let base = nearest_existing(dir)?;
        match in_memory(&Roots::host(), dir) {
            Ok(None) => {}
            Ok(Some(on)) if file(dir).exists() => tracing::warn!(
                "state.dir {} is in memory: it lies on {on}; known volumes are opened, but a reboot loses everything else that is recorded; choose a directory on the boot volume",
                dir.display()
            ),
            Ok(Some(on)) => return Err(StateError::InMemory { path: dir.into(), on }),
            // the boot disk cannot be resolved either, so nothing is formatted
            Err(reason) => {
                tracing::warn!("cannot find out what state.dir {} lies on: {}", dir.display(), chain(reason))
            }
        }
        check_permissions(base)?;
        if base != dir {
            DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(IoError::when("create", dir))?;
            for ancestor in dir.ancestors().skip(1).take_while(|path| path.starts_with(base)) {
                sync_dir(ancestor)?;
            }
        }
        let mut locked = Self::lock(dir)?;
        locked.is_new = base != dir;
        Ok(locked)
    }

    fn lock(dir: &Path) -> Result<Self, StateError> {
        check_permissions(dir)?;
        let lock = lock_dir(dir)?;
        Ok(Self { dir: dir.to_owned(), lock, is_new: false })
    }

    /// Returns the state, or an empty one if nothing was saved yet.
    ///
    /// # Errors
    /// As [`read`].
    pub fn load(&self) -> Result<State, StateError> {
        Ok(read(&self.dir)?.unwrap_or_default())
    }

    /// Replaces the state file durably, and reads it back.
    ///
    /// # Errors
    /// [`StateError::Io`]; the old file is then unchanged. [`StateError::Damaged`] if the content read back differs.
    pub fn save(&self, state: &State) -> Result<(), StateError> {
        if fs::symlink_metadata(&self.dir).is_ok_and(|now| !is_same(&self.lock, &now)) {
            return Err(StateError::Replaced { path: self.dir.clone() });
        }
        write(&self.dir, state)?;
        self.holds(state)
    }

    /// Checks that the state file contains what was written.
    pub(super) fn holds(&self, state: &State) -> Result<(), StateError> {
        match read(&self.dir)? {
            Some(found) if found == *state => Ok(()),
            Some(_) | None => Err(StateError::Damaged {
                path: file(&self.dir),
                reason: "the content read back differs from the content written".to_owned(),
            }),
        }
    }
}

impl Drop for StateDir {
    fn drop(&mut self) {
        if self.is_new {
            // fails if the directory is not empty; the lock keeps other runs out of it
            let _ = fs::remove_dir(&self.dir);
        }
        // closing the file is not enough: a forked child that has not called exec yet shares the lock
        let _ = self.lock.unlock();
    }
}

fn nearest_existing(dir: &Path) -> Result<&Path, StateError> {
    for path in dir.ancestors() {
        match path.try_exists() {
            Ok(true) => return Ok(path),
            Ok(false) => {}
            Err(e) => return Err(IoError::when("examine", path)(e).into()),
        }
    }
    Ok(Path::new("/"))
}
