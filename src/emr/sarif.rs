//! The result of `emr check` as SARIF 2.1.0, for code scanning.

use serde::Serialize;
use serde_json::{Value, json};

use super::checked::{Checked, CheckedFile, Finding, HIDDEN, LOCAL_DISKS_IN_CLEAR, findings};
use super::control::CONTROLS;
use crate::digest::sha256_hex;

const SCHEMA: &str = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

/// Returns the result as a SARIF log: one result for each problem, for data in clear, and for each control that fails.
pub fn sarif(checked: &Checked) -> Value {
    let mut rules: Vec<&'static str> = Vec::new();
    let mut results = Vec::new();
    for file in &checked.files {
        for (number, judgement) in file.documents.iter().enumerate() {
            for finding in findings(judgement, &checked.demands) {
                let index = rules.iter().position(|rule| *rule == finding.rule).unwrap_or_else(|| {
                    rules.push(finding.rule);
                    rules.len() - 1
                });
                results.push(result(file, number, &finding, index));
            }
        }
    }
    let rules: Vec<Rule> = rules.into_iter().map(Rule::of).collect();
    json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {"name": "luks-agent", "semanticVersion": env!("CARGO_PKG_VERSION"), "rules": rules}},
            "invocations": [{"executionSuccessful": true, "exitCode": checked.exit_code()}],
            "results": results,
        }],
    })
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    id: &'static str,
    short_description: Value,
}

impl Rule {
    fn of(id: &'static str) -> Self {
        let control = CONTROLS.iter().find(|control| control.id == id);
        let text = match (id, control) {
            (_, Some(control)) => format!("{} of {}: {}", control.id, control.checker, control.title),
            (LOCAL_DISKS_IN_CLEAR, _) => "EMR would not encrypt local disks".to_owned(),
            (HIDDEN, _) => "A control passes, and data is in clear".to_owned(),
            (other, None) => format!("EMR security configuration: {}", other.replace('-', " ")),
        };
        Self { id, short_description: json!({ "text": text }) }
    }
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
    let text = format!("{}\0{document}\0{}\0{}", finding.rule, finding.at.as_str(), finding.about);
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
    use super::super::checked::Level;
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
