//! Recovery keys: a second keyslot of a volume, and the token that marks it.

use std::fs::File;
use std::path::Path;

use libcryptsetup_rs::consts::flags::{CryptActivate, CryptPbkdf};
use libcryptsetup_rs::consts::vals::{CryptKdf, KeyslotPriority};
use libcryptsetup_rs::{CryptPbkdfType, TokenInput};

use super::call::call;
use super::error::LuksError;
use super::minimal_pbkdf;
use super::on_disk::{Checked, OnDisk, check_key};
use crate::fips;
use crate::key::Passphrase;
use crate::luks2::{Expected, RECOVERY_TOKEN_TYPE, RecoveryToken};
use crate::storage::header_copy::HeaderCopy;
use crate::storage::header_swap::{Rest, replace};

/// Returns argon2id with the time and parallelism that cryptsetup takes at least, and little memory.
///
/// A small node may open all its volumes at once, each in a process of its own. There is no benchmark, because a recovery key has 256
/// bits of entropy: stretching it adds nothing.
fn argon2id() -> CryptPbkdfType {
    CryptPbkdfType {
        type_: CryptKdf::Argon2Id,
        hash: Some("sha256".to_owned()),
        time_ms: 0,
        iterations: 4,
        max_memory_kb: 64 << 10,
        parallel_threads: 4,
        flags: CryptPbkdf::NO_BENCHMARK,
    }
}

/// Returns how the key of the keyslot is derived. In FIPS mode, libcryptsetup does nothing but PBKDF2.
pub(super) fn pbkdf(fips: bool) -> CryptPbkdfType {
    if fips { minimal_pbkdf() } else { argon2id() }
}

/// Adds a keyslot for the recovery key, with its token, to a volume that may be open. Then removes those of earlier recovery keys, and
/// returns whether there were any. `disk` is the device, open for writing.
///
/// libcryptsetup composes the new header in memory. It comes to the disk in one step, so that at no moment there is a keyslot without the
/// token that says whose it is.
///
/// # Errors
/// As [`super::verify`], and if the disk cannot be written.
pub fn enroll(
    device: &Path,
    disk: &File,
    expected: &Expected,
    key: &Passphrase,
    recovery: &Passphrase,
) -> Result<bool, LuksError> {
    let on_disk = OnDisk::load(device, expected.luks_uuid)?;
    let earlier = RecoveryToken::all(on_disk.metadata());
    let image = compose(on_disk.checked(device, expected)?, expected, key, recovery, &pbkdf(fips::is_on()))?;
    drop(on_disk);
    replace(disk, image.file(), Rest::Kept)?;
    super::prove(device, expected, recovery)?;
    super::prove(device, expected, key)?;
    remove_marked(device, expected, key, &earlier)?;
    Ok(!earlier.is_empty())
}

/// Adds the token and the keyslot to a copy of the header, and makes programs try the keyslot of the data key first.
pub(super) fn compose(
    mut volume: Checked,
    expected: &Expected,
    key: &Passphrase,
    recovery: &Passphrase,
    pbkdf: &CryptPbkdfType,
) -> Result<HeaderCopy, LuksError> {
    let own = check_key(&mut volume, expected.luks_uuid, key, CryptActivate::empty())?;
    let cd = &mut volume.cd;
    let token = call("write the token", cd.token_handle().json_set(TokenInput::AddToken(&RecoveryToken::json())))?;
    call("choose the KDF", cd.settings_handle().set_pbkdf_type(pbkdf))?;
    let added = cd.keyslot_handle().add_by_passphrase(None, key.expose(), recovery.expose());
    let keyslot = call("add the keyslot", added)?;
    call("assign the token to the keyslot", cd.token_handle().assign_keyslot(token, Some(keyslot)))?;
    call("prefer the keyslot of the data key", cd.keyslot_handle().set_priority(own, KeyslotPriority::Prefer))?;
    Ok(volume.copy)
}

/// Removes the keyslots and tokens of recovery keys, and no others. Returns how many tokens there were.
///
/// # Errors
/// [`LuksError::NotRecovery`] if a token claims a keyslot that is not one of a recovery key; nothing is removed then.
pub fn remove(device: &Path, expected: &Expected, key: &Passphrase) -> Result<usize, LuksError> {
    let tokens = RecoveryToken::all(OnDisk::load(device, expected.luks_uuid)?.metadata());
    remove_marked(device, expected, key, &tokens)?;
    Ok(tokens.len())
}

fn remove_marked(
    device: &Path,
    expected: &Expected,
    key: &Passphrase,
    tokens: &[RecoveryToken],
) -> Result<(), LuksError> {
    let mut on_disk = OnDisk::load(device, expected.luks_uuid)?;
    // the data key opens another keyslot, so none of these is the last
    let own = check_key(&mut on_disk.checked(device, expected)?, expected.luks_uuid, key, CryptActivate::empty())?;
    let keyslots: Vec<u32> = tokens.iter().flat_map(|token| token.keyslots.iter().copied()).collect();
    let others = RecoveryToken::keyslots_of_others(on_disk.metadata());
    if let Some(keyslot) = keyslots.iter().find(|keyslot| **keyslot == own || others.contains(keyslot)) {
        return Err(LuksError::NotRecovery { keyslot: *keyslot, kind: RECOVERY_TOKEN_TYPE });
    }
    // a keyslot before its token: a token without a keyslot is removed by the next run
    for keyslot in keyslots {
        call(format!("remove keyslot {keyslot}"), on_disk.cd.keyslot_handle().destroy(keyslot))?;
    }
    for RecoveryToken { number, .. } in tokens {
        let removed = on_disk.cd.token_handle().json_set(TokenInput::RemoveToken(*number));
        call(format!("remove token {number}"), removed)?;
    }
    drop(on_disk);
    File::open(device).and_then(|disk| disk.sync_all()).map_err(LuksError::Sync)?;
    super::prove(device, expected, key).map(drop)
}
