//! What disks the machine has and which of them carry the running system, read from sysfs, procfs and udev's links.
//!
//! It reads files only: it opens no device and runs no command, so a hung device cannot hold it up.
//!
//! May import: `disk`.
//! Never: a device, a program, the configuration.

mod boot;
mod memory;
mod mounts;
mod sysfs;
mod xen;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::{fs, io};

use crate::disk::{DevNo, DeviceFacts, DiskKind, Holder, Inventory};
pub(crate) use mounts::{Mount, Mounts};
use sysfs::{Node, Sysfs, gone, optional, text};

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
    #[error("{} says '{text}': expected {expected}", path.display())]
    Invalid {
        /// Which.
        path: PathBuf,
        /// What it says.
        text: String,
        /// What it should say.
        expected: &'static str,
    },
}

impl DiscoverError {
    /// With its cause on one line, for a reason or a log entry.
    fn in_full(&self) -> String {
        match self {
            Self::Read { source, .. } => format!("{self}: {source}"),
            Self::Invalid { .. } => self.to_string(),
        }
    }
}

/// Lists the whole disks of the machine and finds those that carry the running system.
///
/// `state_dir` need not exist yet. `mapping` is the IMDS block device mapping, from key (`ami`, `ebs1`, `ephemeral0`) to
/// device name (`sdb`, `/dev/sda1`); only Xen disks need it. A disk that vanishes while it is read is left out, and so,
/// with a warning, is one whose facts cannot be read. Whatever keeps the boot disk from being found out is in
/// [`Inventory::boot_unresolved`].
///
/// # Errors
/// [`DiscoverError`] when `/sys/block` cannot be listed.
pub fn discover(
    roots: &Roots,
    state_dir: &Path,
    mapping: Option<&BTreeMap<String, String>>,
) -> Result<Inventory, DiscoverError> {
    let sysfs = Sysfs::new(roots);
    let links = links_by_name(&roots.dev);
    let mounts = Mounts::read(roots);
    let mounted = mounts.as_ref().map(|mounts| mounted(&sysfs, mounts)).unwrap_or_default();

    let mut devices = Vec::new();
    for name in sysfs.disk_names()? {
        match facts(&sysfs, roots, &name, &mounted) {
            Ok(Some(mut facts)) => {
                if let Some(links) = links.get(&name) {
                    facts.links.extend(links.iter().cloned());
                    facts.links.sort();
                }
                devices.push(facts);
            }
            Ok(None) => {}
            Err(error) if gone(&error) => tracing::debug!(disk = name, "disk vanished while it was read"),
            Err(error) => tracing::warn!(disk = name, "left out: {}", error.in_full()),
        }
    }

    // After the listing, so that a disk that joined the boot stack meanwhile is not taken for a free one.
    let boot = boot::resolve(&sysfs, mounts.as_ref().map_err(Clone::clone), state_dir);
    for facts in &mut devices {
        facts.system = boot.system(&facts.name).or_else(|| boot.below(&sysfs, &facts.name));
    }
    let mut boot_unresolved = boot.unresolved.clone();
    if let Some(mapping) = mapping {
        let mismatch = xen::assign(&mut devices, mapping, &boot);
        boot_unresolved = boot_unresolved.or(mismatch);
    }
    devices.sort_by(|a, b| {
        let key = |d: &DeviceFacts| (d.serial.is_none(), d.serial.clone(), d.name.clone());
        key(a).cmp(&key(b))
    });
    // what cannot be followed down leaves the boot disk unresolved, too
    let state_in_memory = mounts.ok().and_then(|mounts| memory::in_memory(&sysfs, &mounts, state_dir).ok().flatten());
    Ok(Inventory { devices, boot_unresolved, state_in_memory, instance_id: None, missing_ciphers: Vec::new() })
}

/// The mappings of LUKS2 volumes that lead to no disk: those of a disk that was pulled, and those without a table in use, which a
/// process leaves behind that is killed while it makes one. The latter hold their disk.
///
/// sysfs must say so of the mapping itself. That a disk was not found proves nothing: its facts may be unreadable for a moment.
///
/// # Errors
/// [`DiscoverError`] when `/sys/block` cannot be listed.
pub fn orphans(roots: &Roots) -> Result<Vec<Holder>, DiscoverError> {
    let sysfs = Sysfs::new(roots);
    let mounted = Mounts::read(roots).map(|mounts| mounted(&sysfs, &mounts)).unwrap_or_default();
    let orphan = |name: &String| {
        // what vanishes meanwhile is none
        let node = sysfs.disk(name).ok()?;
        let size: u64 = node.number("size").ok()?;
        let mapping = read_holder(&sysfs, name.clone(), &mounted).ok()?;
        mapping.luks_uuid()?;
        (size == 0 || leads_nowhere(&node)).then_some(mapping)
    };
    Ok(sysfs.disk_names()?.iter().filter(|name| kind(name) == DiskKind::DeviceMapper).filter_map(orphan).collect())
}

