//! The token that marks the keyslot of a recovery key.

use serde_json::{Value, json};

/// Type of the token.
pub const RECOVERY_TOKEN_TYPE: &str = "luks-agent-recovery";

/// A token that marks the keyslot of a recovery key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RecoveryToken {
    /// Its number.
    pub(crate) number: u32,
    /// The keyslots that it marks.
    pub(crate) keyslots: Vec<u32>,
}

impl RecoveryToken {
    /// Returns the JSON of a token that marks no keyslot yet.
    pub(crate) fn json() -> Value {
        json!({"type": RECOVERY_TOKEN_TYPE, "keyslots": [], "version": 1})
    }

    /// Finds all of them in the metadata of a header.
    pub(crate) fn all(metadata: &Value) -> Vec<Self> {
        let is_one = |(_, token): &(&String, &Value)| is_recovery(token);
        let one = |(number, token): (&String, &Value)| {
            Some(Self { number: number.parse().ok()?, keyslots: keyslots(token).collect() })
        };
        tokens(metadata).filter(is_one).filter_map(one).collect()
    }

    /// Returns the keyslots that tokens of other types belong to.
    pub(crate) fn keyslots_of_others(metadata: &Value) -> Vec<u32> {
        tokens(metadata).filter(|(_, token)| !is_recovery(token)).flat_map(|(_, token)| keyslots(token)).collect()
    }
}

fn tokens(metadata: &Value) -> impl Iterator<Item = (&String, &Value)> {
    metadata.get("tokens").and_then(Value::as_object).into_iter().flatten()
}

fn is_recovery(token: &Value) -> bool {
    token.get("type").and_then(Value::as_str) == Some(RECOVERY_TOKEN_TYPE)
}

fn keyslots(token: &Value) -> impl Iterator<Item = u32> {
    let list = token.get("keyslots").and_then(Value::as_array).into_iter().flatten();
    list.filter_map(|keyslot| keyslot.as_str()?.parse().ok())
}
