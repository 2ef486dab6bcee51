//! Compares the node with what it should be, from a picture of the node and what the last run decided; pure.

#[cfg(test)]
mod tests;

use uuid::Uuid;

use crate::commands::{Picture, is_known};
use crate::config::{Config, Policy};
use crate::disk::{DeviceFacts, DiskKind, Holder, classify, is_shown};
use crate::plan::{Shortfall, disk_of, may_be_gone, may_be_taken, policy, record_of};
use crate::report::last::{Decided, Last};
use crate::state::closed::Closed;
use crate::state::{Phase, State, VolumeRecord, VolumeRole};

/// The properties of a disk whose change is a reason to run `provision` again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Disk {
    name: String,
    serial: Option<String>,
    diskseq: Option<u64>,
    size: u64,
    /// Whether something other than luks-agent uses it.
    in_use: bool,
}

/// The state of a known volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum VolumeState {
    /// Open, and mounted where it should be.
    Ready,
    /// Open, and not mounted.
    NotMounted,
    /// Not open.
    Locked,
    /// Not open, because somebody closed it.
    Closed,
    /// Its formatting was interrupted.
    Unfinished,
    /// Its disk is not attached.
    Missing,
}

/// What a look at the node found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    /// The disks. If they differ from those of the last run, `provision` runs again.
    pub(super) disks: Vec<Disk>,
    /// The known volumes.
    pub(super) volumes: Vec<(Uuid, VolumeState)>,
    /// Something is wrong that another run may fix.
    pub(super) differs: bool,
    /// Something is wrong that needs a person.
    pub(super) refused: bool,
    /// Every volume is open and mounted.
    pub(super) ready: bool,
}

/// A known volume, and its disk if that is attached.
struct Volume<'a> {
    record: &'a VolumeRecord,
    disk: Option<&'a DeviceFacts>,
    state: VolumeState,
}

impl<'a> Volume<'a> {
    fn of(picture: &'a Picture, record: &'a VolumeRecord, closed: &[Closed]) -> Self {
        let disk = disk_of(&picture.state, record, &picture.disks);
        let state = match (disk, disk.and_then(|facts| facts.mapping_of(record.luks_uuid))) {
            (None, _) => VolumeState::Missing,
            _ if record.phase == Phase::Intent => VolumeState::Unfinished,
            (Some(facts), Some(mapping)) => {
                let mounted = record.mount_point.as_ref().is_none_or(|at| mapping.mounts.contains(at));
                // a volume that carries the system is mounted where the system wants it, which counts as ready
                if mounted || facts.system.is_some() { VolumeState::Ready } else { VolumeState::NotMounted }
            }
            (Some(facts), None) if closed.iter().any(|closed| closed.is(record.luks_uuid, facts)) => {
                VolumeState::Closed
            }
            (Some(_), None) => VolumeState::Locked,
        };
        Self { record, disk, state }
    }

    fn is_ready(&self) -> bool {
        self.state == VolumeState::Ready
    }

    /// Whether something is wrong that another run may fix.
    fn is_wrong(&self) -> bool {
        matches!(self.state, VolumeState::NotMounted | VolumeState::Locked | VolumeState::Unfinished)
    }
}

impl Seen {
    /// Compares. `last` is the last `provision`, `boot` the last boot: a disk that it refused stays refused until somebody decides.
    pub(super) fn of(
        config: &Config,
        picture: &Picture,
        closed: &[Closed],
        last: Option<&Last>,
        boot: Option<&Last>,
    ) -> Self {
        let Picture { state, disks, orphans } = picture;
        let nothing = Decided::default();
        let decided = last.map_or(&nothing, |last| &last.decided);
        let volumes = state.volumes.iter().map(|record| Volume::of(picture, record, closed));
        let is_listed =
            |volume: &Volume<'_>| volume.state != VolumeState::Missing || is_expected(config, state, volume.record);
        let volumes: Vec<_> = volumes.filter(is_listed).collect();
        let undone = volumes.iter().any(|v| v.is_wrong() && v.disk.is_some_and(|facts| !decided.is_about(facts)));
        let new = disks.iter().any(|facts| is_new(config, state, facts) && !decided.is_about(facts));
        let behind = volumes.iter().any(|v| v.is_ready() && state.is_behind(v.record));
        let undecided = undone || new || *orphans || last.is_none_or(|last| last.again);
        let strange = disks
            .iter()
            .any(|facts| is_new(config, state, facts) && boot.is_some_and(|boot| boot.decided.has_refused(facts)));
        let settled = last.is_some_and(|last| last.is_done() || last.has_only_refused());
        let is_fine =
            |v: &Volume<'_>| v.is_ready() || v.is_wrong() && v.disk.is_some_and(|facts| decided.has_left(facts));
        Self {
            disks: disks.iter().filter(|facts| matters(config, facts)).map(|facts| disk(state, facts)).collect(),
            // a disk that could not be examined may be one to encrypt, so look again; the node stays as ready as it was
            // a volume that was away during a change of keys works, but its former key should go
            differs: undecided || behind || disks.iter().any(|facts| decided.could_not_examine(facts)),
            refused: disks.iter().any(|facts| decided.has_refused(facts) || decided.has_passed_over(facts)),
            ready: !undecided && settled && has_enough(config, &volumes) && !strange && volumes.iter().all(is_fine),
            volumes: volumes.into_iter().map(|volume| (volume.record.luks_uuid, volume.state)).collect(),
        }
    }
}

/// Whether as many volumes are ready as `[volumes.expect]` asks for.
fn has_enough(config: &Config, volumes: &[Volume<'_>]) -> bool {
    [VolumeRole::Ebs, VolumeRole::InstanceStore].into_iter().all(|role| {
        let ready = volumes.iter().filter(|volume| volume.record.role == role && volume.is_ready());
        Shortfall::of(config, role, ready.count()).is_none()
    })
}

/// Whether a volume should be attached.
fn is_expected(config: &Config, state: &State, record: &VolumeRecord) -> bool {
    let is_gone = record.role == VolumeRole::InstanceStore && may_be_gone(config, state, record);
    policy(config, record.role) == Policy::Encrypt && record.phase == Phase::Committed && !is_gone
}

/// Whether a disk should be encrypted and is not in the state file.
fn is_new(config: &Config, state: &State, facts: &DeviceFacts) -> bool {
    may_be_taken(config, facts) && record_of(state, facts).is_none()
}

/// Whether a disk is a reason for a run. Devices that the kernel makes from files, memory or other disks come and go.
fn matters(config: &Config, facts: &DeviceFacts) -> bool {
    facts.kind != DiskKind::Optical && is_shown(facts.kind, &classify(facts, &config.volumes.rules))
}

fn disk(state: &State, facts: &DeviceFacts) -> Disk {
    let ours = |holder: &Holder| is_known(state, holder);
    // a disk that carries the system is never examined, and its use changes all the time
    let in_use = facts.system.is_none() && (!facts.mounts.is_empty() || !facts.holders.iter().all(ours));
    Disk { name: facts.name.clone(), serial: facts.serial.clone(), diskseq: facts.diskseq, size: facts.size, in_use }
}

#[cfg(test)]
impl Disk {
    pub(super) fn sample(name: &str) -> Self {
        Self { name: name.to_owned(), serial: None, diskseq: Some(1), size: 1 << 30, in_use: false }
    }
}
