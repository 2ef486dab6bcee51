//! The mount table.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::BackingError;
use super::mount::{Mount, parse};
use super::roots::Roots;
use super::sysfs::read_error;

/// The mount table of a process.
#[derive(Debug)]
pub(crate) struct Mounts {
    all: Vec<Mount>,
    files: PathBuf,
}

impl Mounts {
    /// Reads the mount table of this process.
    pub(crate) fn read(roots: &Roots) -> Result<Self, BackingError> {
        Self::read_of(roots, "self")
    }

    /// Reads the mount table of another process.
    pub(crate) fn read_of(roots: &Roots, process: &str) -> Result<Self, BackingError> {
        let path = roots.proc.join(process).join("mountinfo");
        let bytes = fs::read(&path).map_err(read_error(&path))?;
        let lines = bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        let all = lines
            .map(|line| {
                parse(line).ok_or_else(|| BackingError::InvalidLine {
                    path: path.clone(),
                    line: String::from_utf8_lossy(line).into_owned(),
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { all, files: roots.files.clone() })
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Mount> {
        self.all.iter()
    }

    /// Returns whether unmounting `own` also unmounts `other`, a mount in the table of another namespace, unless it is
    /// in use there.
    ///
    /// That depends on the mounts that they are mounted on.
    pub(crate) fn takes_along(&self, own: &Mount, theirs: &Self, other: &Mount) -> bool {
        let (Some((on, at)), Some((other_on, other_at))) = (self.place(own), theirs.place(other)) else { return false };
        on.peer_group.is_some_and(|group| other_on.follows.contains(&group)) && at == other_at
    }

    /// Returns whether everything mounted at a path is a directory that is bound onto itself: the path would show the same without it.
    pub(crate) fn is_bound_onto_itself(&self, path: &Path) -> bool {
        let is_repeated = |mount: &Mount| {
            self.place(mount).is_some_and(|(on, at)| on.id != mount.id && on.devno == mount.devno && at == mount.root)
        };
        let mut here = self.all.iter().filter(|mount| mount.point == path).peekable();
        here.peek().is_some() && here.all(is_repeated)
    }

    /// Returns the mount that another is mounted on, and the place in its file system.
    fn place(&self, mount: &Mount) -> Option<(&Mount, PathBuf)> {
        let on = self.all.iter().find(|on| on.id == mount.parent)?;
        Some((on, on.root.join(mount.point.strip_prefix(&on.point).ok()?)))
    }

    /// Returns the mount that a path is on, after following its links. The path must exist.
    pub(crate) fn of(&self, path: &Path) -> Result<&Mount, BackingError> {
        let real = self.files.join(path.strip_prefix("/").unwrap_or(path));
        let real_path = fs::canonicalize(&real).map_err(read_error(&real))?;
        let files = fs::canonicalize(&self.files).map_err(read_error(&real))?;
        let below = real_path.strip_prefix(files).map_err(|_| BackingError::Outside { path: real })?;

        // Goes down the tree of mounts as the kernel does, because a later mount above can hide a mount.
        let root = Path::new("/");
        let mut at = self
            .all
            .iter()
            .find(|m| m.point == root && (m.parent == m.id || !self.all.iter().any(|p| p.id == m.parent)))
            .ok_or(BackingError::NoRoot)?;
        let mut prefix = root.to_owned();
        for part in below.components() {
            prefix.push(part);
            while let Some(on) = self.all.iter().rfind(|m| m.parent == at.id && m.id != at.id && m.point == prefix) {
                at = on;
            }
        }
        Ok(at)
    }

    /// Returns the mount that a path will be on once it exists, by following the part that exists now.
    pub(super) fn will_hold(&self, path: &Path) -> Result<&Mount, BackingError> {
        for path in path.ancestors() {
            match fs::symlink_metadata(self.files.join(path.strip_prefix("/").unwrap_or(path))) {
                Ok(_) => return self.of(path),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(read_error(path)(e).into()),
            }
        }
        Err(BackingError::Relative { path: path.to_owned() })
    }
}

/// Returns the sources of the mounts at a path, topmost last.
///
/// # Errors
/// [`BackingError`] if the mount table cannot be read.
pub fn mounted_at(roots: &Roots, path: &Path) -> Result<Vec<PathBuf>, BackingError> {
    let mounts = Mounts::read(roots)?;
    Ok(mounts.iter().filter(|mount| mount.point == path).map(|mount| mount.source.clone()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_bound_onto_itself_is_told_from_one_that_is_mounted_elsewhere() {
        let lines = [
            "1 0 8:1 / / rw - ext4 /dev/sda1 rw",
            "2 1 8:1 /home /home ro - ext4 /dev/sda1 rw",
            "3 1 8:1 /home /srv ro - ext4 /dev/sda1 rw",
            "4 1 252:0 / /mnt rw - xfs /dev/dm-0 rw",
            "5 4 252:0 /var/ssm /mnt/var/ssm rw - xfs /dev/dm-0 rw",
            "6 1 252:0 /var/ssm /var/ssm rw - xfs /dev/dm-0 rw",
        ];
        let all = lines.iter().map(|line| parse(line.as_bytes()).unwrap()).collect();
        let table = Mounts { all, files: "/".into() };
        for (path, is_repeated) in [
            ("/", false),
            ("/home", true),
            ("/srv", false),
            ("/mnt", false),
            ("/mnt/var/ssm", true),
            ("/var/ssm", false),
            ("/nowhere", false),
        ] {
            assert_eq!(table.is_bound_onto_itself(Path::new(path)), is_repeated, "{path}");
        }
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
            // bound to another place, or mounted on something else
            ("11 10 8:1 / / rw master:1", "/srv rw master:9", false),
            ("11 10 0:40 / / rw", "/mnt rw master:9", false),
            ("11 10 8:1 /sub / rw master:1", "/mnt rw master:9", false),
        ] {
            let theirs = table(&[&format!("{on} - ext4 x rw"), &format!("15 11 252:0 / {at} - xfs /dev/dm-0 rw")]);
            let found = ours.takes_along(&volume(&ours), &theirs, &volume(&theirs));
            assert_eq!(found, goes, "{on}, {at}");
        }
    }
}
