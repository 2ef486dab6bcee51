//! Claims a disk: makes sure that it is the planned one and that nobody else works on it.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use super::stage::Stage;
use crate::disk::DevNo;
use crate::error::IoError;
use crate::job::Target;

/// How long to wait for another holder of a disk's lock, such as udev.
const LOCK_PATIENCE: Duration = Duration::from_secs(60);

/// A disk that cannot be claimed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClaimError {
    /// A system call failed.
    #[error(transparent)]
    Io(#[from] IoError),
    /// Another program has locked it.
    #[error("another program has locked {path}; find it with 'lslocks' or 'fuser -v {path}'")]
    Locked {
        /// Its node.
        path: PathBuf,
    },
    /// Its node now belongs to another device.
    #[error("{path} is no longer block device {devno}")]
    OtherDevice {
        /// Its node.
        path: PathBuf,
        /// The number of the planned device.
        devno: DevNo,
    },
    /// Its device number now belongs to another disk.
    #[error("{path} is now a different disk: disk sequence number {}, expected {}", number(*.found), number(*.expected))]
    OtherDisk {
        /// Its node.
        path: PathBuf,
        /// The kernel's sequence number of the disk.
        found: Option<u64>,
        /// The sequence number of the planned disk.
        expected: Option<u64>,
    },
    /// Its size has changed.
    #[error("{path} is now a different disk: {found} bytes, expected {expected}")]
    OtherSize {
        /// Its node.
        path: PathBuf,
        /// Size in bytes.
        found: u64,
        /// The size of the planned disk in bytes.
        expected: u64,
    },
}

fn number(sequence: Option<u64>) -> String {
    sequence.map_or("unknown".to_owned(), |number| number.to_string())
}

/// Checks that the node is still the planned disk, and locks it.
///
/// The advisory lock keeps udev and the workers of a killed agent away (`systemd.io/BLOCK_DEVICE_LOCKING`).
pub(super) fn claim(target: &Target, stage: &mut Stage<'_>) -> Result<File, ClaimError> {
    let path = &target.path;
    let file = open(target)?;
    check_same_disk(target, &file)?;
    let since = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => {
                // mkfs inherits the lock, so a mkfs that outlives its worker keeps the next worker away
                let inherited = fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty()));
                inherited.map_err(|e| IoError::when("keep locked", path)(e.into()))?;
                return Ok(file);
            }
            Err(TryLockError::Error(e)) => return Err(IoError::when("lock", path)(e).into()),
            Err(TryLockError::WouldBlock) if since.elapsed() < LOCK_PATIENCE => {
                stage.percent("waiting for another program that has locked it", 0, 1);
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(ClaimError::Locked { path: path.clone() });
            }
        }
    }
}

pub(super) fn open(target: &Target) -> Result<File, ClaimError> {
    Ok(File::open(&target.path).map_err(IoError::when("open", &target.path))?)
}

pub(super) fn check_same_disk(target: &Target, mut file: &File) -> Result<(), ClaimError> {
    let path = &target.path;
    let metadata = file.metadata().map_err(IoError::when("examine", path))?;
    if !metadata.file_type().is_block_device() || DevNo::from_rdev(metadata.rdev()) != Some(target.devno) {
        return Err(ClaimError::OtherDevice { path: path.clone(), devno: target.devno });
    }
    let seq = fs::read_to_string(format!("/sys/dev/block/{}/diskseq", target.devno)).ok();
    let seq = seq.and_then(|text| text.trim().parse::<u64>().ok());
    if target.diskseq.is_some() && seq != target.diskseq {
        return Err(ClaimError::OtherDisk { path: path.clone(), found: seq, expected: target.diskseq });
    }
    let size = io::Seek::seek(&mut file, io::SeekFrom::End(0)).map_err(IoError::when("find the size of", path))?;
    if size != target.size {
        return Err(ClaimError::OtherSize { path: path.clone(), found: size, expected: target.size });
    }
    Ok(())
}
