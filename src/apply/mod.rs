//! Carries a plan out: the order of things and their durability, and nothing that plan could decide.
//!
//! Key, then state file, then disks. A volume is `committed` in the state file, durably, before it is mounted for the
//! first time; until then it holds no data, and the next run may begin again with it.
//!
//! May import: `config`, `disk`, `error`, `job`, `key`, `kms`, `luks2`, `plan`, `state`, `storage`.
//! Never: a decision on what may be done, a device, a report.

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use jiff::Timestamp;
use uuid::Uuid;

use crate::config::Config;
use crate::disk::Content;
use crate::error::chain;
use crate::job::{self, Answer, Basis, Host, HostError, Job, Target};
use crate::key::Passphrase;
use crate::kms::{Class, KeyService, KmsError};
use crate::luks2::{Flags, FormatSpec, HeaderPolicy, Layout, ProvenKeyslot};
use crate::plan::{Action, Change, Plan, Step};
use crate::state::{KeyRecord, Phase, State, StateDir, StateError, VERSION, VolumeRecord};
use crate::storage::MountSpec;

/// What became of a plan.
#[derive(Debug)]
pub struct Outcome {
    /// One result for each step of the plan, in its order.
    pub results: Vec<StepResult>,
    /// Why there was no key, when there was none.
    pub key_error: Option<KeyError>,
}

/// What became of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepResult {
    /// Encrypted, open, mounted.
    Formatted {
        /// LUKS UUID.
        luks_uuid: Uuid,
        /// What is worth a warning all the same.
        warning: Option<String>,
    },
    /// Opened or mounted or both.
    Unlocked {
        /// LUKS UUID.
        luks_uuid: Uuid,
        /// Whether its file system is marked with errors.
        filesystem_errors: bool,
        /// What is worth a warning all the same.
        warning: Option<String>,
    },
    /// Larger than it was.
    Grown,
    /// As large as its disk already.
    Unchanged,
    /// Not formatted: the disk is no longer what it was when the plan was made.
    Changed {
        /// What is on it now.
        content: Content,
    },
    /// No key, so nothing was tried.
    NoKey,
    /// Failed, for this reason.
    Failed {
        /// The reason, causes included.
        message: String,
    },
    /// No answer within the deadline.
    Hung {
        /// The same in words.
        message: String,
    },
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The key service said no, or nothing.
    #[error(transparent)]
    Service(#[from] KmsError),
    /// The state file could not be written.
    #[error(transparent)]
    State(#[from] StateError),
    /// KMS unwrapped something else than it had wrapped.
    #[error(
        "KMS key {key_arn} unwraps the new wrapped key to another data key than it gave with it; nothing was formatted, and the volumes made before are not concerned; run the command again, and if this repeats, check what answers at kms.endpoint_url"
    )]
    NotProven {
        /// The KMS key.
        key_arn: String,
    },
    /// The state file refers to a key that it does not hold.
    #[error("the state file has no key {0}")]
    Unrecorded(u32),
}

/// The step that opens the volume of a change, by index.
fn step_of(plan: &Plan, change: &Change) -> Option<usize> {
    let Change::Moved { luks_uuid: moved, .. } = change else { return None };
    plan.steps
        .iter()
        .position(|step| matches!(&step.action, Action::Unlock { luks_uuid, open: false, .. } if luks_uuid == moved))
}

/// Whether there is the key that opens the volume of a change.
fn has_key(plan: &Plan, change: &Change, keys: &Keys) -> bool {
    let step = step_of(plan, change).and_then(|at| plan.steps.get(at));
    step.is_some_and(|step| matches!(&step.action, Action::Unlock { key, .. } if keys.get(*key).is_some()))
}

/// What apply needs beside the plan.
#[derive(Debug)]
pub struct Apply<'a, K, H> {
    /// The configuration.
    pub config: &'a Config,
    /// The state directory, locked. `None` where the state must not be written.
    pub store: Option<&'a StateDir>,
    /// The key service.
    pub keys: &'a K,
    /// The machine.
    pub host: &'a H,
    /// This instance, where that is known.
    pub instance_id: Option<String>,
}

