//! Restores the header of a volume from an image of its header area.

use std::fs::File;
use std::path::Path;

use libcryptsetup_rs::consts::flags::CryptActivate;

use super::error::LuksError;
use super::on_disk::{Checked, check_key};
use crate::key::Passphrase;
use crate::luks2::{Expected, ProvenKeyslot};
use crate::storage::header_swap::{Rest, replace};

/// Replaces the header of a volume by the one at the beginning of `image`, and returns the keyslot that the key opens. `disk` is the
/// device, open for writing.
///
/// Writes only what the key has opened before, and proves afterwards that the key opens what is on the disk. At every moment between,
/// the old or the new header can be used.
///
/// # Errors
/// As [`super::verify`], and if the disk cannot be written.
pub fn restore(
    device: &Path,
    disk: &File,
    image: &File,
    expected: &Expected,
    key: &Passphrase,
) -> Result<ProvenKeyslot, LuksError> {
    let mut volume = Checked::of(image, device, expected)?;
    check_key(&mut volume, expected.luks_uuid, key, CryptActivate::empty())?;
    replace(disk, image, Rest::Replaced)?;
    super::prove(device, expected, key).map(|opened| opened.keyslot)
}
