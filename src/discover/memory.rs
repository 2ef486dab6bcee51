//! Finds out whether files at a path survive a reboot, by following the path down to disks.

use std::path::Path;

use super::backing::{Backing, below};
use super::error::{BackingError, DEEPEST};
use super::kind::kind_of;
use super::mount::Mount;
use super::roots::Roots;
use super::sysfs::{Node, Sysfs};
use super::table::Mounts;
use crate::disk::DiskKind;

/// File systems that a reboot empties.
const IN_MEMORY: &[&str] = &["tmpfs", "ramfs", "rootfs", "devtmpfs"];

/// Describes what in memory a path lies on; `None` if files there survive a reboot. The path need not exist yet.
///
/// # Errors
/// [`BackingError`] if the path cannot be followed down to disks.
pub fn in_memory(roots: &Roots, path: &Path) -> Result<Option<String>, BackingError> {
    find_in_memory(&Sysfs::new(roots), &Mounts::read(roots)?, path)
}

/// Describes what in memory a path lies on; `None` if it lies on disks alone. The path need not exist yet.
///
/// # Errors
/// [`BackingError`] if the path cannot be followed down to disks.
pub(super) fn find_in_memory(sysfs: &Sysfs<'_>, mounts: &Mounts, path: &Path) -> Result<Option<String>, BackingError> {
    Walk { sysfs, mounts }.follow_mount(mounts.will_hold(path)?, 0)
}

struct Walk<'a> {
    sysfs: &'a Sysfs<'a>,
    mounts: &'a Mounts,
}

impl Walk<'_> {
    fn follow_mount(&self, mount: &Mount, depth: usize) -> Result<Option<String>, BackingError> {
        let here = format!("the {} on {}", mount.fs, mount.point.display());
        if IN_MEMORY.contains(&mount.fs.as_str()) {
            return Ok(Some(here));
        }
        if mount.fs == "overlay" {
            if mount.is_volatile() {
                return Ok(Some(format!("{here}, which is mounted with the option volatile")));
            }
            // writes go to the upper directory, whatever the lower layers are on; without one, nothing can be written
            let Some([upper, work]) = mount.upper_and_work() else { return Ok(None) };
            if self.mounts.of(&upper)?.id != self.mounts.of(&work)?.id {
                return Err(BackingError::SplitOverlay { upper, work, point: mount.point.clone() });
            }
            let found = self.follow_path(&upper, depth)?;
            return Ok(found.map(|found| format!("{here}, whose upper directory {} lies on {found}", upper.display())));
        }
        for backing in mount.backing(self.sysfs)? {
            let found = match backing {
                Backing::Device(node) => self.follow_node(node, depth)?,
                Backing::Path(path) => self.follow_path(&path, depth)?,
            };
            if let Some(found) = found {
                return Ok(Some(format!("{here}, which lies on {found}")));
            }
        }
        Ok(None)
    }

    fn follow_path(&self, path: &Path, depth: usize) -> Result<Option<String>, BackingError> {
        let depth = deeper(depth)?;
        self.follow_mount(self.mounts.of(path)?, depth)
    }

    fn follow_node(&self, node: Node, depth: usize) -> Result<Option<String>, BackingError> {
        let depth = deeper(depth)?;
        if kind_of(&node.name) == DiskKind::Ram {
            return Ok(Some(node.name));
        }
        for backing in below(self.sysfs, &node)? {
            let (found, file) = match backing {
                Backing::Device(below) => (self.follow_node(below, depth)?, None),
                Backing::Path(file) => (self.follow_path(&file, depth)?, Some(file)),
            };
            let through = match file {
                Some(file) => format!("whose file {} lies", file.display()),
                None => "which lies".to_owned(),
            };
            if let Some(found) = found {
                return Ok(Some(format!("{}, {through} on {found}", node.name)));
            }
        }
        Ok(None)
    }
}

fn deeper(depth: usize) -> Result<usize, BackingError> {
    if depth < DEEPEST { Ok(depth + 1) } else { Err(BackingError::TooDeep { first: Vec::new() }) }
}
