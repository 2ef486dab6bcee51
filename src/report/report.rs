//! The report of a command.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::check::{Check, CheckResult};
use super::exit_code::ExitCode;
use super::row::Row;
use super::verdict::Verdict;
use crate::kms::{KeyState, Usage};

/// Name of the JSON schema of a report.
pub const SCHEMA: &str = "luks-agent/report";
/// Version of the schema. It grows when a field changes its meaning or is removed.
pub const SCHEMA_VERSION: u32 = 1;

/// The report of a command.
#[derive(Debug, Serialize)]
pub struct Report {
    schema: &'static str,
    schema_version: u32,
    agent_version: &'static str,
    pub(super) command: &'static str,
    pub(super) exit_code: u8,
    /// What failed as a whole, such as the call to the key service.
    pub(super) error: Option<String>,
    /// The outcome in one line.
    pub(super) summary: String,
    pub(super) rows: Vec<Row>,
    /// The calls to the key service; `None` if the command made none.
    kms: Option<Usage>,
    /// Duration of each stage of the work for the slowest disk, in seconds.
    stage_seconds: BTreeMap<String, f64>,
    /// `health`: the KMS keys that volumes depend on.
    pub(super) keys: Vec<KeyFinding>,
    /// `status`: the last result of `health` since boot.
    health: Option<Health>,
    /// `doctor`: what was checked.
    pub(super) checks: Vec<Check>,
    /// Whether volumes were opened with a recovery key, which says nothing about the key service.
    #[serde(skip)]
    pub(super) by_recovery_key: bool,
}

/// A KMS key that volumes depend on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyFinding {
    /// Its ARN.
    pub key_arn: String,
    /// Its state; `None` if `DescribeKey` is not allowed or failed.
    pub state: Option<KeyState>,
    /// Why `Decrypt` would fail; `None` if it would succeed.
    pub error: Option<String>,
}

/// The last result of `health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Health {
    /// When it ended.
    pub ended: Timestamp,
    /// Its exit code.
    pub exit_code: u8,
    /// Its error, or else its summary.
    pub text: String,
}

impl Report {
    /// Returns a report of these rows. Its exit code is the gravest of the rows'.
    pub fn new(command: &'static str, rows: Vec<Row>, summary: String) -> Self {
        let gravest = |rows: &[Row]| {
            let codes = [ExitCode::KeyService, ExitCode::Failed, ExitCode::Refused];
            codes.into_iter().find(|code| rows.iter().any(|row| row.result.exit_code() == *code))
        };
        Self {
            schema: SCHEMA,
            schema_version: SCHEMA_VERSION,
            agent_version: env!("CARGO_PKG_VERSION"),
            command,
            exit_code: gravest(&rows).unwrap_or(ExitCode::Done) as u8,
            error: None,
            summary,
            rows: in_order(rows),
            kms: None,
            stage_seconds: BTreeMap::new(),
            keys: Vec::new(),
            health: None,
            checks: Vec::new(),
            by_recovery_key: false,
        }
    }

    /// Returns the report of checks. Its exit code is that of the failed checks if they agree on it.
    pub fn of_checks(command: &'static str, checks: Vec<Check>) -> Self {
        let count = |result: CheckResult| checks.iter().filter(|check| check.result == result).count();
        let [ok, warnings, failures] = [CheckResult::Ok, CheckResult::Warning, CheckResult::Failure].map(count);
        let report = Self::new(command, Vec::new(), format!("{ok} ok, {warnings} to look at, {failures} failed"));
        let failed: Vec<&Check> = checks.iter().filter(|check| check.result == CheckResult::Failure).collect();
        let code = match failed.first() {
            None => ExitCode::Done,
            Some(first) if failed.iter().all(|check| check.exit_code == first.exit_code) => first.exit_code,
            Some(_) => ExitCode::Failed,
        };
        let names: Vec<&str> = failed.iter().map(|check| check.check).collect();
        let error = (!names.is_empty()).then(|| format!("this node cannot do its work yet: {}", names.join(", ")));
        Self { exit_code: code as u8, error, checks, ..report }
    }

    /// Returns the report of a command that could not begin.
    pub fn of_failure(command: &'static str, code: ExitCode, error: String) -> Self {
        let report = Self::new(command, Vec::new(), "nothing was done".to_owned());
        Self { exit_code: code as u8, error: Some(error), ..report }
    }

    /// Adds what failed as a whole.
    #[must_use]
    pub fn failed(self, code: ExitCode, error: String) -> Self {
        Self { exit_code: code as u8, error: Some(error), ..self }
    }

    /// Replaces the outcome in one line.
    #[must_use]
    pub fn summarised(self, summary: String) -> Self {
        Self { summary, ..self }
    }

    /// Adds rows of disks that were left alone.
    #[must_use]
    pub fn with_rows(mut self, more: Vec<Row>) -> Self {
        self.rows.extend(more);
        self.rows = in_order(self.rows);
        self
    }

    /// Adds the calls to the key service, and the duration of the work on the disks.
    #[must_use]
    pub fn measured(self, kms: Option<Usage>, stage_seconds: BTreeMap<String, f64>) -> Self {
        Self { kms, stage_seconds, ..self }
    }

    /// Adds the KMS keys that volumes depend on.
    #[must_use]
    pub fn of_keys(self, keys: Vec<KeyFinding>) -> Self {
        Self { keys, ..self }
    }

    /// Says that volumes were opened with a recovery key.
    #[must_use]
    pub fn with_recovery_key(self) -> Self {
        Self { by_recovery_key: true, ..self }
    }

    /// Adds the last result of `health`.
    #[must_use]
    pub fn with_health(self, health: Option<Health>) -> Self {
        Self { health, ..self }
    }

    /// Returns the command.
    pub fn command(&self) -> &'static str {
        self.command
    }

    /// Returns the exit code.
    pub fn exit_code(&self) -> u8 {
        self.exit_code
    }

    /// Returns what failed as a whole.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Returns the outcome in one line.
    pub fn summary(&self) -> &str {
        &self.summary
    }

    /// Returns the rows.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Returns the calls to the key service.
    pub fn kms(&self) -> Option<&Usage> {
        self.kms.as_ref()
    }

    /// Returns the duration of each stage for the slowest disk, in seconds.
    pub fn stage_seconds(&self) -> &BTreeMap<String, f64> {
        &self.stage_seconds
    }

    /// Returns the number of volumes whose file system is marked with errors.
    pub fn filesystem_errors(&self) -> usize {
        self.rows.iter().filter(|row| row.filesystem_errors).count()
    }

    /// Returns the KMS keys that volumes depend on.
    pub fn keys(&self) -> &[KeyFinding] {
        &self.keys
    }
}

/// Sorts rows: the agent's volumes by mount point, then refused disks, then disks that are left alone.
fn in_order(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort_by_key(|row| {
        let rank = if row.result == Verdict::Left {
            2
        } else {
            u8::from(matches!(row.result, Verdict::Refused | Verdict::Wrong | Verdict::Missing))
        };
        (rank, row.mount_point.clone(), row.serial.clone(), row.device.clone())
    });
    rows
}
