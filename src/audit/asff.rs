//! Findings in the AWS Security Finding Format, as `aws securityhub batch-import-findings` takes them.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::asff_resources::resources;
use super::control::{CONTROL, DEMAND, REMEDY, REQUIREMENTS, description, title};
use super::disk::Standing;
use super::place::Place;
use super::report::AuditReport;
use super::text::cut;
use crate::digest::sha256_hex;

/// How many findings one call takes.
pub const MAX_FINDINGS: usize = 100;
/// How large one call may be, in bytes. The Security Hub takes 6 MB.
const MAX_BATCH: usize = 5_500_000;
/// How large a finding may be, in bytes. The Security Hub takes 240 KB.
const MAX_FINDING: usize = 230_000;
/// How many reasons a finding has.
const MAX_REASONS: usize = 20;

/// A report that cannot be converted.
#[derive(Debug, thiserror::Error)]
pub enum AsffError {
    /// A node that is not in AWS, or that could not ask.
    #[error(
        "the report of '{node}' has no valid account and Region, which ASFF needs: IMDS did not answer when it was made; make it again, or convert it to ocsf"
    )]
    NoPlace {
        /// The node.
        node: String,
    },
}

/// The findings of one call.
#[derive(Debug)]
pub struct Batch {
    /// The account in which they must be imported.
    pub account: String,
    /// The Region in which they must be imported.
    pub region: String,
    /// At least one, at most [`MAX_FINDINGS`].
    pub findings: Vec<Value>,
}

/// Returns the findings about the nodes of reports, in as few calls as possible: one call takes those of one account and Region.
///
/// # Errors
/// Fails if a report does not say in which account and Region its node is.
pub fn asff<'r>(reports: impl Iterator<Item = &'r AuditReport>) -> Result<Vec<Batch>, AsffError> {
    let mut placed = Vec::new();
    for report in reports {
        let place =
            Place::of(&report.node).ok_or_else(|| AsffError::NoPlace { node: report.node.title().to_owned() })?;
        placed.push((place, report));
    }
    placed.sort_by_key(|(place, _)| *place);
    let mut batches: Vec<Batch> = Vec::new();
    let mut size = 0;
    for (place, report) in placed {
        let finding = finding(report, place);
        let more = sent_size(&finding);
        size += more;
        match batches.last_mut() {
            Some(batch)
                if (batch.account.as_str(), batch.region.as_str()) == (place.account, place.region)
                    && batch.findings.len() < MAX_FINDINGS
                    && size <= MAX_BATCH =>
            {
                batch.findings.push(finding);
            }
            _ => {
                size = more;
                let (account, region) = (place.account.to_owned(), place.region.to_owned());
                batches.push(Batch { account, region, findings: vec![finding] });
            }
        }
    }
    Ok(batches)
}

/// Returns the finding about a node.
fn finding(report: &AuditReport, place: Place<'_>) -> Value {
    let (status, severity) = match report.verdict {
        Standing::Encrypted | Standing::Excepted => ("PASSED", "INFORMATIONAL"),
        Standing::Unknown => ("WARNING", "MEDIUM"),
        Standing::NotEncrypted => ("FAILED", "HIGH"),
    };
    let Place { account, region } = place;
    let types = ["Software and Configuration Checks/Industry and Regulatory Standards"];
    let made = time(report.made);
    let mut compliance = json!({
        "Status": status,
        "RelatedRequirements": REQUIREMENTS,
        "SecurityControlId": CONTROL,
    });
    let reasons = report.reasons.iter().take(MAX_REASONS);
    let reasons: Vec<Value> =
        reasons.map(|reason| json!({"ReasonCode": code(report.verdict), "Description": cut(reason, 512)})).collect();
    if !reasons.is_empty() {
        compliance["StatusReasons"] = reasons.into();
    }
    let mut finding = json!({
        "SchemaVersion": "2018-10-08",
        "Id": id(report, place),
        "ProductArn": format!("arn:{}:securityhub:{region}:{account}:product/{account}/default", place.partition()),
        "ProductName": "luks-agent",
        "CompanyName": "luks-agent",
        "GeneratorId": CONTROL,
        "AwsAccountId": account,
        "Types": types,
        "CreatedAt": made,
        "UpdatedAt": made,
        "LastObservedAt": made,
        "Title": cut(&title(report), 256),
        "Description": cut(&description(report), 1024),
        "Remediation": {"Recommendation": {"Text": REMEDY}},
        "Compliance": compliance,
        "RecordState": if report.verdict.is_fine() { "ARCHIVED" } else { "ACTIVE" },
        "FindingProviderFields": {
            "Severity": {"Label": severity, "Original": report.verdict.to_string()},
            "Types": types,
        },
        "ProductFields": {
            "luks-agent/control": DEMAND,
            "luks-agent/version": cut(&report.agent_version, 128),
            "luks-agent/host-name": cut(&report.node.host_name, 512),
            "luks-agent/configuration-sha256": cut(&report.configuration.sha256, 128),
            "luks-agent/disks": report.disks.len().to_string(),
        },
        "Resources": [],
    });
    let all = resources(report, place);
    let total = all.len();
    add_resources(&mut finding, all, total);
    finding
}

/// Adds as many resources as fit. The worst disks come first, so what is left out is in order.
fn add_resources(finding: &mut Value, mut resources: Vec<Value>, total: usize) {
    resources.truncate(32);
    loop {
        let left_out = total - resources.len();
        if left_out > 0 {
            finding["ProductFields"]["luks-agent/resources-left-out"] = left_out.to_string().into();
        }
        finding["Resources"] = resources.clone().into();
        if sent_size(finding) <= MAX_FINDING || resources.len() == 1 {
            return;
        }
        resources.pop();
    }
}

/// Returns the same ID for every report of a node, so that a later finding replaces an earlier one.
fn id(report: &AuditReport, place: Place<'_>) -> String {
    let node = report.node.title();
    // an ID has at most 512 characters, and none of them may be lost
    let is_plain = node.len() <= 255 && node.bytes().all(|b| b.is_ascii_graphic());
    let node = if is_plain { node.to_owned() } else { sha256_hex(&[node.as_bytes()]) };
    format!("{CONTROL}/{}/{}/{node}", place.account, place.region)
}

fn code(verdict: Standing) -> &'static str {
    match verdict {
        Standing::Encrypted => "LUKS_AGENT_ENCRYPTED",
        Standing::Excepted => "LUKS_AGENT_EXCEPTED",
        Standing::Unknown => "LUKS_AGENT_UNKNOWN",
        Standing::NotEncrypted => "LUKS_AGENT_NOT_ENCRYPTED",
    }
}

/// Returns a time in ISO 8601, to the millisecond.
fn time(time: Timestamp) -> String {
    format!("{time:.3}")
}

/// Returns how many bytes a value has as the AWS CLI sends it: it escapes what is not ASCII.
fn sent_size(value: &Value) -> usize {
    value.to_string().chars().map(|c| if c.is_ascii() { 1 } else { 6 * c.len_utf16() }).sum()
}
