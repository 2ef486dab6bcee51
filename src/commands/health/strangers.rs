//! Disks that should be encrypted and are not volumes of the node.

use super::super::node::Node;
use crate::config::Policy;
use crate::disk::{DeviceFacts, Role, classify};
use crate::plan::{Subject, name_it, record_of};
use crate::report::{Row, Verdict};

/// Returns the disks that the configuration says to encrypt and that are neither known nor `unknown` volumes of the node.
///
/// Most do not make the node unhealthy. A disk with an unclear role does, because the next `provision` would not encrypt it either.
pub(super) fn strangers(node: Node<'_>, unknown: &[Row]) -> Vec<Row> {
    let Node { config, state, inventory } = node;
    let row = |facts: &DeviceFacts| {
        let role = classify(facts, &config.volumes.rules);
        let policy = match role {
            Role::Ebs | Role::Unclear { .. } => config.volumes.ebs,
            Role::InstanceStore => config.volumes.instance_store,
            Role::Boot { .. } | Role::Ignored { .. } => Policy::Ignore,
        };
        let is_told = unknown.iter().any(|row| row.device.as_ref() == Some(&facts.name));
        let is_one = policy == Policy::Encrypt && record_of(state, facts).is_none() && !is_told;
        let subject = Subject::of(facts, &role);
        let row = match role {
            Role::Unclear { because } => {
                Row::new(&subject, Verdict::Refused).because(because).with_remedy(name_it(facts))
            }
            Role::Boot { .. } | Role::Ebs | Role::InstanceStore | Role::Ignored { .. } => {
                Row::new(&subject, Verdict::New)
                    .because("not encrypted by luks-agent; 'luks-agent plan' shows what is on it")
            }
        };
        is_one.then_some(row)
    };
    inventory.devices.iter().filter_map(row).collect()
}
