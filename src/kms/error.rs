//! Errors of the key service, as callers get them.

use std::fmt;

use super::class::Class;
use super::denial::Denial;
use crate::key::Provider;

/// An operation of the key service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Asking IMDS for the Region, before the first call to KMS.
    FindRegion,
    /// Getting credentials, as every call does, but without a call.
    GetCredentials,
    /// `DescribeKey`.
    DescribeKey,
    /// `GenerateDataKey`.
    GenerateDataKey,
    /// `Decrypt`.
    Decrypt,
    /// `ReEncrypt`.
    ReEncrypt,
    /// `Sign`.
    Sign,
    /// `generate` of the customer's program.
    Generate,
    /// `unwrap` of the customer's program.
    Unwrap,
    /// `describe` of the customer's program.
    Describe,
}

impl Operation {
    /// Returns its name as AWS or the protocol of the program writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::FindRegion => "FindRegion",
            Self::GetCredentials => "GetCredentials",
            Self::DescribeKey => "DescribeKey",
            Self::GenerateDataKey => "GenerateDataKey",
            Self::Decrypt => "Decrypt",
            Self::ReEncrypt => "ReEncrypt",
            Self::Sign => "Sign",
            Self::Generate => "generate",
            Self::Unwrap => "unwrap",
            Self::Describe => "describe",
        }
    }

    /// Returns the IAM actions that it needs.
    pub(super) fn actions(self) -> &'static str {
        if self == Self::ReEncrypt { "ReEncryptFrom and kms:ReEncryptTo" } else { self.name() }
    }

    /// Returns the key service.
    pub fn provider(self) -> Provider {
        match self {
            Self::FindRegion
            | Self::GetCredentials
            | Self::DescribeKey
            | Self::GenerateDataKey
            | Self::Decrypt
            | Self::ReEncrypt
            | Self::Sign => Provider::AwsKms,
            Self::Generate | Self::Unwrap | Self::Describe => Provider::Exec,
        }
    }

    /// Returns the configuration key that limits how long it is tried.
    pub(super) fn deadline_key(self) -> &'static str {
        match self.provider() {
            Provider::AwsKms => "kms.deadline",
            Provider::Exec => "exec.deadline",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FindRegion => f.write_str("asking IMDS for the region"),
            Self::GetCredentials => f.write_str("getting credentials"),
            Self::DescribeKey | Self::GenerateDataKey | Self::Decrypt | Self::ReEncrypt | Self::Sign => {
                write!(f, "KMS {}", self.name())
            }
            Self::Generate | Self::Unwrap | Self::Describe => write!(f, "exec {}", self.name()),
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
#[error("{}", self.text())]
pub struct KmsError {
    /// The call and its key; `None` if there was no call.
    pub(super) call: Option<String>,
    pub(super) what: String,
    pub(super) remedy: Option<String>,
    pub(super) operation: Option<Operation>,
    pub(super) class: Class,
    pub(super) code: Option<Box<str>>,
    pub(super) request_id: Option<Box<str>>,
    pub(super) denial: Option<Box<Denial>>,
}

impl KmsError {
    /// Makes an error of a configuration that cannot work, found before any request.
    pub(super) fn configuration(text: String) -> Self {
        Self::plain(text, Class::Configuration)
    }

    /// Returns the key service.
    pub fn provider(&self) -> Provider {
        self.operation.map_or(Provider::AwsKms, Operation::provider)
    }

    /// Makes an error for a fake key service.
    #[cfg(test)]
    pub(crate) fn of_class(class: Class) -> Self {
        Self::plain(format!("{class:?}"), class)
    }

    fn plain(what: String, class: Class) -> Self {
        let (call, remedy, operation, code, request_id, denial) = (None, None, None, None, None, None);
        Self { call, what, remedy, operation, class, code, request_id, denial }
    }

    fn text(&self) -> String {
        let call = self.call.as_ref().map(|call| format!("{call}: ")).unwrap_or_default();
        let remedy = self.remedy.as_ref().map(|remedy| format!("; {remedy}")).unwrap_or_default();
        format!("{call}{}{remedy}", self.what)
    }

    /// Returns what happened, without the call and the remedy.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// Returns what to do about it.
    pub fn remedy(&self) -> Option<&str> {
        self.remedy.as_deref()
    }

    /// Returns what AWS said if a policy denied the call.
    pub fn denial(&self) -> Option<&Denial> {
        self.denial.as_deref()
    }

    /// Returns whether the service rejected the request itself, as one that lacks something or that it does not know.
    pub fn is_invalid_request(&self) -> bool {
        let code = self.code.as_deref().unwrap_or_default();
        code.starts_with("Validation") || code.starts_with("Serialization") || code == "InvalidCiphertextException"
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
