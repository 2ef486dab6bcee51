//! Gives an open volume a new volume key: encrypts all its data again while it is in use (LUKS2 on-disk format, section 6).
//!
//! libcryptsetup does it, one hot zone after the other. Before it overwrites a hot zone, it keeps checksums of the zone's sectors in the
//! header, so that after a crash it can tell which of them have the new key. The same passphrase opens the keyslots of both volume keys.

use std::cell::RefCell;
use std::ffi::c_void;
use std::os::raw::c_int;
use std::path::Path;
use std::time::{Duration, Instant};

use libcryptsetup_rs::consts::flags::{CryptActivate, CryptReencrypt, CryptVolumeKey};
use libcryptsetup_rs::consts::vals::{CryptReencryptDirectionInfo, CryptReencryptModeInfo, KeyslotPriority};
use libcryptsetup_rs::{CryptParamsLuks2, CryptParamsReencrypt, Either};
use serde_json::Value;

use super::call::call;
use super::error::LuksError;
use super::keyslots::sync;
use super::on_disk::{OnDisk, check_key, load, prove, prove_opened};
use super::{SECTOR, minimal_pbkdf};
use crate::key::Passphrase;
use crate::luks2::{Expected, HeaderPolicy, Layout, Opened, ProvenKeyslot, Token, check_volume_key, is_reencrypting};

/// The largest hot zone. Reads and writes of it wait while it is encrypted again.
const LARGEST_HOT_ZONE: u64 = 16 << 20;
/// The smallest one. Each costs several writes of the header.
const SMALLEST_HOT_ZONE: u64 = 1 << 20;
/// How often a wait for the speed limit ends to look whether to stop.
const PAUSE: Duration = Duration::from_millis(100);

/// What [`reencrypt`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reencryption {
    /// All data has the new volume key. The keyslot is the one that the data key opens from now on.
    Finished {
        /// Both.
        opened: Opened,
    },
    /// It was stopped. The volume stays open, and the next call goes on.
    Stopped,
    /// Nothing was begun.
    Refused {
        /// Why.
        why: String,
    },
}

/// How a re-encryption goes on.
#[derive(Debug, Clone, Copy)]
pub struct Position {
    /// Bytes of the volume that have the new volume key.
    pub done: u64,
    /// Size of the volume in bytes.
    pub total: u64,
}

/// Called after each hot zone, and during waits for the speed limit. Returns whether to go on.
pub type GoesOn = Box<dyn FnMut(Position) -> bool>;

/// The volume to re-encrypt.
#[derive(Debug, Clone, Copy)]
pub struct OpenVolume<'a> {
    /// Its disk.
    pub device: &'a Path,
    /// Its mapper name.
    pub name: &'a str,
    /// The header that it must have.
    pub expected: &'a Expected,
    /// The keyslot of the former volume key, if re-encryption has begun before. If the key opens another one, all is done.
    pub former: Option<&'a ProvenKeyslot>,
}

/// Gives an open volume a new volume key, or finishes that.
///
/// `speed` limits it to so many bytes a second.
///
/// # Errors
/// [`LuksError::WrongKey`], [`LuksError::Policy`], or any error of libcryptsetup. Whatever it is, the data key opens the volume.
pub fn reencrypt(
    OpenVolume { device, name, expected, former }: OpenVolume<'_>,
    key: &Passphrase,
    speed: Option<u64>,
    goes_on: GoesOn,
) -> Result<Reencryption, LuksError> {
    let hot_zone = speed.map_or(LARGEST_HOT_ZONE, |speed| (speed / 8).clamp(SMALLEST_HOT_ZONE, LARGEST_HOT_ZONE));
    let mut on_disk = OnDisk::load(device, expected.luks_uuid)?;
    let mut copy = on_disk.checked(device, expected)?;
    if !is_reencrypting(on_disk.metadata()) {
        let HeaderPolicy::Recorded(layout) = expected.header else {
            let why = "the release that made it did not record its cipher".to_owned();
            return Ok(Reencryption::Refused { why });
        };
        let own = prove(&mut copy, expected.luks_uuid, key)?;
        // it may have been finished, but not recorded
        let is_finished = former.is_some_and(|former| *former != own);
        if let Some(why) = others(on_disk.metadata(), own.number).filter(|_| !is_finished) {
            return Ok(Reencryption::Refused { why });
        }
        if !is_finished {
            // under a header with a former volume key, it would encrypt noise
            check_volume_key(on_disk.metadata(), expected)?;
            begin(&mut on_disk, expected, key, Beginning { name, layout, hot_zone, old: own.number })?;
        }
    } else {
        let keyslot = check_key(&mut copy, expected.luks_uuid, key, CryptActivate::empty())?;
        tracing::debug!(keyslot, "the re-encryption has begun already");
    }
    drop((copy, on_disk));
    let mut on_disk = OnDisk::load(device, expected.luks_uuid)?;
    on_disk.checked(device, expected)?;
    if is_reencrypting(on_disk.metadata()) {
        let params = parameters(hot_zone, CryptReencrypt::RESUME_ONLY);
        let mut handle = on_disk.cd.reencrypt_handle();
        let loaded = handle.reencrypt_init_by_passphrase(Some(name), key.expose(), None, None, None, params);
        call("continue the re-encryption", loaded)?;
        PACE.set(Some(Pace { speed, goes_on, since: Instant::now(), from: None }));
        let ran = handle.reencrypt(Some(after_hot_zone));
        PACE.set(None);
        call("re-encrypt the volume", ran)?;
    }
    drop(on_disk);
    sync(device)?;
    let done = Expected { reencrypting: false, volume_key: None, ..expected.clone() };
    if is_reencrypting(OnDisk::load(device, expected.luks_uuid)?.metadata()) {
        return Ok(Reencryption::Stopped);
    }
    Ok(Reencryption::Finished { opened: prove_opened(&mut load(device, &done)?, expected.luks_uuid, key)? })
}

