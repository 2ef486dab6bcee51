//! The agent's LUKS2 token, and what a header must look like before it is used.
//!
//! The token makes a volume recoverable without the boot volume that made it: it holds the wrapped key and says which KMS
//! key unwraps it.

use std::fmt;
use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::config::Cipher;
use crate::key::WrappedKey;

/// Token type. Types that start with `luks2-` are cryptsetup's own (LUKS2 on-disk format, section 3.3).
pub const TOKEN_TYPE: &str = "luks-agent-awskms";
/// Subsystem label of the header: how blkid and udev tell our volumes.
pub const SUBSYSTEM: &str = "luks-agent";
/// Where the data segment starts, in bytes: libcryptsetup's default, set explicitly.
pub const DATA_OFFSET: u64 = 16 << 20;
/// The same as the header writes it.
const DATA_OFFSET_TEXT: &str = "16777216";
/// Size of the binary part of each of the two copies of a header, in bytes; `json_size` is what follows it (LUKS2 on-disk format,
/// section 2).
const BINARY_HEADER: u64 = 4096;
/// How many times the anti-forensic splitter writes a volume key to a keyslot's area (LUKS2 on-disk format, section 3.2.2).
const STRIPES: u64 = 4000;
/// The largest encryption sector there is, in bytes.
const LARGEST_SECTOR: u64 = 4096;

/// The size in bytes to which the mapping of a volume grows on a disk of `disk` bytes: all that lies behind the header, in whole
/// encryption sectors of whatever size. 0 where the disk has no room for any.
pub fn grown_size(disk: u64) -> u64 {
    let data = disk.saturating_sub(DATA_OFFSET);
    data - data % LARGEST_SECTOR
}

/// The token as it stands in the JSON area.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Always [`TOKEN_TYPE`].
    #[serde(rename = "type")]
    pub kind: String,
    /// The keyslots that the wrapped key opens, as LUKS2 writes them: decimal strings.
    pub keyslots: Vec<String>,
    /// Version of this token's fields.
    pub version: u32,
    /// The data key, wrapped.
    pub wrapped_key: WrappedKey,
    /// ARN of the KMS key that unwraps it.
    pub key_arn: String,
    /// The instance that made the volume, where there was an instance metadata service to tell.
    pub instance_id: Option<String>,
}

impl Token {
    /// A token that is not assigned to a keyslot yet.
    pub fn new(wrapped_key: WrappedKey, key_arn: String, instance_id: Option<String>) -> Self {
        Self { kind: TOKEN_TYPE.to_owned(), keyslots: Vec::new(), version: 1, wrapped_key, key_arn, instance_id }
    }

    /// The first token of ours in a LUKS2 metadata object.
    ///
    /// # Errors
    /// When there is one that this release cannot read: then the volume is the agent's all the same.
    pub fn find(metadata: &Value) -> Result<Option<Self>, serde_json::Error> {
        ours(metadata).next().map(|(_, token)| Self::deserialize(token)).transpose()
    }

    /// The number of that token.
    pub fn find_id(metadata: &Value) -> Option<u32> {
        ours(metadata).next().and_then(|(id, _)| id.parse().ok())
    }
}

fn ours(metadata: &Value) -> impl Iterator<Item = (&String, &Value)> {
    let tokens = metadata.get("tokens").and_then(Value::as_object);
    tokens.into_iter().flatten().filter(|(_, token)| token.get("type").and_then(Value::as_str) == Some(TOKEN_TYPE))
}

/// dm-crypt flags, stored in the header, so that any opener uses them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flags {
    /// Let discards through.
    pub discards: bool,
    /// Decrypt in the context of the reader.
    pub no_read_workqueue: bool,
    /// Encrypt in the context of the writer.
    pub no_write_workqueue: bool,
}

impl Flags {
    /// By the name that each has in the header (LUKS2 on-disk format, section 3.6).
    fn named(self) -> [(&'static str, bool); 3] {
        [
            ("allow-discards", self.discards),
            ("no-read-workqueue", self.no_read_workqueue),
            ("no-write-workqueue", self.no_write_workqueue),
        ]
    }
}

/// Cipher and key of a volume: what the kernel must have to open it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Encryption {
    /// Cipher and mode.
    pub cipher: Cipher,
    /// Volume key size in bits.
    pub key_size: u32,
}

