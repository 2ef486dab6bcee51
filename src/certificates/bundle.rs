//! The zip file: which files are in it, and their bytes.

use std::fmt;
use std::io::{Cursor, Read};

use zeroize::Zeroizing;
use zip::ZipArchive;
use zip::result::ZipError;

use super::error::BundleError;
use super::member::{CHAIN, KEY, MAX_BUNDLE_BYTES, MAX_FILES, MAX_MEMBER_BYTES, TRUSTED};
use crate::text::escape_controls;

/// How many names of files that EMR does not read are kept.
const MAX_OTHERS: usize = 10;

/// What begins the entry of each file in the directory of a zip file.
const ENTRY: &[u8] = b"PK\x01\x02";

/// The files of a bundle.
///
/// The bytes of all files are overwritten when they are dropped. What the decompressor keeps in its window is not.
pub struct Bundle {
    pub(super) key: Option<Zeroizing<Vec<u8>>>,
    pub(super) chain: Option<Zeroizing<Vec<u8>>>,
    pub(super) trusted: Option<Zeroizing<Vec<u8>>>,
    /// The names of other files.
    pub(super) others: Vec<String>,
}

impl Bundle {
    /// Reads a zip file.
    ///
    /// # Errors
    /// If it is none, if it is encrypted, or if it or a file in it is too large.
    pub fn read(bytes: &[u8]) -> Result<Self, BundleError> {
        if bytes.len() > MAX_BUNDLE_BYTES {
            return Err(BundleError::TooLarge);
        }
        // counted before the archive makes an object of each
        if bytes.windows(ENTRY.len()).filter(|window| *window == ENTRY).count() > MAX_FILES {
            return Err(BundleError::TooManyFiles);
        }
        let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|e| BundleError::NotZip(said(&e)))?;
        if archive.has_duplicate_names() {
            return Err(BundleError::Twice);
        }
        let names = archive.file_names_raw().map(|name| String::from_utf8_lossy(name).into_owned());
        let is_other = |name: &String| ![KEY, CHAIN, TRUSTED].contains(&name.as_str()) && !name.ends_with('/');
        let others = names.filter(is_other).take(MAX_OTHERS).collect();
        Ok(Self {
            key: member(&mut archive, KEY)?,
            chain: member(&mut archive, CHAIN)?,
            trusted: member(&mut archive, TRUSTED)?,
            others,
        })
    }
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = |bytes: &Option<Zeroizing<Vec<u8>>>| bytes.as_ref().map(|bytes| bytes.len());
        f.debug_struct("Bundle")
            .field("key", &self.key.as_ref().map(|_| "..."))
            .field("chain", &length(&self.chain))
            .field("trusted", &length(&self.trusted))
            .field("others", &self.others)
            .finish()
    }
}

/// Decompresses a file, if there is one of that name at the top level.
fn member(
    archive: &mut ZipArchive<Cursor<&[u8]>>,
    name: &'static str,
) -> Result<Option<Zeroizing<Vec<u8>>>, BundleError> {
    let Some(index) = archive.index_for_name(name) else { return Ok(None) };
    let damaged = |e: ZipError| BundleError::Damaged { name, message: said(&e) };
    let entry = archive.by_index_data(index).map_err(damaged)?;
    if entry.encrypted() {
        return Err(BundleError::Encrypted(name));
    }
    if entry.size() > MAX_MEMBER_BYTES as u64 {
        return Err(BundleError::MemberTooLarge { name });
    }
    let file = archive.by_index(index).map_err(damaged)?;
    // the declared size may be a lie; with room for all that is read, no copy is left behind by a larger allocation
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_MEMBER_BYTES + 64));
    file.take(MAX_MEMBER_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(|e| damaged(ZipError::Io(e)))?;
    if bytes.len() > MAX_MEMBER_BYTES {
        return Err(BundleError::MemberTooLarge { name });
    }
    Ok(Some(bytes))
}

/// Returns what the library says, which may quote the file.
fn said(error: &ZipError) -> String {
    let text = error.to_string();
    let end = text.char_indices().nth(200).map_or(text.len(), |(end, _)| end);
    escape_controls(&text[..end]).into_owned()
}
