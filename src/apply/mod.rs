//! Carries out a plan: the order of things and their durability, and nothing that `plan` could decide.
//!
//! First the key, then the state file, then the disks. A volume is `committed` in the state file, durably, before it is
//! mounted for the first time. Until then it holds no data, and the next run may start over with it.
//!
//! May import: `config`, `disk`, `error`, `job`, `key`, `kms`, `luks2`, `plan`, `state`, `storage`.
//! Never: a decision on what may be done, a device, a report.

mod adopt;
mod context;
mod erase;
mod format;
mod grow;
mod intent;
mod keys;
mod outcome;
mod record;
mod rekey;
mod replace_key;
mod run;
#[cfg(test)]
mod tests;
mod unlock;
mod volume_key;

pub use adopt::AdoptOutcome;
pub use context::Apply;
pub use erase::Erased;
pub use keys::{needs_key, unwrap};
pub use outcome::{KeyError, Outcome, StepResult};
pub use volume_key::{Beginning, NoBeginning};