/// Repairs, after a crash, the hot zone that was being encrypted again. The volume must not be open.
///
/// # Errors
/// As [`reencrypt`].
pub(super) fn recover(on_disk: &mut OnDisk, key: &Passphrase) -> Result<(), LuksError> {
    let params = parameters(LARGEST_HOT_ZONE, CryptReencrypt::RECOVERY);
    let mut handle = on_disk.cd.reencrypt_handle();
    let recovered = handle.reencrypt_init_by_passphrase(None, key.expose(), None, None, None, params);
    call("recover the re-encryption", recovered).map(drop)
}

/// What a re-encryption begins with.
struct Beginning<'a> {
    name: &'a str,
    layout: Layout,
    hot_zone: u64,
    /// The keyslot of the present volume key.
    old: u32,
}

/// Adds the keyslot of the new volume key, and writes to the header that re-encryption begins.
fn begin(on_disk: &mut OnDisk, expected: &Expected, key: &Passphrase, how: Beginning<'_>) -> Result<(), LuksError> {
    let Beginning { name, layout, hot_zone, old } = how;
    let new = add_keyslot(on_disk, expected, layout, old, key)?;
    let mut params = parameters(hot_zone, CryptReencrypt::INITIALIZE_ONLY);
    params.luks2 = Some(sectors_of(layout));
    let (old, new, cipher) = (Some(old), Some(new), Some(layout.cipher.parts()));
    let mut handle = on_disk.cd.reencrypt_handle();
    let begun = handle.reencrypt_init_by_passphrase(Some(name), key.expose(), old, new, cipher, params);
    call("begin the re-encryption", begun).map(drop)
}

/// Returns what would be lost: keyslots that this key does not open cannot get the new volume key.
fn others(metadata: &Value, own: u32) -> Option<String> {
    let bound = bound_keyslots(metadata);
    let others: Vec<String> = bound.into_iter().filter(|number| *number != own).map(|n| n.to_string()).collect();
    (!others.is_empty()).then(|| {
        format!(
            "keyslot {} would be lost: a new volume key can only be given to keyslots whose passphrase is known; remove it, and enroll it again afterwards",
            others.join(" and ")
        )
    })
}

/// Returns the keyslots that hold the volume key of the data.
fn bound_keyslots(metadata: &Value) -> Vec<u32> {
    let digests = metadata.get("digests").and_then(Value::as_object);
    let list = |digest: &Value, name: &str| digest.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let of_data =
        digests.into_iter().flatten().map(|(_, digest)| digest).filter(|digest| !list(digest, "segments").is_empty());
    of_data.flat_map(|digest| list(digest, "keyslots")).filter_map(|id| id.as_str()?.parse().ok()).collect()
}

/// Adds the keyslot of the new volume key, which opens nothing yet, and links it with the token of the data key.
fn add_keyslot(
    on_disk: &mut OnDisk,
    expected: &Expected,
    layout: Layout,
    old: u32,
    key: &Passphrase,
) -> Result<u32, LuksError> {
    let bound = bound_keyslots(on_disk.metadata());
    let all = on_disk.metadata().get("keyslots").and_then(Value::as_object);
    let all: Vec<u32> = all.into_iter().flatten().filter_map(|(id, _)| id.parse().ok()).collect();
    // an earlier attempt was interrupted before it began
    for unbound in all.into_iter().filter(|number| *number != old && !bound.contains(number)) {
        call(format!("remove keyslot {unbound}"), on_disk.cd.keyslot_handle().destroy(unbound))?;
    }
    call("choose PBKDF2", on_disk.cd.settings_handle().set_pbkdf_type(&minimal_pbkdf()))?;
    let size = layout.key_size as usize / 8;
    let mut keyslots = on_disk.cd.keyslot_handle();
    let added = keyslots.add_by_key(None, Some(Either::Right(size)), key.expose(), CryptVolumeKey::NO_SEGMENT);
    let new = call("add the keyslot of the new volume key", added)?;
    call("prefer the keyslot", keyslots.set_priority(new, KeyslotPriority::Prefer))?;
    if let Some((token, _)) = Token::find_of(on_disk.metadata(), &expected.key) {
        let assigned = on_disk.cd.token_handle().assign_keyslot(token, Some(new));
        call("assign the token to the keyslot", assigned)?;
    }
    Ok(new)
}

