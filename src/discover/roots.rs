//! Where the agent reads what the kernel and udev know.

use std::path::{Path, PathBuf};

/// Where the kernel and udev show what they know; `/` in production, a fixture tree in tests.
#[derive(Debug, Clone)]
pub struct Roots {
    /// sysfs.
    pub sys: PathBuf,
    /// procfs.
    pub proc: PathBuf,
    /// Device nodes and udev's links to them.
    pub dev: PathBuf,
    /// Where udev keeps its data (`/run/udev`).
    pub run: PathBuf,
    /// The file system itself: where the layers of an overlay and the state directory are looked up.
    pub files: PathBuf,
}

impl Roots {
    /// The running machine.
    pub fn host() -> Self {
        Self::under(Path::new("/"))
    }

    /// A tree laid out like a machine's `/`.
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
