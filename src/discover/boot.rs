//! Finds the disks that carry the running system, through all layers.
//!
//! Fails closed: if one path cannot be followed down to a disk, the whole answer is unknown, and says why.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::backing::{Backing, below};
use super::error::{BackingError, DEEPEST, DiscoverError};
use super::kind::kind_of;
use super::mount::{Mount, unescape};
use super::sysfs::{Node, Sysfs, is_gone, names, read_error};
use super::table::Mounts;
use crate::disk::DiskKind;
use crate::error::chain;

/// Mount points that the system needs to run or to boot.
const SYSTEM: &[&str] = &["/", "/boot", "/boot/efi", "/efi", "/usr"];

/// A mount point or other part of the system that a disk carries.
#[derive(Debug)]
struct Carried {
    what: &'static str,
    disk: String,
    /// Layers between the two, topmost first.
    through: Vec<String>,
}

/// The disks that carry the system.
#[derive(Debug, Default)]
pub(super) struct Boot {
    carried: Vec<Carried>,
    /// Why not all of them are known.
    pub(super) unresolved: Option<String>,
}

impl Boot {
    /// Returns what a disk carries, and through which layers; `None` if nothing.
    pub(super) fn describe(&self, disk: &str) -> Option<String> {
        let mut ways: Vec<(&[String], Vec<&str>)> = Vec::new();
        for one in self.carried.iter().filter(|c| c.disk == disk) {
            match ways.iter_mut().find(|(through, _)| *through == one.through) {
                Some((_, whats)) => whats.push(one.what),
                None => ways.push((&one.through, vec![one.what])),
            }
        }
        let ways: Vec<_> = ways
            .into_iter()
            .map(|(through, whats)| match through {
                [] => whats.join(" and "),
                _ => format!("{} through {}", whats.join(" and "), through.join(", ")),
            })
            .collect();
        if ways.is_empty() { None } else { Some(format!("carries {}", ways.join("; "))) }
    }

    /// Returns whether a disk carries a mount point of the system, and not only swap or the state directory.
    pub(super) fn carries_mount(&self, disk: &str) -> bool {
        self.carried.iter().any(|c| c.disk == disk && SYSTEM.contains(&c.what))
    }

    /// Returns whether a disk carries a mount point of the system, or lies on one that does: another volume of the LVM of the boot disk.
    pub(super) fn carries_mount_below(&self, sysfs: &Sysfs<'_>, device: &str) -> bool {
        let mut seen = HashSet::new();
        let mut rest = vec![device.to_owned()];
        while let Some(name) = rest.pop() {
            if self.carries_mount(&name) {
                return true;
            }
            // what cannot be read is not shown to carry anything
            let Ok(disk) = whole_disk(sysfs, &name) else { continue };
            if seen.insert(disk.name.clone()) {
                rest.extend(disk.links("slaves").unwrap_or_default());
                rest.push(disk.name);
            }
        }
        false
    }

    /// Returns why a device that carries nothing itself belongs to the system; `None` if it does not.
    ///
    /// A device that is stacked on a boot disk, such as another volume of its LVM or a snapshot, is part of the boot
    /// disk.
    pub(super) fn describe_below(&self, sysfs: &Sysfs<'_>, device: &str) -> Option<String> {
        let mut seen = HashSet::new();
        let mut rest = vec![device.to_owned()];
        while let Some(name) = rest.pop() {
            match whole_disk(sysfs, &name).and_then(|node| Ok((node.links("slaves")?, node.name))) {
                Ok((slaves, name)) if seen.insert(name.clone()) => {
                    if let Some(what) = self.describe(&name) {
                        return Some(format!("lies on {name}, which {what}"));
                    }
                    rest.extend(slaves);
                }
                Ok(_) => {}
                Err(e) => return Some(format!("cannot find out what it lies on: {}", chain(e))),
            }
        }
        None
    }

