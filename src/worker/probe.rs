//! Finds out what is on a disk. Runs in the worker and never writes.
//!
//! A disk counts as blank only on positive evidence: the kernel lets the worker open it exclusively, blkid finds nothing, and
//! everything that the worker reads is zero. A disk that cannot be read is [`Content::Unknown`], never blank.

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
use super::reader::{ReadError, Reader};
use super::sample::{Look, Part};
use super::signatures::{SignatureError, find_signatures, is_luks};
use crate::disk::{Content, Evidence, Scan};
use crate::error::chain;
use crate::luks2::{DATA_OFFSET, HeaderError, Luks2Header, Token};

/// The binary header at the beginning of a LUKS2 header, in bytes (LUKS2 on-disk format, 2.1).
const BINARY_HEADER: u64 = 4096;

/// How much at the start of a disk is read once more when all else was read, in bytes.
const START: u64 = 1 << 20;

/// How long to retry a disk that is in use.
const BUSY_PATIENCE: Duration = Duration::from_secs(3);

/// A disk that cannot be examined.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProbeError {
    /// It could not be opened.
    #[error("it cannot be opened")]
    Open(#[source] io::Error),
    /// Another process or mount holds it.
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
    /// It is a volume of luks-agent, but this release cannot read its token.
    #[error("it has a luks-agent token that this luks-agent cannot read; a newer release may have written it")]
    Token(#[source] serde_json::Error),
}

/// Examines a disk.
///
/// `intent` is the LUKS UUID that the state file recorded before formatting began. Every failure is a [`Content::Unknown`].
pub fn probe(device: &Path, intent: Option<Uuid>, scan: Scan, progress: Progress<'_>) -> Content {
    probe_for(Look::First, device, intent, scan, progress)
}

/// As [`probe`], and reads as much as that look needs.
pub(super) fn probe_for(
    look: Look,
    device: &Path,
    intent: Option<Uuid>,
    scan: Scan,
    progress: Progress<'_>,
) -> Content {
    match examine(look, device, intent, scan, progress) {
        Ok(content) => content,
        Err(error) => Content::Unknown { reason: chain(error) },
    }
}

fn examine(
    look: Look,
    device: &Path,
    intent: Option<Uuid>,
    scan: Scan,
    progress: Progress<'_>,
) -> Result<Content, ProbeError> {
    let file = open_exclusively(device, OpenOptions::new().read(true))?;
    // opened through the descriptor that holds the disk exclusively
    let mut reader = Reader::open(&path_of(&file), scan)?.for_look(look);
    let header = Luks2Header::read(&file);
    // the agent opens a disk with our token in an intact header or leaves it alone, whatever else is on it, so this is enough
    if intent.is_none()
        && let Ok(Some(Luks2Header { luks_uuid, metadata: Some(metadata), intact: true, .. })) = &header
        && let Ok(Some(token)) = Token::find(metadata)
    {
        return Ok(Content::Luks2 { luks_uuid: *luks_uuid, token: Some(Box::new(token)) });
    }
    // blkid reports that a read failed, but not where
    let signatures = find_signatures(&file)
        .map_err(|e| reader.find_unreadable(progress).err().map_or(e.into(), ProbeError::from))?;
    let header = header?;
    if let (Some(header), Some(intended)) = (&header, intent)
        && header.luks_uuid == intended
        && let Some(other) = signatures.iter().find(|name| !is_luks(name))
    {
        // somebody has overwritten our header with something else, and only its second copy is left
        return Ok(Content::Foreign { signatures: vec![other.clone()] });
    }
    let torn = is_torn(header.as_ref(), intent, &signatures, &mut reader)?;
    if let Some(header) = header
        && !torn
        && let Some(content) = describe_volume(header)?
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

/// Returns whether the start of a disk looks like an interrupted format with the intended UUID.
fn is_torn(
    header: Option<&Luks2Header>,
    intent: Option<Uuid>,
    signatures: &[String],
    reader: &mut Reader,
) -> Result<bool, ProbeError> {
    // libcryptsetup zeroes the whole header area before it writes a header, and the first sector of a header has the UUID;
    // so a torn header of our own starts with the intended UUID or with zeros
    Ok(intent.is_some()
        && match header {
            Some(header) => {
                Some(header.luks_uuid) == intent && !header.intact && signatures.iter().all(|name| is_luks(name))
            }
            None => {
                // the scan reads this part again and counts it then
                let read = reader.read;
                let start = Part { at: 0, length: BINARY_HEADER.min(reader.size) };
                let is_zero = reader.first_not_zero([start], &mut |_, _| {})?.is_none();
                reader.read = read;
                signatures.is_empty() && is_zero
            }
        })
}

/// Examines the disk behind a torn header, then the header area itself. Returns `None` if all of it is zero.
fn examine_behind_header(reader: &mut Reader, progress: Progress<'_>) -> Result<Option<Content>, ReadError> {
    if let Some(offset) = reader.first_not_zero(reader.choose_parts(DATA_OFFSET), progress)? {
        return reader.noise_or_data(DATA_OFFSET, offset, progress).map(Some);
    }
    let area = Part { at: 0, length: DATA_OFFSET.min(reader.size) };
    if reader.first_not_zero([area], progress)?.is_some() {
        return Ok(Some(Content::Unfinished));
    }
    Ok(None)
}

/// Examines all of a disk without signatures. Returns `None` if all of it is zero.
fn examine_all(reader: &mut Reader, progress: Progress<'_>) -> Result<Option<Content>, ReadError> {
    if let Some(offset) = reader.first_not_zero(reader.choose_parts(0), progress)? {
        return reader.noise_or_data(0, offset, progress).map(Some);
    }
    // read the place of a header again: the scan takes a while, and if the volume is attached to several instances,
    // another one may have written to it meanwhile
    let read = reader.read;
    let start = Part { at: 0, length: START.min(reader.size) };
    if let Some(offset) = reader.first_not_zero([start], &mut |_, _| {})? {
        return Ok(Some(Content::Unrecognised { offset }));
    }
    reader.read = read;
    Ok(None)
}

/// Reads from the header alone which LUKS2 volume is on a disk. The disk may be in use. Repairs nothing.
///
/// # Errors
/// If the disk cannot be read or this release cannot read its luks-agent token.
pub(super) fn read_volume(file: &File) -> Result<Option<Content>, ProbeError> {
    Luks2Header::read(file)?.map_or(Ok(None), describe_volume)
}

fn describe_volume(header: Luks2Header) -> Result<Option<Content>, ProbeError> {
    let Luks2Header { luks_uuid, metadata: Some(metadata), .. } = header else { return Ok(None) };
    let token = Token::find(&metadata).map_err(ProbeError::Token)?;
    Ok(Some(Content::Luks2 { luks_uuid, token: token.map(Box::new) }))
}

/// Opens a disk exclusively. Retries for a while, because udev's helpers such as mdadm open disks exclusively for a moment.
pub(super) fn open_exclusively(device: &Path, how: &mut OpenOptions) -> Result<File, ProbeError> {
    let since = Instant::now();
    loop {
        match how.custom_flags(O_EXCL).open(device) {
            Ok(file) => return Ok(file),
            Err(e) if e.raw_os_error() != Some(EBUSY) => return Err(ProbeError::Open(e)),
            Err(_) if since.elapsed() < BUSY_PATIENCE => std::thread::sleep(Duration::from_millis(100)),
            Err(_) => return Err(ProbeError::InUse),
        }
    }
}

/// Returns a path that leads to the open file, even if its name now belongs to another one.
pub fn path_of(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}
