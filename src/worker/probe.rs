//! What is on a disk: runs in the worker, reads only.
//!
//! What is read is judged: zeros, noise, or data.
//!
//! A disk counts as blank only on positive evidence: the kernel lets us open it exclusively, blkid finds nothing, and all
//! that is read is zero. Whatever cannot be read is [`Content::Unknown`], never blank.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use libblkid_rs::{BlkidProbe, BlkidProbeRet, BlkidSublks, BlkidSublksFlags};
use nix::libc::{EBUSY, EINVAL, O_DIRECT, O_EXCL};
use uuid::Uuid;

use super::noise::{self, Counts};
use crate::disk::{BlankScan, Bytes, Content, Evidence, NoiseEvidence, Scan};
use crate::luks2::{DATA_OFFSET, Luks2Header, Token};

/// The binary header at the beginning of a LUKS2 header, in bytes (LUKS2 on-disk format, 2.1).
const BINARY_HEADER: u64 = 4096;

/// How long a disk that is in use is tried again.
const BUSY_PATIENCE: Duration = Duration::from_secs(3);
/// A disk of up to this size is read whole; larger ones are sampled.
const WHOLE_UP_TO: u64 = 1 << 30;
/// How much of each end of a larger disk is read.
const END: u64 = 256 << 20;
/// How many samples are read between the ends, at least.
const SAMPLES: u64 = 1024;
/// Size of one read.
const CHUNK: usize = 1 << 20;
/// Size of one sample between the ends.
const SAMPLE: usize = 64 << 10;
/// What `O_DIRECT` needs buffers and offsets to be multiples of, on any disk.
const ALIGN: usize = 4096;

/// Says how many of how many bytes have been read.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// Examines a disk. `intent` is the LUKS UUID that the state file says the disk was about to be formatted with.
///
/// Every failure is told as [`Content::Unknown`].
pub fn probe(device: &Path, intent: Option<Uuid>, scan: Scan, progress: Progress<'_>) -> Content {
    match examine(device, intent, scan, progress) {
        Ok(content) => content,
        Err(reason) => Content::Unknown { reason },
    }
}

fn examine(device: &Path, intent: Option<Uuid>, scan: Scan, progress: Progress<'_>) -> Result<Content, String> {
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
    let signatures = signatures(&file).map_err(|e| reader.unreadable(progress).err().unwrap_or(e))?;
    let header = header?;
    if let (Some(header), Some(intended)) = (&header, intent)
        && header.luks_uuid == intended
        && let Some(other) = signatures.iter().find(|name| !is_luks(name))
    {
        // somebody made something else of the disk, and of our header only the second copy is left
        return Ok(Content::Foreign { signatures: vec![other.clone()] });
    }
    // what a torn header of our own begins with names the UUID that was intended, or there is nothing at all yet
    // a header is written after its whole area was zeroed, and its first sector has the UUID
    let torn = intent.is_some()
        && match &header {
            Some(header) => {
                Some(header.luks_uuid) == intent && !header.intact && signatures.iter().all(|name| is_luks(name))
            }
            None => {
                // read once more by the scan, and counted there
                let read = reader.read;
                let start = (0, BINARY_HEADER.min(reader.size));
                let is_zero = reader.first_not_zero([start], &mut |_, _| {})?.is_none();
                reader.read = read;
                signatures.is_empty() && is_zero
            }
        };
    if let Some(header) = header
        && !torn
        && let Some(content) = volume_of(header)?
    {
        return Ok(content);
    }
    if !signatures.is_empty() && !torn {
        return Ok(Content::Foreign { signatures });
    }
    if torn {
        if let Some(offset) = reader.first_not_zero(reader.ranges(DATA_OFFSET), progress)? {
            return reader.noise_or_data(DATA_OFFSET, offset, progress);
        }
        let area = (0, DATA_OFFSET.min(reader.size));
        if reader.first_not_zero([area], progress)?.is_some() {
            return Ok(Content::Unfinished);
        }
    } else {
        if let Some(offset) = reader.first_not_zero(reader.ranges(0), progress)? {
            return reader.noise_or_data(0, offset, progress);
        }
        // where a header would be, once more: the scan took its time, and on a volume that is attached to several
        // instances another one may have been at work
        let read = reader.read;
        if let Some(offset) = reader.first_not_zero([(0, (CHUNK as u64).min(reader.size))], &mut |_, _| {})? {
            return Ok(Content::Unrecognised { offset });
        }
        reader.read = read;
    }
    Ok(Content::Blank { evidence: Evidence { read: reader.read, of: reader.size } })
}

