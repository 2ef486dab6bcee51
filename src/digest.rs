//! SHA-256: in hex, as in the state file and in reports, and in base64, as in a Content Security Policy.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

/// Returns the SHA-256 of the concatenated parts, in hex.
pub(crate) fn sha256_hex(parts: &[&[u8]]) -> String {
    let hash = parts.iter().fold(Sha256::new(), |hash, part| hash.chain_update(part));
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the SHA-256 of a text, in base64.
pub(crate) fn sha256_base64(text: &str) -> String {
    STANDARD.encode(Sha256::digest(text))
}
