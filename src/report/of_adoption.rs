//! How adopted volumes become a report.

use super::of_outcome::{key_exit_code, not_done};
use super::report::Report;
use super::row::Row;
use super::verdict::Verdict;
use crate::apply::{AdoptOutcome, Outcome};
use crate::error::chain;
use crate::plan::{Adoption, Finding, Plan, Proven, Subject};

impl Report {
    /// Returns the report of `adopt`: what became of each volume, and of the `plan` that mounts those that were adopted. `others` are
    /// the rows of all other disks.
    pub fn of_adoption(
        adoptions: &[Adoption],
        adopted: &AdoptOutcome,
        plan: &Plan,
        mounted: &Outcome,
        others: Vec<Row>,
    ) -> Self {
        let AdoptOutcome { results, refusal, key_error, .. } = adopted;
        let mut rows = Self::of_outcome("adopt", plan, mounted).rows;
        for (adoption, result) in adoptions.iter().zip(results) {
            let row = |result| Row::of_adoption(adoption, result);
            match (result, refusal) {
                (Err(result), _) => rows.push(not_done(row(Verdict::Failed), result)),
                (Ok(_), Some(Finding { evidence, remedy, .. })) => {
                    rows.push(
                        row(Verdict::Refused)
                            .because(format!("{evidence}; it is open, and was not recorded"))
                            .with_remedy(remedy),
                    );
                }
                (Ok(proven), None) => {
                    let same = |row: &&mut Row| row.luks_uuid == Some(adoption.luks_uuid);
                    match rows.iter_mut().find(same) {
                        Some(row) => row.turn_adopted(proven),
                        // the next run finds out what became of its disk
                        None => rows.push(row(Verdict::Adopted).because("recorded, but its disk is gone")),
                    }
                }
            }
        }
        rows.extend(others);
        let count = |what: Verdict| rows.iter().filter(|row| row.result == what).count();
        let parts = [
            (count(Verdict::Adopted), "adopted"),
            (count(Verdict::Unlocked), "unlocked"),
            (count(Verdict::Unchanged), "known already"),
            (count(Verdict::Refused), "refused"),
            (count(Verdict::Failed) + count(Verdict::Hung) + count(Verdict::Wrong), "failed"),
            (count(Verdict::NoKey), "without a key"),
        ];
        let parts = parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}"));
        let summary = match parts.collect::<Vec<_>>().join(", ") {
            nothing if nothing.is_empty() => "found no volume to adopt, nothing changed".to_owned(),
            counts => counts,
        };
        let report = Self::new("adopt", rows, summary);
        match key_error.as_ref().or(mounted.key_error.as_ref()) {
            Some(error) => report.failed(key_exit_code(error), chain(error)),
            None => report,
        }
    }
}

impl Report {
    /// Adds what became of the change of the keys of adopted volumes, and of those that were known already.
    #[must_use]
    pub fn with_rekeyed(mut self, plan: &Plan, rekeyed: &Outcome) -> Self {
        let changes = Self::of_outcome("adopt", plan, rekeyed);
        for change in changes.rows.into_iter().filter(|row| row.result != Verdict::Left) {
            let same = |row: &&mut Row| row.luks_uuid.is_some() && row.luks_uuid == change.luks_uuid;
            match self.rows.iter_mut().find(same) {
                Some(row) => row.turn_rekeyed(change),
                // such as a refusal, which names a disk
                None => self.rows.push(change),
            }
        }
        let mut summary = std::mem::take(&mut self.summary);
        let finished = self.rows.iter().filter(|row| row.result == Verdict::Rekeyed).count();
        if finished > 0 {
            summary.push_str(&format!(", {finished} with a new key"));
        }
        let failed = self.error.map(|error| (self.exit_code, error));
        let failed = failed.or(changes.error.map(|error| (changes.exit_code, error)));
        let mut report = Self::new("adopt", self.rows, summary);
        if let Some((exit_code, error)) = failed {
            report.exit_code = exit_code;
            report.error = Some(error);
        }
        report
    }
}

impl Row {
    /// Adds what became of the change of its key.
    fn turn_rekeyed(&mut self, change: Self) {
        let before = self.reason.take().map(|reason| format!("{reason}; ")).unwrap_or_default();
        if change.result != Verdict::Rekeyed {
            self.result = change.result;
            self.reason = Some(format!("{before}it still has its key: {}", change.reason.unwrap_or_default()));
            self.remedy = Some("'luks-agent provision' gives it the key of this node".to_owned());
            return;
        }
        // an earlier run has adopted it
        if matches!(self.result, Verdict::Unchanged | Verdict::Unlocked | Verdict::Left) {
            self.result = Verdict::Rekeyed;
        }
        let warning = change.reason.map(|warning| format!("; {warning}")).unwrap_or_default();
        self.reason = Some(format!("{before}it has the key of this node now{warning}"));
    }

    fn of_adoption(adoption: &Adoption, result: Verdict) -> Self {
        Self::new(&Subject::of(&adoption.device, &adoption.role), result).volume(Some(adoption.luks_uuid), None)
    }

    /// Turns the row of a mounted volume into that of an adopted one.
    fn turn_adopted(&mut self, proven: &Proven) {
        if !matches!(self.result, Verdict::Unlocked | Verdict::Unchanged) {
            self.reason = self.reason.take().map(|reason| format!("adopted, but not mounted: {reason}"));
            return;
        }
        self.result = Verdict::Adopted;
        self.opened = proven.adoption.device.mapping_of(proven.adoption.luks_uuid).is_none();
        let made_on = proven.adoption.token.instance_id.as_deref().unwrap_or("an unknown instance").escape_debug();
        let mut text =
            format!("made on {made_on}, its key is wrapped by {}", proven.adoption.token.key_arn.escape_debug());
        if !proven.has_filesystem() {
            text.push_str("; neither xfs nor ext4 is on it, so it is open and not mounted");
        }
        text.extend(self.reason.iter().filter(|_| self.mount_point.is_some()).flat_map(|reason| ["; ", reason]));
        self.reason = Some(text);
    }
}
