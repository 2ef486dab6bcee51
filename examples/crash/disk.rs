//! Disks as a power cut would have left them, from what dm-log-writes logged.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub(crate) struct Rebuild {
    /// The log device
    #[arg(long)]
    log: PathBuf,
    /// How many of its writes reached the disk
    #[arg(long)]
    writes: usize,
    /// A number from which to choose which of those since the last flush did not: a disk keeps what it was told to flush,
    /// and writes the rest in an order of its own [default: all did]
    #[arg(long)]
    lose: Option<u64>,
    /// The disk, blank but for these writes
    #[arg(long)]
    disk: PathBuf,
}

/// One entry of the log.
enum Entry {
    Write { offset: u64, data: Vec<u8>, flush: bool, fua: bool },
    Mark(String),
}

const MAGIC: u64 = 0x006a_7366_7773_6872;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;
const MARK: u64 = 8;

/// The log: a superblock (magic, version, number of entries, 64 bits each; sector size, 32 bits), then for each entry a
/// header (sector, number of sectors, flags, length of inline data; 64 bits each) and its data, each in whole sectors. A
/// mark's name stands in the sector of its header.
fn read(log: &Path) -> Vec<Entry> {
    let file = File::open(log).unwrap();
    let word = |at: u64| {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, at).unwrap();
        u64::from_le_bytes(bytes)
    };
    assert_eq!((word(0), word(8)), (MAGIC, 1), "{} holds no log of dm-log-writes", log.display());
    let sector_size = word(24) & 0xffff_ffff;
    let mut at = sector_size;
    (0..word(16))
        .map(|_| {
            let [sector, count, flags, length] = [0, 8, 16, 24].map(|field| word(at + field));
            let inline = at + 32;
            at += sector_size;
            assert_eq!(flags & DISCARD, 0, "the log holds a discard, which is not replayed");
            if flags & MARK != 0 {
                let mut name = vec![0; usize::try_from(length).unwrap()];
                file.read_exact_at(&mut name, inline).unwrap();
                return Entry::Mark(String::from_utf8(name).unwrap().trim_end_matches('\0').to_owned());
            }
            let mut data = vec![0; usize::try_from(count * sector_size).unwrap()];
            file.read_exact_at(&mut data, at).unwrap();
            at += count * sector_size;
            Entry::Write { offset: sector * sector_size, data, flush: flags & FLUSH != 0, fua: flags & FUA != 0 }
        })
        .collect()
}

/// `write N OFFSET LENGTH [flush] [fua]`, where N counts the writes that carry data, or `mark NAME`.
pub(crate) fn show(log: &Path) {
    let mut out = std::io::stdout().lock();
    let mut writes = 0;
    for entry in read(log) {
        match entry {
            Entry::Write { offset, data, flush, fua } => {
                writes += usize::from(!data.is_empty());
                let flags = [(flush, " flush"), (fua, " fua")];
                let flags: String = flags.iter().filter(|(is, _)| *is).map(|(_, flag)| *flag).collect();
                writeln!(out, "write {writes} {offset} {}{flags}", data.len()).unwrap();
            }
            Entry::Mark(name) => writeln!(out, "mark {name}").unwrap(),
        }
    }
}

pub(crate) fn rebuild(args: &Rebuild) {
    let disk = OpenOptions::new().read(true).write(true).open(&args.disk).unwrap();
    let size = std::io::Seek::seek(&mut &disk, std::io::SeekFrom::End(0)).unwrap();
    let mut image = vec![0; usize::try_from(size).unwrap()];
    let mut left = args.writes;
    // and whether it is sure to be on the disk
    let mut writes: Vec<(u64, Vec<u8>, bool)> = Vec::new();
    for entry in read(&args.log) {
        let Entry::Write { offset, data, flush, fua } = entry else { continue };
        if flush {
            writes.iter_mut().for_each(|(.., flushed)| *flushed = true);
        }
        if left == 0 {
            break;
        }
        if !data.is_empty() {
            left -= 1;
            writes.push((offset, data, fua));
        }
    }
    assert_eq!(left, 0, "{} holds {left} writes fewer", args.log.display());
    let mut random = fastrand::Rng::with_seed(args.lose.unwrap_or_default());
    for (offset, data, flushed) in writes {
        if flushed || args.lose.is_none() || random.bool() {
            let offset = usize::try_from(offset).unwrap();
            image[offset..offset + data.len()].copy_from_slice(&data);
        }
    }
    disk.write_all_at(&image, 0).unwrap();
    disk.sync_all().unwrap();
}
