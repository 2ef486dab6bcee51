//! The second half of `rotate --volume-key`: re-encrypts volumes, one after the other.

use futures_util::future::join_all;
use uuid::Uuid;

use super::error::{CommandError, unexpected};
use super::lazy_kms::LazyKms;
use super::named::failed;
use super::node::Node;
use super::preflight::{lock, patience_with_another_run};
use super::survey::{Disks, disks_with_closed_headers};
use crate::apply::{Apply, Beginning};
use crate::config::Config;
use crate::disk::{DeviceFacts, classify};
use crate::error::chain;
use crate::job::{self, Answer, Host, HostError, Job, Target, Workers};
use crate::plan::{Finding, Subject, objection_to_reencryption};
use crate::report::{Report, Row, Verdict};
use crate::state::{Phase, State, StateDir, VolumeRecord};

/// What to do about a volume that is not finished.
const CONTINUE: &str = "'luks-agent rotate --volume-key' goes on where it stopped";

/// Re-encrypts volumes of a node.
#[derive(Debug)]
pub(super) struct VolumeKeys<'a> {
    pub(super) config: &'a Config,
    /// How fast at most, in bytes a second.
    pub(super) speed: Option<u64>,
}

impl VolumeKeys<'_> {
    /// Whether an open volume waits for its new volume key.
    pub(super) async fn are_left(&self) -> Result<bool, CommandError> {
        let state = self.store().await?.load()?;
        let inventory = Disks::briefly(self.config).inventory().await?;
        Ok(state.volumes.iter().any(|volume| is_waiting(volume) && inventory.open_on(volume.luks_uuid).is_some()))
    }

    /// Returns the report that says which volumes cannot get new volume keys, so that nothing is changed; `None` if none objects.
    ///
    /// Volumes that are not attached cannot be asked. Each is asked when its turn comes.
    pub(super) async fn refusals(&self) -> Result<Option<Report>, CommandError> {
        let state = self.store().await?.load()?;
        let host = self.host();
        let inventory = disks_with_closed_headers(self.config, &host).await?;
        let node = Node { config: self.config, state: &state, inventory: &inventory };
        // replace_keys() refuses to begin if one is being re-encrypted
        let wanted = |volume: &&VolumeRecord| volume.phase == Phase::Committed && !volume.is_reencrypting();
        let asked = state.volumes.iter().filter(wanted).filter_map(|volume| {
            let disk = inventory.open_on(volume.luks_uuid).or_else(|| node.disk_of(volume))?;
            Some(self.ask(disk, volume, &host))
        });
        let rows: Vec<Row> = join_all(asked).await.into_iter().flatten().collect();
        if rows.is_empty() {
            return Ok(None);
        }
        let summary =
            format!("nothing was changed: {} of the volumes cannot be re-encrypted, or could not be asked", rows.len());
        Ok(Some(Report::new("rotate", rows, summary).measured(None, host.stages())))
    }

    /// Returns the row that says why a volume cannot get a new volume key, if so.
    async fn ask(&self, disk: &DeviceFacts, volume: &VolumeRecord, host: &Workers) -> Option<Row> {
        let row = |result| self.row(Some(disk), volume, result);
        match host.run(&disk.name, Job::ShowHeader { target: Target::from(disk) }, &[]).await {
            Ok(Answer::HeaderShown { header }) => {
                let Finding { evidence, remedy, .. } = objection_to_reencryption(volume, &header)?;
                Some(row(Verdict::Refused).because(evidence).with_remedy(remedy))
            }
            other => Some(failed(row, other)),
        }
    }

    /// Records that all volumes are to get new volume keys.
    pub(super) async fn plan(&self) -> Result<(), CommandError> {
        let (store, host, keys) = (self.store().await?, self.host(), LazyKms::new(self.config));
        let state = store.load()?;
        Ok(self.apply(&store, &host, &keys).plan_volume_keys(&state)?)
    }

    /// Re-encrypts all open volumes that wait for it. Others stay recorded as waiting.
    pub(super) async fn change(&self) -> Result<Report, CommandError> {
        let state = self.store().await?.load()?;
        let inventory = Disks::briefly(self.config).inventory().await?;
        let (host, keys) = (self.host(), LazyKms::new(self.config));
        let mut rows = Vec::new();
        let mut is_stopped = false;
        for volume in state.volumes.iter().filter(|volume| is_waiting(volume)) {
            let Some(disk) = inventory.open_on(volume.luks_uuid) else {
                rows.push(
                    self.row(None, volume, Verdict::Left)
                        .because("not open")
                        .with_remedy(format!("open it; then {CONTINUE}")),
                );
                continue;
            };
            if is_stopped {
                rows.push(self.row(Some(disk), volume, Verdict::Left).because("not begun").with_remedy(CONTINUE));
                continue;
            }
            let row = self.change_one(disk, volume, &host, &keys).await?;
            is_stopped = row.result == Verdict::Stopped;
            rows.push(row);
        }
        let done = rows.iter().filter(|row| row.result == Verdict::Reencrypted).count();
        let summary = format!("{done} of {} volumes have a new volume key", rows.len());
        Ok(Report::new("rotate", rows, summary).measured(keys.usage(), host.stages()))
    }

    async fn change_one(
        &self,
        disk: &DeviceFacts,
        volume: &VolumeRecord,
        host: &Workers,
        keys: &LazyKms<'_>,
    ) -> Result<Row, CommandError> {
        let luks_uuid = volume.luks_uuid;
        let row = |result| self.row(Some(disk), volume, result);
        let begun = {
            let store = self.store().await?;
            let state = store.load()?;
            self.apply(&store, host, keys).begin_volume_key(luks_uuid, &state).await
        };
        let Beginning { expected, former, passphrase } = match begun {
            Ok(beginning) => beginning,
            Err(e) => return Ok(row(Verdict::Failed).because(format!("not re-encrypted: {}", chain(e)))),
        };
        let mapper = disk.mapper_of(luks_uuid);
        let (target, speed) = (Target::from(disk), self.speed);
        let job = Job::Reencrypt(job::Reencrypt { target, expected, mapper, former, speed });
        Ok(match host.run(&disk.name, job, &[&passphrase]).await {
            Ok(Answer::Reencrypted { opened }) => {
                self.record(luks_uuid, host, keys, |apply, state| apply.end_volume_key(luks_uuid, opened, state))
                    .await?;
                row(Verdict::Reencrypted)
            }
            Ok(Answer::Stopped) => row(Verdict::Stopped).because("stopped as asked").with_remedy(CONTINUE),
            Ok(Answer::Refused { why }) => {
                // an earlier attempt may have left a second volume key in the header, which must stay allowed
                if !volume.is_reencrypting() {
                    self.record(luks_uuid, host, keys, |apply, state| apply.cancel_volume_key(luks_uuid, state))
                        .await?;
                }
                row(Verdict::Refused).because(why)
            }
            Ok(Answer::Failed { message }) => row(Verdict::Failed).because(message).with_remedy(CONTINUE),
            Ok(other) => row(Verdict::Failed).because(unexpected(&other)),
            Err(e @ HostError::Hung { .. }) => row(Verdict::Hung).because(chain(e)),
            Err(e @ HostError::Died { .. }) => row(Verdict::Failed).because(chain(e)).with_remedy(
                "some reads and writes of the volume wait until it was opened again: restart the node; nothing is lost",
            ),
            Err(e) => row(Verdict::Failed).because(chain(e)),
        })
    }

    async fn record(
        &self,
        luks_uuid: Uuid,
        host: &Workers,
        keys: &LazyKms<'_>,
        change: impl FnOnce(&Apply<'_, LazyKms<'_>, Workers>, &State) -> Result<(), crate::state::StateError>,
    ) -> Result<(), CommandError> {
        let store = self.store().await?;
        let state = store.load()?;
        tracing::debug!(%luks_uuid, "recording the volume key");
        Ok(change(&self.apply(&store, host, keys), &state)?)
    }

    async fn store(&self) -> Result<StateDir, CommandError> {
        Ok(lock(self.config, patience_with_another_run(self.config), StateDir::open).await?)
    }

    fn host(&self) -> Workers {
        Workers::new(self.config.volumes.deadline)
    }

    fn apply<'b>(
        &'b self,
        store: &'b StateDir,
        host: &'b Workers,
        keys: &'b LazyKms<'b>,
    ) -> Apply<'b, LazyKms<'b>, Workers> {
        Apply { config: self.config, store: Some(store), keys, host, instance_id: None }
    }

    fn row(&self, disk: Option<&DeviceFacts>, volume: &VolumeRecord, result: Verdict) -> Row {
        let subject = disk.map_or_else(
            || Subject::absent(volume),
            |disk| Subject::of(disk, &classify(disk, &self.config.volumes.rules)),
        );
        Row::new(&subject, result).volume(Some(volume.luks_uuid), volume.mount_point.clone())
    }
}

fn is_waiting(volume: &VolumeRecord) -> bool {
    volume.volume_key_change.is_some()
}
