//! The protocol between agent and worker: what is asked, what is answered; and the pool of the agent that starts workers.
//!
//! A job is one line of JSON on the worker's standard input, and after it, on a line of its own, the passphrase, where the job needs one.
//! The worker answers with lines of JSON on its standard output, progress first, the outcome last.
//!
//! May import: `disk`, `key`, `luks2`, `storage`.
//! Never: what a worker does with a job, or why it was asked.

mod answer;
mod basis;
mod extent;
mod pool;
mod process;
mod progress;
mod request;
mod target;

pub use answer::Answer;
pub use basis::Basis;
pub use extent::Extent;
pub use pool::{Host, Workers};
pub use process::{HostError, PARENT, answer};
pub use request::{Check, Format, Grow, Job, Unlock};
pub use target::Target;
