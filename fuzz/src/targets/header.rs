//! LUKS2 metadata against the header policy, which is said here once more in other words.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use luks_agent::key::{KeySource, WrappedKey};
use luks_agent::luks2::{
    Cipher, EXEC_TOKEN_TYPE, Expected, Flags, HeaderPolicy, Layout, TOKEN_TYPE, Token, check_header,
};
use serde_json::{Value, json};
use uuid::Uuid;

/// As in the seeds, which are headers that the agent made.
pub(crate) const KEY_ARN: &str = "arn:aws:kms:us-east-1:111122223333:key/1";
/// The wrapped key of the seeds, as well.
pub(crate) fn wrapped_key() -> Vec<u8> {
    vec![5; 64]
}

/// The layouts of the seeds.
pub(crate) fn layouts() -> [Layout; 3] {
    let flags =
        |discards, no_read_workqueue, no_write_workqueue| Flags { discards, no_read_workqueue, no_write_workqueue };
    [
        Layout { cipher: Cipher::AesXtsPlain64, key_size: 512, sector_size: 4096, flags: flags(true, false, false) },
        Layout {
            cipher: Cipher::SerpentXtsPlain64,
            key_size: 256,
            sector_size: 512,
            flags: flags(false, false, false),
        },
        Layout { cipher: Cipher::AesXtsPlain64, key_size: 512, sector_size: 512, flags: flags(true, true, true) },
    ]
}

pub(crate) fn run(data: &[u8]) -> String {
    let Ok(metadata) = serde_json::from_slice::<Value>(data) else { return "not JSON".to_owned() };
    let tokens = ours(&metadata);
    match Token::find(&metadata) {
        Ok(None) => assert!(tokens.is_empty()),
        Ok(Some(token)) => {
            assert!([TOKEN_TYPE, EXEC_TOKEN_TYPE].contains(&token.kind.as_str()));
            assert_eq!(tokens[0]["key_arn"], json!(token.key_arn));
        }
        Err(_) => assert!(!tokens.is_empty()),
    }

    let expected = |header| Expected {
        luks_uuid: Uuid::nil(),
        header,
        key: KeySource::aws_kms(WrappedKey::new(wrapped_key()).expect("64 bytes"), KEY_ARN),
        other: None,
        reencrypting: false,
        volume_key: None,
    };
    let said = check_header(&metadata, &expected(HeaderPolicy::Possible));
    assert_eq!(said.is_ok(), Allowed::possible().allows(&metadata), "{metadata:#}");
    let accepted: Vec<Layout> = layouts()
        .into_iter()
        .filter(|layout| {
            let accepted = check_header(&metadata, &expected(HeaderPolicy::Recorded(*layout))).is_ok();
            assert_eq!(accepted, Allowed::only(layout).allows(&metadata), "{layout:?}: {metadata:#}");
            accepted
        })
        .collect();
    assert!(accepted.len() <= 1 && (accepted.is_empty() || said.is_ok()));
    match said {
        Ok(()) => format!("{accepted:?}"),
        Err(violation) => violation.to_string().split_off("the LUKS2 header is not what luks-agent wrote".len()),
    }
}

fn ours(metadata: &Value) -> Vec<&Value> {
    let Some(tokens) = metadata["tokens"].as_object() else { return vec![] };
    tokens.values().filter(|token| token["type"] == TOKEN_TYPE || token["type"] == EXEC_TOKEN_TYPE).collect()
}

/// What a header may say, in all that decides how the disk is read and who can open it.
struct Allowed {
    encryptions: Vec<String>,
    sector_sizes: Vec<u32>,
    key_bytes: Vec<u32>,
    /// `None`: any of those that there are.
    flags: Option<Vec<&'static str>>,
}

const CIPHERS: [&str; 3] = ["aes-xts-plain64", "serpent-xts-plain64", "twofish-xts-plain64"];
const FLAGS: [&str; 3] = ["allow-discards", "no-read-workqueue", "no-write-workqueue"];

impl Allowed {
    fn only(layout: &Layout) -> Self {
        let (cipher, mode) = layout.cipher.parts();
        let Flags { discards, no_read_workqueue, no_write_workqueue } = layout.flags;
        let on = [discards, no_read_workqueue, no_write_workqueue];
        Self {
            encryptions: vec![format!("{cipher}-{mode}")],
            sector_sizes: vec![layout.sector_size],
            key_bytes: vec![layout.key_size / 8],
            flags: Some(FLAGS.into_iter().zip(on).filter(|(_, on)| *on).map(|(name, _)| name).collect()),
        }
    }

