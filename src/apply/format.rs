//! Formats a disk.

use std::cell::RefCell;

use super::context::Apply;
use super::intent::Intent;
use super::keys::Keys;
use super::outcome::{StepResult, failure};
use crate::disk::Content;
use crate::job::{self, Answer, Basis, Host, Job, Target};
use crate::kms::KeyService;
use crate::luks2::{FormatSpec, HeaderPolicy};
use crate::plan::{Action, Step};
use crate::state::{Phase, State};

impl<K: KeyService, H: Host> Apply<'_, K, H> {
    pub(super) async fn format(&self, step: &Step, intent: &Intent, state: &RefCell<State>, keys: &Keys) -> StepResult {
        let luks_uuid = intent.luks_uuid;
        let Action::Format { basis, filesystem, mount_point, .. } = &step.action else {
            unreachable!("checked by the caller")
        };
        let (expected, passphrase) = {
            let state = state.borrow();
            let key = state.volume(luks_uuid).and_then(|volume| keys.get(volume.key));
            let (Some(expected), Some(passphrase)) = (state.expected(luks_uuid), key) else {
                return StepResult::NoKey;
            };
            (expected, passphrase)
        };
        let layout = match expected.header {
            HeaderPolicy::Recorded(layout) => layout,
            HeaderPolicy::Possible => self.layout(step),
        };
        let had_one = intent.replaced.as_ref().is_some_and(|replaced| replaced.phase == Phase::Committed);
        let first_mount = match basis {
            // it was found empty when the work was begun
            Basis::Unfinished { .. } => None,
            // it was this node's before
            Basis::Blank { .. } | Basis::Wipe { .. } | Basis::Noise { .. } if had_one => None,
            Basis::Blank { .. } | Basis::Wipe { .. } | Basis::Noise { .. } => mount_point.clone(),
        };
        let job = Job::Format(job::Format {
            target: Target::from(&step.device),
            basis: basis.clone(),
            first_mount,
            scan: self.config.volumes.scan(),
            spec: FormatSpec { expected, layout, instance_id: self.instance_id.clone() },
            filesystem: *filesystem,
        });
        let keyslot = match self.host.run(&step.device.name, job, Some(passphrase)).await {
            Ok(Answer::Formatted { keyslot }) => keyslot,
            Ok(Answer::Changed { content }) => {
                // half formatted by us, it still is, although nobody can look just now
                if matches!((basis, &content), (Basis::Unfinished { .. }, Content::Unknown { .. })) {
                    return StepResult::Changed { content };
                }
                // it is not ours after all, and an intent left behind could make it look so; what it was to replace, it
                // may be after all
                let forgotten = self.update(state, |s| {
                    s.volumes.retain(|v| v.luks_uuid != luks_uuid);
                    s.volumes.extend(intent.replaced.clone());
                });
                return match forgotten {
                    Ok(()) => StepResult::Changed { content },
                    Err(message) => StepResult::Failed { message },
                };
            }
            other => return failure(other),
        };
        // in one write, so that a crash leaves both or neither
        let committed = self.update(state, |s| {
            if let Some(volume) = s.volumes.iter_mut().find(|v| v.luks_uuid == luks_uuid) {
                volume.phase = Phase::Committed;
                volume.keyslot = Some(keyslot);
            }
        });
        if let Err(message) = committed {
            return StepResult::Failed { message: format!("formatted, but not mounted: {message}") };
        }
        let mounted = self.unlock(step, luks_uuid, true, None, state).await;
        if let StepResult::Unlocked { luks_uuid, warning, .. } = mounted {
            return StepResult::Formatted { luks_uuid, warning };
        }
        mounted
    }
}
