//! `rewrap`: has another KMS key wrap the data key of the node.

use super::error::CommandError;
use super::new_keys::{Replacement, replace_keys};
use crate::config::Config;
use crate::report::Report;

/// `rewrap`: wraps the data key with the KMS key `to`, an ARN, an ID or an alias, and writes it to every volume. Passphrases do not change.
///
/// # Errors
/// When it cannot begin.
pub async fn rewrap(config: &Config, to: &str) -> Result<Report, CommandError> {
    let report = replace_keys(config, Replacement::OtherKmsKey(to)).await?;
    if report.exit_code() == 0
        && let Some(key_id) = config.kms.key_id.as_ref().filter(|key_id| *key_id != to)
    {
        tracing::warn!("kms.key_id is still {key_id}; set it to {to}, so that a new data key is wrapped with it too");
    }
    Ok(report)
}
