//! What is on a disk. The first byte of an input says how the rest lies on it: as it is, or as the start of a LUKS2 binary
//! header and a JSON area, the empty space between them left out.

use std::cell::LazyCell;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use luks_agent::disk::{BlankScan, Content, Scan};
use luks_agent::luks2::{DATA_OFFSET, EXEC_TOKEN_TYPE, TOKEN_TYPE};
use luks_agent::worker::probe::probe;
use tempfile::NamedTempFile;
use uuid::Uuid;

const SMALL: u64 = 256 << 10;
/// One that reaches behind the header area.
const LARGE: u64 = DATA_OFFSET + (64 << 10);
/// How much of the binary header has anything in it.
const BINARY_USED: usize = 512;
const BINARY: u64 = 4096;
/// Where the second copy of a header of the usual size begins.
const SECOND: u64 = 0x4000;

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// The UUID of the seeds.
pub(crate) const OURS: Uuid = Uuid::from_u128(0x1234_5678_9abc_4def_8123_4567_89ab_cdef);

thread_local! {
    static DISK: LazyCell<NamedTempFile> = LazyCell::new(|| NamedTempFile::new().expect("a temporary file"));
}

pub(crate) fn run(data: &[u8]) -> String {
    let Some((how, bytes)) = data.split_first() else { return String::new() };
    let bit = |n: u8| how & (1 << n) != 0;
    let (header, second, only_second, intended, large, at_the_end) = (bit(0), bit(1), bit(2), bit(3), bit(4), bit(5));
    let size = if large { LARGE } else { SMALL };
    let intent = intended.then_some(OURS);
    DISK.with(|disk| {
        let file = disk.as_file();
        file.set_len(0).expect("an empty file");
        file.set_len(size).expect("zeros");
        if header {
            let (binary, json) = bytes.split_at(bytes.len().min(BINARY_USED));
            let copies: &[u64] = match (second, only_second) {
                (true, true) => &[SECOND],
                (true, false) => &[0, SECOND],
                (false, _) => &[0],
            };
            for offset in copies {
                write(file, binary, *offset, size);
                write(file, json, offset + BINARY, size);
                if *offset == SECOND && binary.starts_with(b"LUKS") {
                    write(file, b"SKUL", SECOND, size);
                }
            }
        } else {
            write(file, bytes, if at_the_end { size.saturating_sub(bytes.len() as u64) } else { 0 }, size);
        }
        let mut before = vec![0; usize::try_from(size).expect("small")];
        file.read_exact_at(&mut before, 0).expect("what was written");
        let scan = Scan { how: BlankScan::Sampled, within: Duration::from_secs(60) };
        let content = probe(disk.path(), intent, scan, &mut |_, _| {});
        let mut after = vec![1; before.len()];
        file.read_exact_at(&mut after, 0).expect("what was written");
        assert!(before == after && file.metadata().expect("a file").len() == size, "examining has written");
        check(&before, intent, &content);
        format!("{content:?}")
    })
}

fn write(file: &File, bytes: &[u8], offset: u64, size: u64) {
    let room = usize::try_from(size.saturating_sub(offset)).expect("small");
    file.write_all_at(&bytes[..bytes.len().min(room)], offset).expect("written");
}

fn check(disk: &[u8], intent: Option<Uuid>, content: &Content) {
    // many times faster than a look at each byte
    let zeros = |bytes: &[u8]| bytes.chunks(ZEROS.len()).all(|chunk| chunk == &ZEROS[..chunk.len()]);
    assert_eq!(zeros(disk), matches!(content, Content::Blank { .. }), "{content:?}");
    match content {
        Content::Blank { evidence } => assert_eq!((evidence.read, evidence.of), (disk.len() as u64, disk.len() as u64)),
        Content::Luks2 { luks_uuid, token } => {
            assert!(headers(disk).any(|header| uuid_of(header) == Some(*luks_uuid)), "{luks_uuid} is nowhere");
            if let Some(token) = token {
                assert!([TOKEN_TYPE, EXEC_TOKEN_TYPE].contains(&token.kind.as_str()));
                assert!(!token.wrapped_key.as_bytes().is_empty());
            }
        }
        Content::Unfinished => {
            assert!(intent.is_some(), "nobody has begun anything");
            assert!(zeros(disk.get(DATA_OFFSET as usize..).unwrap_or_default()), "there is data behind the header");
            let text = std::str::from_utf8(&disk[168..208]).unwrap_or_default().trim_end_matches('\0');
            let another = Uuid::parse_str(text).is_ok_and(|found| Some(found) != intent);
            assert!(!(disk.starts_with(b"LUKS\xba\xbe\0\x02") && another), "another's header");
        }
        Content::Written => panic!("a single look cannot tell that"),
        Content::Unrecognised { offset } => assert_ne!(disk[usize::try_from(*offset).expect("on the disk")], 0),
        Content::Noise { offset, evidence } => {
            assert_ne!(disk[usize::try_from(*offset).expect("on the disk")], 0);
            assert!(evidence.random * 2 >= evidence.read && evidence.read <= evidence.of);
        }
        Content::Foreign { signatures } => assert!(!signatures.is_empty()),
        Content::Unknown { reason } => assert!(!reason.is_empty()),
    }
}

/// Wherever a header may begin (LUKS2 on-disk format, section 2.2).
fn headers(disk: &[u8]) -> impl Iterator<Item = &[u8]> {
    let offsets = std::iter::once(0).chain((14..=22).map(|bits| 1_usize << bits));
    offsets.filter_map(|offset| disk.get(offset..)).filter(|header| {
        (header.starts_with(b"LUKS\xba\xbe\0\x02") || header.starts_with(b"SKUL\xba\xbe\0\x02")) && header.len() > 208
    })
}

/// The UUID in its text form, its 32 digits wherever the hyphens are.
fn uuid_of(header: &[u8]) -> Option<Uuid> {
    let text = std::str::from_utf8(header.get(168..208)?).ok()?;
    let digits: String = text.trim_start_matches("urn:uuid:").chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 32).map(Uuid::from_u128)
}
