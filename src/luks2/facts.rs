//! What a header says, without key material, for people and for comparisons.

use std::fmt;
use std::fs::File;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::areas::keyslot_areas;
use super::header::{Copies, HeaderError, Luks2Header};
use super::keyslot::ProvenKeyslot;
use super::token::{EXEC_TOKEN_TYPE, TOKEN_TYPE, Token};
use crate::digest::sha256_hex;

/// What a LUKS2 header says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderFacts {
    /// LUKS UUID.
    pub luks_uuid: Uuid,
    /// Counts the changes of the header.
    pub seqid: u64,
    /// Whether the first copy is intact.
    pub primary_intact: bool,
    /// Whether the second copy is intact.
    pub secondary_intact: bool,
    /// Cipher of the data, as the header names it.
    pub cipher: Option<String>,
    /// Size of an encryption sector in bytes.
    pub sector_size: Option<u64>,
    /// Where the data begins, in bytes.
    pub data_offset: Option<String>,
    /// The persistent flags.
    pub flags: Vec<String>,
    /// Keyslots, by number.
    pub keyslots: Vec<KeyslotFacts>,
    /// Tokens, by number.
    pub tokens: Vec<TokenFacts>,
}

/// What a header says of a keyslot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyslotFacts {
    /// Its number.
    pub number: u32,
    /// How its key is derived: `pbkdf2` or `argon2id`.
    pub kdf: String,
    /// Whether it is tried before others.
    pub preferred: bool,
    /// The tokens that belong to it.
    pub tokens: Vec<u32>,
    /// SHA-256 of its description, salt included but not its place: the same for one keyslot only.
    pub made: String,
    /// SHA-256 of its area, as the state file records it; `None` if it cannot be read.
    pub sha256: Option<String>,
}

/// What a header says of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenFacts {
    /// Its number.
    pub number: u32,
    /// Its type.
    pub kind: String,
    /// The keyslots that belong to it.
    pub keyslots: Vec<String>,
    /// The service that unwraps its key, if it is a token of luks-agent with a wrapped key.
    pub provider: Option<String>,
    /// The key that unwraps it.
    pub key_arn: Option<String>,
    /// The instance that made the volume.
    pub instance_id: Option<String>,
}

impl HeaderFacts {
    /// Reads the header on a disk or in a file; `None` if there is none.
    ///
    /// # Errors
    /// If the disk cannot be read.
    pub(crate) fn read(file: &File) -> Result<Option<Self>, HeaderError> {
        let Some(header) = Luks2Header::read(file)? else { return Ok(None) };
        let Copies { primary, secondary } = Copies::read(file)?;
        let metadata = header.metadata.unwrap_or_default();
        let text = |pointer: &str| metadata.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let flags = metadata.pointer("/config/flags").and_then(Value::as_array);
        let flags = flags.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        let tokens = numbered(&metadata, "tokens").into_iter().map(|(number, token)| token_facts(number, token));
        let tokens: Vec<TokenFacts> = tokens.collect();
        let areas = keyslot_areas(&metadata).unwrap_or_default();
        let keyslots = numbered(&metadata, "keyslots").into_iter().map(|(number, keyslot)| {
            let area = areas.iter().find(|area| area.number == number);
            let sha256 = area.and_then(|area| ProvenKeyslot::read(file, area).ok()).map(|proven| proven.sha256);
            let is_of = |token: &&TokenFacts| token.keyslots.contains(&number.to_string());
            KeyslotFacts {
                number,
                kdf: keyslot.pointer("/kdf/type").and_then(Value::as_str).unwrap_or("unknown").to_owned(),
                preferred: keyslot.get("priority").and_then(Value::as_u64) == Some(2),
                tokens: tokens.iter().filter(is_of).map(|token| token.number).collect(),
                made: made(keyslot),
                sha256,
            }
        });
        Ok(Some(Self {
            luks_uuid: header.luks_uuid,
            seqid: header.seqid,
            primary_intact: Copies::is_intact(primary.as_ref()),
            secondary_intact: Copies::is_intact(secondary.as_ref()),
            cipher: text("/segments/0/encryption"),
            sector_size: metadata.pointer("/segments/0/sector_size").and_then(Value::as_u64),
            data_offset: text("/segments/0/offset"),
            flags,
            keyslots: keyslots.collect(),
            tokens,
        }))
    }

    /// Whether libcryptsetup could use it: one intact copy is enough.
    pub fn is_usable(&self) -> bool {
        self.primary_intact || self.secondary_intact
    }

