//! The audit report of a node: what is on each disk, what encrypts it, and how that was shown. Its verdicts, and the formats of others that
//! it is converted to.
//!
//! May import: `disk`, `logging`.
//! Never: a disk, a file, the network, or this node; facts and reports come in, reports and text go out.

mod disk;
mod evidence;
mod judgement;
mod key;
mod node;
mod report;
#[cfg(test)]
mod schema;
mod table;

pub use disk::{Disk, Encryption, Proof, Proven, Standing};
pub use evidence::Evidence;
pub use judgement::{Found, Judgement, Mapping, Stranger, Unfinished, Volume, judge, judge_node};
pub use key::Key;
pub use node::{IdentityDocument, Node};
pub use report::{AuditReport, Configuration, SCHEMA, SCHEMA_VERSION};
