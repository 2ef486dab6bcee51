//! Makes, reads and grows file systems with the distribution's programs.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::statfs::{EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, statfs};
use serde::{Deserialize, Serialize};

use super::tool::{FoundTool, Tool, ToolError, require, run};
use crate::error::IoError;

/// The file systems the agent makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FilesystemKind {
    /// XFS.
    Xfs,
    /// ext4.
    Ext4,
    /// No file system: volumes are opened but not mounted.
    None,
}

/// A file system that could not be made, read or grown.
#[derive(Debug, thiserror::Error)]
pub enum FilesystemError {
    /// A tool could not be run.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// The file system to grow is not mounted at its mount point.
    #[error("{device} is not mounted as {kind} at {path}; mount it with 'luks-agent unlock', then try again")]
    NotThere {
        /// The mapping.
        device: PathBuf,
        /// The file system's name.
        kind: &'static str,
        /// Where it should be mounted.
        path: PathBuf,
    },
    /// A system call failed.
    #[error(transparent)]
    Io(#[from] IoError),
}

impl FilesystemKind {
    /// Returns the file system's name as `mount -t` takes it.
    pub(super) fn name(self) -> Option<&'static str> {
        match self {
            Self::Xfs => Some("xfs"),
            Self::Ext4 => Some("ext4"),
            Self::None => None,
        }
    }

    /// Returns the tool that makes it.
    fn making_tool(self) -> Option<Tool> {
        match self {
            Self::Xfs => Some(Tool { name: "mkfs.xfs", package: "xfsprogs" }),
            Self::Ext4 => Some(Tool { name: "mkfs.ext4", package: "e2fsprogs" }),
            Self::None => None,
        }
    }

    /// Returns the tool that grows it while it is mounted.
    fn growing_tool(self) -> Option<Tool> {
        match self {
            Self::Xfs => Some(Tool { name: "xfs_growfs", package: "xfsprogs" }),
            Self::Ext4 => Some(Tool { name: "resize2fs", package: "e2fsprogs" }),
            Self::None => None,
        }
    }
}

/// Checks that the tools for a file system are installed, before anything is written.
///
/// # Errors
/// [`ToolError::NotInstalled`] names the program and its package.
pub fn check_tools(kind: FilesystemKind) -> Result<(), ToolError> {
    require(making_tools(kind))
}

fn making_tools(kind: FilesystemKind) -> Vec<Tool> {
    let mut tools = vec![Tool { name: "wipefs", package: "util-linux" }];
    if let Some(mkfs) = kind.making_tool() {
        tools.extend([mkfs, Tool { name: "mount", package: "mount or util-linux" }]);
    }
    tools
}

/// Returns the tools that work with a file system of this kind needs, and where they are.
pub fn find_tools(kind: FilesystemKind) -> Vec<FoundTool> {
    let mut tools = vec![Tool { name: "dmsetup", package: "dmsetup or device-mapper" }];
    tools.extend(making_tools(kind));
    tools.extend(kind.growing_tool());
    tools.into_iter().map(FoundTool::from).collect()
}

/// Checks that the tools that grow file systems of these kinds are installed.
///
/// # Errors
/// [`ToolError::NotInstalled`] names the program and its package.
pub fn check_growing_tools(kinds: impl IntoIterator<Item = FilesystemKind>) -> Result<(), ToolError> {
    require(kinds.into_iter().filter_map(FilesystemKind::growing_tool))
}

/// Makes a file system on a mapping, even if the tool finds a signature there.
///
/// A new mapping reads as noise, which contains a signature now and then.
///
/// # Errors
/// If the tool fails.
pub fn make_filesystem(kind: FilesystemKind, device: &Path) -> Result<(), FilesystemError> {
    let Some(mkfs) = kind.making_tool() else { return Ok(()) };
    // no discard: it would take time, and a new mapping has nothing to discard
    let options: &[&str] = match kind {
        FilesystemKind::Xfs => &["-q", "-K", "-f"],
        FilesystemKind::Ext4 => &["-q", "-E", "nodiscard", "-F"],
        FilesystemKind::None => &[],
    };
    let args: Vec<&OsStr> = options.iter().map(OsStr::new).chain([device.as_os_str()]).collect();
    run(mkfs.name, &args)?;
    let sync = fs::File::open(device).and_then(|d| d.sync_all());
    Ok(sync.map_err(IoError::when("flush", device))?)
}

