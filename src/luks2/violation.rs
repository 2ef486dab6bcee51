//! The reason why the agent does not use a header.

use std::fmt;

use serde_json::Value;

/// A header that is valid LUKS2 but not what the agent wrote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct PolicyViolation(pub(super) String);

impl fmt::Display for PolicyViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the LUKS2 header is not what luks-agent wrote: {}; luks-agent does not use it: find out who changed it, and see 'break-glass' in the README if you trust it",
            self.0
        )
    }
}

pub(super) fn violation<T>(text: impl Into<String>) -> Result<T, PolicyViolation> {
    Err(PolicyViolation(text.into()))
}

/// Formats a value of the metadata for a message.
pub(super) fn shown(value: Option<&Value>) -> String {
    value.map_or("missing".to_owned(), |value| {
        value.as_str().map_or_else(|| value.to_string(), |text| text.escape_debug().to_string())
    })
}
