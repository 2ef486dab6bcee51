mod keys;
mod recovery_keys;
mod restored;
mod tampered;

use std::path::PathBuf;

use uuid::Uuid;

use super::*;
use crate::key::{DataKey, KeySource, WrappedKey};
use crate::luks2::{Cipher, FormatSpec, HeaderPolicy, Layout};

const SIZE: u64 = 64 << 20;

fn disk() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    File::create(&path).unwrap().set_len(SIZE).unwrap();
    (dir, path)
}

fn source(byte: u8) -> KeySource {
    KeySource::aws_kms(WrappedKey::new(vec![byte; 184]).unwrap(), "arn:aws:kms:x")
}

fn spec() -> FormatSpec {
    let layout = Layout {
        cipher: Cipher::AesXtsPlain64,
        key_size: 512,
        sector_size: 4096,
        flags: Flags { discards: true, no_read_workqueue: true, no_write_workqueue: false },
    };
    let expected = Expected {
        luks_uuid: Uuid::from_u128(0x1234_5678_9abc_4def_8123_4567_89ab_cdef),
        header: HeaderPolicy::Recorded(layout),
        key: source(5),
        other: None,
        reencrypting: false,
        volume_key: None,
    };
    FormatSpec { expected, layout, instance_id: None }
}

fn expected() -> Expected {
    spec().expected
}

fn other_uuid() -> Expected {
    Expected { luks_uuid: Uuid::nil(), ..expected() }
}

fn key(byte: u8) -> Passphrase {
    DataKey::from_slice(&[byte; 32]).unwrap().passphrase()
}

#[test]
fn a_volume_is_made_as_the_design_says() {
    let (_dir, path) = disk();
    format(&path, SIZE, &spec(), &key(1)).unwrap();
    let mut volume = load(&path, &expected()).unwrap();
    let metadata = volume.cd.status_handle().dump_json().unwrap();
    assert_eq!(metadata.pointer("/keyslots/0/kdf/type").unwrap(), "pbkdf2");
    assert_eq!(metadata.pointer("/keyslots/0/kdf/iterations").unwrap(), 1000);
    assert_eq!(metadata.pointer("/segments/0/sector_size").unwrap(), 4096);
    assert_eq!(metadata["config"]["flags"], serde_json::json!(["allow-discards", "no-read-workqueue"]));
    assert_eq!(metadata["keyslots"].as_object().unwrap().len(), 1);
    assert_eq!(Token { keyslots: vec!["0".into()], ..spec().token() }, Token::find(&metadata).unwrap().unwrap());
}

#[test]
fn only_the_right_key_opens_it() {
    let (_dir, path) = disk();
    format(&path, SIZE, &spec(), &key(1)).unwrap();
    verify(&path, &expected(), &key(1)).unwrap();
    assert!(matches!(verify(&path, &expected(), &key(2)), Err(LuksError::WrongKey { .. })));
}

#[test]
fn a_format_that_ended_is_kept_and_one_without_a_keyslot_is_not() {
    let (_dir, path) = disk();
    format(&path, SIZE, &spec(), &key(1)).unwrap();
    assert!(resume(&path, &expected(), &key(1)).unwrap());
    verify(&path, &expected(), &key(1)).unwrap();
    assert!(matches!(resume(&path, &expected(), &key(2)), Err(LuksError::WrongKey { .. })));

    // cut before the token was assigned
    let on_disk = || OnDisk::load(&path, expected().luks_uuid).unwrap();
    on_disk().cd.token_handle().unassign_keyslot(0, Some(0)).unwrap();
    assert!(resume(&path, &expected(), &key(1)).unwrap());
    let metadata = load(&path, &expected()).unwrap().cd.status_handle().dump_json().unwrap();
    assert_eq!(Token::find(&metadata).unwrap().unwrap().keyslots, ["0"]);

    on_disk().cd.keyslot_handle().destroy(0).unwrap();
    assert!(!resume(&path, &expected(), &key(1)).unwrap());
}

/// No mapping is asked for before the header is the expected one.
#[test]
fn another_volume_is_not_grown() {
    let (_dir, path) = disk();
    format(&path, SIZE, &spec(), &key(1)).unwrap();
    let before = std::fs::read(&path).unwrap();
    let grow = |expected: &Expected| grow(&path, 2 * SIZE, "luks-agent-none-such", expected, &key(1)).unwrap_err();
    assert!(matches!(grow(&other_uuid()), LuksError::OtherVolume { .. }));
    let token = Expected { key: KeySource { key_arn: "another".into(), ..source(5) }, ..expected() };
    assert!(matches!(grow(&token), LuksError::Policy(_)));
    assert!(matches!(grow(&expected()), LuksError::Call { .. }), "there is no such mapping");
    assert!(before == std::fs::read(&path).unwrap());
}

#[test]
fn another_volume_is_not_opened() {
    let (_dir, path) = disk();
    format(&path, SIZE, &spec(), &key(1)).unwrap();
    assert!(matches!(verify(&path, &other_uuid(), &key(1)), Err(LuksError::OtherVolume { .. })));
}

