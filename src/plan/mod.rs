//! Decides what to do with each disk, and why. Pure, so that a test can reach every refusal without a disk.
//!
//! May import: `config`, `disk`, `job`, `key`, `luks2`, `state`, `storage`.
//! Never: a file, a clock, the network; nor `worker`, which does not import `plan` either.

mod action;
mod adopt;
mod ciphers;
mod erase;
mod expect;
mod finding;
mod forget;
mod format;
mod growth;
mod known;
mod lost;
mod missing;
mod mode;
mod model;
mod mount_points;
mod new;
mod owner;
mod planner;
mod policy;
mod reencryption;
mod rekey;
mod restore;
#[cfg(test)]
mod tests;
mod unfinished;
mod unknown;
mod words;

pub use action::{Action, Format, Grow, Rekey, Step, Unlock};
pub use adopt::{AdoptAs, Adoptable, Adoption, Proven, adoptable, adopted};
pub use ciphers::{configured_encryption, needed_ciphers};
pub use erase::{Erasure, erasable};
pub use expect::{Shortfall, may_be_gone};
pub use finding::{Finding, Severity};
pub use forget::{attached_disk, objection_to_forgetting};
pub use mode::Mode;
pub use model::{Change, Left, Plan, Refusal, Subject};
pub use owner::{disk_of, is_ignored, locked_out, record_of};
pub use planner::plan;
pub use policy::{may_be_taken, policy, wants_probe};
pub use reencryption::objection_to_reencryption;
pub use restore::{Allowed, restore_changes};
pub use unknown::{UnknownVolume, Whose, has_our_name, may_hold_ours, unknown_mapping, unknown_volume, wants_header};
pub use words::{FINISH_ERASING, in_use, name_it};
