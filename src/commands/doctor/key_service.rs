//! What the key service says: credentials, the KMS key, permissions. The calls only; `permissions` and `key_rows` judge them.

use std::time::Duration;

use super::key_rows::{credentials_row, describe_rows};
use super::metadata::Metadata;
use super::permissions::permission_rows;
use super::program;
use super::{clock, fips};
use crate::config::{self, Config};
use crate::fips::is_on as is_fips_mode;
use crate::key::Provider;
use crate::kms::{AwsKms, Class, CredentialSource, KeyDescription, KmsError, Limits, Options};
use crate::report::Check;
use crate::state::{KeyRecord, State};

/// How long all calls together may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the key service answered. What was not asked, because an answer before it made that pointless, is `None`.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// Why there is nothing to ask.
    pub(super) unconnected: Option<KmsError>,
    pub(super) credentials: Option<Result<CredentialSource, KmsError>>,
    /// ARN of the caller, or why STS did not say it.
    pub(super) caller: Option<Result<String, String>>,
    pub(super) described: Option<Result<KeyDescription, KmsError>>,
    pub(super) trials: Vec<Trial>,
    /// Whether KMS was asked at a FIPS endpoint.
    uses_fips_endpoint: Option<bool>,
}

/// A dry run.
#[derive(Debug)]
pub(super) struct Trial {
    /// The action, with its prefix.
    pub(super) action: &'static str,
    /// The key as the request called it.
    pub(super) key_id: String,
    pub(super) kind: TrialKind,
    pub(super) result: Result<(), KmsError>,
}

/// Of what a dry run was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TrialKind {
    /// A new data key.
    NewKey,
    /// A wrapped key in the state file.
    Recorded,
    /// No wrapped key: there is none yet.
    AnyWrapped,
    /// The wrapped key that a service without dry runs has just made.
    JustMade,
}

impl TrialKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::NewKey => "of a new data key",
            Self::Recorded => "of the wrapped key in the state file",
            Self::AnyWrapped => "without a wrapped key, because there is none yet",
            Self::JustMade => "of a wrapped key that was made for it, because this service has no dry runs",
        }
    }
}

/// Returns the checks, and apart from them the check of the clock.
pub(super) async fn checks(config: &Config, recorded: Option<&State>) -> (Vec<Check>, Check) {
    let kms = async {
        match &config.kms.key_id {
            Some(key_id) => Some((key_id, ask(config, key_id, recorded).await)),
            None => None,
        }
    };
    let (metadata, kms, program) = tokio::join!(Metadata::ask(config, PATIENCE), kms, program::check(config, PATIENCE));
    let mut rows = vec![metadata.row()];
    let mut uses_fips_endpoint = None;
    let clock = match kms {
        Some((key_id, (answers, clock))) => {
            uses_fips_endpoint = answers.uses_fips_endpoint;
            rows.push(credentials_row(&answers, &metadata));
            rows.extend(describe_rows(&answers));
            rows.extend(permission_rows(&answers, &metadata, key_id));
            clock
        }
        None => clock::check(None),
    };
    rows.extend(program);
    rows.extend(is_fips_mode().then(|| fips::check(config, uses_fips_endpoint)));
    (rows, clock)
}

async fn ask(config: &Config, key_id: &str, recorded: Option<&State>) -> (Answers, Check) {
    let mut answers = Answers::default();
    let brief = config::Kms { deadline: config.kms.deadline.min(PATIENCE), ..config.kms.clone() };
    let limits = Limits {
        connect: Duration::from_secs(2),
        attempt: Duration::from_secs(4),
        patience: Duration::ZERO,
        few: 1,
        ..Limits::default()
    };
    match AwsKms::connect_with(&brief, Options { limits, credentials: None, imds: config.imds }).await {
        Ok(kms) => {
            answers.uses_fips_endpoint = Some(kms.uses_fips_endpoint());
            ask_kms(&kms, key_id, recorded, &mut answers).await;
            (answers, clock::check(kms.clock_lead()))
        }
        Err(e) => (Answers { unconnected: Some(e), ..answers }, clock::check(None)),
    }
}

async fn ask_kms(kms: &AwsKms, configured: &str, recorded: Option<&State>, answers: &mut Answers) {
    let credentials = answers.credentials.insert(kms.credentials().await);
    if credentials.is_err() {
        return;
    }
    let (caller, described) = tokio::join!(kms.caller(), kms.describe_configured());
    answers.caller = Some(caller);
    let key_id = match &described {
        // a key of the wrong kind denies what it does not do
        Ok(key) => key.kind.is_ok().then(|| key.arn.clone().unwrap_or_else(|| configured.to_owned())),
        Err(e) if e.class() == Class::Denied => Some(configured.to_owned()),
        Err(_) => None,
    };
    answers.described = Some(described);
    if let Some(key_id) = key_id {
        answers.trials = trials(kms, &key_id, recorded).await;
    }
}

async fn trials(kms: &AwsKms, key_id: &str, recorded: Option<&State>) -> Vec<Trial> {
    let decrypt = |key_id: &str, kind, result| Trial { action: "kms:Decrypt", key_id: key_id.to_owned(), kind, result };
    let generated = kms.try_generate(key_id).await;
    let keys = recorded.map(needed_keys).unwrap_or_default();
    let mut trials = Vec::new();
    for key in &keys {
        let result = kms.try_unwrap(&key.wrapped_key, &key.key_arn).await;
        trials.push(decrypt(&key.key_arn, TrialKind::Recorded, result));
    }
    if !keys.iter().any(|key| key.key_arn == key_id) {
        trials.push(match &generated {
            Ok(Some(wrapped)) => decrypt(key_id, TrialKind::JustMade, kms.try_unwrap(wrapped, key_id).await),
            Ok(None) | Err(_) => decrypt(key_id, TrialKind::AnyWrapped, kms.try_unwrap_any(key_id).await),
        });
    }
    let (action, kind, result) = ("kms:GenerateDataKey", TrialKind::NewKey, generated.map(drop));
    trials.insert(0, Trial { action, key_id: key_id.to_owned(), kind, result });
    trials
}

/// Returns the keys that KMS unwraps for the volumes, and the one that new volumes get.
fn needed_keys(state: &State) -> Vec<&KeyRecord> {
    let used = |id| state.volumes.iter().any(|volume| state.key_to_unwrap(volume.key).is_some_and(|key| key.id == id));
    let last = state.keys.last().map(|key| key.id);
    let needed = state.keys.iter().filter(|key| key.provider == Provider::AwsKms);
    needed.filter(|key| used(key.id) || Some(key.id) == last).collect()
}
