//! What a command says in the end: a table for people, JSON for programs, entries for the journal, metrics, an exit code.
//!
//! May import: `apply`, `disk`, `error`, `kms`, `logging`, `luks2`, `plan`, `state`.
//! Never: a disk, the network, or a decision.

mod events;
pub mod last;
pub mod metrics;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::apply::{KeyError, Outcome, StepResult};
use crate::disk::{Bytes, Content};
use crate::error::chain;
use crate::kms::{Fault, KeyState, Usage};
use crate::logging::plain;
use crate::luks2::mapper_name;
use crate::plan::{Action, Left, Plan, Refusal, Step, Subject};
pub use events::MESSAGE_IDS;
pub(crate) use events::WOULD_NOT_SURVIVE;

/// Name of the JSON schema of a report.
pub const SCHEMA: &str = "luks-agent/report";
/// Version of the schema: raised when a field changes its meaning or goes.
pub const SCHEMA_VERSION: u32 = 1;

/// Exit codes, the same for every command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// Done.
    Done = 0,
    /// Something failed.
    Failed = 1,
    /// Usage or configuration.
    Configuration = 2,
    /// Refused for safety.
    Refused = 3,
    /// Key service or credentials not available in time.
    KeyService = 4,
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}

/// What a command says.
#[derive(Debug, Serialize)]
pub struct Report {
    schema: &'static str,
    schema_version: u32,
    agent_version: &'static str,
    command: &'static str,
    exit_code: u8,
    /// What went wrong as a whole, such as the key service.
    error: Option<String>,
    /// One line that says what came of it.
    summary: String,
    rows: Vec<Row>,
    /// What the key service was asked; `None` when it was not connected to.
    kms: Option<Usage>,
    /// How long the slowest disk was at each stage of the work, in seconds.
    stage_seconds: BTreeMap<String, f64>,
    /// `health`: the KMS keys that volumes depend on.
    keys: Vec<KeyFinding>,
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

/// One disk, or one known volume that is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Kernel name; `null` for a volume that is not there.
    pub device: Option<String>,
    /// Role.
    pub role: String,
    /// Serial number.
    pub serial: Option<String>,
    /// Size in bytes.
    pub size: u64,
    /// What is, or was done, or would be.
    pub result: Verdict,
    /// Why.
    pub reason: Option<String>,
    /// What was found on the disk; `null` when it was not opened.
    pub evidence: Option<Finding>,
    /// What to do about it.
    pub remedy: Option<String>,
    /// LUKS UUID.
    pub luks_uuid: Option<Uuid>,
    /// Mapper name.
    pub mapper: Option<String>,
    /// Mount point.
    pub mount_point: Option<PathBuf>,
    /// Whether its file system is marked with errors, as `unlock` and `health` find.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub filesystem_errors: bool,
}

/// What was found on a disk, for programs; `reason` says it in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "found", rename_all = "kebab-case")]
pub enum Finding {
    /// Nothing.
    Blank {
        /// Bytes read, all of them zero.
        read: u64,
        /// Size of the disk in bytes.
        of: u64,
    },
    /// Signatures, in words.
    Signatures {
        /// Each with its offset, where it has one.
        signatures: Vec<String>,
    },
    /// Bytes that are not zero, and neither a signature nor structure.
    Noise {
        /// Bytes read.
        read: u64,
        /// How many of them are uniformly random.
        random: u64,
        /// Size of the disk in bytes.
        of: u64,
    },
    /// Bytes that are not zero, and no signature.
    Data {
        /// Where the first of them was seen.
        offset: u64,
    },
    /// A LUKS2 header.
    Luks2 {
        /// Its UUID.
        luks_uuid: Uuid,
        /// Whether it has a token of luks-agent.
        luks_agent: bool,
    },
    /// The beginning of a format of our own.
    Unfinished,
    /// It could not be examined.
    Unknown,
}

