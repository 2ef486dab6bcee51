//! The worker: one process, one disk at a time; the only code that opens block devices.
//!
//! One that hangs in the kernel hangs alone.
//!
//! May import: `discover`, `disk`, `error`, `job`, `key`, `luks2`, `storage`.
//! Never: the network, the configuration, the state file, or a decision on what may be done.

mod check;
mod claim;
mod close;
pub mod confine;
mod error;
mod examine;
mod format;
mod grow;
mod input;
mod noise;
pub mod probe;
mod reader;
mod sample;
mod serve;
mod signatures;
mod stage;
mod unlock;

pub use serve::serve;
