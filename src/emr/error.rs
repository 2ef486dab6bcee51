//! Why a file cannot be read as a security configuration.

use super::document::{MAX_BYTES, MAX_DOCUMENTS};
use super::pointer::Pointer;

/// A file that is not a security configuration, or not one that can be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// More than a security configuration, a template or a plan ever has.
    #[error("larger than {} MiB; expected an EMR security configuration, or a template or plan with one", MAX_BYTES >> 20)]
    TooLarge,
    /// Not UTF-8.
    #[error("not UTF-8 at byte {0}; expected JSON in UTF-8")]
    NotUtf8(usize),
    /// Text in another encoding.
    #[error("{encoding}, expected UTF-8; convert it with 'iconv -f {encoding} -t UTF-8 FILE'")]
    OtherEncoding {
        /// The encoding, as `iconv` names it.
        encoding: &'static str,
    },
    /// YAML.
    #[error(
        "{message} (at the top level): this looks like YAML, expected JSON; convert a CloudFormation template with 'cfn-flip -j FILE', and other YAML with 'yq -o json FILE'"
    )]
    Yaml {
        /// Why it is not JSON, with line and column.
        message: String,
    },
    /// A byte order mark in a string that should hold the document.
    #[error(
        "the text at {at} begins with a byte order mark, which JSON must not have; save the document as UTF-8 without one, and create the security configuration from that"
    )]
    MarkInText {
        /// The string.
        at: Pointer,
    },
    /// Not JSON, or JSON with a key twice or nested too deeply.
    #[error("{message} (at {at}); expected one JSON document")]
    Json {
        /// The place.
        at: Pointer,
        /// What is wrong, with line and column.
        message: String,
    },
    /// Not JSON, in a string that should hold the document.
    #[error("the text at {text_at} is not a JSON document: {message} of that text (at {at})")]
    JsonInText {
        /// The string.
        text_at: Pointer,
        /// The place in the text of the string.
        at: Pointer,
        /// What is wrong, with line and column in that text.
        message: String,
    },
    /// More documents than anybody has.
    #[error("more than {MAX_DOCUMENTS} security configurations: one more at {at}; split the file")]
    TooMany {
        /// The first that is too many.
        at: Pointer,
    },
    /// Two security configurations in one object, of which one would be passed over in silence.
    #[error("found {at} beside {holder}, which has a security configuration too; put each into a file of its own")]
    Two {
        /// The place of the one.
        at: Pointer,
        /// The key that has the other.
        holder: &'static str,
    },
    /// The answer of `list-security-configurations`.
    #[error(
        "at {at} are names of security configurations and no document; run 'aws emr describe-security-configuration --name NAME' and check its answer"
    )]
    OnlyNames {
        /// The place.
        at: Pointer,
    },
    /// A security configuration of another product.
    #[error("at {at} is a configuration of {product}, which has another schema; expected one of EMR on EC2")]
    OtherProduct {
        /// The place.
        at: Pointer,
        /// The product.
        product: &'static str,
    },
    /// A function of a template, or a value that a plan does not know yet.
    #[error(
        "the document at {at} is not known yet: {what}; check the answer of 'aws emr describe-security-configuration'"
    )]
    Unresolved {
        /// The place.
        at: Pointer,
        /// What stands there.
        what: String,
    },
    /// A template or plan without a security configuration.
    #[error("no security configuration found: there is no {expected} (at {at})")]
    Without {
        /// The place.
        at: Pointer,
        /// The resource that was expected.
        expected: &'static str,
    },
    /// An object of something else.
    #[error("not an EMR security configuration: found {unknown} at {at}{nearest}; expected one of {expected}")]
    Unknown {
        /// The place.
        at: Pointer,
        /// The properties that it has.
        unknown: String,
        /// A suggestion, or nothing.
        nearest: String,
        /// The properties that it may have.
        expected: String,
    },
    /// Something other than an object.
    #[error("not an EMR security configuration: expected an object at {at}, found {found}")]
    NoObject {
        /// The place.
        at: Pointer,
        /// What is there.
        found: &'static str,
    },
}