    fn fail(&mut self, what: &str, reason: &BackingError) {
        self.unresolved.get_or_insert_with(|| format!("cannot find out which disks carry {what}: {}", chain(reason)));
    }
}

/// Returns the disk of a partition; a disk for itself.
fn whole_disk(sysfs: &Sysfs<'_>, name: &str) -> Result<Node, DiscoverError> {
    // whole disks first: only partitions are not among them
    sysfs.disk(name).or_else(|_| {
        let node = sysfs.named(name)?;
        Ok(sysfs.disk_of(&node)?.unwrap_or(node))
    })
}

/// Finds the disks below the mount points of the system, active swap, external journals and the state directory, which
/// need not exist yet.
pub(super) fn resolve(sysfs: &Sysfs<'_>, mounts: Result<&Mounts, &BackingError>, state_dir: &Path) -> Boot {
    let mut boot = Boot::default();
    let mounts = match mounts {
        Ok(mounts) => mounts,
        Err(reason) => {
            boot.fail("/", reason);
            return boot;
        }
    };
    for what in SYSTEM {
        let mut walk = Walk::new(sysfs, mounts, what);
        // All mounts there, also those that a later mount hides.
        let mut here = mounts.iter().filter(|m| m.point == Path::new(what)).peekable();
        let any = here.peek().is_some();
        let mut result = here.try_for_each(|mount| walk.follow_mount(mount));
        if *what == "/" && result.is_ok() && !walk.reached_disk {
            result = Err(match any {
                true => BackingError::NoDisk,
                false => BackingError::NoRoot,
            });
        }
        boot.take(walk, result);
    }

    let mut walk = Walk::new(sysfs, mounts, "swap");
    let result = swaps(sysfs).and_then(|swaps| {
        swaps.into_iter().try_for_each(|swap| match swap {
            Backing::Device(node) => walk.follow_node(node),
            Backing::Path(file) => walk.follow_path(&file),
        })
    });
    boot.take(walk, result);

    let mut walk = Walk::new(sysfs, mounts, "the journal of a file system");
    let result = journals(sysfs).and_then(|disks| disks.into_iter().try_for_each(|disk| walk.follow_node(disk)));
    boot.take(walk, result);

    let mut walk = Walk::new(sysfs, mounts, "the state directory");
    let result = mounts.will_hold(state_dir).and_then(|mount| walk.follow_mount(mount));
    boot.take(walk, result);
    boot
}

impl Boot {
    fn take(&mut self, walk: Walk<'_>, result: Result<(), BackingError>) {
        let what = walk.what;
        // The disks found before the failure are protected anyway.
        self.carried.extend(walk.carried);
        if let Err(reason) = result {
            self.fail(what, &reason);
        }
    }
}

/// Returns the active swap devices and files in `/proc/swaps`. A kernel without swap has no such file.
fn swaps(sysfs: &Sysfs<'_>) -> Result<Vec<Backing>, BackingError> {
    let path = sysfs.roots.proc.join("swaps");
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(read_error(&path)(e).into()),
    };
    // A kernel writes at least a headline, so an empty file was put in its place.
    if bytes.is_empty() {
        return Err(BackingError::Empty { path });
    }
    let lines = bytes.split(|b| *b == b'\n').skip(1).filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
            let name = PathBuf::from(OsString::from_vec(unescape(words.next().unwrap_or_default())));
            match words.next() {
                Some(b"partition") => Ok(Backing::Device(sysfs.at(&name)?)),
                Some(b"file") => Ok(Backing::Path(name)),
                Some(_) | None => Err(BackingError::InvalidLine {
                    path: path.clone(),
                    line: String::from_utf8_lossy(line).into_owned(),
                }),
            }
        })
        .collect()
}

