//! `luks-agent` encrypts the local disks of EMR and EC2 cluster nodes with LUKS under a KMS key.
//!
//! This is the library of the program of the same name. Its API is for the program and its tests, and may change at any time. The
//! README says what the program does and how to use it, `docs/safety.md` what it promises, and `docs/architecture.md` how it is built and
//! why.
//!
//! The data flows one way:
//!
//! ```text
//! config ---------------+
//! state (boot volume) --+
//! sysfs, udev - discover -> DeviceFacts --+
//!               worker: probe -> Content -+-> plan (pure) -> Plan -> apply -> Outcome -> report
//!                                             steps,         |
//!                                             refusals       +- kms     one data key for all volumes
//!                                                            +- state   intent, then committed; durable
//!                                                            +- worker  one process per device
//! ```
//!
//! [`commands`] are parts of this pipeline. [`plan`] decides everything and touches nothing; [`apply`] does everything and
//! decides nothing. Only a process started for one disk ([`worker`], started by [`job`]) opens block devices. Only its parent
//! uses the network and writes the state file. The data key ([`key`]) lives in these short-lived processes alone.

pub mod apply;
pub mod audit;
pub mod certificates;
pub mod cli;
pub(crate) mod columns;
pub mod commands;
pub mod config;
pub mod daemon;
pub(crate) mod digest;
pub mod discover;
pub mod disk;
pub mod dsse;
pub mod emr;
pub mod error;
pub(crate) mod fips;
pub mod fleet;
pub mod job;
pub mod key;
pub mod kms;
pub mod logging;
pub mod luks2;
pub mod permissions;
pub mod plan;
pub mod report;
pub mod state;
pub mod storage;
pub mod text;
pub mod worker;
