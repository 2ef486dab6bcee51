//! The control API under `/_fake/`, for scripts that cannot call the library.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::fault::Fault;
use crate::key::KeyState;
use crate::shared::Shared;

/// What a 404 lists.
const REQUESTS: &str = "GET or DELETE requests, GET, POST or DELETE faults, POST allow, or POST keys/KEY/state";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    state: KeyState,
}

/// Performs a control request. Returns the HTTP status and the JSON body.
pub(crate) fn call(shared: &Shared, method: &str, path: &str, body: &[u8]) -> (u16, Value) {
    answer(shared, method, path, body).unwrap_or_else(|error| (400, json!({ "message": error.to_string() })))
}

fn answer(shared: &Shared, method: &str, path: &str, body: &[u8]) -> serde_json::Result<(u16, Value)> {
    let key = path.strip_prefix("keys/").and_then(|rest| rest.strip_suffix("/state"));
    Ok(match (method, path, key) {
        ("GET", "requests", _) => (200, serde_json::to_value(shared.log.all())?),
        ("DELETE", "requests", _) => {
            shared.log.clear();
            (200, json!({}))
        }
        ("GET", "faults", _) => (200, serde_json::to_value(shared.faults.all())?),
        ("POST", "faults", _) => {
            shared.faults.replace(serde_json::from_slice::<Vec<Fault>>(body)?);
            (200, json!({}))
        }
        ("DELETE", "faults", _) => {
            shared.faults.replace(Vec::new());
            (200, json!({}))
        }
        ("POST", "allow", _) => {
            shared.kms.set_allow(serde_json::from_slice(body)?);
            (200, json!({}))
        }
        ("POST", _, Some(key)) => {
            let State { state } = serde_json::from_slice(body)?;
            match shared.kms.set_state(key, state) {
                Ok(()) => (200, json!({})),
                Err(error) => (404, json!({ "message": error.to_string() })),
            }
        }
        _ => (404, json!({ "message": format!("unknown control request; expected {REQUESTS}") })),
    })
}
