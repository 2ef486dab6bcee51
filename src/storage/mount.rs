//! Mounts and mount points.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::{Deserialize, Serialize};

use super::filesystem::FilesystemKind;
use super::tool::{ToolError, run};
use crate::discover::{Roots, mounted_at};
use crate::error::{IoError, chain};

/// A file system that could not be mounted or unmounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// A tool could not be run.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// A mount point that is taken.
    #[error(
        "mount point {path} is taken: {source_device} is mounted there; unmount it, or choose another filesystem.mount_base"
    )]
    Taken {
        /// The mount point.
        path: PathBuf,
        /// What is mounted.
        source_device: String,
    },
    /// A mount point with something in it, which a new volume would hide.
    #[error(
        "mount point {path} is not empty: it contains {entries}; move them away, or choose another filesystem.mount_base, then run 'luks-agent provision'"
    )]
    NotEmpty {
        /// The mount point.
        path: PathBuf,
        /// Its entries.
        entries: String,
    },
    /// A mount point that cannot be made.
    #[error("cannot create mount point {path}: {reason}; {remedy}")]
    NotMade {
        /// The mount point.
        path: PathBuf,
        /// Why.
        reason: io::Error,
        /// What to do about it.
        remedy: &'static str,
    },
    /// A mount point that is no directory.
    #[error("mount point {path} is not a directory; move it away, or choose another filesystem.mount_base")]
    NotADirectory {
        /// The mount point.
        path: PathBuf,
    },
    /// The mount table is unknown.
    #[error("{0}")]
    Table(String),
    /// A system call failed.
    #[error(transparent)]
    Io(#[from] IoError),
}

/// Where and how a volume is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountSpec {
    /// The mount point.
    pub at: PathBuf,
    /// The file system on the volume.
    pub filesystem: FilesystemKind,
    /// MountSpec options.
    pub options: Vec<String>,
}

/// Mounts a mapping; a mount point that does not exist is made. Files in it do not keep a volume from its place: gives back a
/// warning that names what is hidden now.
///
/// # Errors
/// When the mount point is taken or no directory, or `mount` fails.
pub fn mount(device: &Path, mount: &MountSpec) -> Result<Option<String>, MountError> {
    let Some(kind) = mount.filesystem.name() else { return Ok(None) };
    let path = &mount.at;
    let hidden = prepare_mount_point(path)?;
    let options = mount.options.join(",");
    let mut args: Vec<&OsStr> = vec!["-t".as_ref(), kind.as_ref()];
    if !options.is_empty() {
        args.extend([OsStr::new("-o"), options.as_ref()]);
    }
    args.extend([device.as_os_str(), path.as_os_str()]);
    run("mount", &args)?;
    let warning = |entries| {
        let at = path.display();
        format!("the mount hides files in {at}: {entries}; to reach them, run 'mount --bind / DIR' and look in DIR{at}")
    };
    Ok(hidden.map(warning))
}

/// Makes a mount point if it is not there, and checks that a volume can be mounted there for the first time: with nothing in
/// it that would be hidden. The directory is durable then, whoever made it: after a power cut there may be no space for another.
///
/// # Errors
/// When the mount point is taken, not empty or no directory, or cannot be made.
pub fn prepare_first_mount(path: &Path) -> Result<(), MountError> {
    if let Some(entries) = prepare_mount_point(path)? {
        return Err(MountError::NotEmpty { path: path.to_owned(), entries });
    }
    for dir in path.ancestors().take(2) {
        let flushed = fs::File::open(dir).and_then(|dir| dir.sync_all());
        flushed.map_err(IoError::when("flush", dir))?;
    }
    Ok(())
}