impl<K: KeyService, H: Host> Apply<'_, K, H> {
    /// Does what the plan says, on all disks at once. One that fails or hangs does not stop the others.
    pub async fn run(&self, plan: &Plan, state: State) -> Outcome {
        let mut state = state;
        // of what is to be opened, the record changes when it is
        let (moved, known): (Vec<_>, Vec<_>) = plan.changes.iter().partition(|change| step_of(plan, change).is_some());
        self.record(&known, &mut state);
        let mut keys = Keys::default();
        // together, so that a service that does not answer is waited for once
        let wanted = keys_to_unwrap(plan, &state);
        let unwrapped = join_all(wanted.iter().map(|id| self.unwrap(&state, *id))).await;
        for (id, result) in wanted.into_iter().zip(unwrapped) {
            keys.insert(id, result);
        }
        let mut key = None;
        if plan.steps.iter().any(|step| is_new(&step.action)) {
            match self.key_for_new_volumes(&mut state, &mut keys).await {
                Ok(found) => key = found,
                Err(e) => keys.fail(e),
            }
        }
        let intents = self.record_intents(plan, &mut state, key);
        // before the volume is used, so that a power cut does not leave the older copy the recorded one
        let before = state.clone();
        let moved: Vec<_> = moved.into_iter().filter(|change| has_key(plan, change, &keys)).collect();
        self.record(&moved, &mut state);
        let state = RefCell::new(state);
        let steps = plan.steps.iter().enumerate().map(async |(index, step)| {
            let result = match &step.action {
                Action::Format { .. } => match intents.as_ref().map(|intents| intents.get(&index)) {
                    Ok(Some(intent)) => self.format(step, intent, &state, &keys).await,
                    Ok(None) => StepResult::NoKey,
                    Err(reason) => StepResult::Failed { message: reason.clone() },
                },
                Action::Unlock { luks_uuid, key, open, .. } => match keys.get(*key) {
                    None if !open => StepResult::NoKey,
                    passphrase => self.unlock(step, *luks_uuid, *open, passphrase, &state).await,
                },
                Action::Grow { luks_uuid, key, mapping, .. } => match keys.get(*key) {
                    None if *mapping => StepResult::NoKey,
                    passphrase => self.grow(step, *luks_uuid, passphrase, &state).await,
                },
            };
            tracing::debug!(device = step.device.name, ?result, "step ended");
            result
        });
        let results = join_all(steps).await;
        // one that hangs may be mounted yet
        let is_unused = |change: &&&Change| {
            let result = step_of(plan, change).and_then(|at| results.get(at));
            !matches!(result, Some(StepResult::Unlocked { .. } | StepResult::Hung { .. }))
        };
        let unused: Vec<_> = moved.iter().filter(is_unused).copied().collect();
        self.undo(&unused, &before, &mut state.into_inner());
        Outcome { results, key_error: keys.error }
    }

    /// Has volumes that were not opened on another disk recorded where they were `before`.
    fn undo(&self, unused: &[&Change], before: &State, state: &mut State) {
        let mut next = state.clone();
        for change in unused {
            let Change::Moved { luks_uuid, .. } = change else { continue };
            let volume = next.volumes.iter_mut().find(|v| v.luks_uuid == *luks_uuid);
            if let (Some(volume), Some(was)) = (volume, before.volume(*luks_uuid)) {
                volume.serial.clone_from(&was.serial);
                volume.device.clone_from(&was.device);
                volume.former_serials.clone_from(&was.former_serials);
            }
        }
        self.save_changes(next, state);
    }

    /// Changes the state file as the plan says. Not being able to, the boot volume full say, keeps no volume closed: the next run
    /// finds the same.
    fn record(&self, changes: &[&Change], state: &mut State) {
        let mut next = state.clone();
        for change in changes {
            match change {
                Change::Forget { luks_uuid } => next.volumes.retain(|v| v.luks_uuid != *luks_uuid),
                Change::Moved { luks_uuid, serial, device } => {
                    let volume = next.volumes.iter_mut().find(|v| v.luks_uuid == *luks_uuid);
                    if let Some(volume) = volume {
                        let former = volume.serial.replace(serial.clone());
                        volume.former_serials.retain(|known| known != serial);
                        volume.former_serials.extend(former);
                        volume.device.clone_from(device);
                    }
                }
            }
        }
        self.save_changes(next, state);
    }

    fn save_changes(&self, next: State, state: &mut State) {
        if next == *state {
            return;
        }
        match self.save(&next) {
            Ok(()) => *state = next,
            Err(e) => tracing::warn!("could not update the state file: {}; the next run tries again", chain(e)),
        }
    }

    async fn unwrap(&self, state: &State, id: u32) -> Result<Passphrase, KeyError> {
        let record = state.key(id).ok_or(KeyError::Unrecorded(id))?;
        let data_key = self.keys.unwrap(&record.wrapped_key, &record.key_arn).await?;
        Ok(data_key.passphrase())
    }

    /// The key that new volumes are made with: the node's, or a new one where there is none, or where the state file came
    /// or may have come from another instance (an image or a snapshot), whose key must not get new volumes. `None` when the service has just
    /// failed to give it, and is not asked again.
    async fn key_for_new_volumes(&self, state: &mut State, keys: &mut Keys) -> Result<Option<u32>, KeyError> {
        // where only one of them is known, this may be any instance
        let same_instance = state.instance_id == self.instance_id;
        // one that nothing was made with yet, and of a KMS key that is no longer configured, never worked
        let configured = &self.config.kms.key_id;
        let abandoned = |key: &KeyRecord| {
            key.configured_key_id != *configured && !state.volumes.iter().any(|volume| volume.key == key.id)
        };
        if let Some(record) = state.keys.last().filter(|key| !abandoned(key))
            && same_instance
        {
            let id = record.id;
            if record.configured_key_id != *configured {
                tracing::warn!(
                    kms_key = record.key_arn,
                    "kms.key_id is {configured} now, but this node's data key is wrapped by {}, for new volumes too",
                    record.key_arn
                );
            }
            if !keys.known.contains_key(&id) {
                keys.insert(id, self.unwrap(state, id).await);
            }
            return Ok(keys.get(id).map(|_| id));
        }
        if keys.gave_up_waiting() {
            return Ok(None);
        }
        let generated = self.keys.generate().await?;
        let id = state.keys.iter().map(|key| key.id).max().unwrap_or(0) + 1;
        let mut next = state.clone();
        next.version = VERSION;
        next.keys.retain(|key| !abandoned(key));
        next.instance_id.clone_from(&self.instance_id);
        next.keys.push(KeyRecord {
            id,
            wrapped_key: generated.wrapped_key,
            configured_key_id: self.config.kms.key_id.clone(),
            key_arn: generated.key_arn.clone(),
            created: Timestamp::now(),
        });
        self.save(&next)?;
        *state = next;
        // proof, with what the disk now holds, before the first write to any volume
        let stored = match self.store {
            Some(store) => store.load()?,
            None => state.clone(),
        };
        let record = stored.key(id).ok_or(KeyError::Unrecorded(id))?;
        let unwrapped = self.keys.unwrap(&record.wrapped_key, &record.key_arn).await?;
        if !unwrapped.same_as(&generated.data_key) {
            // nothing was made with it, and nothing shall be
            state.keys.retain(|key| key.id != id);
            self.save(state)?;
            return Err(KeyError::NotProven { key_arn: generated.key_arn });
        }
        tracing::info!(kms_key = record.key_arn, "the node's data key is wrapped, stored and proven");
        keys.insert(id, Ok(unwrapped.passphrase()));
        Ok(Some(id))
    }

    fn save(&self, state: &State) -> Result<(), StateError> {
        self.store.map_or(Ok(()), |store| store.save(state))
    }

    /// Records every volume that is about to be formatted and has a key, in one durable write; by index of its step.
    fn record_intents(
        &self,
        plan: &Plan,
        state: &mut State,
        key: Option<u32>,
    ) -> Result<BTreeMap<usize, Intent>, String> {
        let mut next = state.clone();
        let mut intents = BTreeMap::new();
        for (index, step) in plan.steps.iter().enumerate() {
            let Action::Format { resume, basis, mount_point, filesystem } = &step.action else { continue };
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
                serial: step.device.serial.clone(),
                device: step.device.name.clone(),
                role: step.role,
                size: step.device.size,
                mount_point: mount_point.clone(),
                filesystem: *filesystem,
                header,
                phase: Phase::Intent,
                keyslot: None,
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
            self.save(&next).map_err(|e| format!("not formatted: {}", chain(e)))?;
            *state = next;
        }
        Ok(intents)
    }

    async fn format(&self, step: &Step, intent: &Intent, state: &RefCell<State>, keys: &Keys) -> StepResult {
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

    /// Changes the state file and, if that is durable, the state.
    fn update(&self, state: &RefCell<State>, change: impl FnOnce(&mut State)) -> Result<(), String> {
        let mut next = state.borrow().clone();
        change(&mut next);
        self.save(&next).map_err(chain)?;
        *state.borrow_mut() = next;
        Ok(())
    }

    /// How a new volume is to be encrypted.
    fn layout(&self, step: &Step) -> Layout {
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

    async fn unlock(
        &self,
        step: &Step,
        luks_uuid: Uuid,
        open: bool,
        key: Option<&Passphrase>,
        state: &RefCell<State>,
    ) -> StepResult {
        let Some(expected) = state.borrow().expected(luks_uuid) else { return unrecorded(luks_uuid) };
        let (mount_point, filesystem) = match &step.action {
            Action::Format { mount_point, filesystem, .. }
            | Action::Unlock { mount_point, filesystem, .. }
            | Action::Grow { mount_point, filesystem, .. } => (mount_point, *filesystem),
        };
        let options = &self.config.filesystem.options;
        let mount = mount_point.clone().map(|at| MountSpec { at, filesystem, options: options.clone() });
        let mapper = step.device.mapper_of(luks_uuid);
        let job = Job::Unlock(job::Unlock { target: Target::from(&step.device), expected, mapper, open, mount });
        match self.host.run(&step.device.name, job, key).await {
            Ok(Answer::Unlocked { keyslot, filesystem_errors, warning }) => {
                if let Some(keyslot) = keyslot {
                    self.record_keyslot(step, luks_uuid, &keyslot, state);
                }
                if let Some(warning) = &warning {
                    tracing::warn!(device = step.device.name, "{}: {warning}", step.device.name);
                }
                StepResult::Unlocked { luks_uuid, filesystem_errors, warning }
            }
            other => failure(other),
        }
    }

    /// Records the keyslot that has just opened, where another one is recorded or none: the volume was made by an earlier release,
    /// or somebody has changed the keyslot. Not being able to keeps no volume closed.
    fn record_keyslot(&self, step: &Step, luks_uuid: Uuid, keyslot: &ProvenKeyslot, state: &RefCell<State>) {
        if state.borrow().volume(luks_uuid).is_none_or(|volume| volume.keyslot.as_ref() == Some(keyslot)) {
            return;
        }
        let recorded = self.update(state, |s| {
            let volume = s.volumes.iter_mut().find(|v| v.luks_uuid == luks_uuid);
            volume.into_iter().for_each(|v| v.keyslot = Some(keyslot.clone()));
        });
        if let Err(message) = recorded {
            let device = &step.device.name;
            tracing::warn!(device, "{device}: its keyslot was not recorded, and 'health' cannot check it: {message}");
        }
    }

    /// Grows a volume, and then has the recorded size follow: until it does, the next run looks at the volume again.
    async fn grow(&self, step: &Step, luks_uuid: Uuid, key: Option<&Passphrase>, state: &RefCell<State>) -> StepResult {
        let Action::Grow { mapping, filesystem, mount_point, .. } = &step.action else {
            unreachable!("checked by the caller")
        };
        let Some(expected) = state.borrow().expected(luks_uuid) else { return unrecorded(luks_uuid) };
        let job = Job::Grow(job::Grow {
            target: Target::from(&step.device),
            expected,
            mapper: step.device.mapper_of(luks_uuid),
            mapping: *mapping,
            filesystem: *filesystem,
            mount_point: mount_point.clone(),
        });
        let result = match self.host.run(&step.device.name, job, key).await {
            Ok(Answer::Grown) => StepResult::Grown,
            Ok(Answer::Unchanged) => StepResult::Unchanged,
            other => return failure(other),
        };
        let size = step.device.size;
        if state.borrow().volume(luks_uuid).is_some_and(|volume| volume.size == size) {
            return result;
        }
        let recorded = self.update(state, |s| {
            s.volumes.iter_mut().filter(|v| v.luks_uuid == luks_uuid).for_each(|v| v.size = size);
        });
        match recorded {
            Ok(()) => result,
            Err(message) => StepResult::Failed { message: format!("grown, but its size was not recorded: {message}") },
        }
    }
}

fn unrecorded(luks_uuid: Uuid) -> StepResult {
    StepResult::Failed { message: format!("the state file does not say how {luks_uuid} was made") }
}

/// What the key service gave.
#[derive(Debug, Default)]
struct Keys {
    /// By id; `None` for one that it did not give.
    known: BTreeMap<u32, Option<Passphrase>>,
    /// The first reason it gave none.
    error: Option<KeyError>,
}

impl Keys {
    fn insert(&mut self, id: u32, result: Result<Passphrase, KeyError>) {
        let passphrase = result.map_err(|e| self.fail(e)).ok();
        self.known.insert(id, passphrase);
    }

    fn fail(&mut self, error: KeyError) {
        self.error.get_or_insert(error);
    }

    fn get(&self, id: u32) -> Option<&Passphrase> {
        self.known.get(&id)?.as_ref()
    }

    /// Whether the service was waited for until the deadline: another call would be waited for as long again.
    fn gave_up_waiting(&self) -> bool {
        let Some(KeyError::Service(e)) = &self.error else { return false };
        matches!(e.class(), Class::Transient | Class::KeyNotReady | Class::NoCredentials)
    }
}

fn failure(answer: Result<Answer, HostError>) -> StepResult {
    match answer {
        Ok(Answer::Failed { message }) => StepResult::Failed { message },
        Ok(other) => StepResult::Failed { message: format!("the worker process sent an unexpected answer: {other:?}") },
        Err(e @ HostError::Hung { .. }) => StepResult::Hung { message: chain(e) },
        Err(e) => StepResult::Failed { message: chain(e) },
    }
}

/// A volume that is about to be formatted.
#[derive(Debug)]
struct Intent {
    luks_uuid: Uuid,
    /// The record that its own took the place of.
    replaced: Option<VolumeRecord>,
}

/// Whether a plan needs a key to be carried out.
pub fn needs_key(plan: &Plan, state: &State) -> bool {
    !keys_to_unwrap(plan, state).is_empty() || plan.steps.iter().any(|step| is_new(&step.action))
}

/// Keys of volumes that have to be opened, or whose formatting is to be ended.
fn keys_to_unwrap(plan: &Plan, state: &State) -> BTreeSet<u32> {
    let key = |step: &Step| match &step.action {
        Action::Unlock { key, open: false, .. } | Action::Grow { key, mapping: true, .. } => Some(*key),
        Action::Format { basis: Basis::Unfinished { luks_uuid }, .. } => state.volume(*luks_uuid).map(|v| v.key),
        Action::Unlock { .. } | Action::Grow { .. } | Action::Format { .. } => None,
    };
    plan.steps.iter().filter_map(key).collect()
}

/// Whether a volume is to be made with the node's key, rather than with one that is recorded for it.
fn is_new(action: &Action) -> bool {
    match action {
        Action::Format { basis, .. } => !matches!(basis, Basis::Unfinished { .. }),
        Action::Unlock { .. } | Action::Grow { .. } => false,
    }
}

/// 4096 where the disk writes that much atomically, else what it calls a sector: an encryption sector that is larger than
/// what the disk writes at once can be torn by a power cut (`cryptsetup-luksFormat`(8), `--sector-size`).
fn safe_sector_size(step: &Step) -> u32 {
    let device = &step.device;
    if device.physical_block_size >= 4096 && device.size.is_multiple_of(4096) {
        4096
    } else {
        device.logical_block_size
    }
}
