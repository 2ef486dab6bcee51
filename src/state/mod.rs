//! The state file on the boot volume: the wrapped keys, and the volumes made with them.
//!
//! The file is replaced as a whole: temporary file, fsync, rename, fsync of the directory. A reader sees either the
//! old or the new file, never a torn one. Only the holder of the lock writes.
//!
//! May import: `digest`, `discover`, `disk`, `error`, `key`, `luks2`, `permissions`, `storage`.
//! Never: reads the configuration, asks the key service, or decides what follows from a record.

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
pub use record::{
    FormerVolume, KeyChange, KeyRecord, Phase, State, VERSION, VolumeEnd, VolumeKeyChange, VolumeRecord, VolumeRole,
};
