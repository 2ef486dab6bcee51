//! `header show`, `header backup` and `header restore`.

use std::path::{Path, PathBuf};

use futures_util::future::join_all;
use jiff::Timestamp;

use super::error::CommandError;
use super::instance::Instance;
use super::lazy_kms::LazyKms;
use super::named::{Known, NamedVolume, absent, failed, known, named_volume, named_volumes, row_of};
use super::node::Node;
use super::preflight::{lock, need_root, patience_with_another_run, preflight};
use super::survey::disks_with_closed_headers;
use crate::apply::{KeyError, unwrap};
use crate::config::Config;
use crate::disk::DeviceFacts;
use crate::error::chain;
use crate::job::{self, Answer, Host, InspectedBackup, Job, Target, Workers};
use crate::luks2::{BackupOrigin, Expected, ProvenKeyslot};
use crate::plan::{Allowed, Finding, restore_changes};
use crate::report::{Report, Row, Verdict, key_exit_code};
use crate::state::{self, State, StateDir, StateError, VolumeRecord};
use crate::storage::FilesystemKind;

/// `header show`: reports what the headers of the volumes called `names` say, or of all that are attached.
///
/// # Errors
/// When the disks or the state file cannot be read, or one of the names is not a volume.
pub async fn header_show(config: &Config, names: &[String]) -> Result<Report, CommandError> {
    need_root("header show")?;
    let never = || StateError::NeverProvisioned { path: state::file(&config.state.dir) };
    let state = state::read(&config.state.dir)?.ok_or_else(never)?;
    let host = Workers::new(config.volumes.deadline);
    let inventory = disks_with_closed_headers(config, &host).await?;
    let node = Node { config, state: &state, inventory: &inventory };
    let mut volumes = named_volumes(node, names)?;
    volumes.retain(|volume| !names.is_empty() || volume.disk.is_some());
    let rows = join_all(volumes.iter().map(|volume| show(config, *volume, &host))).await;
    let shown = rows.iter().filter(|row| row.header.is_some()).count();
    let summary = format!("{shown} of {} shown", rows.len());
    Ok(Report::new("header show", rows, summary))
}

async fn show(config: &Config, volume: NamedVolume<'_>, host: &impl Host) -> Row {
    let Some(facts) = volume.disk else { return absent(volume.record) };
    let is_open = facts.mapping_of(volume.record.luks_uuid).is_some();
    let row = |result| row_of(config, volume.record, facts, result);
    match host.run(&facts.name, Job::ShowHeader { target: Target::from(facts) }, &[]).await {
        Ok(Answer::HeaderShown { header }) => {
            let row = row(if is_open { Verdict::Open } else { Verdict::Locked });
            Row { header: Some(header), ..row }
        }
        other => failed(row, other),
    }
}

/// `header backup`: writes the header of the volume called `name` to a new file.
///
/// # Errors
/// When it cannot begin, or there is no such volume.
pub async fn header_backup(config: &Config, name: &str, file: &Path) -> Result<Report, CommandError> {
    preflight("header backup", FilesystemKind::None)?;
    let file = absolute(file)?;
    let store = lock(config, patience_with_another_run(config), StateDir::open).await?;
    let state = store.load()?;
    let host = Workers::new(config.volumes.deadline);
    let inventory = disks_with_closed_headers(config, &host).await?;
    let node = Node { config, state: &state, inventory: &inventory };
    let volume = named_volume(node, name)?;
    let row = match known(config, &state, volume) {
        Ok(Known { facts, expected }) => back_up(config, volume.record, facts, expected, &file, &host).await,
        Err(row) => *row,
    };
    let summary = if row.result == Verdict::BackedUp {
        format!("the header is in {}", file.display())
    } else {
        "no backup was written".to_owned()
    };
    Ok(Report::new("header backup", vec![row], summary))
}

async fn back_up(
    config: &Config,
    volume: &VolumeRecord,
    facts: &DeviceFacts,
    expected: Expected,
    file: &Path,
    host: &impl Host,
) -> Row {
    let origin = BackupOrigin {
        serial: facts.serial.clone(),
        role: volume.role.to_string(),
        mount_point: volume.mount_point.clone(),
        instance_id: Instance::new(config).id().await,
        created: Timestamp::now(),
    };
    let job = Job::BackUpHeader(job::BackUpHeader {
        target: Target::from(facts),
        expected,
        keyslot: volume.keyslot.clone(),
        mapper: facts.mapping_of(volume.luks_uuid).and_then(|mapping| mapping.dm_name.clone()),
        file: file.to_owned(),
        origin,
    });
    let row = |result| row_of(config, volume, facts, result);
    match host.run(&facts.name, job, &[]).await {
        Ok(Answer::HeaderBackedUp { seqid }) => row(Verdict::BackedUp).because(format!("sequence id {seqid}")),
        other => failed(row, other),
    }
}

