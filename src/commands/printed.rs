//! What a command prints that ends without a report of a node.

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
