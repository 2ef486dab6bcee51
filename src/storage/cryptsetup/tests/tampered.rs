//! Headers that somebody with access to the disk has changed, checksums mended: real ones, on a file.

#![allow(clippy::print_stdout, reason = "the table of what was refused, and by whom")]

use std::os::unix::fs::FileExt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::*;
use crate::luks2::{Luks2Header, check_header};
use crate::storage::header_copy::HeaderCopy;

/// Size of each copy of the header as cryptsetup makes it: binary header and JSON area (LUKS2 on-disk format, section 2).
const COPY: usize = 16 << 10;
const BINARY: usize = 4096;
const CHECKSUM: std::ops::Range<usize> = 448..512;

/// Replaces the JSON of both copies, and mends their checksums.
fn rewrite(path: &Path, change: impl Fn(&mut Value)) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    for offset in [0, COPY as u64] {
        let mut copy = vec![0; COPY];
        file.read_exact_at(&mut copy, offset).unwrap();
        let end = copy[BINARY..].iter().position(|b| *b == 0).unwrap();
        let mut metadata = serde_json::from_slice(&copy[BINARY..BINARY + end]).unwrap();
        change(&mut metadata);
        let text = serde_json::to_vec(&metadata).unwrap();
        assert!(text.len() < COPY - BINARY, "the JSON area is full");
        copy[BINARY..].fill(0);
        copy[BINARY..BINARY + text.len()].copy_from_slice(&text);
        seal(&mut copy);
        file.write_all_at(&copy, offset).unwrap();
    }
}

/// Replaces bytes of both copies' binary headers, and mends their checksums.
fn rewrite_binary(path: &Path, at: usize, bytes: &[u8]) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    for offset in [0, COPY as u64] {
        let mut copy = vec![0; COPY];
        file.read_exact_at(&mut copy, offset).unwrap();
        copy[at..at + bytes.len()].copy_from_slice(bytes);
        seal(&mut copy);
        file.write_all_at(&copy, offset).unwrap();
    }
}

fn seal(copy: &mut [u8]) {
    copy[CHECKSUM].fill(0);
    let sum = Sha256::digest(&*copy);
    copy[CHECKSUM][..32].copy_from_slice(&sum);
}

type Change = Box<dyn Fn(&mut Value)>;

fn set(pointer: &'static str, value: Value) -> Change {
    Box::new(move |metadata| {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let parent = metadata.pointer_mut(parent).unwrap_or_else(|| panic!("no {pointer}"));
        if value.is_null() {
            parent.as_object_mut().unwrap().remove(name);
        } else {
            parent[name] = value.clone();
        }
    })
}

fn also(pointer: &'static str, like: &'static str, change: Change) -> Change {
    Box::new(move |metadata| {
        let copy = metadata.pointer(like).unwrap().clone();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        metadata.pointer_mut(parent).unwrap()[name] = copy;
        change(metadata);
    })
}

/// Who refused it.
fn refused(path: &Path) -> Option<String> {
    match verify(path, &expected(), &key(1)) {
        Ok(()) => None,
        Err(LuksError::Policy(violation)) => Some(format!("policy         {violation}")),
        Err(e @ LuksError::Header(_)) => Some(format!("copy           {e}")),
        Err(e @ (LuksError::Call { .. } | LuksError::OtherVolume { .. } | LuksError::WrongKey { .. })) => {
            Some(format!("libcryptsetup  {e}"))
        }
        Err(e) => panic!("{e}"),
    }
}

