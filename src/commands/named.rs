//! Known volumes by the names that people give them, open or closed.

use std::path::Path;

use super::error::{CommandError, unexpected};
use super::node::Node;
use crate::config::Config;
use crate::disk::{Content, DeviceFacts, classify};
use crate::error::chain;
use crate::job::{Answer, HostError};
use crate::luks2::{Expected, mapper_name};
use crate::plan::{Subject, record_of};
use crate::report::{Row, Verdict};
use crate::state::{Phase, State, VolumeRecord};

/// A known volume.
#[derive(Debug, Clone, Copy)]
pub(super) struct NamedVolume<'a> {
    pub(super) record: &'a VolumeRecord,
    /// The disk that it is on; `None` if that is not attached.
    pub(super) disk: Option<&'a DeviceFacts>,
}

/// Finds the known volumes called one of `names`, or all if there are none, whatever their phase.
///
/// The disks of the node are those of [`super::survey::disks_with_closed_headers`].
///
/// # Errors
/// When no volume has one of the names, or the volume is on several disks and the name does not say which.
pub(super) fn named_volumes<'a>(node: Node<'a>, names: &[String]) -> Result<Vec<NamedVolume<'a>>, CommandError> {
    let known = || node.state.volumes.iter().flat_map(|record| places(node, record));
    for name in names {
        if !known().any(|volume| volume.is_called(name)) {
            let known = node.state.volumes.iter().map(|record| record.luks_uuid.to_string()).collect::<Vec<_>>();
            let known = if known.is_empty() { "none is known".to_owned() } else { known.join(", ") };
            return Err(CommandError::UnknownVolume { name: name.clone(), known });
        }
    }
    let wanted = |volume: &NamedVolume<'_>| names.is_empty() || names.iter().any(|name| volume.is_called(name));
    let found: Vec<NamedVolume<'a>> = known().filter(wanted).collect();
    for (i, volume) in found.iter().enumerate() {
        let twin = found[..i].iter().find(|other| other.record.luks_uuid == volume.record.luks_uuid);
        if let (Some(one), Some(other)) = (twin.and_then(|twin| twin.disk), volume.disk) {
            let disks = format!("{} and {}", one.path.display(), other.path.display());
            return Err(CommandError::SeveralDisks { luks_uuid: volume.record.luks_uuid, disks });
        }
    }
    Ok(found)
}

/// Finds the one known volume called `name`.
///
/// # Errors
/// As [`named_volumes`], or if several volumes have the name.
pub(super) fn named_volume<'a>(node: Node<'a>, name: &str) -> Result<NamedVolume<'a>, CommandError> {
    match named_volumes(node, &[name.to_owned()])?.as_slice() {
        [volume] => Ok(*volume),
        several => {
            let known = several.iter().map(|volume| volume.record.luks_uuid.to_string()).collect::<Vec<_>>().join(", ");
            Err(CommandError::SeveralVolumes { name: name.to_owned(), known })
        }
    }
}

/// Returns a volume with each disk that it may be on: where it is open, or that have its header, or that it was made on.
fn places<'a>(node: Node<'a>, record: &'a VolumeRecord) -> Vec<NamedVolume<'a>> {
    let disks = &node.inventory.devices;
    let on = |is_it: &dyn Fn(&DeviceFacts) -> bool| -> Vec<&'a DeviceFacts> {
        disks.iter().filter(|facts| is_it(facts)).collect()
    };
    let has_header = |facts: &DeviceFacts| matches!(&facts.content, Some(Content::Luks2 { luks_uuid, .. }) if *luks_uuid == record.luks_uuid);
    let mut found = on(&|facts| facts.mapping_of(record.luks_uuid).is_some());
    if found.is_empty() {
        found = on(&has_header);
    }
    if found.is_empty() {
        found = on(&|facts| record_of(node.state, facts).is_some_and(|known| known.luks_uuid == record.luks_uuid));
    }
    if found.is_empty() {
        // another volume has taken the place of its header
        found = on(&|facts| record.is_for(facts));
    }
    match found.as_slice() {
        [] => vec![NamedVolume { record, disk: None }],
        disks => disks.iter().map(|facts| NamedVolume { record, disk: Some(facts) }).collect(),
    }
}

impl NamedVolume<'_> {
    /// Whether a name from the command line is a name of the volume, its disk or its mapping.
    fn is_called(&self, name: &str) -> bool {
        let Self { record, disk } = self;
        let path = Path::new(name);
        let mapper = match disk {
            Some(disk) => disk.mapper_of(record.luks_uuid),
            None => mapper_name(record.luks_uuid),
        };
        let mounts = disk.and_then(|disk| disk.mapping_of(record.luks_uuid)).map(|mapping| mapping.mounts.as_slice());
        disk.is_some_and(|disk| disk.is_called(name))
            || (disk.is_none() && record.serial.as_deref() == Some(name))
            || mapper == name
            || path == Path::new("/dev/mapper").join(&mapper)
            || record.mount_point.as_deref() == Some(path)
            || mounts.unwrap_or_default().iter().any(|at| at == path)
            || record.luks_uuid.to_string() == name
    }
}

