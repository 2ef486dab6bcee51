//! The evidence that a volume was erased.

use std::fmt;

use jiff::Timestamp;
use serde::Serialize;

use crate::job::Overwritten;

/// Who runs a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Operator {
    /// The user ID of the process.
    pub uid: u32,
    /// Its name, if it has one.
    pub user: Option<String>,
    /// The user who logged in, by the kernel's record, if somebody did.
    pub login_uid: Option<u32>,
    /// The user who called sudo, by the environment.
    pub sudo_user: Option<String>,
}

/// The evidence that a volume was erased.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ErasureEvidence {
    /// Who did it.
    pub by: Operator,
    /// When it began.
    pub began: Timestamp,
    /// When everything was overwritten and read back.
    pub ended: Timestamp,
    /// The KMS key that wrapped its data key.
    pub key_arn: String,
    /// What was overwritten, in that order; nothing if an earlier, interrupted run had done so.
    pub overwritten: Vec<Overwritten>,
    /// How that was verified.
    pub verified: &'static str,
}

impl fmt::Display for ErasureEvidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { by, began, ended, key_arn, overwritten, verified } = self;
        let user = by.user.as_deref().unwrap_or("no name");
        write!(f, "erased between {began:.0} and {ended:.0} by user {} ({user})", by.uid)?;
        if let Some(sudo_user) = &by.sudo_user {
            write!(f, ", through sudo by {}", sudo_user.escape_debug())?;
        }
        let parts = overwritten.iter().map(|part| {
            let Overwritten { what, begin, end, with } = part;
            format!("{what}, bytes {begin} to {end}, with {with}")
        });
        let parts = match parts.collect::<Vec<_>>().join("; ") {
            nothing if nothing.is_empty() => "an earlier run had overwritten everything".to_owned(),
            parts => format!("overwritten: {parts}"),
        };
        write!(f, "; {parts}; {verified}; its data key was wrapped by {}", key_arn.escape_debug())
    }
}