impl From<&Content> for Finding {
    fn from(content: &Content) -> Self {
        match content {
            Content::Blank { evidence } => Self::Blank { read: evidence.read, of: evidence.of },
            Content::Luks2 { luks_uuid, token } => Self::Luks2 { luks_uuid: *luks_uuid, luks_agent: token.is_some() },
            Content::Unfinished => Self::Unfinished,
            Content::Foreign { signatures } => Self::Signatures { signatures: signatures.clone() },
            Content::Noise { evidence, .. } => {
                Self::Noise { read: evidence.read, random: evidence.random, of: evidence.of }
            }
            Content::Unrecognised { offset } => Self::Data { offset: *offset },
            Content::Unknown { .. } => Self::Unknown,
        }
    }
}

/// What became of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// `plan`: provision would format it.
    WouldFormat,
    /// `plan`: provision would open and mount it.
    WouldUnlock,
    /// `plan`: provision would grow it.
    WouldGrow,
    /// Encrypted, open, mounted.
    Formatted,
    /// Opened and mounted.
    Unlocked,
    /// Grown to the size of its disk.
    Grown,
    /// Open and mounted already; of `grow`: as large as its disk.
    Unchanged,
    /// Unmounted and closed.
    Closed,
    /// Not touched for safety.
    Refused,
    /// A known volume that is not what or where it should be.
    Wrong,
    /// Failed.
    Failed,
    /// No answer within the deadline.
    Hung,
    /// No key to open it with.
    NoKey,
    /// `health`: open, and as it was made.
    Sound,
    /// `health`: it would open again as it was made, and yet is not as it should be now.
    Unsound,
    /// `status`: open and, if it should be, mounted.
    Open,
    /// `status`: open, but not mounted where it should be.
    NotMounted,
    /// `status`: known and not open.
    Locked,
    /// `status`: known, never finished.
    Unfinished,
    /// `status`: known and not there.
    Missing,
    /// `status`: a target that the state file does not know.
    New,
    /// Not the agent's.
    Left,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::WouldFormat => "would format",
            Self::WouldUnlock => "would unlock",
            Self::WouldGrow => "would grow",
            Self::Formatted => "formatted",
            Self::Unlocked => "unlocked",
            Self::Grown => "grown",
            Self::Unchanged => "unchanged",
            Self::Closed => "closed",
            Self::Refused => "refused",
            Self::Wrong => "wrong",
            Self::Failed => "failed",
            Self::Hung => "hung",
            Self::NoKey => "no key",
            Self::Sound => "sound",
            Self::Unsound => "unsound",
            Self::Open => "open",
            Self::NotMounted => "not mounted",
            Self::Locked => "locked",
            Self::Unfinished => "unfinished",
            Self::Missing => "missing",
            Self::New => "new",
            Self::Left => "left alone",
        })
    }
}

impl Verdict {
    fn exit_code(self) -> ExitCode {
        match self {
            Self::Failed | Self::Hung | Self::Wrong | Self::Unsound => ExitCode::Failed,
            Self::NoKey => ExitCode::KeyService,
            Self::Refused => ExitCode::Refused,
            Self::WouldFormat
            | Self::WouldUnlock
            | Self::WouldGrow
            | Self::Formatted
            | Self::Unlocked
            | Self::Grown
            | Self::Unchanged
            | Self::Closed
            | Self::Sound
            | Self::Open
            | Self::NotMounted
            | Self::Locked
            | Self::Unfinished
            | Self::Missing
            | Self::New
            | Self::Left => ExitCode::Done,
        }
    }
}

impl Row {
    /// A row that says only what the disk is.
    pub fn new(subject: &Subject, result: Verdict) -> Self {
        Self {
            device: subject.device.clone(),
            role: subject.role.clone(),
            serial: subject.serial.clone(),
            size: subject.size,
            result,
            reason: None,
            evidence: subject.content.as_ref().map(Finding::from),
            remedy: None,
            luks_uuid: None,
            mapper: None,
            mount_point: None,
            filesystem_errors: false,
        }
    }

    /// Adds what is known of the volume.
    #[must_use]
    pub fn volume(mut self, luks_uuid: Option<Uuid>, mount_point: Option<PathBuf>) -> Self {
        self.mapper = luks_uuid.map(mapper_name);
        self.luks_uuid = luks_uuid;
        self.mount_point = mount_point;
        self
    }