/// The LUKS2 volume on a disk, which may be in use, by its header alone; `None` where there is none. Nothing is repaired.
///
/// # Errors
/// When the disk or a token of luks-agent cannot be read.
pub fn volume(file: &File) -> Result<Option<Content>, String> {
    Luks2Header::read(file)?.map_or(Ok(None), volume_of)
}

fn volume_of(header: Luks2Header) -> Result<Option<Content>, String> {
    let Luks2Header { luks_uuid, metadata: Some(metadata), .. } = header else { return Ok(None) };
    let token = Token::find(&metadata).map_err(|e| format!("it has a luks-agent token that cannot be read: {e}"))?;
    Ok(Some(Content::Luks2 { luks_uuid, token: token.map(Box::new) }))
}

/// The LUKS2 metadata of a disk, which may be in use, and its UUID. Nothing is repaired.
///
/// # Errors
/// What is wrong with the header.
pub fn metadata(file: &File) -> Result<(Uuid, serde_json::Value), String> {
    let Luks2Header { luks_uuid, metadata, .. } = Luks2Header::read_intact(file)?;
    Ok((luks_uuid, metadata.unwrap_or_default()))
}

/// udev's helpers, mdadm among them, may have a disk open exclusively for a moment.
fn open_exclusively(device: &Path) -> Result<File, String> {
    let since = Instant::now();
    loop {
        match OpenOptions::new().read(true).custom_flags(O_EXCL).open(device) {
            Ok(file) => return Ok(file),
            Err(e) if e.raw_os_error() != Some(EBUSY) => return Err(format!("it cannot be opened: {e}")),
            Err(_) if since.elapsed() < BUSY_PATIENCE => std::thread::sleep(Duration::from_millis(100)),
            Err(_) => return Err(
                "it is in use: it cannot be opened exclusively, so a program or a mount namespace of its own has it"
                    .to_owned(),
            ),
        }
    }
}

