//! Reads LUKS2 headers: enough to identify a volume and to copy a header that was checked.
//!
//! libcryptsetup is not used for that. It would repair a damaged copy, but examining a disk must not write. And it shows the header
//! that it has loaded only since 2.4.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Size of the binary header; the JSON area follows it (LUKS2 on-disk format, section 2.1).
const BINARY: usize = 4096;
/// The position of the checksum, large enough for the longest algorithm (section 2.1).
const CHECKSUM: Range<usize> = 448..512;
/// The magic numbers of the two copies (section 2.1).
const PRIMARY: &[u8; 6] = b"LUKS\xba\xbe";
const SECONDARY: &[u8; 6] = b"SKUL\xba\xbe";
/// The possible sizes of a copy, and so the possible offsets of the secondary copy (section 2.2).
const SIZES: [u64; 9] = [0x4000, 0x8000, 0x1_0000, 0x2_0000, 0x4_0000, 0x8_0000, 0x10_0000, 0x20_0000, 0x40_0000];

/// A LUKS2 header that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// Reading a binary header failed.
    #[error("it cannot be read at byte {offset}")]
    Binary {
        /// The offset of the binary header.
        offset: u64,
        /// Why.
        source: io::Error,
    },
    /// Reading a JSON area failed.
    #[error("its LUKS2 metadata cannot be read")]
    Metadata(#[source] io::Error),
    /// No copy of the header has the right checksum.
    #[error("its LUKS2 header is damaged")]
    Damaged,
    /// There is no header.
    #[error("its LUKS2 header is gone")]
    Gone,
}

/// One copy of a header.
#[derive(Clone)]
pub(crate) struct Luks2Header {
    pub(crate) luks_uuid: Uuid,
    /// Counts the changes of the header.
    pub(crate) seqid: u64,
    /// The JSON area, if it is valid JSON.
    pub(crate) metadata: Option<serde_json::Value>,
    /// Whether its checksum is right. libcryptsetup ignores a header with a wrong one.
    pub(crate) intact: bool,
    binary: [u8; BINARY],
    /// The size of binary header and JSON area in bytes, if it is a possible one.
    pub(crate) size: Option<usize>,
}

/// Both copies of a header, as far as they are there.
pub(crate) struct Copies {
    pub(crate) primary: Option<Luks2Header>,
    pub(crate) secondary: Option<Luks2Header>,
}

impl Copies {
    /// Reads both copies.
    ///
    /// # Errors
    /// If the disk cannot be read.
    pub(crate) fn read(file: &File) -> Result<Self, HeaderError> {
        let primary = Luks2Header::read_at(file, 0, PRIMARY)?;
        let offsets = match primary.as_ref().filter(|copy| copy.intact).and_then(|copy| copy.size) {
            Some(size) => vec![size as u64],
            None => SIZES.to_vec(),
        };
        let mut secondary = None;
        for offset in offsets {
            let found = Luks2Header::read_at(file, offset, SECONDARY)?;
            if found.as_ref().is_some_and(|found| found.intact) || secondary.is_none() {
                secondary = found;
            }
        }
        Ok(Self { primary, secondary })
    }

    /// Whether the copy is there and its checksum is right.
    pub(crate) fn is_intact(copy: Option<&Luks2Header>) -> bool {
        copy.is_some_and(|copy| copy.intact)
    }
}

impl Luks2Header {
    /// Reads the primary copy if it is intact, else an intact secondary copy, else a damaged one.
    ///
    /// # Errors
    /// If the disk cannot be read.
    pub(crate) fn read(file: &File) -> Result<Option<Self>, HeaderError> {
        let primary = Self::read_at(file, 0, PRIMARY)?;
        if primary.as_ref().is_some_and(|h| h.intact) {
            return Ok(primary);
        }
        let mut damaged = primary;
        for offset in SIZES {
            let Some(secondary) = Self::read_at(file, offset, SECONDARY)? else { continue };
            let better = match &damaged {
                // a copy with another UUID belongs to a volume that was on the disk before
                Some(found) if found.metadata.is_some() => secondary.intact && secondary.luks_uuid == found.luks_uuid,
                _ => secondary.metadata.is_some(),
            };
            if better {
                damaged = Some(secondary);
            }
        }
        Ok(damaged)
    }

