//! Replaces the header of a volume, so that at every moment the old one or the new one can be used.
//!
//! LUKS2 keeps two copies of the metadata, each with a checksum, and a program uses an intact one. The areas of keyslots have no second
//! copy: an area that the old header needs is not overwritten before the new header is in place. If the new header wants such an area
//! for another keyslot, it gets there by way of a third header: the new one, with its areas in free places.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use serde_json::{Value, json};

use crate::luks2::{Copies, DATA_OFFSET, HeaderError, KeyslotArea, Luks2Header, PolicyViolation, keyslot_areas};

/// Where areas begin and end: at a page, as libcryptsetup places them.
const PAGE: u64 = 4096;

/// A header that cannot be replaced. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum SwapError {
    /// One of the headers cannot be read.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The new header is invalid.
    #[error(transparent)]
    Areas(#[from] PolicyViolation),
    /// The headers are laid out differently, so one would overwrite the keyslots of the other.
    #[error("the metadata of the two headers differs in size")]
    OtherSize,
    /// There is no free place for the keyslots meanwhile.
    #[error("there is no free place for its keyslots")]
    NoRoom,
    /// Reading or writing failed.
    #[error("cannot replace the header")]
    Io(#[source] io::Error),
}

/// What becomes of the header area outside of the new header and its keyslots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// It stays as it is.
    Kept,
    /// It becomes that of the image: nothing is left of keyslots that the new header does not have.
    Replaced,
}

/// One write, which is flushed before the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) at: u64,
    pub(super) bytes: Vec<u8>,
}

/// Replaces the header of a disk by that at the beginning of `image`, which must have two intact copies.
pub(super) fn replace(disk: &File, image: &File, rest: Rest) -> Result<(), SwapError> {
    for Write { at, bytes } in writes(disk, image, rest)? {
        disk.write_all_at(&bytes, at).and_then(|()| disk.sync_data()).map_err(SwapError::Io)?;
    }
    Ok(())
}

/// Returns the writes that replace the header of a disk, in their order.
pub(super) fn writes(disk: &File, image: &File, rest: Rest) -> Result<Vec<Write>, SwapError> {
    let new = Luks2Header::read_intact(image)?;
    let size = new.size.ok_or(HeaderError::Damaged)?;
    let areas = keyslot_areas(new.metadata.as_ref().unwrap_or(&Value::Null))?;
    let mut writes = Vec::new();
    let old = Luks2Header::read(disk)?.filter(|old| old.intact);
    let primary_first = !Copies::is_intact(Copies::read(disk)?.primary.as_ref());
    if let Some(old) = &old {
        if old.size != new.size {
            return Err(SwapError::OtherSize);
        }
        // those of an invalid header open nothing
        let in_use = keyslot_areas(old.metadata.as_ref().unwrap_or(&Value::Null)).unwrap_or_default();
        if in_the_way(disk, image, &in_use, &areas)? {
            let taken: Vec<_> = in_use.iter().chain(&areas).map(|area| area.bytes.clone()).collect();
            let (moved, places) = moved(&new, &areas, taken)?;
            for (area, at) in areas.iter().zip(places) {
                writes.push(Write { at, bytes: read(image, &area.bytes)? });
            }
            writes.extend(in_order(moved.copies().ok_or(SwapError::NoRoom)?, size, primary_first));
        }
    }
    for area in &areas {
        writes.push(Write { at: area.bytes.start, bytes: read(image, &area.bytes)? });
    }
    let metadata = 2 * size as u64;
    writes.extend(in_order(read(image, &(0..metadata))?, size, primary_first));
    if rest == Rest::Replaced {
        writes.push(Write { at: metadata, bytes: read(image, &(metadata..DATA_OFFSET))? });
    }
    Ok(writes)
}

/// Whether an area of the new header lies where the old one has another.
fn in_the_way(disk: &File, image: &File, old: &[KeyslotArea], new: &[KeyslotArea]) -> Result<bool, SwapError> {
    for area in new {
        let overlaps = |other: &KeyslotArea| area.bytes.start < other.bytes.end && other.bytes.start < area.bytes.end;
        if old.iter().any(overlaps) && read(disk, &area.bytes)? != read(image, &area.bytes)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns the header with its areas in places that are not taken, and these places.
fn moved(
    header: &Luks2Header,
    areas: &[KeyslotArea],
    mut taken: Vec<Range<u64>>,
) -> Result<(Luks2Header, Vec<u64>), SwapError> {
    let mut moved = header.clone();
    let metadata = moved.metadata.as_mut().ok_or(HeaderError::Damaged)?;
    let mut places = Vec::new();
    let first = 2 * header.size.ok_or(HeaderError::Damaged)? as u64;
    for area in areas {
        let length = area.bytes.end - area.bytes.start;
        let candidates = std::iter::once(first).chain(taken.iter().map(|taken| taken.end.next_multiple_of(PAGE)));
        let fits = |at: &u64| {
            let place = *at..*at + length;
            place.end <= DATA_OFFSET && taken.iter().all(|taken| place.end <= taken.start || taken.end <= place.start)
        };
        let at = candidates.filter(fits).min().ok_or(SwapError::NoRoom)?;
        taken.push(at..at + length);
        metadata["keyslots"][area.number.to_string()]["area"]["offset"] = json!(at.to_string());
        places.push(at);
    }
    // the header bounds its areas itself
    keyslot_areas(metadata)?;
    Ok((moved, places))
}

/// Returns the writes of both copies. The one that is damaged, if any, comes first: the other is the only one to be used.
fn in_order(both: Vec<u8>, size: usize, primary_first: bool) -> [Write; 2] {
    let copy = |at: usize| Write { at: at as u64, bytes: both[at..at + size].to_vec() };
    if primary_first { [copy(0), copy(size)] } else { [copy(size), copy(0)] }
}

fn read(file: &File, bytes: &Range<u64>) -> Result<Vec<u8>, SwapError> {
    let length = usize::try_from(bytes.end - bytes.start).map_err(|e| SwapError::Io(io::Error::other(e)))?;
    let mut buffer = vec![0; length];
    file.read_exact_at(&mut buffer, bytes.start).map_err(SwapError::Io)?;
    Ok(buffer)
}
