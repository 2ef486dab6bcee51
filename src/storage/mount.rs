//! Mounts volumes and prepares mount points.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::{Deserialize, Serialize};

use super::filesystem::FilesystemKind;
use super::selinux::{label_new_directory, label_root};
use super::tool::{ToolError, run};
use crate::discover::{BackingError, Roots, mounted_at};
use crate::error::IoError;

/// A file system that could not be mounted or unmounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// A tool could not be run.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// Something is mounted at the mount point.
    #[error(
        "mount point {path} is taken: {source_device} is mounted there; unmount it, or choose another filesystem.mount_base"
    )]
    Taken {
        /// The mount point.
        path: PathBuf,
        /// The source of that mount.
        source_device: String,
    },
    /// The mount point has files that a new volume would hide.
    #[error(
        "mount point {path} is not empty: it contains {entries}; move them away, or choose another filesystem.mount_base, then run 'luks-agent provision'"
    )]
    NotEmpty {
        /// The mount point.
        path: PathBuf,
        /// Its entries.
        entries: String,
    },
    /// The mount point cannot be created.
    #[error("cannot create mount point {path}: {reason}; {remedy}")]
    NotMade {
        /// The mount point.
        path: PathBuf,
        /// Why.
        reason: io::Error,
        /// What to do about it.
        remedy: &'static str,
    },
    /// The mount point is not a directory.
    #[error("mount point {path} is not a directory; move it away, or choose another filesystem.mount_base")]
    NotADirectory {
        /// The mount point.
        path: PathBuf,
    },
    /// The mount table cannot be read.
    #[error(transparent)]
    Table(#[from] BackingError),
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
    /// Mount options.
    pub options: Vec<String>,
}

/// Mounts a mapping and creates the mount point if it does not exist.
///
/// Mounts over files in the mount point. Returns a warning that names the files that are hidden now, and the labels that could not be set.
///
/// # Errors
/// If something is mounted at the mount point, it is not a directory, or `mount` fails.
pub fn mount(device: &Path, mount: &MountSpec) -> Result<Option<String>, MountError> {
    let Some(kind) = mount.filesystem.name() else { return Ok(None) };
    let path = &mount.at;
    let Prepared { entries, label_warning } = prepare_mount_point(path)?;
    let options = mount.options.join(",");
    let mut args: Vec<&OsStr> = vec!["-t".as_ref(), kind.as_ref()];
    if !options.is_empty() {
        args.extend([OsStr::new("-o"), options.as_ref()]);
    }
    args.extend([device.as_os_str(), path.as_os_str()]);
    run("mount", &args)?;
    let hides = |entries| {
        let at = path.display();
        format!("the mount hides files in {at}: {entries}; to reach them, run 'mount --bind / DIR' and look in DIR{at}")
    };
    // what lies on the root matters more than the directory that it hides
    let label_warning = label_root(path).or(label_warning);
    let warnings: Vec<String> = entries.map(hides).into_iter().chain(label_warning).collect();
    Ok((!warnings.is_empty()).then(|| warnings.join("; ")))
}

/// Prepares the first mount of a volume: creates the mount point if it does not exist, and checks that it is empty.
///
/// Flushes the directory to disk, whoever created it, because after a power cut there may be no space to create it again.
///
/// # Errors
/// If something is mounted at the mount point, it is not an empty directory, or it cannot be created.
pub fn prepare_first_mount(path: &Path) -> Result<(), MountError> {
    let Prepared { entries, label_warning } = prepare_mount_point(path)?;
    if let Some(entries) = entries {
        return Err(MountError::NotEmpty { path: path.to_owned(), entries });
    }
    if let Some(warning) = label_warning {
        tracing::warn!("{warning}");
    }
    for dir in path.ancestors().take(2) {
        let flushed = fs::File::open(dir).and_then(|dir| dir.sync_all());
        flushed.map_err(IoError::when("flush", dir))?;
    }
    Ok(())
}

/// Creates a directory and its missing parents, and flushes each before it creates the next. Returns a warning if one has not its label.
///
/// If that fails, the volume cannot be mounted anywhere else: its users expect it at this mount point, and services that wait for
/// the node to be ready do not start without it.
fn make_mount_point(path: &Path) -> Result<Option<String>, MountError> {
    let missing: Vec<&Path> = path.ancestors().take_while(|dir| !dir.exists()).collect();
    let mut warning = None;
    let make = |dir: &Path| {
        match fs::create_dir(dir) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
            Ok(()) => warning = warning.take().or(label_new_directory(dir)),
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
    missing.into_iter().rev().try_for_each(make).map_err(not_made)?;
    Ok(warning)
}

/// A mount point that exists.
struct Prepared {
    /// The names of the files in it.
    entries: Option<String>,
    /// Why it was made without its SELinux label.
    label_warning: Option<String>,
}

/// Creates a mount point if it does not exist.
fn prepare_mount_point(path: &Path) -> Result<Prepared, MountError> {
    if let Some(source) = mounted_at(&Roots::host(), path)?.pop() {
        return Err(MountError::Taken { path: path.to_owned(), source_device: source.display().to_string() });
    }
    let mut label_warning = None;
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => label_warning = make_mount_point(path)?,
        Err(e) => return Err(IoError::when("examine", path)(e).into()),
        Ok(metadata) if !metadata.is_dir() => return Err(MountError::NotADirectory { path: path.to_owned() }),
        Ok(_) => {}
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(IoError::when("list", path))? {
        names.push(entry.map_err(IoError::when("list", path))?.file_name().to_string_lossy().into_owned());
    }
    Ok(Prepared { entries: join_some(names), label_warning })
}

/// Joins the first few names for a message. Returns `None` if there are none.
fn join_some(mut names: Vec<String>) -> Option<String> {
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
/// If it is in use.
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
        let names = |names: &[&str]| join_some(names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(names(&[]), None);
        assert_eq!(names(&["b", "a\u{1b}[2J"]).unwrap(), r"'a\u{1b}[2J', 'b'");
        assert_eq!(names(&["e", "d", "c", "b", "a"]).unwrap(), "'a', 'b', 'c' and 2 more");
    }
}