impl fmt::Display for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, mode) = self.cipher.parts();
        write!(f, "{name}-{mode} and keys of {} bits", self.key_size)
    }
}

/// How the sectors of a volume are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// Cipher and mode.
    pub cipher: Cipher,
    /// Volume key size in bits.
    pub key_size: u32,
    /// Encryption sector size in bytes.
    pub sector_size: u32,
    /// Flags stored in the header.
    pub flags: Flags,
}

/// What is asked of a header before it is used. Each volume is held to the policy it was made under, so that one made by
/// an older release still opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "policy", content = "layout")]
pub enum HeaderPolicy {
    /// A layout that the agent could have made. The state file of format version 1 recorded none.
    #[default]
    #[serde(rename = "1")]
    Possible,
    /// The very layout that it was made with.
    #[serde(rename = "2")]
    Recorded(Layout),
}

impl HeaderPolicy {
    /// What a volume needs of the kernel; where that was not recorded, what is the default.
    pub fn encryption(self) -> Encryption {
        match self {
            Self::Possible => Encryption { cipher: Cipher::AesXtsPlain64, key_size: 512 },
            Self::Recorded(Layout { cipher, key_size, .. }) => Encryption { cipher, key_size },
        }
    }
}

/// What the header of a volume must be, by the state file. Whoever can write to the disk could otherwise have it opened
/// with a null cipher, at another offset, or with another's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// LUKS UUID.
    pub luks_uuid: Uuid,
    /// The layout.
    pub header: HeaderPolicy,
    /// The wrapped key in the token.
    pub wrapped_key: WrappedKey,
    /// The KMS key in the token.
    pub key_arn: String,
}

/// A header that is valid LUKS2 but not one the agent makes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct PolicyViolation(String);

impl fmt::Display for PolicyViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the LUKS2 header is not as luks-agent made it: {}; it is not opened: find out who changed it, and see 'break-glass' in the README if you trust it",
            self.0
        )
    }
}

fn violation<T>(text: impl Into<String>) -> Result<T, PolicyViolation> {
    Err(PolicyViolation(text.into()))
}

/// Checks LUKS2 metadata against what is expected of it. The UUID is not part of the metadata.
///
/// # Errors
/// The first thing found that is not as it should be.
pub fn check_header(metadata: &Value, expected: &Expected) -> Result<(), PolicyViolation> {
    // libcryptsetup is C, and to it a name that has a NUL in it would be another name
    if has_nul(metadata) {
        return violation("its metadata contains a NUL byte");
    }
    let section = |name: &str| metadata.get(name).and_then(Value::as_object);

    let segments = section("segments").map(|s| s.iter().collect::<Vec<_>>()).unwrap_or_default();
    let [(id, segment)] = segments.as_slice() else {
        return violation(format!("it has {} segments, expected 1", segments.len()));
    };
    if id.as_str() != "0" {
        return violation(format!("its segment has number {id}, expected 0"));
    }
    check_segment(segment, expected.header)?;
    check_flags(metadata, expected.header)?;
    check_digest(metadata)?;
    let requirements = metadata.pointer("/config/requirements/mandatory");
    if requirements.is_some_and(|list| list.as_array().is_none_or(|list| !list.is_empty())) {
        return violation("it has mandatory requirements");
    }
    check_token(metadata, expected)?;
    section("keyslots")
        .into_iter()
        .flatten()
        .try_for_each(|(id, keyslot)| check_keyslot(id, keyslot, expected.header))?;
    keyslot_areas(metadata).map(drop)
}

/// Where on the disk the key material of a keyslot is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyslotArea {
    /// Number of the keyslot.
    pub(crate) number: u32,
    /// Its first byte, and the one behind its last.
    pub(crate) bytes: Range<u64>,
}

