//! EMR security configurations: what one says, what each checker makes of it, what EMR would really encrypt, and what of it the agent
//! takes over.
//!
//! May import: `certificates`, `digest`, `text`.
//! Never: a file, the network, or this node; text comes in, and values and text go out.

mod check_table;
mod checked;
mod control;
mod document;
mod drop_in;
mod error;
mod form;
mod hidden;
mod import;
mod json;
mod judgement;
mod key_arn;
mod lines;
mod local_disks;
mod not_done;
mod pointer;
mod problem;
mod rules;
mod sarif;
mod schema;
mod shape;
mod surface;
mod text;
mod view;

pub use checked::{Checked, CheckedFile, Demands};
pub use control::{CONTROLS, Control, ControlVerdict, Verdict};
pub use document::{Document, Form, MAX_BYTES};
pub use error::ReadError;
pub use hidden::Hidden;
pub use import::{Import, ImportError, Setting};
pub use judgement::Judgement;
pub use local_disks::{DiskEncryption, LocalDisks};
pub use not_done::{Entry, NotDone};
pub use pointer::Pointer;
pub use problem::{Problem, ProblemKind};
pub use sarif::sarif;
pub use surface::{Place, Protection, Surface};
