//! Builds a tree that looks like a machine's `/sys`, `/proc`, `/dev` and `/run`, in the shapes the kernel gives it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use luks_agent::discover::{DiscoverError, Roots, discover, in_memory, orphans};
use luks_agent::disk::{DeviceFacts, Holder, Inventory};
use luks_agent::error::chain;
use tempfile::TempDir;

pub(crate) const EBS: &str = "Amazon Elastic Block Store              ";
pub(crate) const INSTANCE_STORE: &str = "Amazon EC2 NVMe Instance Storage        ";
pub(crate) const GIB: u64 = 1 << 30;

/// The mount id of `/`.
const ROOT_ID: u32 = 20;

pub(crate) struct Tree {
    dir: TempDir,
    /// Real directories below `sys/devices`, by kernel name.
    nodes: BTreeMap<String, PathBuf>,
    /// Mount id and mount point, in order.
    mounts: Vec<(u32, String)>,
    minor: u32,
}

impl Tree {
    pub(crate) fn new() -> Self {
        let tree = Self { dir: tempfile::tempdir().unwrap(), nodes: BTreeMap::new(), mounts: Vec::new(), minor: 0 };
        for dir in
            ["sys/block", "sys/class/block", "sys/dev/block", "proc/self", "dev/disk", "dev/mapper", "run/udev/data"]
        {
            fs::create_dir_all(tree.path(dir)).unwrap();
        }
        tree.write("proc/self/mountinfo", "");
        tree.write("proc/swaps", "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n");
        tree
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path.trim_start_matches('/'))
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn append(&self, path: &str, line: &str) {
        let path = self.path(path);
        fs::write(&path, fs::read_to_string(&path).unwrap() + line).unwrap();
    }

    /// Creates a link in the tree, with a relative target as sysfs and udev write it.
    pub(crate) fn symlink(&self, from: &str, to: &str) {
        let up = Path::new(from.trim_start_matches('/')).components().count() - 1;
        let path = self.path(from);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(format!("{}{}", "../".repeat(up), to.trim_start_matches('/')), path).unwrap();
    }

    /// Creates a link of udev, such as `disk/by-id/x`.
    pub(crate) fn link(&self, link: &str, name: &str) {
        self.symlink(&format!("dev/{link}"), &format!("dev/{name}"));
    }

    /// Returns the directory of a disk or partition, from the root of the tree.
    pub(crate) fn sys(&self, name: &str) -> String {
        self.nodes[name].to_str().unwrap().to_owned()
    }

    pub(crate) fn set(&self, name: &str, attribute: &str, value: &str) {
        self.write(&format!("{}/{attribute}", self.sys(name)), &format!("{value}\n"));
    }

    pub(crate) fn devno(&self, name: &str) -> String {
        fs::read_to_string(self.path(&self.sys(name)).join("dev")).unwrap().trim().to_owned()
    }

    fn node(&mut self, name: &str, dir: &str, major: u32, size: u64) {
        self.nodes.insert(name.to_owned(), PathBuf::from(dir));
        let devno = format!("{major}:{}", self.minor);
        self.minor += 1;
        self.set(name, "dev", &devno);
        self.set(name, "size", &(size / 512).to_string());
        self.set(name, "ro", "0");
        fs::create_dir_all(self.path(dir).join("holders")).unwrap();
        self.symlink(&format!("sys/class/block/{name}"), dir);
        self.symlink(&format!("sys/dev/block/{devno}"), dir);
    }

    /// Creates a whole disk below `sys/devices/PARENT`.
    pub(crate) fn disk(&mut self, name: &str, parent: &str, major: u32, size: u64) {
        let dir = format!("sys/devices/{parent}/{name}");
        self.node(name, &dir, major, size);
        let seq = self.minor;
        for (attribute, value) in [
            ("diskseq", seq.to_string().as_str()),
            ("removable", "0"),
            ("hidden", "0"),
            ("queue/logical_block_size", "512"),
            ("queue/physical_block_size", "4096"),
            ("queue/zoned", "none"),
        ] {
            self.set(name, attribute, value);
        }
        fs::create_dir_all(self.path(&dir).join("slaves")).unwrap();
        self.symlink(&format!("sys/block/{name}"), &dir);
    }

