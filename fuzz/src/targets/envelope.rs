//! Signed envelopes: the files that somebody hands to `audit verify`.

use luks_agent::dsse::{Envelope, PublicKey};

/// The public key of the envelope in `fuzz/seeds/envelope/signed.json`; nobody has the private one.
const KEY: &[u8] = include_bytes!("envelope.pem");

pub(crate) fn run(data: &[u8]) -> String {
    let envelope = match Envelope::read(data) {
        Ok(envelope) => envelope,
        Err(error) => {
            let said = error.to_string();
            assert!(said.len() < 4_000, "a long error: {said}");
            return said;
        }
    };
    assert_eq!(Envelope::read(envelope.to_json().as_bytes()).expect("what was written can be read"), envelope);
    let key = PublicKey::read(KEY).expect("a public key");
    let is_signed = envelope.is_signed_by(&key);
    // nothing else has a signature by that key
    assert!(!is_signed || (envelope.payload == b"{}\n" && envelope.payload_type == "example"), "{envelope:?}");
    // the file with the key is read, too
    let other = PublicKey::read(&envelope.payload).map(|key| envelope.is_signed_by(&key)).map_err(|e| e.to_string());
    format!("{is_signed} {other:?}")
}
