//! The survey: which disks there are, and what is on them.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::OnceCell;
use uuid::Uuid;

use super::error::{CommandError, unexpected};
use super::instance::block_device_mapping;
use crate::config::Config;
use crate::discover::{Roots, discover};
use crate::disk::{Content, DeviceFacts, DiskKind, Inventory, classify, is_shown};
use crate::error::chain;
use crate::job::{Answer, Host, Job, Target};
use crate::plan::{may_hold_ours, wants_header, wants_probe};
use crate::state::{Phase, State};

/// How long commands that format nothing wait for IMDS to tell what Xen disks are. Commands that may format wait for
/// `kms.deadline`, because the network of a booting node comes up after the agent.
const BRIEFLY: Duration = Duration::from_secs(5);

/// The disks of this machine.
#[derive(Debug)]
pub(super) struct Disks<'a> {
    config: &'a Config,
    /// How long to wait for IMDS.
    patience: Duration,
    /// The block device mapping from IMDS, read once. Nothing else tells what a Xen disk is.
    mapping: OnceCell<Option<BTreeMap<String, String>>>,
}

impl<'a> Disks<'a> {
    pub(super) fn new(config: &'a Config) -> Self {
        Self { config, patience: config.kms.deadline, mapping: OnceCell::new() }
    }

    /// Returns the disks for a command that formats nothing, and so does not wait long for IMDS.
    pub(super) fn briefly(config: &'a Config) -> Self {
        Self { patience: config.kms.deadline.min(BRIEFLY), ..Self::new(config) }
    }

    pub(super) async fn inventory(&self) -> Result<Inventory, CommandError> {
        self.candidates(discover(&Roots::host(), &self.config.state.dir, None)?).await
    }

    /// Returns those of the `found` disks that matter, with the roles of Xen disks.
    async fn candidates(&self, mut found: Inventory) -> Result<Inventory, CommandError> {
        if found.devices.iter().any(|facts| facts.kind == DiskKind::Xen)
            && let Some(mapping) = self.mapping.get_or_init(|| block_device_mapping(self.config, self.patience)).await
        {
            found = discover(&Roots::host(), &self.config.state.dir, Some(mapping))?;
        }
        found.devices.retain(|facts| {
            let holds_a_volume = facts.holders.iter().any(|holder| holder.luks_uuid().is_some());
            holds_a_volume || is_shown(facts.kind, &classify(facts, &self.config.volumes.rules))
        });
        Ok(found)
    }
}

/// Lists the disks, unless they were `seen` a moment ago, and has workers examine those that may be targets.
pub(super) async fn survey(
    config: &Config,
    state: &State,
    host: &impl Host,
    seen: Option<Inventory>,
) -> Result<Inventory, CommandError> {
    survey_of(&Disks::new(config), state, host, seen).await
}

/// As [`survey`], of disks that are listed with the patience of the command.
pub(super) async fn survey_of(
    disks: &Disks<'_>,
    state: &State,
    host: &impl Host,
    seen: Option<Inventory>,
) -> Result<Inventory, CommandError> {
    let config = disks.config;
    let before = match seen {
        Some(seen) => disks.candidates(seen).await?,
        None => disks.inventory().await?,
    };
    let contents = join_all(before.devices.iter().map(|facts| content_on(config, state, facts, host))).await;
    // that took a while, and the worker of a killed agent may have finished meanwhile: list the disks again
    let mut now = disks.inventory().await?;
    now.devices.retain(|facts| before.devices.iter().any(|seen| seen.is_unchanged(facts)));
    for facts in &mut now.devices {
        let seen = before.devices.iter().zip(&contents).find(|(seen, _)| seen.is_unchanged(facts));
        // a volume that was opened or closed meanwhile would be examined in another way now
        let look = |facts: &DeviceFacts| (wants_probe(config, facts), wants_header(config, state, facts));
        let seen = seen.filter(|(seen, _)| look(seen) == look(facts));
        facts.content = seen.and_then(|(_, content)| content.clone());
    }
    Ok(now)
}

/// Returns what is on a disk; `None` if there is no reason to examine it.
async fn content_on(config: &Config, state: &State, facts: &DeviceFacts, host: &impl Host) -> Option<Content> {
    if wants_header(config, state, facts) {
        return header_on(facts, host).await;
    }
    if !wants_probe(config, facts) {
        return None;
    }
    let unfinished = state.volumes.iter().rev().find(|v| v.phase == Phase::Intent && v.is_for(facts));
    Some(probe(config, facts, unfinished.map(|v| v.luks_uuid), host).await)
}

/// Returns what is on a disk. `intent` is the volume whose formatting was interrupted on it.
pub(super) async fn probe(config: &Config, facts: &DeviceFacts, intent: Option<Uuid>, host: &impl Host) -> Content {
    let job = Job::Probe { target: Target::from(facts), intent, scan: config.volumes.scan() };
    match host.run(&facts.name, job, &[]).await {
        Ok(Answer::Content { content }) => content,
        Ok(Answer::Failed { message }) => Content::Unknown { reason: message },
        Ok(other) => Content::Unknown { reason: unexpected(&other) },
        Err(e) => Content::Unknown { reason: chain(e) },
    }
}

/// Lists the disks for a command that formats nothing, and reads the headers of those that may hold volumes of luks-agent.
pub(super) async fn disks_with_headers(config: &Config, host: &impl Host) -> Result<Inventory, CommandError> {
    read_headers(config, host, |_| true).await
}

/// As [`disks_with_headers`], but leaves disks alone that have an open volume: which volume that is, the mapping tells.
pub(super) async fn disks_with_closed_headers(config: &Config, host: &impl Host) -> Result<Inventory, CommandError> {
    read_headers(config, host, |facts| facts.holders.iter().all(|holder| holder.luks_uuid().is_none())).await
}

async fn read_headers(
    config: &Config,
    host: &impl Host,
    wanted: impl Fn(&DeviceFacts) -> bool,
) -> Result<Inventory, CommandError> {
    let mut inventory = Disks::briefly(config).inventory().await?;
    let candidates = inventory.devices.iter_mut().filter(|facts| wanted(facts) && may_hold_ours(config, facts));
    join_all(candidates.map(async |facts| facts.content = header_on(facts, host).await)).await;
    Ok(inventory)
}

/// Returns the LUKS2 volume on a disk that may be in use, from its header.
pub(super) async fn header_on(facts: &DeviceFacts, host: &impl Host) -> Option<Content> {
    match host.run(&facts.name, Job::Header { target: Target::from(facts) }, &[]).await {
        Ok(Answer::Header { content }) => content,
        Ok(Answer::Failed { message }) => Some(Content::Unknown { reason: message }),
        Ok(other) => Some(Content::Unknown { reason: unexpected(&other) }),
        Err(e) => Some(Content::Unknown { reason: chain(e) }),
    }
}
