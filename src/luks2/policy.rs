//! The policy that a header must pass before it is used.

use std::fs::File;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::areas::keyslot_areas;
use super::header::Luks2Header;
use super::layout::{Flags, Layout};
use super::reencryption::{self, is_reencrypting};
use super::segment::{HeaderPolicy, check_single_segment, cipher};
use super::token::{TOKEN_TYPE, Token, ours};
use super::violation::{PolicyViolation, shown, violation};
use super::volume_key::VolumeKeyId;
use crate::key::KeySource;

/// The header that a volume must have according to the state file.
///
/// Without this check, anybody who can write to the disk could make the agent open it with a null cipher, at another offset or with
/// another key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// LUKS UUID.
    pub luks_uuid: Uuid,
    /// The layout.
    pub header: HeaderPolicy,
    /// The key that opens the volume, of which its header must have a token.
    pub key: KeySource,
    /// The key that the volume is about to get or to lose, of which its header may have a token.
    pub other: Option<KeySource>,
    /// Whether the agent has begun to re-encrypt its data. Only then its header may say so.
    #[serde(default)]
    pub reencrypting: bool,
    /// The volume key that the data is encrypted with, if known. It is not checked while the data is being re-encrypted.
    #[serde(default)]
    pub volume_key: Option<VolumeKeyId>,
}

/// Checks the metadata of a LUKS2 header. The UUID is not part of the metadata.
///
/// # Errors
/// Names the first violation.
pub fn check_header(metadata: &Value, expected: &Expected) -> Result<(), PolicyViolation> {
    // libcryptsetup is written in C, so it would see only a part of a name with a NUL byte
    if has_nul(metadata) {
        return violation("its metadata contains a NUL byte");
    }
    let section = |name: &str| metadata.get(name).and_then(Value::as_object);

    let requirements = metadata.pointer("/config/requirements/mandatory");
    let requirements = requirements.filter(|list| list.as_array().is_none_or(|list| !list.is_empty()));
    let in_progress = expected.reencrypting && is_reencrypting(metadata);
    match requirements {
        Some(list) if in_progress => {
            reencryption::check_requirements(list)?;
            reencryption::check_segments(metadata, expected.header)?;
        }
        Some(_) => return violation("it has mandatory requirements"),
        None => check_single_segment(metadata, expected.header)?,
    }
    check_flags(metadata, expected.header)?;
    // one for each volume key, and one for the metadata of the re-encryption
    check_digests(metadata, if in_progress { 3 } else { 1 + usize::from(expected.reencrypting) })?;
    if !expected.reencrypting {
        check_volume_key(metadata, expected)?;
    }
    check_token(metadata, expected)?;
    let mut of_reencryption = 0;
    for (id, keyslot) in section("keyslots").into_iter().flatten() {
        if in_progress && keyslot.get("type").and_then(Value::as_str) == Some("reencrypt") {
            of_reencryption += 1;
            reencryption::check_keyslot(id, keyslot)?;
        } else {
            check_keyslot(id, keyslot, expected.header)?;
        }
    }
    if in_progress && of_reencryption != 1 {
        return violation(format!("it has {of_reencryption} keyslots of type reencrypt, expected 1"));
    }
    keyslot_areas(metadata).map(drop)
}