    /// Reads an intact copy, like [`read`](Self::read).
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn read_intact(file: &File) -> Result<Self, HeaderError> {
        match Self::read(file)? {
            Some(header) if header.intact => Ok(header),
            Some(_) => Err(HeaderError::Damaged),
            None => Err(HeaderError::Gone),
        }
    }

    /// Returns both copies as they are stored from byte 0 on.
    ///
    /// Serialises the metadata again, so that every JSON parser reads the same in it. Returns `None` if there is no metadata or it does
    /// not fit.
    pub(crate) fn copies(&self) -> Option<Vec<u8>> {
        let size = self.size?;
        let mut json = self.metadata.as_ref()?.to_string().into_bytes();
        // the JSON ends with a NUL byte (section 3)
        if json.len() >= size - BINARY {
            return None;
        }
        json.resize(size - BINARY, 0);
        // section 2.1: magic 0..6, csum_alg 72..104, hdr_offset 256..264
        let mut binary = self.binary;
        binary[72..104].fill(0);
        binary[72..78].copy_from_slice(b"sha256");
        // a longer checksum may have been here
        binary[CHECKSUM].fill(0);
        let copy = |magic: &[u8], offset: usize| {
            let mut binary = binary;
            binary[..6].copy_from_slice(magic);
            binary[256..264].copy_from_slice(&(offset as u64).to_be_bytes());
            let checksum = checksum(binary, &json);
            binary[CHECKSUM][..32].copy_from_slice(&checksum);
            [&binary[..], &json].concat()
        };
        Some([copy(PRIMARY, 0), copy(SECONDARY, size)].concat())
    }

    /// Returns the size of a copy in bytes, if it is a possible one.
    pub(crate) fn copy_size(&self) -> Option<u64> {
        self.size.map(|size| size as u64)
    }

    fn read_at(file: &File, offset: u64, magic: &[u8]) -> Result<Option<Self>, HeaderError> {
        let mut header = [0; BINARY];
        match file.read_exact_at(&mut header, offset) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(source) => return Err(HeaderError::Binary { offset, source }),
        }
        // binary header, section 2.1: magic 0..6, version 6..8, hdr_size 8..16, seqid 16..24, uuid 168..208
        let uuid = std::str::from_utf8(&header[168..208]).ok().map(|text| text.trim_end_matches('\0'));
        let uuid = uuid.and_then(|text| Uuid::parse_str(text).ok());
        let (Some(luks_uuid), true, [0, 2]) = (uuid, header.starts_with(magic), &header[6..8]) else {
            return Ok(None);
        };
        let size = u64::from_be_bytes(header[8..16].try_into().expect("8 bytes"));
        let size = if SIZES.contains(&size) { usize::try_from(size).ok() } else { None };
        let (metadata, intact) = match size {
            Some(size) => {
                let mut json = vec![0; size - BINARY];
                let read = file.read_exact_at(&mut json, offset + BINARY as u64);
                read.map_err(HeaderError::Metadata)?;
                let end = json.iter().position(|b| *b == 0).unwrap_or(json.len());
                let metadata: Option<serde_json::Value> = serde_json::from_slice(&json[..end]).ok();
                let intact = metadata.is_some() && has_its_checksum(header, &json);
                (metadata, intact)
            }
            None => (None, false),
        };
        let seqid = u64::from_be_bytes(header[16..24].try_into().expect("8 bytes"));
        Ok(Some(Self { luks_uuid, seqid, metadata, intact, binary: header, size }))
    }
}

/// Returns whether the checksum is right. `csum_alg` at 72..104 names its algorithm (section 2.1); an unknown algorithm counts as right.
fn has_its_checksum(header: [u8; BINARY], json: &[u8]) -> bool {
    if header[72..104].strip_prefix(b"sha256").is_none_or(|rest| rest.iter().any(|b| *b != 0)) {
        return true;
    }
    header[CHECKSUM][..32] == checksum(header, json)
}

