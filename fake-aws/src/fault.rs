//! Scripted faults: what goes wrong, with which operation, and how often.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::key::KeyState;

/// One scripted fault. The first one in the list that matches a request and has not run out is applied to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The operation: `Decrypt`, `imds:token`; a `*` at the end stands for any rest, as in `imds:*`, `kms:*` and `*`.
    pub on: String,
    /// How many requests it is applied to; none is without end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// How many matching requests pass before it.
    #[serde(default)]
    pub skip: u32,
    /// Wait before the answer, in milliseconds.
    #[serde(default)]
    pub delay_ms: u64,
    /// How far the answer's `Date` header is off, in seconds; positive is in the future.
    #[serde(default)]
    pub date_skew_seconds: i64,
    /// What is done to the answer.
    #[serde(default)]
    pub effect: Effect,
}

/// What a fault does to the answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Nothing: for a fault which is only a delay or a skewed clock.
    #[default]
    Pass,
    /// An error with this code (for IMDS: this body) in place of the answer.
    Error {
        /// `ThrottlingException`, say.
        code: String,
        /// The HTTP status; by default the one that KMS sends with the code.
        #[serde(default)]
        status: Option<u16>,
        /// The message.
        #[serde(default)]
        message: Option<String>,
    },
    /// This in place of the answer.
    Raw {
        /// The HTTP status.
        status: u16,
        /// The body.
        body: String,
        /// The content type.
        content_type: String,
    },
    /// Never an answer; the connection stays open.
    Hang,
    /// The connection is closed without an answer.
    Close,
    /// The connection is reset (RST) without an answer.
    Reset,
    /// Half of the body, then the connection is closed.
    CloseMidBody,
    /// Half of the body, then nothing more; the connection stays open.
    StallMidBody,
    /// The body without its last byte as if that were all of it. The key material is still in there, so a caller that
    /// prints what it could not read gives it away.
    TruncatedJson,
    /// The body is followed by white space up to this many bytes; JSON stays valid.
    Oversized {
        /// Length of the body.
        bytes: usize,
    },
    /// `Plaintext` has this many bytes, all zero.
    PlaintextLength {
        /// Length before base64.
        bytes: usize,
    },
    /// `CiphertextBlob` has this many bytes, all zero.
    CiphertextLength {
        /// Length before base64.
        bytes: usize,
    },
    /// `KeyId` is the ARN of another key.
    WrongKeyId,
    /// A field of the answer has another value.
    Field {
        /// Its name.
        name: String,
        /// Its value.
        value: Value,
    },
    /// A field of the answer is missing.
    WithoutField {
        /// Its name.
        name: String,
    },
    /// The answer calls itself something else than it is.
    ContentType {
        /// The content type.
        content_type: String,
    },
    /// The caller is sent elsewhere.
    Redirect {
        /// The HTTP status.
        status: u16,
        /// The `Location` header.
        location: String,
    },
    /// The body comes in drops, a byte at a time, all of it within this time.
    Drip {
        /// In milliseconds.
        ms: u64,
    },
    /// The answer is good, and then the first key gets into this state.
    KeyBecomes {
        /// The state.
        state: KeyState,
    },
}

impl Effect {
    /// The name in the request log, as in the JSON form.
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
            Self::KeyBecomes { .. } => "key_becomes",
        }
    }
}

impl Fault {
    /// A fault without end.
    pub fn new(on: impl Into<String>, effect: Effect) -> Self {
        Self { on: on.into(), times: None, skip: 0, delay_ms: 0, date_skew_seconds: 0, effect }
    }

    /// An error code of KMS, without end.
    pub fn error(on: impl Into<String>, code: impl Into<String>) -> Self {
        Self::new(on, Effect::Error { code: code.into(), status: None, message: None })
    }

    /// A delay in milliseconds, without end.
    pub fn delay(on: impl Into<String>, delay_ms: u64) -> Self {
        Self { delay_ms, ..Self::new(on, Effect::Pass) }
    }

    /// The fault for that many requests only.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }

    /// The fault after that many requests only.
    #[must_use]
    pub fn skip(mut self, skip: u32) -> Self {
        self.skip = skip;
        self
    }

    fn matches(&self, operation: &str) -> bool {
        let full = if operation.starts_with("imds:") { operation.to_owned() } else { format!("kms:{operation}") };
        match self.on.strip_suffix('*') {
            Some(prefix) => full.starts_with(prefix),
            None => self.on == operation || self.on == full,
        }
    }
}

/// The list of faults that are still to come.
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

    /// The fault for a request that has come now.
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
    fn patterns() {
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
    fn faults_run_out_in_order_after_those_they_skip() {
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
    fn the_json_form() {
        let text = r#"[{"on":"Decrypt","times":2,"effect":{"error":{"code":"ThrottlingException"}}},
                       {"on":"imds:*","delay_ms":500},{"on":"*","effect":"hang"}]"#;
        let faults: Vec<Fault> = serde_json::from_str(text).unwrap();
        assert_eq!(faults[0], Fault::error("Decrypt", "ThrottlingException").times(2));
        assert_eq!(faults[1], Fault::delay("imds:*", 500));
        assert_eq!(faults[2].effect, Effect::Hang);
        serde_json::from_str::<Fault>(r#"{"on":"*","efect":"hang"}"#).unwrap_err();
    }
}
