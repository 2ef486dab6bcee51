//! Reads the state file in all its versions, and replaces it as a whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::error::StateError;
use super::record::{State, VERSION};
use super::seal::{check_seal, seal};
use crate::error::IoError;
use crate::permissions::objection;

pub(super) const FILE: &str = "state.json";
pub(super) const TEMPORARY: &str = "state.json.new";

/// Returns the path of the state file in a state directory.
pub fn file(dir: &Path) -> PathBuf {
    dir.join(FILE)
}

/// Reads the state file without a lock; `None` if it does not exist.
///
/// # Errors
/// [`StateError`] if the file exists but cannot be used.
pub fn read(dir: &Path) -> Result<Option<State>, StateError> {
    let path = file(dir);
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(IoError::when("open", &path)(e).into()),
    };
    check_permissions(dir)?;
    check_permissions(&path)?;
    let mut text = Vec::new();
    file.read_to_end(&mut text).map_err(IoError::when("read", &path))?;
    let damaged = |reason: String| StateError::Damaged { path: path.clone(), reason };
    let value: serde_json::Value = serde_json::from_slice(&text).map_err(|e| damaged(e.to_string()))?;
    match value.get("version").and_then(serde_json::Value::as_u64) {
        Some(version) if version > u64::from(VERSION) => return Err(StateError::Newer { path: path.clone(), version }),
        Some(version) if version >= 1 => {}
        Some(_) | None => return Err(damaged("it has no format version".to_owned())),
    }
    let is_sealed = check_seal(&text, &value).map_err(damaged)?;
    let state = match from_value(value) {
        Ok(state) => state,
        // the checksum matches, so the file is as written, and this release lacks something
        Err(reason) if is_sealed => return Err(StateError::Later { path: path.clone(), reason }),
        Err(reason) => return Err(damaged(reason)),
    };
    state.check_consistency().map_err(damaged)?;
    Ok(Some(state))
}

fn from_value(mut value: serde_json::Value) -> Result<State, String> {
    if let Some(fields) = value.as_object_mut() {
        fields.remove("sha256");
    }
    let mut state: State = serde_json::from_value(value).map_err(|e| e.to_string())?;
    state.version = VERSION;
    Ok(state)
}

/// Replaces the state file of a state directory durably.
pub(super) fn write(dir: &Path, state: &State) -> Result<(), StateError> {
    let temporary = dir.join(TEMPORARY);
    let path = file(dir);
    let text = seal(state).map_err(|e| IoError::when("encode", &path)(e.into()))?;
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(&temporary)
        .map_err(IoError::when("create", &temporary))?;
    file.write_all(&text).map_err(IoError::when("write", &temporary))?;
    file.sync_all().map_err(IoError::when("sync", &temporary))?;
    fs::rename(&temporary, &path).map_err(IoError::when("replace", &path))?;
    sync_dir(dir)
}

pub(super) fn check_permissions(path: &Path) -> Result<(), StateError> {
    let metadata = fs::symlink_metadata(path).map_err(IoError::when("examine", path))?;
    let owner = nix::unistd::geteuid().as_raw();
    match objection(&metadata, owner) {
        Some(reason) => Err(StateError::Permissions { path: path.into(), reason, owner }),
        None => Ok(()),
    }
}

pub(super) fn sync_dir(dir: &Path) -> Result<(), StateError> {
    let synced = File::open(dir).and_then(|d| d.sync_all());
    Ok(synced.map_err(IoError::when("sync", dir))?)
}
