//! `audit verify`: verifies the signature of an audit report. Needs neither a node nor AWS.

use std::path::Path;

use super::input::{name_of, read_bytes, standard_input_twice};
use super::printed::Printed;
use crate::audit::{AuditReport, MAX_BYTES, PAYLOAD_TYPE};
use crate::dsse::{Envelope, PublicKey};
use crate::error::chain;
use crate::report::ExitCode;

/// How large an envelope may be, in bytes: base64 takes a third more than the report.
const MAX_ENVELOPE: usize = MAX_BYTES / 2 * 3;
/// How large a file with a public key may be, in bytes.
const MAX_KEY: usize = 64 << 10;
/// How much of a text from the envelope is shown, in characters.
const SHOWN: usize = 300;

/// `audit verify`: prints the report in an envelope if its signature verifies with a public key.
pub fn audit_verify(public_key: &Path, envelope: &Path) -> Printed {
    match verify(public_key, envelope) {
        Ok(stdout) => Printed { stdout, complaints: Vec::new(), exit_code: ExitCode::Done },
        Err((exit_code, complaint)) => Printed { stdout: String::new(), complaints: vec![complaint], exit_code },
    }
}

fn verify(public_key: &Path, envelope: &Path) -> Result<String, (ExitCode, String)> {
    let bad = |complaint: String| (ExitCode::Configuration, complaint);
    let files = [public_key.to_owned(), envelope.to_owned()];
    standard_input_twice(files.iter()).map_or(Ok(()), |complaint| Err(bad(complaint)))?;
    let key = read_key(public_key).map_err(bad)?;
    let (name, envelope) = (name_of(envelope), read_envelope(envelope).map_err(bad)?);
    if !envelope.is_signed_by(&key) {
        let names = envelope.signature.key_id.map_or_else(String::new, |id| {
            format!("; the envelope names the key '{}', which its signature does not cover", start(&id))
        });
        return Err((
            ExitCode::Failed,
            format!(
                "{name}: the signature does not verify with {}: another key made it, or the envelope was changed afterwards{names}",
                name_of(public_key)
            ),
        ));
    }
    String::from_utf8(envelope.payload)
        .map_err(|_| bad(format!("{name}: the signature verifies, but what is signed is not text")))
}

/// Returns the first characters of a text from the envelope.
fn start(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

fn read_key(file: &Path) -> Result<PublicKey, String> {
    let mut text = Vec::new();
    read_bytes(file, MAX_KEY, &mut text)?;
    PublicKey::read(&text).map_err(|e| format!("{}: {}", name_of(file), chain(e)))
}

/// Reads an envelope with an audit report.
fn read_envelope(file: &Path) -> Result<Envelope, String> {
    let name = name_of(file);
    let mut text = Vec::new();
    read_bytes(file, MAX_ENVELOPE, &mut text)?;
    if text.len() > MAX_ENVELOPE {
        return Err(format!("{name}: larger than {} MiB; expected the envelope of one report", MAX_ENVELOPE >> 20));
    }
    let envelope = Envelope::read(&text).map_err(|e| match AuditReport::read(&text) {
        Ok(_) => format!(
            "{name}: an audit report without a signature; 'luks-agent audit' signs reports if audit.signing_key is set"
        ),
        Err(_) => format!("{name}: {}", chain(e)),
    })?;
    match envelope.payload_type.as_str() {
        PAYLOAD_TYPE => Ok(envelope),
        other => Err(format!("{name}: the payload type is '{}', expected '{PAYLOAD_TYPE}'", start(other))),
    }
}
