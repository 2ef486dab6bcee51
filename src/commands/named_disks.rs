//! The disks that `adopt` and `erase` are asked for by name, and what their headers say.

use futures_util::future::join_all;

use super::error::CommandError;
use super::survey::probe;
use crate::config::Config;
use crate::disk::{Content, DeviceFacts, Inventory, Role, classify};
use crate::job::Host;
use crate::plan::wants_probe;

/// Returns the kernel names of the disks that are called one of `names`.
///
/// # Errors
/// When no disk has one of the names.
pub(super) fn named_disks(inventory: &Inventory, names: &[String]) -> Result<Vec<String>, CommandError> {
    let mut found = Vec::new();
    for name in names {
        let called: Vec<_> = inventory.devices.iter().filter(|facts| is_called(facts, name)).collect();
        if called.is_empty() {
            let disks = inventory.devices.iter().map(|facts| facts.name.as_str()).collect::<Vec<_>>().join(", ");
            return Err(CommandError::NoSuchDisk { name: name.clone(), disks });
        }
        found.extend(called.into_iter().map(|facts| facts.name.clone()));
    }
    Ok(found)
}

/// Whether a name from the command line is a name of the disk, its serial number, or the LUKS UUID in its header.
fn is_called(facts: &DeviceFacts, name: &str) -> bool {
    let has_header = matches!(&facts.content, Some(Content::Luks2 { luks_uuid, .. }) if luks_uuid.to_string() == name);
    let is_open = facts.holders.iter().filter_map(|holder| holder.luks_uuid()).any(|uuid| uuid.to_string() == name);
    facts.is_called(name) || has_header || is_open
}

/// Finds out what is on disks without a LUKS2 header, so that a refusal can name it.
pub(super) async fn look_closer(config: &Config, inventory: &mut Inventory, names: &[String], host: &impl Host) {
    let wanted = |facts: &&mut DeviceFacts| {
        names.contains(&facts.name)
            && facts.content.is_none()
            && wants_probe(config, facts)
            && !is_system(config, facts)
    };
    let disks = inventory.devices.iter_mut().filter(wanted);
    join_all(disks.map(async |facts| {
        facts.content = Some(probe(config, facts, None, host).await);
    }))
    .await;
}

fn is_system(config: &Config, facts: &DeviceFacts) -> bool {
    matches!(classify(facts, &config.volumes.rules), Role::Boot { .. })
}
