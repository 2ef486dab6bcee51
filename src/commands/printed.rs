//! What a command prints that ends without a report of a node.

use serde_json::Value;

use crate::report::ExitCode;

/// What such a command prints, and how it ends.
#[derive(Debug)]
pub struct Printed {
    /// For standard output.
    pub stdout: String,
    /// For standard error, one line each.
    pub complaints: Vec<String>,
    /// How it ends.
    pub exit_code: ExitCode,
}

/// Returns a JSON value as such a command prints it.
pub(super) fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}
