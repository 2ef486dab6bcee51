//! The permissions for the KMS key.

use super::allow::{ACTIONS, Identity, Missing, remedy};
use super::key_rows::failed;
use super::key_service::{Answers, Trial, TrialKind};
use super::metadata::Metadata;
use crate::kms::{Class, KmsError};
use crate::report::{Check, ExitCode};

/// How a permission turned out.
enum Permission {
    /// Everything but a denial.
    Row(Check),
    Missing(Missing, String),
}

/// Returns a row for each permission. The first that is missing has the remedy for all, because a policy is pasted as a whole.
pub(super) fn permission_rows(answers: &Answers, metadata: &Metadata, configured: &str) -> Vec<Check> {
    let permissions = judge(answers, configured);
    let missing = permissions.iter().filter_map(|permission| match permission {
        Permission::Missing(missing, _) => Some(missing.clone()),
        Permission::Row(_) => None,
    });
    let missing: Vec<Missing> = missing.collect();
    let mut policy = (!missing.is_empty()).then(|| remedy(&missing, &identity(answers, metadata)));
    let row = |permission| match permission {
        Permission::Row(check) => check,
        Permission::Missing(missing, what) => {
            let remedy = policy.take().unwrap_or_else(|| "the remedy above is for this, too".to_owned());
            Check::failure(missing.action, ExitCode::KeyService, what).with_remedy(remedy)
        }
    };
    permissions.into_iter().map(row).collect()
}

fn judge(answers: &Answers, configured: &str) -> Vec<Permission> {
    let [describe, generate, decrypt] = ACTIONS;
    let key_arn = match &answers.described {
        Some(Ok(key)) => key.arn.as_deref(),
        Some(Err(_)) | None => Some(configured).filter(|id| is_key_arn(id)),
    };
    let mut all = vec![match &answers.described {
        Some(Ok(_)) => Permission::Row(Check::ok(describe, "allowed")),
        Some(Err(e)) if e.class() == Class::Denied => missing(describe, e, key_arn),
        Some(Err(_)) | None => {
            Permission::Row(Check::not_made(describe, answers.obstacle().unwrap_or("there is no such key")))
        }
    }];
    all.extend(answers.trials.iter().map(|trial| of_trial(trial, key_arn)));
    if answers.trials.is_empty() {
        let why = answers.obstacle().unwrap_or("the KMS key is not one that the agent uses");
        all.extend([generate, decrypt].map(|action| Permission::Row(Check::not_made(action, why))));
    }
    all
}

fn of_trial(trial: &Trial, configured: Option<&str>) -> Permission {
    let Trial { action, key_id, kind, result } = trial;
    let key_arn = Some(key_id.as_str()).filter(|id| is_key_arn(id));
    Permission::Row(match result {
        Ok(()) => Check::ok(action, format!("allowed: a dry run {}, under {key_id}", kind.name())),
        Err(e) if e.class() == Class::Denied => return missing(action, e, key_arn),
        Err(e) if *kind == TrialKind::AnyWrapped && e.is_invalid_request() => {
            Check::not_made(action, format!("this service has no dry run without a wrapped key: {}", e.what()))
        }
        // the state of the configured key has a row of its own
        Err(e) if matches!(e.class(), Class::KeyState | Class::KeyNotReady) && key_arn == configured => {
            Check::not_made(action, e.what())
        }
        Err(e) => failed(action, e),
    })
}

fn missing(action: &'static str, error: &KmsError, key_arn: Option<&str>) -> Permission {
    let denial = error.denial();
    let named = denial.and_then(|denial| denial.resource.as_deref()).filter(|resource| is_key_arn(resource));
    let key_arn = key_arn.or(named).map(str::to_owned);
    let why = denial.and_then(|denial| denial.why.clone());
    Permission::Missing(Missing { action, key_arn, why }, error.what().to_owned())
}

/// Whether this is the ARN of a key, and not of an alias.
fn is_key_arn(id: &str) -> bool {
    id.starts_with("arn:") && id.contains(":key/")
}

/// Returns who made the calls: as STS says it, or KMS when it denied one, or else IMDS.
fn identity(answers: &Answers, metadata: &Metadata) -> Identity {
    let caller = answers.caller.as_ref().and_then(|caller| caller.as_deref().ok());
    let errors = answers.described.iter().filter_map(|described| described.as_ref().err());
    let mut errors = errors.chain(answers.trials.iter().filter_map(|trial| trial.result.as_ref().err()));
    let denied = || errors.find_map(|error| error.denial()?.principal.as_deref());
    if let Some(arn) = caller.or_else(denied) {
        return Identity::of_arn(arn);
    }
    let is_role = matches!(&answers.credentials, Some(Ok(source)) if source.is_instance_role);
    match metadata.role.as_ref().filter(|_| is_role) {
        Some(role) => Identity::Role { name: role.clone(), arn: None },
        None => Identity::Unknown,
    }
}
