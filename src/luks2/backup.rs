//! The file of a header backup: the header area as `cryptsetup luksHeaderBackup` writes it, and a note about it behind.
//!
//! `cryptsetup luksHeaderRestore` reads the area alone, and so accepts the file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::facts::HeaderFacts;
use super::header::HeaderError;
use super::keyslot::ProvenKeyslot;
use super::layout::DATA_OFFSET;
use crate::digest::sha256_hex;

/// The line between the area and the note.
const MAGIC: &[u8] = b"luks-agent header backup\n";
/// The format that this release writes and reads.
const VERSION: u32 = 1;
/// No note is longer.
const NOTE_BYTES: usize = 64 << 10;

/// What a backup says about the volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupNote {
    /// Format of this note.
    pub version: u32,
    /// LUKS UUID.
    pub luks_uuid: Uuid,
    /// Where the volume was.
    #[serde(flatten)]
    pub origin: BackupOrigin,
    /// Size of its disk in bytes.
    pub disk_size: u64,
    /// Sequence id of the header.
    pub seqid: u64,
    /// The keyslots, with the SHA-256 of their areas.
    pub keyslots: Vec<ProvenKeyslot>,
    /// SHA-256 of all bytes before the line with which the note begins, in hex.
    pub sha256: String,
}

/// What the agent knows of a volume whose header is backed up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupOrigin {
    /// Serial number of the disk.
    pub serial: Option<String>,
    /// Role of the volume.
    pub role: String,
    /// Where it is mounted.
    pub mount_point: Option<PathBuf>,
    /// The instance that wrote the backup.
    pub instance_id: Option<String>,
    /// When it was written.
    pub created: Timestamp,
}

/// A file that is not a usable backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It cannot be read.
    #[error("cannot read the backup")]
    Read(#[source] io::Error),
    /// Another kind of file.
    #[error(
        "it is not a header backup of luks-agent, or it is incomplete; 'cryptsetup luksHeaderRestore' restores one of cryptsetup"
    )]
    Other,
    /// A later release wrote it.
    #[error("a later luks-agent wrote it (format {0}, this one reads {VERSION}); use that release")]
    Later(u64),
    /// It has changed since it was written.
    #[error("the backup is damaged: {0}; use another one")]
    Damaged(String),
    /// Its header cannot be read.
    #[error("the backup is damaged")]
    Header(#[from] HeaderError),
}

/// Returns the note about a header area, with the line before it. `area` is at the beginning of `file`.
///
/// # Errors
/// If it has no header with two intact copies.
pub(crate) fn note_about(file: &File, origin: BackupOrigin, disk_size: u64) -> Result<Vec<u8>, BackupError> {
    let area = read_area(file)?;
    let header = HeaderFacts::read(file)?.ok_or(HeaderError::Gone)?;
    if !(header.primary_intact && header.secondary_intact) {
        return Err(HeaderError::Damaged.into());
    }
    let note = BackupNote {
        version: VERSION,
        luks_uuid: header.luks_uuid,
        origin,
        disk_size,
        seqid: header.seqid,
        keyslots: proven(&header),
        sha256: sha256_hex(&[&area]),
    };
    let mut text = MAGIC.to_vec();
    let json = serde_json::to_vec_pretty(&note).map_err(|e| BackupError::Read(e.into()))?;
    text.extend(json);
    text.push(b'\n');
    Ok(text)
}

/// Reads a backup, and checks that it is as it was written.
///
/// # Errors
/// Names what is wrong with it.
pub(crate) fn read_backup(file: &File) -> Result<(BackupNote, HeaderFacts), BackupError> {
    let area = read_area(file)?;
    let text = read_note(file)?;
    let json = text.strip_prefix(MAGIC).ok_or(BackupError::Other)?;
    let damaged = |why: &str| BackupError::Damaged(why.to_owned());
    let value: serde_json::Value = serde_json::from_slice(json).map_err(|_| damaged("its note is not JSON"))?;
    match value.get("version").and_then(serde_json::Value::as_u64) {
        Some(version) if version > u64::from(VERSION) => return Err(BackupError::Later(version)),
        Some(version) if version == u64::from(VERSION) => {}
        _ => return Err(damaged("its note has no format")),
    }
    let note = BackupNote::deserialize(value).map_err(|e| BackupError::Damaged(e.to_string()))?;
    if note.sha256 != sha256_hex(&[&area]) {
        return Err(damaged("its checksum does not match"));
    }
    let header = HeaderFacts::read(file)?.ok_or(HeaderError::Gone)?;
    if !(header.primary_intact && header.secondary_intact) {
        return Err(HeaderError::Damaged.into());
    }
    let said = (note.luks_uuid, note.seqid, note.keyslots.as_slice());
    if said != (header.luks_uuid, header.seqid, proven(&header).as_slice()) {
        return Err(damaged("its note is not about its header"));
    }
    Ok((note, header))
}

fn read_area(file: &File) -> Result<Vec<u8>, BackupError> {
    let mut area = vec![0; usize::try_from(DATA_OFFSET).map_err(|e| BackupError::Read(io::Error::other(e)))?];
    match file.read_exact_at(&mut area, 0) {
        Ok(()) => Ok(area),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Err(BackupError::Other),
        Err(e) => Err(BackupError::Read(e)),
    }
}

fn read_note(file: &File) -> Result<Vec<u8>, BackupError> {
    let mut text = vec![0; NOTE_BYTES];
    let mut length = 0;
    while length < text.len() {
        match file.read_at(&mut text[length..], DATA_OFFSET + length as u64).map_err(BackupError::Read)? {
            0 => break,
            read => length += read,
        }
    }
    text.truncate(length);
    Ok(text)
}

fn proven(header: &HeaderFacts) -> Vec<ProvenKeyslot> {
    let keyslot = |keyslot: &super::facts::KeyslotFacts| {
        Some(ProvenKeyslot { number: keyslot.number, sha256: keyslot.sha256.clone()? })
    };
    header.keyslots.iter().filter_map(keyslot).collect()
}
