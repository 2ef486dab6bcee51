//! What a disk is: its facts, its role, what is on it. Plain data and pure judgements.
//!
//! May import: `luks2`.
//! Never: a device, a file, or what is to be done with a disk.

mod bytes;
mod classify;
mod content;
mod facts;
mod role;
mod rule;

pub use bytes::Bytes;
pub use classify::{classify, is_shown};
pub use content::{BlankScan, Content, Evidence, NoiseEvidence, Scan};
pub use facts::{DevNo, DeviceFacts, DiskKind, Holder, Inventory, MissingCipher};
pub use role::{MODEL_EBS, MODEL_INSTANCE_STORE, Role};
pub use rule::{MatchRule, RuleRole};
