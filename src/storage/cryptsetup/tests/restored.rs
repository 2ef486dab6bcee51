//! A header that is restored or replaced, cut anywhere.

use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::*;
use crate::luks2::{PolicyViolation, VolumeKeyId};
use crate::storage::header_swap::{Rest, Write, writes};

/// Adds a keyslot of `new`, at the place that libcryptsetup chooses, and returns its number.
fn add(path: &Path, own: u8, new: u8) -> u32 {
    let mut cd = OnDisk::load(path, expected().luks_uuid).unwrap().cd;
    cd.settings_handle().set_pbkdf_type(&minimal_pbkdf()).unwrap();
    cd.keyslot_handle().add_by_passphrase(None, key(own).expose(), key(new).expose()).unwrap()
}

fn destroy(path: &Path, keyslot: u32) {
    OnDisk::load(path, expected().luks_uuid).unwrap().cd.keyslot_handle().destroy(keyslot).unwrap();
}

/// Returns the header area of a disk as a file.
fn image(path: &Path) -> File {
    let mut image = tempfile::tempfile().unwrap();
    let mut area = vec![0; usize::try_from(DATA_OFFSET).unwrap()];
    File::open(path).unwrap().read_exact_at(&mut area, 0).unwrap();
    std::io::Write::write_all(&mut image, &area).unwrap();
    image
}

/// Every prefix of the writes leaves a disk that one of the keys opens; torn ones too, at a few places of each write. Counts them.
pub(super) fn cut_everywhere(path: &Path, image: &File, rest: Rest, keys: [u8; 2]) -> usize {
    let disk = File::options().read(true).write(true).open(path).unwrap();
    let all = writes(&disk, image, rest).unwrap();
    let mut cuts = 0;
    let opens = || keys.iter().any(|byte| prove(path, &expected(), &key(*byte)).is_ok());
    for Write { at, bytes } in all {
        for part in [0, 448, 4096, bytes.len() / 2, bytes.len() - 1, bytes.len()] {
            disk.write_all_at(&bytes[..part.min(bytes.len())], at).unwrap();
            assert!(opens(), "after {part} of {} bytes at byte {at}", bytes.len());
            cuts += 1;
        }
    }
    cuts
}

#[test]
fn a_restore_can_be_cut_anywhere() {
    let (_dir, path) = disk();
    format(&path, SIZE, &spec(), &key(1)).unwrap();
    let backup = image(&path);
    // the key of the backup is in no keyslot any more, and its area has become that of another
    let other = add(&path, 1, 2);
    destroy(&path, 0);
    assert_eq!((add(&path, 2, 3), other), (0, 1));
    assert!(prove(&path, &expected(), &key(1)).is_err());
    let before = std::fs::read(&path).unwrap();
    let cuts = cut_everywhere(&path, &backup, Rest::Replaced, [2, 1]);
    assert_eq!(cuts, 7 * 6, "by way of a third header");
    prove(&path, &expected(), &key(1)).unwrap();
    assert!(prove(&path, &expected(), &key(2)).is_err(), "nothing is left of the other keyslot");
    let area = usize::try_from(DATA_OFFSET).unwrap();
    let mut whole = vec![0; area];
    backup.read_exact_at(&mut whole, 0).unwrap();
    let after = std::fs::read(&path).unwrap();
    assert!(after[..area] == whole[..] && after[area..] == before[area..]);

    // from a header of which one copy is damaged
    for at in [0, 0x4000] {
        std::fs::write(&path, &before).unwrap();
        File::options().write(true).open(&path).unwrap().write_all_at(&[0; 512], at).unwrap();
        cut_everywhere(&path, &backup, Rest::Replaced, [2, 1]);
    }
}

#[test]
fn only_what_the_key_opens_is_restored() {
    let (_dir, path) = disk();
    format(&path, SIZE, &spec(), &key(1)).unwrap();
    let backup = image(&path);
    let before = std::fs::read(&path).unwrap();
    let disk = File::options().read(true).write(true).open(&path).unwrap();
    let restore = |image: &File, expected: &Expected, byte| restore(&path, &disk, image, expected, &key(byte));
    assert!(matches!(restore(&backup, &expected(), 2), Err(LuksError::WrongKey { .. })));
    assert!(matches!(restore(&backup, &other_uuid(), 1), Err(LuksError::OtherVolume { .. })));
    let token = Expected { key: source(9), ..expected() };
    assert!(matches!(restore(&backup, &token, 1), Err(LuksError::Policy(_))));
    let damaged = image(&path);
    damaged.write_all_at(&[0; 512], 0x8000 + 4096).unwrap();
    assert!(matches!(restore(&damaged, &expected(), 1), Err(LuksError::WrongKey { .. })));
    assert!(before == std::fs::read(&path).unwrap());

    // both copies are lost
    disk.write_all_at(&[0; 0x8000], 0).unwrap();
    assert_eq!(restore(&backup, &expected(), 1).unwrap().number, 0);
    assert!(before == std::fs::read(&path).unwrap());
}

