//! The key service: what the agent asks of AWS KMS and IMDS, how long it keeps asking, and what it says when that fails.
//!
//! Nothing here writes key material anywhere, and no error carries an answer of KMS: [`KmsError`] keeps texts, never the SDK's error
//! values, whose `Debug` prints whole answers.
//!
//! May import: `config`, `key`.
//! Never: disks, the state file, or what a key is for.

mod class;
mod client;
mod error;
mod http;
pub mod imds;
mod key_facts;
mod key_service;
mod retry;
mod setup;
mod usage;

pub use class::{Class, class};
pub use client::AwsKms;
pub use error::{Fault, KmsError, Operation};
pub use key_facts::KeyState;
pub use key_service::{GeneratedKey, KeyService};
pub use retry::Limits;
pub use setup::Options;
pub use usage::Usage;
