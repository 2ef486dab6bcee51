//! Shows how a volume is encrypted, by its header, its mapping, and the bytes on the disk.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use uuid::Uuid;

use super::check::{read_checked_header, was_killed};
use super::claim::{self, ClaimError, claim};
use super::error::WorkerError;
use super::probe::path_of;
use super::reader::{ReadError, Reader};
use super::sample::{ALIGN, Part};
use super::stage::Stage;
use crate::disk::{BlankScan, Scan};
use crate::error::{IoError, chain};
use crate::job::{self, Answer, Audited, AuditedMapping, Compared};
use crate::luks2::{Copies, DATA_OFFSET, Layout, forget_cached, reencrypted};
use crate::storage::dm::{self, Crypt};

/// The size of a block in bytes: as large as any encryption sector, and as direct I/O needs it.
const BLOCK: u32 = 4096;
/// How many places to try for each block that is to be compared, before the search for written ones ends.
const TRIES: u32 = 16;
/// How long to compare blocks. A disk that is slower has fewer of them compared.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many blocks at the beginning of a volume to try after that: a file system is written there.
const BEGINNING: u64 = 16;

pub(super) fn audit(job: &job::Audit, stage: &mut Stage<'_>) -> Result<Answer, WorkerError> {
    let job::Audit { target, expected, mapper, blocks } = job;
    // whoever re-encrypts a volume holds the lock for hours
    let disk = if expected.reencrypting { claim::open(target)? } else { claim(target, stage)? };
    claim::check_same_disk(target, &disk)?;
    stage.enter("checking");
    forget_cached(&disk, &(0..DATA_OFFSET));
    let (metadata, header) = match read_checked_header(&disk, expected) {
        // whatever is written over a volume that is not open destroys the first copy, and may leave the second one
        Ok(metadata) if mapper.is_none() && !Copies::is_intact(Copies::read(&disk)?.primary.as_ref()) => {
            let why = "the first copy of its header is damaged, so something else may have been written to the disk";
            (metadata, Some(why.to_owned()))
        }
        Ok(metadata) => (metadata, None),
        Err(e) => (Value::Null, Some(chain(e))),
    };
    let mut crypt = Layout::from_header(&metadata).map(crypt_of);
    let mut mapping = None;
    if let Some(mapper) = mapper {
        // while a volume is being re-encrypted, libcryptsetup stacks mappings, whose tables change
        let (found, violation) = match expected.reencrypting {
            true => (crypt.clone(), None),
            false => {
                let found = dm::crypt(mapper)?;
                let violation = violation(mapper, job, found.as_ref().zip(crypt.as_ref()));
                (found, violation)
            }
        };
        let node = dm::node(mapper)?;
        let is_killed = expected.reencrypting && was_killed(&disk, mapper)?;
        // comparing takes its time, and only reads
        disk.unlock().map_err(IoError::when("unlock", &target.path)).map_err(ClaimError::from)?;
        let compared = match is_killed {
            true => Err("its re-encryption was killed, and its reads wait until it is opened again".to_owned()),
            false => compare(&path_of(&disk), &node, *blocks, stage).map_err(chain),
        };
        mapping = Some(AuditedMapping { is_crypt: found.is_some(), violation, compared });
        crypt = found;
    }
    let reencrypted = expected.reencrypting.then(|| reencrypted(&metadata, target.size).unwrap_or(0));
    Ok(Answer::Audited(Box::new(Audited { header, crypt, mapping, reencrypted })))
}

/// Returns how a mapping differs from its record, or from the header if the layout was not recorded. `both` has what the kernel does and
/// what the header says, if both are known.
fn violation(mapper: &str, job: &job::Audit, both: Option<(&Crypt, &Crypt)>) -> Option<String> {
    let differs = || {
        let (found, header) = both.filter(|(found, header)| found != header)?;
        Some(format!("its mapping encrypts with {found}, and its header says {header}"))
    };
    dm::check(mapper, job.target.devno, job.expected.header).err().map(chain).or_else(differs)
}

fn crypt_of(layout: Layout) -> Crypt {
    let (name, mode) = layout.cipher.parts();
    Crypt { cipher: format!("{name}-{mode}"), key_size: layout.key_size, sector_size: layout.sector_size }
}