#[test]
fn refuses_to_restore_a_header_with_a_former_volume_key() {
    let (_dir, path) = disk();
    let formatted = || {
        format(&path, SIZE, &spec(), &key(1)).unwrap();
        prove(&path, &expected(), &key(1)).unwrap().volume_key
    };
    let former = formatted();
    let backup = image(&path);
    // the same UUID, token and data key, as after a re-encryption
    let volume_key = formatted();
    assert!(former.is_some() && volume_key.is_some() && former != volume_key);
    let expected = Expected { volume_key: volume_key.clone(), ..expected() };
    let before = std::fs::read(&path).unwrap();
    let disk = File::options().read(true).write(true).open(&path).unwrap();
    let refused = restore(&path, &disk, &backup, &expected, &key(1));
    assert!(matches!(refused, Err(LuksError::Policy(PolicyViolation::OtherVolumeKey))), "{refused:?}");
    assert!(before == std::fs::read(&path).unwrap());
    // keyslots and tokens may change: it is the same volume key
    let changing = Expected { other: Some(source(6)), ..expected.clone() };
    add_key(&path, &changing, &Token::new(source(6), None), &key(1), &key(2)).unwrap();
    assert_eq!(prove(&path, &changing, &key(2)).unwrap().volume_key, volume_key);
    assert_eq!(restore(&path, &disk, &image(&path), &changing, &key(1)).unwrap().number, 0);
    // without a record, only the key decides
    let unknown = Expected { volume_key: None, ..expected };
    assert_eq!(restore(&path, &disk, &backup, &unknown, &key(1)).unwrap().number, 0);
}

#[test]
fn begins_no_reencryption_under_a_header_with_a_former_volume_key() {
    let (_dir, path) = disk();
    format(&path, SIZE, &spec(), &key(1)).unwrap();
    let before = std::fs::read(&path).unwrap();
    let volume_key = Some(VolumeKeyId("of another".to_owned()));
    let expected = Expected { reencrypting: true, volume_key, ..expected() };
    let volume = OpenVolume { device: &path, name: "none", expected: &expected, former: None };
    let refused = reencrypt(volume, &key(1), None, Box::new(|_| true));
    assert!(matches!(refused, Err(LuksError::Policy(PolicyViolation::OtherVolumeKey))), "{refused:?}");
    assert!(before == std::fs::read(&path).unwrap());
}

#[test]
fn a_backup_says_of_what_it_is_and_damage_to_it_is_seen() {
    use crate::luks2::{BackupOrigin, note_about, read_backup};

    let (_dir, path) = disk();
    format(&path, SIZE, &spec(), &key(1)).unwrap();
    let file = image(&path);
    assert!(read_backup(&file).unwrap_err().to_string().contains("not a header backup of luks-agent"));
    let origin = BackupOrigin {
        serial: Some("vol0".into()),
        role: "ebs".into(),
        mount_point: Some("/mnt".into()),
        instance_id: None,
        created: jiff::Timestamp::UNIX_EPOCH,
    };
    let note = note_about(&file, origin.clone(), SIZE).unwrap();
    file.write_all_at(&note, DATA_OFFSET).unwrap();
    let (read, header) = read_backup(&file).unwrap();
    assert_eq!((&read.origin, read.luks_uuid, read.disk_size), (&origin, expected().luks_uuid, SIZE));
    assert_eq!((header.keyslots.len(), header.tokens[0].kind.as_str()), (1, "luks-agent-awskms"));
    let text = header.to_string();
    assert!(text.contains("keyslot 0: pbkdf2, token 0\n") && text.contains("both copies are intact"), "{text}");
    for at in [0, 4096 + 7, 0x8000, DATA_OFFSET - 1, DATA_OFFSET, DATA_OFFSET + 40] {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
        assert!(read_backup(&file).is_err(), "byte {at}");
        file.write_all_at(&byte, at).unwrap();
    }
    file.set_len(DATA_OFFSET + note.len() as u64 / 2).unwrap();
    assert!(read_backup(&file).is_err());
    file.set_len(DATA_OFFSET - 1).unwrap();
    assert!(read_backup(&file).is_err());
}
