//! Creates, opens, grows and closes LUKS2 volumes. The only user of libcryptsetup.
//!
//! Each function opens its own handle and drops it. Callers check whether the disk may be written.

mod call;
mod error;
mod keyslots;
mod loaded;
mod on_disk;
mod plugins;
mod recovery;
mod reencrypt;
mod restore;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::path::Path;

use libcryptsetup_rs::consts::flags::{CryptActivate, CryptDeactivate, CryptPbkdf, CryptVolumeKey};
use libcryptsetup_rs::consts::vals::{CryptKdf, CryptStatusInfo, EncryptionFormat};
use libcryptsetup_rs::{
    CryptInit, CryptParamsLuks2, CryptParamsLuks2Ref, CryptPbkdfType, Either, LibcryptErr, TokenInput,
};

use self::call::{LOG, call, init};
pub use self::error::{HeaderFault, LuksError};
pub use self::keyslots::{BothKeyslots, Removal, add_key, remove_key};
pub use self::loaded::{Library, library};
use self::on_disk::{Checked, OnDisk, check_key, is_not_permitted, load};
pub use self::plugins::without_plugins;
pub use self::recovery::{enroll as enroll_recovery, remove as remove_recovery};
pub use self::reencrypt::{GoesOn, OpenVolume, Position, Reencryption, reencrypt};
pub use self::restore::restore;
use crate::key::Passphrase;
use crate::luks2::{DATA_OFFSET, Expected, Flags, FormatSpec, Opened, SUBSYSTEM, Token, grown_size, is_reencrypting};

/// PBKDF2 iterations: the minimum of cryptsetup and of FIPS providers (NIST SP 800-132). The passphrase already has 256 bits of
/// entropy, so stretching it would only take time. systemd-cryptenroll and clevis do the same for machine keys.
const PBKDF2_ITERATIONS: u32 = 1000;

const SECTOR: u64 = 512;

fn activation_flags(flags: Flags) -> CryptActivate {
    let flag = |on, bit| if on { bit } else { CryptActivate::empty() };
    flag(flags.discards, CryptActivate::ALLOW_DISCARDS)
        | flag(flags.no_read_workqueue, CryptActivate::NO_READ_WORKQUEUE)
        | flag(flags.no_write_workqueue, CryptActivate::NO_WRITE_WORKQUEUE)
}

fn minimal_pbkdf() -> CryptPbkdfType {
    CryptPbkdfType {
        type_: CryptKdf::Pbkdf2,
        hash: Some("sha512".to_owned()),
        time_ms: 0,
        iterations: PBKDF2_ITERATIONS,
        max_memory_kb: 0,
        parallel_threads: 0,
        flags: CryptPbkdf::NO_BENCHMARK,
    }
}

/// Formats a disk as a LUKS2 volume: writes the header, the token with the wrapped key and the keyslot, then proves that the key opens
/// it.
///
/// The token comes before the keyslot, so that the header never has a keyslot without its wrapped key.
///
/// # Errors
/// If libcryptsetup fails; the disk may then hold an unfinished header.
pub fn format(device: &Path, size: u64, spec: &FormatSpec, key: &Passphrase) -> Result<(), LuksError> {
    // libcryptsetup formats a disk that is too small without an error
    if size < 2 * DATA_OFFSET {
        return Err(LuksError::TooSmall { size });
    }
    let mut cd = init(device)?;
    // this setting applies to this handle only: a reloaded one would add keyslots with argon2id
    call("choose PBKDF2", cd.settings_handle().set_pbkdf_type(&minimal_pbkdf()))?;
    call("set the data offset", cd.set_data_offset(DATA_OFFSET / SECTOR))?;
    let params = CryptParamsLuks2 {
        pbkdf: None,
        integrity: None,
        integrity_params: None,
        data_alignment: 0,
        data_device: None,
        sector_size: spec.layout.sector_size,
        label: None,
        subsystem: Some(SUBSYSTEM.to_owned()),
    };
    let mut params: CryptParamsLuks2Ref<'_> = call("describe the header", (&params).try_into())?;
    let formatted = cd.context_handle().format(
        EncryptionFormat::Luks2,
        spec.layout.cipher.parts(),
        Some(spec.expected.luks_uuid),
        Either::Right(spec.layout.key_size as usize / 8),
        Some(&mut params),
    );
    call("write a LUKS2 header", formatted)?;
    let flags = activation_flags(spec.layout.flags);
    if !flags.is_empty() {
        let stored = cd.luks2_flag_handle::<CryptActivate>().persistent_flags_set(flags);
        call("store the flags in the header", stored)?;
    }
    let json = serde_json::to_value(spec.token()).map_err(LibcryptErr::JsonError);
    let json = call("encode the token", json)?;
    let slot = call("write the token", cd.token_handle().json_set(TokenInput::AddToken(&json)))?;
    let keyslot = cd.keyslot_handle().add_by_key(None, None, key.expose(), CryptVolumeKey::empty());
    let keyslot = call("add the keyslot", keyslot)?;
    call("assign the token to the keyslot", cd.token_handle().assign_keyslot(slot, Some(keyslot)))?;
    drop(cd);
    File::open(device).and_then(|d| d.sync_all()).map_err(LuksError::Sync)?;
    verify(device, &spec.expected, key)
}

