//! `recovery-key enroll`, `recovery-key remove` and `unlock --recovery-key`.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;

use super::ciphers::Ciphers;
use super::error::CommandError;
use super::instance::Instance;
use super::lazy_kms::LazyKms;
use super::named::{Known, failed, known, named_volumes, row_of};
use super::node::Node;
use super::orphans::remove_orphans;
use super::planning::Planning;
use super::preflight::{lock, patience_with_another_run, preflight};
use super::survey::disks_with_closed_headers;
use super::terminal::Terminal;
use crate::apply::{Apply, KeyError, unwrap};
use crate::config::Config;
use crate::error::chain;
use crate::job::{self, Answer, Host, Job, Target, Workers};
use crate::key::Passphrase;
use crate::plan::Mode;
use crate::report::{Report, Row, Verdict, key_exit_code};
use crate::state::{StateDir, closed};
use crate::storage::FilesystemKind;

/// What is done with recovery keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// Adds a new one, in place of an earlier one.
    Enroll,
    /// Removes it.
    Remove,
}

/// `recovery-key enroll` and `recovery-key remove`, for the volumes called `names`, or all that are attached.
///
/// # Errors
/// When it cannot begin, one of the names is not a volume, or there is no terminal to show a new key on.
pub async fn recovery_key(config: &Config, names: &[String], what: Recovery) -> Result<Report, CommandError> {
    let command = match what {
        Recovery::Enroll => "recovery-key enroll",
        Recovery::Remove => "recovery-key remove",
    };
    preflight(command, FilesystemKind::None)?;
    // before anything else: a key that nobody sees helps nobody
    let terminal = match what {
        Recovery::Enroll => Some(Terminal::open().map_err(CommandError::NoTerminal)?),
        Recovery::Remove => None,
    };
    let store = lock(config, patience_with_another_run(config), StateDir::open).await?;
    let state = store.load()?;
    let host = Workers::new(config.volumes.deadline);
    let inventory = disks_with_closed_headers(config, &host).await?;
    let node = Node { config, state: &state, inventory: &inventory };
    let mut volumes = named_volumes(node, names)?;
    volumes.retain(|volume| !names.is_empty() || volume.disk.is_some());
    let kms = LazyKms::new(config);
    let ids: BTreeSet<u32> = volumes.iter().map(|volume| volume.record.key).collect();
    let keys = ids.into_iter().map(async |id| (id, unwrap(&kms, &state, id).await));
    let keys: BTreeMap<u32, Result<Passphrase, KeyError>> = join_all(keys).await.into_iter().collect();
    let recovery = match &terminal {
        Some(terminal) if !volumes.is_empty() && keys.values().any(Result::is_ok) => Some(show_new(terminal)?),
        _ => None,
    };
    let work = volumes.iter().map(async |volume| {
        let Known { facts, expected } = match known(config, &state, *volume) {
            Ok(known) => known,
            Err(row) => return *row,
        };
        let row = |result| row_of(config, volume.record, facts, result);
        let Some(Ok(key)) = keys.get(&volume.record.key) else {
            return row(Verdict::NoKey).because("skipped: no key");
        };
        let job = job::Verify { target: Target::from(facts), expected };
        let answer = match &recovery {
            Some(recovery) => host.run(&facts.name, Job::EnrollRecovery(job), &[key, recovery]).await,
            None => host.run(&facts.name, Job::RemoveRecovery(job), &[key]).await,
        };
        match answer {
            Ok(Answer::RecoveryEnrolled { replaced: true }) => {
                row(Verdict::Enrolled).because("its earlier recovery key no longer opens it")
            }
            Ok(Answer::RecoveryEnrolled { replaced: false }) => row(Verdict::Enrolled),
            Ok(Answer::RecoveryRemoved { any: true }) => row(Verdict::Removed),
            Ok(Answer::RecoveryRemoved { any: false }) => row(Verdict::Unchanged).because("it has no recovery key"),
            other => failed(row, other),
        }
    });
    let rows = join_all(work).await;
    let report = Report::new(command, rows.clone(), summary(what, &rows)).measured(kms.usage(), host.stages());
    let error = keys.into_values().find_map(Result::err);
    Ok(error.map_or(report, |error| report_without_key(error, command, rows)))
}

fn report_without_key(error: KeyError, command: &'static str, rows: Vec<Row>) -> Report {
    Report::new(command, rows, "not done: no key".to_owned()).failed(key_exit_code(&error), chain(error))
}

fn summary(what: Recovery, rows: &[Row]) -> String {
    let (done, word) = match what {
        Recovery::Enroll => (Verdict::Enrolled, "enrolled"),
        Recovery::Remove => (Verdict::Removed, "removed"),
    };
    let done = rows.iter().filter(|row| row.result == done).count();
    format!("{done} of {} {word}", rows.len())
}

/// Makes a recovery key and shows it. It is shown before it is enrolled, so that whatever is enrolled was seen.
fn show_new(terminal: &Terminal) -> Result<Passphrase, CommandError> {
    let key = Passphrase::new_recovery_key().map_err(CommandError::NoRandomness)?;
    let text: [&[u8]; 3] = [
        b"The recovery key of the volumes that are reported as enrolled below, shown this once:\n\n    ",
        key.expose(),
        b"\n\nKeep it away from this node: it opens these volumes without KMS.\n\n",
    ];
    terminal.show(&text).map_err(CommandError::Terminal)?;
    Ok(key)
}

/// `unlock --recovery-key`: opens and mounts known volumes with a recovery key that the user types. It calls no key service.
///
/// # Errors
/// When it cannot begin, or what was typed is not a recovery key.
pub async fn unlock_with_recovery_key(config: &Config) -> Result<Report, CommandError> {
    preflight("unlock", FilesystemKind::None)?;
    let key = {
        // before the lock: nobody waits for a person
        let terminal = Terminal::open().map_err(CommandError::NoTerminal)?;
        let typed = terminal.ask("Recovery key: ").map_err(CommandError::Terminal)?;
        Passphrase::from_typed(&typed)?
    };
    let store = lock(config, patience_with_another_run(config), StateDir::open).await?;
    let state = store.load()?;
    let host = Workers::new(config.volumes.deadline);
    closed::forget();
    let seen = remove_orphans(config, &state, &host).await?;
    let (keys, instance) = (LazyKms::new(config), Instance::new(config));
    let ciphers = Ciphers::new(&host);
    let planning = Planning { config, state: &state, ciphers: &ciphers, instance: &instance };
    let plan = planning.plan(Mode::Unlock, seen).await?;
    let apply = Apply { config, store: Some(&store), keys: &keys, host: &host, instance_id: None };
    let outcome = apply.run_with_recovery_key(&plan, state, key).await;
    Ok(Report::of_outcome("unlock", &plan, &outcome).with_recovery_key().measured(None, host.stages()))
}