    /// Adds why.
    #[must_use]
    pub fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// Says that its file system is marked with errors.
    #[must_use]
    pub fn with_filesystem_errors(mut self) -> Self {
        self.filesystem_errors = true;
        self.reason = Some("its file system is marked with errors".to_owned());
        let mapper = self.mapper.as_deref().unwrap_or("MAPPER");
        self.remedy = Some(format!(
            "unmount it, run 'e2fsck -f /dev/mapper/{mapper}', then 'luks-agent unlock'; see the kernel's messages for the cause"
        ));
        self
    }

    fn step(step: &Step, result: Verdict) -> Self {
        let subject = Subject {
            device: Some(step.device.name.clone()),
            role: step.role.to_string(),
            serial: step.device.serial.clone(),
            size: step.device.size,
            content: step.device.content.clone(),
        };
        let (luks_uuid, mount_point) = match &step.action {
            Action::Format { resume, mount_point, .. } => (*resume, mount_point),
            Action::Unlock { luks_uuid, mount_point, .. } | Action::Grow { luks_uuid, mount_point, .. } => {
                (Some(*luks_uuid), mount_point)
            }
        };
        Self::new(&subject, result).volume(luks_uuid, mount_point.clone())
    }

    fn refusal(refusal: &Refusal) -> Self {
        let result = if refusal.known { Verdict::Wrong } else { Verdict::Refused };
        let mut row = Self::new(&refusal.subject, result).because(&refusal.evidence);
        row.remedy = Some(refusal.remedy.clone());
        row
    }

    fn left(left: &Left) -> Self {
        let row = |result| Self::new(&left.subject, result).because(&left.because);
        match &left.volume {
            Some(volume) => row(Verdict::Unchanged).volume(Some(volume.luks_uuid), volume.mount_point.clone()),
            None => row(Verdict::Left),
        }
    }
}

/// What would be done with a step.
pub fn planned(step: &Step) -> Row {
    match &step.action {
        Action::Format { basis, .. } => Row::step(step, Verdict::WouldFormat).because(basis.to_string()),
        Action::Unlock { open: true, .. } => Row::step(step, Verdict::WouldUnlock).because("open already, not mounted"),
        Action::Unlock { .. } => Row::step(step, Verdict::WouldUnlock),
        Action::Grow { from, .. } => Row::step(step, Verdict::WouldGrow).because(growth(*from, step.device.size)),
    }
}

/// How far a volume grows, by the sizes of its disk. The recorded one says nothing where its file system alone was behind.
fn growth(from: u64, to: u64) -> String {
    if from < to { format!("from {} to {}", Bytes(from), Bytes(to)) } else { format!("to {}", Bytes(to)) }
}

