//! A volume that changes its key, interrupted anywhere.

use super::*;
use crate::key::KeySource;

/// The volume with its key, 1, and the key that it gets or loses, 2.
fn changing() -> Expected {
    Expected { other: Some(source(6)), ..expected() }
}

/// The same volume with the roles of both keys exchanged.
fn changed() -> Expected {
    Expected { key: source(6), other: Some(source(5)), ..expected() }
}

fn alone(key: KeySource) -> Expected {
    Expected { key, other: None, ..expected() }
}

fn token() -> Token {
    Token::new(source(6), None)
}

fn metadata(path: &Path) -> serde_json::Value {
    OnDisk::load(path, expected().luks_uuid).unwrap().metadata().clone()
}

/// Returns the numbers of the keyslots, and of those of each token.
fn shape(path: &Path) -> (Vec<String>, Vec<Vec<String>>) {
    let metadata = metadata(path);
    let keyslots = metadata["keyslots"].as_object().unwrap().keys().cloned().collect();
    let tokens = metadata["tokens"].as_object().unwrap().values();
    (keyslots, tokens.map(|token| serde_json::from_value(token["keyslots"].clone()).unwrap()).collect())
}

#[test]
fn a_key_takes_the_place_of_another_and_each_step_can_be_repeated() {
    let (_dir, path) = disk();
    format(&path, SIZE, &spec(), &key(1)).unwrap();
    let both = add_key(&path, &changing(), &token(), &key(1), &key(2)).unwrap();
    assert_eq!((both.own.number, both.added.number), (0, 1));
    for number in [1, 2] {
        verify(&path, &changing(), &key(number)).unwrap();
    }
    let before = metadata(&path);
    assert_eq!(add_key(&path, &changing(), &token(), &key(1), &key(2)).unwrap(), both);
    assert_eq!((before["keyslots"].clone(), before["tokens"].clone()), {
        let after = metadata(&path);
        (after["keyslots"].clone(), after["tokens"].clone())
    });
    assert!(before.pointer("/keyslots/1/kdf/iterations").is_some_and(|iterations| iterations == 1000));

    for _ in 0..2 {
        assert_eq!(remove_key(&path, &changed(), &both.own, &key(2)).unwrap(), Removal::Done);
        verify(&path, &alone(source(6)), &key(2)).unwrap();
        assert!(matches!(verify(&path, &alone(source(6)), &key(1)), Err(LuksError::WrongKey { .. })));
        assert_eq!(shape(&path), (vec!["1".to_owned()], vec![vec!["1".to_owned()]]));
    }
}

#[test]
fn a_data_key_that_is_wrapped_again_keeps_its_keyslot() {
    let (_dir, path) = disk();
    format(&path, SIZE, &spec(), &key(1)).unwrap();
    let both = add_key(&path, &changing(), &token(), &key(1), &key(1)).unwrap();
    assert_eq!(both.own, both.added);
    assert_eq!(shape(&path).0, ["0"]);
    assert_eq!(remove_key(&path, &changed(), &both.own, &key(1)).unwrap(), Removal::Done);
    verify(&path, &alone(source(6)), &key(1)).unwrap();
    assert_eq!(shape(&path), (vec!["0".to_owned()], vec![vec!["0".to_owned()]]));
}

#[test]
fn what_an_interrupted_change_left_is_used() {
    // after the token; after the keyslot
    for keyslot in [false, true] {
        let (_dir, path) = disk();
        format(&path, SIZE, &spec(), &key(1)).unwrap();
        let mut cd = OnDisk::load(&path, expected().luks_uuid).unwrap().cd;
        let json = serde_json::to_value(token()).unwrap();
        cd.token_handle().json_set(TokenInput::AddToken(&json)).unwrap();
        if keyslot {
            cd.settings_handle().set_pbkdf_type(&minimal_pbkdf()).unwrap();
            cd.keyslot_handle().add_by_passphrase(None, key(1).expose(), key(2).expose()).unwrap();
        }
        drop(cd);
        verify(&path, &changing(), &key(1)).unwrap();
        add_key(&path, &changing(), &token(), &key(1), &key(2)).unwrap();
        assert_eq!(shape(&path).0, ["0", "1"]);
        assert_eq!(shape(&path).1, [["0"], ["1"]]);
    }
    // after the keyslot was removed, before the token was
    let (_dir, path) = disk();
    format(&path, SIZE, &spec(), &key(1)).unwrap();
    let both = add_key(&path, &changing(), &token(), &key(1), &key(2)).unwrap();
    OnDisk::load(&path, expected().luks_uuid).unwrap().cd.keyslot_handle().destroy(0).unwrap();
    verify(&path, &changed(), &key(2)).unwrap();
    assert_eq!(remove_key(&path, &changed(), &both.own, &key(2)).unwrap(), Removal::Done);
    verify(&path, &alone(source(6)), &key(2)).unwrap();
}

