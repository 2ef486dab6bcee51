//! A node of the fleet.

use jiff::Timestamp;
use serde::Serialize;

use super::proofs::Proofs;
use crate::audit::{AuditReport, Coverage, Standing};

/// A node, by its newest report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeRow {
    /// How it is called: its instance ID, or its host name without one.
    pub node: String,
    /// Its host name.
    pub host_name: String,
    /// Its AWS account.
    pub account: Option<String>,
    /// Its Region.
    pub region: Option<String>,
    /// The EMR cluster that it belongs to, if the answer of `describe-instances` says it.
    pub cluster_id: Option<String>,
    /// The name of its security configuration, if there is a document for it.
    pub security_configuration: Option<String>,
    /// When the report was made.
    pub made: Timestamp,
    /// The verdict of the report.
    pub verdict: Standing,
    /// Why.
    pub reasons: Vec<String>,
    /// Its disks.
    pub coverage: Coverage,
    /// The keys that its volumes depend on.
    pub keys: Vec<String>,
    /// The proofs that its volumes open.
    pub proofs: Proofs,
}

impl NodeRow {
    /// Returns the row of a report.
    pub(super) fn of(report: &AuditReport, cluster_id: Option<String>, security_configuration: Option<String>) -> Self {
        let (mut coverage, mut proofs) = (Coverage::default(), Proofs::default());
        coverage.add(report);
        proofs.add(report);
        let mut keys: Vec<String> = report.disks.iter().filter_map(|disk| disk.key_arn.clone()).collect();
        keys.sort();
        keys.dedup();
        Self {
            node: report.node.title().to_owned(),
            host_name: report.node.host_name.clone(),
            account: report.node.account.clone(),
            region: report.node.region.clone(),
            cluster_id,
            security_configuration,
            made: report.made,
            verdict: report.verdict,
            reasons: report.reasons.clone(),
            coverage,
            keys,
            proofs,
        }
    }
}
