//! The key services: requests to AWS KMS, IMDS and STS, and to the customer's own program, their retries, and the messages when they fail.
//!
//! No code here writes key material anywhere, and no error contains a response of KMS: [`KmsError`] keeps texts, never
//! the error values of the SDK, whose `Debug` prints whole responses.
//!
//! May import: `config`, `key`, `permissions`.
//! Never: opens a disk, reads the state file, or knows what a key is for.

mod caller;
mod class;
mod client;
mod clock;
mod denial;
mod error;
mod exec;
mod failure;
mod http;
mod identity;
pub mod imds;
mod key_facts;
mod key_service;
mod retry;
mod setup;
mod sign;
mod trial;
mod usage;

pub use caller::CredentialSource;
pub use class::{Class, classify};
pub use client::AwsKms;
pub use denial::Denial;
pub use error::{Fault, KmsError, Operation};
pub use exec::{
    AnswerError, Checked, Description, ErrorKind, ExecProvider, read_described, read_generated, read_unwrapped,
};
pub use identity::{Identity, InstanceIdentity};
pub use key_facts::KeyState;
pub use key_service::{GeneratedKey, KeyService, RewrappedKey};
pub use retry::Limits;
pub use setup::Options;
pub use sign::KmsSignature;
pub use trial::KeyDescription;
pub use usage::Usage;
