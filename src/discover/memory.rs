//! Whether what is written at a path is still there after a reboot: what the path really lies on, followed down to disks.

use std::path::Path;

use super::boot::DEEPEST;
use super::kind;
use super::mounts::{Backing, Mount, Mounts, below};
use super::sysfs::{Node, Sysfs};
use crate::disk::DiskKind;

/// File systems that a reboot empties.
const IN_MEMORY: &[&str] = &["tmpfs", "ramfs", "rootfs", "devtmpfs"];

/// What a path lies on that is in memory, in words; `None` if it lies on disks alone. The path need not exist yet.
///
/// # Errors
/// What cannot be followed down, and why.
pub(super) fn in_memory(sysfs: &Sysfs<'_>, mounts: &Mounts, path: &Path) -> Result<Option<String>, String> {
    Walk { sysfs, mounts }.mount(mounts.will_hold(path)?, 0)
}

struct Walk<'a> {
    sysfs: &'a Sysfs<'a>,
    mounts: &'a Mounts,
}

impl Walk<'_> {
    fn mount(&self, mount: &Mount, depth: usize) -> Result<Option<String>, String> {
        let here = format!("the {} on {}", mount.fs, mount.point.display());
        if IN_MEMORY.contains(&mount.fs.as_str()) {
            return Ok(Some(here));
        }
        if mount.fs == "overlay" {
            if mount.is_volatile() {
                return Ok(Some(format!("{here}, which is mounted with the option volatile")));
            }
            // what is written goes there, whatever the lower layers are on; without one, nothing can be written
            let Some([upper, work]) = mount.upper_and_work() else { return Ok(None) };
            if self.mounts.of(&upper)?.id != self.mounts.of(&work)?.id {
                return Err(format!(
                    "upperdir and workdir of {here} are not on one mount: they are of a root left since"
                ));
            }
            let found = self.path(&upper, depth)?;
            return Ok(found.map(|found| format!("{here}, whose upper directory {} lies on {found}", upper.display())));
        }
        for backing in mount.backing(self.sysfs)? {
            let found = match backing {
                Backing::Device(node) => self.node(node, depth)?,
                Backing::Path(path) => self.path(&path, depth)?,
            };
            if let Some(found) = found {
                return Ok(Some(format!("{here}, which lies on {found}")));
            }
        }
        Ok(None)
    }

    fn path(&self, path: &Path, depth: usize) -> Result<Option<String>, String> {
        let depth = deeper(depth)?;
        self.mount(self.mounts.of(path)?, depth)
    }

    fn node(&self, node: Node, depth: usize) -> Result<Option<String>, String> {
        let depth = deeper(depth)?;
        if kind(&node.name) == DiskKind::Ram {
            return Ok(Some(node.name));
        }
        for backing in below(self.sysfs, &node).map_err(|e| e.in_full())? {
            let (found, file) = match backing {
                Backing::Device(below) => (self.node(below, depth)?, None),
                Backing::Path(file) => (self.path(&file, depth)?, Some(file)),
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

fn deeper(depth: usize) -> Result<usize, String> {
    if depth < DEEPEST { Ok(depth + 1) } else { Err(format!("more than {DEEPEST} layers")) }
}
