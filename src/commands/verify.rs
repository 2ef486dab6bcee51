//! `verify`: rehearses the next reboot.

use super::error::CommandError;
use super::health::{Proof, look};
use crate::config::Config;
use crate::report::Report;

/// `verify`: checks what `health` checks, and proves it: unwraps each key and tries it on every volume. Closes and writes nothing.
///
/// # Errors
/// When the disks or the state file cannot be read.
pub async fn verify(config: &Config) -> Result<Report, CommandError> {
    look("verify", config, Proof::Trial).await
}