#[test]
fn tampered_headers_are_refused() {
    let nothing = || set("/config/nothing", Value::Null);
    let cases: Vec<(&str, Change)> = vec![
        ("null cipher", set("/segments/0/encryption", json!("cipher_null-ecb"))),
        ("null cipher, plain name", set("/segments/0/encryption", json!("null"))),
        ("cipher of no integrity of position", set("/segments/0/encryption", json!("aes-ecb"))),
        ("cipher that is not ours", set("/segments/0/encryption", json!("aes-cbc-essiv:sha256"))),
        ("cipher of ours, not the recorded one", set("/segments/0/encryption", json!("serpent-xts-plain64"))),
        ("cipher through the kernel's crypto API", set("/segments/0/encryption", json!("capi:xts(aes)-plain64"))),
        ("sector size", set("/segments/0/sector_size", json!(512))),
        ("data offset before the keyslots' end", set("/segments/0/offset", json!("32768"))),
        ("data offset far behind", set("/segments/0/offset", json!("33554432"))),
        ("segment of fixed size", set("/segments/0/size", json!("1048576"))),
        ("initial vector", set("/segments/0/iv_tweak", json!("8"))),
        ("linear segment", set("/segments/0", json!({"type": "linear", "offset": "16777216", "size": "dynamic"}))),
        ("a name that ends early for C", set("/segments\0", json!({"0": {"type": "linear"}}))),
        ("no segment", set("/segments", json!({}))),
        ("a second segment", {
            let linear = json!({"type": "linear", "offset": "33554432", "size": "dynamic"});
            also("/segments/1", "/segments/0", set("/segments/1", linear))
        }),
        ("segment under another number", also("/segments/1", "/segments/0", set("/segments/0", Value::Null))),
        ("backup segment flag", set("/segments/0/flags", json!(["backup-final"]))),
        (
            "integrity",
            set(
                "/segments/0/integrity",
                json!({"type": "hmac(sha256)", "journal_encryption": "none", "journal_integrity": "none"}),
            ),
        ),
        ("more flags", set("/config/flags", json!(["allow-discards", "no-read-workqueue", "no-write-workqueue"]))),
        ("less flags", set("/config/flags", json!(["allow-discards"]))),
        ("no flags", set("/config/flags", Value::Null)),
        ("other flags", set("/config/flags", json!(["allow-discards", "no-journal"]))),
        ("same-cpu-crypt for a flag of ours", set("/config/flags", json!(["allow-discards", "same-cpu-crypt"]))),
        ("online re-encryption", set("/config/requirements", json!({"mandatory": ["online-reencrypt-v2"]}))),
        ("a requirement nobody knows", set("/config/requirements", json!({"mandatory": ["other"]}))),
        ("no token", set("/tokens", json!({}))),
        ("token of another type", set("/tokens/0/type", json!("somebody-else"))),
        ("token with another wrapped key", set("/tokens/0/wrapped_key", json!("AQID"))),
        ("token with another KMS key", set("/tokens/0/key_arn", json!("arn:aws:kms:y"))),
        ("token of a later version without its fields", set("/tokens/0/wrapped_key", Value::Null)),
        ("a second token of ours", also("/tokens/1", "/tokens/0", nothing())),
        ("keyslot that is not encrypted", set("/keyslots/0/area/encryption", json!("cipher_null-ecb"))),
        ("keyslot with a cipher that is not ours", set("/keyslots/0/area/encryption", json!("aes-ecb"))),
        ("a second keyslot that is not encrypted", {
            also("/keyslots/1", "/keyslots/0", set("/keyslots/1/area/encryption", json!("cipher_null-ecb")))
        }),
        ("keyslot in the metadata", set("/keyslots/0/area/offset", json!("0"))),
        ("keyslot in the secondary copy", set("/keyslots/0/area/offset", json!("16384"))),
        ("keyslot in the data", set("/keyslots/0/area/offset", json!("16777216"))),
        ("keyslot longer than all", set("/keyslots/0/area/size", json!("18446744073709551104"))),
        ("keyslot shorter than its key", set("/keyslots/0/area/size", json!("4096"))),
        ("two keyslots in one place", also("/keyslots/1", "/keyslots/0", nothing())),
        ("keyslot with a key of 1 GiB", set("/keyslots/0/area/key_size", json!(1 << 30))),
        ("metadata larger than they are", set("/config/json_size", json!("61440"))),
        ("keyslots reaching into the data", set("/config/keyslots_size", json!("16748544"))),
        ("keyslot for re-encryption", set("/keyslots/0/type", json!("reencrypt"))),
        ("keyslot with a short volume key", set("/keyslots/0/key_size", json!(32))),
        ("no keyslot", set("/keyslots", json!({}))),
        // libcryptsetup alone opens this one, with any passphrase whatever
        ("digest shorter than its hash", set("/digests/0/digest", json!(STANDARD.encode([7; 32])))),
        ("digest of another key", set("/digests/0/digest", json!(STANDARD.encode([7; 64])))),
        ("digest with a weak hash", set("/digests/0/hash", json!("sha1"))),
        ("no digest", set("/digests", json!({}))),
    ];
    let whole = disk();
    format(&whole.1, SIZE, &spec(), &key(1)).unwrap();
    assert_eq!(refused(&whole.1), None);
    // so that what is refused below is not refused for the way it was written
    rewrite(&whole.1, nothing());
    assert_eq!(refused(&whole.1), None, "rewritten, but not changed");

    let (_dir, path) = disk();
    let mut by_policy = 0;
    for (name, change) in &cases {
        std::fs::copy(&whole.1, &path).unwrap();
        rewrite(&path, change);
        let by = refused(&path).unwrap_or_else(|| panic!("{name}: opened"));
        by_policy += usize::from(by.starts_with("policy"));
        println!("{name:45} {by}");
    }
    println!("{} headers refused, {by_policy} of them by the policy", cases.len());
    assert!(by_policy >= 20, "{by_policy}");
}

#[test]
fn tampered_binary_headers_are_refused() {
    let whole = disk();
    format(&whole.1, SIZE, &spec(), &key(1)).unwrap();
    let (_dir, path) = disk();
    for (name, at, bytes) in [
        ("another UUID", 168, Uuid::from_u128(1).to_string().into_bytes()),
        ("LUKS1", 6, vec![0, 1]),
        ("LUKS3", 6, vec![0, 3]),
        ("a header larger than it is", 8, 0x40_0000_u64.to_be_bytes().to_vec()),
    ] {
        std::fs::copy(&whole.1, &path).unwrap();
        rewrite_binary(&path, at, &bytes);
        let by = refused(&path).unwrap_or_else(|| panic!("{name}: opened"));
        println!("{name:45} {by}");
    }
}

