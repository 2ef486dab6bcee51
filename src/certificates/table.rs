//! What is said about a bundle, for people.

use std::fmt;

use super::certificate::Certificate;
use super::checked_bundle::CheckedBundle;
use super::finding::Weight;
use super::private_key::KeyState;
use crate::text::{escape_controls, shortened};

/// How many certificates of each file are listed.
const LISTED: usize = 20;
/// How many characters of a name are shown.
const SHOWN: usize = 60;

impl fmt::Display for KeyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Fits => "that of certificate 1",
            Self::FitsAnother => "not that of certificate 1",
            Self::Mismatch => "that of no certificate",
            Self::Unknown => "not compared",
            Self::Missing => "missing",
        })
    }
}

impl fmt::Display for CheckedBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: certificates for encryption in transit", escape_controls(&self.file))?;
        writeln!(f, "private key: {}", self.private_key)?;
        print_certificates(f, "certificateChain.pem", &self.chain)?;
        print_certificates(f, "trustedCertificates.pem", &self.trusted)?;
        for (weight, title) in [(Weight::Wrong, "Nodes cannot use it:"), (Weight::Doubtful, "To look at:")] {
            let of_weight: Vec<_> = self.findings.iter().filter(|finding| finding.weight == weight).collect();
            if !of_weight.is_empty() {
                writeln!(f, "\n{title}")?;
            }
            for finding in of_weight {
                let member = if finding.member.is_empty() { "the zip file" } else { finding.member };
                writeln!(f, "    {member}: {}", escape_controls(&finding.message))?;
            }
        }
        Ok(())
    }
}

fn print_certificates(f: &mut fmt::Formatter<'_>, title: &str, certificates: &[Certificate]) -> fmt::Result {
    if certificates.is_empty() {
        return Ok(());
    }
    writeln!(f, "\n{title}")?;
    for (index, certificate) in certificates.iter().take(LISTED).enumerate() {
        writeln!(f, "{:>4}  {}", index + 1, cut(&certificate.subject))?;
        let issuer = if certificate.self_signed { "itself".to_owned() } else { cut(&certificate.issuer) };
        writeln!(f, "      issued by {issuer}")?;
        writeln!(f, "      valid from {} until {}", certificate.not_before, certificate.not_after)?;
        if let Some((first, more)) = certificate.names.split_first() {
            let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
            writeln!(f, "      for {}{more}", cut(first))?;
        }
    }
    match certificates.len().checked_sub(LISTED) {
        None | Some(0) => Ok(()),
        Some(more) => writeln!(f, "      and {more} more"),
    }
}

fn cut(text: &str) -> String {
    escape_controls(&shortened(text, SHOWN)).into_owned()
}