/// Resumes an interrupted format.
///
/// Returns `true` if the header is complete, so it must be kept. Returns `false` if it has no keyslot yet: it never protected
/// anything, so the disk can be formatted again.
///
/// # Errors
/// If the passphrase does not open the keyslot, or the header is not what the agent writes.
pub fn resume(device: &Path, expected: &Expected, key: &Passphrase) -> Result<bool, LuksError> {
    let mut on_disk = OnDisk::load(device, expected.luks_uuid)?;
    let keyslots = on_disk.metadata().get("keyslots").and_then(serde_json::Value::as_object);
    let Some(keyslot) = keyslots.and_then(|slots| slots.keys().find_map(|id| id.parse().ok())) else {
        return Ok(false);
    };
    check_key(&mut on_disk.checked(device, expected)?, expected.luks_uuid, key, CryptActivate::empty())?;
    // `format` writes this last; writing it again does no harm
    if let Some((token, _)) = Token::find_of(on_disk.metadata(), &expected.key) {
        let assigned = on_disk.cd.token_handle().assign_keyslot(token, Some(keyslot));
        call("assign the token to the keyslot", assigned)?;
    }
    Ok(true)
}

/// Proves that the passphrase opens the volume, without opening it.
///
/// # Errors
/// [`LuksError::WrongKey`] if it does not; any other error if libcryptsetup or the policy rejects the header.
pub fn verify(device: &Path, expected: &Expected, key: &Passphrase) -> Result<(), LuksError> {
    check_key(&mut load(device, expected)?, expected.luks_uuid, key, CryptActivate::empty()).map(drop)
}

/// Proves that the passphrase opens the volume, as [`verify`], and returns what it opens. Writes nothing, whatever it finds.
///
/// # Errors
/// As [`verify`].
pub fn prove(device: &Path, expected: &Expected, key: &Passphrase) -> Result<Opened, LuksError> {
    on_disk::prove_opened(&mut Checked::read(device, expected)?, expected.luks_uuid, key)
}

/// Opens the volume as `/dev/mapper/NAME` and returns what the key opened.
///
/// It uses the same copy of the header that has passed the policy. If re-encryption was interrupted, libcryptsetup first repairs the disk
/// with the header there; its digest of those metadata then takes the place of the copy. From the copy it would repair the data as well,
/// but then the disk's header would still say that a hot zone is being overwritten, and re-encryption could not go on.
///
/// # Errors
/// [`LuksError::WrongKey`], [`LuksError::OtherVolume`], [`LuksError::Policy`], or any error of libcryptsetup.
pub fn open(device: &Path, name: &str, expected: &Expected, key: &Passphrase) -> Result<Opened, LuksError> {
    if expected.reencrypting {
        let mut on_disk = OnDisk::load(device, expected.luks_uuid)?;
        on_disk.checked(device, expected)?;
        if is_reencrypting(on_disk.metadata()) {
            reencrypt::recover(&mut on_disk, key)?;
        }
    }
    let mut volume = load(device, expected)?;
    // libcryptsetup adds the flags that are stored in the header
    let mut handle = volume.cd.activate_handle();
    let opened = handle.activate_by_passphrase(Some(name), None, key.expose(), CryptActivate::empty());
    if opened.as_ref().is_err_and(is_not_permitted) {
        // device-mapper returns EPERM as well, to a process without privileges. Only trying the key without a mapping tells the
        // two apart. Doing so every time would double the slowest part of opening.
        let log = LOG.take();
        check_key(&mut volume, expected.luks_uuid, key, CryptActivate::empty())?;
        LOG.set(log);
    }
    volume.opened(call("open the volume", opened)?)
}

/// The state of a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mapping {
    /// There is no mapping.
    Absent,
    /// A name without an active table: a process was killed while it opened the volume.
    Empty,
    /// The mapping is open.
    Open,
}

/// Returns the state of a mapping.
///
/// # Errors
/// If device-mapper does not answer.
pub fn mapping(name: &str) -> Result<Mapping, LuksError> {
    Ok(match call("query device-mapper", libcryptsetup_rs::status(None, name))? {
        CryptStatusInfo::Active | CryptStatusInfo::Busy => Mapping::Open,
        CryptStatusInfo::Inactive => Mapping::Absent,
        CryptStatusInfo::Invalid => Mapping::Empty,
    })
}

/// Grows the mapping of an open volume to a disk of `disk_size` bytes. Returns `false` if it has that size already.
///
/// libcryptsetup needs the volume key because it loads a new table. It only reads the header. The caller checks with
/// [`super::dm::check`] that the mapping is on this disk.
///
/// # Errors
/// As [`open`]; [`LuksError::LargerThanDisk`] if the mapping is larger than the disk, because mappings never shrink.
pub fn grow(
    device: &Path,
    disk_size: u64,
    name: &str,
    expected: &Expected,
    key: &Passphrase,
) -> Result<bool, LuksError> {
    let mut volume = load(device, expected)?;
    let active = call("query the mapping", volume.cd.runtime_handle(name).get_active_device())?;
    let (now, wanted) = (active.size, grown_size(disk_size) / SECTOR);
    if now > disk_size.saturating_sub(DATA_OFFSET) / SECTOR {
        return Err(LuksError::LargerThanDisk { mapper: name.to_owned(), mapping: now * SECTOR, disk: disk_size });
    }
    if now >= wanted {
        return Ok(false);
    }
    // if the mapping takes its key from the keyring, the key must be there for the new table
    let keyring = active.flags & CryptActivate::KEYRING_KEY;
    check_key(&mut volume, expected.luks_uuid, key, keyring)?;
    call(format!("grow mapping {name}"), volume.cd.context_handle().resize(name, wanted))?;
    Ok(true)
}

/// Removes a mapping.
///
/// # Errors
/// If it is in use or does not exist.
pub fn close(name: &str) -> Result<(), LuksError> {
    LOG.take();
    let mut cd = call(format!("use mapping {name}"), CryptInit::init_by_name_and_header(name, None))?;
    let closed = cd.activate_handle().deactivate(name, CryptDeactivate::empty());
    call(format!("close mapping {name}"), closed)
}
