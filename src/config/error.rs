//! What is wrong with a configuration, and where.

use std::path::PathBuf;

/// A configuration that cannot be used; nothing was touched.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file that is there but cannot be read.
    #[error("cannot read configuration file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Others may write to it.
    #[error(
        "configuration {path} {reason}; expected owner {owner} and no write permission for others: find out who changed it, then run 'chown {owner} {path}' and 'chmod go-w {path}'"
    )]
    Permissions {
        /// File or directory.
        path: PathBuf,
        /// What is wrong.
        reason: String,
        /// User id expected.
        owner: u32,
    },
    /// Neither the file nor a drop-in exists.
    #[error(
        "no configuration: {path} does not exist; create it with a [kms] section and key_id = \"<ARN of a customer managed symmetric KMS key>\""
    )]
    Missing {
        /// The file looked for.
        path: PathBuf,
    },
    /// A file with a mistake.
    #[error("{path}:{line}: {message}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong and what was expected.
        message: String,
    },
    /// An endpoint that the data key would cross the network to in clear.
    #[error(
        "{path}: kms.endpoint_url: the data key would cross the network to '{url}' unencrypted; use an https:// URL or a loopback or link-local address, or set kms.allow_http = true if you trust that network"
    )]
    InClear {
        /// The main file.
        path: PathBuf,
        /// The endpoint.
        url: String,
    },
    /// A required value that no file gives.
    #[error("{path}: {key} is missing; {expected}")]
    Required {
        /// The main file.
        path: PathBuf,
        /// The dotted key.
        key: &'static str,
        /// What to write.
        expected: &'static str,
    },
}
