//! The control that a report answers, as findings in other formats name it.

use super::disk::Standing;
use super::report::AuditReport;

/// Its ID. It is not one of AWS: EMR.3 looks at a configuration, and this at the disks of a node.
pub(super) const CONTROL: &str = "luks-agent/disks-encrypted";
/// What it demands.
pub(super) const DEMAND: &str = "Every disk of a node is encrypted with LUKS by luks-agent, or excepted by a rule";
/// The standard of [`REQUIREMENTS`].
pub(super) const STANDARD: &str = "NIST SP 800-53 Rev. 5";
/// The requirements that AWS relates to EMR.3, which has the same aim.
pub(super) const REQUIREMENTS: [&str; 3] = ["NIST.800-53.r5 CA-9(1)", "NIST.800-53.r5 CP-9(8)", "NIST.800-53.r5 SI-12"];
/// What to do about a finding. At most 512 bytes.
pub(super) const REMEDY: &str = "Run 'luks-agent plan' on the node: it says of each disk what luks-agent would do with it, and why. \
     'luks-agent provision' encrypts blank disks. A disk that holds data has to be saved and emptied first.";

/// Returns the title of a finding about a node.
pub(super) fn title(report: &AuditReport) -> String {
    let node = report.node.title();
    match report.verdict {
        Standing::Encrypted | Standing::Excepted => format!("The disks of {node} are encrypted or excepted"),
        Standing::Unknown => format!("Nothing shows whether all disks of {node} are encrypted"),
        Standing::NotEncrypted => format!("Data is or could be in clear on disks of {node}"),
    }
}

/// Returns the description of a finding about a node.
pub(super) fn description(report: &AuditReport) -> String {
    if !report.reasons.is_empty() {
        return report.reasons.join("; ");
    }
    let count = |verdict| report.disks.iter().filter(|disk| disk.verdict == verdict).count();
    let (encrypted, excepted) = (count(Standing::Encrypted), count(Standing::Excepted));
    format!("{encrypted} disks are encrypted with LUKS by luks-agent, {excepted} are excepted by a rule")
}
