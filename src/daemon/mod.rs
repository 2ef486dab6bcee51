//! The service: compares the node with what it should be, has systemd run the commands that fix the difference, and reports the
//! state of the node.
//!
//! It holds no key, opens no block device and uses no network. The commands run in systemd units of their own: they need privileges
//! that the daemon should not have, they mount in the namespace of the host, and they survive a restart or crash of the daemon.
//!
//! May import: `commands`, `config`, `disk`, `error`, `plan`, `report`, `state`.
//! Never: a disk, a key, the network.

mod compare;
mod configuration;
mod metrics;
mod schedule;
mod service;
mod signals;
mod systemd;
mod udev;
mod work;

pub use service::{DaemonError, run};
