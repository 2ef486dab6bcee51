//! The report that is kept on the node: its file, what the metrics have of it, and inventory.

use super::audit::{audit, audit_text, write_inventory, write_report};
use super::error::CommandError;
use crate::audit::AuditReport;
use crate::config::Config;
use crate::report::audited;

/// `audit --record`: audits the node, and writes the report to the file of `audit.report`. `blocks` are compared on each open volume.
///
/// # Errors
/// When there is no report, or it cannot be signed or written. The metrics and the inventory need neither: they have what the audit found.
pub async fn record_audit(config: &Config, blocks: u32) -> Result<(), CommandError> {
    let report = audit(config, blocks).await?;
    log(&report);
    audited::keep(&report);
    if config.audit.ssm_inventory {
        write_inventory(&report);
    }
    let text = audit_text(config, &report).await?;
    write_report(&config.audit.report, &text)?;
    audited::keep_recorded(&report);
    tracing::debug!("audit: the report is in {}", config.audit.report.display());
    Ok(())
}

fn log(report: &AuditReport) {
    let disks = report.disks.len();
    if report.verdict.is_fine() {
        tracing::info!("audit: {}; {disks} disks", report.verdict);
    } else {
        tracing::warn!("audit: {}; {}", report.verdict, report.reasons.join("; "));
    }
}
