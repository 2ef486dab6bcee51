//! The protocol between agent and worker, and the pool that starts workers.
//!
//! A job is one line of JSON on the worker's standard input. If the job needs passphrases, each follows on a line of
//! its own. The worker answers with lines of JSON on its standard output: progress first, the result last.
//!
//! May import: `disk`, `key`, `luks2`, `storage`.
//! Never: what a worker does with a job, or how a plan comes to its basis.

mod answer;
mod basis;
mod extent;
mod pool;
mod process;
mod progress;
mod request;
mod target;

pub use answer::{Answer, Audited, AuditedMapping, Compared, InspectedBackup, Overwritten};
pub use basis::Basis;
pub use extent::Extent;
pub use pool::{Host, Workers};
pub use process::{HostError, PARENT, read_answer};
pub use progress::Course;
pub use request::{
    AddKey, Adopt, Audit, BackUpHeader, Check, Erase, Format, Grow, InspectBackup, Job, Reencrypt, RemoveKey,
    RestoreHeader, Unlock, Verify,
};
pub use target::Target;
