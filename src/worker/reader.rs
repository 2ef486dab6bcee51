//! Reads a disk, bypassing the page cache, and tells zeros, noise and data apart.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::libc::{EINVAL, O_DIRECT};

use super::noise::{self, Counts};
use super::sample::{ALIGN, Part, choose_parts, random_fraction};
use crate::disk::{BlankScan, Bytes, Content, NoiseEvidence, Scan};

/// The size of one read in bytes.
pub(super) const CHUNK: usize = 1 << 20;

/// A disk that could not be read, or not in time.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// It could not be opened.
    #[error("it cannot be opened for reading")]
    Open(#[source] io::Error),
    /// The size of the disk could not be determined.
    #[error("its size is unknown")]
    Size(#[source] io::Error),
    /// A read failed.
    #[error("it cannot be read at byte {at} ({})", Bytes(*.at))]
    Read {
        /// Where.
        at: u64,
        /// Why.
        source: io::Error,
    },
    /// The disk ended before its size.
    #[error("it ended at byte {at}, but its size is {size} bytes")]
    Ended {
        /// Where.
        at: u64,
        /// Its size in bytes.
        size: u64,
    },
    /// The read exceeded its time limit.
    #[error(
        "it is too slow: only {} of {} read in {} s (volumes.deadline); raise volumes.deadline if the disk cannot be faster",
        Bytes(*.read), Bytes(*.total), .within.as_secs()
    )]
    TooSlow {
        /// The time limit.
        within: Duration,
        /// Bytes read until then.
        read: u64,
        /// Bytes to read.
        total: u64,
    },
}

/// A callback that gets the number of bytes read so far and the number of bytes to read.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// A disk that is read with direct I/O, so that the check sees what is on the disk and not what is in the page cache.
pub(super) struct Reader {
    file: File,
    pub(super) size: u64,
    scan: Scan,
    since: Instant,
    /// Bytes read so far.
    pub(super) read: u64,
    buffer: Vec<u8>,
    zeros: Vec<u8>,
    /// The first aligned byte of `buffer`.
    start: usize,
}

impl Reader {
    pub(super) fn open(device: &Path, scan: Scan) -> Result<Self, ReadError> {
        let direct = OpenOptions::new().read(true).custom_flags(O_DIRECT).open(device);
        let file = match direct {
            // plain files in tests may be on a file system without direct I/O
            Err(e) if e.raw_os_error() == Some(EINVAL) => File::open(device),
            other => other,
        };
        let file = file.map_err(ReadError::Open)?;
        let size = io::Seek::seek(&mut &file, io::SeekFrom::End(0)).map_err(ReadError::Size)?;
        let buffer = vec![0; CHUNK + ALIGN];
        let start = buffer.as_ptr().align_offset(ALIGN);
        let since = Instant::now();
        Ok(Self { file, size, scan, since, read: 0, buffer, zeros: vec![0; CHUNK], start })
    }

    pub(super) fn choose_parts(&self, from: u64) -> Vec<Part> {
        choose_parts(from, self.size, self.scan.how, random_fraction())
    }

    /// Reads all parts and fails with the place of the first read error, whatever is on the disk.
    pub(super) fn find_unreadable(&mut self, progress: Progress<'_>) -> Result<(), ReadError> {
        self.find(self.choose_parts(0), progress, |_| None).map(|_| ())
    }

    /// Returns the offset of the first byte that is not zero.
    pub(super) fn first_not_zero(
        &mut self,
        parts: impl IntoIterator<Item = Part>,
        progress: Progress<'_>,
    ) -> Result<Option<u64>, ReadError> {
        let zeros = std::mem::take(&mut self.zeros);
        // comparing the whole slice is many times faster than looking at each byte
        let not_zero = |bytes: &[u8]| match bytes == &zeros[..bytes.len()] {
            true => None,
            false => bytes.iter().position(|b| *b != 0),
        };
        let found = self.find(parts, progress, not_zero);
        self.zeros = zeros;
        found
    }

    /// Tells noise from data: reads every block of the sample again, from byte `from` on.
    pub(super) fn noise_or_data(
        &mut self,
        from: u64,
        offset: u64,
        progress: Progress<'_>,
    ) -> Result<Content, ReadError> {
        self.read = 0;
        let (mut all, mut begins_as_stream) = (Counts::default(), None);
        let zeros = std::mem::take(&mut self.zeros);
        let structured = self.find(self.choose_parts(from), progress, |bytes| {
            begins_as_stream.get_or_insert_with(|| noise::is_stream(bytes));
            let mut is_noise = |block: &[u8]| block == &zeros[..block.len()] || all.add_if_noise(block);
            bytes.chunks(noise::BLOCK).position(|block| !is_noise(block))
        });
        self.zeros = zeros;
        let (read, random) = (self.read, all.total());
        let has_structure = structured?.is_some() || begins_as_stream == Some(true) || !all.is_uniform();
        // some noise among mostly zeros is probably encrypted data that somebody wrote
        if has_structure || random < read / 2 {
            return Ok(Content::Unrecognised { offset });
        }
        Ok(Content::Noise { offset, evidence: NoiseEvidence { read, random, of: self.size } })
    }

    /// Reads until `wanted` finds something, and returns its offset.
    pub(super) fn find(
        &mut self,
        parts: impl IntoIterator<Item = Part>,
        progress: Progress<'_>,
        mut wanted: impl FnMut(&[u8]) -> Option<usize>,
    ) -> Result<Option<u64>, ReadError> {
        let parts: Vec<Part> = parts.into_iter().collect();
        let total = self.read + parts.iter().map(|part| part.length).sum::<u64>();
        for part in parts {
            let mut at = part.at;
            while at < part.end() {
                let want = usize::try_from(part.end() - at).map_or(CHUNK, |left| left.min(CHUNK));
                self.in_time(total)?;
                let buffer = &mut self.buffer[self.start..self.start + want.next_multiple_of(ALIGN)];
                let got = match self.file.read_at(buffer, at) {
                    Ok(got) => got,
                    Err(source) => {
                        let at = self.narrow_down(at, want);
                        return Err(ReadError::Read { at, source });
                    }
                };
                if got == 0 {
                    return Err(ReadError::Ended { at, size: self.size });
                }
                let got = got.min(want);
                if let Some(found) = wanted(&buffer[..got]) {
                    return Ok(Some(at + found as u64));
                }
                at += got as u64;
                self.read += got as u64;
                progress(self.read, total);
            }
        }
        Ok(None)
    }

    /// Fails when the time limit is exceeded, because a slow but steady disk would otherwise take forever. A full scan has no limit.
    fn in_time(&self, total: u64) -> Result<(), ReadError> {
        if self.scan.how == BlankScan::Full || self.since.elapsed() <= self.scan.within {
            return Ok(());
        }
        Err(ReadError::TooSlow { within: self.scan.within, read: self.read, total })
    }

    /// Finds the first page of an unreadable chunk that fails to read.
    fn narrow_down(&mut self, at: u64, length: usize) -> u64 {
        let buffer = &mut self.buffer[self.start..self.start + ALIGN];
        (0..length.div_ceil(ALIGN))
            .map(|page| at + (page * ALIGN) as u64)
            .find(|at| self.file.read_at(buffer, *at).is_err())
            .unwrap_or(at)
    }
}
