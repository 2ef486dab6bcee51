//! The segment of a volume: which sectors of the disk are encrypted, and how.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::layout::{Cipher, Encryption, Layout};
use super::violation::{PolicyViolation, shown, violation};

/// [`DATA_OFFSET`](super::layout::DATA_OFFSET) as the header writes it.
const DATA_OFFSET_TEXT: &str = "16777216";

/// The layout that a header must have. Each volume must pass the policy of the release that made it, so that volumes of older
/// releases still open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "policy", content = "layout")]
pub enum HeaderPolicy {
    /// Any layout that the agent can make. Format version 1 of the state file did not record the layout.
    #[default]
    #[serde(rename = "1")]
    Possible,
    /// Exactly the layout that the volume was made with.
    #[serde(rename = "2")]
    Recorded(Layout),
}

impl HeaderPolicy {
    /// Returns the encryption that the kernel must support; the default if the layout was not recorded.
    pub fn encryption(self) -> Encryption {
        match self {
            Self::Possible => Encryption { cipher: Cipher::AesXtsPlain64, key_size: 512 },
            Self::Recorded(Layout { cipher, key_size, .. }) => Encryption { cipher, key_size },
        }
    }
}

/// Checks that a header has one segment, as the agent makes it.
pub(super) fn check_single_segment(metadata: &Value, policy: HeaderPolicy) -> Result<(), PolicyViolation> {
    let segments = metadata.get("segments").and_then(Value::as_object);
    let segments = segments.map(|s| s.iter().collect::<Vec<_>>()).unwrap_or_default();
    let [(id, segment)] = segments.as_slice() else {
        return violation(format!("it has {} segments, expected 1", segments.len()));
    };
    if id.as_str() != "0" {
        return violation(format!("its segment has number {id}, expected 0"));
    }
    check_segment(segment, policy)
}

/// Returns a cipher that the agent knows.
pub(super) fn cipher(value: Option<&Value>) -> Option<Cipher> {
    value.and_then(|value| Cipher::deserialize(value).ok())
}

/// Checks a segment that reaches from the header to the end of the disk.
pub(super) fn check_segment(segment: &Value, policy: HeaderPolicy) -> Result<(), PolicyViolation> {
    let fixed = [("type", "crypt"), ("offset", DATA_OFFSET_TEXT), ("size", "dynamic"), ("iv_tweak", "0")];
    for (key, value) in fixed {
        if segment.get(key).and_then(Value::as_str) != Some(value) {
            return violation(format!("segment {key} is {}, expected {value}", shown(segment.get(key))));
        }
    }
    let known = |key: &str| ["encryption", "sector_size"].contains(&key) || fixed.iter().any(|(name, _)| *name == key);
    if let Some(key) = segment.as_object().into_iter().flat_map(|map| map.keys()).find(|key| !known(key)) {
        return violation(format!("its segment has the unexpected field '{}'", key.escape_debug()));
    }
    let (found, sector_size) = (cipher(segment.get("encryption")), segment.get("sector_size").and_then(Value::as_u64));
    let as_made = match policy {
        HeaderPolicy::Possible => {
            found.is_some() && sector_size.is_some_and(|size| (512..=4096).contains(&size) && size.is_power_of_two())
        }
        HeaderPolicy::Recorded(layout) => {
            found == Some(layout.cipher) && sector_size == Some(u64::from(layout.sector_size))
        }
    };
    if as_made {
        return Ok(());
    }
    let expected = match policy {
        HeaderPolicy::Possible => String::new(),
        HeaderPolicy::Recorded(Layout { cipher, sector_size, .. }) => {
            let (name, mode) = cipher.parts();
            format!(", expected {name}-{mode} and {sector_size} bytes")
        }
    };
    violation(format!(
        "its segment has cipher {} and sectors of {} bytes{expected}",
        shown(segment.get("encryption")),
        shown(segment.get("sector_size"))
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::luks2::DATA_OFFSET;

    #[test]
    fn the_data_offset_is_written_as_it_is() {
        assert_eq!(DATA_OFFSET.to_string(), DATA_OFFSET_TEXT);
    }
}
