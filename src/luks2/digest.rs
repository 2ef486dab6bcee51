//! SHA-256 in hex, as the state file has it.

use sha2::{Digest, Sha256};

/// The SHA-256 of all parts, one after the other.
pub(crate) fn sha256_hex(parts: &[&[u8]]) -> String {
    let hash = parts.iter().fold(Sha256::new(), |hash, part| hash.chain_update(part));
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
