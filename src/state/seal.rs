//! The checksum of a state file.

use serde::Serialize;

use super::record::State;
use crate::digest::sha256_hex;

/// Content of the file: the state and its checksum in one object, so that it stays readable.
#[derive(Debug, Serialize)]
struct Sealed<'a> {
    #[serde(flatten)]
    state: &'a State,
    sha256: String,
}

/// Returns the text of a state file, with its checksum.
pub(super) fn seal(state: &State) -> serde_json::Result<Vec<u8>> {
    let body = serde_json::to_vec_pretty(state)?;
    let sha256 = sha256_hex(&[&without_whitespace(&body)]);
    let mut text = serde_json::to_vec_pretty(&Sealed { state, sha256 })?;
    text.push(b'\n');
    Ok(text)
}

/// Checks the checksum of a state file, and returns whether the file has one.
///
/// The checksum is of the bytes as they stand, so that a file is not damaged because this release does not know a
/// field or because a library prints JSON differently. A file of version 1 and an edited file have no checksum.
pub(super) fn check_seal(text: &[u8], value: &serde_json::Value) -> Result<bool, String> {
    let Some(recorded) = value.get("sha256") else { return Ok(false) };
    let recorded = recorded.as_str().unwrap_or_default();
    let compact = without_whitespace(text);
    let Some(body) = compact.strip_suffix(format!(",\"sha256\":\"{recorded}\"}}").as_bytes()) else {
        return Err("its last field is not 'sha256', so another program, such as jq, rewrote it; if you trust its content, remove the field 'sha256'".to_owned());
    };
    // a flipped bit must not turn one volume into another
    if sha256_hex(&[body, b"}"]) != recorded {
        return Err("its checksum does not match; if you edited it, remove the field 'sha256'".to_owned());
    }
    Ok(true)
}

/// Removes the whitespace between the tokens of JSON.
pub(super) fn without_whitespace(json: &[u8]) -> Vec<u8> {
    let (mut in_string, mut escaped) = (false, false);
    let mut keep = |byte: &u8| {
        let kept = in_string || !byte.is_ascii_whitespace();
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ => {}
        }
        kept
    };
    json.iter().copied().filter(|byte| keep(byte)).collect()
}
