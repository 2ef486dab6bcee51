//! Scripted faults: the operation, the effect, and how often.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::key::KeyState;

/// One scripted fault. A request gets the first fault in the list that matches it and is not used up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The operation: `Decrypt`, `imds:token`; a trailing `*` matches any suffix, as in `imds:*`, `kms:*` and `*`.
    pub on: String,
    /// How many requests it applies to; `None` for no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// How many matching requests it lets pass first.
    #[serde(default)]
    pub skip: u32,
    /// The delay before the answer, in milliseconds.
    #[serde(default)]
    pub delay_ms: u64,
    /// The error of the `Date` header, in seconds; positive is in the future.
    #[serde(default)]
    pub date_skew_seconds: i64,
    /// The effect on the answer.
    #[serde(default)]
    pub effect: Effect,
}

/// The effect of a fault on the answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// None: for a fault that is only a delay or a wrong clock.
    #[default]
    Pass,
    /// Answers with an error of this code; IMDS answers with the code as body.
    Error {
        /// The code, for example `ThrottlingException`.
        code: String,
        /// The HTTP status; by default the status that KMS sends with the code.
        #[serde(default)]
        status: Option<u16>,
        /// The message.
        #[serde(default)]
        message: Option<String>,
    },
    /// Answers with exactly this.
    Raw {
        /// The HTTP status.
        status: u16,
        /// The body.
        body: String,
        /// The content type.
        content_type: String,
    },
    /// Sends no answer and keeps the connection open.
    Hang,
    /// Closes the connection without an answer.
    Close,
    /// Resets the connection (RST) without an answer.
    Reset,
    /// Sends half of the body, then closes the connection.
    CloseMidBody,
    /// Sends half of the body, then nothing, and keeps the connection open.
    StallMidBody,
    /// Sends the body without its last byte, with a matching length. The key material is still in it, so a client that
    /// prints an invalid response leaks the key.
    TruncatedJson,
    /// Pads the body with white space to this length. The JSON stays valid.
    Oversized {
        /// Length of the body, in bytes.
        bytes: usize,
    },
    /// Replaces `Plaintext` by this many zero bytes.
    PlaintextLength {
        /// Length before base64 encoding.
        bytes: usize,
    },
    /// Replaces `CiphertextBlob` by this many zero bytes.
    CiphertextLength {
        /// Length before base64 encoding.
        bytes: usize,
    },
    /// Replaces `KeyId` by the ARN of a different key.
    WrongKeyId,
    /// Replaces a field of the answer.
    Field {
        /// Its name.
        name: String,
        /// Its value.
        value: Value,
    },
    /// Removes a field of the answer.
    WithoutField {
        /// Its name.
        name: String,
    },
    /// Sends a wrong content type.
    ContentType {
        /// The content type.
        content_type: String,
    },
    /// Redirects the client.
    Redirect {
        /// The HTTP status.
        status: u16,
        /// The `Location` header.
        location: String,
    },
    /// Sends the body one byte at a time, spread over this time.
    Drip {
        /// The duration, in milliseconds.
        ms: u64,
    },
    /// Performs the operation although the request asks for a dry run, as services do that know none, such as LocalStack.
    IgnoreDryRun,
    /// Sends the correct answer, then sets the state of the first key.
    KeyBecomes {
        /// The new state.
        state: KeyState,
    },
}

impl Effect {
    /// Returns the name in the request log, which is also the name in JSON.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Error { .. } => "error",
            Self::Raw { .. } => "raw",
            Self::Hang => "hang",
            Self::Close => "close",
            Self::Reset => "reset",
            Self::CloseMidBody => "close_mid_body",
            Self::StallMidBody => "stall_mid_body",
            Self::TruncatedJson => "truncated_json",
            Self::Oversized { .. } => "oversized",
            Self::PlaintextLength { .. } => "plaintext_length",
            Self::CiphertextLength { .. } => "ciphertext_length",
            Self::WrongKeyId => "wrong_key_id",
            Self::Field { .. } => "field",
            Self::WithoutField { .. } => "without_field",
            Self::ContentType { .. } => "content_type",
            Self::Redirect { .. } => "redirect",
            Self::Drip { .. } => "drip",
            Self::IgnoreDryRun => "ignore_dry_run",
            Self::KeyBecomes { .. } => "key_becomes",
        }
    }
}

