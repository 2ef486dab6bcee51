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
        "the LUKS2 header has another volume key than the state file records: one of the two is from before a re-encryption; save this header first, with 'cryptsetup luksHeaderBackup'; if the header is the older one, restore a backup from after the last 'luks-agent rotate --volume-key'; if the state file is, or if cryptsetup re-encrypted the volume, run 'luks-agent forget --even-if-attached', then 'luks-agent adopt'"
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
