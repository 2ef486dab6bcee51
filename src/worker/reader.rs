//! Reads a disk, bypassing the page cache, and tells zeros, noise and data apart.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, Builder};
use std::time::{Duration, Instant};

use nix::libc::{EINVAL, O_DIRECT};

use super::noise::{self, Counts};
use super::sample::{ALIGN, Look, Part, choose_parts, random_fraction};
use crate::disk::{BlankScan, Bytes, Content, NoiseEvidence, Scan};

/// The size of the largest read in bytes.
const CHUNK: usize = 1 << 20;
/// How many reads are in flight. EBS answers after about a millisecond, so that these are more than a gp3 volume's 3,000 in a second.
const IN_FLIGHT: usize = 4;
/// The stack of a thread that reads, in bytes. It is locked in memory.
const STACK: usize = 64 << 10;

/// How often a search reports its progress and checks its time limit.
const TICK: Duration = Duration::from_millis(50);

/// The size of the pieces that are compared, in bytes.
const PAGE: usize = 4096;
/// Zeros to compare with. One page, so that they stay in the L1 cache.
static ZEROS: [u8; PAGE] = [0; PAGE];
const _: () = assert!(noise::BLOCK <= PAGE);

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
    /// The system did not start a thread.
    #[error("it cannot be read: no thread could be started")]
    Thread(#[source] io::Error),
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
    look: Look,
    since: Instant,
    /// Bytes read so far.
    pub(super) read: u64,
    buffer: Vec<u8>,
}

/// What came of reading a piece of the disk.
struct Piece {
    at: u64,
    /// How many bytes were read.
    read: u64,
    /// Where `wanted` found something, or why the piece cannot be read.
    outcome: Result<Option<u64>, ReadError>,
}

/// A search that several threads share.
struct Search<I> {
    /// What is yet to be read.
    pieces: Mutex<I>,
    /// Bytes read so far.
    read: AtomicU64,
    /// The first piece on the disk in which something was found, or that cannot be read.
    first: Mutex<Option<Piece>>,
    is_over: AtomicBool,
}

impl<I: Iterator<Item = Part>> Search<I> {
    fn of(pieces: I, read: u64) -> Self {
        let (pieces, read) = (Mutex::new(pieces), AtomicU64::new(read));
        Self { pieces, read, first: Mutex::default(), is_over: AtomicBool::new(false) }
    }

    /// Reads one piece after the other until the search is over.
    fn read_pieces(&self, file: &File, size: u64, wanted: &impl Fn(&[u8]) -> Option<usize>) {
        let mut buffer = buffer();
        while !self.is_over.load(Ordering::Relaxed) {
            let Some(part) = unpoisoned(&self.pieces).next() else { break };
            let piece = read_piece(file, size, part, &mut buffer, &mut &wanted);
            self.read.fetch_add(piece.read, Ordering::Relaxed);
            if !matches!(piece.outcome, Ok(None)) {
                self.is_over.store(true, Ordering::Relaxed);
                let mut first = unpoisoned(&self.first);
                if first.as_ref().is_none_or(|first| piece.at < first.at) {
                    *first = Some(piece);
                }
            }
        }
    }
}

impl Reader {
    /// Opens a disk for the first look at it.
    pub(super) fn open(device: &Path, scan: Scan) -> Result<Self, ReadError> {
        let direct = OpenOptions::new().read(true).custom_flags(O_DIRECT).open(device);
        let file = match direct {
            // plain files in tests may be on a file system without direct I/O
            Err(e) if e.raw_os_error() == Some(EINVAL) => File::open(device),
            other => other,
        }
        .map_err(ReadError::Open)?;
        let size = io::Seek::seek(&mut &file, io::SeekFrom::End(0)).map_err(ReadError::Size)?;
        Ok(Self { file, size, scan, look: Look::First, since: Instant::now(), read: 0, buffer: buffer() })
    }

    /// Chooses the parts of another look.
    pub(super) fn for_look(self, look: Look) -> Self {
        Self { look, ..self }
    }

    pub(super) fn choose_parts(&self, from: u64) -> Vec<Part> {
        choose_parts(from, self.size, self.scan.how, self.look, random_fraction())
    }

