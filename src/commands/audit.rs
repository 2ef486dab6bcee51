//! `audit`: reports what is on each disk of the node, what encrypts it, and how that was shown. It writes nothing, and calls a
//! key service only to sign the report.

mod disks;
mod file;
mod keys;
mod look;
mod machine;
mod mounts;
mod ssm;
mod text;
mod volume;

use std::time::Duration;

pub(super) use file::write_reports;
pub use file::{check_output, write_report};
use futures_util::future::{join, join_all};
use jiff::Timestamp;
use keys::keys;
use look::Look;
use machine::machine;
use mounts::MountTable;
pub(super) use ssm::write_inventory;
pub use text::audit_text;

use super::error::CommandError;
use super::instance::identity;
use super::node::Node;
use super::preflight::need_root;
use super::survey::{Disks, survey_of};
use crate::audit::{AuditReport, Configuration, Disk, Judgement, SCHEMA, SCHEMA_VERSION, judge_node};
use crate::config::Config;
use crate::disk::{DeviceFacts, Inventory};
use crate::job::Workers;
use crate::report::proofs;
use crate::state::{self, State};

/// How long to wait on EC2 for the identity document, without which nobody knows whose report it is.
const PATIENCE: Duration = Duration::from_secs(30);

/// `audit`: reports what is on each disk, what encrypts it, and how that was shown. `blocks` are compared on each open volume.
///
/// # Errors
/// When the disks or the state file cannot be read.
pub async fn audit(config: &Config, blocks: u32) -> Result<AuditReport, CommandError> {
    need_root("audit")?;
    let host = Workers::new(config.volumes.deadline);
    let listing = Disks::briefly(config);
    let document = identity(config, config.kms.deadline.min(PATIENCE));
    let (seen, document) = join(consistent(config, &listing, &host), document).await;
    let (state, inventory) = seen?;
    let node = Node { config, state: &state, inventory: &inventory };
    let look = Look { node, mounts: MountTable::read(node), proofs: proofs::read(), blocks, host: &host };
    let mut disks: Vec<Disk> = join_all(inventory.devices.iter().map(|facts| look.attached(facts))).await;
    disks.extend(look.away());
    disks.sort_by_key(|disk| (disk.serial.is_none(), disk.serial.clone(), disk.device.clone()));
    let Judgement { verdict, reasons } = judge_node(&disks, wrong(&listing, &inventory).await?);
    Ok(AuditReport {
        schema: SCHEMA.to_owned(),
        schema_version: SCHEMA_VERSION,
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        made: Timestamp::now(),
        verdict,
        reasons,
        node: machine(document),
        configuration: Configuration {
            sha256: config.sha256(),
            security_configuration_sha256: state.security_configuration.clone(),
        },
        keys: keys(&state),
        disks,
    })
}

/// Reads the state file and looks at the disks, once more if another command has changed the state file meanwhile.
async fn consistent(config: &Config, listing: &Disks<'_>, host: &Workers) -> Result<(State, Inventory), CommandError> {
    let state = state::read(&config.state.dir)?.unwrap_or_default();
    let inventory = survey_of(listing, &state, host, None).await?;
    let now = state::read(&config.state.dir)?.unwrap_or_default();
    if now == state {
        return Ok((state, inventory));
    }
    let inventory = survey_of(listing, &now, host, None).await?;
    Ok((now, inventory))
}

/// Returns what is wrong with the node as a whole: what keeps the report from having every disk.
async fn wrong(listing: &Disks<'_>, inventory: &Inventory) -> Result<Vec<String>, CommandError> {
    let unresolved = inventory.boot_unresolved.as_ref();
    let mut wrong: Vec<String> =
        unresolved.map(|why| format!("the boot disk could not be resolved: {why}")).into_iter().collect();
    wrong.extend(
        inventory.unreadable.iter().map(|name| format!("{name}: the kernel's facts about it could not be read")),
    );
    // the survey leaves out what came or changed while workers examined the disks
    let now = listing.inventory().await?;
    let is_there = |facts: &DeviceFacts| inventory.devices.iter().any(|seen| seen.is_unchanged(facts));
    let came = now.devices.iter().filter(|facts| !is_there(facts));
    wrong.extend(
        came.map(|facts| format!("{}: it came or changed meanwhile; run 'luks-agent audit' again", facts.name)),
    );
    Ok(wrong)
}