    fn possible() -> Self {
        let encryptions = CIPHERS.map(str::to_owned).to_vec();
        Self { encryptions, sector_sizes: vec![512, 1024, 2048, 4096], key_bytes: vec![32, 64], flags: None }
    }

    fn allows(&self, metadata: &Value) -> bool {
        // as JSON writes a NUL, where the backslash is not the second of two
        !metadata.to_string().replace("\\\\", "").contains("\\u0000")
            && self.allows_segments(&metadata["segments"])
            && self.allows_flags(metadata.pointer("/config/flags"))
            && is_digest(&metadata["digests"])
            && metadata.pointer("/config/requirements/mandatory").is_none_or(|list| *list == json!([]))
            && is_token(&ours(metadata))
            && metadata["keyslots"].as_object().into_iter().flatten().all(|(_, slot)| self.allows_keyslot(slot))
            && has_places(metadata)
    }

    fn allows_segments(&self, segments: &Value) -> bool {
        self.encryptions.iter().any(|encryption| {
            self.sector_sizes.iter().any(|sector_size| {
                *segments
                    == json!({"0": {
                        "type": "crypt",
                        "offset": "16777216",
                        "size": "dynamic",
                        "iv_tweak": "0",
                        "encryption": encryption,
                        "sector_size": sector_size,
                    }})
            })
        })
    }

    fn allows_flags(&self, found: Option<&Value>) -> bool {
        let none = json!([]);
        let Some(found) = found.unwrap_or(&none).as_array() else { return false };
        match &self.flags {
            None => found.iter().all(|flag| FLAGS.iter().any(|known| flag == known)),
            Some(flags) => {
                let each: BTreeSet<String> = found.iter().map(Value::to_string).collect();
                found.len() == flags.len() && each == flags.iter().map(|flag| json!(flag).to_string()).collect()
            }
        }
    }

    fn allows_keyslot(&self, keyslot: &Value) -> bool {
        keyslot["type"] == "luks2"
            && self.key_bytes.iter().any(|bytes| keyslot["key_size"] == *bytes)
            && CIPHERS.iter().any(|cipher| keyslot["area"]["encryption"] == *cipher)
            && (keyslot["area"]["key_size"] == 32 || keyslot["area"]["key_size"] == 64)
    }
}

/// Whether each keyslot has a place of its own for 4,000 copies of its key, between both copies of the metadata and the data.
fn has_places(metadata: &Value) -> bool {
    let number = |value: &Value| value.as_str().and_then(|text| text.parse::<u64>().ok()).map(i128::from);
    let config = &metadata["config"];
    let (Some(json), Some(room)) = (number(&config["json_size"]), number(&config["keyslots_size"])) else {
        return false;
    };
    let (first, last) = (2 * (json + 4096), 2 * (json + 4096) + room);
    let mut places = Vec::new();
    for keyslot in metadata["keyslots"].as_object().into_iter().flat_map(|slots| slots.values()) {
        let (Some(at), Some(size)) = (number(&keyslot["area"]["offset"]), number(&keyslot["area"]["size"])) else {
            return false;
        };
        places.push((at, at + size));
        if at < first
            || at + size > last
            || keyslot["key_size"].as_u64().is_none_or(|key| size < i128::from(key) * 4000)
        {
            return false;
        }
    }
    let apart = |(a, b): (usize, usize)| places[a].1 <= places[b].0 || places[b].1 <= places[a].0;
    last <= 16 << 20 && (0..places.len()).flat_map(|b| (0..b).map(move |a| (a, b))).all(apart)
}

fn is_digest(digests: &Value) -> bool {
    let Some(digests) = digests.as_object() else { return false };
    digests.len() == 1
        && digests.values().all(|digest| {
            let size = decoded(&digest["digest"]).map(|bytes| bytes.len());
            let fits =
                (digest["hash"] == "sha256" && size == Some(32)) || (digest["hash"] == "sha512" && size == Some(64));
            digest["type"] == "pbkdf2" && fits
        })
}

/// Whether there is one token of ours, with what the state file has of it.
fn is_token(tokens: &[&Value]) -> bool {
    let [token] = tokens else { return false };
    token["type"] == TOKEN_TYPE
        && token["key_arn"] == KEY_ARN
        && decoded(&token["wrapped_key"]) == Some(wrapped_key())
        && token["version"].as_u64().is_some_and(|version| u32::try_from(version).is_ok())
        && token["keyslots"].as_array().is_some_and(|list| list.iter().all(Value::is_string))
        && (token["instance_id"].is_string() || token["instance_id"].is_null())
}

fn decoded(value: &Value) -> Option<Vec<u8>> {
    value.as_str().and_then(|text| STANDARD.decode(text).ok())
}
