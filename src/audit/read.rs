//! Reads a report that was written as JSON.

use std::fmt;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::consistency::Inconsistency;
use super::report::{AuditReport, SCHEMA, SCHEMA_VERSION};
use crate::text::shortened;

/// How large a report may be, in bytes. That of a node with a thousand disks has about 1 MiB.
pub const MAX_BYTES: usize = 16 << 20;
/// How much of the parser's message is shown, in characters: it can quote a name of any length.
const SHOWN: usize = 300;
/// A byte order mark in UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// A text that is not an audit report, or not one to rely on.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// More than any node would report.
    #[error("larger than {} MiB; expected the audit report of one node", MAX_BYTES >> 20)]
    TooLarge,
    /// Not JSON.
    #[error("not JSON: {0}; expected an audit report")]
    NotJson(Mistake),
    /// A report in a signed envelope.
    #[error(
        "a signed envelope; 'luks-agent audit verify --public-key KEY.pem ENVELOPE' checks its signature and prints the report in it"
    )]
    Signed,
    /// JSON of something else.
    #[error("not an audit report: expected an object with the schema '{SCHEMA}', found {0}")]
    OtherSchema(String),
    /// A report in a format of the future.
    #[error(
        "made by a later luks-agent: its schema_version is {0}, and this release reads {SCHEMA_VERSION}; read it with the release that made it"
    )]
    Later(u64),
    /// An unknown, missing or repeated field, or a value of a wrong type.
    #[error("not a valid audit report: {0}")]
    Invalid(Mistake),
    /// A report that no agent makes.
    #[error("the report contradicts itself: {0}; it was edited after it was made")]
    Inconsistent(#[from] Inconsistency),
}

/// What is wrong with a text, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// What is wrong.
    pub message: String,
    /// The line, counted from 1.
    pub line: usize,
    /// The column in bytes, counted from 1; 0 before the first byte.
    pub column: usize,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at line {} column {}", self.message, self.line, self.column)
    }
}

impl From<serde_json::Error> for Mistake {
    fn from(error: serde_json::Error) -> Self {
        let (line, column) = (error.line(), error.column());
        let message = error.to_string();
        let message = message.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&message);
        Self { message: shortened(message, SHOWN).into_owned(), line, column }
    }
}

/// What tells which format the rest has.
#[derive(Deserialize)]
struct Head {
    schema: Option<String>,
    schema_version: Option<u64>,
    #[serde(rename = "payloadType")]
    payload_type: Option<IgnoredAny>,
}

