//! The results of a plan and of its steps.

use uuid::Uuid;

use crate::disk::Content;
use crate::error::chain;
use crate::job::{Answer, HostError};
use crate::key::Provider;
use crate::kms::KmsError;
use crate::state::StateError;

/// The result of a plan.
#[derive(Debug)]
pub struct Outcome {
    /// One result for each step of the plan, in its order.
    pub results: Vec<StepResult>,
    /// Why there was no key, if there was none.
    pub key_error: Option<KeyError>,
}

/// The result of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepResult {
    /// The volume is encrypted, open and mounted.
    Formatted {
        /// LUKS UUID.
        luks_uuid: Uuid,
        /// A warning about it.
        warning: Option<String>,
    },
    /// The volume was opened or mounted or both.
    Unlocked {
        /// LUKS UUID.
        luks_uuid: Uuid,
        /// Whether its file system is marked with errors.
        filesystem_errors: bool,
        /// A warning about it.
        warning: Option<String>,
    },
    /// The volume has the key that took the place of its former one.
    Rekeyed {
        /// A warning about it.
        warning: Option<String>,
    },
    /// The volume has grown.
    Grown,
    /// The volume has the size of its disk already.
    Unchanged,
    /// Not formatted: the disk is no longer what the plan was based on.
    Changed {
        /// What is on it now.
        content: Content,
    },
    /// Skipped: no key.
    NoKey,
    /// The step failed.
    Failed {
        /// The reason, including its causes.
        message: String,
    },
    /// The worker made no progress within the deadline.
    Hung {
        /// The same as text.
        message: String,
    },
}

impl StepResult {
    /// Whether the volume has the key that it should have.
    pub fn is_rekeyed(&self) -> bool {
        matches!(self, Self::Rekeyed { .. })
    }
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The key service refused or did not answer.
    #[error(transparent)]
    Service(#[from] KmsError),
    /// The state file could not be written.
    #[error(transparent)]
    State(#[from] StateError),
    /// The key service unwrapped a different data key than it had generated.
    #[error("{}", not_proven(*provider, key_arn))]
    NotProven {
        /// The key service.
        provider: Provider,
        /// The key.
        key_arn: String,
    },
    /// The state file refers to a key that it does not hold.
    #[error("the state file has no key {0}")]
    Unrecorded(u32),
}

fn not_proven(provider: Provider, key: &str) -> String {
    let (what, check) = match provider {
        Provider::AwsKms => {
            ("Decrypt returned a different data key than GenerateDataKey", "what answers at kms.endpoint_url")
        }
        Provider::Exec => ("unwrap returned a different data key than generate", "exec.command"),
    };
    let key = match provider {
        Provider::AwsKms => format!("KMS key {key}"),
        Provider::Exec => format!("key {key}"),
    };
    format!(
        "{key}: {what}; nothing was formatted and existing volumes are unaffected; run the command again, and if this \
         repeats, check {check}"
    )
}

pub(super) fn failure(answer: Result<Answer, HostError>) -> StepResult {
    match answer {
        Ok(Answer::Failed { message }) => StepResult::Failed { message },
        Ok(other) => StepResult::Failed { message: format!("the worker process sent an unexpected answer: {other:?}") },
        Err(e @ HostError::Hung { .. }) => StepResult::Hung { message: chain(e) },
        Err(e) => StepResult::Failed { message: chain(e) },
    }
}

pub(super) fn unrecorded(luks_uuid: Uuid) -> StepResult {
    StepResult::Failed { message: format!("the state file does not say how {luks_uuid} was made") }
}
