//! `luks-agent` encrypts the local disks of EMR and EC2 cluster nodes with LUKS under a KMS key.
//!
//! The data flows one way:
//!
//! ```text
//! config, state, discover, probe -> plan (pure) -> apply -> report
//! ```

pub mod apply;
pub mod cli;
pub mod commands;
pub mod config;
pub mod device;
pub mod discover;
pub mod host;
pub mod imds;
pub mod key;
pub mod kms;
pub mod logging;
pub mod luks;
pub mod mount;
pub mod plan;
pub mod probe;
pub mod report;
pub mod state;
pub mod token;
pub mod worker;
