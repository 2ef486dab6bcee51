use std::os::unix::fs::FileExt;

use super::*;
use crate::disk::{BlankScan, NoiseEvidence};

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
    assert!(matches!(content(&path, None), Content::Blank { evidence: Evidence { read, .. } } if read == SIZE + 512));
    write(&path, SIZE + 511, &[1]);
    assert_eq!(content(&path, None), Content::Unrecognised { offset: SIZE + 511 });
}

#[test]
fn a_disk_that_is_too_slow_is_unknown_unless_all_of_it_is_to_be_read() {
    let (_dir, path) = disk(SIZE);
    // no disk is as fast as that
    let content = |how| probe(&path, None, Scan { how, within: Duration::ZERO }, &mut |_, _| {});
    let Content::Unknown { reason } = content(BlankScan::Sampled) else { panic!("not unknown") };
    assert!(reason.contains("volumes.deadline") && reason.contains(" of 40 MiB read"), "{reason}");
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