impl Fault {
    /// Creates a fault without a limit.
    pub fn new(on: impl Into<String>, effect: Effect) -> Self {
        Self { on: on.into(), times: None, skip: 0, delay_ms: 0, date_skew_seconds: 0, effect }
    }

    /// Creates a fault that answers with an error code of KMS, without a limit.
    pub fn error(on: impl Into<String>, code: impl Into<String>) -> Self {
        Self::new(on, Effect::Error { code: code.into(), status: None, message: None })
    }

    /// Creates a delay in milliseconds, without a limit.
    pub fn delay(on: impl Into<String>, delay_ms: u64) -> Self {
        Self { delay_ms, ..Self::new(on, Effect::Pass) }
    }

    /// Limits the fault to this many requests.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }

    /// Lets this many matching requests pass first.
    #[must_use]
    pub fn skip(mut self, skip: u32) -> Self {
        self.skip = skip;
        self
    }

    fn matches(&self, operation: &str) -> bool {
        let full = if operation.contains(':') { operation.to_owned() } else { format!("kms:{operation}") };
        match self.on.strip_suffix('*') {
            Some(prefix) => full.starts_with(prefix),
            None => self.on == operation || self.on == full,
        }
    }
}

/// The list of faults, with their remaining counts.
#[derive(Debug, Default)]
pub(crate) struct Faults(Mutex<Vec<Fault>>);

impl Faults {
    fn list(&self) -> MutexGuard<'_, Vec<Fault>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn replace(&self, faults: Vec<Fault>) {
        *self.list() = faults;
    }

    pub(crate) fn push(&self, fault: Fault) {
        self.list().push(fault);
    }

    pub(crate) fn all(&self) -> Vec<Fault> {
        self.list().clone()
    }

    /// Returns the fault for the current request, and counts it.
    pub(crate) fn take(&self, operation: &str) -> Option<Fault> {
        for fault in self.list().iter_mut().filter(|fault| fault.matches(operation)) {
            if fault.times == Some(0) {
                continue;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
                continue;
            }
            fault.times = fault.times.map(|times| times - 1);
            return Some(fault.clone());
        }
        None
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_pattern_matches_an_operation_or_a_prefix() {
        for (on, operation, expected) in [
            ("Decrypt", "Decrypt", true),
            ("kms:Decrypt", "Decrypt", true),
            ("Decrypt", "ReEncrypt", false),
            ("kms:*", "imds:token", false),
            ("imds:*", "imds:token", true),
            ("imds:*", "Decrypt", false),
            ("*", "Decrypt", true),
            ("*", "imds:token", true),
        ] {
            assert_eq!(Fault::error(on, "X").matches(operation), expected, "{on} {operation}");
        }
    }

    #[test]
    fn applies_faults_in_list_order_until_they_are_used_up() {
        let faults = Faults::default();
        faults.push(Fault::error("Decrypt", "A").skip(1).times(1));
        faults.push(Fault::error("*", "B").times(1));
        let code = || match faults.take("Decrypt").map(|fault| fault.effect) {
            Some(Effect::Error { code, .. }) => Some(code),
            _ => None,
        };
        assert_eq!([code(), code(), code()], [Some("B".to_owned()), Some("A".to_owned()), None]);
    }

    #[test]
    fn reads_faults_from_json_and_rejects_unknown_fields() {
        let text = r#"[{"on":"Decrypt","times":2,"effect":{"error":{"code":"ThrottlingException"}}},
                       {"on":"imds:*","delay_ms":500},{"on":"*","effect":"hang"}]"#;
        let faults: Vec<Fault> = serde_json::from_str(text).unwrap();
        assert_eq!(faults[0], Fault::error("Decrypt", "ThrottlingException").times(2));
        assert_eq!(faults[1], Fault::delay("imds:*", 500));
        assert_eq!(faults[2].effect, Effect::Hang);
        serde_json::from_str::<Fault>(r#"{"on":"*","efect":"hang"}"#).unwrap_err();
    }
}