    /// Reads all parts and fails with the place of the first read error, whatever is on the disk.
    pub(super) fn find_unreadable(&mut self, progress: Progress<'_>) -> Result<(), ReadError> {
        self.search(self.choose_parts(0), progress, |_| None).map(|_| ())
    }

    /// Returns the offset of the first byte that is not zero.
    pub(super) fn first_not_zero(
        &mut self,
        parts: impl IntoIterator<Item = Part>,
        progress: Progress<'_>,
    ) -> Result<Option<u64>, ReadError> {
        // comparing slices is many times faster than looking at each byte
        let is_zero = |page: &[u8]| page == &ZEROS[..page.len()];
        self.search(parts, progress, |bytes| match bytes.chunks(PAGE).all(is_zero) {
            true => None,
            false => bytes.iter().position(|b| *b != 0),
        })
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
        let structured = self.find(self.choose_parts(from), progress, |bytes| {
            begins_as_stream.get_or_insert_with(|| noise::is_stream(bytes));
            let mut is_noise = |block: &[u8]| block == &ZEROS[..block.len()] || all.add_if_noise(block);
            bytes.chunks(noise::BLOCK).position(|block| !is_noise(block))
        })?;
        let (read, random) = (self.read, all.total());
        let has_structure = structured.is_some() || begins_as_stream == Some(true) || !all.is_uniform();
        // some noise among mostly zeros is probably encrypted data that somebody wrote
        if has_structure || random < read / 2 {
            return Ok(Content::Unrecognised { offset });
        }
        Ok(Content::Noise { offset, evidence: NoiseEvidence { read, random, of: self.size } })
    }

    /// Reads one piece after the other until `wanted` finds something, and returns its offset.
    pub(super) fn find(
        &mut self,
        parts: impl IntoIterator<Item = Part>,
        progress: Progress<'_>,
        mut wanted: impl FnMut(&[u8]) -> Option<usize>,
    ) -> Result<Option<u64>, ReadError> {
        let parts: Vec<Part> = parts.into_iter().collect();
        let total = self.read + length_of(&parts);
        for part in parts.into_iter().flat_map(|part| part.pieces(CHUNK)) {
            self.check_time(self.read, total)?;
            let piece = read_piece(&self.file, self.size, part, &mut self.buffer, &mut wanted);
            self.read += piece.read;
            if let Some(found) = piece.outcome? {
                return Ok(Some(found));
            }
            progress(self.read, total);
        }
        Ok(None)
    }

    /// As [`Reader::find`], with several reads in flight. Of several places, the first on the disk counts, whether `wanted` found something
    /// there or it cannot be read.
    fn search(
        &mut self,
        parts: impl IntoIterator<Item = Part>,
        progress: Progress<'_>,
        wanted: impl Fn(&[u8]) -> Option<usize> + Sync,
    ) -> Result<Option<u64>, ReadError> {
        let parts: Vec<Part> = parts.into_iter().collect();
        let length = length_of(&parts);
        if length <= CHUNK as u64 {
            return self.find(parts, progress, wanted);
        }
        let total = self.read + length;
        self.check_time(self.read, total)?;
        // a full look at a large disk has millions of pieces
        let search = Search::of(parts.into_iter().flat_map(|part| part.pieces(CHUNK)), self.read);
        let in_time = thread::scope(|scope| {
            // each thread owns a sender; when all are dropped, the receiver learns that all threads have ended
            let (running, ended) = channel::<()>();
            for started in 0..IN_FLIGHT {
                let (running, search, reader, wanted) = (running.clone(), &search, &*self, &wanted);
                let thread = Builder::new().stack_size(STACK).spawn_scoped(scope, move || {
                    search.read_pieces(&reader.file, reader.size, wanted);
                    drop(running);
                });
                match thread {
                    Ok(_) => {}
                    Err(e) if started == 0 => return Err(ReadError::Thread(e)),
                    Err(_) => break,
                }
            }
            drop(running);
            self.follow(&search, &ended, progress, total)
        });
        self.read = search.read.into_inner();
        if let Some(piece) = search.first.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return piece.outcome;
        }
        in_time?;
        // that nothing was found is evidence only if everything was read
        if self.read != total {
            return Err(ReadError::Ended { at: self.read, size: self.size });
        }
        Ok(None)
    }

    /// Reports the progress of a search until its threads have `ended`. Fails when the time limit is exceeded.
    fn follow<I>(
        &self,
        search: &Search<I>,
        ended: &Receiver<()>,
        progress: Progress<'_>,
        total: u64,
    ) -> Result<(), ReadError> {
        let mut told = self.read;
        loop {
            let read = search.read.load(Ordering::Relaxed);
            // only of what was read: a disk that hangs makes no progress
            if read != told {
                told = read;
                progress(read, total);
            }
            if read < total
                && !search.is_over.load(Ordering::Relaxed)
                && let Err(e) = self.check_time(read, total)
            {
                search.is_over.store(true, Ordering::Relaxed);
                return Err(e);
            }
            if ended.recv_timeout(TICK) != Err(RecvTimeoutError::Timeout) {
                return Ok(());
            }
        }
    }

    /// Fails when the time limit is exceeded, because a slow but steady disk would otherwise take forever. A full scan has no limit.
    fn check_time(&self, read: u64, total: u64) -> Result<(), ReadError> {
        if self.scan.how == BlankScan::Full || self.since.elapsed() <= self.scan.within {
            return Ok(());
        }
        Err(ReadError::TooSlow { within: self.scan.within, read, total })
    }
}

