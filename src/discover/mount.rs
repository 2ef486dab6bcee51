//! A line of the mount table, and its options.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::error::BackingError;
use crate::disk::DevNo;

/// One line of `/proc/self/mountinfo`.
#[derive(Debug, Clone)]
pub(crate) struct Mount {
    pub(crate) id: u32,
    pub(crate) parent: u32,
    /// Anonymous (major 0) unless the file system is on exactly one block device.
    pub(crate) devno: DevNo,
    /// The mounted directory of the file system.
    pub(crate) root: PathBuf,
    pub(crate) point: PathBuf,
    /// Its peer group: mounts and unmounts below it are repeated below its peers.
    pub(super) peer_group: Option<u32>,
    /// Peer groups, its own included, whose mounts and unmounts are repeated below it.
    pub(super) follows: Vec<u32>,
    pub(super) fs: String,
    pub(crate) source: PathBuf,
    /// The file system's own options, still escaped.
    options: Vec<u8>,
}

impl Mount {
    /// Returns the upper and work directories of an overlay, which the kernel requires on one mount.
    pub(super) fn upper_and_work(&self) -> Option<[PathBuf; 2]> {
        let option = |name: &str| {
            self.options().find(|(key, _)| key == name).map(|(_, value)| PathBuf::from(OsString::from_vec(value)))
        };
        Some([option("upperdir")?, option("workdir")?]).filter(|_| self.fs == "overlay")
    }

    /// Returns whether an overlay is mounted with `volatile`: its writes are not durable, and after a crash it cannot
    /// be mounted again.
    pub(super) fn is_volatile(&self) -> bool {
        self.options.split(|b| *b == b',').any(|option| option == b"volatile")
    }

    /// Returns all directories of an overlay; none for another file system.
    pub(crate) fn layers_if_overlay(&self) -> Vec<PathBuf> {
        if self.fs == "overlay" { self.layers().unwrap_or_default() } else { Vec::new() }
    }

    /// Returns all directories of an overlay.
    pub(super) fn layers(&self) -> Result<Vec<PathBuf>, BackingError> {
        let mut layers = Vec::new();
        for (key, value) in self.options() {
            match key.as_str() {
                "upperdir" | "lowerdir+" | "datadir+" => layers.push(value),
                // `::` comes before data-only layers.
                "lowerdir" => layers.extend(split_layers(&value)),
                _ => {}
            }
        }
        if layers.is_empty() {
            return Err(BackingError::NoLayers { point: self.point.clone() });
        }
        layers
            .into_iter()
            .map(|layer| PathBuf::from(OsString::from_vec(layer)))
            .map(|layer| match layer.is_absolute() {
                true => Ok(layer),
                false => Err(BackingError::RelativeLayer { point: self.point.clone(), layer }),
            })
            .collect()
    }

    pub(super) fn options(&self) -> impl Iterator<Item = (String, Vec<u8>)> {
        // A comma within a value is escaped.
        self.options.split(|b| *b == b',').filter_map(|option| {
            let at = option.iter().position(|b| *b == b'=')?;
            Some((String::from_utf8_lossy(&option[..at]).into_owned(), unescape(&option[at + 1..])))
        })
    }
}

/// Splits `a:b::c`, in which a backslash escapes a colon or backslash.
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

/// Replaces `\040` and other octal escapes by their bytes.
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

/// Parses a line such as `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
/// (proc_pid_mountinfo(5)).
pub(super) fn parse(line: &[u8]) -> Option<Mount> {
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
    use std::path::Path;

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
