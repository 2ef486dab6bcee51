//! Custom inventory of AWS Systems Manager, which the SSM Agent of the node uploads.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::super::error::CommandError;
use super::super::printed::pretty;
use super::file::write_report;
use crate::audit::{AuditReport, inventory};
use crate::error::chain;

/// Where the SSM Agent has a directory for its instance.
const SSM_DIR: &str = "/var/lib/amazon/ssm";

/// Why there is no inventory.
#[derive(Debug, thiserror::Error)]
enum SsmError {
    /// The instance is not known.
    #[error(
        "IMDS did not tell the instance ID, which names the directory of the SSM Agent; 'luks-agent doctor' checks IMDS"
    )]
    NoInstance,
    /// The SSM Agent has not run here.
    #[error(
        "the SSM Agent has no directory {}; install and register it, or remove audit.ssm_inventory from the configuration", dir.display()
    )]
    NoAgent {
        /// The directory of the instance.
        dir: PathBuf,
    },
    /// The directory for custom inventory.
    #[error("cannot create {}", dir.display())]
    Create {
        /// The directory.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file.
    #[error(transparent)]
    Write(#[from] CommandError),
}

/// Writes a report as inventory, for the SSM Agent to upload. A failure is only logged: the report must not depend on it.
pub(in super::super) fn write_inventory(report: &AuditReport) {
    match write_below(Path::new(SSM_DIR), report) {
        Ok(file) => tracing::debug!("audit: the inventory for Systems Manager is in {}", file.display()),
        Err(e) => tracing::warn!("cannot write inventory for Systems Manager: {}", chain(e)),
    }
}

/// Writes the inventory, and returns its file. The directory of the instance must exist: without an SSM Agent, nobody would read there.
fn write_below(ssm: &Path, report: &AuditReport) -> Result<PathBuf, SsmError> {
    // IMDS is not asked for a path
    let is_id = |id: &&str| !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let id = report.node.instance_id.as_deref().filter(is_id).ok_or(SsmError::NoInstance)?;
    let dir = ssm.join(id);
    if !dir.is_dir() {
        return Err(SsmError::NoAgent { dir });
    }
    let dir = dir.join("inventory/custom");
    fs::create_dir_all(&dir).map_err(|source| SsmError::Create { dir: dir.clone(), source })?;
    let file = dir.join("luks-agent.json");
    write_report(&file, &pretty(&inventory(report)))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> AuditReport {
        AuditReport::read(include_bytes!("../../../fuzz/seeds/audit/in-clear.json")).unwrap()
    }

    #[test]
    fn the_inventory_is_where_the_ssm_agent_of_the_instance_reads() {
        let ssm = tempfile::tempdir().unwrap();
        let id = report().node.instance_id.unwrap();
        let refused = write_below(ssm.path(), &report()).unwrap_err().to_string();
        assert!(refused.contains(&id) && refused.contains("install and register it"), "{refused}");
        assert_eq!(fs::read_dir(ssm.path()).unwrap().count(), 0, "nothing is made for an agent that is not there");
        fs::create_dir(ssm.path().join(&id)).unwrap();
        for _ in 0..2 {
            let file = write_below(ssm.path(), &report()).unwrap();
            assert_eq!(file, ssm.path().join(&id).join("inventory/custom/luks-agent.json"));
            let row: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
            assert_eq!(row, inventory(&report()));
            assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1);
        }
    }

    #[test]
    fn an_instance_id_that_is_missing_or_a_path_names_no_directory() {
        let ssm = tempfile::tempdir().unwrap();
        for id in [None, Some(""), Some(".."), Some("../etc")] {
            let mut report = report();
            report.node.instance_id = id.map(str::to_owned);
            assert!(matches!(write_below(ssm.path(), &report), Err(SsmError::NoInstance)), "{id:?}");
        }
    }
}
