//! Intents: records of volumes that are about to be formatted.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::context::Apply;
use crate::job::{Basis, Host};
use crate::kms::KeyService;
use crate::luks2::{Flags, HeaderPolicy, Layout};
use crate::plan::{Action, Format, Plan, Step};
use crate::state::{Phase, State, StateError, VolumeRecord};

/// A volume that is about to be formatted.
#[derive(Debug)]
pub(super) struct Intent {
    pub(super) luks_uuid: Uuid,
    /// The record that the intent replaced.
    pub(super) replaced: Option<VolumeRecord>,
}

impl<K: KeyService, H: Host> Apply<'_, K, H> {
    /// Records every volume that is about to be formatted and has a key, in one durable write. Returns the intents by
    /// index of the step.
    pub(super) fn record_intents(
        &self,
        plan: &Plan,
        state: &mut State,
        key: Option<u32>,
    ) -> Result<BTreeMap<usize, Intent>, StateError> {
        let mut next = state.clone();
        let mut intents = BTreeMap::new();
        for (index, step) in plan.steps.iter().enumerate() {
            let Action::Format(Format { resume, basis, mount_point, filesystem }) = &step.action else { continue };
            let luks_uuid = resume.unwrap_or_else(Uuid::new_v4);
            let header = HeaderPolicy::Recorded(self.layout(step));
            let (made_with, replaced) = match basis {
                // its header may have a keyslot already
                Basis::Unfinished { luks_uuid } => (next.volume(*luks_uuid).map(|v| (v.key, v.header)), None),
                Basis::Blank { replaces, .. } | Basis::Wipe { replaces, .. } => {
                    (key.map(|key| (key, header)), *replaces)
                }
                Basis::Noise { .. } => (key.map(|key| (key, header)), None),
            };
            let Some((key, header)) = made_with else { continue };
            let record = VolumeRecord {
                luks_uuid,
                key,
                key_change: None,
                volume_key_change: None,
                serial: step.device.serial.clone(),
                device: step.device.name.clone(),
                role: step.role,
                size: step.device.size,
                mount_point: mount_point.clone(),
                filesystem: *filesystem,
                header,
                phase: Phase::Intent,
                keyslot: None,
                volume_key: None,
                made: None,
                former_serials: Vec::new(),
            };
            let outdated = |v: &VolumeRecord| {
                v.luks_uuid == luks_uuid || (v.phase == Phase::Intent && v.identity() == record.identity())
            };
            next.volumes.retain(|v| !outdated(v));
            let at = next.volumes.iter().position(|v| Some(v.luks_uuid) == replaced);
            let replaced = at.map(|at| next.volumes.remove(at));
            next.volumes.push(record);
            intents.insert(index, Intent { luks_uuid, replaced });
        }
        if next != *state {
            self.save(&next)?;
            *state = next;
        }
        Ok(intents)
    }

    /// Returns the encryption of a new volume.
    pub(super) fn layout(&self, step: &Step) -> Layout {
        let luks = &self.config.luks;
        Layout {
            cipher: luks.cipher,
            key_size: luks.key_size,
            sector_size: luks.sector_size.unwrap_or_else(|| safe_sector_size(step)),
            flags: Flags {
                discards: luks.discards,
                no_read_workqueue: luks.no_read_workqueue,
                no_write_workqueue: luks.no_write_workqueue,
            },
        }
    }
}

/// Returns 4096 if the disk writes that much atomically, otherwise its logical block size: a power cut can tear an
/// encryption sector that is larger than what the disk writes at once (`cryptsetup-luksFormat`(8), `--sector-size`).
fn safe_sector_size(step: &Step) -> u32 {
    let device = &step.device;
    if device.physical_block_size >= 4096 && device.size.is_multiple_of(4096) {
        4096
    } else {
        device.logical_block_size
    }
}
