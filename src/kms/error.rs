//! Errors of the key service, as callers get them.

use std::fmt;

use super::class::Class;

/// An operation of the key service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Asking IMDS for the Region, before the first call to KMS.
    FindRegion,
    /// `DescribeKey`.
    DescribeKey,
    /// `GenerateDataKey`.
    GenerateDataKey,
    /// `Decrypt`.
    Decrypt,
    /// `ReEncrypt`.
    ReEncrypt,
}

impl Operation {
    /// Returns its name as AWS writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::FindRegion => "FindRegion",
            Self::DescribeKey => "DescribeKey",
            Self::GenerateDataKey => "GenerateDataKey",
            Self::Decrypt => "Decrypt",
            Self::ReEncrypt => "ReEncrypt",
        }
    }

    /// Returns the IAM actions that it needs.
    pub(super) fn actions(self) -> &'static str {
        match self {
            Self::ReEncrypt => "ReEncryptFrom and kms:ReEncryptTo",
            Self::FindRegion | Self::DescribeKey | Self::GenerateDataKey | Self::Decrypt => self.name(),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FindRegion => f.write_str("asking IMDS for the region"),
            Self::DescribeKey | Self::GenerateDataKey | Self::Decrypt | Self::ReEncrypt => {
                write!(f, "KMS {}", self.name())
            }
        }
    }
}

/// The origin of a fault, which decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The configuration: exit code 2.
    Configuration,
    /// The key service, the key or the credentials, which cannot be used now: exit code 4.
    Unavailable,
    /// The wrapped key or a response, which is invalid: exit code 1.
    Data,
}

/// A failed request to the key service; `Display` says how to fix it.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct KmsError {
    pub(super) text: String,
    pub(super) operation: Option<Operation>,
    pub(super) class: Class,
    pub(super) code: Option<Box<str>>,
    pub(super) request_id: Option<Box<str>>,
}

impl KmsError {
    /// Makes an error of a configuration that cannot work, found before any request.
    pub(super) fn configuration(text: String) -> Self {
        Self { text, operation: None, class: Class::Configuration, code: None, request_id: None }
    }

    /// Makes an error for a fake key service.
    #[cfg(test)]
    pub(crate) fn of_class(class: Class) -> Self {
        Self { text: format!("{class:?}"), operation: None, class, code: None, request_id: None }
    }

    /// Returns the operation that failed; `None` if there was no request yet.
    pub fn operation(&self) -> Option<Operation> {
        self.operation
    }

    /// Returns the class of the failure.
    pub fn class(&self) -> Class {
        self.class
    }

    /// Returns the error code from AWS.
    pub fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }

    /// Returns the ID of the last request, by which AWS finds it in its logs.
    pub fn request_id(&self) -> Option<&str> {
        self.request_id.as_deref()
    }

    /// Returns the origin of the fault.
    pub fn fault(&self) -> Fault {
        match self.class {
            Class::Configuration => Fault::Configuration,
            Class::WrappedKey | Class::Garbled | Class::Unexpected => Fault::Data,
            Class::Transient
            | Class::KeyNotReady
            | Class::Limit
            | Class::NoCredentials
            | Class::NoCredentialSource
            | Class::BadCredentials
            | Class::Clock
            | Class::Denied
            | Class::KeyState
            | Class::Certificate => Fault::Unavailable,
        }
    }
}