fn done(step: &Step, result: &StepResult) -> Row {
    match result {
        StepResult::Formatted { luks_uuid, warning } => {
            let row = planned(step);
            let mount_point = row.mount_point.clone();
            let reason = row.reason.iter().chain(warning).cloned().collect::<Vec<_>>().join("; ");
            Row { result: Verdict::Formatted, ..row }.because(reason).volume(Some(*luks_uuid), mount_point)
        }
        StepResult::Unlocked { filesystem_errors, warning, .. } => {
            let row = Row { reason: warning.clone(), ..Row::step(step, Verdict::Unlocked) };
            if *filesystem_errors { row.with_filesystem_errors() } else { row }
        }
        StepResult::Grown => Row { result: Verdict::Grown, ..planned(step) },
        StepResult::Unchanged => Row::step(step, Verdict::Unchanged).because("as large as its disk"),
        StepResult::Changed { content } => {
            let mut row = Row::step(step, Verdict::Refused)
                .because(format!("it has changed since the plan was made: {}", content));
            row.evidence = Some(Finding::from(content));
            row.remedy = Some("find out who writes to it, then try again".to_owned());
            row
        }
        StepResult::NoKey => Row::step(step, Verdict::NoKey).because("nothing was tried without a key"),
        StepResult::Failed { message } => Row::step(step, Verdict::Failed).because(message),
        StepResult::Hung { message } => Row::step(step, Verdict::Hung).because(message),
    }
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

    /// What provision would do. A refusal is no failure of a plan, but the exit code tells of it.
    pub fn of_plan(plan: &Plan) -> Self {
        let rows = plan.steps.iter().map(planned).chain(rest(plan)).collect();
        let count = |what: Verdict| plan.steps.iter().filter(|step| planned(step).result == what).count();
        let (format, unlock, grow) =
            (count(Verdict::WouldFormat), count(Verdict::WouldUnlock), count(Verdict::WouldGrow));
        let wrong = plan.refusals.iter().filter(|refusal| refusal.known).count();
        let refused = plan.refusals.len() - wrong;
        let grow = if grow > 0 { format!(", would grow {grow}") } else { String::new() };
        let mut summary = format!("would format {format}, would unlock {unlock}{grow}, {refused} refused");
        if wrong > 0 {
            summary.push_str(&format!(", {wrong} wrong"));
        }
        Self::new("plan", rows, summary)
    }

    /// What was done.
    pub fn of_outcome(command: &'static str, plan: &Plan, outcome: &Outcome) -> Self {
        let results = plan.steps.iter().zip(&outcome.results);
        let rows: Vec<Row> = results.map(|(step, result)| done(step, result)).chain(rest(plan)).collect();
        let count = |what: Verdict| rows.iter().filter(|row| row.result == what).count();
        let parts = [
            (count(Verdict::Formatted), "formatted"),
            (count(Verdict::Unlocked), "unlocked"),
            (count(Verdict::Grown), "grown"),
            (count(Verdict::Unchanged), "unchanged"),
            (count(Verdict::Refused), "refused"),
            (count(Verdict::Failed) + count(Verdict::Hung) + count(Verdict::Wrong), "failed"),
            (count(Verdict::NoKey), "without a key"),
        ];
        let parts = parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}"));
        let mut summary = parts.collect::<Vec<_>>().join(", ");
        if outcome.results.iter().all(|result| *result == StepResult::Unchanged) {
            summary = match summary.as_str() {
                "" => "no volumes to take care of, nothing changed".to_owned(),
                counts => format!("nothing changed: {counts}"),
            };
        }
        let mut report = Self::new(command, rows, summary);
        if let Some(error) = &outcome.key_error {
            report.error = Some(chain(error));
            report.exit_code = key_exit_code(error) as u8;
        }
        report
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

fn key_exit_code(error: &KeyError) -> ExitCode {
    match error {
        KeyError::Service(e) => match e.fault() {
            Fault::Configuration => ExitCode::Configuration,
            Fault::Unavailable => ExitCode::KeyService,
            Fault::Data => ExitCode::Failed,
        },
        KeyError::State(_) | KeyError::NotProven { .. } | KeyError::Unrecorded(_) => ExitCode::Failed,
    }
}

fn rest(plan: &Plan) -> impl Iterator<Item = Row> {
    plan.refusals.iter().map(Row::refusal).chain(plan.left.iter().map(Row::left))
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

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dash = || "-".to_owned();
        let cells = |row: &Row| {
            [
                row.device.clone().unwrap_or_else(dash),
                row.role.clone(),
                Bytes(row.size).to_string(),
                row.serial.clone().unwrap_or_else(dash),
                row.result.to_string(),
                row.mount_point.as_ref().map_or_else(dash, |at| at.display().to_string()),
                row.mapper.clone().unwrap_or_else(dash),
            ]
            .map(|cell| plain(&cell).into_owned())
        };
        let heading = ["DEVICE", "ROLE", "SIZE", "SERIAL", "RESULT", "MOUNT", "MAPPER"].map(str::to_owned);
        let lines: Vec<_> = std::iter::once(heading).chain(self.rows.iter().map(cells)).collect();
        let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..7).map(width).collect();
        for (number, line) in lines.iter().enumerate() {
            let padded = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            writeln!(f, "{}", padded.collect::<Vec<_>>().join("  ").trim_end())?;
            let Some(row) = number.checked_sub(1).and_then(|n| self.rows.get(n)) else { continue };
            if let Some(reason) = &row.reason {
                writeln!(f, "    {}", plain(reason))?;
            }
            if let Some(remedy) = &row.remedy {
                writeln!(f, "    -> {}", plain(remedy))?;
            }
        }
        writeln!(f, "{}: {}", self.command, plain(&self.summary))
    }
}
