//! Which volume key a volume has, without the volume key itself.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::keyslot::ProvenKeyslot;
use super::reencryption::is_reencrypting;
use crate::digest::sha256_hex;

/// Identifies a volume key: the SHA-256, in hex, of the salt and the digest by which the header recognises it.
///
/// Changes of keyslots and tokens leave both as they are. Only formatting and re-encryption make new ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VolumeKeyId(pub(crate) String);

impl VolumeKeyId {
    /// Returns the volume key of the data; `None` while the data is being re-encrypted, or if the header names not exactly one.
    pub(crate) fn of(metadata: &Value) -> Option<Self> {
        if is_reencrypting(metadata) {
            return None;
        }
        let has_data = |digest: &&Value| {
            let segments = digest.get("segments").and_then(Value::as_array);
            segments.is_some_and(|segments| segments.iter().any(|segment| segment.as_str() == Some("0")))
        };
        let mut of_data = metadata.get("digests")?.as_object()?.values().filter(has_data);
        let (Some(digest), None) = (of_data.next(), of_data.next()) else { return None };
        let text = |name: &str| digest.get(name)?.as_str();
        // base64 has no line feed
        Some(Self(sha256_hex(&[text("salt")?.as_bytes(), b"\n", text("digest")?.as_bytes()])))
    }
}

/// What a key has opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// The keyslot.
    pub keyslot: ProvenKeyslot,
    /// The volume key in it; `None` while the volume has two, because its data is being re-encrypted.
    pub volume_key: Option<VolumeKeyId>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_the_volume_key_of_the_data_whatever_the_keyslots() {
        let digest = |salt: &str, digest: &str, keyslots: &[&str], segments: &[&str]| json!({"type": "pbkdf2", "salt": salt, "digest": digest, "keyslots": keyslots, "segments": segments});
        let of = |digests: Value| VolumeKeyId::of(&json!({"digests": digests}));
        let own = of(json!({"0": digest("c2FsdA==", "ZGlnZXN0", &["0"], &["0"])}));
        assert_eq!(own.clone().unwrap().0, sha256_hex(&[b"c2FsdA==\nZGlnZXN0"]));
        let unbound = digest("b3RoZXI=", "b3RoZXI=", &["2"], &[]);
        for same in [
            json!({"3": digest("c2FsdA==", "ZGlnZXN0", &["1", "5"], &["0"])}),
            json!({"0": digest("c2FsdA==", "ZGlnZXN0", &["0"], &["0"]), "1": unbound.clone()}),
        ] {
            assert_eq!(of(same), own);
        }
        for other in [digest("c2FsdB==", "ZGlnZXN0", &["0"], &["0"]), digest("c2FsdA==", "ZGlnZXN1", &["0"], &["0"])] {
            let found = of(json!({"0": other}));
            assert!(found.is_some() && found != own);
        }
        for none in [
            json!({}),
            json!({"0": unbound}),
            json!({"0": {"segments": ["0"], "salt": "c2FsdA=="}}),
            json!({"0": digest("a", "b", &["0"], &["0"]), "1": digest("c", "d", &["1"], &["0"])}),
        ] {
            assert_eq!(of(none.clone()), None, "{none}");
        }
        let mut changing = json!({"digests": {"0": digest("c2FsdA==", "ZGlnZXN0", &["0"], &["0"])}});
        changing["config"]["requirements"]["mandatory"] = json!(["online-reencrypt-v2"]);
        assert_eq!(VolumeKeyId::of(&changing), None);
    }
}
