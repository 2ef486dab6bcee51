//! The requests to the program, and its answers.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::error::Category;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::super::class::Class;
use super::super::error::Operation;
use super::super::key_facts::KeyState;
use super::super::key_service::GeneratedKey;
use crate::key::{DATA_KEY_BYTES, DataKey, KeySource, Provider, WrappedKey};

/// Version of the protocol.
const VERSION: u32 = 1;
/// Maximum length of a wrapped key in bytes. A header has room for two, which it needs while the key of a volume changes.
const WRAPPED_KEY_MAX: usize = 2048;
/// Maximum length of the name of a key in bytes; the ARN of a KMS key has about 80.
const NAME_MAX: usize = 512;
/// Maximum length of a message and of the name of a state in characters.
const MESSAGE_MAX: usize = 500;

/// A request to the program.
#[derive(Debug, Clone, Copy)]
pub(super) enum Request<'a> {
    /// A new data key, wrapped by the key of this name.
    Generate(&'a str),
    /// The plaintext of a wrapped key.
    Unwrap(&'a KeySource),
    /// Whether a wrapped key could be unwrapped.
    Describe(&'a KeySource),
}

#[derive(Serialize)]
struct Line<'a> {
    version: u32,
    operation: &'a str,
    key_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_bytes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wrapped_key: Option<&'a WrappedKey>,
}

impl<'a> Request<'a> {
    pub(super) fn operation(self) -> Operation {
        match self {
            Self::Generate(_) => Operation::Generate,
            Self::Unwrap(_) => Operation::Unwrap,
            Self::Describe(_) => Operation::Describe,
        }
    }

    /// Returns the name of the key.
    pub(super) fn key(self) -> &'a str {
        match self {
            Self::Generate(key) => key,
            Self::Unwrap(source) | Self::Describe(source) => &source.key_arn,
        }
    }

    /// Returns the line for the program.
    pub(super) fn to_line(self) -> Vec<u8> {
        let (key_bytes, wrapped_key) = match self {
            Self::Generate(_) => (Some(DATA_KEY_BYTES), None),
            Self::Unwrap(source) | Self::Describe(source) => (None, Some(&source.wrapped_key)),
        };
        let operation = self.operation().name();
        let line = Line { version: VERSION, operation, key_id: self.key(), key_bytes, wrapped_key };
        let mut line = serde_json::to_vec(&line).expect("strings and numbers are valid JSON");
        line.push(b'\n');
        line
    }
}

/// Why an answer gave no key. Contains nothing of the answer but the message of an error that the program reported.
#[derive(Debug, PartialEq, Eq)]
pub enum AnswerError {
    /// The program reported an error.
    Reported {
        /// Its kind.
        kind: ErrorKind,
        /// Its message.
        message: String,
    },
    /// Not an answer of this protocol.
    Garbled(&'static str),
    /// An answer with content that the agent cannot accept.
    Refused(String),
}

/// The kind of an error that a program reports, which decides the retries and the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// The key service does not respond, or cannot serve the request now.
    Unavailable,
    /// The key service denies the request.
    Denied,
    /// The key is disabled or deleted.
    KeyDisabled,
    /// The wrapped key is damaged or belongs to another key.
    WrappedKey,
    /// The program's own configuration cannot work, or there is no key of this name.
    Configuration,
    /// The program does not support the operation or the version of the protocol.
    Unsupported,
}

impl ErrorKind {
    pub(super) fn class(self) -> Class {
        match self {
            Self::Unavailable => Class::Transient,
            Self::Denied => Class::Denied,
            Self::KeyDisabled => Class::KeyState,
            Self::WrappedKey => Class::WrappedKey,
            Self::Configuration | Self::Unsupported => Class::Configuration,
        }
    }

    /// Returns its name in the protocol.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Denied => "denied",
            Self::KeyDisabled => "key-disabled",
            Self::WrappedKey => "wrapped-key",
            Self::Configuration => "configuration",
            Self::Unsupported => "unsupported",
        }
    }
}

/// The answer to `describe`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Description {
    /// The state of the key.
    Known {
        /// Its name in the key service.
        state: KeyState,
        /// Whether the key would unwrap the data key.
        enabled: bool,
    },
    /// The program does not support `describe`.
    Unsupported,
}

#[derive(Deserialize)]
struct Answer<'a> {
    /// As it stands in the answer. A `String` would be a copy that nobody wipes.
    #[serde(borrow)]
    plaintext: Option<&'a RawValue>,
    wrapped_key: Option<String>,
    key_id: Option<String>,
    enabled: Option<bool>,
    state: Option<String>,
    error: Option<Reported>,
}

#[derive(Deserialize)]
struct Reported {
    kind: ErrorKind,
    #[serde(default)]
    message: String,
}