/// libcryptsetup overwrites a keyslot before it takes it out of the header.
#[test]
fn a_keyslot_whose_removal_was_interrupted_goes() {
    use std::os::unix::fs::FileExt as _;

    let (_dir, path) = disk();
    format(&path, SIZE, &spec(), &key(1)).unwrap();
    let both = add_key(&path, &changing(), &token(), &key(1), &key(2)).unwrap();
    let overwrite = || File::options().write(true).open(&path).unwrap().write_all_at(&[7; 9000], 0x8000).unwrap();
    let before = std::fs::read(&path).unwrap();
    // by somebody else: nothing says that the agent has begun
    overwrite();
    assert_eq!(remove_key(&path, &changed(), &both.own, &key(2)).unwrap(), Removal::KeyslotLeft { number: 0 });
    std::fs::write(&path, before).unwrap();
    let mut on_disk = OnDisk::load(&path, expected().luks_uuid).unwrap();
    let (number, former) = Token::find_of(on_disk.metadata(), &source(5)).unwrap();
    keyslots::mark_for_removal(&mut on_disk, number, &former).unwrap();
    drop(on_disk);
    overwrite();
    verify(&path, &changed(), &key(2)).unwrap();
    assert_eq!(remove_key(&path, &changed(), &both.own, &key(2)).unwrap(), Removal::Done);
    assert_eq!(shape(&path), (vec!["1".to_owned()], vec![vec!["1".to_owned()]]));
}

#[test]
fn a_keyslot_that_is_not_the_agents_stays() {
    let (_dir, path) = disk();
    format(&path, SIZE, &spec(), &key(1)).unwrap();
    let both = add_key(&path, &changing(), &token(), &key(1), &key(2)).unwrap();
    // somebody has put their own key in its place
    let mut cd = OnDisk::load(&path, expected().luks_uuid).unwrap().cd;
    cd.settings_handle().set_pbkdf_type(&minimal_pbkdf()).unwrap();
    cd.keyslot_handle().destroy(0).unwrap();
    cd.keyslot_handle().add_by_passphrase(Some(0), key(2).expose(), b"somebody's").unwrap();
    drop(cd);
    assert_eq!(remove_key(&path, &changed(), &both.own, &key(2)).unwrap(), Removal::KeyslotLeft { number: 0 });
    assert_eq!(shape(&path).0, ["0", "1"]);
    verify(&path, &alone(source(6)), &key(2)).unwrap();
}

#[test]
fn nothing_is_written_unless_the_key_that_stays_opens_the_volume() {
    let (_dir, path) = disk();
    format(&path, SIZE, &spec(), &key(1)).unwrap();
    let both = add_key(&path, &changing(), &token(), &key(1), &key(2)).unwrap();
    let before = std::fs::read(&path).unwrap();
    let wrong =
        |result: Result<(), LuksError>| assert!(matches!(result, Err(LuksError::WrongKey { .. })), "{result:?}");
    wrong(add_key(&path, &changing(), &token(), &key(3), &key(4)).map(drop));
    wrong(remove_key(&path, &changed(), &both.own, &key(3)).map(drop));
    // the header of another volume, or one that somebody changed
    assert!(add_key(&path, &other_uuid(), &token(), &key(1), &key(2)).is_err());
    assert!(remove_key(&path, &other_uuid(), &both.own, &key(2)).is_err());
    assert!(matches!(remove_key(&path, &alone(source(7)), &both.own, &key(2)), Err(LuksError::Policy(_))));
    assert!(before == std::fs::read(&path).unwrap());
}
