//! How an outcome becomes a report.

use super::exit_code::ExitCode;
use super::found::Found;
use super::of_plan::{planned, rest};
use super::report::Report;
use super::row::Row;
use super::verdict::Verdict;
use crate::apply::{KeyError, Outcome, StepResult};
use crate::error::chain;
use crate::kms::{Fault, KmsError};
use crate::plan::{Action, Plan, Step};

impl Report {
    /// Returns the report of a plan that was carried out.
    pub fn of_outcome(command: &'static str, plan: &Plan, outcome: &Outcome) -> Self {
        let results = plan.steps.iter().zip(&outcome.results);
        let rows: Vec<Row> = results.map(|(step, result)| done(step, result)).chain(rest(plan)).collect();
        let count = |what: Verdict| rows.iter().filter(|row| row.result == what).count();
        let parts = [
            (count(Verdict::Formatted), "formatted"),
            (count(Verdict::Unlocked), "unlocked"),
            (count(Verdict::Grown), "grown"),
            (count(Verdict::Rekeyed), "with a new key"),
            (count(Verdict::Unchanged), "unchanged"),
            (count(Verdict::Refused), "refused"),
            (count(Verdict::Failed) + count(Verdict::Hung) + count(Verdict::Wrong), "failed"),
            (count(Verdict::NoKey), "without a key"),
        ];
        let parts = parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}"));
        let mut summary = parts.collect::<Vec<_>>().join(", ");
        if outcome.results.iter().all(|result| *result == StepResult::Unchanged) {
            summary = match summary.as_str() {
                "" => "no volume needs work, nothing changed".to_owned(),
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
}

fn done(step: &Step, result: &StepResult) -> Row {
    match result {
        StepResult::Formatted { luks_uuid, warning } => {
            let row = planned(step);
            let mount_point = row.mount_point.clone();
            let reason = row.reason.iter().chain(warning).cloned().collect::<Vec<_>>().join("; ");
            Row { result: Verdict::Formatted, opened: true, ..row }
                .because(reason)
                .volume(Some(*luks_uuid), mount_point)
        }
        StepResult::Unlocked { filesystem_errors, warning, .. } => {
            let opened = matches!(&step.action, Action::Unlock(unlock) if !unlock.is_open);
            let row = Row { reason: warning.clone(), opened, ..Row::step(step, Verdict::Unlocked) };
            if *filesystem_errors { row.with_filesystem_errors() } else { row }
        }
        StepResult::Rekeyed { warning } => Row { reason: warning.clone(), ..Row::step(step, Verdict::Rekeyed) },
        StepResult::Grown => Row { result: Verdict::Grown, ..planned(step) },
        StepResult::Unchanged => Row::step(step, Verdict::Unchanged).because("as large as its disk"),
        StepResult::Changed { content } => {
            let row = Row::step(step, Verdict::Refused)
                .because(format!("it has changed since the plan was made: {content}"))
                .with_remedy("find out what writes to it, then try again");
            Row { evidence: Some(Found::from(content)), ..row }
        }
        StepResult::NoKey => not_done(Row::step(step, Verdict::NoKey), result),
        StepResult::Failed { .. } => not_done(Row::step(step, Verdict::Failed), result),
        StepResult::Hung { .. } => not_done(Row::step(step, Verdict::Hung), result),
    }
}

/// Adds to a row why a step was not done.
pub(super) fn not_done(row: Row, result: &StepResult) -> Row {
    let (result, because) = match result {
        StepResult::NoKey => (Verdict::NoKey, "skipped: no key"),
        StepResult::Hung { message } => (Verdict::Hung, message.as_str()),
        StepResult::Failed { message } => (Verdict::Failed, message.as_str()),
        StepResult::Formatted { .. }
        | StepResult::Unlocked { .. }
        | StepResult::Grown
        | StepResult::Unchanged
        | StepResult::Rekeyed { .. }
        | StepResult::Changed { .. } => return row,
    };
    Row { result, ..row }.because(because)
}

/// Returns the exit code of a command that could not use the key service.
pub fn service_exit_code(error: &KmsError) -> ExitCode {
    match error.fault() {
        Fault::Configuration => ExitCode::Configuration,
        Fault::Unavailable => ExitCode::KeyService,
        Fault::Data => ExitCode::Failed,
    }
}

/// Returns the exit code of a command that got no key.
pub fn key_exit_code(error: &KeyError) -> ExitCode {
    match error {
        KeyError::Service(e) => service_exit_code(e),
        KeyError::State(_) | KeyError::NotProven { .. } | KeyError::Unrecorded(_) => ExitCode::Failed,
    }
}
