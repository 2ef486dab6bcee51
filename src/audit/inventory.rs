//! A report as custom inventory of AWS Systems Manager.

use serde_json::{Value, json};

use super::coverage::Coverage;
use super::report::AuditReport;
use super::text::cut;

/// The name of the type. Systems Manager wants those that are not its own to begin so.
const TYPE: &str = "Custom:LuksAgentDisks";
/// The version of the attributes below.
const VERSION: &str = "1.0";
/// How long a value may be; the limit of `PutInventory` is in characters.
const MAX_VALUE: usize = 4096;

/// Returns a report as one item of custom inventory: a row about the node, all of whose values are texts. Disks are those that are attached.
///
/// The SSM Agent of the node uploads it from a file in `/var/lib/amazon/ssm/INSTANCE/inventory/custom`.
pub fn inventory(report: &AuditReport) -> Value {
    let Coverage { volumes, bytes, .. } = Coverage::of(report);
    let keys: Vec<&str> = report.keys.iter().map(|key| key.key_arn.as_str()).collect();
    json!({
        "SchemaVersion": VERSION,
        "TypeName": TYPE,
        "Content": {
            "Verdict": report.verdict.to_string(),
            "Reasons": cut(&report.reasons.join("; "), MAX_VALUE),
            "Made": report.made.to_string(),
            "AgentVersion": cut(&report.agent_version, MAX_VALUE),
            "DisksEncrypted": volumes.encrypted.to_string(),
            "DisksExcepted": volumes.excepted.to_string(),
            "DisksUnknown": volumes.unknown.to_string(),
            "DisksNotEncrypted": volumes.not_encrypted.to_string(),
            "BytesEncrypted": bytes.encrypted.to_string(),
            "OldestProof": report.oldest_proof().to_string(),
            "KeyArns": cut(&keys.join(" "), MAX_VALUE),
            "ConfigurationSha256": cut(&report.configuration.sha256, MAX_VALUE),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Standing;
    use crate::audit::example::example;

    #[test]
    fn a_row_about_the_node() {
        let row = inventory(&example());
        assert_eq!(row["TypeName"], "Custom:LuksAgentDisks");
        let content = &row["Content"];
        for (name, value) in [
            ("Verdict", "not encrypted"),
            ("Reasons", "nvme2n1 has an xfs file system in clear"),
            ("DisksEncrypted", "1"),
            ("DisksExcepted", "1"),
            ("DisksUnknown", "0"),
            ("DisksNotEncrypted", "1"),
            ("BytesEncrypted", "68719476736"),
            ("OldestProof", "2026-01-02T03:04:05Z"),
        ] {
            assert_eq!(content[name], value, "{name}");
        }
    }

    #[test]
    fn the_oldest_proof_counts_and_a_volume_without_one_is_told() {
        let mut report = example();
        let volume = report.disks[1].clone();
        report.disks.push(volume);
        report.disks[3].proven.as_mut().unwrap().at = "2025-01-02T03:04:05Z".parse().unwrap();
        assert_eq!(inventory(&report)["Content"]["OldestProof"], "2025-01-02T03:04:05Z");
        report.disks[1].proven = None;
        assert_eq!(inventory(&report)["Content"]["OldestProof"], "none since boot");
        let mut away = report.disks[3].clone();
        (away.device, away.verdict) = (None, Standing::Unknown);
        report.disks = vec![away];
        assert_eq!(inventory(&report)["Content"]["DisksUnknown"], "0");
        assert_eq!(inventory(&report)["Content"]["OldestProof"], "no volume");
    }
}
