//! The service: compares the node with what it should be, has systemd start the short-lived commands for the difference, and says
//! how the node is.
//!
//! It holds no key, opens no block device and reaches no network. What is to be done is done by units of systemd of its own:
//! they need privileges that the daemon is better without, they mount in the namespace that everybody sees, and neither a
//! restart nor the death of the daemon touches them.
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
