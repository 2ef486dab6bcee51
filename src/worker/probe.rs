//! What is on a disk: runs in the worker, reads only.
//!
//! What is read is judged: zeros, noise, or data.
//!
//! A disk counts as blank only on positive evidence: the kernel lets us open it exclusively, blkid finds nothing, and all
//! that is read is zero. Whatever cannot be read is [`Content::Unknown`], never blank.

#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::libc::{EBUSY, O_EXCL};
use uuid::Uuid;

pub use super::reader::Progress;
use super::reader::{CHUNK, ReadError, Reader};
use super::sample::Part;
use super::signatures::{SignatureError, is_luks, signatures};
use crate::disk::{Content, Evidence, Scan};
use crate::error::chain;
use crate::luks2::{DATA_OFFSET, HeaderError, Luks2Header, Token};

/// The binary header at the beginning of a LUKS2 header, in bytes (LUKS2 on-disk format, 2.1).
const BINARY_HEADER: u64 = 4096;

/// How long a disk that is in use is tried again.
const BUSY_PATIENCE: Duration = Duration::from_secs(3);

/// A disk that cannot be examined.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProbeError {
    /// It could not be opened.
    #[error("it cannot be opened")]
    Open(#[source] io::Error),
    /// Somebody else has it open.
    #[error("it is in use: another process, or a mount in another namespace, holds it")]
    InUse,
    /// It could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// blkid could not examine it.
    #[error(transparent)]
    Signatures(#[from] SignatureError),
    /// Its LUKS2 header could not be read.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// It is a volume of the agent's, of which no more is known.
    #[error("it has an invalid luks-agent token")]
    Token(#[source] serde_json::Error),
}

/// Examines a disk. `intent` is the LUKS UUID that the state file says the disk was about to be formatted with.
///
/// Every failure is told as [`Content::Unknown`].
pub fn probe(device: &Path, intent: Option<Uuid>, scan: Scan, progress: Progress<'_>) -> Content {
    match examine(device, intent, scan, progress) {
        Ok(content) => content,
        Err(error) => Content::Unknown { reason: chain(error) },
    }
}

fn examine(device: &Path, intent: Option<Uuid>, scan: Scan, progress: Progress<'_>) -> Result<Content, ProbeError> {
    let file = open_exclusively(device)?;
    // by way of what is held exclusively
    let mut reader = Reader::open(&path_of(&file), scan)?;
    let header = Luks2Header::read(&file);
    // whatever else is there, a disk with our token in an intact header is opened or left alone, and nothing more need be known
    if intent.is_none()
        && let Ok(Some(Luks2Header { luks_uuid, metadata: Some(metadata), intact: true, .. })) = &header
        && let Ok(Some(token)) = Token::find(metadata)
    {
        return Ok(Content::Luks2 { luks_uuid: *luks_uuid, token: Some(Box::new(token)) });
    }
    // blkid says that it could not read, and not where
    let signatures =
        signatures(&file).map_err(|e| reader.unreadable(progress).err().map_or(e.into(), ProbeError::from))?;
    let header = header?;
    if let (Some(header), Some(intended)) = (&header, intent)
        && header.luks_uuid == intended
        && let Some(other) = signatures.iter().find(|name| !is_luks(name))
    {
        // somebody made something else of the disk, and of our header only the second copy is left
        return Ok(Content::Foreign { signatures: vec![other.clone()] });
    }
    let torn = is_torn(header.as_ref(), intent, &signatures, &mut reader)?;
    if let Some(header) = header
        && !torn
        && let Some(content) = volume_of(header)?
    {
        return Ok(content);
    }
    if !signatures.is_empty() && !torn {
        return Ok(Content::Foreign { signatures });
    }
    let found = if torn { examine_behind_header(&mut reader, progress)? } else { examine_all(&mut reader, progress)? };
    let evidence = Evidence { read: reader.read, of: reader.size };
    Ok(found.unwrap_or(Content::Blank { evidence }))
}

/// Whether a disk begins as one whose formatting with the intended UUID was interrupted.
fn is_torn(
    header: Option<&Luks2Header>,
    intent: Option<Uuid>,
    signatures: &[String],
    reader: &mut Reader,
) -> Result<bool, ProbeError> {
    // what a torn header of our own begins with names the UUID that was intended, or there is nothing at all yet
    // a header is written after its whole area was zeroed, and its first sector has the UUID
    Ok(intent.is_some()
        && match header {
            Some(header) => {
                Some(header.luks_uuid) == intent && !header.intact && signatures.iter().all(|name| is_luks(name))
            }
            None => {
                // read once more by the scan, and counted there
                let read = reader.read;
                let start = Part { at: 0, length: BINARY_HEADER.min(reader.size) };
                let is_zero = reader.first_not_zero([start], &mut |_, _| {})?.is_none();
                reader.read = read;
                signatures.is_empty() && is_zero
            }
        })
}

/// What is on a disk behind the area of a torn header, or else in that area; `None` where all is zero.
fn examine_behind_header(reader: &mut Reader, progress: Progress<'_>) -> Result<Option<Content>, ReadError> {
    if let Some(offset) = reader.first_not_zero(reader.ranges(DATA_OFFSET), progress)? {
        return reader.noise_or_data(DATA_OFFSET, offset, progress).map(Some);
    }
    let area = Part { at: 0, length: DATA_OFFSET.min(reader.size) };
    if reader.first_not_zero([area], progress)?.is_some() {
        return Ok(Some(Content::Unfinished));
    }
    Ok(None)
}

/// What is on a disk without signatures; `None` where all is zero.
fn examine_all(reader: &mut Reader, progress: Progress<'_>) -> Result<Option<Content>, ReadError> {
    if let Some(offset) = reader.first_not_zero(reader.ranges(0), progress)? {
        return reader.noise_or_data(0, offset, progress).map(Some);
    }
    // where a header would be, once more: the scan took its time, and on a volume that is attached to several
    // instances another one may have been at work
    let read = reader.read;
    let start = Part { at: 0, length: (CHUNK as u64).min(reader.size) };
    if let Some(offset) = reader.first_not_zero([start], &mut |_, _| {})? {
        return Ok(Some(Content::Unrecognised { offset }));
    }
    reader.read = read;
    Ok(None)
}

/// The LUKS2 volume on a disk, which may be in use, by its header alone; `None` where there is none. Nothing is repaired.
///
/// # Errors
/// When the disk or a token of luks-agent cannot be read.
pub(super) fn volume(file: &File) -> Result<Option<Content>, ProbeError> {
    Luks2Header::read(file)?.map_or(Ok(None), volume_of)
}

fn volume_of(header: Luks2Header) -> Result<Option<Content>, ProbeError> {
    let Luks2Header { luks_uuid, metadata: Some(metadata), .. } = header else { return Ok(None) };
    let token = Token::find(&metadata).map_err(ProbeError::Token)?;
    Ok(Some(Content::Luks2 { luks_uuid, token: token.map(Box::new) }))
}

/// udev's helpers, mdadm among them, may have a disk open exclusively for a moment.
fn open_exclusively(device: &Path) -> Result<File, ProbeError> {
    let since = Instant::now();
    loop {
        match OpenOptions::new().read(true).custom_flags(O_EXCL).open(device) {
            Ok(file) => return Ok(file),
            Err(e) if e.raw_os_error() != Some(EBUSY) => return Err(ProbeError::Open(e)),
            Err(_) if since.elapsed() < BUSY_PATIENCE => std::thread::sleep(Duration::from_millis(100)),
            Err(_) => return Err(ProbeError::InUse),
        }
    }
}

/// A path to what is open here, whoever has its name by now.
pub fn path_of(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}
