//! The mount table, and what each mount is made of.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::sysfs::{Node, Sysfs, names, optional, read_error, text};
use super::{DiscoverError, Roots, kind};
use crate::disk::{DevNo, DiskKind};

/// File systems that never keep anything on a disk of this machine.
const WITHOUT_DISK: &[&str] = &[
    "9p", "autofs", "ceph", "cifs", "devtmpfs", "hostfs", "nfs", "nfs4", "ramfs", "rootfs", "smb3", "sysfs", "proc",
    "tmpfs", "virtiofs",
];

/// Mount options that name a further device.
const DEVICE_OPTIONS: &[&str] = &["logdev", "rtdev", "journal_path"];

/// One line of `/proc/self/mountinfo`.
#[derive(Debug, Clone)]
pub(crate) struct Mount {
    pub(crate) id: u32,
    pub(crate) parent: u32,
    /// Anonymous (major 0) unless the file system is on exactly one block device.
    pub(crate) devno: DevNo,
    /// Which directory of the file system is mounted.
    pub(crate) root: PathBuf,
    pub(crate) point: PathBuf,
    /// The peer group that it belongs to: what happens below it happens below its peers.
    peer_group: Option<u32>,
    /// Peer groups, its own among them, below which what happens happens below it too.
    follows: Vec<u32>,
    pub(super) fs: String,
    pub(crate) source: PathBuf,
    /// The file system's own options, still escaped.
    options: Vec<u8>,
}

