//! Errors in the form that KMS gives them: a code and a message.

use std::fmt;

use aws_lc_rs::error::Unspecified;
use serde_json::Value;

/// The result of an operation: the body of its response, or the error.
pub(super) type Answer = Result<Value, KmsError>;

/// An error response of KMS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KmsError {
    /// The code, for example `DisabledException`.
    pub code: String,
    /// The message; KMS sends none with `InvalidCiphertextException`.
    pub message: Option<String>,
}

impl KmsError {
    pub(super) fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: Some(message.into()) }
    }

    pub(super) fn validation(message: impl Into<String>) -> Self {
        Self::new("ValidationException", message)
    }

    pub(super) fn invalid_ciphertext() -> Self {
        Self { code: "InvalidCiphertextException".to_owned(), message: None }
    }

    /// aws-lc does not say what went wrong.
    pub(super) fn internal(_: Unspecified) -> Self {
        Self::new("KMSInternalException", "a cryptographic operation of fake-aws failed")
    }

    /// The error for a required parameter that the request does not have.
    pub(super) fn missing(field: &str) -> Self {
        Self::validation(format!(
            "1 validation error detected: Value null at '{field}' failed to satisfy constraint: Member must not be null"
        ))
    }

    /// Returns the HTTP status that KMS sends with a code. Clients decide by the code, not by the status.
    pub fn status(code: &str) -> u16 {
        match code {
            "KMSInternalException" | "KeyUnavailableException" | "InternalFailure" => 500,
            "DependencyTimeoutException" | "ServiceUnavailable" | "ServiceUnavailableException" => 503,
            _ => 400,
        }
    }
}

impl fmt::Display for KmsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message.as_deref().unwrap_or("no message"))
    }
}

impl std::error::Error for KmsError {}
