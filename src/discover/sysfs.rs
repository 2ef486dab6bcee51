//! Block devices as sysfs shows them.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::{fs, io};

use nix::errno::Errno;

use super::error::DiscoverError;
use super::links::node_name;
use super::roots::Roots;
use crate::disk::DevNo;

/// A disk or a partition.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// Kernel name.
    pub(super) name: String,
    /// Its real directory, below `/sys/devices`.
    pub(super) dir: PathBuf,
}

#[derive(Debug)]
pub(super) struct Sysfs<'a> {
    pub(super) roots: &'a Roots,
}

/// Returns whether a file did not exist, or its device vanished while it was read.
pub(super) fn is_gone(error: &DiscoverError) -> bool {
    match error {
        DiscoverError::Read { source, .. } => {
            source.kind() == io::ErrorKind::NotFound
                || [Errno::ENODEV, Errno::ENXIO].iter().any(|e| source.raw_os_error() == Some(*e as i32))
        }
        DiscoverError::Invalid { .. } => false,
    }
}

/// Returns whether an attribute of device-mapper could not be read because its mapping is being removed.
pub(super) fn is_being_removed(error: &DiscoverError) -> bool {
    match error {
        DiscoverError::Read { path, source } => {
            source.raw_os_error() == Some(Errno::EINVAL as i32) && path.parent().is_some_and(|dir| dir.ends_with("dm"))
        }
        DiscoverError::Invalid { .. } => false,
    }
}

pub(super) fn read_error(path: &Path) -> impl FnOnce(io::Error) -> DiscoverError {
    move |source| DiscoverError::Read { path: path.to_owned(), source }
}

/// Reads an attribute, without its padding.
pub(super) fn text(path: &Path) -> Result<String, DiscoverError> {
    let bytes = fs::read(path).map_err(read_error(path))?;
    Ok(String::from_utf8_lossy(&bytes).trim_matches(|c: char| c.is_whitespace() || c == '\0').to_owned())
}

