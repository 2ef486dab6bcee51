//! Errors of the configuration.

use std::path::PathBuf;

/// A configuration that cannot be used; the agent changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file that exists but cannot be read.
    #[error("cannot read configuration file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Other users can write to a file or directory.
    #[error(
        "configuration {path} {reason}; expected owner {owner} and no write permission for others: find out who changed it, then run 'chown {owner} {path}' and 'chmod go-w {path}'"
    )]
    Permissions {
        /// File or directory.
        path: PathBuf,
        /// What is wrong.
        reason: String,
        /// Expected user ID.
        owner: u32,
    },
    /// Neither the main file nor a drop-in exists.
    #[error(
        "no configuration: {path} does not exist; create it with a [kms] section and key_id = \"<ARN of a customer managed symmetric KMS key>\""
    )]
    Missing {
        /// The expected file.
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
    /// An endpoint to which the data key would be sent unencrypted.
    #[error(
        "{path}: kms.endpoint_url: the data key would cross the network to '{url}' unencrypted; use an https:// URL or a loopback or link-local address, or set kms.allow_http = true if you trust that network"
    )]
    InClear {
        /// The main file.
        path: PathBuf,
        /// The endpoint.
        url: String,
    },
    /// Two keys that both choose the endpoint of KMS.
    #[error(
        "{path}: {key} and kms.endpoint_url contradict each other, because either chooses the endpoint of KMS; remove kms.endpoint_url, or remove {key} and let kms.endpoint_url name an endpoint of that kind"
    )]
    TwoEndpoints {
        /// The main file.
        path: PathBuf,
        /// The key beside `kms.endpoint_url`.
        key: &'static str,
    },
    /// A security configuration that cannot be taken over.
    #[error("emr.security_configuration {path}: {message}")]
    SecurityConfiguration {
        /// Its file.
        path: PathBuf,
        /// What is wrong and what to do.
        message: String,
    },
    /// A required value that no file sets.
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
