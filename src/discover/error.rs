//! Errors of discovery.

use std::io;
use std::path::PathBuf;

/// Maximum number of layers. No real stack is deeper.
pub(super) const DEEPEST: usize = 32;

/// The disks cannot be listed; none of them is known.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    /// A file or directory that cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file with unexpected content.
    #[error("{} contains '{text}', expected {expected}", path.display())]
    Invalid {
        /// Which.
        path: PathBuf,
        /// Its content.
        text: String,
        /// The expected content.
        expected: &'static str,
    },
}

/// A path, a mount or a device that could not be followed down to disks.
#[derive(Debug, thiserror::Error)]
pub enum BackingError {
    /// A file or directory of the kernel that cannot be read or has unexpected content.
    #[error(transparent)]
    Discover(#[from] DiscoverError),
    /// An invalid line in the mount table or in `/proc/swaps`.
    #[error("{} has an invalid line: '{line}'", path.display())]
    InvalidLine {
        /// The file.
        path: PathBuf,
        /// The line.
        line: String,
    },
    /// A file or directory that must not be empty.
    #[error("{} is empty", path.display())]
    Empty {
        /// Which.
        path: PathBuf,
    },
    /// The mount table does not list the root file system.
    #[error("the mount table does not list /")]
    NoRoot,
    /// A path that leads out of the tree of [`Roots`](super::Roots).
    #[error("{} leads out of the tree", path.display())]
    Outside {
        /// Which.
        path: PathBuf,
    },
    /// A relative path.
    #[error("{} is not an absolute path", path.display())]
    Relative {
        /// Which.
        path: PathBuf,
    },
    /// A file system that the agent does not support.
    #[error("unsupported file system {fs} ('{}' on {}): cannot tell which disks it is on", device.display(), point.display())]
    UnknownFilesystem {
        /// Its type.
        fs: String,
        /// Its source in the mount table.
        device: PathBuf,
        /// Its mount point.
        point: PathBuf,
    },
    /// A btrfs whose members the kernel does not list.
    #[error("{} lists no btrfs file system with device '{device}'", path.display())]
    NoBtrfs {
        /// Directory in which the kernel lists them.
        path: PathBuf,
        /// Kernel name of the mounted device.
        device: String,
    },
    /// An overlay without layers.
    #[error("the overlay on {} has no layers", point.display())]
    NoLayers {
        /// Its mount point.
        point: PathBuf,
    },
    /// An overlay with a layer whose path is relative.
    #[error("the overlay on {} has a layer that is not an absolute path: '{}'", point.display(), layer.display())]
    RelativeLayer {
        /// Its mount point.
        point: PathBuf,
        /// The layer.
        layer: PathBuf,
    },
    /// An overlay whose upper and work directories are on different mounts, which the kernel does not allow.
    ///
    /// Its paths belong to a root that has been left since it was mounted.
    #[error(
        "upperdir {} and workdir {} of the overlay on {} are on different mounts; they are paths of a root that was left after it was mounted",
        upper.display(), work.display(), point.display()
    )]
    SplitOverlay {
        /// Its upper directory.
        upper: PathBuf,
        /// Its work directory.
        work: PathBuf,
        /// Its mount point.
        point: PathBuf,
    },
    /// A mount with a layer that lies on the same mount.
    #[error("a layer of the {fs} on {} lies on that mount itself, which hides the real layer", point.display())]
    Cycle {
        /// Type of the file system.
        fs: String,
        /// Its mount point.
        point: PathBuf,
    },
    /// A root file system that does not lie on a disk.
    #[error("its file system does not lie on a disk")]
    NoDisk,
    /// A stack that is deeper than any real one.
    #[error("more than {DEEPEST} layers{}", named(first))]
    TooDeep {
        /// The topmost layers, if known.
        first: Vec<String>,
    },
}

fn named(layers: &[String]) -> String {
    if layers.is_empty() { String::new() } else { format!(": {} ...", layers.join(", ")) }
}
