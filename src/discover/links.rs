//! Symbolic links below `/dev`, and the disks that they lead to.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// Every symbolic link below `/dev` by the kernel name it leads to, sorted. Other file systems mounted there (`shm`,
/// where anybody may write) are left out, and so are the links by number, which say nothing that sysfs does not.
///
/// It walks through the whole folder, because a rule of the configuration may name a link that udev's record of the disk does not
/// list. An `ignore` rule that matches nothing could cost a disk.
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

/// The kernel name that a path below `/dev` leads to. Links are followed by their text, so the device node at the end
/// need not be there.
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
