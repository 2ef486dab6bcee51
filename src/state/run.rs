//! Files in `/run/luks-agent`, which exist until the next reboot.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Directory of the files that commands leave for one another.
pub(crate) const RUN_DIR: &str = "/run/luks-agent";

/// Reads a file; `None` if it does not exist or is not valid.
pub(crate) fn read_json<T: DeserializeOwned>(dir: &Path, name: &str) -> Option<T> {
    serde_json::from_slice(&fs::read(dir.join(name)).ok()?).ok()
}

/// Replaces a file as a whole, and creates the directory if it does not exist.
pub(crate) fn write_json<T: Serialize + ?Sized>(dir: &Path, name: &str, value: &T) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let mut temporary = tempfile::NamedTempFile::new_in(dir)?;
    temporary.write_all(&serde_json::to_vec(value)?)?;
    temporary.persist(dir.join(name))?;
    Ok(())
}
