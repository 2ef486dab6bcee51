//! `audit convert`: converts audit reports into the formats of other products. Needs neither a node nor AWS.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde_json::{Value, json};

use super::audit_reports::read_reports;
use super::printed::{Printed, pretty};
use crate::audit::{AuditReport, Batch, MAX_FINDINGS, Newest, asff, inventory, ocsf};
use crate::error::{IoError, chain};
use crate::report::ExitCode;

/// The formats of other products.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AuditFormat {
    /// Findings for 'aws securityhub batch-import-findings'
    Asff,
    /// Compliance Findings of OCSF 1.6.0, as one JSON array
    Ocsf,
    /// A page about one report, without scripts, which needs no network
    Html,
    /// One report as custom inventory, which the SSM Agent of its node uploads
    Inventory,
    /// A line of JSON for each disk of every node, for Athena and other engines
    Rows,
}

/// `audit convert`: converts the newest report of each node, of failing nodes only unless `all`.
///
/// If one file cannot be read, nothing is converted: a node that is left out would look like one that passes.
pub fn audit_convert(files: &[PathBuf], format: AuditFormat, all: bool, output_dir: Option<&Path>) -> Printed {
    let newest = read_reports(files).map_err(|complaints| (ExitCode::Configuration, complaints));
    let converted = newest.and_then(|newest| {
        convert(&newest, format, all, output_dir).map_err(|(code, complaint)| (code, vec![complaint]))
    });
    match converted {
        Ok((stdout, complaints)) => Printed { stdout, complaints, exit_code: ExitCode::Done },
        Err((exit_code, complaints)) => Printed { stdout: String::new(), complaints, exit_code },
    }
}

fn convert(
    newest: &Newest,
    format: AuditFormat,
    all: bool,
    output_dir: Option<&Path>,
) -> Result<(String, Vec<String>), (ExitCode, String)> {
    let bad = |complaint: String| (ExitCode::Configuration, complaint);
    if output_dir.is_some() && format != AuditFormat::Asff {
        return Err(bad("--output-dir is for --format asff; the other formats have no limit to split at".to_owned()));
    }
    let chosen = || newest.reports().filter(|report| all || !report.verdict.is_fine());
    let nothing = || {
        let nodes = newest.reports().count();
        vec![format!("no finding: the disks of all {nodes} nodes are encrypted or excepted; --all converts these too")]
    };
    match format {
        AuditFormat::Html => {
            let report =
                one(newest).ok_or_else(|| bad("a page is about one node; give the report of one".to_owned()))?;
            Ok((report.to_html(), Vec::new()))
        }
        AuditFormat::Inventory => {
            let report =
                one(newest).ok_or_else(|| bad("inventory is about one node; give the report of one".to_owned()))?;
            Ok((pretty(&inventory(report)), Vec::new()))
        }
        AuditFormat::Rows => Ok((newest.reports().map(AuditReport::to_rows).collect(), Vec::new())),
        AuditFormat::Ocsf => {
            let findings: Vec<Value> = chosen().map(ocsf).collect();
            let complaints = if findings.is_empty() { nothing() } else { Vec::new() };
            Ok((pretty(&json!(findings)), complaints))
        }
        AuditFormat::Asff => {
            let batches = asff(chosen()).map_err(|e| bad(chain(e)))?;
            if let Some(dir) = output_dir {
                let names = write(&batches, dir).map_err(|complaint| (ExitCode::Failed, complaint))?;
                return Ok((names, if batches.is_empty() { nothing() } else { Vec::new() }));
            }
            match batches.as_slice() {
                [] => Ok((pretty(&json!([])), nothing())),
                [batch] => Ok((pretty(&json!(batch.findings)), Vec::new())),
                several => {
                    let findings: usize = several.iter().map(|batch| batch.findings.len()).sum();
                    let needed = several.len();
                    Err(bad(format!(
                        "{findings} findings need {needed} calls: one takes {MAX_FINDINGS} findings and 6 MB, of one account and Region; \
                         give --output-dir DIR, which writes a file for each"
                    )))
                }
            }
        }
    }
}

/// Returns the report, if there is only one.
fn one(newest: &Newest) -> Option<&AuditReport> {
    let mut reports = newest.reports();
    reports.next().filter(|_| reports.next().is_none())
}

/// Writes a file for each call into an empty directory, and returns their names, one a line.
fn write(batches: &[Batch], dir: &Path) -> Result<String, String> {
    std::fs::create_dir_all(dir).map_err(|e| chain(IoError::when("create", dir)(e)))?;
    let mut entries = dir.read_dir().map_err(|e| chain(IoError::when("read", dir)(e)))?;
    if entries.next().is_some() {
        return Err(format!(
            "{} is not empty; give an empty directory, so that nobody imports findings of an earlier run",
            dir.display()
        ));
    }
    let mut names = String::new();
    for (number, Batch { account, region, findings }) in batches.iter().enumerate() {
        let path = dir.join(format!("findings-{account}-{region}-{:04}.json", number + 1));
        std::fs::write(&path, pretty(&json!(findings))).map_err(|e| chain(IoError::when("write", &path)(e)))?;
        names.push_str(&format!("{}\n", path.display()));
    }
    Ok(names)
}
