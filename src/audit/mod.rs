//! The audit report of a node: what is on each disk, what encrypts it, and how that was shown. Its verdicts, and the formats of others that
//! it is converted to.
//!
//! May import: `columns`, `digest`, `disk`, `text`.
//! Never: a disk, a file, the network, or this node; facts and reports come in, reports and text go out.

// the report
mod disk;
mod evidence;
mod judgement;
mod key;
mod node;
mod report;
#[cfg(test)]
mod schema;
mod table;

// reading it
mod consistency;
mod coverage;
#[cfg(test)]
pub(crate) mod example;
mod newest;
mod oldest_proof;
mod read;

// other formats
mod asff;
mod asff_resources;
mod control;
mod frame;
mod html;
mod inventory;
mod ocsf;
mod page;
mod place;
mod rows;
mod text;

pub use asff::{AsffError, Batch, MAX_FINDINGS, asff};
pub use consistency::Inconsistency;
pub use coverage::{Coverage, Tally};
pub use disk::{Disk, Encryption, Proof, Proven, Standing};
pub use evidence::Evidence;
pub(crate) use frame::{begin_page, end_page, verdict};
pub(crate) use html::Html;
pub use inventory::inventory;
pub use judgement::{Found, Judgement, Mapping, Stranger, Unfinished, Volume, judge, judge_node};
pub use key::Key;
pub use newest::Newest;
pub use node::{IdentityDocument, Node};
pub use ocsf::ocsf;
pub use oldest_proof::OldestProof;
pub use read::{MAX_BYTES, Mistake, ReadError};
pub use report::{AuditReport, Configuration, PAYLOAD_TYPE, SCHEMA, SCHEMA_VERSION};
