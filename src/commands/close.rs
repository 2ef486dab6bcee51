//! `close`: unmounts and closes volumes.

use std::time::Duration;

use futures_util::future::join_all;
use uuid::Uuid;

use super::error::CommandError;
use super::open_volumes::{OpenVolume, open_volumes};
use super::preflight::{lock, patience_with_another_run, preflight};
use super::survey::Disks;
use crate::config::Config;
use crate::disk::classify;
use crate::error::chain;
use crate::job::{Answer, Extent, Host, HostError, Job, Workers};
use crate::plan::Subject;
use crate::report::{Report, Row, Verdict};
use crate::state::closed::{self, Closed};
use crate::state::{State, StateDir, VolumeRecord};
use crate::storage::{FilesystemKind, MountSpec};

/// How long `close` waits for another run at most. systemd gives it 90 seconds in all at a shutdown.
const CLOSE_PATIENCE: Duration = Duration::from_secs(30);

/// What `close` does with a volume that is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    /// Leaves it as it was: mounts again what it has unmounted.
    AllOrNothing,
    /// Closes as much of it as possible, and mounts nothing again: the node shuts down.
    ForShutdown,
}

/// `close`: unmounts and closes the volumes called `names`, or all if there are none.
///
/// # Errors
/// When it cannot begin, or one of the names is not an open volume.
pub async fn close(config: &Config, names: &[String], closing: Closing) -> Result<Report, CommandError> {
    preflight("close", FilesystemKind::None)?;
    let store = lock(config, patience_with_another_run(config).min(CLOSE_PATIENCE), StateDir::open).await?;
    let state = store.load()?;
    let inventory = Disks::briefly(config).inventory().await?;
    let wanted = open_volumes(&state, &inventory, names)?;
    let host = Workers::new(config.volumes.deadline);
    let rows = wanted.iter().map(async |volume| {
        let extent = match closing {
            Closing::ForShutdown => Extent::AsFarAsPossible,
            Closing::AllOrNothing => Extent::Whole { mount: own_mount(config, &state, volume.luks_uuid) },
        };
        close_volume(config, volume, extent, &host).await
    });
    let rows = join_all(rows).await;
    let closed = wanted.iter().zip(&rows).filter(|(_, row)| row.result == Verdict::Closed);
    closed::add(closed.map(|(volume, _)| Closed::new(volume.luks_uuid, volume.disk)).collect());
    let summary = match rows.iter().filter(|row| row.result == Verdict::Closed).count() {
        0 if rows.is_empty() => "no volume is open, nothing changed".to_owned(),
        closed => format!("{closed} of {} closed", rows.len()),
    };
    Ok(Report::new("close", rows, summary))
}

async fn close_volume(config: &Config, volume: &OpenVolume<'_>, extent: Extent, host: &impl Host) -> Row {
    let OpenVolume { disk, luks_uuid } = *volume;
    let mounts = disk.mapping_of(luks_uuid).map(|holder| holder.mounts.clone()).unwrap_or_default();
    let subject = Subject::of(disk, &classify(disk, &config.volumes.rules));
    let row = |result| Row::new(&subject, result).volume(Some(luks_uuid), mounts.last().cloned());
    let job = Job::Close { mapper: disk.mapper_of(luks_uuid), extent };
    match host.run(&disk.name, job, &[]).await {
        Ok(Answer::Failed { message }) => row(Verdict::Failed).because(message),
        Ok(_) => row(Verdict::Closed),
        Err(e @ HostError::Hung { .. }) => row(Verdict::Hung).because(chain(e)),
        Err(e) => row(Verdict::Failed).because(chain(e)),
    }
}

/// Returns how the agent mounts a known volume; `None` if it does not mount it.
fn own_mount(config: &Config, state: &State, luks_uuid: Uuid) -> Option<MountSpec> {
    let VolumeRecord { mount_point, filesystem, .. } = state.volume(luks_uuid)?;
    let options = config.filesystem.options.clone();
    Some(MountSpec { at: mount_point.clone()?, filesystem: *filesystem, options })
}
