//! Symbolic links below `/dev`, and the disks that they lead to.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// Returns every symbolic link below `/dev`, sorted, by the kernel name that it leads to.
///
/// Skips other file systems mounted there (`shm`, where anybody can write), and the links by number, which say nothing
/// that sysfs does not.
///
/// It walks through all of `/dev`, because a rule of the configuration may name a link that is not in the udev record
/// of the disk. If an `ignore` rule does not match because of a missing link, the agent may format the disk.
pub(super) fn links_by_name(dev: &Path) -> BTreeMap<String, Vec<PathBuf>> {
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

/// Returns the kernel name that a path below `/dev` leads to.
///
/// It follows links by their text, so the device node at the end need not exist.
pub(super) fn node_name(dev: &Path, path: &Path) -> Option<String> {
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

/// Removes `..` and `.` from an absolute path, by its text alone.
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
