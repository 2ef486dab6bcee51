//! Erases a volume: overwrites its header, so that no key opens it any more.
//!
//! The order makes an interrupted run recognisable. The keyslots go first, while the header still names the volume, and the first
//! sector of the disk goes last. From then on the whole header area reads as zeros, so a later run can tell its own work from a disk
//! that somebody has used for something else.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::claim::claim;
use super::erase_error::EraseError;
use super::error::WorkerError;
use super::probe::{open_exclusively, path_of};
use super::reader::Reader;
use super::sample::Part;
use super::signatures::{find_signatures, is_luks};
use super::stage::Stage;
use crate::disk::{BlankScan, Scan};
use crate::error::chain;
use crate::job::{self, Answer, Overwritten};
use crate::luks2::{DATA_OFFSET, HeaderError, Luks2Header};
use crate::storage::cryptsetup::LuksError;

/// The size of the largest write in bytes.
const CHUNK: usize = 1 << 20;
/// The binary header at the beginning of a LUKS2 header, in bytes (LUKS2 on-disk format, 2.1).
const BINARY_HEADER: u64 = 4096;
/// The size of a copy of the metadata that libcryptsetup makes, in bytes. It is used if the header no longer says.
const USUAL_COPY: u64 = 0x4000;

/// Erases a volume. Answers [`Answer::Untouched`] if nothing was overwritten.
pub(super) fn erase(job: &job::Erase, stage: &mut Stage<'_>) -> Result<Answer, WorkerError> {
    let job::Erase { target, luks_uuid, resumes } = job;
    let claimed = match claim(target, stage) {
        Ok(claimed) => claimed,
        Err(e) => return Ok(Answer::Untouched { message: chain(e) }),
    };
    stage.enter("checking the header");
    let begun = open(&claimed, target.size).and_then(|disk| Ok((find_header(&claimed, *luks_uuid, *resumes)?, disk)));
    let (header, disk) = match begun {
        Ok(begun) => begun,
        Err(e) => return Ok(Answer::Untouched { message: chain(e) }),
    };
    let overwritten = match header {
        Some(size) => overwrite(&disk, size, stage)?,
        // an earlier run has overwritten all of it
        None => Vec::new(),
    };
    drop(disk);
    stage.enter("reading back");
    if reader(&claimed)?
        .first_not_zero([part(&(0..DATA_OFFSET))], &mut |done, all| stage.percent("reading back", done, all))?
        .is_some()
    {
        return Err(EraseError::NotWritten(0..DATA_OFFSET).into());
    }
    Ok(Answer::Erased { overwritten })
}

/// Opens the disk for writing, unless something holds it: a mapping, a mount, another program that has opened it like this.
fn open(claimed: &File, size: u64) -> Result<File, WorkerError> {
    if size < DATA_OFFSET {
        return Err(EraseError::TooSmall(size).into());
    }
    Ok(open_exclusively(&path_of(claimed), OpenOptions::new().write(true))?)
}

/// Returns the size of a copy of the metadata if the header of the volume is there, at least its first sector. Returns `None` if an
/// earlier run has overwritten all of it.
fn find_header(disk: &File, luks_uuid: Uuid, resumes: bool) -> Result<Option<u64>, WorkerError> {
    let header = Luks2Header::read(disk)?;
    if let Some(found) = &header
        && found.luks_uuid != luks_uuid
    {
        return Err(LuksError::OtherVolume { expected: luks_uuid, found: found.luks_uuid }.into());
    }
    match header {
        Some(header) if header.intact || !resumes => Ok(Some(header.copy_size().unwrap_or(USUAL_COPY))),
        None if !resumes => Err(HeaderError::Gone.into()),
        header => {
            if let Some(other) = find_signatures(disk)?.iter().find(|name| !is_luks(name)) {
                return Err(EraseError::Reused(other.clone()).into());
            }
            let Some(header) = header else {
                let offset = reader(disk)?.first_not_zero([part(&(0..DATA_OFFSET))], &mut |_, _| {})?;
                let used =
                    |offset| EraseError::Reused(format!("data without a known signature, first seen at byte {offset}"));
                return offset.map_or(Ok(None), |offset| Err(used(offset).into()));
            };
            Ok(Some(header.copy_size().unwrap_or(USUAL_COPY)))
        }
    }
}

/// Overwrites the header area, and returns what was overwritten, in that order.
fn overwrite(disk: &File, copy: u64, stage: &mut Stage<'_>) -> Result<Vec<Overwritten>, WorkerError> {
    let (primary, secondary, keyslots) = (BINARY_HEADER..copy, copy..2 * copy, 2 * copy..DATA_OFFSET);
    stage.enter("overwriting the keyslots");
    // random bytes first: a disk may store zeros without writing them, for example by unmapping the blocks
    let written = write(disk, &keyslots, random, |done, all| stage.percent("overwriting the keyslots", done, all))?;
    let mut read = Sha256::new();
    let reread = |bytes: &[u8]| {
        read.update(bytes);
        None
    };
    reader(disk)?.find([part(&keyslots)], &mut |_, _| {}, reread)?;
    if written != read.finalize().as_slice() {
        return Err(EraseError::NotWritten(keyslots).into());
    }
    write(disk, &keyslots, zeros, |done, all| stage.percent("overwriting the keyslots with zeros", done, all))?;
    stage.enter("overwriting the metadata");
    for part in [&secondary, &primary, &(0..BINARY_HEADER)] {
        write(disk, part, zeros, |_, _| {})?;
    }
    let of = |what: &str, bytes: &Range<u64>, with: &str| Overwritten {
        what: what.to_owned(),
        begin: bytes.start,
        end: bytes.end,
        with: with.to_owned(),
    };
    Ok(vec![
        of("keyslots", &keyslots, "random bytes, then zeros"),
        of("second copy of the metadata", &secondary, "zeros"),
        of("first copy of the metadata", &(0..copy), "zeros"),
    ])
}

/// Overwrites a part of the disk and flushes it. Returns the SHA-256 of what was written.
fn write(
    disk: &File,
    bytes: &Range<u64>,
    fill: fn(&mut [u8]) -> io::Result<()>,
    mut progress: impl FnMut(u64, u64),
) -> Result<Vec<u8>, WorkerError> {
    let failed = |source| EraseError::Write { part: bytes.clone(), source };
    let mut hash = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    let mut at = bytes.start;
    while at < bytes.end {
        let length = usize::try_from(bytes.end - at).map_or(CHUNK, |left| left.min(CHUNK));
        let chunk = &mut buffer[..length];
        fill(chunk).map_err(EraseError::Random)?;
        disk.write_all_at(chunk, at).map_err(failed)?;
        hash.update(&*chunk);
        at += length as u64;
        progress(at - bytes.start, bytes.end - bytes.start);
    }
    // the next part must not reach the disk before this one
    disk.sync_all().map_err(failed)?;
    Ok(hash.finalize().to_vec())
}

fn random(bytes: &mut [u8]) -> io::Result<()> {
    io::Read::read_exact(&mut File::open("/dev/urandom")?, bytes)
}

fn zeros(bytes: &mut [u8]) -> io::Result<()> {
    bytes.fill(0);
    Ok(())
}

/// Returns a reader that bypasses the page cache.
fn reader(disk: &File) -> Result<Reader, WorkerError> {
    let everything = Scan { how: BlankScan::Full, within: Duration::MAX };
    Ok(Reader::open(&path_of(disk), everything)?)
}

fn part(bytes: &Range<u64>) -> Part {
    Part { at: bytes.start, length: bytes.end - bytes.start }
}
