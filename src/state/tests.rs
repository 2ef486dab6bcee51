use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use uuid::Uuid;

use super::file::{FILE, TEMPORARY};
use super::seal::without_whitespace;
use super::*;
use crate::error::IoError;
use crate::luks2::HeaderPolicy;

fn dir() -> tempfile::TempDir {
    // not /tmp, which may be in memory, where a state directory is refused
    let target = concat!(env!("CARGO_MANIFEST_DIR"), "/target");
    fs::create_dir_all(target).unwrap();
    tempfile::tempdir_in(target).unwrap()
}

#[test]
fn what_is_saved_is_read_back() {
    let tmp = dir();
    let path = tmp.path().join("a/b");
    assert_eq!(read(&path).unwrap(), None);
    let store = StateDir::create(&path).unwrap();
    assert_eq!(store.load().unwrap(), State::default());
    store.save(&State::sample()).unwrap();
    assert_eq!(store.load().unwrap(), State::sample());
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
    assert_eq!(fs::metadata(path.join(FILE)).unwrap().mode() & 0o7777, 0o600);
    // content that a faulty disk or another writer would leave
    assert!(store.holds(&State::sample()).is_ok());
    assert!(store.holds(&State::default()).is_err());
    fs::remove_file(path.join(FILE)).unwrap();
    assert!(store.holds(&State::sample()).is_err());
}

#[test]
fn only_one_agent_at_a_time() {
    let tmp = dir();
    let path = tmp.path().join("state");
    for dir_exists in [false, true] {
        let first = StateDir::create(&path).unwrap();
        let message = StateDir::create(&path).unwrap_err().to_string();
        assert!(message.contains(&format!("running (pid {}, ", std::process::id())), "{dir_exists}: {message}");
        // not "never provisioned": the first run may be about to provision
        assert!(matches!(StateDir::open(&path), Err(StateError::Locked { .. })), "{dir_exists}");
        first.save(&State::sample()).unwrap();
        assert!(matches!(StateDir::create(&path), Err(StateError::Locked { .. })), "{dir_exists}");
        drop(first);
    }
    StateDir::create(&path).unwrap();
}

#[test]
fn a_run_that_has_nothing_to_keep_leaves_no_directory_and_one_that_finds_one_leaves_that() {
    let tmp = dir();
    let path = tmp.path().join("state");
    drop(StateDir::create(&path).unwrap());
    assert!(!path.exists());
    fs::create_dir(&path).unwrap();
    drop(StateDir::create(&path).unwrap());
    assert!(path.exists());
}

