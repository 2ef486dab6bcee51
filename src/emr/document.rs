//! One security configuration of a file.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::pointer::Pointer;
use super::view::{ENCRYPTION, View};
use crate::digest::sha256_hex;

/// How large a file may be, in bytes: more than any template or plan that a person would look at.
pub const MAX_BYTES: usize = 16 << 20;
/// How many documents a file may have.
pub(super) const MAX_DOCUMENTS: usize = 10_000;

/// How a security configuration was handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// The document itself.
    Document,
    /// The value of its `EncryptionConfiguration` alone.
    EncryptionConfiguration,
    /// The answer of `describe-security-configuration`.
    DescribeAnswer,
    /// The input of `create-security-configuration`.
    CreateInput,
    /// A resource of CloudFormation.
    CloudFormation,
    /// A plan or state of Terraform.
    Terraform,
    /// A configuration item of AWS Config.
    ConfigItem,
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Document => "security configuration",
            Self::EncryptionConfiguration => "value of EncryptionConfiguration",
            Self::DescribeAnswer => "answer of describe-security-configuration",
            Self::CreateInput => "input of create-security-configuration",
            Self::CloudFormation => "CloudFormation resource",
            Self::Terraform => "Terraform resource",
            Self::ConfigItem => "AWS Config item",
        })
    }
}

/// A security configuration.
#[derive(Debug, Clone)]
pub struct Document {
    /// How it was handed over.
    pub form: Form,
    /// Its name, if what is around it has one.
    pub name: Option<String>,
    /// Where it is in the file.
    pub at: Pointer,
    /// Whether it is a text in a string, at that place.
    pub is_text: bool,
    /// The security configurations of another product beside it, which are not checked.
    pub(super) unchecked: Vec<Pointer>,
    /// The document.
    pub(super) value: Value,
}

impl Document {
    /// Returns the place in the file of a value in the document.
    pub(super) fn place(&self, pointer: &Pointer) -> Pointer {
        if self.is_text {
            return self.at.clone();
        }
        let below = match self.form {
            Form::EncryptionConfiguration => pointer.as_str().strip_prefix(ENCRYPTION).unwrap_or_default(),
            Form::Document
            | Form::DescribeAnswer
            | Form::CreateInput
            | Form::CloudFormation
            | Form::Terraform
            | Form::ConfigItem => pointer.as_str(),
        };
        self.at.join(below)
    }

    /// Returns the SHA-256 of what it says, in hexadecimal. Layout and order of properties make no difference.
    pub fn digest(&self) -> String {
        sha256_hex(&[self.value.to_string().as_bytes()])
    }

    /// Returns how it is called in messages.
    pub fn title(&self) -> String {
        match &self.name {
            Some(name) => format!("{} '{name}'", self.form),
            None => self.form.to_string(),
        }
    }

    pub(super) fn view(&self) -> View<'_> {
        View { value: &self.value, has_functions: self.has_functions() }
    }

    /// Returns whether CloudFormation replaces functions in it: in a template, but not in a text.
    pub(super) fn has_functions(&self) -> bool {
        self.form == Form::CloudFormation && !self.is_text
    }
}
