//! The exit codes.

use serde::Serialize;

/// Exit codes, the same for every command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(into = "u8")]
#[repr(u8)]
pub enum ExitCode {
    /// Done.
    Done = 0,
    /// Something failed.
    Failed = 1,
    /// Usage or configuration.
    Configuration = 2,
    /// Refused for safety.
    Refused = 3,
    /// Key service or credentials not available in time.
    KeyService = 4,
}

impl From<ExitCode> for u8 {
    fn from(code: ExitCode) -> Self {
        code as Self
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}
