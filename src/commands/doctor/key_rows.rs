//! Credentials, the way to KMS, and the KMS key itself.

use super::key_service::Answers;
use super::metadata::Metadata;
use crate::kms::{Class, Fault, KmsError};
use crate::report::{Check, ExitCode};

/// Returns the check that failed with an error of the key service.
pub(super) fn failed(check: &'static str, error: &KmsError) -> Check {
    let exit_code = match error.fault() {
        Fault::Configuration => ExitCode::Configuration,
        Fault::Unavailable => ExitCode::KeyService,
        Fault::Data => ExitCode::Failed,
    };
    let failure = Check::failure(check, exit_code, error.what());
    match error.remedy() {
        Some(remedy) => failure.with_remedy(remedy),
        None => failure,
    }
}

impl Answers {
    /// Returns why the KMS key was not asked about; `None` if it was.
    pub(super) fn obstacle(&self) -> Option<&'static str> {
        match &self.described {
            _ if self.unconnected.is_some() => Some("there is no connection with KMS"),
            None => Some("there are no credentials"),
            Some(Err(e)) if !is_answer(e) => Some("KMS does not answer"),
            Some(_) => None,
        }
    }
}

/// Whether KMS accepted the credentials and answered, be it with a refusal.
fn is_answer(error: &KmsError) -> bool {
    let accepted = matches!(error.class(), Class::Denied | Class::Configuration | Class::KeyState);
    error.code().is_some() && accepted
}

pub(super) fn credentials_row(answers: &Answers, metadata: &Metadata) -> Check {
    const NAME: &str = "credentials";
    let source = match &answers.credentials {
        Some(Ok(source)) => source,
        Some(Err(e)) => return failed(NAME, e),
        None => return Check::not_made(NAME, "there is no connection with KMS"),
    };
    let role = metadata.role.as_ref().filter(|_| source.is_instance_role);
    let whose = match &answers.caller {
        Some(Ok(arn)) => format!(": {arn}"),
        Some(Err(why)) => {
            let role = role.map(|role| format!(": role {role}")).unwrap_or_default();
            let account = source.account.as_ref().map(|id| format!(" of account {id}")).unwrap_or_default();
            format!("{role}{account}; STS, which the agent does not need, did not say whose they are: {why}")
        }
        None => String::new(),
    };
    Check::ok(NAME, format!("from {}{whose}", source.name))
}

/// Returns the checks of what `DescribeKey` answered, without the permission for it.
pub(super) fn describe_rows(answers: &Answers) -> Vec<Check> {
    const KMS: &str = "kms";
    const KEY: &str = "kms-key";
    const STATE: &str = "kms-key-state";
    if let Some(e) = &answers.unconnected {
        let why = "there is no connection with KMS";
        return vec![failed(KMS, e), Check::not_made(KEY, why), Check::not_made(STATE, why)];
    }
    let neither = |why| [Check::not_made(KEY, why), Check::not_made(STATE, why)];
    let (kms, [key, state]) = match &answers.described {
        None => {
            let why = "there are no credentials";
            (Check::not_made(KMS, why), neither(why))
        }
        Some(Ok(described)) => {
            let arn = described.arn.as_deref().unwrap_or("a key without an ARN");
            let key = match &described.kind {
                Ok(()) => Check::ok(KEY, format!("{arn}: customer managed, symmetric")),
                Err(e) => failed(KEY, e),
            };
            let state = match &described.state {
                (state, Ok(())) => Check::ok(STATE, state.name.clone()),
                (_, Err(e)) => failed(STATE, e),
            };
            (Check::ok(KMS, "answers"), [key, state])
        }
        Some(Err(e)) if e.class() == Class::Denied => (Check::ok(KMS, "answers"), neither("kms:DescribeKey is denied")),
        Some(Err(e)) if is_answer(e) => {
            (Check::ok(KMS, "answers"), [failed(KEY, e), Check::not_made(STATE, "there is no such key")])
        }
        Some(Err(e)) => (failed(KMS, e), neither("KMS does not answer")),
    };
    vec![kms, key, state]
}
