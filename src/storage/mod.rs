//! The kernel's side of a volume: libcryptsetup, device-mapper, file systems and mounts. Each way to change one stands once.
//!
//! May import: `discover`, `disk`, `error`, `key`, `luks2`.
//! Never: a decision on what may be done, the network, the configuration.

pub mod cryptsetup;
pub mod dm;
pub mod filesystem;
mod header_copy;
pub(crate) mod holders;
pub mod mount;
mod tool;

pub use filesystem::{FilesystemKind, check_growing_tools, check_tools};
pub use mount::MountSpec;
pub use tool::ToolError;
