//! File systems: made with the distribution's mkfs, mounted with its mount. Runs in the worker.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::statfs::{EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, statfs};
use serde::{Deserialize, Serialize};

use crate::config::FilesystemKind;
use crate::discover::{Roots, mounted_at};
use crate::error::IoError;

/// Where the tools are looked for, whatever the environment says.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A file system that could not be made, mounted or unmounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// A tool that is not installed.
    #[error("'{tool}' is not installed: install package {package}")]
    NoTool {
        /// The program.
        tool: &'static str,
        /// The package that has it.
        package: &'static str,
    },
    /// A tool that could not be started.
    #[error("cannot start '{tool}'")]
    Start {
        /// The program.
        tool: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A tool that failed.
    #[error("'{tool}' failed, {status}: {output}")]
    Tool {
        /// The program.
        tool: String,
        /// Its exit status.
        status: std::process::ExitStatus,
        /// What it printed.
        output: String,
    },
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
        "mount point {path} is not empty: it holds {entries}; move that away, or choose another filesystem.mount_base, then run 'luks-agent provision'"
    )]
    NotEmpty {
        /// The mount point.
        path: PathBuf,
        /// Its entries.
        entries: String,
    },
    /// A mount point that cannot be made.
    #[error("cannot make mount point {path}: {reason}; {remedy}")]
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
    /// A file system that is not where it is to be grown.
    #[error("{device} is not mounted as {kind} at {path}; mount it with 'luks-agent unlock', then try again")]
    NotThere {
        /// The mapping.
        device: PathBuf,
        /// The file system's name.
        kind: &'static str,
        /// Where it should be mounted.
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
pub struct Mount {
    /// The mount point.
    pub at: PathBuf,
    /// The file system on the volume.
    pub filesystem: FilesystemKind,
    /// Mount options.
    pub options: Vec<String>,
}

impl FilesystemKind {
    /// The file system's name as `mount -t` takes it, its mkfs, and the package that has it.
    fn tools(self) -> Option<(&'static str, &'static str, &'static str)> {
        match self {
            Self::Xfs => Some(("xfs", "mkfs.xfs", "xfsprogs")),
            Self::Ext4 => Some(("ext4", "mkfs.ext4", "e2fsprogs")),
            Self::None => None,
        }
    }

    /// What grows it while it is mounted, and the package that has it.
    fn growing_tool(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Xfs => Some(("xfs_growfs", "xfsprogs")),
            Self::Ext4 => Some(("resize2fs", "e2fsprogs")),
            Self::None => None,
        }
    }
}

/// Checks that the tools are there, before anything is written.
///
/// # Errors
/// [`MountError::NoTool`] names the program and its package.
pub fn check_tools(kind: FilesystemKind) -> Result<(), MountError> {
    let mut tools = vec![("wipefs", "util-linux")];
    if let Some((_, mkfs, package)) = kind.tools() {
        tools.extend([(mkfs, package), ("mount", "mount or util-linux")]);
    }
    need(tools)
}

/// The same for what grows file systems of these kinds.
///
/// # Errors
/// [`MountError::NoTool`] names the program and its package.
pub fn check_growing_tools(kinds: impl IntoIterator<Item = FilesystemKind>) -> Result<(), MountError> {
    need(kinds.into_iter().filter_map(FilesystemKind::growing_tool))
}

fn need(tools: impl IntoIterator<Item = (&'static str, &'static str)>) -> Result<(), MountError> {
    match tools.into_iter().find(|(tool, _)| find(tool).is_none()) {
        Some((tool, package)) => Err(MountError::NoTool { tool, package }),
        None => Ok(()),
    }
}

/// Where a tool is.
fn find(tool: &str) -> Option<PathBuf> {
    std::env::split_paths(PATH).map(|dir| dir.join(tool)).find(|path| path.is_file())
}