/// How `header restore` restores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Restoring {
    /// What the user allows.
    pub allowed: Allowed,
    /// Whether only to say what would change.
    pub dry_run: bool,
}

/// `header restore`: replaces the header of the volume called `name` by that in a backup.
///
/// # Errors
/// When it cannot begin, or there is no such volume.
pub async fn header_restore(
    config: &Config,
    name: &str,
    file: &Path,
    restoring: Restoring,
) -> Result<Report, CommandError> {
    preflight("header restore", FilesystemKind::None)?;
    let file = absolute(file)?;
    let store = lock(config, patience_with_another_run(config), StateDir::open).await?;
    let state = store.load()?;
    let host = Workers::new(config.volumes.deadline);
    let inventory = disks_with_closed_headers(config, &host).await?;
    let node = Node { config, state: &state, inventory: &inventory };
    let volume = named_volume(node, name)?;
    let kms = LazyKms::new(config);
    let restore = Restore { config, state: &state, store: &store, kms: &kms, host: &host, file };
    let (row, error) = match known(config, &state, volume) {
        Ok(known) => restore.run(volume.record, known, restoring).await,
        Err(row) => (*row, None),
    };
    let summary = if row.result == Verdict::Restored {
        "the header was restored, and the data key opens it"
    } else if row.result == Verdict::WouldRestore {
        "nothing was written"
    } else {
        "not restored"
    };
    let report = Report::new("header restore", vec![row], summary.to_owned()).measured(kms.usage(), host.stages());
    Ok(match error {
        Some(error) => report.failed(key_exit_code(&error), chain(error)),
        None => report,
    })
}

/// What restoring a header needs.
struct Restore<'a, H> {
    config: &'a Config,
    state: &'a State,
    store: &'a StateDir,
    kms: &'a LazyKms<'a>,
    host: &'a H,
    file: PathBuf,
}

impl<H: Host> Restore<'_, H> {
    async fn run(&self, volume: &VolumeRecord, known: Known<'_>, restoring: Restoring) -> (Row, Option<KeyError>) {
        let Known { facts, expected } = known;
        let row = |result| row_of(self.config, volume, facts, result);
        let (target, file) = (Target::from(facts), self.file.clone());
        let job = job::InspectBackup { target: target.clone(), file: file.clone(), expected: expected.clone() };
        let backup = match self.host.run(&facts.name, Job::InspectBackup(job), &[]).await {
            Ok(Answer::BackupInspected(backup)) => backup,
            Ok(Answer::BackupRefused { why }) => return (row(Verdict::Refused).because(why), None),
            other => return (failed(row, other), None),
        };
        let changes = match restore_changes(volume, facts, &backup, restoring.allowed) {
            Ok(changes) => changes.join("; "),
            Err(Finding { evidence, remedy, .. }) => {
                return (row(Verdict::Refused).because(evidence).with_remedy(remedy), None);
            }
        };
        if restoring.dry_run {
            return (row(Verdict::WouldRestore).because(changes), None);
        }
        let key = match unwrap(self.kms, self.state, volume.key).await {
            Ok(key) => key,
            Err(error) => return (row(Verdict::NoKey).because("nothing was written: no key"), Some(error)),
        };
        tracing::info!(device = facts.name, "{}: restoring its header: {changes}", facts.name);
        let InspectedBackup { note, present, .. } = *backup;
        let job = job::RestoreHeader { target, file, sha256: note.sha256, present, expected };
        let row = match self.host.run(&facts.name, Job::RestoreHeader(job), &[&key]).await {
            Ok(Answer::HeaderRestored { keyslot }) => match self.record(volume, keyslot) {
                Ok(()) => row(Verdict::Restored).because(changes),
                Err(e) => row(Verdict::Failed)
                    .because(format!("restored, but its keyslot was not recorded: {}", chain(e)))
                    .with_remedy("'luks-agent unlock' records it"),
            },
            other => failed(row, other),
        };
        (row, None)
    }

    /// Records the keyslot that the key opens now.
    fn record(&self, volume: &VolumeRecord, keyslot: ProvenKeyslot) -> Result<(), StateError> {
        if volume.keyslot.as_ref() == Some(&keyslot) {
            return Ok(());
        }
        let mut next = self.state.clone();
        let volumes = next.volumes.iter_mut().filter(|known| known.luks_uuid == volume.luks_uuid);
        volumes.for_each(|known| known.keyslot = Some(keyslot.clone()));
        self.store.save(&next)
    }
}

fn absolute(file: &Path) -> Result<PathBuf, CommandError> {
    std::path::absolute(file).map_err(|source| CommandError::Path { path: file.to_owned(), source })
}