/// Returns a buffer that has room for an aligned piece.
fn buffer() -> Vec<u8> {
    vec![0; CHUNK + ALIGN]
}

/// Ignores poisoning: if a thread panics, the scope panics, and nothing is concluded from what it left.
fn unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn length_of(parts: &[Part]) -> u64 {
    parts.iter().map(|part| part.length).sum()
}

/// Reads a piece of at most [`CHUNK`] bytes.
fn read_piece(
    file: &File,
    size: u64,
    part: Part,
    buffer: &mut [u8],
    wanted: &mut impl FnMut(&[u8]) -> Option<usize>,
) -> Piece {
    let start = buffer.as_ptr().align_offset(ALIGN);
    let mut at = part.at;
    let mut outcome = Ok(None);
    while at < part.end() && matches!(outcome, Ok(None)) {
        let want = usize::try_from(part.end() - at).map_or(CHUNK, |left| left.min(CHUNK));
        let buffer = &mut buffer[start..start + want.next_multiple_of(ALIGN)];
        outcome = match file.read_at(buffer, at) {
            Ok(0) => Err(ReadError::Ended { at, size }),
            Ok(got) => {
                let got = got.min(want);
                let found = wanted(&buffer[..got]).map(|found| at + found as u64);
                at += got as u64;
                Ok(found)
            }
            Err(source) => Err(ReadError::Read { at: narrow_down(file, at, want, &mut buffer[..ALIGN]), source }),
        };
    }
    Piece { at: part.at, read: at - part.at, outcome }
}

/// Finds the first page of an unreadable piece that fails to read.
fn narrow_down(file: &File, at: u64, length: usize, page: &mut [u8]) -> u64 {
    (0..length.div_ceil(ALIGN))
        .map(|number| at + (number * ALIGN) as u64)
        .find(|at| file.read_at(page, *at).is_err())
        .unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches a file of zeros whose pieces take a while.
    fn search_slowly(how: BlankScan) -> (Result<Option<u64>, ReadError>, Vec<u64>) {
        let disk = tempfile::NamedTempFile::new().unwrap();
        disk.as_file().set_len(40 << 20).unwrap();
        let mut reader = Reader::open(disk.path(), Scan { how, within: Duration::from_millis(60) }).unwrap();
        let mut told = Vec::new();
        let parts = [Part { at: 0, length: 40 << 20 }];
        let found = reader.search(parts, &mut |read, _| told.push(read), |_| {
            thread::sleep(Duration::from_millis(20));
            None
        });
        (found, told)
    }

    #[test]
    fn a_search_ends_when_its_time_is_over_and_tells_its_progress() {
        let (found, _) = search_slowly(BlankScan::Sampled);
        let Err(ReadError::TooSlow { read, total, .. }) = found else { panic!("not too slow: {found:?}") };
        assert!(read < total && total == 40 << 20, "{read}");
        // a full look has no limit
        let (found, told) = search_slowly(BlankScan::Full);
        assert!(matches!(found, Ok(None)), "{found:?}");
        assert!(told.len() > 1 && told.is_sorted_by(|a, b| a < b), "{told:?}");
    }
}