#[test]
fn a_disk_without_room_for_data_is_refused_and_not_written() {
    let (_dir, path) = disk();
    let message = format(&path, 20 << 20, &spec(), &key(1)).unwrap_err().to_string();
    assert!(message.contains("20971520 bytes"), "{message}");
    assert!(std::fs::read(&path).unwrap().iter().all(|b| *b == 0));
}

#[test]
fn a_failure_says_what_libcryptsetup_said() {
    let (_dir, path) = disk();
    let message = verify(&path, &other_uuid(), &key(1)).unwrap_err().to_string();
    assert!(message.starts_with("cannot read the LUKS2 header"), "{message}");
}

/// A write of a header is cut off before its checksum, or between its two copies.
#[test]
fn a_torn_header_is_unfinished_only_where_it_was_intended_and_nothing_lies_behind_it() {
    use std::os::unix::fs::FileExt;

    use crate::disk::{BlankScan, Content, Scan};
    use crate::worker::probe::probe;

    let (_dir, path) = disk();
    format(&path, SIZE, &spec(), &key(1)).unwrap();
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let ours = expected().luks_uuid;
    let found = |intent| {
        let scan = Scan { how: BlankScan::Full, within: std::time::Duration::from_secs(600) };
        probe(&path, intent, scan, &mut |_, _| {})
    };
    let whole = |content| matches!(content, Content::Luks2 { luks_uuid, token: Some(_) } if luks_uuid == ours);
    assert!(whole(found(Some(ours))));
    // a byte of the checksum: the first copy alone, then both
    file.write_all_at(b"????", 448).unwrap();
    assert!(whole(found(Some(ours))), "the second copy is whole");
    assert!(resume(&path, &expected(), &key(1)).unwrap(), "libcryptsetup mends the first one");
    file.write_all_at(b"????", 448).unwrap();
    file.write_all_at(b"????", 0x4000 + 448).unwrap();
    assert_eq!(found(Some(ours)), Content::Unfinished);
    assert!(whole(found(Some(Uuid::nil()))), "not what was intended");
    assert!(whole(found(None)), "nothing was intended");
    file.write_all_at(&[1], SIZE - 1).unwrap();
    assert_eq!(found(Some(ours)), Content::Unrecognised { offset: SIZE - 1 });
}

#[test]
fn a_header_with_a_token_ends_the_look_only_where_nothing_was_to_be_formatted() {
    use std::os::unix::fs::FileExt as _;

    use crate::disk::{BlankScan, Content, Scan};
    use crate::worker::probe::probe;

    let (_dir, path) = disk();
    format(&path, SIZE, &spec(), &key(1)).unwrap();
    let ours = expected().luks_uuid;
    let scan = Scan { how: BlankScan::Sampled, within: std::time::Duration::from_secs(60) };
    let found = |intent| probe(&path, intent, scan, &mut |_, _| {});
    let whole = |content| matches!(content, Content::Luks2 { luks_uuid, token: Some(_) } if luks_uuid == ours);
    assert!(whole(found(None)) && whole(found(Some(ours))));
    // somebody else's superblock, of btrfs, behind the headers
    let disk = File::options().write(true).open(&path).unwrap();
    disk.write_all_at(b"_BHRfS_M", (64 << 10) + 64).unwrap();
    // it is opened or left alone, whatever else is there
    assert!(whole(found(None)));
    let content = found(Some(ours));
    assert!(matches!(content, Content::Foreign { .. }), "a format would go on over it: {content:?}");
}

#[test]
fn damage_to_the_keyslot_is_seen_without_a_key() {
    use std::os::unix::fs::FileExt as _;

    let (_dir, path) = disk();
    format(&path, SIZE, &spec(), &key(1)).unwrap();
    let proven = load(&path, &expected()).unwrap().copy.proven(0).unwrap();
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let check = || proven.check(&file, OnDisk::load(&path, expected().luks_uuid).unwrap().metadata());
    check().unwrap();
    assert!(load(&path, &expected()).unwrap().copy.proven(1).is_err(), "there is no other");

    for at in [0x8000, 0x8000 + 256_000 - 1] {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[!byte[0]], at).unwrap();
        let message = check().unwrap_err().to_string();
        assert!(message.starts_with("keyslot 0 is damaged"), "{message}");
        assert!(message.contains("back up its data now, while it is open"), "{message}");
        assert!(matches!(verify(&path, &expected(), &key(1)), Err(LuksError::WrongKey { .. })), "byte {at}");
        // as a header that is restored from its backup
        file.write_all_at(&byte, at).unwrap();
        check().unwrap();
    }

    // another key beside it, a recovery key say, is no damage
    let mut volume = OnDisk::load(&path, expected().luks_uuid).unwrap().cd;
    volume.settings_handle().set_pbkdf_type(&minimal_pbkdf()).unwrap();
    volume.keyslot_handle().add_by_passphrase(None, key(1).expose(), b"recovery").unwrap();
    check().unwrap();
    volume.keyslot_handle().destroy(0).unwrap();
    let message = check().unwrap_err().to_string();
    assert!(message.starts_with("keyslot 0, which the data key opened, no longer exists"), "{message}");
}
