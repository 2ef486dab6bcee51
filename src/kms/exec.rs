//! The customer's own key service, behind a program that the configuration names.
//!
//! Each request is one process: it gets one line of JSON on standard input and answers with one JSON object on standard output.
//! docs/exec-provider.md describes the protocol.

mod messages;
mod process;
mod protocol;
mod trust;

use tokio::time::Instant;

use self::protocol::Request;
use super::class::Class;
use super::error::{KmsError, Operation};
use super::failure::{Failure, Tries};
use super::key_facts::KeyState;
use super::key_service::{GeneratedKey, KeyService, RewrappedKey};
use super::retry::{Limits, retry};
use super::usage::{Meter, Usage};
use crate::config;
use crate::key::{DataKey, KeySource};

pub use self::protocol::{AnswerError, Description, ErrorKind, read_described, read_generated, read_unwrapped};

/// The key service behind `exec.command`.
#[derive(Debug)]
pub struct ExecProvider {
    config: config::Exec,
    limits: Limits,
    /// `exec.deadline`, counted from [`ExecProvider::new`].
    deadline: Instant,
    meter: Meter,
}

/// What `health` learns about a key.
#[derive(Debug)]
pub struct Checked {
    /// Its state, if the program reports it.
    pub state: Option<KeyState>,
    /// Whether it would unwrap the data key.
    pub usable: Result<(), KmsError>,
}

impl ExecProvider {
    /// Returns the key service of the `[exec]` section. `exec.deadline` begins here.
    ///
    /// # Errors
    /// [`KmsError`] if there is no such section.
    pub fn new(config: Option<&config::Exec>) -> Result<Self, KmsError> {
        Self::with_limits(config, Limits::default())
    }

    /// Returns the same with other waits between attempts.
    ///
    /// # Errors
    /// As [`ExecProvider::new`].
    pub fn with_limits(config: Option<&config::Exec>, limits: Limits) -> Result<Self, KmsError> {
        let config = config.cloned().ok_or_else(|| {
            KmsError::configuration(
                "a program (provider \"exec\") wrapped a data key of this node, but exec.command is missing; set \
                 exec.command and exec.key_id"
                    .to_owned(),
            )
        })?;
        let deadline = Instant::now() + config.deadline;
        Ok(Self { config, limits, deadline, meter: Meter::default() })
    }

    /// Checks that the data key can be unwrapped at the next boot.
    ///
    /// If the program does not support `describe`, it unwraps the data key; the result is wiped.
    pub async fn check(&self, source: &KeySource) -> Checked {
        let request = Request::Describe(source);
        match self.call(request, read_described).await {
            Ok(Description::Known { state, enabled: true }) => Checked { state: Some(state), usable: Ok(()) },
            Ok(Description::Known { state, enabled: false }) => {
                let what = format!("the key cannot be used, because its state is {}", state.name);
                let error = self.error(request, Failure::new(Class::KeyState, what), Tries::ONE);
                Checked { state: Some(state), usable: Err(error) }
            }
            Ok(Description::Unsupported) => Checked { state: None, usable: self.unwrap(source).await.map(drop) },
            Err(error) => Checked { state: None, usable: Err(error) },
        }
    }

    /// Returns the calls so far.
    pub fn usage(&self) -> Usage {
        self.meter.usage()
    }

    /// Calls the program until it succeeds, fails permanently, or the deadline is near.
    async fn call<T>(
        &self,
        request: Request<'_>,
        read: impl Fn(&[u8]) -> Result<T, AnswerError>,
    ) -> Result<T, KmsError> {
        let line = request.to_line();
        let attempt = || self.meter.call(request.operation(), self.attempt(&line, &read));
        let done = retry(&self.limits, self.deadline, request.operation(), attempt).await;
        done.map_err(|(failure, tries)| self.error(request, failure, tries))
    }

    async fn attempt<T>(&self, line: &[u8], read: impl Fn(&[u8]) -> Result<T, AnswerError>) -> Result<T, Failure> {
        let program = self.config.program.display();
        let ended = process::run(&self.config, line).await?;
        match read(ended.answer()) {
            // a script may well exit with a status of its own after it has reported an error
            Err(AnswerError::Reported { kind, message }) => {
                Err(Failure::new(kind.class(), format!("'{program}' reports {}: {message}", kind.name())))
            }
            _ if !ended.status.success() => {
                let colon = if ended.last_words.is_empty() { "" } else { ": " };
                let what = format!("'{program}' failed, {}{colon}{}", ended.status, ended.last_words);
                Err(Failure::new(Class::Transient, what))
            }
            Ok(value) => Ok(value),
            Err(AnswerError::Garbled(why)) => {
                Err(Failure::new(Class::Garbled, format!("invalid answer from '{program}': {why}")))
            }
            Err(AnswerError::Refused(why)) => {
                Err(Failure::new(Class::Unexpected, format!("unusable answer from '{program}': {why}")))
            }
        }
    }

    fn error(&self, request: Request<'_>, failure: Failure, tries: Tries) -> KmsError {
        let operation = request.operation();
        let subject = format!("{operation} with key {}", request.key());
        let remedy = remedy(failure.class, operation);
        failure.into_error_about(operation, &subject, remedy, tries)
    }
}

impl KeyService for ExecProvider {
    async fn generate(&self) -> Result<GeneratedKey, KmsError> {
        let key_id = &self.config.key_id;
        let key = self.call(Request::Generate(key_id), |answer| read_generated(answer, key_id)).await?;
        tracing::info!(kms_key = %key.key_arn, "generated the data key with key {}", key.key_arn);
        Ok(key)
    }

    async fn unwrap(&self, source: &KeySource) -> Result<DataKey, KmsError> {
        let key = self.call(Request::Unwrap(source), |answer| read_unwrapped(answer, &source.key_arn)).await?;
        tracing::info!(kms_key = %source.key_arn, "unwrapped the data key with key {}", source.key_arn);
        Ok(key)
    }

    async fn rewrap(&self, source: &KeySource, to: &str) -> Result<RewrappedKey, KmsError> {
        Err(KmsError::configuration(format!(
            "only AWS KMS can wrap a data key again, with KMS key {to} or another, and the program in exec.command wrapped the data \
             key with key {}; run 'luks-agent rotate' to replace it by a new data key, which keys.provider wraps",
            source.key_arn
        )))
    }
}

fn remedy(class: Class, operation: Operation) -> String {
    match class {
        Class::Denied => format!("allow {} with this key in the key service", operation.name()),
        Class::KeyState => "enable the key in the key service".to_owned(),
        Class::Configuration => "correct exec.command and exec.key_id, or the program's own configuration".to_owned(),
        Class::WrappedKey => {
            "restore the wrapped key from a backup of the state file or from the LUKS2 token of a volume".to_owned()
        }
        Class::Garbled | Class::Unexpected => {
            "correct the program: docs/exec-provider.md says what it must answer".to_owned()
        }
        Class::Transient
        | Class::KeyNotReady
        | Class::Limit
        | Class::NoCredentials
        | Class::NoCredentialSource
        | Class::BadCredentials
        | Class::Clock
        | Class::Certificate => {
            "check whether the key service works, and what the program logged before this; docs/exec-provider.md says how \
             to call it by hand"
                .to_owned()
        }
    }
}
