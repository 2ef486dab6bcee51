//! The worker: one process that works on one disk at a time. Only workers open block devices.
//!
//! A worker that hangs in the kernel does not hold up the other disks.
//!
//! May import: `discover`, `disk`, `error`, `job`, `key`, `luks2`, `storage`.
//! Never: the network, the configuration, the state file, or a decision about what to do, except to refuse a basis that no longer holds.

mod adopt;
mod audit;
mod check;
mod claim;
mod close;
pub mod confine;
mod erase;
mod erase_error;
mod error;
mod examine;
mod first_look;
mod format;
mod grow;
mod header;
mod input;
mod noise;
pub mod probe;
mod reader;
mod recovery;
mod reencrypt;
mod rekey;
mod sample;
mod sector_counts;
mod serve;
mod signatures;
mod stage;
mod unlock;
mod verify;

pub use serve::serve;
