//! Looks at values of a security configuration.

use serde_json::{Map, Value};

use super::pointer::Pointer;
use crate::text::{escape_controls, shortened};

pub(super) const ENCRYPTION: &str = "/EncryptionConfiguration";
pub(super) const AT_REST_FLAG: &str = "/EncryptionConfiguration/EnableAtRestEncryption";
pub(super) const IN_TRANSIT_FLAG: &str = "/EncryptionConfiguration/EnableInTransitEncryption";
pub(super) const AT_REST: &str = "/EncryptionConfiguration/AtRestEncryptionConfiguration";
pub(super) const S3: &str = "/EncryptionConfiguration/AtRestEncryptionConfiguration/S3EncryptionConfiguration";
pub(super) const LOCAL: &str =
    "/EncryptionConfiguration/AtRestEncryptionConfiguration/LocalDiskEncryptionConfiguration";
pub(super) const IN_TRANSIT: &str = "/EncryptionConfiguration/InTransitEncryptionConfiguration";
pub(super) const TLS: &str = "/EncryptionConfiguration/InTransitEncryptionConfiguration/TLSCertificateConfiguration";
pub(super) const WAL: &str = "/EncryptionConfiguration/EMRWALEncryptionConfiguration";
pub(super) const KERBEROS: &str = "/AuthenticationConfiguration/KerberosConfiguration";
pub(super) const IMDS: &str = "/InstanceMetadataServiceConfiguration";

/// How much of a value a message shows.
const SHOWN: usize = 80;

/// What a boolean says to EMR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flag {
    /// `true`, or the string.
    On,
    /// `false`, the string, or nothing.
    Off,
    /// A function of a template.
    Unresolved,
    /// Something else.
    Invalid,
}

/// A security configuration.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) value: &'a Value,
    /// Whether CloudFormation replaces functions in it.
    pub(super) has_functions: bool,
}

impl<'a> View<'a> {
    pub(super) fn get(self, pointer: &str) -> Option<&'a Value> {
        self.value.pointer(pointer)
    }

    pub(super) fn has(self, pointer: &str) -> bool {
        self.get(pointer).is_some()
    }

    pub(super) fn object(self, pointer: &str) -> Option<&'a Map<String, Value>> {
        self.get(pointer).and_then(Value::as_object)
    }

    /// Returns a text that is not empty.
    pub(super) fn text(self, pointer: &str) -> Option<&'a str> {
        self.get(pointer).and_then(Value::as_str).filter(|text| !text.trim().is_empty())
    }

    /// Returns whether there is a text that is not empty, or a function of a template that will be one.
    pub(super) fn will_be_text(self, pointer: &str) -> bool {
        self.text(pointer).is_some() || self.has_functions && self.get(pointer).is_some_and(is_intrinsic)
    }

    /// Returns the function of a template at a place or above it: what will stand at that place is not known yet.
    pub(super) fn function(self, pointer: &str) -> Option<&'a Value> {
        let mut here = self.value;
        for segment in Pointer::new(pointer).segments() {
            if is_intrinsic(here) {
                return Some(here);
            }
            here = match here {
                Value::Object(object) => object.get(&segment)?,
                Value::Array(items) => items.get(segment.parse::<usize>().ok()?)?,
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return None,
            };
        }
        is_intrinsic(here).then_some(here)
    }

    pub(super) fn flag(self, pointer: &str) -> Flag {
        match self.get(pointer) {
            None if self.function(pointer).is_some() => Flag::Unresolved,
            None => Flag::Off,
            Some(value) => match as_boolean(value) {
                Some(true) => Flag::On,
                Some(false) => Flag::Off,
                None if is_intrinsic(value) => Flag::Unresolved,
                None => Flag::Invalid,
            },
        }
    }

    /// Returns the entries of `Overrides` with their places.
    pub(super) fn overrides(self) -> impl Iterator<Item = (Pointer, &'a Value)> {
        let at = Pointer::new(S3).child("Overrides");
        let list = self.get(at.as_str()).and_then(Value::as_array).into_iter().flatten().enumerate();
        list.map(move |(index, entry)| (at.item(index), entry))
    }

    /// Says what stands at a place: `is "x"`, `is missing`, or that nobody knows yet.
    pub(super) fn says(self, pointer: &str) -> String {
        match (self.get(pointer), self.function(pointer)) {
            (Some(value), _) => format!("is {}", shown(value)),
            (None, Some(function)) => format!("is not known before the deployment: it comes from {}", shown(function)),
            (None, None) => "is missing".to_owned(),
        }
    }
}

/// Returns what a boolean says, as EMR's own examples write it: also as a string.
pub(super) fn as_boolean(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(on) => Some(*on),
        Value::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
        Value::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
        Value::Null | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Returns whether a value has the form of a function of CloudFormation, whose result is not known before the deployment.
pub(super) fn is_intrinsic(value: &Value) -> bool {
    let only = value.as_object().filter(|object| object.len() == 1).and_then(|object| object.keys().next());
    only.is_some_and(|name| name == "Ref" || name.starts_with("Fn::"))
}

/// Returns a value as messages show it: as JSON, escaped and not too long.
pub(super) fn shown(value: &Value) -> String {
    escape_controls(&shortened(&value.to_string(), SHOWN)).into_owned()
}

/// Returns the name of a type of JSON with its article.
pub(super) fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
