//! A KMS key of a report.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A key, outside of the node, on which volumes depend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Its ARN, or what an exec provider calls it.
    pub key_arn: String,
    /// Who unwraps with it: `aws-kms` or `exec`.
    pub provider: String,
    /// When the data key was wrapped with it.
    pub wrapped: Timestamp,
    /// Its state in KMS at the last look of `health` or `verify`, such as `Enabled`. `None` if there was no look since boot.
    pub state: Option<String>,
    /// When that look was.
    pub looked: Option<Timestamp>,
    /// Why it would not unwrap, if the last look found that.
    pub error: Option<String>,
}
