//! The state file on the boot volume: which keys there are, wrapped, and which volumes were made with them.
//!
//! The file is replaced as a whole: temporary file, fsync, rename, fsync of the directory. A reader sees the old file or the new
//! one, never a torn one. Only the holder of the lock writes.
//!
//! May import: `discover`, `disk`, `error`, `key`, `luks2`, `permissions`, `storage`.
//! Never: the configuration, the key service, or a decision on what follows from a record.

pub mod closed;
mod directory;
mod error;
mod file;
mod lock;
mod record;
pub(crate) mod run;
mod seal;

#[cfg(test)]
mod tests;

pub use directory::StateDir;
pub use error::StateError;
pub use file::{file, read};
pub use record::{KeyRecord, Phase, State, VERSION, VolumeRecord, VolumeRole};