/// Returns disks and partitions that are the external journal of an ext4 file system, which no mount table shows.
///
/// The file system need not be one of the system: a disk with a journal in use must not be written to.
fn journals(sysfs: &Sysfs<'_>) -> Result<Vec<Node>, BackingError> {
    let path = sysfs.roots.proc.join("fs/jbd2");
    let names = match names(&path) {
        Ok(names) if names.is_empty() => return Ok(Vec::new()),
        Ok(names) => names,
        Err(e) if is_gone(&e) => return Ok(Vec::new()),
        Err(e) => return Err(e.into()),
    };
    let known = sysfs.all_names()?;
    // An internal journal is named after the device and the inode, such as `nvme0n1p1-8`.
    let disks = names.iter().filter(|name| known.contains(name));
    disks.map(|name| Ok(sysfs.named(name)?)).collect()
}

/// Follows one part of the system down to all disks below it.
struct Walk<'a> {
    sysfs: &'a Sysfs<'a>,
    mounts: &'a Mounts,
    what: &'static str,
    through: Vec<String>,
    /// Mounts above the current one: to reach one of them again is a cycle.
    above: Vec<u32>,
    done: HashSet<String>,
    carried: Vec<Carried>,
    /// Whether at least one path ended at a disk.
    reached_disk: bool,
}

impl<'a> Walk<'a> {
    fn new(sysfs: &'a Sysfs<'a>, mounts: &'a Mounts, what: &'static str) -> Self {
        Self {
            sysfs,
            mounts,
            what,
            through: Vec::new(),
            above: Vec::new(),
            done: HashSet::new(),
            carried: Vec::new(),
            reached_disk: false,
        }
    }

    fn follow_mount(&mut self, mount: &Mount) -> Result<(), BackingError> {
        if self.above.contains(&mount.id) {
            return Err(BackingError::Cycle { fs: mount.fs.clone(), point: mount.point.clone() });
        }
        if let Some([upper, work]) = mount.upper_and_work()
            && self.mounts.of(&upper)?.id != self.mounts.of(&work)?.id
        {
            // The paths are those at the time of mounting: these belong to a root that has been left since.
            return Err(BackingError::SplitOverlay { upper, work, point: mount.point.clone() });
        }
        self.above.push(mount.id);
        for backing in mount.backing(self.sysfs)? {
            match backing {
                Backing::Device(node) => self.follow_node(node)?,
                Backing::Path(path) => {
                    self.step(format!("{} layer {}", mount.fs, path.display()), |walk| walk.follow_path(&path))?
                }
            }
        }
        self.above.pop();
        Ok(())
    }

    fn follow_path(&mut self, path: &Path) -> Result<(), BackingError> {
        let mount = self.mounts.of(path)?;
        self.follow_mount(mount)
    }

    fn follow_node(&mut self, node: Node) -> Result<(), BackingError> {
        if !self.done.insert(node.name.clone()) {
            return Ok(());
        }
        if self.sysfs.disk_of(&node)?.is_none() {
            self.carried.push(Carried { what: self.what, disk: node.name.clone(), through: self.through.clone() });
        }
        let all = below(self.sysfs, &node)?;
        if all.is_empty() {
            let kind = kind_of(&node.name);
            if matches!(kind, DiskKind::DeviceMapper | DiskKind::Md) || node.name.starts_with("bcache") {
                return Err(BackingError::Empty { path: node.dir.join("slaves") });
            }
            self.reached_disk |= kind != DiskKind::Ram;
        }
        self.step(node.name, |walk| {
            all.into_iter().try_for_each(|backing| match backing {
                Backing::Device(node) => walk.follow_node(node),
                Backing::Path(file) => walk.step(file.display().to_string(), |walk| walk.follow_path(&file)),
            })
        })
    }

    fn step(
        &mut self,
        name: String,
        below: impl FnOnce(&mut Self) -> Result<(), BackingError>,
    ) -> Result<(), BackingError> {
        if self.through.len() >= DEEPEST {
            return Err(BackingError::TooDeep { first: self.through[..4].to_vec() });
        }
        self.through.push(name);
        below(self)?;
        self.through.pop();
        Ok(())
    }
}
