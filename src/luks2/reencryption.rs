//! The header of a volume whose data is being re-encrypted with a new volume key (LUKS2 on-disk format, section 6).
//!
//! Until that is finished, the header has two volume keys, and segments of both in turn. libcryptsetup protects these metadata with a
//! digest that only the holder of both volume keys can make. This check comes before it, and holds what the state file knows: the cipher,
//! and where the data is.

use serde_json::Value;

use super::layout::DATA_OFFSET;
use super::segment::{HeaderPolicy, check_segment};
use super::violation::{PolicyViolation, shown, violation};

/// The requirement of a header in re-encryption. Version 2 has the digest of the metadata; libcryptsetup refuses version 1.
const REQUIREMENT: &str = "online-reencrypt-v2";
/// The unit of `iv_tweak`.
const SECTOR: u64 = 512;

/// Whether a header says that its volume is being re-encrypted.
pub(crate) fn is_reencrypting(metadata: &Value) -> bool {
    let list = metadata.pointer("/config/requirements/mandatory").and_then(Value::as_array);
    list.is_some_and(|list| list.iter().any(|requirement| requirement.as_str() == Some(REQUIREMENT)))
}

/// Returns how much of a volume on a disk of `disk_size` bytes has the new volume key, in percent, rounded down; `None` if its header says
/// nothing of that.
pub(crate) fn reencrypted(metadata: &Value, disk_size: u64) -> Option<u64> {
    if !is_reencrypting(metadata) {
        return None;
    }
    let digest_of = |id: &str| {
        let digests = metadata.get("digests").and_then(Value::as_object)?;
        let has = |digest: &&Value| {
            let segments = digest.get("segments").and_then(Value::as_array);
            segments.is_some_and(|segments| segments.iter().any(|segment| segment.as_str() == Some(id)))
        };
        digests.values().find(has)
    };
    let segments = metadata.get("segments").and_then(Value::as_object)?;
    let (final_id, _) = segments.iter().find(|(_, segment)| flags(segment) == ["backup-final"])?;
    let new = digest_of(final_id)?;
    let total = disk_size.checked_sub(DATA_OFFSET).filter(|total| *total > 0)?;
    let done: u64 = segments
        .iter()
        .filter(|(id, segment)| {
            flags(segment).is_empty() && digest_of(id).is_some_and(|digest| std::ptr::eq(digest, new))
        })
        .map(|(_, segment)| number(segment.get("size")).unwrap_or(total))
        .fold(0, u64::saturating_add);
    Some(u64::try_from(u128::from(done.min(total)) * 100 / u128::from(total)).unwrap_or(100))
}