/// Makes a directory and what is missing above it, each durable before the next is made in it.
///
/// There is nowhere else to mount the volume when that fails: what uses it looks for it at its mount point, and what waits for the
/// node to be ready is not started without.
fn make_mount_point(path: &Path) -> Result<(), MountError> {
    let missing: Vec<&Path> = path.ancestors().take_while(|dir| !dir.exists()).collect();
    let make = |dir: &Path| {
        match fs::create_dir(dir) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
        fs::File::open(dir)?.sync_all()?;
        dir.parent().map_or(Ok(()), |parent| fs::File::open(parent)?.sync_all())
    };
    let not_made = |reason: io::Error| {
        let remedy = if matches!(reason.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            "free some space there, then run 'luks-agent unlock'; the daemon retries on its own"
        } else if reason.kind() == io::ErrorKind::ReadOnlyFilesystem {
            "create the directory while its file system is writable, for example in the image, or choose another filesystem.mount_base"
        } else {
            "create the directory, then run 'luks-agent unlock', or choose another filesystem.mount_base"
        };
        MountError::NotMade { path: path.to_owned(), reason, remedy }
    };
    missing.into_iter().rev().try_for_each(make).map_err(not_made)
}

/// Makes a mount point if it is not there; says what is in it.
fn prepare_mount_point(path: &Path) -> Result<Option<String>, MountError> {
    if let Some(source) = mounted_at(&Roots::host(), path).map_err(|e| MountError::Table(chain(e)))?.pop() {
        return Err(MountError::Taken { path: path.to_owned(), source_device: source.display().to_string() });
    }
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => make_mount_point(path)?,
        Err(e) => return Err(IoError::when("examine", path)(e).into()),
        Ok(metadata) if !metadata.is_dir() => return Err(MountError::NotADirectory { path: path.to_owned() }),
        Ok(_) => {}
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(IoError::when("list", path))? {
        names.push(entry.map_err(IoError::when("list", path))?.file_name().to_string_lossy().into_owned());
    }
    Ok(some_of(names))
}

/// The first few of these names, for a sentence; `None` if there are none.
fn some_of(mut names: Vec<String>) -> Option<String> {
    const SHOWN: usize = 3;
    names.sort();
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("'{}'", name.escape_debug())).collect();
    match (shown.as_slice(), names.len().saturating_sub(SHOWN)) {
        ([], _) => None,
        (shown, 0) => Some(shown.join(", ")),
        (shown, more) => Some(format!("{} and {more} more", shown.join(", "))),
    }
}

/// Unmounts a path.
///
/// # Errors
/// When it is in use.
pub fn unmount(path: &Path) -> Result<(), ToolError> {
    run("umount", &[path.as_os_str()]).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(at: &Path) -> MountSpec {
        MountSpec { at: at.to_owned(), filesystem: FilesystemKind::Xfs, options: vec!["noatime".into()] }
    }

    #[test]
    fn a_mount_point_that_cannot_be_used_is_refused_before_anything_is_mounted() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let first = |at: &Path| prepare_first_mount(at).unwrap_err().to_string();
        let again = |at: &Path| mount(Path::new("/dev/null"), &to(at)).unwrap_err().to_string();
        assert!(first(dir.path()).contains("is not empty: it contains 'file'; move them away"));
        for refusal in [&first as &dyn Fn(&Path) -> String, &again] {
            assert!(refusal(&file).contains("is not a directory"));
            assert!(refusal(Path::new("/proc")).contains("is taken: proc"));
        }
        prepare_first_mount(&dir.path().join("made/as/needed")).unwrap();
        assert!(dir.path().join("made/as/needed").is_dir());
    }

    #[test]
    fn what_a_mount_hides_is_named_in_part_and_without_control_characters() {
        let names = |names: &[&str]| some_of(names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(names(&[]), None);
        assert_eq!(names(&["b", "a\u{1b}[2J"]).unwrap(), r"'a\u{1b}[2J', 'b'");
        assert_eq!(names(&["e", "d", "c", "b", "a"]).unwrap(), "'a', 'b', 'c' and 2 more");
    }
}