/// Returns whether a mapping has a file system of this kind whose mkfs has finished.
///
/// The last thing that mkfs writes is the superblock for ext4, and `sb_inprogress` in it for XFS. A mapping without a file system reads
/// as noise, so a magic number alone proves little: one mapping in 65,536 has that of ext4. The other fields that it checks never
/// change once they are written.
///
/// # Errors
/// If the mapping cannot be read.
pub fn has_filesystem(kind: FilesystemKind, device: &Path) -> Result<bool, FilesystemError> {
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

/// Returns the file system on a mapping; [`FilesystemKind::None`] if it is none that the agent makes.
///
/// # Errors
/// If the mapping cannot be read.
pub fn find_filesystem(device: &Path) -> Result<FilesystemKind, FilesystemError> {
    for kind in [FilesystemKind::Xfs, FilesystemKind::Ext4] {
        if has_filesystem(kind, device)? {
            return Ok(kind);
        }
    }
    Ok(FilesystemKind::None)
}

/// Returns whether a file system is marked with errors. XFS has no such mark, because the kernel shuts it down at once.
///
/// # Errors
/// If the mapping cannot be read.
pub fn has_errors(kind: FilesystemKind, device: &Path) -> Result<bool, FilesystemError> {
    if kind != FilesystemKind::Ext4 {
        return Ok(false);
    }
    let mut state = [0; 2];
    // struct ext4_super_block at byte 1024, little endian: s_state at byte 58 of it, EXT4_ERROR_FS
    let read = fs::File::open(device).and_then(|file| file.read_exact_at(&mut state, 1024 + 58));
    read.map_err(IoError::when("read", device))?;
    Ok(state[0] & 2 != 0)
}

/// Removes all signatures from a disk. Only for disks that the configuration allows to wipe.
///
/// # Errors
/// If `wipefs` fails.
pub fn wipe_signatures(device: &Path) -> Result<(), ToolError> {
    run("wipefs", &["--all".as_ref(), "--quiet".as_ref(), device.as_os_str()]).map(drop)
}

/// Returns the size in bytes of a mapping's file system, or 0 for [`FilesystemKind::None`].
///
/// # Errors
/// [`FilesystemError::NotThere`] if something else is mounted at the mount point, because that would be grown instead.
pub fn filesystem_size(kind: FilesystemKind, device: &Path, at: &Path) -> Result<u64, FilesystemError> {
    let Some(name) = kind.name() else { return Ok(0) };
    let examine = |path: &Path| IoError::when("examine", path);
    let expected = fs::metadata(device).map_err(examine(device))?.rdev();
    let there = fs::metadata(at).map_err(examine(at))?.dev();
    let facts = statfs(at).map_err(|e| examine(at)(e.into()))?;
    let magic = if kind == FilesystemKind::Xfs { XFS_SUPER_MAGIC } else { EXT4_SUPER_MAGIC };
    if there != expected || facts.filesystem_type() != magic {
        return Err(FilesystemError::NotThere { device: device.to_owned(), kind: name, path: at.to_owned() });
    }
    Ok(facts.blocks().saturating_mul(u64::try_from(facts.block_size()).unwrap_or(0)))
}

/// Grows a mounted file system to the size of its mapping. Does nothing if it has that size.
///
/// # Errors
/// If the tool fails.
pub fn grow_filesystem(kind: FilesystemKind, device: &Path, at: &Path) -> Result<(), FilesystemError> {
    // xfs_growfs takes a mount point, resize2fs a device
    let what = if kind == FilesystemKind::Xfs { at } else { device };
    kind.growing_tool().map_or(Ok(()), |tool| Ok(run(tool.name, &[what.as_os_str()]).map(drop)?))
}

#[cfg(test)]
mod tests {
    use super::*;

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

    /// Another file system at the mount point is not grown, even if it has the right kind.
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