/// A volume that holds data, on an attached disk.
pub(super) struct Known<'a> {
    pub(super) facts: &'a DeviceFacts,
    /// What its header must be.
    pub(super) expected: Expected,
}

/// Returns where a volume is and what its header must be, or the row that says why there is none.
pub(super) fn known<'a>(config: &Config, state: &State, volume: NamedVolume<'a>) -> Result<Known<'a>, Box<Row>> {
    let record = volume.record;
    let Some(facts) = volume.disk else { return Err(Box::new(absent(record))) };
    let refused = |why: &str| Err(Box::new(row_of(config, record, facts, Verdict::Refused).because(why)));
    match record.phase {
        Phase::Committed => {}
        Phase::Intent => return refused("its formatting was interrupted; 'luks-agent provision' finishes it"),
        Phase::Erasing => return refused("it is being erased; 'luks-agent erase' finishes it"),
    }
    if record.is_reencrypting() {
        return refused("its data is being re-encrypted; 'luks-agent rotate --volume-key' finishes it");
    }
    match state.expected(record.luks_uuid) {
        Some(expected) => Ok(Known { facts, expected }),
        None => refused("the state file does not say how it was made"),
    }
}

pub(super) fn absent(volume: &VolumeRecord) -> Row {
    Row::new(&Subject::absent(volume), Verdict::Wrong)
        .volume(Some(volume.luks_uuid), volume.mount_point.clone())
        .because("its disk is not attached")
}

pub(super) fn row_of(config: &Config, volume: &VolumeRecord, facts: &DeviceFacts, result: Verdict) -> Row {
    let subject = Subject::of(facts, &classify(facts, &config.volumes.rules));
    Row::new(&subject, result).volume(Some(volume.luks_uuid), volume.mount_point.clone())
}

pub(super) fn failed(row: impl Fn(Verdict) -> Row, answer: Result<Answer, HostError>) -> Row {
    match answer {
        Ok(Answer::Failed { message }) => row(Verdict::Failed).because(message),
        Ok(other) => row(Verdict::Failed).because(unexpected(&other)),
        Err(e @ HostError::Hung { .. }) => row(Verdict::Hung).because(chain(e)),
        Err(e) => row(Verdict::Failed).because(chain(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Inventory;

    fn config() -> Config {
        Config::from_text(Path::new("config.toml"), "[kms]\nkey_id = \"alias/x\"\n").unwrap()
    }

    fn inventory(devices: Vec<DeviceFacts>) -> Inventory {
        Inventory {
            devices,
            boot_unresolved: None,
            state_in_memory: None,
            instance_id: None,
            missing_ciphers: Vec::new(),
            with_system_mount: Vec::new(),
            unreadable: Vec::new(),
        }
    }

    #[test]
    fn a_volume_is_found_by_each_of_its_names_and_a_copy_only_by_its_disk() {
        let (config, state) = (config(), State::sample());
        let record = &state.volumes[0];
        let disk = |name: &str, minor, serial: &str| DeviceFacts {
            serial: Some(serial.to_owned()),
            content: Some(Content::Luks2 { luks_uuid: record.luks_uuid, token: None }),
            ..DeviceFacts::sample(name, minor)
        };
        let one = inventory(vec![disk("nvme1n1", 1, "vol0")]);
        let node = Node { config: &config, state: &state, inventory: &one };
        let find = |node, name: &str| {
            let found = named_volumes(node, &[name.to_owned()]).map_err(|e| e.to_string())?;
            Ok::<_, String>(found.iter().map(|volume| volume.disk.map(|disk| disk.name.clone())).collect::<Vec<_>>())
        };
        let uuid = record.luks_uuid.to_string();
        let mapper = mapper_name(record.luks_uuid);
        for name in ["nvme1n1", "/dev/nvme1n1", "vol0", "/mnt", &uuid, &mapper, &format!("/dev/mapper/{mapper}")] {
            assert_eq!(find(node, name), Ok(vec![Some("nvme1n1".to_owned())]), "{name}");
        }
        assert!(find(node, "nvme2n1").unwrap_err().contains("no volume of this node is called 'nvme2n1'"));
        let gone = inventory(vec![]);
        assert_eq!(find(Node { inventory: &gone, ..node }, "vol0"), Ok(vec![None]));
        let two = inventory(vec![disk("nvme1n1", 1, "vol0"), disk("nvme2n1", 2, "vol9")]);
        let node = Node { inventory: &two, ..node };
        assert!(find(node, &uuid).unwrap_err().contains("/dev/nvme1n1 and /dev/nvme2n1"));
        assert_eq!(find(node, "nvme2n1"), Ok(vec![Some("nvme2n1".to_owned())]));
    }
}
