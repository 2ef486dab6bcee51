//! The disks that `adopt` and `erase` are asked for by name, and what their headers say.

use futures_util::future::join_all;

use super::error::CommandError;
use super::survey::probe;
use crate::config::Config;
use crate::disk::{Content, DeviceFacts, Inventory, Role, classify};
use crate::job::Host;
use crate::plan::wants_probe;
use crate::state::{State, VolumeRecord};

/// Returns the kernel names of the disks that are called one of `names`.
///
/// # Errors
/// When no disk has one of the names.
pub(super) fn named_disks(inventory: &Inventory, state: &State, names: &[String]) -> Result<Vec<String>, CommandError> {
    let mut found = Vec::new();
    for name in names {
        let mut called: Vec<_> = inventory.devices.iter().filter(|facts| is_called(facts, name)).collect();
        if called.is_empty() {
            called = inventory.devices.iter().filter(|facts| was_called(facts, state, name)).collect();
        }
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

/// Whether a name is the recorded LUKS UUID of a volume whose header is gone from the disk, as `erase` leaves it.
///
/// A disk that has another volume by now is not called by the name of its former one.
fn was_called(facts: &DeviceFacts, state: &State, name: &str) -> bool {
    let has_volume = matches!(&facts.content, Some(Content::Luks2 { .. }))
        || facts.holders.iter().any(|holder| holder.luks_uuid().is_some());
    let is_it = |record: &VolumeRecord| record.luks_uuid.to_string() == name;
    let former = state.former.iter().map(|former| &former.volume);
    let mut others = state.volumes.iter().filter(|record| !is_it(record));
    !has_volume
        && state.volumes.iter().chain(former).any(|record| is_it(record) && record.is_for(facts))
        && !others.any(|record| record.is_for(facts))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::VolumeEnd;

    #[test]
    fn an_erased_volume_is_called_by_its_luks_uuid_unless_its_disk_has_another() {
        let disk = DeviceFacts { serial: Some("vol0".to_owned()), ..DeviceFacts::sample("nvme1n1", 1) };
        let inventory = |content| Inventory {
            devices: vec![DeviceFacts { content, ..disk.clone() }, DeviceFacts::sample("nvme2n1", 2)],
            boot_unresolved: None,
            state_in_memory: None,
            instance_id: None,
            missing_ciphers: Vec::new(),
            with_system_mount: Vec::new(),
            unreadable: Vec::new(),
        };
        let known = State::sample();
        let uuid = known.volumes[0].luks_uuid;
        let mut erased = known.clone();
        erased.part_with(uuid, VolumeEnd::Erased, jiff::Timestamp::UNIX_EPOCH);
        let names = |content, state: &State| named_disks(&inventory(content), state, &[uuid.to_string()]).ok();
        let found = Some(vec!["nvme1n1".to_owned()]);
        assert_eq!(names(None, &known), found, "while it is erased");
        assert_eq!(names(None, &erased), found, "afterwards");
        let header = Content::Luks2 { luks_uuid: uuid::Uuid::from_u128(8), token: None };
        assert_eq!(names(Some(header), &erased), None, "another volume is on the disk");
        let mut reused = erased.clone();
        reused.volumes = known.volumes.clone();
        reused.volumes[0].luks_uuid = uuid::Uuid::from_u128(8);
        assert_eq!(names(None, &reused), None, "another volume is recorded for the disk");
    }
}
