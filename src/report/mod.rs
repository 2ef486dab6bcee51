//! The report of a command: a table for people, JSON for programs, entries for the journal, metrics, an exit code.
//!
//! May import: `apply`, `audit`, `columns`, `disk`, `error`, `job`, `kms`, `luks2`, `plan`, `state`, `text`.
//! Never: a disk, the network, or a decision on what is done. `last`, `proofs` and `audited` keep what a run said in `/run`,
//! and nothing else writes.

pub mod audited;
mod check;
mod erasure;
mod exit_code;
mod found;
mod journal;
pub mod last;
pub mod metrics;
mod of_adoption;
mod of_erasure;
mod of_outcome;
mod of_plan;
pub mod proofs;
#[allow(clippy::module_inception, reason = "the folder is named after the type that it is about")]
mod report;
mod row;
mod table;
#[cfg(test)]
mod tests;
mod verdict;

pub use check::{Check, CheckResult};
pub use erasure::{ErasureEvidence, Operator};
pub use exit_code::ExitCode;
pub use found::Found;
pub use journal::MESSAGE_IDS;
pub(crate) use journal::WOULD_NOT_SURVIVE;
pub use metrics::DataKeys;
pub use of_outcome::{key_exit_code, service_exit_code};
pub use of_plan::planned;
pub use report::{Health, KeyFinding, Report, SCHEMA, SCHEMA_VERSION};
pub use row::{ERASING, HAS_FORMER_KEY, REENCRYPTING, Row};
pub use verdict::Verdict;
