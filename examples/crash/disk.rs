//! Disks as a power cut would have left them, from what dm-log-writes logged.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What dm-log-writes logged.
pub(crate) struct Log(Vec<Entry>);

/// One entry of the log.
enum Entry {
    Write { offset: usize, data: Vec<u8>, flush: bool, fua: bool },
    Mark(String),
}

const MAGIC: u64 = 0x006a_7366_7773_6872;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;
const MARK: u64 = 8;

impl Log {
    /// The log: a superblock (magic, version, number of entries, 64 bits each; sector size, 32 bits), then for each entry a
    /// header (sector, number of sectors, flags, length of inline data; 64 bits each) and its data, each in whole sectors.
    /// A mark's name stands in the sector of its header.
    pub(crate) fn read(log: &Path) -> Self {
        let file = File::open(log).unwrap();
        let read = |at: u64, length: u64| {
            let mut bytes = vec![0; usize::try_from(length).unwrap()];
            file.read_exact_at(&mut bytes, at).unwrap();
            bytes
        };
        let words = |at: u64| {
            let bytes = read(at, 32);
            [0, 8, 16, 24].map(|from| u64::from_le_bytes(bytes[from..from + 8].try_into().unwrap()))
        };
        let [magic, version, entries, sector_size] = words(0);
        assert_eq!((magic, version), (MAGIC, 1), "{} holds no log of dm-log-writes", log.display());
        let sector_size = sector_size & 0xffff_ffff;
        let mut at = sector_size;
        let entries = (0..entries).map(|_| {
            let [sector, count, flags, length] = words(at);
            let inline = at + 32;
            at += sector_size;
            assert_eq!(flags & DISCARD, 0, "the log holds a discard, which is not replayed");
            if flags & MARK != 0 {
                let name = String::from_utf8(read(inline, length)).unwrap();
                return Entry::Mark(name.trim_end_matches('\0').to_owned());
            }
            let data = read(at, count * sector_size);
            at += count * sector_size;
            let offset = usize::try_from(sector * sector_size).unwrap();
            Entry::Write { offset, data, flush: flags & FLUSH != 0, fua: flags & FUA != 0 }
        });
        Self(entries.collect())
    }

    /// How many writes there are. An empty one, as a flush is, does not count.
    pub(crate) fn writes(&self) -> usize {
        count(&self.0)
    }

    /// How many of them were before a mark.
    pub(crate) fn mark(&self, name: &str) -> usize {
        let at = self.0.iter().position(|entry| matches!(entry, Entry::Mark(mark) if mark == name));
        count(&self.0[..at.unwrap_or_else(|| panic!("the log has no mark {name}"))])
    }
}

fn count(entries: &[Entry]) -> usize {
    entries.iter().filter(|entry| matches!(entry, Entry::Write { data, .. } if !data.is_empty())).count()
}

/// `write N OFFSET LENGTH [flush] [fua]` or `mark NAME`, and in the end how many writes there were before each mark.
pub(crate) fn show(disk: &str, log: &Log) {
    let mut out = std::io::stdout().lock();
    let mut marks = String::new();
    for (i, entry) in log.0.iter().enumerate() {
        match entry {
            Entry::Write { offset, data, flush, fua } => {
                let flags = [(*flush, " flush"), (*fua, " fua")];
                let flags: String = flags.iter().filter(|(is, _)| *is).map(|(_, flag)| *flag).collect();
                writeln!(out, "write {} {offset} {}{flags}", count(&log.0[..=i]), data.len()).unwrap();
            }
            Entry::Mark(name) => {
                writeln!(out, "mark {name}").unwrap();
                marks = format!("{marks} {name}={}", count(&log.0[..i]));
            }
        }
    }
    writeln!(out, "marks {disk}{marks} end={}", log.writes()).unwrap();
}

/// The disk after this many writes to what it held `before`. A disk keeps what it was told to flush and writes the rest in an
/// order of its own: with `lose`, some of what was written since the last flush is not there, chosen by that number.
pub(crate) fn image(log: &Log, before: Vec<u8>, writes: usize, lose: Option<u64>) -> Vec<u8> {
    let mut applied: Vec<(usize, &[u8], bool)> = Vec::new();
    for entry in &log.0 {
        let Entry::Write { offset, data, flush, fua } = entry else { continue };
        if *flush {
            applied.iter_mut().for_each(|(.., flushed)| *flushed = true);
        }
        if applied.len() == writes {
            break;
        }
        if !data.is_empty() {
            applied.push((*offset, data, *fua));
        }
    }
    assert_eq!(applied.len(), writes, "the log holds fewer writes");
    let mut random = fastrand::Rng::with_seed(lose.unwrap_or_default());
    let mut image = before;
    for (offset, data, flushed) in applied {
        if flushed || lose.is_none() || random.bool() {
            image[offset..offset + data.len()].copy_from_slice(data);
        }
    }
    image
}
