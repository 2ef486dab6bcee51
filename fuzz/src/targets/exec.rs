//! Answers of the program of the exec provider: first a line `generate`, `unwrap` or `describe`, then the answer.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use luks_agent::kms::{AnswerError, read_described, read_generated, read_unwrapped};
use serde_json::Value;

use crate::http::MARKER;

const ASKED: &str = "transit/nodes";

pub(crate) fn run(data: &[u8]) -> String {
    let at = data.iter().position(|b| *b == b'\n').unwrap_or(data.len());
    let (operation, answer) = (&data[..at], data.get(at + 1..).unwrap_or_default());
    let text = String::from_utf8_lossy(answer).replace("@KEY@", MARKER);
    let answer = text.as_bytes();
    let value: Value = serde_json::from_slice(answer).unwrap_or_default();
    let said = match operation {
        b"generate" => read_generated(answer, ASKED).map(|key| {
            let wrapped = decoded(&value["wrapped_key"]);
            let plaintext = decoded(&value["plaintext"]);
            assert_eq!(key.data_key.passphrase().expose(), STANDARD.encode(&plaintext).as_bytes());
            assert_eq!(key.wrapped_key.as_bytes(), wrapped);
            assert!(!wrapped.is_empty() && wrapped.len() <= 2048);
            assert!(!wrapped.windows(plaintext.len()).any(|part| part == plaintext), "in clear");
            assert_eq!(key.key_arn, value["key_id"].as_str().unwrap_or(ASKED));
            assert!(!key.key_arn.is_empty() && !key.key_arn.contains(char::is_control));
            format!("{key:?}")
        }),
        b"unwrap" => read_unwrapped(answer, ASKED).map(|key| {
            assert_eq!(key.passphrase().expose(), STANDARD.encode(decoded(&value["plaintext"])).as_bytes());
            assert_eq!(value["key_id"].as_str().unwrap_or(ASKED), ASKED);
            format!("{key:?}")
        }),
        _ => read_described(answer).map(|described| {
            assert!(value["enabled"].is_boolean() || value["error"]["kind"] == "unsupported");
            format!("{described:?}")
        }),
    };
    match said {
        Ok(said) => {
            assert!(value["error"].is_null() || value["error"]["kind"] == "unsupported", "an error is a success");
            said
        }
        // these texts are the program's own
        Err(error @ AnswerError::Reported { .. }) => format!("{error:?}"),
        Err(error) => {
            let said = format!("{error:?}");
            let named = value["key_id"].as_str().is_some_and(|name| name.contains(&MARKER[..16]));
            assert!(named || !said.contains(&MARKER[..16]), "key material is shown: {said}");
            said
        }
    }
}

fn decoded(value: &Value) -> Vec<u8> {
    STANDARD.decode(value.as_str().unwrap_or_default()).expect("base64")
}
