//! How erased volumes become a report, which serves as evidence.

use super::erasure::{ErasureEvidence, Operator};
use super::of_outcome::not_done;
use super::report::Report;
use super::row::Row;
use super::verdict::Verdict;
use crate::apply::Erased;
use crate::plan::{Erasure, Subject};

/// What the worker does in the end.
const VERIFIED: &str = "the first 16777216 bytes of the disk read back as zeros, bypassing the page cache";

impl Report {
    /// Returns the report of `erase`. `others` are the rows of disks on which nothing was to be done.
    pub fn of_erasure(erasures: &[Erasure], results: &[Erased], by: &Operator, others: Vec<Row>) -> Self {
        let mut rows: Vec<Row> =
            erasures.iter().zip(results).map(|(erasure, result)| Row::of_erasure(erasure, result, by)).collect();
        rows.extend(others);
        let count = |what: Verdict| rows.iter().filter(|row| row.result == what).count();
        let parts = [
            (count(Verdict::Erased), "erased"),
            (count(Verdict::Refused), "refused"),
            (count(Verdict::Failed) + count(Verdict::Hung), "failed"),
        ];
        let parts = parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}"));
        let summary = parts.collect::<Vec<_>>().join(", ");
        Self::new("erase", rows, summary)
    }
}

impl Row {
    /// Returns the row of a volume that was not erased.
    pub fn not_erased(erasure: &Erasure, because: impl Into<String>) -> Self {
        Self::erasing(erasure, Verdict::Refused).because(because)
    }

    fn erasing(erasure: &Erasure, result: Verdict) -> Self {
        let Erasure { device, record, .. } = erasure;
        Self::new(&Subject::of(device, &record.role), result).volume(Some(record.luks_uuid), record.mount_point.clone())
    }

    fn of_erasure(erasure: &Erasure, result: &Erased, by: &Operator) -> Self {
        let row = |result| Self::erasing(erasure, result);
        match result {
            Erased::Untouched { message } => {
                row(Verdict::Refused).because(format!("nothing was overwritten: {message}"))
            }
            Erased::Failed(result) => not_done(row(Verdict::Failed), result).with_remedy(
                "the volume may be erased partly, and no run opens it any more; run 'luks-agent erase' for it again",
            ),
            Erased::Done { overwritten, began, ended } => {
                let evidence = ErasureEvidence {
                    by: by.clone(),
                    began: *began,
                    ended: *ended,
                    key_arn: erasure.key.key_arn.clone(),
                    overwritten: overwritten.clone(),
                    verified: VERIFIED,
                };
                let row = row(Verdict::Erased).because(evidence.to_string());
                let row = match &erasure.copies {
                    Some(copies) => row.with_remedy(format!("{copies} has a copy of the volume, which is not erased")),
                    None => row,
                };
                Self { erasure: Some(Box::new(evidence)), ..row }
            }
        }
    }
}
