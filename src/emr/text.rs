//! The text of a file: its encoding, and whether it is JSON.

use serde_json::Value;

use super::error::ReadError;
use super::json;

/// What editors and PowerShell put before a text in UTF-8.
pub(super) const BYTE_ORDER_MARK: char = '\u{feff}';

/// Returns the bytes of a file as text.
pub(super) fn decode(bytes: &[u8]) -> Result<&str, ReadError> {
    match utf_16(bytes) {
        Some(encoding) => Err(ReadError::OtherEncoding { encoding }),
        None => std::str::from_utf8(bytes).map_err(|e| ReadError::NotUtf8(e.valid_up_to())),
    }
}

/// Returns the name of the encoding if it is UTF-16. PowerShell writes it.
fn utf_16(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Some("UTF-16"),
        // no JSON has a NUL, and every JSON begins with a character of ASCII
        [first, 0, ..] if first.is_ascii() && *first != 0 => Some("UTF-16LE"),
        [0, second, ..] if second.is_ascii() && *second != 0 => Some("UTF-16BE"),
        _ => None,
    }
}

/// Parses the text of a file.
pub(super) fn parse(text: &str) -> Result<Value, ReadError> {
    let text = without_mark(text);
    json::parse(text).map_err(|e| match looks_like_yaml(text) {
        true => ReadError::Yaml { message: e.message },
        false => ReadError::Json { at: e.at, message: e.message },
    })
}

/// Removes a byte order mark.
pub(super) fn without_mark(text: &str) -> &str {
    text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text)
}

/// Returns whether a text that is not JSON begins as YAML does: with a document marker, a key, or an item of a list.
fn looks_like_yaml(text: &str) -> bool {
    let is_blank = |line: &&str| line.trim().is_empty() || line.trim_start().starts_with('#');
    let Some(first) = text.lines().find(|line| !is_blank(line)) else { return false };
    let is_key_character = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let is_key = |key: &str| !key.is_empty() && key.chars().all(is_key_character);
    let unquoted = |key: &str| -> String {
        let between = |quote: char| key.strip_prefix(quote)?.strip_suffix(quote);
        between('"').or_else(|| between('\'')).unwrap_or(key).to_owned()
    };
    let begins_with_key = first
        .split_once(':')
        .is_some_and(|(key, rest)| is_key(&unquoted(key.trim())) && (rest.is_empty() || rest.starts_with(' ')));
    first.starts_with("---") || first.starts_with("%YAML") || first.starts_with("- ") || begins_with_key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(bytes: &[u8]) -> String {
        decode(bytes).and_then(parse).unwrap_err().to_string()
    }

    #[test]
    fn utf_16_is_named_with_the_remedy() {
        let wide = |text: &str, swap: bool| -> Vec<u8> {
            text.encode_utf16().flat_map(|unit| if swap { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect()
        };
        for (text, swap, encoding) in [
            ("\u{feff}{}", false, "UTF-16"),
            ("\u{feff}{}", true, "UTF-16"),
            ("{}", false, "UTF-16LE"),
            ("{}", true, "UTF-16BE"),
        ] {
            let said = format!("{encoding}, expected UTF-8; convert it with 'iconv -f {encoding} -t UTF-8 FILE'");
            assert_eq!(error(&wide(text, swap)), said);
        }
        assert_eq!(error(b"{\"a\": \xff}"), "not UTF-8 at byte 6; expected JSON in UTF-8");
        assert!(parse(decode("\u{feff}{}".as_bytes()).unwrap()).is_ok());
    }

    #[test]
    fn yaml_is_told_from_broken_json() {
        for text in [
            "AWSTemplateFormatVersion: '2010-09-09'\nResources:\n",
            "Resources:\n  A: b",
            "# a comment\n\n---\nA: b",
            "\"Resources\":\n  A: b",
            "- a\n",
        ] {
            assert!(error(text.as_bytes()).contains("looks like YAML"), "{text}");
        }
        for text in ["", "{\"a\": }", "{a: 1}", "[1,", "\"a: b", "An error occurred: x", "http://x"] {
            assert!(!error(text.as_bytes()).contains("YAML"), "{text}");
        }
    }
}
