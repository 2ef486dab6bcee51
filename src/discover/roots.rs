//! The directories that discovery reads.

use std::path::{Path, PathBuf};

/// Directories of the kernel and udev: below `/` in production, below a fixture tree in tests.
#[derive(Debug, Clone)]
pub struct Roots {
    /// sysfs.
    pub sys: PathBuf,
    /// procfs.
    pub proc: PathBuf,
    /// Device nodes and udev's links to them.
    pub dev: PathBuf,
    /// Data of udev (`/run/udev`).
    pub run: PathBuf,
    /// The file system itself, to look up the layers of an overlay and the state directory.
    pub files: PathBuf,
}

impl Roots {
    /// Returns the directories of the running machine.
    pub fn host() -> Self {
        Self::under(Path::new("/"))
    }

    /// Returns the directories of a tree that is laid out like the `/` of a machine.
    pub fn under(root: &Path) -> Self {
        Self {
            sys: root.join("sys"),
            proc: root.join("proc"),
            dev: root.join("dev"),
            run: root.join("run"),
            files: root.to_owned(),
        }
    }
}