/// The areas of all keyslots in the order of the disk: behind both copies of the metadata, before the data, and no two of them in
/// one place (LUKS2 on-disk format, sections 3.2.1 and 3.6).
///
/// # Errors
/// The first that is elsewhere.
pub(crate) fn keyslot_areas(metadata: &Value) -> Result<Vec<KeyslotArea>, PolicyViolation> {
    let number = |value: Option<&Value>| value.and_then(Value::as_str).and_then(|text| text.parse::<u64>().ok());
    let config = |name: &str| metadata.pointer(&format!("/config/{name}"));
    let bounds = || {
        let json_size = number(config("json_size"))?;
        let begin = json_size.checked_add(BINARY_HEADER)?.checked_mul(2)?;
        let end = begin.checked_add(number(config("keyslots_size"))?)?;
        (begin <= end && end <= DATA_OFFSET).then_some(begin..end)
    };
    let Some(bounds) = bounds() else {
        return violation(format!(
            "its metadata of {} bytes and keyslots of {} do not lie before the data",
            shown(config("json_size")),
            shown(config("keyslots_size"))
        ));
    };
    let mut areas: Vec<KeyslotArea> = Vec::new();
    for (id, keyslot) in metadata.get("keyslots").and_then(Value::as_object).into_iter().flatten() {
        let (offset, size) = (keyslot.pointer("/area/offset"), keyslot.pointer("/area/size"));
        let area = || {
            let begin = number(offset)?;
            let area = begin..begin.checked_add(number(size)?)?;
            let needed = keyslot.get("key_size")?.as_u64()?.checked_mul(STRIPES)?;
            let fits = bounds.start <= area.start && area.end <= bounds.end && area.end - area.start >= needed;
            fits.then_some(area)
        };
        let Some(area) = area() else {
            return violation(format!(
                "the area of keyslot {id}, {} bytes at byte {}, has no room for its key between the metadata and the data",
                shown(size),
                shown(offset)
            ));
        };
        let Ok(number) = id.parse() else { return violation(format!("a keyslot has number {}", id.escape_debug())) };
        areas.push(KeyslotArea { number, bytes: area });
    }
    areas.sort_by_key(|area| area.bytes.start);
    match areas.windows(2).find(|pair| pair[0].bytes.end > pair[1].bytes.start) {
        Some(pair) => violation(format!("the areas of keyslots {} and {} overlap", pair[0].number, pair[1].number)),
        None => Ok(areas),
    }
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(list) => list.iter().any(has_nul),
        Value::Object(map) => map.iter().any(|(name, value)| name.contains('\0') || has_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn cipher(value: Option<&Value>) -> Option<Cipher> {
    value.and_then(|value| Cipher::deserialize(value).ok())
}

/// What a value of the metadata says, for a message.
fn shown(value: Option<&Value>) -> String {
    value.map_or("missing".to_owned(), |value| {
        value.as_str().map_or_else(|| value.to_string(), |text| text.escape_debug().to_string())
    })
}

fn check_segment(segment: &Value, policy: HeaderPolicy) -> Result<(), PolicyViolation> {
    let fixed = [("type", "crypt"), ("offset", DATA_OFFSET_TEXT), ("size", "dynamic"), ("iv_tweak", "0")];
    for (key, value) in fixed {
        if segment.get(key).and_then(Value::as_str) != Some(value) {
            return violation(format!("segment {key} is {}, expected {value}", shown(segment.get(key))));
        }
    }
    let known = |key: &str| ["encryption", "sector_size"].contains(&key) || fixed.iter().any(|(name, _)| *name == key);
    if let Some(key) = segment.as_object().into_iter().flat_map(|map| map.keys()).find(|key| !known(key)) {
        return violation(format!("the segment has '{key}'"));
    }
    let (found, sector_size) = (cipher(segment.get("encryption")), segment.get("sector_size").and_then(Value::as_u64));
    let as_made = match policy {
        HeaderPolicy::Possible => {
            found.is_some() && sector_size.is_some_and(|size| (512..=4096).contains(&size) && size.is_power_of_two())
        }
        HeaderPolicy::Recorded(layout) => {
            found == Some(layout.cipher) && sector_size == Some(u64::from(layout.sector_size))
        }
    };
    if as_made {
        return Ok(());
    }
    violation(format!(
        "its sectors are encrypted with {}, {} bytes at a time",
        shown(segment.get("encryption")),
        shown(segment.get("sector_size"))
    ))
}

fn check_flags(metadata: &Value, policy: HeaderPolicy) -> Result<(), PolicyViolation> {
    let list = metadata.pointer("/config/flags");
    let found: Option<Vec<&str>> = match list {
        None => Some(Vec::new()),
        Some(list) => list.as_array().and_then(|flags| flags.iter().map(Value::as_str).collect()),
    };
    let as_made = |found: Vec<&str>| match policy {
        HeaderPolicy::Possible => {
            found.iter().all(|flag| Flags::default().named().iter().any(|(name, _)| name == flag))
        }
        HeaderPolicy::Recorded(layout) => {
            let recorded: Vec<&str> =
                layout.flags.named().iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
            recorded.len() == found.len() && recorded.iter().all(|flag| found.contains(flag))
        }
    };
    if found.is_some_and(as_made) { Ok(()) } else { violation(format!("it has the flags {}", shown(list))) }
}

/// libcryptsetup takes any key for the volume key when the digest is not as long as its hash (2.6.1): what is read through
/// the mapping would be noise, and look like a volume without a file system.
fn check_digest(metadata: &Value) -> Result<(), PolicyViolation> {
    let digests = metadata.get("digests").and_then(Value::as_object).map(|map| map.values().collect::<Vec<_>>());
    let Some([digest]) = digests.as_deref() else {
        return violation("it does not have exactly one digest of the volume key");
    };
    let text = |key: &str| digest.get(key).and_then(Value::as_str);
    let size = match text("hash") {
        Some("sha256") => 32,
        Some("sha512") => 64,
        _ => {
            return violation(format!(
                "its digest is made with {}, expected sha256 or sha512",
                shown(digest.get("hash"))
            ));
        }
    };
    let bytes = text("digest").and_then(|text| STANDARD.decode(text).ok()).map(|bytes| bytes.len());
    if text("type") != Some("pbkdf2") || bytes != Some(size) {
        return violation(format!("its digest of the volume key is not pbkdf2 with {size} bytes"));
    }
    Ok(())
}

fn check_token(metadata: &Value, expected: &Expected) -> Result<(), PolicyViolation> {
    let mut tokens = ours(metadata);
    let token = match (tokens.next(), tokens.next()) {
        (None, _) => return violation(format!("it has no {TOKEN_TYPE} token")),
        (Some(_), Some(_)) => return violation(format!("it has more than one {TOKEN_TYPE} token")),
        (Some((_, token)), None) => Token::deserialize(token),
    };
    match token {
        Err(e) => violation(format!("its {TOKEN_TYPE} token cannot be read: {e}")),
        Ok(token) if token.key_arn != expected.key_arn => violation(format!(
            "its token says that {} wraps the key, the state file says {}",
            token.key_arn.escape_debug(),
            expected.key_arn
        )),
        Ok(token) if token.wrapped_key != expected.wrapped_key => violation(
            "the wrapped key in its token is not the one in the state file, so that one of the two was changed",
        ),
        Ok(_) => Ok(()),
    }
}

/// A keyslot that is not encrypted gives the volume key to whoever reads the disk, and opens with any passphrase.
fn check_keyslot(id: &str, keyslot: &Value, policy: HeaderPolicy) -> Result<(), PolicyViolation> {
    let kind = keyslot.get("type");
    if kind.and_then(Value::as_str) != Some("luks2") {
        return violation(format!("keyslot {id} is of type {}, expected luks2", shown(kind)));
    }
    let encryption = keyslot.pointer("/area/encryption");
    if cipher(encryption).is_none() {
        return violation(format!("keyslot {id} is encrypted with {}", shown(encryption)));
    }
    let area_key = keyslot.pointer("/area/key_size");
    if !area_key.and_then(Value::as_u64).is_some_and(|bytes| [32, 64].contains(&bytes)) {
        return violation(format!("keyslot {id} is encrypted with a key of {} bytes", shown(area_key)));
    }
    let size = keyslot.get("key_size");
    let as_made = match policy {
        HeaderPolicy::Possible => size.and_then(Value::as_u64).is_some_and(|bytes| [32, 64].contains(&bytes)),
        HeaderPolicy::Recorded(layout) => size.and_then(Value::as_u64) == Some(u64::from(layout.key_size / 8)),
    };
    if as_made { Ok(()) } else { violation(format!("keyslot {id} holds a volume key of {} bytes", shown(size))) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn token() -> Token {
        Token::new(WrappedKey::new(vec![1, 2, 3]).unwrap(), "arn:aws:kms:x".into(), Some("i-1".into()))
    }

    fn layout() -> Layout {
        let flags = Flags { discards: true, ..Flags::default() };
        Layout { cipher: Cipher::AesXtsPlain64, key_size: 512, sector_size: 4096, flags }
    }

    fn expected() -> Expected {
        let Token { wrapped_key, key_arn, .. } = token();
        Expected { luks_uuid: Uuid::nil(), header: HeaderPolicy::Recorded(layout()), wrapped_key, key_arn }
    }

    fn header() -> Value {
        json!({
            "keyslots": {"0": {"type": "luks2", "key_size": 64,
                               "area": {"offset": "32768", "size": "258048", "encryption": "aes-xts-plain64",
                                        "key_size": 64}}},
            "tokens": {"0": token()},
            "segments": {"0": {"type": "crypt", "offset": "16777216", "size": "dynamic", "iv_tweak": "0",
                               "encryption": "aes-xts-plain64", "sector_size": 4096}},
            "digests": {"0": {"type": "pbkdf2", "hash": "sha256", "digest": STANDARD.encode([7; 32])}},
            "config": {"json_size": "12288", "keyslots_size": "16744448", "flags": ["allow-discards"]},
        })
    }

    #[test]
    fn a_mapping_grows_to_whole_sectors_behind_the_header() {
        for (disk, expected) in [
            (0, 0),
            (DATA_OFFSET, 0),
            (DATA_OFFSET + 4095, 0),
            (DATA_OFFSET + 4096, 4096),
            (1 << 30, (1 << 30) - DATA_OFFSET),
            ((1 << 30) + 512, (1 << 30) - DATA_OFFSET),
            (u64::MAX, u64::MAX - DATA_OFFSET - 4095),
        ] {
            assert_eq!(grown_size(disk), expected, "{disk}");
        }
    }

    #[test]
    fn a_token_has_the_fields_that_break_glass_needs() {
        let json = serde_json::to_value(token()).unwrap();
        assert_eq!(
            json,
            json!({"type": "luks-agent-awskms", "keyslots": [], "version": 1, "wrapped_key": "AQID",
                   "key_arn": "arn:aws:kms:x", "instance_id": "i-1"})
        );
        assert_eq!(Token::find(&header()).unwrap(), Some(token()));
    }

    #[test]
    fn the_header_that_we_make_passes() {
        assert_eq!(check_header(&header(), &expected()), Ok(()));
    }

    #[test]
    fn the_data_offset_is_written_as_it_is() {
        assert_eq!(DATA_OFFSET.to_string(), DATA_OFFSET_TEXT);
    }

    #[test]
    fn a_header_that_could_be_ours_passes_only_where_none_was_recorded() {
        let first = Expected { header: HeaderPolicy::Possible, ..expected() };
        for (pointer, value) in [
            ("/segments/0/encryption", json!("serpent-xts-plain64")),
            ("/segments/0/sector_size", json!(512)),
            ("/config/flags", json!(["no-read-workqueue", "no-write-workqueue"])),
            ("/config/flags", json!([])),
            ("/keyslots/0/key_size", json!(32)),
        ] {
            let mut metadata = header();
            *metadata.pointer_mut(pointer).unwrap() = value;
            assert_eq!(check_header(&metadata, &first), Ok(()), "{pointer}");
            assert!(check_header(&metadata, &expected()).is_err(), "{pointer}");
        }
    }

    #[test]
    fn keyslots_lie_between_the_metadata_and_the_data_and_not_in_one_place() {
        let area = |offset: &str, size: &str| json!({"key_size": 64, "area": {"offset": offset, "size": size}});
        let of = |keyslots: Value| {
            let mut metadata = header();
            metadata["keyslots"] = keyslots;
            keyslot_areas(&metadata).map_err(|e| e.0)
        };
        assert_eq!(of(json!({})), Ok(vec![]));
        let two = json!({"0": area("290816", "258048"), "7": area("32768", "258048")});
        let found = |number, bytes| KeyslotArea { number, bytes };
        assert_eq!(of(two), Ok(vec![found(7, 32_768..290_816), found(0, 290_816..548_864)]));
        let last = found(0, 16_519_168..16_777_216);
        assert_eq!(of(json!({"0": area("16519168", "258048")})), Ok(vec![last]));
        assert_eq!(of(json!({"x": area("32768", "258048")})), Err("a keyslot has number x".to_owned()));
        for (offset, size) in [
            ("0", "258048"),
            ("28672", "258048"),
            ("16523264", "258048"),
            ("16777216", "258048"),
            ("32768", "255999"),
            ("32768", "0"),
            ("32768", "16748544"),
            ("32768", "18446744073709551615"),
            ("18446744073709551615", "258048"),
            ("-1", "258048"),
            ("", "258048"),
        ] {
            let refused = of(json!({"0": area(offset, size)})).unwrap_err();
            assert!(refused.starts_with("the area of keyslot 0, "), "{offset} {size}: {refused}");
        }
        let overlapping = json!({"0": area("32768", "258048"), "1": area("290815", "258048")});
        assert_eq!(of(overlapping), Err("the areas of keyslots 0 and 1 overlap".to_owned()));

        for (json_size, keyslots_size) in [
            ("12288", "16744449"),
            ("16777216", "0"),
            ("18446744073709551615", "0"),
            ("12288", "18446744073709551615"),
            ("12288", "-1"),
            // the area of its keyslot is then within the metadata, or behind all keyslots
            ("28672", "16711680"),
            ("12288", "131072"),
        ] {
            let mut metadata = header();
            metadata["config"]["json_size"] = json!(json_size);
            metadata["config"]["keyslots_size"] = json!(keyslots_size);
            assert!(keyslot_areas(&metadata).is_err(), "{json_size} {keyslots_size}");
        }
    }

    #[test]
    fn what_none_of_ours_can_be_is_refused_under_every_policy() {
        let cases = [
            ("/segments/0/encryption", json!("cipher_null-ecb")),
            ("/segments/0/encryption", json!("aes-cbc-plain")),
            ("/segments/0/encryption", json!(7)),
            ("/segments/0/type", json!("linear")),
            ("/segments/0/offset", json!("4096")),
            ("/segments/0/offset", json!(16_777_216)),
            ("/segments/0/size", json!("512")),
            ("/segments/0/iv_tweak", json!("8")),
            ("/segments/0/sector_size", json!(8192)),
            ("/segments/0/sector_size", json!(1000)),
            ("/segments/0/sector_size", json!("4096")),
            ("/segments", json!({})),
            ("/segments", json!([])),
            ("/segments", json!({"0": header()["segments"]["0"], "1": header()["segments"]["0"]})),
            ("/segments", json!({"1": header()["segments"]["0"]})),
            ("/config", json!({"requirements\0": {}})),
            ("/tokens", json!({})),
            ("/tokens", json!({"0": token(), "1": token()})),
            ("/tokens/0/wrapped_key", json!("AQIE")),
            ("/tokens/0/wrapped_key", json!("")),
            ("/tokens/0/key_arn", json!("arn:aws:kms:y")),
            ("/tokens/0/version", json!("one")),
            ("/keyslots/0/area/encryption", json!("cipher_null")),
            ("/keyslots/0/area", json!({})),
            ("/keyslots/0/area/offset", json!("0")),
            ("/keyslots/0/area/size", json!(258_048)),
            ("/keyslots/0/area/key_size", json!(1 << 30)),
            ("/keyslots/0/type", json!("reencrypt")),
            ("/keyslots/0/key_size", json!(16)),
            ("/config/flags", json!(["submit-from-crypt-cpus"])),
            ("/config/flags", json!("allow-discards")),
            ("/digests", json!({})),
            ("/digests", json!({"0": header()["digests"]["0"], "1": header()["digests"]["0"]})),
            ("/digests/0/type", json!("plain")),
            ("/digests/0/hash", json!("sha512")),
            ("/digests/0/hash", json!("sha1")),
            ("/digests/0/digest", json!("AAAA")),
            ("/config/requirements", json!({"mandatory": ["online-reencrypt-v2"]})),
            ("/config/requirements", json!({"mandatory": "online-reencrypt-v2"})),
        ];
        for header_policy in [HeaderPolicy::Possible, HeaderPolicy::Recorded(layout())] {
            let expected = Expected { header: header_policy, ..expected() };
            for (pointer, value) in &cases {
                let mut metadata = header();
                let (parent, name) = pointer.rsplit_once('/').unwrap();
                metadata.pointer_mut(parent).unwrap()[name] = value.clone();
                assert!(check_header(&metadata, &expected).is_err(), "{pointer} {value}");
            }
            for (key, value) in [("integrity", json!({"type": "none"})), ("flags", json!(["backup-final"]))] {
                let mut metadata = header();
                metadata["segments"]["0"][key] = value;
                assert!(check_header(&metadata, &expected).is_err(), "{key}");
            }
        }
    }
}