fn parameters(hot_zone: u64, flags: CryptReencrypt) -> CryptParamsReencrypt {
    CryptParamsReencrypt {
        mode: CryptReencryptModeInfo::Reencrypt,
        direction: CryptReencryptDirectionInfo::Forward,
        resilience: "checksum".to_owned(),
        hash: "sha256".to_owned(),
        data_shift: 0,
        max_hotzone_size: hot_zone / SECTOR,
        device_size: 0,
        luks2: None,
        flags,
    }
}

/// The sectors of the new segment: as large as the old ones.
fn sectors_of(layout: Layout) -> CryptParamsLuks2 {
    CryptParamsLuks2 {
        pbkdf: None,
        integrity: None,
        integrity_params: None,
        data_alignment: 0,
        data_device: None,
        sector_size: layout.sector_size,
        label: None,
        subsystem: None,
    }
}

/// How fast a re-encryption may be, and who hears of it.
struct Pace {
    speed: Option<u64>,
    goes_on: GoesOn,
    since: Instant,
    /// Where it began.
    from: Option<u64>,
}

thread_local! {
    // libcryptsetup's own pointer for such data cannot be used without `unsafe`
    static PACE: RefCell<Option<Pace>> = const { RefCell::new(None) };
}

/// Reports a position, and waits for as long as the speed limit asks. Returns 0 to go on.
extern "C" fn after_hot_zone(total: u64, done: u64, _: *mut c_void) -> c_int {
    PACE.with_borrow_mut(|pace| {
        let Some(pace) = pace else { return 1 };
        let from = *pace.from.get_or_insert(done);
        loop {
            if !(pace.goes_on)(Position { done, total }) {
                return 1;
            }
            let due = pace.speed.map_or(Duration::ZERO, |speed| {
                Duration::from_millis((done - from).saturating_mul(1000) / speed.max(1))
            });
            match due.saturating_sub(pace.since.elapsed()) {
                Duration::ZERO => return 0,
                // the data is all there, so there is nothing to wait for
                _ if done == total => return 0,
                left => std::thread::sleep(left.min(PAUSE)),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(speed: Option<u64>, goes_on: impl FnMut(Position) -> bool + 'static) -> Instant {
        let since = Instant::now();
        PACE.set(Some(Pace { speed, goes_on: Box::new(goes_on), since, from: None }));
        since
    }

    fn hot_zone(total: u64, done: u64) -> c_int {
        after_hot_zone(total, done, std::ptr::null_mut())
    }

    #[test]
    fn the_speed_limit_holds_from_where_it_began_and_not_at_the_end() {
        let since = pace(Some(10 << 20), |_| true);
        assert_eq!(hot_zone(8 << 20, 1 << 20), 0);
        assert!(since.elapsed() < Duration::from_millis(100));
        assert_eq!(hot_zone(8 << 20, 4 << 20), 0);
        assert!(since.elapsed() >= Duration::from_millis(300), "{:?}", since.elapsed());
        let before = Instant::now();
        assert_eq!(hot_zone(8 << 20, 8 << 20), 0);
        assert!(before.elapsed() < Duration::from_millis(100));
        pace(None, |_| true);
        assert_eq!((hot_zone(1 << 40, 0), hot_zone(1 << 40, 1 << 39)), (0, 0));
    }

    #[test]
    fn a_wait_for_the_speed_limit_ends_when_it_is_asked_to_stop() {
        let mut calls = 0;
        let since = pace(Some(1), move |_| {
            calls += 1;
            calls < 4
        });
        assert_eq!(hot_zone(1 << 40, 0), 0);
        assert_eq!(hot_zone(1 << 40, 1 << 30), 1);
        assert!(since.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn keyslots_that_another_passphrase_opens_are_named() {
        let header = |bound: &[&str], unbound: &[&str]| {
            serde_json::json!({"digests": {"0": {"segments": ["0"], "keyslots": bound},
                                           "1": {"segments": [], "keyslots": unbound}}})
        };
        assert_eq!(others(&header(&["3"], &["4"]), 3), None);
        assert!(others(&header(&["3", "0", "1"], &[]), 3).unwrap().starts_with("keyslot 0 and 1 would be lost"));
    }
}