fn flags(segment: &Value) -> Vec<&str> {
    segment.get("flags").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

fn number(value: Option<&Value>) -> Option<u64> {
    value.and_then(Value::as_str).and_then(|text| text.parse().ok())
}

/// Checks the segments of a header in re-encryption: what it was, what it will be, and between the two a gapless row of segments that
/// decrypt each sector with the same cipher and as the same sector as before.
pub(super) fn check_segments(metadata: &Value, policy: HeaderPolicy) -> Result<(), PolicyViolation> {
    let segments = metadata.get("segments").and_then(Value::as_object);
    let mut row: Vec<(u64, &Value)> = Vec::new();
    let mut backups = Vec::new();
    for (id, segment) in segments.into_iter().flatten() {
        let Ok(place) = id.parse::<u64>() else {
            return violation(format!("segment '{}' has no number", id.escape_debug()));
        };
        match flags(segment).as_slice() {
            [] if segment.get("flags").is_none() => row.push((place, segment)),
            ["in-reencryption"] => row.push((place, segment)),
            [name @ ("backup-previous" | "backup-final")] => {
                backups.push(*name);
                check_segment(&without_flags(segment), policy)?;
            }
            _ => return violation(format!("segment {place} has the unexpected flags {}", shown(segment.get("flags")))),
        }
    }
    backups.sort_unstable();
    if backups != ["backup-final", "backup-previous"] {
        return violation("it is being re-encrypted, but does not have one segment for before and one for after");
    }
    row.sort_by_key(|(place, _)| *place);
    let mut at = Some(DATA_OFFSET);
    for (index, (place, segment)) in row.iter().enumerate() {
        let is_last = index + 1 == row.len();
        let Some(offset) = at.filter(|_| *place == index as u64) else {
            return violation(format!("segment {place} does not follow the one before it"));
        };
        let tweak = (offset - DATA_OFFSET) / SECTOR;
        if number(segment.get("offset")) != Some(offset) || number(segment.get("iv_tweak")) != Some(tweak) {
            return violation(format!(
                "segment {place} is at byte {} with IV offset {}, expected {offset} and {tweak}",
                shown(segment.get("offset")),
                shown(segment.get("iv_tweak"))
            ));
        }
        // everything else is as in a volume that has one segment
        let mut alone = without_flags(segment);
        alone["offset"] = DATA_OFFSET.to_string().into();
        alone["iv_tweak"] = "0".into();
        at = match number(segment.get("size")) {
            Some(size) if size > 0 && size % SECTOR == 0 => {
                alone["size"] = "dynamic".into();
                offset.checked_add(size)
            }
            // whatever else it is, check_segment() names it
            _ if is_last => None,
            _ => return violation(format!("segment {place} has size {}", shown(segment.get("size")))),
        };
        check_segment(&alone, policy)?;
    }
    if row.is_empty() { violation("it has no segment") } else { Ok(()) }
}

fn without_flags(segment: &Value) -> Value {
    let mut segment = segment.clone();
    if let Some(map) = segment.as_object_mut() {
        map.remove("flags");
    }
    segment
}

/// Checks the mandatory requirements of a header in re-encryption: this one and no other.
pub(super) fn check_requirements(list: &Value) -> Result<(), PolicyViolation> {
    match list.as_array().map(Vec::as_slice) {
        Some([one]) if one.as_str() == Some(REQUIREMENT) => Ok(()),
        _ => violation(format!("it has the mandatory requirements {list}, expected {REQUIREMENT}")),
    }
}

/// Checks the keyslot that holds what a re-encryption needs after a crash.
pub(super) fn check_keyslot(id: &str, keyslot: &Value) -> Result<(), PolicyViolation> {
    let text = |at: &str| keyslot.pointer(at).and_then(Value::as_str);
    let is_safe = matches!(text("/area/type"), Some("checksum" | "journal"));
    if text("/mode") == Some("reencrypt") && text("/direction") == Some("forward") && is_safe {
        return Ok(());
    }
    violation(format!("keyslot {} is not one of a re-encryption that luks-agent does", id.escape_debug()))
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::json;
    use uuid::Uuid;

    use super::*;
    use crate::key::{KeySource, WrappedKey};
    use crate::luks2::{Cipher, Expected, Flags, Layout, Token, check_header};

    const DISK: u64 = 80 << 20;

    fn expected() -> Expected {
        let layout =
            Layout { cipher: Cipher::AesXtsPlain64, key_size: 512, sector_size: 4096, flags: Flags::default() };
        let key = KeySource::aws_kms(WrappedKey::new(vec![1, 2, 3]).unwrap(), "arn:aws:kms:x");
        let header = HeaderPolicy::Recorded(layout);
        Expected { luks_uuid: Uuid::nil(), header, key, other: None, reencrypting: true, volume_key: None }
    }

    /// The metadata that libcryptsetup 2.6.1 wrote between two hot zones.
    fn header() -> Value {
        let keyslot = |offset: &str| {
            json!({"type": "luks2", "key_size": 64,
                   "area": {"offset": offset, "size": "258048", "encryption": "aes-xts-plain64", "key_size": 64}})
        };
        let segment = |offset: &str, size: &str, iv_tweak: &str| {
            json!({"type": "crypt", "offset": offset, "size": size, "iv_tweak": iv_tweak,
                   "encryption": "aes-xts-plain64", "sector_size": 4096})
        };
        let backup = |flag: &str| {
            let mut segment = segment("16777216", "dynamic", "0");
            segment["flags"] = json!([flag]);
            segment
        };
        let digest = |keyslot: &str, segments: &[&str]| {
            json!({"type": "pbkdf2", "hash": "sha256", "keyslots": [keyslot], "segments": segments,
                   "digest": STANDARD.encode([7; 32])})
        };
        json!({
            "keyslots": {
                "0": keyslot("32768"),
                "1": keyslot("290816"),
                "2": {"type": "reencrypt", "key_size": 1, "mode": "reencrypt", "direction": "forward", "priority": 0,
                      "area": {"offset": "548864", "size": "16228352", "type": "checksum", "hash": "sha256",
                               "sector_size": 4096}},
            },
            "tokens": {"0": Token::new(expected().key, None)},
            "segments": {"0": segment("16777216", "29360128", "0"), "1": segment("46137344", "37748736", "57344"),
                         "2": backup("backup-previous"), "3": backup("backup-final")},
            "digests": {"0": digest("0", &["1", "2"]), "1": digest("1", &["0", "3"]), "2": digest("2", &[])},
            "config": {"json_size": "12288", "keyslots_size": "16744448",
                       "requirements": {"mandatory": ["online-reencrypt-v2"]}},
        })
    }

    #[test]
    fn a_header_in_reencryption_passes_only_after_the_agent_has_begun_it() {
        assert_eq!(check_header(&header(), &expected()), Ok(()));
        assert!(check_header(&header(), &Expected { reencrypting: false, ..expected() }).is_err());
    }

    #[test]
    fn the_last_segment_may_be_dynamic_and_one_may_be_hot() {
        let mut metadata = header();
        metadata["segments"]["1"]["size"] = json!("dynamic");
        metadata["segments"]["1"]["flags"] = json!(["in-reencryption"]);
        assert_eq!(check_header(&metadata, &expected()), Ok(()));
        // the same, once more behind it
        metadata["segments"]["4"] = metadata["segments"]["1"].clone();
        assert!(check_header(&metadata, &expected()).is_err());
    }

    #[test]
    fn before_it_begins_there_may_be_a_keyslot_of_a_key_that_no_data_has() {
        let mut metadata = header();
        metadata["segments"] = json!({"0": metadata["segments"]["2"]});
        metadata["segments"]["0"].as_object_mut().unwrap().remove("flags");
        metadata["config"].as_object_mut().unwrap().remove("requirements");
        metadata["keyslots"].as_object_mut().unwrap().remove("2");
        metadata["digests"].as_object_mut().unwrap().remove("2");
        assert_eq!(check_header(&metadata, &expected()), Ok(()));
        assert!(check_header(&metadata, &Expected { reencrypting: false, ..expected() }).is_err());
    }

    #[test]
    fn what_no_reencryption_of_ours_can_be_is_refused() {
        let without = |pointer: &str, name: &str| {
            let mut metadata = header();
            metadata.pointer_mut(pointer).unwrap().as_object_mut().unwrap().remove(name);
            metadata
        };
        let mut cases = vec![
            without("/segments", "0"),
            without("/segments", "2"),
            without("/segments", "3"),
            without("/keyslots", "2"),
            without("/digests/1", "digest"),
        ];
        for (pointer, value) in [
            ("/segments/0/encryption", json!("cipher_null-ecb")),
            ("/segments/0/type", json!("linear")),
            ("/segments/0/offset", json!("0")),
            ("/segments/0/size", json!("0")),
            ("/segments/0/size", json!("29360127")),
            ("/segments/0/size", json!("dynamic")),
            ("/segments/0/size", json!("18446744073709551104")),
            ("/segments/0/sector_size", json!(512)),
            ("/segments/0/integrity", json!({"type": "none"})),
            ("/segments/0/flags", json!(["backup-moved-segment"])),
            ("/segments/0/flags", json!([])),
            ("/segments/1/offset", json!("46141440")),
            ("/segments/1/iv_tweak", json!("0")),
            ("/segments/1/size", json!(7)),
            ("/segments/2/encryption", json!("cipher_null-ecb")),
            ("/segments/2/offset", json!("4096")),
            ("/segments/3/flags", json!(["backup-previous"])),
            ("/keyslots/0/area/encryption", json!("cipher_null")),
            ("/keyslots/2/mode", json!("decrypt")),
            ("/keyslots/2/direction", json!("backward")),
            ("/keyslots/2/area/type", json!("none")),
            ("/keyslots/2/area/type", json!("datashift")),
            ("/keyslots/2/area/offset", json!("0")),
            ("/config/requirements/mandatory", json!(["online-reencrypt-v2", "offline-reencrypt"])),
            ("/config/requirements/mandatory", json!(["online-reencrypt"])),
            ("/config/requirements/mandatory", json!([])),
            ("/tokens/0/wrapped_key", json!("AQIE")),
            ("/digests/3", header()["digests"]["2"].clone()),
            ("/digests/2/digest", json!("AAAA")),
        ] {
            let mut metadata = header();
            let (parent, name) = pointer.rsplit_once('/').unwrap();
            metadata.pointer_mut(parent).unwrap()[name] = value;
            cases.push(metadata);
        }
        for metadata in cases {
            assert!(check_header(&metadata, &expected()).is_err(), "{metadata}");
        }
    }

    #[test]
    fn the_header_tells_how_much_has_the_new_key() {
        assert_eq!(reencrypted(&header(), DISK), Some(43));
        let mut metadata = header();
        metadata["segments"]["0"]["size"] = json!("dynamic");
        assert_eq!(reencrypted(&metadata, DISK), Some(100));
        metadata["digests"]["1"]["segments"] = json!(["3"]);
        assert_eq!(reencrypted(&metadata, DISK), Some(0));
        metadata["config"] = json!({});
        assert_eq!(reencrypted(&metadata, DISK), None);
        assert_eq!(reencrypted(&header(), 0), None);
    }
}
