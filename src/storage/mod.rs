//! Volumes in the kernel: libcryptsetup, device-mapper, file systems and mounts. Each way to change one exists once.
//!
//! May import: `discover`, `disk`, `error`, `fips`, `key`, `luks2`.
//! Never: a decision about what to do, the network, the configuration.

pub mod cryptsetup;
pub mod dm;
pub mod filesystem;
mod header_copy;
pub(crate) mod header_swap;
pub(crate) mod holders;
pub mod mount;
mod selinux;
mod tool;

pub use filesystem::{FilesystemKind, check_growing_tools, check_tools, find_tools};
pub use mount::MountSpec;
pub use selinux::{find_domain_denied_to_udev, find_restorecon};
pub use tool::{FoundTool, ToolError};