/// Runs a program of the distribution, gives what it printed.
pub(crate) fn run(tool: &str, args: &[&OsStr]) -> Result<String, MountError> {
    // by its path: for a name, with another PATH than its own, the standard library copies the whole process to start it, and
    // this one has all its memory locked
    let output = Command::new(find(tool).unwrap_or_else(|| tool.into()))
        .args(args)
        .env("PATH", PATH)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|source| MountError::Start { tool: tool.to_owned(), source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = [output.stderr, output.stdout].concat();
    let lines =
        String::from_utf8_lossy(&text).lines().map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join("; ");
    Err(MountError::Tool { tool: tool.to_owned(), status: output.status, output: lines })
}

/// Makes a file system on a mapping, whatever the tool takes its content for: what a new mapping shows is noise, in which now and
/// then a signature is found.
///
/// # Errors
/// When the tool fails.
pub fn make_filesystem(kind: FilesystemKind, device: &Path) -> Result<(), MountError> {
    let Some((_, mkfs, _)) = kind.tools() else { return Ok(()) };
    // no discard: a new mapping has nothing to discard, and the time is not worth it
    let options: &[&str] = match kind {
        FilesystemKind::Xfs => &["-q", "-K", "-f"],
        FilesystemKind::Ext4 => &["-q", "-E", "nodiscard", "-F"],
        FilesystemKind::None => &[],
    };
    let args: Vec<&OsStr> = options.iter().map(OsStr::new).chain([device.as_os_str()]).collect();
    run(mkfs, &args)?;
    let sync = fs::File::open(device).and_then(|d| d.sync_all());
    Ok(sync.map_err(IoError::when("flush", device))?)
}

/// Whether a file system of this kind was made on a mapping, up to the last thing that its mkfs writes: for ext4 the
/// superblock, for XFS the end of `sb_inprogress` in it.
///
/// A mapping without one shows noise, so a magic number alone says little: one of 65,536 has that of ext4. The other fields are
/// such as never change once they were written.
///
/// # Errors
/// When the mapping cannot be read.
pub fn has_filesystem(kind: FilesystemKind, device: &Path) -> Result<bool, MountError> {
    let mut start = [0; 2048];
    let read = fs::File::open(device).and_then(|file| file.read_exact_at(&mut start, 0));
    read.map_err(IoError::when("read", device))?;
    Ok(match kind {
        // struct xfs_dsb: magic at byte 0, sb_blocksize at byte 4, sb_inprogress at byte 126
        FilesystemKind::Xfs => {
            let block_size = u32::from_be_bytes([start[4], start[5], start[6], start[7]]);
            start.starts_with(b"XFSB") && (512..=65536).contains(&block_size) && start[126] == 0
        }
        // struct ext4_super_block at byte 1024, little endian: s_magic at byte 56 of it, s_creator_os (Linux) at byte 72,
        // s_rev_level at byte 76
        FilesystemKind::Ext4 => {
            start[1024 + 56..].starts_with(&[0x53, 0xef]) && start[1024 + 72..].starts_with(&[0, 0, 0, 0, 1, 0, 0, 0])
        }
        FilesystemKind::None => true,
    })
}

/// Whether a file system says of itself that it has errors. XFS keeps no such mark: it is shut down at once.
///
/// # Errors
/// When the mapping cannot be read.
pub fn has_errors(kind: FilesystemKind, device: &Path) -> Result<bool, MountError> {
    if kind != FilesystemKind::Ext4 {
        return Ok(false);
    }
    let mut state = [0; 2];
    // struct ext4_super_block at byte 1024, little endian: s_state at byte 58 of it, EXT4_ERROR_FS
    let read = fs::File::open(device).and_then(|file| file.read_exact_at(&mut state, 1024 + 58));
    read.map_err(IoError::when("read", device))?;
    Ok(state[0] & 2 != 0)
}

/// Removes every signature from a disk: only for disks that the configuration says to wipe.
///
/// # Errors
/// When `wipefs` fails.
pub fn wipe_signatures(device: &Path) -> Result<(), MountError> {
    run("wipefs", &["--all".as_ref(), "--quiet".as_ref(), device.as_os_str()]).map(drop)
}

/// The node of a mapping, `/dev/mapper/NAME`. udev makes it, and libdevmapper where there is no udev; a process killed between
/// the mapping and its node leaves one without, and then it is made here.
///
/// # Errors
/// When `dmsetup` fails.
pub fn mapping_node(name: &str) -> Result<PathBuf, MountError> {
    let node = Path::new("/dev/mapper").join(name);
    if !node.exists() {
        run("dmsetup", &["mknodes".as_ref(), "--".as_ref(), name.as_ref()])?;
    }
    Ok(node)
}

/// Removes a mapping, with or without a table, unless it is in use.
///
/// # Errors
/// When `dmsetup` fails.
pub fn remove_mapping(name: &str) -> Result<(), MountError> {
    run("dmsetup", &["remove".as_ref(), "--".as_ref(), name.as_ref()]).map(drop)
}

/// Mounts a mapping; a mount point that does not exist is made. Files in it do not keep a volume from its place: gives back a
/// warning that names what is hidden now.
///
/// # Errors
/// When the mount point is taken or no directory, or `mount` fails.
pub fn mount(device: &Path, mount: &Mount) -> Result<Option<String>, MountError> {
    let Some((kind, _, _)) = mount.filesystem.tools() else { return Ok(None) };
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
        format!(
            "the mount hides what was in {at}: {entries}; to reach it, use 'mount --bind / DIR' and look in DIR{at}"
        )
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
            "free some space there, then run 'luks-agent unlock'; the daemon tries again by itself"
        } else if reason.kind() == io::ErrorKind::ReadOnlyFilesystem {
            "make the directory while its file system is writable, as in the image, or choose another filesystem.mount_base"
        } else {
            "make the directory, then run 'luks-agent unlock', or choose another filesystem.mount_base"
        };
        MountError::NotMade { path: path.to_owned(), reason, remedy }
    };
    missing.into_iter().rev().try_for_each(make).map_err(not_made)
}

