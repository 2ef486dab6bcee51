//! The volumes that `close` and `grow` are asked for by name.

use std::path::Path;

use uuid::Uuid;

use super::error::CommandError;
use crate::disk::{DeviceFacts, Inventory};
use crate::state::State;

/// A known volume that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OpenVolume<'a> {
    /// Its disk.
    pub(super) disk: &'a DeviceFacts,
    pub(super) luks_uuid: Uuid,
}

/// Finds the known volumes that are open: those called one of `names`, or all if there are none.
///
/// # Errors
/// When no open volume has one of the names.
pub(super) fn open_volumes<'a>(
    state: &State,
    inventory: &'a Inventory,
    names: &[String],
) -> Result<Vec<OpenVolume<'a>>, CommandError> {
    let volumes = state.volumes.iter().map(|volume| volume.luks_uuid);
    let mut open: Vec<OpenVolume<'_>> = inventory
        .devices
        .iter()
        .flat_map(|disk| volumes.clone().map(move |luks_uuid| OpenVolume { disk, luks_uuid }))
        .filter(|volume| volume.disk.mapping_of(volume.luks_uuid).is_some())
        .collect();
    for name in names {
        if !open.iter().any(|volume| volume.is_called(name)) {
            let open = match open.as_slice() {
                [] => "none is open".to_owned(),
                open => open.iter().map(|volume| volume.disk.name.as_str()).collect::<Vec<_>>().join(", "),
            };
            return Err(CommandError::NoSuchVolume { name: name.clone(), open });
        }
    }
    open.retain(|volume| names.is_empty() || names.iter().any(|name| volume.is_called(name)));
    Ok(open)
}

impl OpenVolume<'_> {
    /// Whether a name from the command line is a name of the volume, its disk or its mapping.
    fn is_called(&self, name: &str) -> bool {
        let Self { disk, luks_uuid } = self;
        let path = Path::new(name);
        let mapping = disk.mapping_of(*luks_uuid);
        let mapper = mapping.and_then(|holder| holder.dm_name.as_deref());
        disk.is_called(name)
            || mapper == Some(name)
            || mapper.is_some_and(|mapper| path == Path::new("/dev/mapper").join(mapper))
            || mapping.is_some_and(|holder| holder.mounts.iter().any(|at| at == path))
            || luks_uuid.to_string() == name
    }
}
