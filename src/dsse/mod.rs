//! Signed envelopes: DSSE, the Dead Simple Signing Envelope of <https://github.com/secure-systems-lab/dsse>, with one signature.
//!
//! DSSE leaves the algorithm to both sides: here, the kind of the key decides.
//!
//! May import: `text`.
//! Never: a file, the network or a private key; bytes come in, envelopes and answers go out.

mod envelope;
mod public_key;

pub use envelope::{Envelope, EnvelopeError, Signature, encode};
pub use public_key::{PublicKey, PublicKeyError};
