//! Formats a disk.

use std::cell::RefCell;

use jiff::Timestamp;

use super::context::Apply;
use super::intent::Intent;
use super::keys::Keys;
use super::outcome::{StepResult, failure};
use crate::disk::Content;
use crate::error::chain;
use crate::job::{self, Answer, Basis, Host, Job, Target};
use crate::kms::KeyService;
use crate::luks2::{Expected, FormatSpec, HeaderPolicy};
use crate::plan::{Format, Step, Unlock};
use crate::state::{Phase, State};

impl<K: KeyService, H: Host> Apply<'_, K, H> {
    /// Formats a disk, commits the volume to the state file, and mounts it.
    pub(super) async fn format(
        &self,
        step: &Step,
        format: &Format,
        intent: &Intent,
        state: &RefCell<State>,
        keys: &Keys,
    ) -> StepResult {
        let luks_uuid = intent.luks_uuid;
        let (key, expected, passphrase) = {
            let state = state.borrow();
            let Some(key) = state.volume(luks_uuid).map(|volume| volume.key) else { return StepResult::NoKey };
            let (Some(expected), Some(passphrase)) = (state.expected(luks_uuid), keys.get(key)) else {
                return StepResult::NoKey;
            };
            (key, expected, passphrase)
        };
        let job = Job::Format(self.format_job(step, format, intent, expected));
        let opened = match self.host.run(&step.device.name, job, &[passphrase]).await {
            Ok(Answer::Formatted { opened }) => opened,
            Ok(Answer::Changed { content }) => return self.forget(&format.basis, intent, content, state),
            other => return failure(other),
        };
        // in one write, so that after a crash the state file has both or neither
        let committed = self.update(state, |s| {
            if let Some(volume) = s.volumes.iter_mut().find(|v| v.luks_uuid == luks_uuid) {
                volume.phase = Phase::Committed;
                volume.keyslot = Some(opened.keyslot);
                volume.volume_key = opened.volume_key;
                volume.made = Some(Timestamp::now());
            }
        });
        if let Err(e) = committed {
            return StepResult::Failed { message: format!("formatted, but not mounted: {}", chain(e)) };
        }
        let Format { ref mount_point, filesystem, .. } = *format;
        let unlock = Unlock { luks_uuid, key, mount_point: mount_point.clone(), filesystem, is_open: true };
        let mounted = self.unlock(step, &unlock, None, state).await;
        if let StepResult::Unlocked { luks_uuid, warning, .. } = mounted {
            return StepResult::Formatted { luks_uuid, warning };
        }
        mounted
    }

    fn format_job(&self, step: &Step, format: &Format, intent: &Intent, expected: Expected) -> job::Format {
        let Format { basis, mount_point, filesystem, .. } = format;
        let layout = match expected.header {
            HeaderPolicy::Recorded(layout) => layout,
            HeaderPolicy::Possible => self.layout(step),
        };
        let had_one = intent.replaced.as_ref().is_some_and(|replaced| replaced.phase == Phase::Committed);
        let first_mount = match basis {
            // its mount point was found empty when the formatting started
            Basis::Unfinished { .. } => None,
            // its mount point was that of the volume which it replaces
            Basis::Blank { .. } | Basis::Wipe { .. } | Basis::Noise { .. } if had_one => None,
            Basis::Blank { .. } | Basis::Wipe { .. } | Basis::Noise { .. } => mount_point.clone(),
        };
        job::Format {
            target: Target::from(&step.device),
            basis: basis.clone(),
            first_mount,
            scan: self.config.volumes.scan(),
            spec: FormatSpec { expected, layout, instance_id: self.instance_id.clone() },
            filesystem: *filesystem,
        }
    }

    /// Removes the intent from the state file, because the disk is no longer what the plan was based on.
    fn forget(&self, basis: &Basis, intent: &Intent, content: Content, state: &RefCell<State>) -> StepResult {
        // it still is our half-formatted disk, although nobody can read it right now
        if matches!((basis, &content), (Basis::Unfinished { .. }, Content::Unknown { .. })) {
            return StepResult::Changed { content };
        }
        // the disk is not ours, and an intent left behind could make it look so; the volume that it was to replace may
        // come back
        let forgotten = self.update(state, |s| {
            s.volumes.retain(|v| v.luks_uuid != intent.luks_uuid);
            s.volumes.extend(intent.replaced.clone());
        });
        match forgotten {
            Ok(()) => StepResult::Changed { content },
            Err(e) => StepResult::Failed { message: chain(e) },
        }
    }
}