/// A path to what is open here, whoever has its name by now.
pub fn path_of(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn is_luks(signature: &str) -> bool {
    signature.starts_with("crypto_LUKS")
}

/// Every signature that blkid knows, superblocks and partition tables, broken checksums included.
fn signatures(file: &File) -> Result<Vec<String>, String> {
    let failed = |e: libblkid_rs::BlkidErr| format!("blkid cannot examine it: {e}");
    let mut probe = BlkidProbe::new().map_err(failed)?;
    probe.set_device(file.as_raw_fd(), 0, 0).map_err(failed)?;
    probe.enable_superblocks(true).map_err(failed)?;
    probe
        .set_superblock_flags(BlkidSublksFlags::new(vec![
            BlkidSublks::Type,
            BlkidSublks::Usage,
            BlkidSublks::Version,
            BlkidSublks::Magic,
            BlkidSublks::Badcsum,
        ]))
        .map_err(failed)?;
    probe.enable_partitions(true).map_err(failed)?;
    let mut found = Vec::new();
    while probe.do_probe().map_err(failed)? == BlkidProbeRet::Success {
        let value = |name| probe.lookup_value(name).ok();
        let (name, offset) = match value("TYPE") {
            Some(name) => (name, value("SBMAGIC_OFFSET")),
            None => match value("PTTYPE") {
                Some(name) => (format!("{name} partition table"), value("PTMAGIC_OFFSET")),
                // something was found, and that it has no name does not make it nothing
                None => ("unnamed signature".to_owned(), None),
            },
        };
        found.push(match offset {
            Some(offset) => format!("{name} at byte {offset}"),
            None => name,
        });
    }
    Ok(found)
}

/// Reads past the page cache, so that what is seen is what the disk holds.
struct Reader {
    file: File,
    size: u64,
    scan: Scan,
    since: Instant,
    /// Bytes read so far.
    read: u64,
    buffer: Vec<u8>,
    zeros: Vec<u8>,
    /// Where in `buffer` an aligned read may begin.
    start: usize,
}

impl Reader {
    fn open(device: &Path, scan: Scan) -> Result<Self, String> {
        let direct = OpenOptions::new().read(true).custom_flags(O_DIRECT).open(device);
        let file = match direct {
            // a plain file on a file system without direct I/O, as in tests
            Err(e) if e.raw_os_error() == Some(EINVAL) => File::open(device),
            other => other,
        };
        let file = file.map_err(|e| format!("it cannot be opened for reading: {e}"))?;
        let size = io::Seek::seek(&mut &file, io::SeekFrom::End(0)).map_err(|e| format!("its size is unknown: {e}"))?;
        let buffer = vec![0; CHUNK + ALIGN];
        let start = buffer.as_ptr().align_offset(ALIGN);
        let since = Instant::now();
        Ok(Self { file, size, scan, since, read: 0, buffer, zeros: vec![0; CHUNK], start })
    }

    fn ranges(&self, from: u64) -> Vec<(u64, u64)> {
        ranges(from, self.size, self.scan.how, random_fraction())
    }

    /// Fails with the place where the disk cannot be read, if that is in what would be read of it, whatever else is on it.
    fn unreadable(&mut self, progress: Progress<'_>) -> Result<(), String> {
        self.first(self.ranges(0), progress, |_| None).map(|_| ())
    }

    /// Where the first byte is that is not zero, of all that is read.
    fn first_not_zero(
        &mut self,
        ranges: impl IntoIterator<Item = (u64, u64)>,
        progress: Progress<'_>,
    ) -> Result<Option<u64>, String> {
        let zeros = std::mem::take(&mut self.zeros);
        // one comparison of the whole is many times faster than a look at each byte
        let not_zero = |bytes: &[u8]| match bytes == &zeros[..bytes.len()] {
            true => None,
            false => bytes.iter().position(|b| *b != 0),
        };
        let found = self.first(ranges, progress, not_zero);
        self.zeros = zeros;
        found
    }

    /// What it is that is not all zeros, from `from` on: each block of the whole sample is read for it.
    fn noise_or_data(&mut self, from: u64, offset: u64, progress: Progress<'_>) -> Result<Content, String> {
        self.read = 0;
        let (mut all, mut begins_as_stream) = (Counts::default(), None);
        let zeros = std::mem::take(&mut self.zeros);
        let structured = self.first(self.ranges(from), progress, |bytes| {
            begins_as_stream.get_or_insert_with(|| noise::is_stream(bytes));
            let mut is_noise = |block: &[u8]| block == &zeros[..block.len()] || all.add_if_noise(block);
            bytes.chunks(noise::BLOCK).position(|block| !is_noise(block))
        });
        self.zeros = zeros;
        let (read, random) = (self.read, all.total());
        let has_structure = structured?.is_some() || begins_as_stream == Some(true) || !all.is_uniform();
        // mostly zeros, and some noise among them, is what somebody has written who encrypts
        if has_structure || random < read / 2 {
            return Ok(Content::Unrecognised { offset });
        }
        Ok(Content::Noise { offset, evidence: NoiseEvidence { read, random, of: self.size } })
    }

    /// Reads, until `wanted` finds something.
    fn first(
        &mut self,
        ranges: impl IntoIterator<Item = (u64, u64)>,
        progress: Progress<'_>,
        mut wanted: impl FnMut(&[u8]) -> Option<usize>,
    ) -> Result<Option<u64>, String> {
        let ranges: Vec<(u64, u64)> = ranges.into_iter().collect();
        let total = self.read + ranges.iter().map(|(_, length)| length).sum::<u64>();
        for (offset, length) in ranges {
            let mut at = offset;
            while at < offset + length {
                let want = usize::try_from(offset + length - at).map_or(CHUNK, |left| left.min(CHUNK));
                self.in_time(total)?;
                let buffer = &mut self.buffer[self.start..self.start + want.next_multiple_of(ALIGN)];
                let got = match self.file.read_at(buffer, at) {
                    Ok(got) => got,
                    Err(e) => {
                        let at = self.narrow_down(at, want);
                        return Err(format!("it cannot be read at byte {at} ({}): {e}", Bytes(at)));
                    }
                };
                if got == 0 {
                    return Err(format!("it ended at byte {at}, although its size is {}", self.size));
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

    /// A disk that answers slowly but steadily would be waited for without an end. Who asks for all of it, asks for that.
    fn in_time(&self, total: u64) -> Result<(), String> {
        if self.scan.how == BlankScan::Full || self.since.elapsed() <= self.scan.within {
            return Ok(());
        }
        Err(format!(
            "it is too slow: in {} s (volumes.deadline) only {} of {} were read; raise volumes.deadline if it cannot be faster",
            self.scan.within.as_secs(),
            Bytes(self.read),
            Bytes(total)
        ))
    }

    /// Where in a piece that could not be read the trouble begins.
    fn narrow_down(&mut self, at: u64, length: usize) -> u64 {
        let buffer = &mut self.buffer[self.start..self.start + ALIGN];
        (0..length.div_ceil(ALIGN))
            .map(|page| at + (page * ALIGN) as u64)
            .find(|at| self.file.read_at(buffer, *at).is_err())
            .unwrap_or(at)
    }
}

/// What to read, as offsets and lengths. `start` in 0..1 moves the samples, so that data which one check misses for its
/// regularity is found by another.
fn ranges(from: u64, size: u64, scan: BlankScan, start: f64) -> Vec<(u64, u64)> {
    if scan == BlankScan::Full || size <= WHOLE_UP_TO {
        return vec![(from, size.saturating_sub(from))];
    }
    let (head, tail) = (END.max(from), (size - END) / ALIGN as u64 * ALIGN as u64);
    let stride = ((tail - head) / SAMPLES).max(SAMPLE as u64);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a jitter"
    )]
    let jitter = (start * (stride - SAMPLE as u64 + 1) as f64) as u64;
    let samples = (head + jitter..tail).step_by(usize::try_from(stride).unwrap_or(usize::MAX)).map(|at| {
        let at = at / ALIGN as u64 * ALIGN as u64;
        (at, (SAMPLE as u64).min(tail - at))
    });
    std::iter::once((from, head - from)).chain(samples).chain([(tail, size - tail)]).collect()
}

/// A number in 0..1 that differs from call to call.
fn random_fraction() -> f64 {
    let (high, _) = Uuid::new_v4().as_u64_pair();
    f64::from((high >> 32) as u32) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::disk::Scan;

    const SIZE: u64 = 40 << 20;

    fn disk(size: u64) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        File::create(&path).unwrap().set_len(size).unwrap();
        (dir, path)
    }

    fn write(path: &Path, offset: u64, bytes: &[u8]) {
        OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, offset).unwrap();
    }

    /// A swap area as mkswap makes it: version and last page at byte 1024.
    fn write_swap(path: &Path) {
        write(path, 4086, b"SWAPSPACE2");
        write(path, 1024, &[1, 0, 0, 0, 0xff, 0, 0, 0]);
    }

    fn content(path: &Path, intent: Option<Uuid>) -> Content {
        let scan = Scan { how: BlankScan::Sampled, within: Duration::from_secs(600) };
        probe(path, intent, scan, &mut |_, _| {})
    }

    #[test]
    fn a_disk_of_zeros_is_blank_and_all_of_it_was_read() {
        let (_dir, path) = disk(SIZE);
        assert_eq!(content(&path, None), Content::Blank { evidence: Evidence { read: SIZE, of: SIZE } });
    }

    #[test]
    fn one_byte_anywhere_is_seen() {
        for offset in [0, 1, 4095, 4096, DATA_OFFSET - 1, DATA_OFFSET, SIZE / 2 + 77, SIZE - 1] {
            let (_dir, path) = disk(SIZE);
            write(&path, offset, &[1]);
            assert_eq!(content(&path, None), Content::Unrecognised { offset });
        }
    }

    fn fill_with_noise(path: &Path, size: u64) {
        let mut rng = fastrand::Rng::with_seed(size);
        let mut bytes = vec![0; usize::try_from(size).unwrap()];
        rng.fill(&mut bytes);
        write(path, 0, &bytes);
    }

    fn is_noise(content: &Content) -> bool {
        matches!(content, Content::Noise { .. })
    }

    #[test]
    fn noise_with_zeros_in_it_is_told_from_data() {
        let (_dir, path) = disk(SIZE + 512);
        fill_with_noise(&path, SIZE + 512);
        write(&path, 1 << 20, &[0; 3 << 20]);
        let random = SIZE + 512 - (3 << 20);
        let evidence = NoiseEvidence { read: SIZE + 512, random, of: SIZE + 512 };
        assert_eq!(content(&path, None), Content::Noise { offset: 0, evidence });
        // mostly zeros
        let (_dir, path) = disk(SIZE);
        fill_with_noise(&path, SIZE / 2 - 4096);
        assert_eq!(content(&path, None), Content::Unrecognised { offset: 0 });
    }

    #[test]
    fn one_block_with_structure_anywhere_makes_noise_data() {
        let text = b"what somebody has written, and wants to keep\n".repeat(12);
        for offset in [0, 4096, DATA_OFFSET, SIZE / 2 + 1024, SIZE - 540] {
            let (_dir, path) = disk(SIZE);
            fill_with_noise(&path, SIZE);
            write(&path, offset, &text);
            assert_eq!(content(&path, None), Content::Unrecognised { offset: 0 }, "text at {offset}");
            // a file that does not end with a block
            fill_with_noise(&path, SIZE);
            write(&path, offset, &[0; 540]);
            let first = if offset == 0 { 540 } else { 0 };
            assert_eq!(content(&path, None), Content::Unrecognised { offset: first }, "zeros at {offset}");
        }
    }

    #[test]
    fn noise_with_a_signature_or_the_first_bytes_of_a_stream_is_not_noise() {
        let (_dir, path) = disk(SIZE);
        fill_with_noise(&path, SIZE);
        write_swap(&path);
        assert!(matches!(content(&path, None), Content::Foreign { .. }));
        fill_with_noise(&path, SIZE);
        write(&path, 0, &[0x1f, 0x8b, 8, 0]);
        assert_eq!(content(&path, None), Content::Unrecognised { offset: 0 });
    }

    #[test]
    fn a_torn_header_of_our_own_before_noise_is_noise_only_where_it_was_intended() {
        let ours = Uuid::from_u128(1);
        let (_dir, path) = disk(SIZE);
        fill_with_noise(&path, SIZE);
        write(&path, 0, &[0; 0x8000]);
        write(&path, 0x4000, b"a part of a header");
        assert!(is_noise(&content(&path, Some(ours))));
        assert!(!is_noise(&content(&path, None)));
        write(&path, DATA_OFFSET + 5, &[0; 300]);
        assert!(!is_noise(&content(&path, Some(ours))));
    }

    #[test]
    fn the_end_of_a_disk_of_an_odd_number_of_sectors_is_seen() {
        let (_dir, path) = disk(SIZE + 512);
        assert!(
            matches!(content(&path, None), Content::Blank { evidence: Evidence { read, .. } } if read == SIZE + 512)
        );
        write(&path, SIZE + 511, &[1]);
        assert_eq!(content(&path, None), Content::Unrecognised { offset: SIZE + 511 });
    }

    #[test]
    fn a_disk_that_is_too_slow_is_unknown_unless_all_of_it_is_to_be_read() {
        let (_dir, path) = disk(SIZE);
        let within = Duration::from_millis(200);
        let content = |how| {
            // the disk answers after 10 ms
            probe(&path, None, Scan { how, within }, &mut |_, _| std::thread::sleep(Duration::from_millis(10)))
        };
        let Content::Unknown { reason } = content(BlankScan::Sampled) else { panic!("not unknown") };
        assert!(reason.contains("volumes.deadline") && reason.contains("MiB of 40 MiB were read"), "{reason}");
        assert!(matches!(content(BlankScan::Full), Content::Blank { .. }));
    }

    #[test]
    fn signatures_are_named() {
        let (_dir, path) = disk(SIZE);
        write_swap(&path);
        let Content::Foreign { signatures } = content(&path, None) else { panic!("not foreign") };
        assert!(signatures.iter().any(|s| s.starts_with("swap at byte 4086")), "{signatures:?}");
    }

    #[test]
    fn what_cannot_be_opened_is_unknown() {
        let content = content(Path::new("/nonexistent"), None);
        assert!(matches!(content, Content::Unknown { .. }), "{content:?}");
    }

    #[test]
    fn an_intent_excuses_the_header_area_alone() {
        let ours = Uuid::from_u128(1);
        let (_dir, path) = disk(SIZE);
        write(&path, 0x9000, b"keyslot area");
        assert_eq!(content(&path, None), Content::Unrecognised { offset: 0x9000 });
        assert_eq!(content(&path, Some(ours)), Content::Unfinished);
        write(&path, DATA_OFFSET, &[1]);
        assert_eq!(content(&path, Some(ours)), Content::Unrecognised { offset: DATA_OFFSET });
    }

    #[test]
    fn an_intent_does_not_excuse_what_others_began_to_write_at_the_start() {
        let ours = Uuid::from_u128(1);
        let (_dir, path) = disk(SIZE);
        write(&path, 17, &[1]);
        assert_eq!(content(&path, Some(ours)), Content::Unrecognised { offset: 17 });
        fill_with_noise(&path, SIZE);
        write(&path, 0, b"Salted__");
        assert_eq!(content(&path, Some(ours)), content(&path, None));
    }

    #[test]
    fn an_intent_excuses_a_torn_header_with_its_own_uuid_alone() {
        let ours = Uuid::from_u128(1);
        let (_dir, path) = disk(SIZE);
        write(&path, 0, b"LUKS\xba\xbe\x00\x02");
        write(&path, 8, &0x4000_u64.to_be_bytes());
        write(&path, 168, ours.to_string().as_bytes());
        assert_eq!(content(&path, Some(ours)), Content::Unfinished);
        assert!(!matches!(content(&path, Some(Uuid::from_u128(2))), Content::Unfinished | Content::Blank { .. }));
        assert!(!matches!(content(&path, None), Content::Unfinished | Content::Blank { .. }));
    }

    #[test]
    fn an_intent_does_not_excuse_a_volume_of_luks1() {
        let (_dir, path) = disk(SIZE);
        write(&path, 0, b"LUKS\xba\xbe\x00\x01");
        write(&path, 168, Uuid::from_u128(1).to_string().as_bytes());
        let content = content(&path, Some(Uuid::from_u128(1)));
        assert!(matches!(content, Content::Foreign { .. }), "{content:?}");
    }

    #[test]
    fn an_intent_does_not_excuse_what_was_made_over_our_header() {
        let ours = Uuid::from_u128(1);
        let (_dir, path) = disk(SIZE);
        let json = b"{\"tokens\":{}}";
        for (offset, magic) in [(0, b"LUKS\xba\xbe\x00\x02"), (0x4000, b"SKUL\xba\xbe\x00\x02")] {
            write(&path, offset, magic);
            write(&path, offset + 8, &0x4000_u64.to_be_bytes());
            write(&path, offset + 168, ours.to_string().as_bytes());
            write(&path, offset + 4096, json);
        }
        assert_eq!(content(&path, Some(ours)), Content::Luks2 { luks_uuid: ours, token: None });
        // as mkswap does, which leaves the second copy of the header alone
        write(&path, 0, &[0; 4096]);
        write_swap(&path);
        assert!(matches!(content(&path, Some(ours)), Content::Foreign { .. }));
    }

    #[test]
    fn a_token_that_cannot_be_read_makes_the_disk_unknown_not_foreign() {
        let (_dir, path) = disk(SIZE);
        write(&path, 0, b"LUKS\xba\xbe\x00\x02");
        write(&path, 8, &0x4000_u64.to_be_bytes());
        write(&path, 168, Uuid::from_u128(1).to_string().as_bytes());
        write(&path, 4096, br#"{"tokens":{"0":{"type":"luks-agent-awskms","version":9}}}"#);
        assert!(matches!(content(&path, None), Content::Unknown { .. }));
    }

    #[test]
    fn an_intent_does_not_excuse_another_signature() {
        let (_dir, path) = disk(SIZE);
        write_swap(&path);
        assert!(matches!(content(&path, Some(Uuid::from_u128(1))), Content::Foreign { .. }));
    }

    #[test]
    fn a_large_disk_is_read_at_both_ends_and_sampled_between() {
        let size = 10 << 30;
        let ranges = ranges(0, size, BlankScan::Sampled, 0.5);
        let read = |offset: u64| ranges.iter().any(|(at, length)| (*at..at + length).contains(&offset));
        assert!(read(0) && read(END - 1) && read(size - END) && read(size - 1));
        let between = ranges.iter().filter(|(at, _)| (END..size - END).contains(at)).count() as u64;
        assert!(between >= SAMPLES, "{between}");
    }

    #[test]
    fn each_check_looks_elsewhere() {
        let ranges = |start| ranges(0, 10 << 30, BlankScan::Sampled, start);
        assert_ne!(ranges(0.1), ranges(0.9));
        let fractions: Vec<f64> = std::iter::repeat_with(random_fraction).take(100).collect();
        assert!(fractions.iter().all(|f| (0.0..1.0).contains(f)), "{fractions:?}");
        assert!(fractions.iter().any(|f| *f < 0.5) && fractions.iter().any(|f| *f > 0.5), "{fractions:?}");
    }

    proptest! {
        #[test]
        fn ranges_stay_on_the_disk_and_do_not_overlap(
            size in (DATA_OFFSET / 512 + 1..40 << 21).prop_map(|s| s * 512), start in 0.0..1.0, from in prop_oneof![Just(0), Just(DATA_OFFSET)],
        ) {
            let ranges = ranges(from, size, BlankScan::Sampled, start);
            prop_assert_eq!(ranges[0].0, from);
            let (last, length) = ranges[ranges.len() - 1];
            prop_assert_eq!(last + length, size);
            for pair in ranges.windows(2) {
                prop_assert!(pair[0].0 + pair[0].1 <= pair[1].0);
            }
            prop_assert!(ranges.iter().all(|(at, length)| at % 512 == 0 && *length > 0));
            if size <= WHOLE_UP_TO {
                prop_assert_eq!(ranges.len(), 1);
                return Ok(());
            }
            // both ends, and between them samples that leave no more out in one place than in another
            let (head, tail) = (from + ranges[0].1, last);
            prop_assert!(head >= END && size - tail >= END);
            let stride = ((tail - head) / SAMPLES).max(SAMPLE as u64);
            for pair in ranges.windows(2) {
                let gap = pair[1].0 - (pair[0].0 + pair[0].1);
                prop_assert!(gap <= stride - SAMPLE as u64 + ALIGN as u64, "{gap} between {pair:?}, stride {stride}");
            }
            let whole = ranges.iter().filter(|(_, length)| *length == SAMPLE as u64).count() as u64;
            prop_assert!(whole + 1 >= SAMPLES, "{whole} samples");
        }
    }
}
