//! The result of `emr check` as SARIF 2.1.0, for code scanning.

use serde::Serialize;
use serde_json::{Value, json};

use super::checked::{Checked, CheckedFile, Finding, HIDDEN, LOCAL_DISKS_IN_CLEAR, Level, findings};
use super::control::CONTROLS;
use crate::certificates::{CertificateFinding, CheckedBundle, Weight};
use crate::digest::sha256_hex;

const SCHEMA: &str = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

/// Returns the result as a SARIF log: one result for each problem, for data in clear, for each control that fails, and for each finding
/// about certificates.
pub fn sarif(checked: &Checked) -> Value {
    let mut rules = Rules::default();
    let mut results = Vec::new();
    for file in &checked.files {
        for (number, judgement) in file.documents.iter().enumerate() {
            for finding in findings(judgement, &checked.demands) {
                let index = rules.index(finding.rule, "EMR security configuration");
                results.push(result(file, number, &finding, index));
            }
        }
    }
    for bundle in &checked.certificates {
        for finding in &bundle.findings {
            let index = rules.index(finding.id, "certificates for EMR");
            results.push(result_of_bundle(bundle, finding, index));
        }
    }
    json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {"name": "luks-agent", "semanticVersion": env!("CARGO_PKG_VERSION"), "rules": rules.0}},
            "invocations": [{"executionSuccessful": true, "exitCode": checked.exit_code()}],
            "results": results,
        }],
    })
}

/// The rules of which there are results.
#[derive(Debug, Default)]
struct Rules(Vec<Rule>);

impl Rules {
    /// Returns the number of a rule, which is added if it is new.
    fn index(&mut self, id: &'static str, about: &str) -> usize {
        self.0.iter().position(|rule| rule.id == id).unwrap_or_else(|| {
            self.0.push(Rule::of(id, about));
            self.0.len() - 1
        })
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    id: &'static str,
    short_description: Value,
}

impl Rule {
    fn of(id: &'static str, about: &str) -> Self {
        let control = CONTROLS.iter().find(|control| control.id == id);
        let text = match (id, control) {
            (_, Some(control)) => format!("{} of {}: {}", control.id, control.checker, control.title),
            (LOCAL_DISKS_IN_CLEAR, _) => "EMR would not encrypt local disks".to_owned(),
            (HIDDEN, _) => "A control passes, and data is in clear".to_owned(),
            (other, None) => format!("{about}: {}", other.replace('-', " ")),
        };
        Self { id, short_description: json!({ "text": text }) }
    }
}

/// A finding about certificates. Its file has no lines, and code scanning asks for one.
fn result_of_bundle(bundle: &CheckedBundle, finding: &CertificateFinding, rule_index: usize) -> Value {
    let print = format!("{}\0{}\0{}", finding.id, finding.member, finding.message);
    json!({
        "ruleId": finding.id,
        "ruleIndex": rule_index,
        "level": match finding.weight {
            Weight::Wrong => Level::Error,
            Weight::Doubtful => Level::Warning,
        },
        "message": {"text": finding.message},
        "locations": [{
            "physicalLocation": {"artifactLocation": {"uri": uri(&bundle.file)}, "region": {"startLine": 1}},
            "logicalLocations": [{"fullyQualifiedName": finding.member, "kind": "member"}],
        }],
        "partialFingerprints": {"luksAgentEmr/v1": short_digest(&print)},
    })
}

fn result(file: &CheckedFile, document: usize, finding: &Finding, rule_index: usize) -> Value {
    let judgement = file.documents.get(document);
    let (name, place) = judgement.map_or(("", ""), |j| (j.name.as_deref().unwrap_or_default(), j.document_at.as_str()));
    let line = file.line(document, &finding.at);
    json!({
        "ruleId": finding.rule,
        "ruleIndex": rule_index,
        "level": finding.level,
        "message": {"text": finding.message},
        "locations": [{
            "physicalLocation": {
                "artifactLocation": {"uri": uri(&file.file)},
                "region": {"startLine": line},
            },
            "logicalLocations": [{"fullyQualifiedName": finding.at, "kind": "member"}],
        }],
        "partialFingerprints": {"luksAgentEmr/v1": fingerprint(&format!("{name}\0{place}"), finding)},
    })
}

/// Returns what stays the same when lines move: the rule, the document and the place in it.
fn fingerprint(document: &str, finding: &Finding) -> String {
    short_digest(&format!("{}\0{document}\0{}\0{}", finding.rule, finding.at.as_str(), finding.about))
}

fn short_digest(text: &str) -> String {
    let mut digest = sha256_hex(&[text.as_bytes()]);
    digest.truncate(32);
    digest
}

/// Returns the URI of a file: relative as the path is, or absolute.
fn uri(path: &str) -> String {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/".contains(&b);
    let escaped: String =
        path.bytes().map(|b| if is_plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect();
    if path.starts_with('/') { format!("file://{escaped}") } else { escaped }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_paths() {
        assert_eq!(uri("a b/ü.json"), "a%20b/%C3%BC.json");
        assert_eq!(uri("/x/y.json"), "file:///x/y.json");
    }

    #[test]
    fn the_levels_are_those_of_sarif() {
        let levels = [Level::Error, Level::Warning, Level::Note].map(|level| serde_json::to_value(level).unwrap());
        assert_eq!(levels, ["error", "warning", "note"]);
    }
}
