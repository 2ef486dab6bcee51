//! How a plan becomes a report.

use super::report::Report;
use super::row::Row;
use super::verdict::Verdict;
use crate::disk::Bytes;
use crate::plan::{Action, Finding, Left, Plan, Refusal, Severity, Step, Subject};

impl Report {
    /// Returns the report of `plan`: what `provision` would do. A refusal does not fail the plan, but shows in the exit code.
    pub fn of_plan(plan: &Plan) -> Self {
        let rows = plan.steps.iter().map(planned).chain(rest(plan)).collect();
        let count = |what: Verdict| plan.steps.iter().filter(|step| planned(step).result == what).count();
        let (format, unlock, grow) =
            (count(Verdict::WouldFormat), count(Verdict::WouldUnlock), count(Verdict::WouldGrow));
        let wrong = plan.refusals.iter().filter(|refusal| refusal.finding.severity == Severity::Wrong).count();
        let refused = plan.refusals.len() - wrong;
        let grow = if grow > 0 { format!(", would grow {grow}") } else { String::new() };
        let mut summary = format!("would format {format}, would unlock {unlock}{grow}, {refused} refused");
        if wrong > 0 {
            summary.push_str(&format!(", {wrong} wrong"));
        }
        Self::new("plan", rows, summary)
    }
}

impl Row {
    pub(super) fn step(step: &Step, result: Verdict) -> Self {
        let luks_uuid = match &step.action {
            Action::Format(format) => format.resume,
            Action::Unlock(unlock) => Some(unlock.luks_uuid),
            Action::Grow(grow) => Some(grow.luks_uuid),
            Action::Rekey(rekey) => Some(rekey.luks_uuid),
        };
        Self::new(&Subject::of(&step.device, &step.role), result).volume(luks_uuid, step.action.mount_point().cloned())
    }

    fn refusal(refusal: &Refusal) -> Self {
        let Finding { severity, evidence, remedy } = &refusal.finding;
        let result = match severity {
            Severity::Wrong => Verdict::Wrong,
            Severity::Refused => Verdict::Refused,
        };
        Self::new(&refusal.subject, result).because(evidence).with_remedy(remedy)
    }

    fn left(left: &Left) -> Self {
        let row = |result| Self::new(&left.subject, result).because(&left.because);
        match &left.volume {
            Some(volume) => row(Verdict::Unchanged).volume(Some(volume.luks_uuid), volume.mount_point.clone()),
            None => row(Verdict::Left),
        }
    }
}

/// Returns the row of a step that would be done.
pub fn planned(step: &Step) -> Row {
    match &step.action {
        Action::Format(format) => Row::step(step, Verdict::WouldFormat).because(format.basis.to_string()),
        Action::Unlock(unlock) if unlock.is_open => {
            Row::step(step, Verdict::WouldUnlock).because("already open, not mounted")
        }
        Action::Unlock(_) => Row::step(step, Verdict::WouldUnlock),
        Action::Rekey(_) => Row::step(step, Verdict::WouldRekey),
        Action::Grow(grow) => Row::step(step, Verdict::WouldGrow).because(growth(grow.from, step.device.size)),
    }
}

/// Describes how far a volume grows, by the sizes of its disk. If only its file system had not grown yet, the recorded size says
/// nothing.
fn growth(from: u64, to: u64) -> String {
    if from < to { format!("from {} to {}", Bytes(from), Bytes(to)) } else { format!("to {}", Bytes(to)) }
}

pub(super) fn rest(plan: &Plan) -> impl Iterator<Item = Row> {
    plan.refusals.iter().map(Row::refusal).chain(plan.left.iter().map(Row::left))
}