/// What in memory a path lies on, in words; `None` if what is written there outlives a reboot. The path need not exist yet.
///
/// # Errors
/// What cannot be followed down to disks, and why.
pub fn in_memory(roots: &Roots, path: &Path) -> Result<Option<String>, String> {
    memory::in_memory(&Sysfs::new(roots), &Mounts::read(roots)?, path)
}

/// Whether each device that a mapping was made on is gone for certain. What cannot be read is not gone.
fn leads_nowhere(mapping: &Node) -> bool {
    let is_gone = |below: &String| match mapping.below(below) {
        // another disk can have taken the place of a pulled one, and nothing is stacked on that
        Ok(disk) => disk.links("holders").is_ok_and(|holders| !holders.contains(&mapping.name)),
        Err(error) => gone(&error),
    };
    mapping.links("slaves").is_ok_and(|slaves| slaves.iter().all(is_gone))
}

/// What is mounted at a path, as the mount table names it, topmost last.
///
/// # Errors
/// What keeps the mount table from being read.
pub fn mounted_at(roots: &Roots, path: &Path) -> Result<Vec<PathBuf>, String> {
    let mounts = Mounts::read(roots)?;
    Ok(mounts.iter().filter(|mount| mount.point == path).map(|mount| mount.source.clone()).collect())
}

/// Mount points by the number of the block device directly below, in the order of mounting.
fn mounted(sysfs: &Sysfs<'_>, mounts: &Mounts) -> BTreeMap<DevNo, Vec<PathBuf>> {
    let mut all: BTreeMap<DevNo, Vec<PathBuf>> = BTreeMap::new();
    for mount in mounts.iter() {
        let devices = if mount.devno.major != 0 {
            vec![mount.devno]
        } else {
            // What cannot be told here is of no system mount (boot::resolve says so), and busy when it is to be opened.
            mount.backing(sysfs).unwrap_or_default().iter().filter_map(mounts::Backing::devno).collect()
        };
        for devno in devices {
            all.entry(devno).or_default().push(mount.point.clone());
        }
    }
    all
}

/// The facts of one disk; `None` for what is in `/sys/block` and no disk of its own (a path of an NVMe multipath head).
fn facts(
    sysfs: &Sysfs<'_>,
    roots: &Roots,
    name: &str,
    mounted: &BTreeMap<DevNo, Vec<PathBuf>>,
) -> Result<Option<DeviceFacts>, DiscoverError> {
    let disk = sysfs.disk(name)?;
    let attribute = |path: &str| text(&disk.dir.join(path));
    let optional = |path: &str| optional(attribute(path));
    if optional("hidden")?.as_deref() == Some("1") {
        return Ok(None);
    }
    let diskseq = || disk.number::<u64>("diskseq").map(Some).or_else(|e| if gone(&e) { Ok(None) } else { Err(e) });
    let seen = diskseq()?;

    let kind = kind(name);
    let udev = udev_properties(roots, disk.devno()?);
    let property = |key: &str| udev.get(key).cloned();
    let serial = match kind {
        // The kernel asks the device each time `serial` is read, and waits for it: udev's copy first.
        DiskKind::Virtio => match property("ID_SERIAL") {
            Some(serial) => Some(serial),
            None => optional("serial")?,
        },
        DiskKind::Scsi => property("ID_SERIAL_SHORT").or_else(|| property("ID_SERIAL")),
        DiskKind::DeviceMapper | DiskKind::Md | DiskKind::Loop | DiskKind::Ram => None,
        DiskKind::Nvme | DiskKind::Xen | DiskKind::Optical => {
            optional("device/serial")?.or_else(|| property("ID_SERIAL_SHORT"))
        }
        // User-Mode Linux has it on the disk itself, and says so when there is none.
        DiskKind::Other => optional("device/serial")?
            .or(optional("serial")?.filter(|serial| serial != "(null)"))
            .or_else(|| property("ID_SERIAL_SHORT")),
    };

    let partitions = disk.partitions()?;
    let mut holders = Vec::new();
    let mut mounts = Vec::new();
    for node in std::iter::once(&disk).chain(&partitions) {
        for holder in node.links("holders")? {
            if !holders.iter().any(|h: &Holder| h.name == holder) {
                holders.push(read_holder(sysfs, holder, mounted)?);
            }
        }
        mounts.extend(mounted.get(&node.devno()?).into_iter().flatten().cloned());
    }
    holders.sort_by(|a, b| a.name.cmp(&b.name));

    let mut links = Vec::new();
    if let Some(dm_name) = optional("dm/name")? {
        // Without udev it is a device node of its own, not a link.
        let path = Path::new("mapper").join(dm_name);
        if roots.dev.join(&path).exists() {
            links.push(Path::new("/dev").join(path));
        }
    }
    let sectors: u64 = disk.number("size")?;
    let facts = DeviceFacts {
        name: name.to_owned(),
        path: Path::new("/dev").join(name.replace('!', "/")),
        links,
        devno: disk.devno()?,
        diskseq: diskseq()?,
        // sysfs counts in units of 512 bytes whatever the logical block size is.
        size: sectors.saturating_mul(512),
        logical_block_size: disk.number("queue/logical_block_size")?,
        physical_block_size: disk.number("queue/physical_block_size")?,
        kind,
        model: optional("device/model")?,
        serial,
        removable: attribute("removable")? != "0",
        read_only: attribute("ro")? != "0",
        zoned: optional("queue/zoned")?.is_some_and(|zoned| zoned != "none"),
        partitions: partitions.into_iter().map(|p| p.name).collect(),
        holders,
        mounts,
        system: None,
        mapping: None,
        content: None,
    };
    if facts.diskseq != seen {
        tracing::debug!(disk = name, "another disk took the name while it was read");
        return Ok(None);
    }
    Ok(Some(facts))
}

