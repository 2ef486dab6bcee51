//! Recovery keys beside the data key, in plain files.

use std::path::Path;

use super::restored::cut_everywhere;
use super::*;
use crate::luks2::HeaderFacts;
use crate::storage::header_swap::{Rest, replace};

fn recovery() -> Passphrase {
    Passphrase::new_recovery_key().unwrap()
}

fn enroll(path: &Path, recovery: &Passphrase) -> Result<bool, LuksError> {
    let disk = File::options().read(true).write(true).open(path).unwrap();
    enroll_recovery(path, &disk, &expected(), &key(1), recovery)
}

fn header(path: &Path) -> HeaderFacts {
    HeaderFacts::read(&File::open(path).unwrap()).unwrap().unwrap()
}

/// The keyslots by number, each with its key derivation and the types of its tokens.
fn keyslots(path: &Path) -> Vec<(u32, String, Vec<String>)> {
    let header = header(path);
    let kinds = |tokens: &[u32]| {
        let of = header.tokens.iter().filter(|token| tokens.contains(&token.number));
        of.map(|token| token.kind.clone()).collect()
    };
    header.keyslots.iter().map(|keyslot| (keyslot.number, keyslot.kdf.clone(), kinds(&keyslot.tokens))).collect()
}

#[test]
fn a_recovery_key_opens_the_volume_until_it_is_replaced_or_removed_and_other_keyslots_stay() {
    let (_dir, path) = disk();
    format(&path, SIZE, &spec(), &key(1)).unwrap();
    let mut cd = OnDisk::load(&path, expected().luks_uuid).unwrap().cd;
    cd.settings_handle().set_pbkdf_type(&minimal_pbkdf()).unwrap();
    cd.keyslot_handle().add_by_passphrase(None, key(1).expose(), b"of somebody else").unwrap();
    drop(cd);
    let before = keyslots(&path);

    let (first, second) = (recovery(), recovery());
    assert!(!enroll(&path, &first).unwrap());
    let opens = |key: &Passphrase| prove(&path, &expected(), key);
    assert_eq!((opens(&first).unwrap().keyslot.number, opens(&key(1)).unwrap().keyslot.number), (2, 0));
    let own = |number, kdf: &str, token: &str| (number, kdf.to_owned(), vec![token.to_owned()]);
    assert_eq!(keyslots(&path)[2], own(2, "argon2id", "luks-agent-recovery"));
    assert!(header(&path).keyslots[0].preferred, "argon2id would be tried first");
    // stock cryptsetup and the agent check the same header
    verify(&path, &expected(), &first).unwrap();

    assert!(enroll(&path, &second).unwrap(), "an earlier one was there");
    assert!(matches!(opens(&first), Err(LuksError::WrongRecoveryKey { .. })));
    assert_eq!((opens(&second).is_ok(), keyslots(&path).len()), (true, 3));

    assert_eq!(remove_recovery(&path, &expected(), &key(1)).unwrap(), 1);
    assert!(matches!(opens(&second), Err(LuksError::WrongRecoveryKey { .. })));
    assert_eq!(keyslots(&path), before);
    assert_eq!(remove_recovery(&path, &expected(), &key(1)).unwrap(), 0);
}

#[test]
fn in_fips_mode_a_recovery_key_has_pbkdf2() {
    let (_dir, path) = disk();
    format(&path, SIZE, &spec(), &key(1)).unwrap();
    let checked = OnDisk::load(&path, expected().luks_uuid).unwrap().checked(&path, &expected()).unwrap();
    let recovery = recovery();
    let image = recovery::compose(checked, &expected(), &key(1), &recovery, &recovery::pbkdf(true)).unwrap();
    let disk = File::options().read(true).write(true).open(&path).unwrap();
    replace(&disk, image.file(), Rest::Kept).unwrap();
    assert!(keyslots(&path).iter().all(|(_, kdf, _)| kdf == "pbkdf2"), "{:?}", keyslots(&path));
    for (key, number) in [(&recovery, 1), (&key(1), 0)] {
        assert_eq!(prove(&path, &expected(), key).unwrap().keyslot.number, number);
    }
}

#[test]
fn only_the_data_key_enrolls_and_removes() {
    let (_dir, path) = disk();
    format(&path, SIZE, &spec(), &key(2)).unwrap();
    let before = std::fs::read(&path).unwrap();
    assert!(matches!(enroll(&path, &recovery()), Err(LuksError::WrongKey { .. })));
    assert!(matches!(remove_recovery(&path, &expected(), &key(1)), Err(LuksError::WrongKey { .. })));
    assert!(before == std::fs::read(&path).unwrap());
}

/// Somebody has made the token name the keyslot of the data key, or one of another token.
#[test]
fn a_token_that_names_another_keyslot_removes_none() {
    let (_dir, path) = disk();
    format(&path, SIZE, &spec(), &key(1)).unwrap();
    enroll(&path, &recovery()).unwrap();
    let mut cd = OnDisk::load(&path, expected().luks_uuid).unwrap().cd;
    cd.token_handle().assign_keyslot(1, Some(0)).unwrap();
    drop(cd);
    let before = keyslots(&path);
    let refused = remove_recovery(&path, &expected(), &key(1));
    assert!(matches!(refused, Err(LuksError::NotRecovery { keyslot: 0, .. })), "{refused:?}");
    assert_eq!(keyslots(&path), before);
}

#[test]
fn an_enrollment_can_be_cut_anywhere() {
    let (_dir, path) = disk();
    format(&path, SIZE, &spec(), &key(1)).unwrap();
    let before = keyslots(&path);
    let checked = OnDisk::load(&path, expected().luks_uuid).unwrap().checked(&path, &expected()).unwrap();
    let image = recovery::compose(checked, &expected(), &key(1), &recovery(), &recovery::pbkdf(false)).unwrap();
    assert_eq!(keyslots(&path), before, "it is composed in memory");
    let cuts = cut_everywhere(&path, image.file(), Rest::Kept, [1, 1]);
    assert_eq!(cuts, 4 * 6, "two areas and two copies");
    assert_eq!(keyslots(&path).len(), 2);
    assert!(enroll(&path, &recovery()).unwrap(), "the next run ends the work");
    assert_eq!(keyslots(&path).len(), 2);
}
