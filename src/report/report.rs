//! What a command says.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::exit_code::ExitCode;
use super::row::Row;
use super::verdict::Verdict;
use crate::kms::{KeyState, Usage};

/// Name of the JSON schema of a report.
pub const SCHEMA: &str = "luks-agent/report";
/// Version of the schema: raised when a field changes its meaning or goes.
pub const SCHEMA_VERSION: u32 = 1;

/// What a command says.
#[derive(Debug, Serialize)]
pub struct Report {
    schema: &'static str,
    schema_version: u32,
    agent_version: &'static str,
    pub(super) command: &'static str,
    pub(super) exit_code: u8,
    /// What went wrong as a whole, such as the key service.
    pub(super) error: Option<String>,
    /// One line that says what came of it.
    pub(super) summary: String,
    pub(super) rows: Vec<Row>,
    /// What the key service was asked; `None` when it was not connected to.
    kms: Option<Usage>,
    /// How long the slowest disk was at each stage of the work, in seconds.
    stage_seconds: BTreeMap<String, f64>,
    /// `health`: the KMS keys that volumes depend on.
    pub(super) keys: Vec<KeyFinding>,
    /// `status`: what `health` said last since boot.
    health: Option<Health>,
}

/// A KMS key that volumes depend on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyFinding {
    /// Its ARN.
    pub key_arn: String,
    /// Its state; `None` where `DescribeKey` is not allowed or did not come through.
    pub state: Option<KeyState>,
    /// Why `Decrypt` would fail; `None` when it would not.
    pub error: Option<String>,
}

/// What `health` said.
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
    /// A report of these rows; the exit code is the gravest of theirs.
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
        }
    }

    /// Why a command could not begin.
    pub fn of_failure(command: &'static str, code: ExitCode, error: String) -> Self {
        let report = Self::new(command, Vec::new(), "nothing was done".to_owned());
        Self { exit_code: code as u8, error: Some(error), ..report }
    }

    /// The same with what is wrong as a whole.
    #[must_use]
    pub fn failed(self, code: ExitCode, error: String) -> Self {
        Self { exit_code: code as u8, error: Some(error), ..self }
    }

    /// The same with more rows, of disks of which nothing was wanted.
    #[must_use]
    pub fn with_rows(mut self, more: Vec<Row>) -> Self {
        self.rows.extend(more);
        self.rows = in_order(self.rows);
        self
    }

    /// The same with what was asked of the key service, and how long the work on the disks took.
    #[must_use]
    pub fn measured(self, kms: Option<Usage>, stage_seconds: BTreeMap<String, f64>) -> Self {
        Self { kms, stage_seconds, ..self }
    }

    /// The same with the KMS keys that volumes depend on.
    #[must_use]
    pub fn of_keys(self, keys: Vec<KeyFinding>) -> Self {
        Self { keys, ..self }
    }

    /// The same with what `health` said last.
    #[must_use]
    pub fn with_health(self, health: Option<Health>) -> Self {
        Self { health, ..self }
    }

    /// Which command it is of.
    pub fn command(&self) -> &'static str {
        self.command
    }

    /// The exit code.
    pub fn exit_code(&self) -> u8 {
        self.exit_code
    }

    /// What went wrong as a whole.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// One line that says what came of it.
    pub fn summary(&self) -> &str {
        &self.summary
    }

    /// What became of each disk.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// What the key service was asked.
    pub fn kms(&self) -> Option<&Usage> {
        self.kms.as_ref()
    }

    /// How long the slowest disk was at each stage, in seconds.
    pub fn stage_seconds(&self) -> &BTreeMap<String, f64> {
        &self.stage_seconds
    }

    /// How many volumes have a file system that is marked with errors.
    pub fn filesystem_errors(&self) -> usize {
        self.rows.iter().filter(|row| row.filesystem_errors).count()
    }

    /// The KMS keys that volumes depend on.
    pub fn keys(&self) -> &[KeyFinding] {
        &self.keys
    }
}

/// The agent's volumes first, by mount point, then what is refused, then what is left alone.
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