fn kind(name: &str) -> DiskKind {
    let numbered =
        |prefix: &str| name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    let lettered =
        |prefix: &str| name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()));
    if numbered("nvme") {
        DiskKind::Nvme
    } else if lettered("xvd") {
        DiskKind::Xen
    } else if lettered("sd") {
        DiskKind::Scsi
    } else if lettered("vd") {
        DiskKind::Virtio
    } else if numbered("dm-") {
        DiskKind::DeviceMapper
    } else if numbered("md") || name.starts_with("md_") {
        DiskKind::Md
    } else if numbered("loop") {
        DiskKind::Loop
    } else if numbered("ram") || numbered("zram") {
        DiskKind::Ram
    } else if numbered("sr") {
        DiskKind::Optical
    } else {
        DiskKind::Other
    }
}

fn read_holder(
    sysfs: &Sysfs<'_>,
    name: String,
    mounted: &BTreeMap<DevNo, Vec<PathBuf>>,
) -> Result<Holder, DiscoverError> {
    let node = sysfs.disk(&name)?;
    let optional = |path: &str| optional(text(&node.dir.join(path)));
    let partitions = node.partitions()?;
    let mut mounts = Vec::new();
    for on in std::iter::once(&node).chain(&partitions) {
        mounts.extend(mounted.get(&on.devno()?).into_iter().flatten().cloned());
    }
    let sectors: u64 = node.number("size")?;
    Ok(Holder {
        dm_name: optional("dm/name")?,
        dm_uuid: optional("dm/uuid")?,
        size: sectors.saturating_mul(512),
        mounts,
        held: !partitions.is_empty() || !node.links("holders")?.is_empty(),
        name,
    })
}

/// What udev found out about a device: the `E:KEY=VALUE` lines of its record. Empty without udev.
fn udev_properties(roots: &Roots, devno: DevNo) -> BTreeMap<String, String> {
    let record = fs::read(roots.run.join(format!("udev/data/b{devno}"))).unwrap_or_default();
    String::from_utf8_lossy(&record)
        .lines()
        .filter_map(|line| line.strip_prefix("E:")?.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
        .filter(|(_, value)| !value.is_empty())
        .collect()
}

/// Every symbolic link below `/dev` by the kernel name it leads to, sorted. Other file systems mounted there (`shm`,
/// where anybody may write) are left out, and so are the links by number, which say nothing that sysfs does not.
fn links_by_name(dev: &Path) -> BTreeMap<String, Vec<PathBuf>> {
    fn walk(dev: &Path, dir: &Path, on: u64, depth: u32, found: &mut BTreeMap<String, Vec<PathBuf>>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let (Ok(kind), path) = (entry.file_type(), entry.path()) else { continue };
            let Ok(below) = path.strip_prefix(dev) else { continue };
            if kind.is_dir() {
                let same = entry.metadata().is_ok_and(|m| m.dev() == on);
                if same && depth < 3 && below != Path::new("block") && below != Path::new("char") {
                    walk(dev, &path, on, depth + 1, found);
                }
            } else if kind.is_symlink() {
                let link = Path::new("/dev").join(below);
                if let Some(name) = node_name(dev, &link) {
                    found.entry(name).or_default().push(link);
                }
            }
        }
    }
    let mut found = BTreeMap::new();
    if let Ok(metadata) = fs::metadata(dev) {
        walk(dev, dev, metadata.dev(), 0, &mut found);
    }
    found
}

/// The kernel name that a path below `/dev` leads to. Links are followed by their text, so the device node at the end
/// need not be there.
fn node_name(dev: &Path, path: &Path) -> Option<String> {
    let mut path = path.to_owned();
    for _ in 0..8 {
        let below = path.strip_prefix("/dev").ok()?;
        match fs::read_link(dev.join(below)) {
            Ok(target) => path = flatten(&path.parent()?.join(target)),
            Err(_) => return below.to_str().map(|name| name.replace('/', "!")),
        }
    }
    None
}

/// `..` and `.` taken out of an absolute path by its text alone.
fn flatten(path: &Path) -> PathBuf {
    let mut flat = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => flat.push(name),
            Component::ParentDir => {
                flat.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    flat
}
