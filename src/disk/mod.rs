//! The facts, the role and the content of a disk. Plain data and pure functions.
//!
//! May import: `luks2`.
//! Never: a device, a file, or a decision about what to do with a disk.

mod bytes;
mod classify;
mod content;
mod facts;
mod role;
mod rule;

pub use bytes::Bytes;
pub use classify::{classify, is_shown};
pub use content::{BlankScan, Content, Evidence, NoiseEvidence, Scan};
pub use facts::{DevNo, DeviceFacts, DiskKind, Holder, Inventory, MissingCipher, luks_uuid_in};
pub use role::{MODEL_EBS, MODEL_INSTANCE_STORE, Role};
pub use rule::{MatchRule, RuleRole};
