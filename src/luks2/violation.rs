//! The reason why the agent does not use a header.

use serde_json::Value;

/// A header that is valid LUKS2 but must not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyViolation {
    /// The header is not what the agent wrote.
    #[error(
        "the LUKS2 header is not what luks-agent wrote: {0}; luks-agent does not use it: find out who changed it, and see 'break-glass' in the README if you trust it"
    )]
    Changed(String),
    /// The header has another volume key than the data. The data key opens it, and the data reads as noise.
    #[error(
        "the LUKS2 header has another volume key than the state file records, so either is from before the last re-encryption, and no key makes the data readable with a former volume key; restore a header backup, or a copy of the state file, from after the last 'luks-agent rotate --volume-key'"
    )]
    OtherVolumeKey,
}

pub(super) fn violation<T>(text: impl Into<String>) -> Result<T, PolicyViolation> {
    Err(PolicyViolation::Changed(text.into()))
}

/// Formats a value of the metadata for a message.
pub(super) fn shown(value: Option<&Value>) -> String {
    value.map_or("missing".to_owned(), |value| {
        value.as_str().map_or_else(|| value.to_string(), |text| text.escape_debug().to_string())
    })
}
