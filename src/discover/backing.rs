//! Finds what a mount or a device lies on.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::error::{BackingError, DiscoverError};
use super::kind::kind_of;
use super::mount::Mount;
use super::sysfs::{Node, Sysfs, names, optional, text};
use crate::disk::{DevNo, DiskKind};

/// File systems that keep nothing on a disk of this machine.
const WITHOUT_DISK: &[&str] = &[
    "9p", "autofs", "ceph", "cifs", "devtmpfs", "hostfs", "nfs", "nfs4", "ramfs", "rootfs", "smb3", "sysfs", "proc",
    "tmpfs", "virtiofs",
];

/// Mount options that name an additional device.
const DEVICE_OPTIONS: &[&str] = &["logdev", "rtdev", "journal_path"];

/// The layer directly below a mount or a device.
#[derive(Debug)]
pub(super) enum Backing {
    /// A disk, a partition or a stacked device.
    Device(Node),
    /// A directory or file on another mount.
    Path(PathBuf),
}

impl Backing {
    pub(super) fn devno(&self) -> Option<DevNo> {
        match self {
            Self::Device(node) => node.devno().ok(),
            Self::Path(_) => None,
        }
    }
}

/// Returns what a device lies on directly; empty for a disk.
///
/// That is the disk of a partition, the devices below a stacked device, the file of a loop device, and the device that
/// a disk in memory writes back to.
pub(super) fn below(sysfs: &Sysfs<'_>, node: &Node) -> Result<Vec<Backing>, DiscoverError> {
    if let Some(disk) = sysfs.disk_of(node)? {
        return Ok(vec![Backing::Device(disk)]);
    }
    let slaves = node.links("slaves")?;
    let mut all = slaves.iter().map(|slave| sysfs.named(slave).map(Backing::Device)).collect::<Result<Vec<_>, _>>()?;
    // a loop device always has a file, a zram device may have a device
    let file = match kind_of(&node.name) {
        DiskKind::Loop => Some(text(&node.dir.join("loop/backing_file"))?),
        DiskKind::Ram => optional(text(&node.dir.join("backing_dev")))?.filter(|file| file != "none"),
        DiskKind::Nvme
        | DiskKind::Xen
        | DiskKind::Scsi
        | DiskKind::Virtio
        | DiskKind::DeviceMapper
        | DiskKind::Md
        | DiskKind::Optical
        | DiskKind::Other => None,
    };
    all.extend(match file.map(PathBuf::from) {
        Some(device) if device.starts_with("/dev") => Some(Backing::Device(sysfs.at(&device)?)),
        file => file.map(Backing::Path),
    });
    Ok(all)
}

impl Mount {
    /// Returns what a mount lies on; empty for a file system without a disk.
    pub(super) fn backing(&self, sysfs: &Sysfs<'_>) -> Result<Vec<Backing>, BackingError> {
        let device = |path: &Path| sysfs.at(path).map(Backing::Device);
        let mut all = Vec::new();
        for (key, value) in self.options() {
            if DEVICE_OPTIONS.contains(&key.as_str()) {
                all.push(device(Path::new(&OsString::from_vec(value)))?);
            }
        }
        if self.devno.major != 0 {
            // By number: the source may be /dev/root, a link that no longer exists, or a device node of another
            // machine.
            all.push(Backing::Device(sysfs.numbered(self.devno)?));
        } else if self.fs == "overlay" {
            all.extend(self.layers()?.into_iter().map(Backing::Path));
        } else if WITHOUT_DISK.contains(&self.fs.as_str()) {
        } else if self.fs == "btrfs" {
            all.extend(self.btrfs_members(sysfs)?.into_iter().map(Backing::Device));
        } else if self.source.starts_with("/dev") {
            match device(&self.source) {
                Ok(one) => all.push(one),
                // bcachefs lists all its members.
                Err(e) => {
                    let parts: Vec<_> = self.source.as_os_str().as_bytes().split(|b| *b == b':').collect();
                    if parts.len() < 2 {
                        return Err(e.into());
                    }
                    for part in parts {
                        all.push(device(Path::new(OsStr::from_bytes(part)))?);
                    }
                }
            }
        } else if self.source.is_absolute() {
            // A file system in a file without a loop device (erofs).
            all.push(Backing::Path(self.source.clone()));
        } else {
            return Err(BackingError::UnknownFilesystem {
                fs: self.fs.clone(),
                device: self.source.clone(),
                point: self.point.clone(),
            });
        }
        Ok(all)
    }

    /// Returns all devices of the btrfs that the source belongs to.
    fn btrfs_members(&self, sysfs: &Sysfs<'_>) -> Result<Vec<Node>, BackingError> {
        let one = sysfs.at(&self.source)?;
        let dir = sysfs.roots.sys.join("fs/btrfs");
        for uuid in names(&dir)? {
            let devices = dir.join(&uuid).join("devices");
            if !devices.is_dir() {
                continue;
            }
            let members = names(&devices)?;
            if members.contains(&one.name) {
                return members.iter().map(|name| Ok(sysfs.named(name)?)).collect();
            }
        }
        Err(BackingError::NoBtrfs { path: dir, device: one.name })
    }
}
