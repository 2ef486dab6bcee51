//! Whether what is written at a path is still there after a reboot: what the path really lies on, followed down to disks.

use std::path::{Path, PathBuf};

use super::boot::DEEPEST;
use super::mounts::{Backing, Mount, Mounts};
use super::sysfs::{Node, Sysfs, text};
use super::{DiscoverError, kind};
use crate::device::DiskKind;

/// File systems that a reboot empties.
const IN_MEMORY: &[&str] = &["tmpfs", "ramfs", "rootfs", "devtmpfs"];

/// What a path lies on that is in memory, in words; `None` if it lies on disks alone. The path need not exist yet.
///
/// # Errors
/// What cannot be followed down, and why.
pub(super) fn below(sysfs: &Sysfs<'_>, mounts: &Mounts, path: &Path) -> Result<Option<String>, String> {
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
        let full = |e: DiscoverError| e.in_full();
        let depth = deeper(depth)?;
        if let Some(disk) = self.sysfs.disk_of(&node).map_err(full)? {
            return self.node(disk, depth);
        }
        match kind(&node.name) {
            DiskKind::Ram => return Ok(Some(node.name)),
            DiskKind::Loop => {
                let file = PathBuf::from(text(&node.dir.join("loop/backing_file")).map_err(full)?);
                let found = match file.starts_with("/dev") {
                    true => self.node(self.sysfs.at(&file).map_err(full)?, depth)?,
                    false => self.path(&file, depth)?,
                };
                return Ok(found.map(|found| format!("{}, whose file {} lies on {found}", node.name, file.display())));
            }
            DiskKind::Nvme
            | DiskKind::Xen
            | DiskKind::Scsi
            | DiskKind::Virtio
            | DiskKind::DeviceMapper
            | DiskKind::Md
            | DiskKind::Optical
            | DiskKind::Other => {}
        }
        for slave in node.links("slaves").map_err(full)? {
            if let Some(found) = self.node(self.sysfs.named(&slave).map_err(full)?, depth)? {
                return Ok(Some(format!("{}, which lies on {found}", node.name)));
            }
        }
        Ok(None)
    }
}

fn deeper(depth: usize) -> Result<usize, String> {
    if depth < DEEPEST { Ok(depth + 1) } else { Err(format!("more than {DEEPEST} layers")) }
}