    /// Returns what is to be said of the copies.
    fn copies(&self) -> &'static str {
        match (self.primary_intact, self.secondary_intact) {
            (true, true) => "both copies are intact",
            (true, false) => "the second copy is damaged",
            (false, true) => "the first copy is damaged",
            (false, false) => "both copies are damaged",
        }
    }
}

/// Returns the entries of a section by number. Those whose name is no number are left out.
fn numbered<'m>(metadata: &'m Value, section: &str) -> Vec<(u32, &'m Value)> {
    let entries = metadata.get(section).and_then(Value::as_object).into_iter().flatten();
    let mut entries: Vec<_> = entries.filter_map(|(id, entry)| Some((id.parse().ok()?, entry))).collect();
    entries.sort_by_key(|(number, _)| *number);
    entries
}

fn token_facts(number: u32, token: &Value) -> TokenFacts {
    let kind = token.get("type").and_then(Value::as_str).unwrap_or("unknown").to_owned();
    let keyslots = token.get("keyslots").and_then(Value::as_array).into_iter().flatten();
    let keyslots = keyslots.filter_map(Value::as_str).map(str::to_owned).collect();
    let is_ours = [TOKEN_TYPE, EXEC_TOKEN_TYPE].contains(&kind.as_str());
    let ours = Token::deserialize(token).ok().filter(|_| is_ours);
    TokenFacts {
        number,
        kind,
        keyslots,
        provider: ours.as_ref().map(|ours| ours.provider().name().to_owned()),
        key_arn: ours.as_ref().map(|ours| ours.key_arn.clone()),
        instance_id: ours.and_then(|ours| ours.instance_id),
    }
}

/// Returns the SHA-256 of what makes a keyslot itself: its salt, not its place or priority, which can change.
fn made(keyslot: &Value) -> String {
    let mut keyslot = keyslot.clone();
    if let Some(fields) = keyslot.as_object_mut() {
        fields.remove("priority");
    }
    if let Some(area) = keyslot.get_mut("area").and_then(Value::as_object_mut) {
        area.remove("offset");
    }
    sha256_hex(&[keyslot.to_string().as_bytes()])
}

/// Strings come from the disk, so each is escaped: none may look like another line.
#[cfg(test)]
impl HeaderFacts {
    /// Returns an intact header without keyslots and tokens, of the volume of [`crate::state::State::sample`].
    pub(crate) fn sample() -> Self {
        Self {
            luks_uuid: Uuid::from_u128(7),
            seqid: 3,
            primary_intact: true,
            secondary_intact: true,
            cipher: None,
            sector_size: None,
            data_offset: None,
            flags: vec![],
            keyslots: vec![],
            tokens: vec![],
        }
    }
}

impl fmt::Display for HeaderFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_unknown = |text: &Option<String>| text.as_deref().unwrap_or("unknown").escape_debug().to_string();
        writeln!(f, "header: LUKS UUID {}, sequence id {}, {}", self.luks_uuid, self.seqid, self.copies())?;
        let sector_size = self.sector_size.map_or("unknown".to_owned(), |bytes| bytes.to_string());
        write!(f, "data: {}, sectors of {sector_size} bytes, ", or_unknown(&self.cipher))?;
        writeln!(f, "from byte {}{}", or_unknown(&self.data_offset), listed(", flags ", &self.flags))?;
        for KeyslotFacts { number, kdf, preferred, tokens, .. } in &self.keyslots {
            let preferred = if *preferred { ", preferred" } else { "" };
            let tokens: Vec<String> = tokens.iter().map(u32::to_string).collect();
            writeln!(f, "keyslot {number}: {}{preferred}{}", kdf.escape_debug(), listed(", token ", &tokens))?;
        }
        for TokenFacts { number, kind, keyslots, provider, key_arn, instance_id } in &self.tokens {
            write!(f, "token {number}: {}{}", kind.escape_debug(), listed(", keyslot ", keyslots))?;
            for (what, text) in [("provider", provider), ("key", key_arn), ("instance", instance_id)] {
                if let Some(text) = text {
                    write!(f, ", {what} {}", text.escape_debug())?;
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

fn listed(what: &str, items: &[String]) -> String {
    let items: Vec<String> = items.iter().map(|item| item.escape_debug().to_string()).collect();
    if items.is_empty() { String::new() } else { format!("{what}{}", items.join(" ")) }
}
