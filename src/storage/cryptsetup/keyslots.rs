//! Gives a volume a second key, and takes the first one away.
//!
//! Both change the header on the disk and may be interrupted anywhere: what they have done already is found and not done again. At
//! every moment the key of [`Expected::key`] opens the volume.

use std::fs::File;
use std::path::Path;

use libcryptsetup_rs::consts::flags::CryptActivate;
use libcryptsetup_rs::consts::vals::KeyslotPriority;
use libcryptsetup_rs::{LibcryptErr, TokenInput};
use uuid::Uuid;

use super::call::call;
use super::error::LuksError;
use super::minimal_pbkdf;
use super::on_disk::{Checked, OnDisk, check_key, load, prove};
use crate::key::Passphrase;
use crate::luks2::{Expected, ProvenKeyslot, Token};

/// The keyslots of a volume that has two keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BothKeyslots {
    /// The keyslot of the key that opens the volume.
    pub own: ProvenKeyslot,
    /// The keyslot of the added key; the same one if both wrap the same data key.
    pub added: ProvenKeyslot,
}

/// Gives the volume another key: its token, its keyslot and the link between both, in this order, so that the header never has a keyslot
/// without its wrapped key. Proves that it opens the volume.
///
/// `expected.other` is the added key, `own` and `added` are the passphrases. If they are the same, because the data key was only wrapped
/// again, there is one keyslot with two tokens.
///
/// # Errors
/// [`LuksError::WrongKey`] if `own` does not open the volume; any other error if libcryptsetup or the policy rejects the header.
pub fn add_key(
    device: &Path,
    expected: &Expected,
    token: &Token,
    own: &Passphrase,
    added: &Passphrase,
) -> Result<BothKeyslots, LuksError> {
    let mut on_disk = OnDisk::load(device, expected.luks_uuid)?;
    let mut copy = on_disk.checked(device, expected)?;
    prove(&mut copy, expected.luks_uuid, own)?;
    let present = keyslot_of(&mut copy, expected.luks_uuid, added)?;
    let token_number = match Token::find_of(on_disk.metadata(), &token.source()) {
        Some((number, _)) => number,
        None => {
            let json = serde_json::to_value(token).map_err(LibcryptErr::JsonError);
            let json = call("encode the token", json)?;
            call("write the token", on_disk.cd.token_handle().json_set(TokenInput::AddToken(&json)))?
        }
    };
    let keyslot = match present {
        Some(keyslot) => keyslot,
        None => {
            // this setting applies to this handle only
            call("choose PBKDF2", on_disk.cd.settings_handle().set_pbkdf_type(&minimal_pbkdf()))?;
            let mut keyslots = on_disk.cd.keyslot_handle();
            call("add the keyslot", keyslots.add_by_passphrase(None, own.expose(), added.expose()))?
        }
    };
    // otherwise a keyslot with a lower number, such as that of a recovery key, is tried first, with its slow derivation
    let preferred = on_disk.cd.keyslot_handle().set_priority(keyslot, KeyslotPriority::Prefer);
    call("prefer the keyslot", preferred)?;
    let assigned = on_disk.cd.token_handle().assign_keyslot(token_number, Some(keyslot));
    call("assign the token to the keyslot", assigned)?;
    drop(on_disk);
    sync(device)?;
    // read again from the disk
    let mut copy = load(device, expected)?;
    Ok(BothKeyslots {
        own: prove(&mut copy, expected.luks_uuid, own)?,
        added: prove(&mut copy, expected.luks_uuid, added)?,
    })
}

/// Takes a key away from the volume: its keyslot, then its token.
///
/// `expected.other` is that key, `keyslot` what it opened, `own` the passphrase of the key that stays, which must open the volume. A
/// keyslot that is not as it was when the agent's key opened it is not the agent's to remove; it stays, and the return value says so.
///
/// # Errors
/// As [`add_key`].
pub fn remove_key(
    device: &Path,
    expected: &Expected,
    keyslot: &ProvenKeyslot,
    own: &Passphrase,
) -> Result<Removal, LuksError> {
    let mut on_disk = OnDisk::load(device, expected.luks_uuid)?;
    let mut copy = on_disk.checked(device, expected)?;
    let kept = prove(&mut copy, expected.luks_uuid, own)?;
    let former = expected.other.as_ref().and_then(|source| Token::find_of(on_disk.metadata(), source));
    let is_begun = former
        .as_ref()
        .is_some_and(|(_, token)| token.removing && token.keyslots.contains(&keyslot.number.to_string()));
    let mut removal = Removal::Done;
    if keyslot.number != kept.number {
        match copy.copy.proven(keyslot.number) {
            Ok(found) if found == *keyslot || is_begun => {
                if let Some((number, token)) = &former {
                    mark_for_removal(&mut on_disk, *number, token)?;
                }
                let destroyed = on_disk.cd.keyslot_handle().destroy(keyslot.number);
                call(format!("remove keyslot {}", keyslot.number), destroyed)?;
            }
            Ok(_) => removal = Removal::KeyslotLeft { number: keyslot.number },
            // an earlier attempt has removed it
            Err(_) => {}
        }
    }
    if let Some((number, _)) = former {
        call("remove the token", on_disk.cd.token_handle().json_set(TokenInput::RemoveToken(number)))?;
    }
    drop(on_disk);
    sync(device)?;
    let alone = Expected { other: None, ..expected.clone() };
    prove(&mut load(device, &alone)?, expected.luks_uuid, own)?;
    Ok(removal)
}

/// What [`remove_key`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removal {
    /// The keyslot and the token are gone.
    Done,
    /// The token is gone. The keyslot has changed since the agent's key opened it, so it is left.
    KeyslotLeft {
        /// Its number.
        number: u32,
    },
}

/// Records in the token that its keyslot is the agent's and goes, before a byte of it is overwritten.
pub(super) fn mark_for_removal(on_disk: &mut OnDisk, number: u32, token: &Token) -> Result<(), LuksError> {
    let json = serde_json::to_value(Token { removing: true, ..token.clone() }).map_err(LibcryptErr::JsonError);
    let json = call("encode the token", json)?;
    let marked = on_disk.cd.token_handle().json_set(TokenInput::ReplaceToken(number, &json));
    call("mark the token", marked).map(drop)
}

/// Returns the number of the keyslot that the passphrase opens, if it opens one.
fn keyslot_of(volume: &mut Checked, luks_uuid: Uuid, key: &Passphrase) -> Result<Option<u32>, LuksError> {
    match check_key(volume, luks_uuid, key, CryptActivate::empty()) {
        Err(LuksError::WrongKey { .. }) => Ok(None),
        other => other.map(Some),
    }
}

pub(super) fn sync(device: &Path) -> Result<(), LuksError> {
    File::open(device).and_then(|d| d.sync_all()).map_err(LuksError::Sync)
}
