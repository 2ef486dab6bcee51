//! Volumes that were closed on purpose, so that the daemon does not reopen them.
//!
//! The list is in memory, so a reboot opens all volumes. A disk that was detached and reattached has a new sequence
//! number, and its volume no longer counts as closed.

use std::path::Path;
use std::{fs, io};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::run::{RUN_DIR, read_json, write_json};
use crate::disk::DeviceFacts;

/// A volume that `close` closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    luks_uuid: Uuid,
    /// Kernel name of its disk.
    device: String,
    /// Sequence number that the kernel gave the disk, if it supports them.
    diskseq: Option<u64>,
}

impl Closed {
    /// Records a volume and the disk that it was closed on.
    pub fn new(luks_uuid: Uuid, facts: &DeviceFacts) -> Self {
        Self { luks_uuid, device: facts.name.clone(), diskseq: facts.diskseq }
    }

    /// Returns whether this is the volume that was closed, on a disk that has not been detached since.
    pub fn is(&self, luks_uuid: Uuid, facts: &DeviceFacts) -> bool {
        *self == Self::new(luks_uuid, facts)
    }
}

const FILE: &str = "closed.json";

/// Returns the volumes that stay closed.
pub fn read() -> Vec<Closed> {
    read_in(Path::new(RUN_DIR))
}

fn read_in(dir: &Path) -> Vec<Closed> {
    read_json(dir, FILE).unwrap_or_default()
}

/// Adds volumes to the list.
///
/// The caller must hold the lock on the state directory, so that the next run sees them.
pub fn add(closed: Vec<Closed>) {
    let mut all = read();
    all.retain(|known| !closed.contains(known));
    all.extend(closed);
    keep(&all);
}

/// Empties the list, and returns the empty list.
pub fn forget() -> Vec<Closed> {
    keep(&[]);
    Vec::new()
}

/// Returns the volumes that stay closed, without those whose disk is gone if the kernel gives no sequence numbers.
pub fn read_still_closed() -> Vec<Closed> {
    let mut all = read();
    let before = all.len();
    all.retain(|closed| closed.diskseq.is_some() || Path::new("/sys/block").join(&closed.device).exists());
    if all.len() != before {
        keep(&all);
    }
    all
}

/// Writes the list. A failure is only logged: the daemon then reopens the volumes.
fn keep(all: &[Closed]) {
    if let Err(e) = keep_in(Path::new(RUN_DIR), all) {
        tracing::warn!("cannot record in {RUN_DIR} which volumes were closed, so the daemon may open them again: {e}");
    }
}

fn keep_in(dir: &Path, all: &[Closed]) -> io::Result<()> {
    if all.is_empty() {
        return match fs::remove_file(dir.join(FILE)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        };
    }
    write_json(dir, FILE, all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_closed_until_its_disk_comes_back() {
        let uuid = Uuid::from_u128(1);
        let disk = DeviceFacts { diskseq: Some(7), ..DeviceFacts::sample("nvme1n1", 1) };
        let closed = Closed::new(uuid, &disk);
        assert!(closed.is(uuid, &disk));
        assert!(!closed.is(Uuid::from_u128(2), &disk));
        let back = DeviceFacts { diskseq: Some(8), ..disk };
        assert!(!closed.is(uuid, &back), "the disk was detached and attached again");
    }

    #[test]
    fn what_was_closed_is_kept_and_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("made/as/needed");
        assert_eq!(read_in(&dir), []);
        keep_in(&dir, &[]).unwrap();
        let closed = [Closed::new(Uuid::from_u128(1), &DeviceFacts::sample("nvme1n1", 7))];
        keep_in(&dir, &closed).unwrap();
        assert_eq!(read_in(&dir), closed);
        keep_in(&dir, &[]).unwrap();
        assert_eq!(read_in(&dir), []);
    }
}
