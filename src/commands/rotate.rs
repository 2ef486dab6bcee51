//! `rotate`: gives all volumes a new data key.

use super::error::CommandError;
use super::new_keys::{Replacement, replace_keys};
use crate::config::Config;
use crate::report::Report;

/// `rotate`: makes a new data key, adds it to every volume, and removes the former one.
///
/// # Errors
/// When it cannot begin.
pub async fn rotate(config: &Config) -> Result<Report, CommandError> {
    replace_keys(config, Replacement::NewDataKey).await
}