#[test]
fn nobody_else_can_open_what_is_locked() {
    let tmp = dir();
    let path = tmp.path().join("state");
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    let store = StateDir::create(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
    store.save(&State::sample()).unwrap();
    // what only the agent has in it is its own
    drop(store);
    fs::write(path.join(TEMPORARY), "").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    let _store = StateDir::create(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
}

#[test]
fn a_directory_with_what_is_not_the_agents_stays_open_to_others() {
    let tmp = dir();
    fs::set_permissions(tmp.path(), Permissions::from_mode(0o755)).unwrap();
    fs::write(tmp.path().join("passwd"), "").unwrap();
    let store = StateDir::create(tmp.path()).unwrap();
    store.save(&State::sample()).unwrap();
    assert_eq!(fs::metadata(tmp.path()).unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn nothing_is_saved_into_a_directory_that_is_not_the_locked_one() {
    let tmp = dir();
    let path = tmp.path().join("state");
    let store = StateDir::create(&path).unwrap();
    fs::rename(&path, tmp.path().join("away")).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(matches!(store.save(&State::sample()), Err(StateError::Replaced { .. })));
    assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
}

#[test]
fn a_node_that_was_never_provisioned_is_told_so_and_left_as_it_is() {
    let tmp = dir();
    let path = tmp.path().join("state");
    let message = StateDir::open(&path).unwrap_err().to_string();
    assert!(message.contains("run 'luks-agent provision' first"), "{message}");
    assert!(!path.exists());
}

#[test]
fn every_truncation_is_damage_and_a_torn_temporary_file_is_nothing() {
    let tmp = dir();
    let store = StateDir::create(tmp.path()).unwrap();
    store.save(&State::sample()).unwrap();
    let whole = fs::read(tmp.path().join(FILE)).unwrap();
    fs::write(tmp.path().join(TEMPORARY), &whole[..9]).unwrap();
    assert_eq!(store.load().unwrap(), State::sample());
    for length in 0..whole.len() - 1 {
        fs::write(tmp.path().join(FILE), &whole[..length]).unwrap();
        assert!(matches!(store.load(), Err(StateError::Damaged { .. })), "{length}");
    }
}

#[test]
fn a_flipped_bit_is_damage_or_means_nothing() {
    let tmp = dir();
    let store = StateDir::create(tmp.path()).unwrap();
    store.save(&State::sample()).unwrap();
    let whole = fs::read(tmp.path().join(FILE)).unwrap();
    for bit in 0..(whole.len() - 1) * 8 {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        fs::write(tmp.path().join(FILE), flipped).unwrap();
        match store.load() {
            Err(StateError::Damaged { .. } | StateError::Newer { .. }) => {}
            // the case of a letter may mean nothing, as in a timestamp
            Ok(same) => assert_eq!(same, State::sample(), "bit {bit}"),
            Err(e) => panic!("bit {bit}: {e}"),
        }
    }
}

const VERSION_1: &str = include_str!("../../tests/fixtures/state/version-1.json");
const VERSION_2: &str = include_str!("../../tests/fixtures/state/version-2.json");
const VERSION_3: &str = include_str!("../../tests/fixtures/state/version-3.json");
const VERSION_4: &str = include_str!("../../tests/fixtures/state/version-4.json");

/// The fixtures are files as the releases wrote them.
#[test]
fn files_of_every_format_version_are_read_and_what_is_read_is_written_in_the_latest() {
    let tmp = dir();
    let store = StateDir::create(tmp.path()).unwrap();
    for (text, instance, keys, volumes) in [
        // without layouts: its volumes must satisfy the first policy
        (VERSION_1, None, 1, [(1, VolumeRole::Ebs, Phase::Committed), (1, VolumeRole::InstanceStore, Phase::Intent)]),
        (
            VERSION_2,
            Some("i-1234567890abcdef0"),
            2,
            [(1, VolumeRole::Ebs, Phase::Committed), (2, VolumeRole::InstanceStore, Phase::Intent)],
        ),
        (
            VERSION_3,
            Some("i-1234567890abcdef0"),
            2,
            [(1, VolumeRole::Ebs, Phase::Committed), (2, VolumeRole::InstanceStore, Phase::Intent)],
        ),
        (
            VERSION_4,
            Some("i-1234567890abcdef0"),
            4,
            [(1, VolumeRole::Ebs, Phase::Committed), (2, VolumeRole::InstanceStore, Phase::Intent)],
        ),
    ] {
        fs::write(tmp.path().join(FILE), text).unwrap();
        let state = store.load().unwrap();
        assert_eq!((state.instance_id.as_deref(), state.keys.len()), (instance, keys));
        let found: Vec<_> = state.volumes.iter().take(2).map(|v| (v.key, v.role, v.phase)).collect();
        assert_eq!(found, volumes);
        assert_eq!(state.volumes[0].header, HeaderPolicy::Possible);
        assert_eq!(state.volumes[0].keyslot.is_some(), [VERSION_3, VERSION_4].contains(&text));
        assert_eq!(state.volumes[0].volume_key.is_some(), text == VERSION_4);
        assert!(state.volumes.iter().skip(1).all(|volume| volume.volume_key.is_none()), "as in files without it");
        store.save(&state).unwrap();
        assert_eq!(store.load().unwrap(), state);
    }
    // byte for byte, because other releases must be able to check the file
    assert_eq!(fs::read_to_string(tmp.path().join(FILE)).unwrap(), VERSION_4);
    let state = store.load().unwrap();
    let wanted: Vec<_> = state.volumes.iter().map(|v| (state.is_behind(v), state.wanted_key(v))).collect();
    assert_eq!(wanted, [(true, 3), (false, 3), (false, 3)], "of phases committed, intent, erasing");
}

#[test]
fn the_checksum_is_that_of_the_bytes_however_they_are_put() {
    let tmp = dir();
    let store = StateDir::create(tmp.path()).unwrap();
    let path = tmp.path().join(FILE);
    fs::write(&path, VERSION_2).unwrap();
    let state = store.load().unwrap();
    fs::write(&path, include_str!("../../tests/fixtures/state/version-2-reordered.json")).unwrap();
    assert_eq!(store.load().unwrap(), state);
    fs::write(&path, without_whitespace(VERSION_2.as_bytes())).unwrap();
    assert_eq!(store.load().unwrap(), state);
    // whitespace in a string is not between tokens
    let quoted = br#"{ "a\\" : "b \" : c", "d": [1, 2] }"#;
    assert_eq!(without_whitespace(quoted), br#"{"a\\":"b \" : c","d":[1,2]}"#);
}

#[test]
fn a_file_that_another_program_has_rewritten_is_read_without_its_checksum_and_not_with_it() {
    let tmp = dir();
    let store = StateDir::create(tmp.path()).unwrap();
    let path = tmp.path().join(FILE);
    // sorts the fields by name, like jq -S
    let mut sorted: serde_json::Value = serde_json::from_str(VERSION_3).unwrap();
    fs::write(&path, sorted.to_string()).unwrap();
    let message = store.load().unwrap_err().to_string();
    assert!(message.contains("is damaged: its last field is not 'sha256'"), "{message}");
    assert!(message.contains("remove the field 'sha256'"), "{message}");
    sorted.as_object_mut().unwrap().remove("sha256").unwrap();
    fs::write(&path, sorted.to_string()).unwrap();
    let state = store.load().unwrap();
    fs::write(&path, VERSION_3).unwrap();
    assert_eq!(store.load().unwrap(), state);
}

#[test]
fn a_field_of_a_later_release_is_told_from_damage() {
    let tmp = dir();
    let store = StateDir::create(tmp.path()).unwrap();
    let path = tmp.path().join(FILE);
    let later = include_str!("../../tests/fixtures/state/version-3-later.json");
    fs::write(&path, later).unwrap();
    let message = store.load().unwrap_err().to_string();
    assert!(message.contains("a later luks-agent wrote it: unknown field `verified`"), "{message}");
    assert!(message.contains("install the release that wrote it"), "{message}");
    // without a matching checksum, nobody knows who wrote it
    fs::write(&path, later.replace("verified", "verifier")).unwrap();
    assert!(matches!(store.load(), Err(StateError::Damaged { .. })));
    let mut edited: serde_json::Value = serde_json::from_str(later).unwrap();
    edited.as_object_mut().unwrap().remove("sha256").unwrap();
    fs::write(&path, edited.to_string()).unwrap();
    assert!(matches!(store.load(), Err(StateError::Damaged { .. })));
}

/// Loads a state from a file that was edited by hand.
fn load(state: &State) -> Result<State, StateError> {
    let tmp = dir();
    fs::write(tmp.path().join(FILE), serde_json::to_vec(state).unwrap()).unwrap();
    StateDir::create(tmp.path()).unwrap().load()
}

#[test]
fn other_versions_are_refused() {
    let of = |version| load(&State { version, ..State::sample() });
    assert!(matches!(of(VERSION + 1), Err(StateError::Newer { version: 5, .. })));
    assert!(matches!(of(0), Err(StateError::Damaged { .. })));
    assert_eq!(of(1).unwrap(), State::sample());
}

#[test]
fn an_inconsistent_file_is_refused() {
    let mut two = State::sample();
    two.keys.push(KeyRecord { id: 2, ..two.keys[0].clone() });
    two.volumes.push(VolumeRecord { luks_uuid: Uuid::from_u128(8), key: 2, ..two.volumes[0].clone() });
    assert_eq!(load(&two).unwrap(), two);
    let damaged = |state: &State| match load(state) {
        Err(StateError::Damaged { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    let mut no_key = two.clone();
    no_key.volumes[1].key = 9;
    assert!(damaged(&no_key).contains("uses key 9, which does not exist"));
    let mut twice = two.clone();
    twice.volumes[1].luks_uuid = twice.volumes[0].luks_uuid;
    assert!(damaged(&twice).contains("is listed twice"));
    for by in [1, 9] {
        let mut lost = two.clone();
        lost.keys[0].replaced_by = Some(by);
        assert_eq!(damaged(&lost), "key 1 is replaced by a key that does not exist");
    }
    let mut changing = two.clone();
    changing.volumes[1].key_change = Some(KeyChange::Adding { key: 9 });
    assert!(damaged(&changing).contains("uses key 9, which does not exist"));
    two.keys[1].id = 1;
    two.volumes[1].key = 1;
    assert_eq!(damaged(&two), "a key ID is listed twice");
}

#[test]
fn a_file_that_cannot_be_opened_is_not_a_file_that_is_not_there() {
    let tmp = dir();
    let path = tmp.path().join(FILE);
    std::os::unix::fs::symlink(FILE, &path).unwrap();
    assert!(matches!(read(tmp.path()), Err(StateError::Io(IoError { action: "open", .. }))));
}

#[test]
fn a_file_that_others_may_write_is_refused() {
    let tmp = dir();
    let store = StateDir::create(tmp.path()).unwrap();
    store.save(&State::sample()).unwrap();
    let path = tmp.path().join(FILE);
    fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
    let message = store.load().unwrap_err().to_string();
    assert!(message.contains("has mode 0666"), "{message}");
}

#[test]
fn a_directory_in_memory_is_refused_unless_a_state_file_is_in_it() {
    let shm = Path::new("/dev/shm");
    assert!(shm.is_dir(), "this test needs a tmpfs on /dev/shm");
    let tmp = tempfile::tempdir_in(shm).unwrap();
    let create = || StateDir::create(tmp.path());
    assert!(matches!(create(), Err(StateError::InMemory { .. })));
    // with volumes of a node in it, which must open again
    fs::write(tmp.path().join(FILE), VERSION_3).unwrap();
    assert_eq!(create().unwrap().load().unwrap().volumes.len(), 2);
}
