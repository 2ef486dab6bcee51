//! The disks of the machine, and which of them carry the running system, from sysfs, procfs and the links of udev.
//!
//! It only reads files: it opens no device and runs no command, so a hung device cannot block it.
//!
//! May import: `disk`, `error`.
//! Never: opens a device, runs a program, or reads the configuration.

mod backing;
mod boot;
mod error;
mod facts;
mod holder;
mod kind;
mod links;
mod list;
mod memory;
mod mount;
mod mount_points;
mod orphans;
mod roots;
mod sysfs;
mod table;
mod udev;
mod xen;

pub use error::{BackingError, DiscoverError};
pub use list::discover;
pub use memory::in_memory;
pub(crate) use mount::Mount;
pub use orphans::orphans;
pub use roots::Roots;
pub(crate) use table::Mounts;
pub use table::mounted_at;
