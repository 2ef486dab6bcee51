//! The claim of a disk: that it is the one that was meant, and that nobody else works on it.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use super::stage::Stage;
use crate::disk::DevNo;
use crate::job::Target;

/// How long another holder of a disk's lock, such as udev at work on it, is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(60);

/// Checks that the node is still the disk that was planned for, and takes the advisory lock on it that keeps udev and
/// workers of a killed agent away (`systemd.io/BLOCK_DEVICE_LOCKING`).
pub(super) fn claim(target: &Target, stage: &mut Stage<'_>) -> Result<File, String> {
    let path = target.path.display();
    let file = open(target)?;
    same_disk(target, &file)?;
    let since = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => {
                // inherited by mkfs, so that one which outlives its worker keeps the next worker away
                let inherited = fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty()));
                inherited.map_err(|e| format!("{path} cannot be kept locked: {e}"))?;
                return Ok(file);
            }
            Err(TryLockError::Error(e)) => return Err(format!("{path} cannot be locked: {e}")),
            Err(TryLockError::WouldBlock) if since.elapsed() < LOCK_PATIENCE => {
                stage.percent("waiting for another program that has locked it", 0, 1);
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(format!(
                    "{path} is locked by another program; find it with 'lslocks' or 'fuser -v {path}'"
                ));
            }
        }
    }
}

pub(super) fn open(target: &Target) -> Result<File, String> {
    File::open(&target.path).map_err(|e| format!("{} cannot be opened: {e}", target.path.display()))
}

pub(super) fn same_disk(target: &Target, mut file: &File) -> Result<(), String> {
    let path = target.path.display();
    let metadata = file.metadata().map_err(|e| format!("{path} is gone: {e}"))?;
    if !metadata.file_type().is_block_device() || DevNo::from_rdev(metadata.rdev()) != Some(target.devno) {
        return Err(format!("{path} is no longer block device {}", target.devno));
    }
    let seq = fs::read_to_string(format!("/sys/dev/block/{}/diskseq", target.devno)).ok();
    let seq = seq.and_then(|text| text.trim().parse::<u64>().ok());
    if target.diskseq.is_some() && seq != target.diskseq {
        let number = |seq: Option<u64>| seq.map_or("unknown".to_owned(), |seq| seq.to_string());
        let (seq, expected) = (number(seq), number(target.diskseq));
        return Err(format!("{path} is another disk now: disk sequence number {seq}, expected {expected}"));
    }
    let size = io::Seek::seek(&mut file, io::SeekFrom::End(0)).map_err(|e| format!("{path} has no size: {e}"))?;
    if size != target.size {
        return Err(format!("{path} is another disk now: {size} bytes, expected {}", target.size));
    }
    Ok(())
}