/// Computes the checksum of binary header and JSON area, with zeros in place of `csum` (section 2.1).
fn checksum(mut header: [u8; BINARY], json: &[u8]) -> [u8; 32] {
    header[CHECKSUM].fill(0);
    Sha256::new().chain_update(header).chain_update(json).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_that_cannot_be_read_is_not_no_header() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        File::create(&path).unwrap().set_len(512).unwrap();
        assert!(matches!(Luks2Header::read(&File::open(&path).unwrap()), Ok(None)), "shorter than a header");
        assert!(Luks2Header::read(&File::open(dir.path()).unwrap()).is_err(), "a directory cannot be read");
    }

    /// Returns a copy of a header of 16 KiB.
    fn copy(magic: &[u8], luks_uuid: Uuid, json: &[u8], intact: bool) -> Vec<u8> {
        let mut bytes = vec![0; 0x4000];
        bytes[..6].copy_from_slice(magic);
        bytes[6..8].copy_from_slice(&[0, 2]);
        bytes[8..16].copy_from_slice(&0x4000_u64.to_be_bytes());
        bytes[72..78].copy_from_slice(b"sha256");
        bytes[168..204].copy_from_slice(luks_uuid.to_string().as_bytes());
        bytes[BINARY..BINARY + json.len()].copy_from_slice(json);
        let checksum = Sha256::digest(&bytes);
        bytes[448..480].copy_from_slice(&checksum);
        bytes[448] ^= u8::from(!intact);
        bytes
    }

    #[test]
    fn the_copy_that_is_intact_counts_unless_it_is_of_another_volume() {
        let (ours, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let dir = tempfile::tempdir().unwrap();
        // primary: JSON, intact; secondary: UUID, intact; which is found: UUID, by its JSON, intact
        let table = [
            (b"1", true, ours, true, ours, 1, true),
            (b"1", true, ours, false, ours, 1, true),
            (b"1", false, ours, true, ours, 2, true),
            (b"1", false, ours, false, ours, 1, false),
            (b"1", false, other, true, ours, 1, false),
            (b"{", true, ours, false, ours, 2, false),
            (b"{", false, other, true, other, 2, true),
        ];
        for (number, (json, whole, second, second_whole, luks_uuid, metadata, intact)) in table.into_iter().enumerate()
        {
            let path = dir.path().join(number.to_string());
            let primary = copy(b"LUKS\xba\xbe", ours, json, whole);
            let secondary = copy(b"SKUL\xba\xbe", second, b"2", second_whole);
            std::fs::write(&path, [primary, secondary].concat()).unwrap();
            let found = Luks2Header::read(&File::open(&path).unwrap()).unwrap().unwrap();
            let metadata = Some(metadata.into());
            assert_eq!((found.luks_uuid, found.metadata, found.intact), (luks_uuid, metadata, intact), "row {number}");
            let used = Luks2Header::read_intact(&File::open(&path).unwrap());
            assert_eq!(used.is_ok(), intact, "row {number}");
        }
    }

    #[test]
    fn what_is_handed_on_is_what_was_read_written_anew_in_both_copies() {
        let luks_uuid = Uuid::from_u128(1);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        // of the secondary copy as well as of the primary
        for (primary, twice) in [(true, r#"{"a": 1, "a":2}"#), (false, r#" {"a" : 2 } "#)] {
            let primary = copy(PRIMARY, luks_uuid, twice.as_bytes(), primary);
            std::fs::write(&path, [primary, copy(SECONDARY, luks_uuid, twice.as_bytes(), true)].concat()).unwrap();
            let mut header = Luks2Header::read(&File::open(&path).unwrap()).unwrap().unwrap();
            let both = header.copies().unwrap();
            assert_eq!(both.len(), 0x8000);
            std::fs::write(&path, &both).unwrap();
            let file = File::open(&path).unwrap();
            for (offset, magic) in [(0, PRIMARY), (0x4000, SECONDARY)] {
                let found = Luks2Header::read_at(&file, offset, magic).unwrap().unwrap();
                assert!(found.intact);
                assert_eq!((found.luks_uuid, &found.metadata), (luks_uuid, &header.metadata));
                assert_eq!(found.binary[256..264], offset.to_be_bytes());
                assert!(both[usize::try_from(offset).unwrap() + BINARY..].starts_with(b"{\"a\":2}\0"));
            }
            header.metadata = Some("x".repeat(0x3000 - 2).into());
            assert!(header.copies().is_none(), "no room for the NUL");
        }
    }
}