    /// Creates an NVMe disk, with model and serial padded as the controller gives them.
    pub(crate) fn nvme(&mut self, number: u32, model: &str, serial: &str, size: u64) -> String {
        let name = format!("nvme{number}n1");
        let controller = format!("pci0000:00/0000:00:{:02x}.0/nvme/nvme{number}", number + 4);
        self.disk(&name, &controller, 259, size);
        let dir = format!("sys/devices/{controller}");
        self.write(&format!("{dir}/model"), &format!("{model:<40}\n"));
        self.write(&format!("{dir}/serial"), &format!("{serial:<20}\n"));
        self.symlink(&format!("{dir}/{name}/device"), &dir);
        let serial = serial.trim();
        self.link(&format!("disk/by-id/nvme-{}_{serial}", model.trim().replace(' ', "_")), &name);
        name
    }

    pub(crate) fn xen(&mut self, name: &str, size: u64) {
        let device = format!("vbd-{}", 51712 + self.minor * 16);
        self.disk(name, &format!("{device}/block"), 202, size);
        self.write(&format!("sys/devices/{device}/devtype"), "vbd\n");
        self.symlink(&format!("sys/devices/{device}/block/{name}/device"), &format!("sys/devices/{device}"));
    }

    pub(crate) fn partition(&mut self, disk: &str, number: u32) -> String {
        let infix = if disk.ends_with(|c: char| c.is_ascii_digit()) { "p" } else { "" };
        let name = format!("{disk}{infix}{number}");
        let dir = format!("{}/{name}", self.sys(disk));
        self.node(&name, &dir, 259, GIB);
        self.set(&name, "partition", &number.to_string());
        name
    }

    /// Creates a device that is stacked on others: dm, md, bcache.
    pub(crate) fn stack(&mut self, name: &str, on: &[&str]) {
        self.disk(name, "virtual/block", 253, GIB);
        let dir = self.sys(name);
        for below in on {
            self.symlink(&format!("{dir}/slaves/{below}"), &self.sys(below));
            self.symlink(&format!("{}/holders/{name}", self.sys(below)), &dir);
        }
    }

    pub(crate) fn dm(&mut self, name: &str, dm_name: &str, uuid: &str, on: &[&str]) {
        self.stack(name, on);
        self.set(name, "dm/name", dm_name);
        self.set(name, "dm/uuid", uuid);
        self.link(&format!("mapper/{dm_name}"), name);
    }

    pub(crate) fn loop_on(&mut self, name: &str, file: &str) {
        self.disk(name, "virtual/block", 7, GIB);
        self.set(name, "loop/backing_file", file);
    }

    /// Adds a line to the mount table.
    pub(crate) fn mount_as(&mut self, devno: &str, point: &str, fs: &str, source: &str, options: &str) {
        let escaped = point.replace('\\', "\\134").replace(' ', "\\040");
        // `/` may come after the others: its number is known.
        let id = if point == "/" { ROOT_ID } else { ROOT_ID + 1 + u32::try_from(self.mounts.len()).unwrap() };
        let above = |upper: &str| Path::new(point).starts_with(upper);
        let nearest = self.mounts.iter().rev().filter(|(_, p)| above(p)).max_by_key(|(_, p)| p.len());
        let parent = if point == "/" { 1 } else { nearest.map_or(ROOT_ID, |(id, _)| *id) };
        self.append(
            "proc/self/mountinfo",
            &format!("{id} {parent} {devno} / {escaped} rw,relatime shared:1 - {fs} {source} {options}\n"),
        );
        self.mounts.push((id, point.to_owned()));
        fs::create_dir_all(self.path(point)).unwrap();
    }

    /// Mounts a device of the tree.
    pub(crate) fn mount(&mut self, name: &str, point: &str, fs: &str) {
        let devno = self.devno(name);
        self.mount_as(&devno, point, fs, &format!("/dev/{name}"), "rw");
    }