/// Makes an attribute optional that not every device or kernel has: `None` if it is missing or empty.
pub(super) fn optional(text: Result<String, DiscoverError>) -> Result<Option<String>, DiscoverError> {
    match text {
        Ok(text) => Ok(Some(text).filter(|t| !t.is_empty())),
        Err(e) if is_gone(&e) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Returns the names in a directory, sorted.
pub(super) fn names(dir: &Path) -> Result<Vec<String>, DiscoverError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(read_error(dir))? {
        names.push(entry.map_err(read_error(dir))?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

impl<'a> Sysfs<'a> {
    pub(super) fn new(roots: &'a Roots) -> Self {
        Self { roots }
    }

    pub(super) fn disk_names(&self) -> Result<Vec<String>, DiscoverError> {
        names(&self.roots.sys.join("block"))
    }

    /// Returns the names of all disks and partitions.
    pub(super) fn all_names(&self) -> Result<Vec<String>, DiscoverError> {
        let dir = self.roots.sys.join("class/block");
        let names = names(&dir)?;
        match names.is_empty() {
            true => Err(DiscoverError::Invalid { path: dir, text: String::new(), expected: "at least one disk" }),
            false => Ok(names),
        }
    }

    fn node(link: &Path) -> Result<Node, DiscoverError> {
        let dir = fs::canonicalize(link).map_err(read_error(link))?;
        let name = dir.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(Node { name, dir })
    }

    /// Finds a whole disk by its kernel name.
    pub(super) fn disk(&self, name: &str) -> Result<Node, DiscoverError> {
        Self::node(&self.roots.sys.join("block").join(name))
    }

    /// Finds a disk or a partition by its kernel name.
    pub(super) fn named(&self, name: &str) -> Result<Node, DiscoverError> {
        Self::node(&self.roots.sys.join("class/block").join(name))
    }

    /// Finds a disk or a partition by its device number.
    pub(super) fn numbered(&self, devno: DevNo) -> Result<Node, DiscoverError> {
        Self::node(&self.roots.sys.join(format!("dev/block/{devno}")))
    }

    /// Finds the disk or partition that a path below `/dev` leads to.
    pub(super) fn at(&self, path: &Path) -> Result<Node, DiscoverError> {
        let real = path.strip_prefix("/dev").map_or_else(|_| path.to_owned(), |below| self.roots.dev.join(below));
        if let Ok(node) = fs::metadata(&real)
            && node.file_type().is_block_device()
            && let Some(number) = DevNo::from_rdev(node.rdev())
        {
            return self.numbered(number);
        }
        match node_name(&self.roots.dev, path) {
            Some(name) => self.named(&name),
            None => Err(read_error(&real)(io::ErrorKind::NotFound.into())),
        }
    }

    /// Returns the disk that a partition is on; `None` for a whole disk.
    pub(super) fn disk_of(&self, node: &Node) -> Result<Option<Node>, DiscoverError> {
        if !node.has("partition")? {
            return Ok(None);
        }
        let parent = node.dir.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        self.disk(&parent).map(Some)
    }
}

impl Node {
    pub(super) fn has(&self, attribute: &str) -> Result<bool, DiscoverError> {
        let path = self.dir.join(attribute);
        path.try_exists().map_err(read_error(&path))
    }

    /// Reads an attribute.
    pub(super) fn text(&self, attribute: &str) -> Result<String, DiscoverError> {
        text(&self.dir.join(attribute))
    }

    /// Reads an attribute that not every device or kernel has: `None` if it is missing or empty.
    pub(super) fn optional(&self, attribute: &str) -> Result<Option<String>, DiscoverError> {
        optional(self.text(attribute))
    }

    /// Returns the size in bytes. sysfs counts in units of 512 bytes whatever the logical block size is.
    pub(super) fn size(&self) -> Result<u64, DiscoverError> {
        Ok(self.number::<u64>("size")?.saturating_mul(512))
    }

    pub(super) fn number<T: FromStr>(&self, attribute: &str) -> Result<T, DiscoverError> {
        let path = self.dir.join(attribute);
        let text = text(&path)?;
        text.parse().map_err(|_| DiscoverError::Invalid { path, text, expected: "a number" })
    }

    pub(super) fn devno(&self) -> Result<DevNo, DiscoverError> {
        let path = self.dir.join("dev");
        let text = text(&path)?;
        text.parse().map_err(|()| DiscoverError::Invalid { path, text, expected: "a device number such as 259:0" })
    }

    /// Returns the names in `holders` or `slaves`. Partitions have no `slaves`.
    pub(super) fn links(&self, which: &str) -> Result<Vec<String>, DiscoverError> {
        names(&self.dir.join(which))
    }

    /// Finds a device below this one: the target of a link in `slaves`.
    pub(super) fn below(&self, name: &str) -> Result<Self, DiscoverError> {
        Sysfs::node(&self.dir.join("slaves").join(name))
    }

    /// Returns the partitions of a whole disk, in order of their numbers.
    pub(super) fn partitions(&self) -> Result<Vec<Self>, DiscoverError> {
        let mut partitions = Vec::new();
        for name in names(&self.dir)? {
            // The name of a partition starts with the name of its disk.
            if !name.starts_with(&self.name) {
                continue;
            }
            let node = Self { dir: self.dir.join(&name), name };
            if node.has("partition")? {
                partitions.push((node.number::<u32>("partition")?, node));
            }
        }
        partitions.sort_by_key(|(number, _)| *number);
        Ok(partitions.into_iter().map(|(_, node)| node).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_device_mapper_says_by_an_invalid_argument_that_a_device_goes() {
        let fails = |path: &str, errno: Errno| read_error(Path::new(path))(io::Error::from_raw_os_error(errno as i32));
        assert!(is_being_removed(&fails("/sys/block/dm-0/dm/uuid", Errno::EINVAL)));
        assert!(!is_being_removed(&fails("/sys/block/dm-0/dm/uuid", Errno::EIO)));
        assert!(!is_being_removed(&fails("/sys/block/sda/size", Errno::EINVAL)));
        assert!(!is_gone(&fails("/sys/block/dm-0/dm/uuid", Errno::EINVAL)));
    }
}
