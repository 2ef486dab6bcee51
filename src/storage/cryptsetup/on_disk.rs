//! Loads the header of a volume from its disk, and opens a copy of it after the policy check.

use std::fs::File;
use std::path::Path;

use libcryptsetup_rs::consts::flags::CryptActivate;
use libcryptsetup_rs::consts::vals::EncryptionFormat;
use libcryptsetup_rs::{CryptDevice, LibcryptErr};
use uuid::Uuid;

use super::call::{LOG, call, init, init_with_header};
use super::error::LuksError;
use crate::key::Passphrase;
use crate::luks2::{
    DATA_OFFSET, Expected, Luks2Header, Opened, ProvenKeyslot, VolumeKeyId, check_header, forget_cached,
};
use crate::storage::header_copy::HeaderCopy;

/// A header on a disk, before the policy check.
pub(super) struct OnDisk {
    pub(super) cd: CryptDevice,
    file: File,
    header: Luks2Header,
}

impl OnDisk {
    /// Loads the header with libcryptsetup, which repairs a damaged copy, then reads it and checks its UUID.
    pub(super) fn load(device: &Path, luks_uuid: Uuid) -> Result<Self, LuksError> {
        let mut cd = init(device)?;
        call("read the LUKS2 header", cd.context_handle().load::<()>(Some(EncryptionFormat::Luks2), None))?;
        let file = File::open(device).map_err(|e| LuksError::Header(e.into()))?;
        let header = Luks2Header::read_intact(&file).map_err(|e| LuksError::Header(e.into()))?;
        if header.luks_uuid != luks_uuid {
            return Err(LuksError::OtherVolume { expected: luks_uuid, found: header.luks_uuid });
        }
        Ok(Self { cd, file, header })
    }

    /// Returns its JSON.
    pub(super) fn metadata(&self) -> &serde_json::Value {
        self.header.metadata.as_ref().unwrap_or(&serde_json::Value::Null)
    }

    /// Checks the header against the policy and loads a copy of the header that has passed.
    pub(super) fn checked(&self, device: &Path, expected: &Expected) -> Result<Checked, LuksError> {
        Checked::new(&self.header, &self.file, device, expected)
    }
}

/// A handle on a copy of a header that has passed the policy, and on the disk with the data.
pub(super) struct Checked {
    // declared first, so that it is dropped before the copy that it reads
    pub(super) cd: CryptDevice,
    pub(super) copy: HeaderCopy,
    volume_key: Option<VolumeKeyId>,
}

impl Checked {
    fn new(header: &Luks2Header, disk: &File, device: &Path, expected: &Expected) -> Result<Self, LuksError> {
        let metadata = header.metadata.as_ref().unwrap_or(&serde_json::Value::Null);
        check_header(metadata, expected)?;
        let copy = HeaderCopy::new(header, disk).map_err(|e| LuksError::Header(e.into()))?;
        let mut cd = init_with_header(&copy.path(), device)?;
        let loaded = cd.context_handle().load::<()>(Some(EncryptionFormat::Luks2), None);
        call("read the copy of the LUKS2 header", loaded)?;
        Ok(Self { cd, copy, volume_key: VolumeKeyId::of(metadata) })
    }

    /// Reads the header from the disk, not from a cache, and writes nothing: libcryptsetup, which would repair a damaged copy, never
    /// sees the disk's own header.
    pub(super) fn read(device: &Path, expected: &Expected) -> Result<Self, LuksError> {
        let file = File::open(device).map_err(|e| LuksError::Header(e.into()))?;
        forget_cached(&file, &(0..DATA_OFFSET));
        Self::of(&file, device, expected)
    }

    /// Reads the header at the beginning of a file, for the data on a device.
    pub(super) fn of(file: &File, device: &Path, expected: &Expected) -> Result<Self, LuksError> {
        let header = Luks2Header::read_intact(file).map_err(|e| LuksError::Header(e.into()))?;
        if header.luks_uuid != expected.luks_uuid {
            return Err(LuksError::OtherVolume { expected: expected.luks_uuid, found: header.luks_uuid });
        }
        Self::new(&header, file, device, expected)
    }

    /// Describes what a key has opened: this keyslot.
    pub(super) fn opened(&self, keyslot: u32) -> Result<Opened, LuksError> {
        let keyslot = self.copy.proven(keyslot).map_err(|e| LuksError::Header(e.into()))?;
        Ok(Opened { keyslot, volume_key: self.volume_key.clone() })
    }
}

pub(super) fn load(device: &Path, expected: &Expected) -> Result<Checked, LuksError> {
    OnDisk::load(device, expected.luks_uuid)?.checked(device, expected)
}

/// Proves that the passphrase opens the volume, without opening it. Returns the number of the keyslot.
///
/// With [`CryptActivate::KEYRING_KEY`] as `keyring`, it leaves the volume key in the keyring of this thread.
pub(super) fn check_key(
    volume: &mut Checked,
    luks_uuid: Uuid,
    key: &Passphrase,
    keyring: CryptActivate,
) -> Result<u32, LuksError> {
    match volume.cd.activate_handle().activate_by_passphrase(None, None, key.expose(), keyring) {
        Err(e) if is_not_permitted(&e) => {
            LOG.take();
            Err(if key.is_recovery_key() {
                LuksError::WrongRecoveryKey { luks_uuid }
            } else {
                LuksError::WrongKey { luks_uuid }
            })
        }
        other => call("try the key", other),
    }
}

/// Proves that the passphrase opens the volume, as [`check_key`], and describes the keyslot.
pub(super) fn prove(volume: &mut Checked, luks_uuid: Uuid, key: &Passphrase) -> Result<ProvenKeyslot, LuksError> {
    prove_opened(volume, luks_uuid, key).map(|opened| opened.keyslot)
}

/// Proves that the passphrase opens the volume, as [`check_key`], and describes what it opens.
pub(super) fn prove_opened(volume: &mut Checked, luks_uuid: Uuid, key: &Passphrase) -> Result<Opened, LuksError> {
    let keyslot = check_key(volume, luks_uuid, key, CryptActivate::empty())?;
    volume.opened(keyslot)
}

/// Returns whether this is the error of libcryptsetup for a passphrase that opens no keyslot.
pub(super) fn is_not_permitted(error: &LibcryptErr) -> bool {
    matches!(error, LibcryptErr::IOError(e) if e.raw_os_error() == Some(nix::libc::EPERM))
}