/// What is directly below a mount.
#[derive(Debug)]
pub(super) enum Backing {
    /// A disk, a partition or a device stacked on them.
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

/// What a device directly lies on; nothing below a disk. The disk of a partition, what a stacked device was made of, the file of
/// a loop device, and what a disk in memory is written back to.
pub(super) fn below(sysfs: &Sysfs<'_>, node: &Node) -> Result<Vec<Backing>, DiscoverError> {
    if let Some(disk) = sysfs.disk_of(node)? {
        return Ok(vec![Backing::Device(disk)]);
    }
    let slaves = node.links("slaves")?;
    let mut all = slaves.iter().map(|slave| sysfs.named(slave).map(Backing::Device)).collect::<Result<Vec<_>, _>>()?;
    // a loop device always has a file, zram perhaps a device
    let file = match kind(&node.name) {
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

/// The mount table as this process sees it.
#[derive(Debug)]
pub(crate) struct Mounts {
    all: Vec<Mount>,
    files: PathBuf,
}

impl Mounts {
    /// The message on failure names the file and, if it is one, the line.
    pub(crate) fn read(roots: &Roots) -> Result<Self, String> {
        Self::read_of(roots, "self")
    }

    /// The mount table as another process sees it.
    pub(crate) fn read_of(roots: &Roots, process: &str) -> Result<Self, String> {
        let path = roots.proc.join(process).join("mountinfo");
        let bytes = fs::read(&path).map_err(|e| read_error(&path)(e).in_full())?;
        let lines = bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        let all = lines
            .map(|line| {
                parse(line).ok_or_else(|| {
                    format!("{} has a line that is no mount: '{}'", path.display(), String::from_utf8_lossy(line))
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { all, files: roots.files.clone() })
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Mount> {
        self.all.iter()
    }

    /// Whether a mount of another namespace's table goes along when one of this table is unmounted, unless it is used there. That is a
    /// matter of what they are mounted on.
    pub(crate) fn takes_along(&self, own: &Mount, theirs: &Self, other: &Mount) -> bool {
        let (Some((on, at)), Some((other_on, other_at))) = (self.place(own), theirs.place(other)) else { return false };
        on.peer_group.is_some_and(|group| other_on.follows.contains(&group)) && at == other_at
    }

    /// The mount that another is mounted on, and where in its file system.
    fn place(&self, mount: &Mount) -> Option<(&Mount, PathBuf)> {
        let on = self.all.iter().find(|on| on.id == mount.parent)?;
        Some((on, on.root.join(mount.point.strip_prefix(&on.point).ok()?)))
    }

    /// The mount that a path is on, the path's links followed. It must exist.
    pub(crate) fn of(&self, path: &Path) -> Result<&Mount, String> {
        let real = self.files.join(path.strip_prefix("/").unwrap_or(path));
        let lost = |e| read_error(&real)(e).in_full();
        let real_path = fs::canonicalize(&real).map_err(lost)?;
        let files = fs::canonicalize(&self.files).map_err(lost)?;
        let below = real_path.strip_prefix(files).map_err(|_| format!("{} leads out of the tree", real.display()))?;

        // Down the tree of mounts as the kernel goes, since a mount can be hidden by a later one above it.
        let root = Path::new("/");
        let mut at = self
            .all
            .iter()
            .find(|m| m.point == root && (m.parent == m.id || !self.all.iter().any(|p| p.id == m.parent)))
            .ok_or("the mount table does not list /")?;
        let mut prefix = root.to_owned();
        for part in below.components() {
            prefix.push(part);
            while let Some(on) = self.all.iter().rfind(|m| m.parent == at.id && m.id != at.id && m.point == prefix) {
                at = on;
            }
        }
        Ok(at)
    }

    /// The mount that a path will be on when it is made, the part of it that exists now followed.
    pub(super) fn will_hold(&self, path: &Path) -> Result<&Mount, String> {
        for path in path.ancestors() {
            match fs::symlink_metadata(self.files.join(path.strip_prefix("/").unwrap_or(path))) {
                Ok(_) => return self.of(path),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(read_error(path)(e).in_full()),
            }
        }
        Err(format!("{} is not an absolute path", path.display()))
    }
}

impl Mount {
    /// What the mount is made of; empty for a file system without a disk.
    pub(super) fn backing(&self, sysfs: &Sysfs<'_>) -> Result<Vec<Backing>, String> {
        let full = |e: DiscoverError| e.in_full();
        let device = |path: &Path| sysfs.at(path).map(Backing::Device).map_err(full);
        let mut all = Vec::new();
        for (key, value) in self.options() {
            if DEVICE_OPTIONS.contains(&key.as_str()) {
                all.push(device(Path::new(&OsString::from_vec(value)))?);
            }
        }
        if self.devno.major != 0 {
            // By number: the source may be /dev/root, a link that is gone, or a node of another machine.
            all.push(Backing::Device(sysfs.numbered(self.devno).map_err(full)?));
        } else if self.fs == "overlay" {
            all.extend(self.layers()?.into_iter().map(Backing::Path));
        } else if WITHOUT_DISK.contains(&self.fs.as_str()) {
        } else if self.fs == "btrfs" {
            all.extend(self.btrfs_members(sysfs)?.into_iter().map(Backing::Device));
        } else if self.source.starts_with("/dev") {
            match device(&self.source) {
                Ok(one) => all.push(one),
                // bcachefs names all its members.
                Err(e) => {
                    let parts: Vec<_> = self.source.as_os_str().as_bytes().split(|b| *b == b':').collect();
                    if parts.len() < 2 {
                        return Err(e);
                    }
                    for part in parts {
                        all.push(device(Path::new(std::ffi::OsStr::from_bytes(part)))?);
                    }
                }
            }
        } else if self.source.is_absolute() {
            // A file system in a file without a loop device (erofs).
            all.push(Backing::Path(self.source.clone()));
        } else {
            return Err(format!(
                "it is not known which disks a {} file system is on ('{}' on {})",
                self.fs,
                self.source.display(),
                self.point.display()
            ));
        }
        Ok(all)
    }

    /// All devices of the btrfs that the source is one of.
    fn btrfs_members(&self, sysfs: &Sysfs<'_>) -> Result<Vec<Node>, String> {
        let full = |e: DiscoverError| e.in_full();
        let one = sysfs.at(&self.source).map_err(full)?;
        let dir = sysfs.roots.sys.join("fs/btrfs");
        for uuid in names(&dir).map_err(full)? {
            let devices = dir.join(&uuid).join("devices");
            if !devices.is_dir() {
                continue;
            }
            let members = names(&devices).map_err(full)?;
            if members.contains(&one.name) {
                return members.iter().map(|name| sysfs.named(name).map_err(full)).collect();
            }
        }
        Err(format!("{} lists no btrfs with a device {}", dir.display(), one.name))
    }

    /// The upper directory of an overlay and its work directory, which the kernel wants on one mount.
    pub(super) fn upper_and_work(&self) -> Option<[PathBuf; 2]> {
        let option = |name: &str| {
            self.options().find(|(key, _)| key == name).map(|(_, value)| PathBuf::from(OsString::from_vec(value)))
        };
        Some([option("upperdir")?, option("workdir")?]).filter(|_| self.fs == "overlay")
    }

    /// Whether an overlay leaves out what makes writes durable: after a crash it is not even mounted again.
    pub(super) fn is_volatile(&self) -> bool {
        self.options.split(|b| *b == b',').any(|option| option == b"volatile")
    }

    /// The directories of an overlay, all of them; of another file system, none.
    pub(crate) fn layers_if_overlay(&self) -> Vec<PathBuf> {
        if self.fs == "overlay" { self.layers().unwrap_or_default() } else { Vec::new() }
    }

    /// The directories of an overlay, all of them.
    fn layers(&self) -> Result<Vec<PathBuf>, String> {
        let mut layers = Vec::new();
        for (key, value) in self.options() {
            match key.as_str() {
                "upperdir" | "lowerdir+" | "datadir+" => layers.push(value),
                // `::` comes before layers that only give data.
                "lowerdir" => layers.extend(split_layers(&value)),
                _ => {}
            }
        }
        if layers.is_empty() {
            return Err(format!("the overlay on {} names no layers", self.point.display()));
        }
        layers
            .into_iter()
            .map(|layer| PathBuf::from(OsString::from_vec(layer)))
            .map(|layer| match layer.is_absolute() {
                true => Ok(layer),
                false => Err(format!(
                    "the overlay on {} has a layer that is not an absolute path: '{}'",
                    self.point.display(),
                    layer.display()
                )),
            })
            .collect()
    }

    fn options(&self) -> impl Iterator<Item = (String, Vec<u8>)> {
        // A comma within a value is escaped.
        self.options.split(|b| *b == b',').filter_map(|option| {
            let at = option.iter().position(|b| *b == b'=')?;
            Some((String::from_utf8_lossy(&option[..at]).into_owned(), unescape(&option[at + 1..])))
        })
    }
}

/// `a:b::c`, where a colon or backslash within a name has a backslash before it.
fn split_layers(value: &[u8]) -> Vec<Vec<u8>> {
    let mut layers = vec![Vec::new()];
    let mut bytes = value.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b':' => layers.push(Vec::new()),
            b'\\' => layers.last_mut().into_iter().for_each(|l| l.extend(bytes.next())),
            _ => layers.last_mut().into_iter().for_each(|l| l.push(*byte)),
        }
    }
    layers.retain(|layer| !layer.is_empty());
    layers
}

/// `\040` and the like taken back.
pub(super) fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        let code = tail.get(..3).filter(|d| *first == b'\\' && d.iter().all(|d| (b'0'..=b'7').contains(d)));
        match code.and_then(|d| u8::try_from(d.iter().fold(0_u32, |n, d| n * 8 + u32::from(d - b'0'))).ok()) {
            Some(byte) => {
                plain.push(byte);
                rest = &tail[3..];
            }
            None => {
                plain.push(*first);
                rest = tail;
            }
        }
    }
    plain
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue` (proc_pid_mountinfo(5)).
fn parse(line: &[u8]) -> Option<Mount> {
    let separator = line.windows(3).position(|w| w == b" - ")?;
    let path = |text: &[u8]| PathBuf::from(OsString::from_vec(unescape(text)));
    let word = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
    let mut mount = line[..separator].split(|b| *b == b' ');
    let id = word(mount.next()?).parse().ok()?;
    let parent = word(mount.next()?).parse().ok()?;
    let devno = word(mount.next()?).parse().ok()?;
    let root = path(mount.next()?);
    let point = path(mount.next()?);
    mount.next()?;
    let (mut peer_group, mut follows) = (None, Vec::new());
    for tag in mount.map(word) {
        match tag.split_once(':') {
            Some(("shared", group)) => {
                peer_group = group.parse().ok();
                follows.extend(peer_group);
            }
            Some(("master" | "propagate_from", group)) => follows.extend(group.parse::<u32>().ok()),
            _ => {}
        }
    }
    let mut fs = line[separator + 3..].splitn(3, |b| *b == b' ');
    let kind = word(&unescape(fs.next()?));
    let source = path(fs.next()?);
    let options = fs.next()?.to_vec();
    point.is_absolute().then_some(Mount {
        id,
        parent,
        devno,
        root,
        point,
        peer_group,
        follows,
        fs: kind,
        source,
        options,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_apart() {
        let line = br"36 35 0:31 /a\040b /mnt/c\134d\040e rw,noatime master:1 shared:7 - overlay my\011disk rw,lowerdir=/a\:b:/c::/d,upperdir=/x\054y\040z,workdir=/w";
        let mount = parse(line).unwrap();
        assert_eq!((mount.id, mount.parent, mount.devno), (36, 35, DevNo { major: 0, minor: 31 }));
        assert_eq!((mount.root.as_path(), mount.point.as_path()), (Path::new("/a b"), Path::new("/mnt/c\\d e")));
        assert_eq!((mount.peer_group, mount.follows.as_slice()), (Some(7), &[1, 7][..]));
        assert_eq!((mount.fs.as_str(), mount.source.as_path()), ("overlay", Path::new("my\tdisk")));
        assert_eq!(mount.layers().unwrap(), ["/a:b", "/c", "/d", "/x,y z"].map(PathBuf::from));
    }

    #[test]
    fn what_goes_along_with_an_unmount_follows_the_mount_below() {
        let table = |lines: &[&str]| Mounts {
            all: lines.iter().map(|line| parse(line.as_bytes()).unwrap()).collect(),
            files: "/".into(),
        };
        let volume = |table: &Mounts| table.iter().find(|mount| mount.devno.major == 252).unwrap().clone();
        let ours =
            table(&["1 0 8:1 / / rw shared:1 - ext4 /dev/sda1 rw", "5 1 252:0 / /mnt rw shared:9 - xfs /dev/dm-0 rw"]);
        for (on, at, goes) in [
            ("11 10 8:1 / / rw master:1", "/mnt rw master:9", true),
            ("11 10 8:1 / / rw shared:1", "/mnt rw", true),
            ("11 10 8:1 / / rw master:7 propagate_from:1", "/mnt rw", true),
            ("11 10 8:1 / / rw", "/mnt rw", false),
            // bound to another place, or on something else
            ("11 10 8:1 / / rw master:1", "/srv rw master:9", false),
            ("11 10 0:40 / / rw", "/mnt rw master:9", false),
            ("11 10 8:1 /sub / rw master:1", "/mnt rw master:9", false),
        ] {
            let theirs = table(&[&format!("{on} - ext4 x rw"), &format!("15 11 252:0 / {at} - xfs /dev/dm-0 rw")]);
            let found = ours.takes_along(&volume(&ours), &theirs, &volume(&theirs));
            assert_eq!(found, goes, "{on}, {at}");
        }
    }

    #[test]
    fn what_is_no_mount_is_not_guessed_at() {
        for line in [
            "",
            "36 35 0:31 / / rw",
            "36 35 0-31 / / rw - ext4 /dev/x rw",
            "36 35 0:31 / mnt rw - ext4 /dev/x rw",
            "a b c - d e f",
        ] {
            assert!(parse(line.as_bytes()).is_none(), "{line}");
        }
        // An empty source, and no optional fields.
        assert!(parse(b"36 35 0:31 / /mnt rw - tmpfs  rw").is_some());
    }
}