    pub(crate) fn btrfs(&mut self, members: &[&str], point: &str) {
        let minor = 40 + self.mounts.len();
        for member in members {
            let link = format!("sys/fs/btrfs/5a1e-{minor}/devices/{member}");
            self.symlink(&link, &self.sys(member));
        }
        fs::create_dir_all(self.path("sys/fs/btrfs/features")).unwrap();
        self.mount_as(
            &format!("0:{minor}"),
            point,
            "btrfs",
            &format!("/dev/{}", members[0]),
            "rw,space_cache=v2,subvolid=5",
        );
    }

    /// Mounts an overlay with its upper and work directories below `upper`.
    pub(crate) fn overlay(&mut self, point: &str, lower: &str, upper: &str) {
        let minor = 40 + self.mounts.len();
        for dir in [lower, &format!("{upper}/data"), &format!("{upper}/work")] {
            fs::create_dir_all(self.path(dir)).unwrap();
        }
        let options = format!("rw,lowerdir={lower},upperdir={upper}/data,workdir={upper}/work");
        self.mount_as(&format!("0:{minor}"), point, "overlay", "overlay", &options);
    }

    pub(crate) fn swap(&self, path: &str, kind: &str) {
        self.append("proc/swaps", &format!("{path}                               {kind}\t\t1048572\t\t0\t\t-2\n"));
    }

    pub(crate) fn try_discover(&self, mapping: Option<&BTreeMap<String, String>>) -> Result<Inventory, DiscoverError> {
        discover(&Roots::under(self.dir.path()), Path::new("/etc/luks-agent/state"), mapping)
    }

    /// Removes a file or directory of a disk, or all of it for an empty path.
    pub(crate) fn remove(&self, name: &str, path: &str) {
        let path = self.path(&self.sys(name)).join(path);
        match fs::symlink_metadata(&path).unwrap().is_dir() {
            true => fs::remove_dir_all(path).unwrap(),
            false => fs::remove_file(path).unwrap(),
        }
    }

    pub(crate) fn orphans(&self) -> Vec<Holder> {
        orphans(&Roots::under(self.dir.path())).unwrap()
    }

    pub(crate) fn discover(&self) -> Inventory {
        self.try_discover(None).unwrap()
    }

    pub(crate) fn discover_with(&self, mapping: &[(&str, &str)]) -> Inventory {
        let mapping = mapping.iter().map(|(key, name)| ((*key).to_owned(), (*name).to_owned())).collect();
        self.try_discover(Some(&mapping)).unwrap()
    }

    /// Describes what in memory a path lies on.
    pub(crate) fn in_memory(&self, path: &str) -> Result<Option<String>, String> {
        in_memory(&Roots::under(self.dir.path()), Path::new(path)).map_err(chain)
    }

    /// Returns why the boot disk cannot be resolved, without the path of the tree.
    pub(crate) fn unresolved(&self) -> String {
        let reason = self.discover().boot_unresolved.expect("the boot disk is not known");
        let root = fs::canonicalize(self.dir.path()).unwrap();
        reason.replace(root.to_str().unwrap(), "").replace(self.dir.path().to_str().unwrap(), "")
    }
}

pub(crate) fn device<'a>(inventory: &'a Inventory, name: &str) -> &'a DeviceFacts {
    inventory.devices.iter().find(|d| d.name == name).unwrap_or_else(|| panic!("{name} in {inventory:#?}"))
}

/// Formats the inventory as `NAME ROLE [why]`, one line per disk.
pub(crate) fn roles(inventory: &Inventory) -> String {
    use luks_agent::disk::{Role, classify};
    let line = |d: &DeviceFacts| match classify(d, &[]) {
        role @ (Role::Boot { .. } | Role::Unclear { .. } | Role::Ignored { .. }) => {
            let (Role::Boot { because } | Role::Unclear { because } | Role::Ignored { because }) = &role else {
                unreachable!()
            };
            format!("{} {role}: {because}", d.name)
        }
        role @ (Role::Ebs | Role::InstanceStore) => format!("{} {role}", d.name),
    };
    let mut lines: Vec<_> = inventory.devices.iter().map(line).collect();
    lines.extend(inventory.boot_unresolved.iter().map(|reason| format!("unresolved: {reason}")));
    lines.join("\n")
}