/// Checks the header in a file, UUID included.
///
/// # Errors
/// Names the first violation.
pub(crate) fn check_file(file: &File, expected: &Expected) -> Result<(), PolicyViolation> {
    let header = match Luks2Header::read_intact(file) {
        Ok(header) => header,
        Err(e) => return violation(e.to_string()),
    };
    if header.luks_uuid != expected.luks_uuid {
        return violation(format!("it has LUKS UUID {}, expected {}", header.luks_uuid, expected.luks_uuid));
    }
    check_header(header.metadata.as_ref().unwrap_or(&Value::Null), expected)
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(list) => list.iter().any(has_nul),
        Value::Object(map) => map.iter().any(|(name, value)| name.contains('\0') || has_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
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
    if found.is_some_and(as_made) {
        return Ok(());
    }
    let expected = match policy {
        HeaderPolicy::Possible => String::new(),
        HeaderPolicy::Recorded(Layout { flags, .. }) => format!(", expected {flags}"),
    };
    violation(format!("its flags are {}{expected}", shown(list)))
}

/// Checks the digests of the volume keys: at least one, and no more than `most`.
///
/// If the digest is not as long as its hash, libcryptsetup 2.6.1 accepts any key as the volume key. The mapping would then read as
/// noise, like a volume without a file system.
fn check_digests(metadata: &Value, most: usize) -> Result<(), PolicyViolation> {
    let digests = metadata.get("digests").and_then(Value::as_object);
    match digests.filter(|digests| (1..=most).contains(&digests.len())) {
        Some(digests) => digests.values().try_for_each(check_digest),
        None if most == 1 => violation("it does not have exactly one volume key digest"),
        None => violation(format!("it does not have 1 to {most} volume key digests")),
    }
}

fn check_digest(digest: &Value) -> Result<(), PolicyViolation> {
    let text = |key: &str| digest.get(key).and_then(Value::as_str);
    let size = match text("hash") {
        Some("sha256") => 32,
        Some("sha512") => 64,
        _ => {
            return violation(format!("its digest uses hash {}, expected sha256 or sha512", shown(digest.get("hash"))));
        }
    };
    let bytes = text("digest").and_then(|text| STANDARD.decode(text).ok()).map(|bytes| bytes.len());
    if text("type") != Some("pbkdf2") || bytes != Some(size) {
        return violation(format!("its volume key digest is not a pbkdf2 digest of {size} bytes"));
    }
    Ok(())
}

/// Checks that the header has the volume key that the data is encrypted with.
///
/// A header from before a re-encryption passes every other check, but the data key then opens it onto noise, and any write destroys data.
///
/// # Errors
/// [`PolicyViolation::OtherVolumeKey`], or if the header does not say which volume key the data has.
pub(crate) fn check_volume_key(metadata: &Value, expected: &Expected) -> Result<(), PolicyViolation> {
    let Some(recorded) = &expected.volume_key else { return Ok(()) };
    match VolumeKeyId::of(metadata) {
        Some(found) if found == *recorded => Ok(()),
        Some(_) => Err(PolicyViolation::OtherVolumeKey),
        None => violation("it does not have exactly one volume key digest of its data"),
    }
}

/// Checks that the header has one token of the key that opens the volume, at most one of the other key, and none of a third.
fn check_token(metadata: &Value, expected: &Expected) -> Result<(), PolicyViolation> {
    let mut found = Vec::new();
    for (_, token) in ours(metadata) {
        let source = source_of(token, expected)?;
        if found.contains(&source) {
            return violation(format!("it has more than one {TOKEN_TYPE} token"));
        }
        found.push(source);
    }
    match found.as_slice() {
        [] => violation(format!("it has no {TOKEN_TYPE} token")),
        found if !found.contains(&expected.key) => violation("it has no token of the key that opens it"),
        _ => Ok(()),
    }
}

/// Returns the key of a token of ours, which must be one of those expected.
fn source_of(token: &Value, expected: &Expected) -> Result<KeySource, PolicyViolation> {
    let source = match Token::deserialize(token) {
        Ok(token) => token.source(),
        Err(e) => {
            return violation(format!(
                "this luks-agent cannot read its {TOKEN_TYPE} token, which a newer release may have written: {e}"
            ));
        }
    };
    let keys = || [Some(&expected.key), expected.other.as_ref()].into_iter().flatten();
    if keys().any(|key| *key == source) {
        return Ok(source);
    }
    if keys().all(|key| key.key_arn != source.key_arn) {
        return violation(format!(
            "its token names key {}, the state file names {}",
            source.key_arn.escape_debug(),
            expected.key.key_arn
        ));
    }
    violation("the wrapped key in its token is not the one in the state file, so one of the two was changed")
}

/// Checks a keyslot. One that is not encrypted reveals the volume key to everybody who can read the disk, and opens with any passphrase.
fn check_keyslot(id: &str, keyslot: &Value, policy: HeaderPolicy) -> Result<(), PolicyViolation> {
    let id = id.escape_debug();
    let kind = keyslot.get("type");
    if kind.and_then(Value::as_str) != Some("luks2") {
        return violation(format!("keyslot {id} is of type {}, expected luks2", shown(kind)));
    }
    let encryption = keyslot.pointer("/area/encryption");
    if cipher(encryption).is_none() {
        return violation(format!("keyslot {id} has cipher {}", shown(encryption)));
    }
    let area_key = keyslot.pointer("/area/key_size");
    if !area_key.and_then(Value::as_u64).is_some_and(|bytes| [32, 64].contains(&bytes)) {
        return violation(format!(
            "keyslot {id} is encrypted with a key of {} bytes, expected 32 or 64",
            shown(area_key)
        ));
    }
    let size = keyslot.get("key_size");
    let as_made = match policy {
        HeaderPolicy::Possible => size.and_then(Value::as_u64).is_some_and(|bytes| [32, 64].contains(&bytes)),
        HeaderPolicy::Recorded(layout) => size.and_then(Value::as_u64) == Some(u64::from(layout.key_size / 8)),
    };
    if as_made {
        return Ok(());
    }
    let expected = match policy {
        HeaderPolicy::Possible => "32 or 64".to_owned(),
        HeaderPolicy::Recorded(layout) => (layout.key_size / 8).to_string(),
    };
    violation(format!("keyslot {id} holds a volume key of {} bytes, expected {expected}", shown(size)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::key::{Provider, WrappedKey};
    use crate::luks2::Cipher;

    fn source(byte: u8) -> KeySource {
        KeySource::aws_kms(WrappedKey::new(vec![byte, 2, 3]).unwrap(), "arn:aws:kms:x")
    }

    fn token() -> Token {
        Token::new(source(1), Some("i-1".into()))
    }

    fn layout() -> Layout {
        let flags = Flags { discards: true, ..Flags::default() };
        Layout { cipher: Cipher::AesXtsPlain64, key_size: 512, sector_size: 4096, flags }
    }

    fn expected() -> Expected {
        Expected {
            luks_uuid: Uuid::nil(),
            header: HeaderPolicy::Recorded(layout()),
            key: source(1),
            other: None,
            reencrypting: false,
            volume_key: None,
        }
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
    fn the_header_that_we_make_passes() {
        assert_eq!(check_header(&header(), &expected()), Ok(()));
    }

    #[test]
    fn while_a_key_changes_the_header_may_have_a_token_of_the_other_key_too() {
        let with = |tokens: &[Token]| {
            let tokens = tokens.iter().enumerate().map(|(id, token)| (id.to_string(), json!(token)));
            let mut metadata = header();
            metadata["tokens"] = Value::Object(tokens.collect());
            metadata
        };
        let [own, other, third] = [1, 9, 8].map(|byte| Token::new(source(byte), None));
        let exec = Token::new(KeySource { provider: Provider::Exec, ..source(1) }, None);
        let changing = Expected { other: Some(source(9)), ..expected() };
        // each with whether it passes while the key changes, and otherwise
        for (tokens, while_changing, otherwise) in [
            (vec![own.clone()], true, true),
            (vec![own.clone(), other.clone()], true, false),
            (vec![other.clone(), own.clone()], true, false),
            (vec![other.clone()], false, false),
            (vec![own.clone(), other.clone(), other.clone()], false, false),
            (vec![own.clone(), own.clone()], false, false),
            (vec![own.clone(), third.clone()], false, false),
            (vec![own.clone(), other, third], false, false),
            (vec![exec.clone()], false, false),
            (vec![own, exec], false, false),
            (vec![], false, false),
        ] {
            let metadata = with(&tokens);
            assert_eq!(check_header(&metadata, &changing).is_ok(), while_changing, "{tokens:?}");
            assert_eq!(check_header(&metadata, &expected()).is_ok(), otherwise, "{tokens:?}");
        }
    }

    #[test]
    fn refuses_a_header_with_another_volume_key_than_the_data() {
        let mut metadata = header();
        metadata["digests"]["0"]["segments"] = json!(["0"]);
        metadata["digests"]["0"]["salt"] = json!("c2FsdA==");
        let volume_key = VolumeKeyId::of(&metadata);
        assert!(volume_key.is_some());
        let expected = Expected { volume_key, ..expected() };
        assert_eq!(check_header(&metadata, &expected), Ok(()));
        let mut former = metadata.clone();
        former["digests"]["0"]["salt"] = json!("b3RoZXI=");
        assert_eq!(check_header(&former, &expected), Err(PolicyViolation::OtherVolumeKey));
        // a record of an earlier release has none, and a re-encryption has both
        assert_eq!(check_header(&former, &Expected { volume_key: None, ..expected.clone() }), Ok(()));
        assert_eq!(check_header(&former, &Expected { reencrypting: true, ..expected.clone() }), Ok(()));
        // it counts before the wrapped key, because that says less
        former["tokens"] = json!({});
        assert_eq!(check_header(&former, &expected), Err(PolicyViolation::OtherVolumeKey));
        metadata["digests"]["0"]["segments"] = json!([]);
        assert!(matches!(check_header(&metadata, &expected), Err(PolicyViolation::Changed(_))));
    }

    #[test]
    fn a_nul_byte_anywhere_is_refused() {
        for token in [
            json!({"type": "x", "note": "a\0b"}),
            json!({"type": "x", "a\0b": 1}),
            json!({"type": "x", "list": ["\0"]}),
        ] {
            let mut metadata = header();
            metadata["tokens"]["5"] = token;
            let message = check_header(&metadata, &expected()).unwrap_err().to_string();
            assert!(message.contains("its metadata contains a NUL byte"), "{message}");
        }
        let mut metadata = header();
        metadata["tokens"]["5"] = json!({"type": "x", "note": "ab"});
        assert_eq!(check_header(&metadata, &expected()), Ok(()));
    }

    #[test]
    fn a_violation_says_what_is_wrong_and_what_to_do() {
        let message = |pointer: &str, value: Value| {
            let mut metadata = header();
            *metadata.pointer_mut(pointer).unwrap() = value;
            check_header(&metadata, &expected()).unwrap_err().to_string()
        };
        let end = "; luks-agent does not use it: find out who changed it, and see 'break-glass' in the README if you trust it";
        for (pointer, value, said) in [
            ("/tokens", json!({}), "it has no luks-agent-awskms token"),
            (
                "/tokens/0/key_arn",
                json!("arn:\u{1b}y"),
                "its token names key arn:\\u{1b}y, the state file names arn:aws:kms:x",
            ),
            (
                "/tokens/0/wrapped_key",
                json!("AQIE"),
                "the wrapped key in its token is not the one in the state file, so one of the two was changed",
            ),
            ("/segments/0/type", json!("lin\near"), "segment type is lin\\near, expected crypt"),
            ("/keyslots/0/key_size", json!(16), "keyslot 0 holds a volume key of 16 bytes, expected 64"),
        ] {
            let expected = format!("the LUKS2 header is not what luks-agent wrote: {said}{end}");
            assert_eq!(message(pointer, value), expected);
        }
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
