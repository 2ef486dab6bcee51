//! The summary of a fleet: what the audit reports of its nodes and the answers of AWS show together.
//!
//! May import: `audit`, `columns`, `disk`, `emr`, `text`.
//! Never: a file, the network, or this node; reports and answers come in, a summary and text go out.

// the summary
mod configured;
mod exceptions;
mod keys;
mod node;
mod proofs;
mod side_by_side;
mod silent;
mod summary;

// what AWS says
mod answers;

// the summary as text
mod markup;
mod page;
mod page_ec2;
mod page_emr;
mod page_nodes;
mod table;

pub use answers::{AnswerError, Cluster, Ec2, MAX_ANSWER_BYTES};
pub use configured::{Agreement, ClusterRow, Configured, NamedDocument, PlaceRow};
pub use exceptions::Exception;
pub use keys::KeyUse;
pub use node::NodeRow;
pub use proofs::{OldestProof, Proofs};
pub use side_by_side::{Shown, SideBySide, Unencrypted};
pub use silent::SilentNode;
pub use summary::{Fleet, Reports, Surroundings};
