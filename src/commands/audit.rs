//! `audit`: reports what is on each disk of the node, what encrypts it, and how that was shown. It writes nothing and calls no key service.

mod disks;
mod file;
mod keys;
mod look;
mod machine;
mod mounts;
mod volume;

use std::time::Duration;

pub use file::{check_output, write_report};
use futures_util::future::{join, join_all};
use jiff::Timestamp;
use keys::keys;
use look::Look;
use machine::machine;
use mounts::MountTable;

use super::error::CommandError;
use super::instance::identity;
use super::node::Node;
use super::preflight::need_root;
use super::survey::survey_briefly;
use crate::audit::{AuditReport, Configuration, Disk, Judgement, SCHEMA, SCHEMA_VERSION, judge_node};
use crate::config::Config;
use crate::job::Workers;
use crate::report::proofs;
use crate::state;

/// How long to wait for the identity document.
const PATIENCE: Duration = Duration::from_secs(5);

/// `audit`: reports what is on each disk, what encrypts it, and how that was shown. `blocks` are compared on each open volume.
///
/// # Errors
/// When the disks or the state file cannot be read.
pub async fn audit(config: &Config, blocks: u32) -> Result<AuditReport, CommandError> {
    need_root("audit")?;
    let state = state::read(&config.state.dir)?.unwrap_or_default();
    let host = Workers::new(config.volumes.deadline);
    let document = identity(config.kms.deadline.min(PATIENCE));
    let (inventory, document) = join(survey_briefly(config, &state, &host), document).await;
    let inventory = inventory?;
    let node = Node { config, state: &state, inventory: &inventory };
    let look = Look { node, mounts: MountTable::read(node), proofs: proofs::read(), blocks, host: &host };
    let mut disks: Vec<Disk> = join_all(inventory.devices.iter().map(|facts| look.attached(facts))).await;
    disks.extend(look.away());
    disks.sort_by_key(|disk| (disk.serial.is_none(), disk.serial.clone(), disk.device.clone()));
    let unresolved = inventory.boot_unresolved.as_ref();
    let wrong = unresolved.map(|why| format!("the boot disk could not be resolved: {why}"));
    let Judgement { verdict, reasons } = judge_node(&disks, wrong.into_iter().collect());
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
