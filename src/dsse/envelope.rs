//! The envelope, and the bytes that are signed.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::{Deserialize, Serialize};

use super::public_key::PublicKey;
use crate::text::shortened;

/// How much of the parser's message is shown, in characters: it can quote a name of any length.
const SHOWN: usize = 300;

/// Standard base64, which is read with and without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A payload with one signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// What is signed.
    pub payload: Vec<u8>,
    /// What kind of document it is, usually a media type.
    pub payload_type: String,
    /// The signature of both.
    pub signature: Signature,
}

/// A signature, and which key it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// A hint which key it is. It is not signed, so nothing may depend on it.
    pub key_id: Option<String>,
    /// The signature.
    pub bytes: Vec<u8>,
}

/// A text that is not an envelope with one signature.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// Not JSON, or JSON of something else.
    #[error("not a DSSE envelope: {0}")]
    Invalid(String),
    /// A field that is not base64.
    #[error("not a DSSE envelope: its {0} is not base64")]
    NotBase64(&'static str),
    /// No signature, or several.
    #[error("the envelope has {0} signatures, expected one")]
    NotOneSignature(usize),
}

/// The fields as DSSE names them. It asks readers to ignore others.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    payload: String,
    payload_type: String,
    signatures: Vec<SignatureFields>,
}

#[derive(Serialize, Deserialize)]
struct SignatureFields {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keyid: Option<String>,
    sig: String,
}

impl Envelope {
    /// Reads an envelope. The signature is not verified.
    ///
    /// # Errors
    /// Says what is wrong if the text is not an envelope with one signature.
    pub fn read(text: &[u8]) -> Result<Self, EnvelopeError> {
        // serde takes a list for a struct, too
        if text.trim_ascii_start().first() != Some(&b'{') {
            return Err(EnvelopeError::Invalid("it is not a JSON object".to_owned()));
        }
        let Fields { payload, payload_type, mut signatures } = serde_json::from_slice(text)
            .map_err(|e| EnvelopeError::Invalid(shortened(&e.to_string(), SHOWN).into_owned()))?;
        let count = signatures.len();
        let signature = signatures.pop().filter(|_| count == 1).ok_or(EnvelopeError::NotOneSignature(count))?;
        let bytes = decode("signature", &signature.sig)?;
        let signature = Signature { key_id: signature.keyid, bytes };
        Ok(Self { payload: decode("payload", &payload)?, payload_type, signature })
    }

    /// Returns the envelope as JSON, on one line.
    pub fn to_json(&self) -> String {
        let Self { payload, payload_type, signature } = self;
        let fields = Fields {
            payload: BASE64.encode(payload),
            payload_type: payload_type.clone(),
            signatures: vec![SignatureFields { keyid: signature.key_id.clone(), sig: BASE64.encode(&signature.bytes) }],
        };
        // JSON can have every text
        serde_json::to_string(&fields).unwrap_or_default()
    }

    /// Returns whether the holder of the private key to `key` signed the payload and its type.
    pub fn is_signed_by(&self, key: &PublicKey) -> bool {
        key.verifies(&encode(&self.payload_type, &self.payload), &self.signature.bytes)
    }
}