/// A header made before the state file recorded layouts is held to the first policy, and one of today's would pass it too.
#[test]
fn volumes_of_the_first_policy_still_open() {
    let (_dir, path) = disk();
    format(&path, SIZE, &spec(), &key(1)).unwrap();
    let first = Expected { header: HeaderPolicy::Possible, ..expected() };
    verify(&path, &first, &key(1)).unwrap();
    rewrite(&path, set("/segments/0/encryption", json!("cipher_null-ecb")));
    assert!(matches!(verify(&path, &first, &key(1)), Err(LuksError::Policy(_))));
}

/// What is used is what was checked: after the check, nothing in the header area is read from the disk again.
#[test]
fn a_header_changed_after_its_check_is_not_the_one_that_is_used() {
    let (_dir, path) = disk();
    format(&path, SIZE, &spec(), &key(1)).unwrap();
    let on_disk = OnDisk::load(&path, expected().luks_uuid).unwrap();
    let mut checked = on_disk.checked(&path, &expected()).unwrap();
    rewrite(&path, set("/keyslots/0/area/encryption", json!("cipher_null-ecb")));
    check_key(&mut checked, expected().luks_uuid, &key(1), CryptActivate::empty()).unwrap();
    assert_eq!(checked.cd.status_handle().get_cipher().unwrap(), "aes");
    let metadata = checked.cd.status_handle().dump_json().unwrap();
    assert_eq!(metadata.pointer("/keyslots/0/area/encryption").unwrap(), "aes-xts-plain64");

    // not even the key material
    let disk = File::options().write(true).open(&path).unwrap();
    disk.write_all_at(&vec![0xff; usize::try_from(DATA_OFFSET).unwrap()], 0).unwrap();
    check_key(&mut checked, expected().luks_uuid, &key(1), CryptActivate::empty()).unwrap();
    assert!(load(&path, &expected()).is_err(), "it is gone from the disk");

    // between the reading and the check
    let mut checked = on_disk.checked(&path, &expected()).unwrap();
    let metadata = checked.cd.status_handle().dump_json().unwrap();
    assert_eq!(&metadata, on_disk.metadata());
    let wrong = check_key(&mut checked, expected().luks_uuid, &key(1), CryptActivate::empty());
    assert!(matches!(wrong, Err(LuksError::WrongKey { .. })), "key material of what is not the header any more");
}

/// libcryptsetup refuses such keyslots too, but it has read the disk before the agent does, and a disk need not answer the same
/// twice.
#[test]
fn a_keyslot_that_lies_elsewhere_is_copied_to_nowhere() {
    let (_dir, path) = disk();
    format(&path, SIZE, &spec(), &key(1)).unwrap();
    let file = File::open(&path).unwrap();
    HeaderCopy::new(&Luks2Header::read_intact(&file).unwrap(), &file).unwrap();
    for (pointer, value) in [
        ("/keyslots/0/area/offset", "0"),
        ("/keyslots/0/area/offset", "16384"),
        ("/keyslots/0/area/offset", "16777216"),
        ("/keyslots/0/area/size", "0"),
        // room for keyslots where the metadata are
        ("/config", r#"{"json_size": "0", "keyslots_size": "16769024"}"#),
    ] {
        rewrite(&path, |metadata| {
            let json = serde_json::from_str(value).ok().filter(Value::is_object);
            set(pointer, json.unwrap_or_else(|| json!(value)))(metadata);
            if pointer == "/config" {
                set("/keyslots/0/area/offset", json!("16384"))(metadata);
            }
        });
        let header = Luks2Header::read_intact(&file).unwrap();
        assert!(HeaderCopy::new(&header, &file).is_err(), "{pointer} {value}");
        format(&path, SIZE, &spec(), &key(1)).unwrap();
    }
}

/// A copy that was damaged is repaired on the disk, as cryptsetup would.
#[test]
fn a_damaged_copy_of_the_header_is_repaired_when_the_volume_is_used() {
    let (_dir, path) = disk();
    format(&path, SIZE, &spec(), &key(1)).unwrap();
    let whole = std::fs::read(&path).unwrap();
    for at in [BINARY + 1, COPY + BINARY + 1] {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        std::fs::write(&path, damaged).unwrap();
        verify(&path, &expected(), &key(1)).unwrap();
        let metadata = Luks2Header::read_intact(&File::open(&path).unwrap()).unwrap().metadata.unwrap();
        check_header(&metadata, &expected()).unwrap();
        let now = std::fs::read(&path).unwrap();
        assert_eq!(now[BINARY..COPY], whole[BINARY..COPY], "{at}");
        assert_eq!(now[COPY + BINARY..2 * COPY], whole[COPY + BINARY..2 * COPY], "{at}");
    }
}
