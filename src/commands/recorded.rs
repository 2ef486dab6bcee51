//! The volumes of the state file that `forget` is asked for by name, whether their disks are attached or not.

use std::path::Path;

use super::error::CommandError;
use crate::disk::Inventory;
use crate::luks2::mapper_name;
use crate::plan::attached_disk;
use crate::state::{FormerVolume, State, VolumeRecord};

/// A volume that is or was in the state file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Recorded<'a> {
    Known(&'a VolumeRecord),
    Former(&'a FormerVolume),
}

/// Finds the volume that is called `name`: a known one, or else a former one.
///
/// # Errors
/// When no volume has the name, or several have it.
pub(super) fn recorded<'a>(state: &'a State, inventory: &Inventory, name: &str) -> Result<Recorded<'a>, CommandError> {
    let called: Vec<_> = state.volumes.iter().filter(|volume| is_called(state, inventory, volume, name)).collect();
    match called.as_slice() {
        [volume] => return Ok(Recorded::Known(volume)),
        [] => {}
        several => {
            let volumes = list(several.iter().copied());
            return Err(CommandError::AmbiguousVolume { name: name.to_owned(), volumes });
        }
    }
    let former = state.former.iter().rev().find(|former| has_name(&former.volume, name));
    former.map(Recorded::Former).ok_or_else(|| CommandError::NotRecorded {
        name: name.to_owned(),
        volumes: if state.volumes.is_empty() { "it lists none".to_owned() } else { list(&state.volumes) },
    })
}

fn list<'a>(volumes: impl IntoIterator<Item = &'a VolumeRecord>) -> String {
    let shown =
        |volume: &VolumeRecord| format!("{} ({})", volume.luks_uuid, volume.serial.as_ref().unwrap_or(&volume.device));
    volumes.into_iter().map(shown).collect::<Vec<_>>().join(", ")
}

/// Whether a name from the command line is a name of the volume, or of its disk if that is attached.
fn is_called(state: &State, inventory: &Inventory, volume: &VolumeRecord, name: &str) -> bool {
    has_name(volume, name) || attached_disk(state, inventory, volume).is_some_and(|disk| disk.is_called(name))
}

fn has_name(volume: &VolumeRecord, name: &str) -> bool {
    let mapper = mapper_name(volume.luks_uuid);
    volume.luks_uuid.to_string() == name
        || volume.serial.as_deref() == Some(name)
        || volume.mount_point.as_deref() == Some(Path::new(name))
        || mapper == name
        || Path::new("/dev/mapper").join(mapper) == Path::new(name)
        // the name of a disk with a serial number may be another disk's by now
        || (volume.serial.is_none() && (volume.device == name || Path::new("/dev").join(&volume.device) == Path::new(name)))
}