/// Returns what is signed: the pre-authentication encoding (PAE) of a payload and its type.
pub fn encode(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

/// Decodes base64, of which DSSE allows both alphabets.
fn decode(field: &'static str, text: &str) -> Result<Vec<u8>, EnvelopeError> {
    BASE64.decode(text.replace('-', "+").replace('_', "/")).map_err(|_| EnvelopeError::NotBase64(field))
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

    use super::*;

    // the test vector of DSSE's protocol.md
    const ENVELOPE: &str = r#"{"payload": "aGVsbG8gd29ybGQ=",
 "payloadType": "http://example.com/HelloWorld",
 "signatures": [{"sig": "A3JqsQGtVsJ2O2xqrI5IcnXip5GToJ3F+FnZ+O88SjtR6rDAajabZKciJTfUiHqJPcIAriEGAHTVeCUjW2JIZA=="}]}"#;
    const SPKI: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEZ805D3eqNZywjCI19lInBJOp7YMrCrzAH3CVTAOQ0jgMeCvVTiaRJaRPRDOv8UMs6U4SvKc6pnrIDOoSYI3fdA==";

    fn error(text: &str) -> String {
        Envelope::read(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn encodes_and_reads_the_published_test_vector() {
        let envelope = Envelope::read(ENVELOPE.as_bytes()).unwrap();
        assert_eq!((envelope.payload.as_slice(), envelope.signature.key_id.as_deref()), (&b"hello world"[..], None));
        let signed = encode(&envelope.payload_type, &envelope.payload);
        assert_eq!(signed, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
        // its signature has another form than those of KMS, but it is of the same bytes
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, BASE64.decode(SPKI).unwrap());
        key.verify(&signed, &envelope.signature.bytes).unwrap();
    }

    #[test]
    fn counts_bytes_and_not_characters() {
        assert_eq!(encode("é", "ü\n".as_bytes()), "DSSEv1 2 é 3 ü\n".as_bytes());
        assert_eq!(encode("", b""), b"DSSEv1 0  0 ");
    }

    #[test]
    fn reads_what_was_written() {
        for key_id in [None, Some("arn:aws:kms:us-east-1:111122223333:key/1".to_owned())] {
            let signature = Signature { key_id, bytes: vec![0xff, 0xfe, 0] };
            let envelope = Envelope { payload: vec![0, 1, 0xff], payload_type: "a/b".to_owned(), signature };
            let text = envelope.to_json();
            assert!(text.starts_with(r#"{"payload":"AAH/","payloadType":"a/b","signatures":[{"#), "{text}");
            assert_eq!(Envelope::read(text.as_bytes()).unwrap(), envelope);
        }
    }

    #[test]
    fn reads_both_alphabets_and_ignores_fields_that_it_does_not_know() {
        for (payload, sig) in [("_-8=", "-_-_"), ("/+8=", "+/+/"), ("_-8", "+_-/")] {
            let text = format!(
                r#"{{"more": 1, "payload": "{payload}", "payloadType": "t", "signatures": [{{"sig": "{sig}", "cert": ""}}]}}"#
            );
            let envelope = Envelope::read(text.as_bytes()).unwrap();
            assert_eq!((envelope.payload, envelope.signature.bytes), (vec![0xff, 0xef], vec![0xfb, 0xff, 0xbf]));
        }
    }

    #[test]
    fn says_why_a_text_is_not_an_envelope() {
        assert_eq!(error(""), "not a DSSE envelope: it is not a JSON object");
        assert_eq!(error("[\"\", \"\", []]"), "not a DSSE envelope: it is not a JSON object");
        assert!(error("{").starts_with("not a DSSE envelope: EOF"), "{}", error("{"));
        assert!(error("{\"schema\": \"x\"}").starts_with("not a DSSE envelope: missing field `payload`"));
        let twice = ENVELOPE.replace("{\"payload\"", "{\"payload\": \"\", \"payload\"");
        assert!(error(&twice).contains("duplicate field `payload`"), "{}", error(&twice));
        assert_eq!(error(&ENVELOPE.replace("aGVs", "aG s")), "not a DSSE envelope: its payload is not base64");
        assert_eq!(error(&ENVELOPE.replace("A3Jq", "A3.q")), "not a DSSE envelope: its signature is not base64");
        let several = ENVELOPE.replace("[{", "[{\"sig\": \"\"}, {");
        assert_eq!(error(&several), "the envelope has 2 signatures, expected one");
        let none = format!("{}[]}}", ENVELOPE.split_once('[').unwrap().0);
        assert_eq!(error(&none), "the envelope has 0 signatures, expected one");
    }
}
