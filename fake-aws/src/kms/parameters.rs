//! The parameters of a request: reads and checks them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value};

use super::error::KmsError;
use crate::key::Context;

/// Returns a required string.
pub(super) fn text<'body>(body: &'body Value, field: &str) -> Result<&'body str, KmsError> {
    body.get(field).and_then(Value::as_str).ok_or_else(|| KmsError::missing(field))
}

/// Returns the length of the data key that the request asks for, in bytes.
pub(super) fn data_key_length(body: &Value) -> Result<usize, KmsError> {
    let given = |field: &str| body.get(field).filter(|value| !value.is_null());
    match (given("KeySpec"), given("NumberOfBytes")) {
        (Some(spec), None) if spec == "AES_256" => Ok(32),
        (Some(spec), None) if spec == "AES_128" => Ok(16),
        (Some(spec), None) => Err(KmsError::validation(format!("unknown KeySpec {spec}; expected AES_256 or AES_128"))),
        (None, Some(number)) => number
            .as_u64()
            .and_then(|number| usize::try_from(number).ok())
            .filter(|number| (1..=1024).contains(number))
            .ok_or_else(|| KmsError::validation("NumberOfBytes must be 1 to 1024")),
        (None, None) | (Some(_), Some(_)) => {
            Err(KmsError::validation("Please specify either number of bytes or key spec."))
        }
    }
}

/// Returns an encryption context; an absent one is empty.
pub(super) fn context(body: &Value, field: &str) -> Result<Context, KmsError> {
    let empty = Map::new();
    let object = match body.get(field) {
        None | Some(Value::Null) => &empty,
        Some(value) => value.as_object().ok_or_else(|| KmsError::validation(format!("{field} must be a map")))?,
    };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let pair = |(name, value): (&String, &Value)| Some((name.clone(), text(value)?));
    object
        .iter()
        .map(pair)
        .collect::<Option<_>>()
        .ok_or_else(|| KmsError::validation(format!("the values of {field} must be strings")))
}

/// Returns binary data of at most `limit` bytes, decoded from base64.
pub(super) fn blob(body: &Value, field: &str, limit: usize) -> Result<Vec<u8>, KmsError> {
    let bytes = BASE64
        .decode(text(body, field)?)
        .map_err(|_| KmsError::new("SerializationException", format!("{field} is not valid base64")))?;
    if bytes.is_empty() || bytes.len() > limit {
        return Err(KmsError::validation(format!("{field} must have 1 to {limit} bytes")));
    }
    Ok(bytes)
}

/// Fails if the request is a dry run; called after all checks of the real request have passed.
pub(super) fn refuse_dry_run(body: &Value) -> Result<(), KmsError> {
    if body.get("DryRun").and_then(Value::as_bool) == Some(true) {
        let message = "The request would have succeeded, but the DryRun option is set.";
        return Err(KmsError::new("DryRunOperationException", message));
    }
    Ok(())
}
