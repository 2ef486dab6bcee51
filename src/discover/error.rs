//! Why disks, or what something lies on, cannot be found out.

use std::io;
use std::path::PathBuf;

/// No real stack is deeper.
pub(super) const DEEPEST: usize = 32;

/// The disks cannot be listed; nothing is known of any of them.
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
    /// A file with something in it that is not understood.
    #[error("{} contains '{text}', expected {expected}", path.display())]
    Invalid {
        /// Which.
        path: PathBuf,
        /// What it says.
        text: String,
        /// What it should say.
        expected: &'static str,
    },
}

/// Why it is not known what a path, a mount or a device lies on.
#[derive(Debug, thiserror::Error)]
pub enum BackingError {
    /// A file or directory of the kernel's cannot be read, or is not understood.
    #[error(transparent)]
    Discover(#[from] DiscoverError),
    /// A line of the mount table.
    #[error("{} has an invalid line: '{line}'", path.display())]
    MountLine {
        /// The mount table.
        path: PathBuf,
        /// The line.
        line: String,
    },
    /// A line of `/proc/swaps`.
    #[error("{} has an invalid line: '{line}'", path.display())]
    SwapLine {
        /// The file.
        path: PathBuf,
        /// The line.
        line: String,
    },
    /// A file or directory in which there must be something.
    #[error("{} is empty", path.display())]
    Empty {
        /// Which.
        path: PathBuf,
    },
    /// The mount table does not list the root file system.
    #[error("the mount table does not list /")]
    NoRoot,
    /// A path that leads out of the tree that is looked at.
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
    /// A file system that the agent does not know how to follow.
    #[error("cannot find the disks of the {fs} file system '{}' on {}", device.display(), point.display())]
    UnknownFilesystem {
        /// Its type.
        fs: String,
        /// Its source in the mount table.
        device: PathBuf,
        /// Its mount point.
        point: PathBuf,
    },
    /// A btrfs of which the kernel lists no members.
    #[error("{} lists no btrfs file system with device '{device}'", path.display())]
    NoBtrfs {
        /// Where the kernel lists them.
        path: PathBuf,
        /// Kernel name of the device that was mounted.
        device: String,
    },
    /// An overlay without layers.
    #[error("the overlay on {} has no layers", point.display())]
    NoLayers {
        /// Its mount point.
        point: PathBuf,
    },
    /// An overlay with a layer that cannot be looked up.
    #[error("the overlay on {} has a layer that is not an absolute path: '{}'", point.display(), layer.display())]
    RelativeLayer {
        /// Its mount point.
        point: PathBuf,
        /// The layer.
        layer: PathBuf,
    },
    /// An overlay whose paths are not those of the present mount table: they are of a root that has been left since it was mounted.
    #[error(
        "upperdir {} and workdir {} of the overlay on {} are on different mounts",
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
    /// A mount with a layer that lies on the mount itself.
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
        /// The first layers from the top, where they are known.
        first: Vec<String>,
    },
}

fn named(layers: &[String]) -> String {
    if layers.is_empty() { String::new() } else { format!(": {} ...", layers.join(", ")) }
}