/// Reads the answer to `generate`. `asked` is the name of the key that was asked for.
///
/// # Errors
/// [`AnswerError`].
pub fn read_generated(answer: &[u8], asked: &str) -> Result<GeneratedKey, AnswerError> {
    let answer = parse(answer)?;
    let data_key = data_key(answer.plaintext)?;
    let Some(text) = answer.wrapped_key else { return refused("it has no wrapped_key") };
    let Ok(bytes) = STANDARD.decode(text) else { return refused("wrapped_key is not base64") };
    if data_key.is_in(&bytes) {
        return refused("wrapped_key contains the data key in clear");
    }
    if bytes.is_empty() || bytes.len() > WRAPPED_KEY_MAX {
        return refused(&format!("wrapped_key has {} bytes, expected 1 to {WRAPPED_KEY_MAX}", bytes.len()));
    }
    let wrapped_key = WrappedKey::new(bytes).map_err(|e| AnswerError::Refused(e.to_string()))?;
    let key_arn = answer.key_id.unwrap_or_else(|| asked.to_owned());
    if key_arn.is_empty() || key_arn.len() > NAME_MAX || key_arn.contains(char::is_control) {
        return refused(&format!("key_id is not a name of 1 to {NAME_MAX} bytes without control characters"));
    }
    Ok(GeneratedKey { data_key, provider: Provider::Exec, wrapped_key, key_arn })
}

/// Reads the answer to `unwrap`. `asked` is the name of the key that was asked for.
///
/// # Errors
/// [`AnswerError`].
pub fn read_unwrapped(answer: &[u8], asked: &str) -> Result<DataKey, AnswerError> {
    let answer = parse(answer)?;
    match answer.key_id {
        Some(key_id) if key_id != asked => refused(&format!("it is from another key, {}", shortened(&key_id))),
        Some(_) | None => data_key(answer.plaintext),
    }
}

/// Reads the answer to `describe`.
///
/// # Errors
/// [`AnswerError`].
pub fn read_described(answer: &[u8]) -> Result<Description, AnswerError> {
    let answer = match parse(answer) {
        Err(AnswerError::Reported { kind: ErrorKind::Unsupported, .. }) => return Ok(Description::Unsupported),
        other => other?,
    };
    let Some(enabled) = answer.enabled else { return refused("it has no enabled") };
    let name = answer.state.filter(|state| !state.trim().is_empty());
    let name = name.unwrap_or_else(|| if enabled { "enabled" } else { "disabled" }.to_owned());
    Ok(Description::Known { state: KeyState { name: shortened(&name), deletion: None }, enabled })
}

/// Parses an answer. No text of serde_json gets into the error: it can quote the answer.
fn parse(answer: &[u8]) -> Result<Answer<'_>, AnswerError> {
    if answer.trim_ascii().is_empty() {
        return Err(AnswerError::Garbled("it is empty"));
    }
    let answer: Answer<'_> = serde_json::from_slice(answer).map_err(|error| {
        AnswerError::Garbled(match error.classify() {
            Category::Eof => "it ends in the middle of a JSON object",
            Category::Syntax | Category::Io => "it is not a JSON object, or something stands beside the object",
            Category::Data => "it is not a JSON object with the fields of the protocol",
        })
    })?;
    match answer.error {
        Some(Reported { kind, message }) => Err(AnswerError::Reported { kind, message: shortened(&message) }),
        None => Ok(answer),
    }
}

/// Decodes the data key. Every buffer has its whole length from the beginning, so that no copy is left behind, and is wiped.
fn data_key(plaintext: Option<&RawValue>) -> Result<DataKey, AnswerError> {
    let Some(raw) = plaintext else { return refused("it has no plaintext") };
    let Some(text) = raw.get().strip_prefix('"').and_then(|text| text.strip_suffix('"')) else {
        return refused("plaintext is not a string");
    };
    // some libraries write a slash in JSON as \/
    let mut base64 = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = if rest.starts_with(b"\\/") {
            after
        } else {
            base64.push(*first);
            after
        };
    }
    let mut bytes = Zeroizing::new(vec![0; base64.len()]);
    let Ok(length) = STANDARD.decode_slice(base64.as_slice(), &mut bytes) else {
        return refused("plaintext is not base64");
    };
    DataKey::from_slice(bytes.get(..length).unwrap_or_default()).map_err(|e| AnswerError::Refused(e.to_string()))
}

fn refused<T>(why: &str) -> Result<T, AnswerError> {
    Err(AnswerError::Refused(why.to_owned()))
}

/// Returns the beginning of a text that the program wrote, as one line.
fn shortened(text: &str) -> String {
    let line = text.trim().trim_end_matches('.').replace(['\r', '\n'], " ");
    match line.char_indices().nth(MESSAGE_MAX) {
        Some((end, _)) => format!("{}...", line.get(..end).unwrap_or_default()),
        None => line,
    }
}

#[cfg(test)]
mod tests;