/// Makes a mount point if it is not there; says what is in it.
fn prepare_mount_point(path: &Path) -> Result<Option<String>, MountError> {
    if let Some(source) = mounted_at(&Roots::host(), path).map_err(MountError::Table)?.pop() {
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

/// The size in bytes of the file system of a mapping, as its mount point has it; 0 where it is to have none.
///
/// # Errors
/// [`MountError::NotThere`] when something else is mounted there: what is grown goes by the mount point.
pub fn filesystem_size(kind: FilesystemKind, device: &Path, at: &Path) -> Result<u64, MountError> {
    let Some((name, _, _)) = kind.tools() else { return Ok(0) };
    let examine = |path: &Path| IoError::when("examine", path);
    let expected = fs::metadata(device).map_err(examine(device))?.rdev();
    let there = fs::metadata(at).map_err(examine(at))?.dev();
    let facts = statfs(at).map_err(|e| examine(at)(e.into()))?;
    let magic = if kind == FilesystemKind::Xfs { XFS_SUPER_MAGIC } else { EXT4_SUPER_MAGIC };
    if there != expected || facts.filesystem_type() != magic {
        return Err(MountError::NotThere { device: device.to_owned(), kind: name, path: at.to_owned() });
    }
    Ok(facts.blocks().saturating_mul(u64::try_from(facts.block_size()).unwrap_or(0)))
}

/// Grows a mounted file system to the size of its mapping. One that has it stays as it is.
///
/// # Errors
/// When the tool fails.
pub fn grow_filesystem(kind: FilesystemKind, device: &Path, at: &Path) -> Result<(), MountError> {
    // XFS is told by its mount point, ext4 by its device
    let what = if kind == FilesystemKind::Xfs { at } else { device };
    kind.growing_tool().map_or(Ok(()), |(tool, _)| run(tool, &[what.as_os_str()]).map(drop))
}

/// Unmounts a path.
///
/// # Errors
/// When it is in use.
pub fn unmount(path: &Path) -> Result<(), MountError> {
    run("umount", &[path.as_os_str()]).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(at: &Path) -> Mount {
        Mount { at: at.to_owned(), filesystem: FilesystemKind::Xfs, options: vec!["noatime".into()] }
    }

    #[test]
    fn a_mount_point_that_cannot_be_used_is_refused_before_anything_is_mounted() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let first = |at: &Path| prepare_first_mount(at).unwrap_err().to_string();
        let again = |at: &Path| mount(Path::new("/dev/null"), &to(at)).unwrap_err().to_string();
        assert!(first(dir.path()).contains("is not empty: it holds 'file'; move that away"));
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

    #[test]
    fn a_file_system_counts_once_its_mkfs_has_ended() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk");
        for kind in [FilesystemKind::Xfs, FilesystemKind::Ext4] {
            fs::File::create(&disk).unwrap().set_len(320 << 20).unwrap();
            assert!(!has_filesystem(kind, &disk).unwrap(), "{kind:?}");
            make_filesystem(kind, &disk).unwrap();
            assert!(has_filesystem(kind, &disk).unwrap(), "{kind:?}");
        }
        make_filesystem(FilesystemKind::Xfs, &disk).unwrap();
        fs::OpenOptions::new().write(true).open(&disk).unwrap().write_all_at(&[1], 126).unwrap();
        assert!(!has_filesystem(FilesystemKind::Xfs, &disk).unwrap());
    }

    #[test]
    fn noise_with_a_magic_number_in_it_is_not_a_file_system() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk");
        let mut noise = [0xa7; 2048];
        noise[..4].copy_from_slice(b"XFSB");
        noise[126] = 0;
        noise[1080..1082].copy_from_slice(&[0x53, 0xef]);
        fs::write(&disk, noise).unwrap();
        for kind in [FilesystemKind::Xfs, FilesystemKind::Ext4] {
            assert!(!has_filesystem(kind, &disk).unwrap(), "{kind:?}");
        }
    }

    /// Whatever else is mounted there, and be it of the right kind, is not what is to be grown.
    #[test]
    fn a_file_system_is_measured_where_it_is_mounted_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        for kind in [FilesystemKind::Xfs, FilesystemKind::Ext4] {
            let message = filesystem_size(kind, Path::new("/dev/null"), dir.path()).unwrap_err().to_string();
            assert!(message.starts_with("/dev/null is not mounted as "), "{message}");
        }
        assert_eq!(filesystem_size(FilesystemKind::None, Path::new("/dev/null"), dir.path()).unwrap(), 0);
        assert!(filesystem_size(FilesystemKind::Xfs, Path::new("/dev/null"), Path::new("/none-such")).is_err());
    }

    #[test]
    fn a_failing_tool_is_quoted() {
        let dir = tempfile::tempdir().unwrap();
        let small = dir.path().join("small");
        fs::File::create(&small).unwrap().set_len(4096).unwrap();
        let message = make_filesystem(FilesystemKind::Ext4, &small).unwrap_err().to_string();
        assert!(message.starts_with("'mkfs.ext4' failed, exit status: 1: "), "{message}");
    }
}
