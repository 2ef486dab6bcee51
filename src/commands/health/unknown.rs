//! Volumes of luks-agent that are not in the state file.

use futures_util::future::join_all;

use super::super::instance::Instance;
use super::super::node::Node;
use super::super::survey::header_on;
use crate::config::Config;
use crate::disk::{Content, DeviceFacts, Inventory, classify};
use crate::job::Host;
use crate::plan::{Finding, Subject, UnknownVolume, may_hold_ours, record_of, unknown_volume};
use crate::report::{Row, Verdict};
use crate::state::State;

/// Reads the headers of disks without a known volume. No boot opens a volume that is not in the state file.
pub(super) async fn look_for_unknown(config: &Config, state: &State, inventory: &mut Inventory, host: &impl Host) {
    let wanted = |facts: &&mut DeviceFacts| may_hold_ours(config, facts) && record_of(state, facts).is_none();
    let disks = inventory.devices.iter_mut().filter(wanted);
    join_all(disks.map(async |facts| facts.content = header_on(facts, host).await)).await;
    let ours = |facts: &DeviceFacts| matches!(&facts.content, Some(Content::Luks2 { token: Some(_), .. }));
    if inventory.devices.iter().any(ours) {
        inventory.instance_id = Instance::new(config).id().await;
    }
}

/// Returns the volumes of this node that are not in the state file. Volumes of other nodes do not affect its health.
pub(super) fn unknown_rows(node: Node<'_>) -> Vec<Row> {
    let Node { config, state, inventory } = node;
    let row = |facts: &DeviceFacts| {
        let volume = unknown_volume(config, state, inventory, facts).filter(|volume| volume.whose.may_be_missed())?;
        let UnknownVolume { luks_uuid, finding: Finding { evidence, remedy, .. }, .. } = volume;
        let at = facts.mapping_of(luks_uuid).and_then(|mapping| mapping.mounts.last().cloned());
        let subject = Subject::of(facts, &classify(facts, &config.volumes.rules));
        let row = Row::new(&subject, Verdict::Wrong).volume(Some(luks_uuid), at);
        Some(row.because(evidence).with_remedy(remedy))
    };
    inventory.devices.iter().filter_map(row).collect()
}
