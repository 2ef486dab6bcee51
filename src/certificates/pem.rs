//! The sections of a PEM file.
//!
//! Text between sections is passed over, as OpenSSL does. Nothing that is read here is quoted in an error: it may be a key.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// How many sections of a file are read.
const MAX_SECTIONS: usize = 2_000;

/// One section.
pub(super) struct Section {
    /// What stands after `BEGIN`.
    pub(super) label: String,
    /// What is between the lines with the label.
    pub(super) body: Body,
}

/// The content of a section.
pub(super) enum Body {
    /// Decoded.
    Der(Zeroizing<Vec<u8>>),
    /// Encrypted with a passphrase.
    Encrypted,
    /// Not base64, or without an end.
    Damaged,
}

/// Returns the sections of a file.
pub(super) fn sections(file: &[u8]) -> Vec<Section> {
    let mut lines = file.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        let Some(label) = label(line, b"-----BEGIN ") else { continue };
        if found.len() == MAX_SECTIONS {
            break;
        }
        let end = [&b"-----END "[..], label, &b"-----"[..]].concat();
        let mut is_closed = false;
        let body: Vec<&[u8]> = lines
            .by_ref()
            .take_while(|line| {
                is_closed = *line == end;
                !is_closed
            })
            .collect();
        let label: String = String::from_utf8_lossy(label).chars().take(60).collect();
        let body = if is_closed { decode(&label, &body) } else { Body::Damaged };
        found.push(Section { label, body });
    }
    found
}

fn label<'l>(line: &'l [u8], begin: &[u8]) -> Option<&'l [u8]> {
    line.strip_prefix(begin)?.strip_suffix(b"-----")
}

fn decode(label: &str, lines: &[&[u8]]) -> Body {
    // the header of OpenSSL's own format
    let is_encrypted = |line: &&[u8]| line.starts_with(b"Proc-Type:") && line.ends_with(b"ENCRYPTED");
    if label == "ENCRYPTED PRIVATE KEY" || lines.iter().any(is_encrypted) {
        return Body::Encrypted;
    }
    // with room for all of it, no copy is left behind by a larger allocation
    let mut base64 = Zeroizing::new(Vec::with_capacity(lines.iter().map(|line| line.len()).sum()));
    lines.iter().for_each(|line| base64.extend_from_slice(line));
    STANDARD.decode(&base64).map_or(Body::Damaged, |der| Body::Der(Zeroizing::new(der)))
}

/// Says what a file is in which the expected section was not found.
pub(super) fn describe(file: &[u8], found: &[Section]) -> String {
    let labels: Vec<&str> = found.iter().take(3).map(|section| section.label.as_str()).collect();
    match file {
        _ if !labels.is_empty() => format!("found 'BEGIN {}'", labels.join("', 'BEGIN ")),
        [] => "it is empty".to_owned(),
        // a SEQUENCE, as all keys and certificates are
        [0x30, ..] => "it seems to be DER".to_owned(),
        _ => "there is no line '-----BEGIN ...-----' in it".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, Option<usize>)> {
        let length = |body| match body {
            Body::Der(der) => Some(der.len()),
            Body::Encrypted | Body::Damaged => None,
        };
        sections(text.as_bytes()).into_iter().map(|section| (section.label, length(section.body))).collect()
    }

    #[test]
    fn passes_over_text_between_sections_and_takes_both_line_ends() {
        let text = "Bag Attributes\r\n-----BEGIN A B-----\r\nQUJD\r\nREVG\r\n-----END A B-----\r\nx\n-----BEGIN C-----\n-----END C-----";
        assert_eq!(read(text), [("A B".to_owned(), Some(6)), ("C".to_owned(), Some(0))]);
    }

    #[test]
    fn tells_what_is_damaged() {
        for text in [
            "-----BEGIN A-----\nQUJD",
            "-----BEGIN A-----\nQUJ\n-----END A-----",
            "-----BEGIN A-----\nQU*D\n-----END A-----",
            "-----BEGIN A-----\nQUJD\n-----END B-----",
        ] {
            assert_eq!(read(text), [("A".to_owned(), None)], "{text}");
        }
        assert!(read("-----BEGIN A\nQUJD\n-----END A-----").is_empty());
    }

    #[test]
    fn tells_what_is_encrypted() {
        for text in [
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nQUJD\n-----END ENCRYPTED PRIVATE KEY-----",
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nQUJD\n-----END RSA PRIVATE KEY-----",
        ] {
            assert!(matches!(sections(text.as_bytes())[0].body, Body::Encrypted), "{text}");
        }
    }
}