/// Compares blocks at random places, as read through the mapping, with the same blocks on the disk.
///
/// A block that is zero on the disk was never written, or was discarded: what the mapping makes of it differs, whatever it does.
fn compare(disk: &Path, mapping: &Path, blocks: u32, stage: &mut Stage<'_>) -> Result<Compared, ReadError> {
    let since = Instant::now();
    // the reader has no limit in time, and each block is reported as progress
    let scan = Scan { how: BlankScan::Full, within: Duration::ZERO };
    let (mut disk, mut mapping) = (Reader::open(disk, scan)?, Reader::open(mapping, scan)?);
    let count = mapping.size.min(disk.size.saturating_sub(DATA_OFFSET)) / u64::from(BLOCK);
    let random = (0..blocks.saturating_mul(TRIES)).map(|_| random_below(count));
    let mut seen = BTreeSet::new();
    let mut compared = Compared { block_size: BLOCK, ..Compared::default() };
    for place in random.chain(0..BEGINNING.min(count)) {
        if compared.blocks == u64::from(blocks) || count == 0 || since.elapsed() > PATIENCE {
            break;
        }
        if !seen.insert(place) {
            continue;
        }
        let raw = block(&mut disk, DATA_OFFSET + place * u64::from(BLOCK))?;
        if raw.iter().all(|byte| *byte == 0) {
            compared.unwritten += 1;
        } else {
            compared.blocks += 1;
            compared.differ += u64::from(raw != block(&mut mapping, place * u64::from(BLOCK))?);
        }
        stage.percent("comparing blocks", compared.blocks, u64::from(blocks));
    }
    Ok(compared)
}

fn block(reader: &mut Reader, at: u64) -> Result<Vec<u8>, ReadError> {
    let mut block = Vec::with_capacity(ALIGN);
    reader.find([Part { at, length: BLOCK.into() }], &mut |_, _| {}, |bytes| {
        block.extend_from_slice(bytes);
        None
    })?;
    Ok(block)
}

/// Returns a random number below `count`, which nobody can foresee; 0 if `count` is.
fn random_below(count: u64) -> u64 {
    let (_, low) = Uuid::new_v4().as_u64_pair();
    // the highest two bits of a UUID's second half are always the same
    (low & (u64::MAX >> 2)).checked_rem(count).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use super::*;

    const BLOCKS: u64 = 256;

    /// Compares a volume of which each block has the bytes that `raw` and `mapped` give it.
    fn compared(raw: impl Fn(u64) -> u8, mapped: impl Fn(u64) -> u8, wanted: u32) -> Compared {
        let dir = tempfile::tempdir().unwrap();
        let (disk, mapping) = (dir.path().join("disk"), dir.path().join("mapping"));
        let write = |path: &Path, offset: u64, byte: &dyn Fn(u64) -> u8| {
            let file = File::create(path).unwrap();
            file.set_len(offset + BLOCKS * u64::from(BLOCK)).unwrap();
            for place in (0..BLOCKS).filter(|place| byte(*place) != 0) {
                file.write_all_at(&[byte(place); ALIGN], offset + place * u64::from(BLOCK)).unwrap();
            }
        };
        write(&disk, DATA_OFFSET, &raw);
        write(&mapping, 0, &mapped);
        let mut stage = Stage { send: &mut |_| Ok(()), last: None, since: Instant::now() };
        compare(&disk, &mapping, wanted, &mut stage).unwrap()
    }

    #[test]
    fn counts_blocks_that_differ_and_leaves_out_those_that_are_zero_on_the_disk() {
        let all = |byte: u8| move |_| byte;
        let full = compared(all(1), all(2), 64);
        assert_eq!((full.blocks, full.differ, full.unwritten, full.block_size), (64, 64, 0, 4096));
        let clear = compared(all(1), all(1), 64);
        assert_eq!((clear.blocks, clear.differ), (64, 0));
        let mixed = compared(|place| u8::from(place % 2 == 0), all(2), 64);
        assert_eq!((mixed.blocks, mixed.differ), (64, 64));
        assert!(mixed.unwritten > 0);
        let half = compared(all(1), |place| if place % 2 == 0 { 1 } else { 2 }, 200);
        assert_eq!(half.blocks, 200);
        assert!((50..150).contains(&half.differ), "{half:?}");
    }

    #[test]
    fn looks_at_the_beginning_of_a_volume_that_is_nearly_empty() {
        let begun = compared(|place| u8::from(place == 3), |_| 2, 4);
        assert_eq!((begun.blocks, begun.differ), (1, 1));
        let empty = compared(|_| 0, |_| 2, 4);
        assert_eq!((empty.blocks, empty.differ), (0, 0));
        assert!(empty.unwritten >= BEGINNING, "{empty:?}");
    }

    #[test]
    fn a_random_place_is_within_the_volume() {
        assert_eq!(random_below(0), 0);
        assert!((0..1000).all(|_| random_below(3) < 3));
    }
}