impl AuditReport {
    /// Reads one report, and checks that it does not contradict itself.
    ///
    /// # Errors
    /// Says what is wrong and where, if the text is not such a report.
    pub fn read(text: &[u8]) -> Result<Self, ReadError> {
        if text.len() > MAX_BYTES {
            return Err(ReadError::TooLarge);
        }
        let text = text.strip_prefix(MARK).unwrap_or(text);
        // skips values of any depth without recursion
        serde_json::from_slice::<IgnoredAny>(text).map_err(|e| ReadError::NotJson(e.into()))?;
        // serde takes a list for a struct, too
        if text.trim_ascii_start().first() != Some(&b'{') {
            return Err(ReadError::OtherSchema("no object".to_owned()));
        }
        let head: Head = serde_json::from_slice(text).map_err(|e| ReadError::Invalid(e.into()))?;
        match (head.schema.as_deref(), head.schema_version) {
            (None, _) if head.payload_type.is_some() => return Err(ReadError::Signed),
            (None, _) => return Err(ReadError::OtherSchema("an object without a schema".to_owned())),
            (Some(other), _) if other != SCHEMA => {
                let shown: String = other.chars().take(SHOWN).collect();
                return Err(ReadError::OtherSchema(format!("the schema '{shown}'")));
            }
            (Some(_), Some(version)) if version > u64::from(SCHEMA_VERSION) => return Err(ReadError::Later(version)),
            (Some(_), _) => {}
        }
        let report: Self = serde_json::from_slice(text).map_err(|e| ReadError::Invalid(e.into()))?;
        match report.inconsistency() {
            Some(inconsistency) => Err(inconsistency.into()),
            None => Ok(report),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::example::example;

    fn error(text: &str) -> String {
        AuditReport::read(text.as_bytes()).unwrap_err().to_string()
    }

    fn pretty() -> String {
        serde_json::to_string_pretty(&example()).unwrap()
    }

    #[test]
    fn reads_what_was_written() {
        assert_eq!(AuditReport::read(pretty().as_bytes()).unwrap(), example());
        assert_eq!(AuditReport::read(format!("\u{feff}{}", pretty()).as_bytes()).unwrap(), example());
    }

    #[test]
    fn refuses_what_is_not_json_and_names_the_place() {
        assert!(error("").starts_with("not JSON: EOF while parsing a value at line 1 column 0;"));
        assert!(error("{\"schema\":\n oops}").contains("at line 2 column 2"), "{}", error("{\"schema\":\n oops}"));
        assert!(error(&format!("{} x", pretty())).contains("trailing characters at line"));
        assert!(error(&pretty()[..200]).starts_with("not JSON: EOF"));
    }

    #[test]
    fn refuses_reports_of_other_schemas_and_of_later_versions() {
        assert!(error("[]").contains("found no object"));
        assert!(error("{}").contains("found an object without a schema"));
        let other = pretty().replace("luks-agent/audit", "luks-agent/report");
        assert!(error(&other).contains("found the schema 'luks-agent/report'"));
        // before the fields that it adds are found to be unknown
        let later = pretty().replace("\"schema_version\": 1", "\"schema_version\": 2, \"more\": 1");
        assert!(error(&later).starts_with("made by a later luks-agent: its schema_version is 2"), "{}", error(&later));
        assert!(error(&pretty().replace("\"schema_version\": 1", "\"schema_version\": 0")).contains("schema_version"));
    }

    #[test]
    fn says_how_to_check_a_signed_envelope() {
        let envelope = "{\"payload\": \"\", \"payloadType\": \"\", \"signatures\": []}";
        assert!(error(envelope).starts_with("a signed envelope; 'luks-agent audit verify"), "{}", error(envelope));
    }

    #[test]
    fn refuses_unknown_and_repeated_fields_and_wrong_types_and_names_the_place() {
        let unknown = error(&pretty().replace("\"host_name\"", "\"hostname\""));
        assert!(unknown.contains("unknown field `hostname`, expected one of `host_name`"), "{unknown}");
        assert!(unknown.contains("at line 1"), "{unknown}");
        let wrong = error(&pretty().replace("\"blocks\": 64", "\"blocks\": \"64\""));
        assert!(wrong.contains("invalid type: string \"64\", expected u64 at line"), "{wrong}");
        let twice = error(&pretty().replacen("\"verdict\"", "\"verdict\": \"encrypted\", \"verdict\"", 1));
        assert!(twice.contains("duplicate field `verdict`"), "{twice}");
        let long = error(&pretty().replace("\"host_name\"", &format!("\"{}\"", "x".repeat(100_000))));
        assert!(long.len() < 500, "{long}");
    }

    #[test]
    fn refuses_deep_nesting_and_large_texts_without_reading_them() {
        let deep =
            format!("{{\"schema\": \"{SCHEMA}\", \"node\": {}{}}}", "[".repeat(1_000_000), "]".repeat(1_000_000));
        assert!(error(&deep).starts_with("not a valid audit report"), "{}", error(&deep));
        assert!(error(&"[".repeat(1_000_000)).starts_with("not JSON"));
        assert_eq!(error(&" ".repeat(MAX_BYTES + 1)), "larger than 16 MiB; expected the audit report of one node");
    }

    #[test]
    fn refuses_a_report_that_was_edited() {
        let edited = error(&pretty().replacen("\"not-encrypted\"", "\"encrypted\"", 1));
        assert!(edited.starts_with("the report contradicts itself: "), "{edited}");
        assert!(edited.contains("(at /verdict)"), "{edited}");
    }
}
