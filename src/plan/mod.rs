//! What is to be done with each disk, and why: pure, so that every refusal can be tested without a disk.
//!
//! May import: `config`, `disk`, `job`, `luks2`, `state`, `storage`.
//! Never: a file, a clock, the network; nor `worker`, which does not import it either.

mod ciphers;
mod expect;
mod growth;
mod mount_points;
mod owner;
#[cfg(test)]
mod tests;
mod unknown;
mod words;

use std::collections::BTreeMap;
use std::path::PathBuf;

use uuid::Uuid;

use crate::config::{Config, Noise, Policy, WhenNotBlank};
use crate::disk::{Bytes, Content, DeviceFacts, Inventory, MatchRule, Role, RuleRole, classify};
use crate::job::Basis;
use crate::luks2::DATA_OFFSET;
use crate::state::{Phase, State, VolumeRecord, VolumeRole};
use crate::storage::FilesystemKind;
pub use ciphers::needed_ciphers;
pub use expect::{Shortfall, may_be_gone};
use growth::{outgrown, shrunk};
use mount_points::MountPoints;
use owner::{Owner, Owners, ignored_by_rule};
pub use owner::{disk_of, is_ignored, locked_out, record_of};
use unknown::restore;
pub use unknown::{UnknownVolume, Whose, has_our_name, may_hold_ours, unknown_mapping, unknown_volume, wants_header};
use words::{in_use, names};

/// Whether formatting is allowed at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Unlock what is known, format what is new and blank.
    Provision,
    /// Unlock what is known; never format. Disks that are not the node's are left alone, whatever is on them.
    Unlock,
    /// Grow what is open to the size of its disk, and nothing else. No disk is looked at for it.
    Grow,
}

/// What is to be done; `apply` decides nothing beyond it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Work, in the order of the disks.
    pub steps: Vec<Step>,
    /// What is not done although it could be expected, and why.
    pub refusals: Vec<Refusal>,
    /// Disks that are not the agent's business, and known volumes that need nothing.
    pub left: Vec<Left>,
    /// How the state file is to follow what was found, whatever becomes of the steps.
    pub changes: Vec<Change>,
    /// Of which roles there are fewer volumes than the configuration asks for; each has its refusal, too.
    pub shortfalls: Vec<Shortfall>,
}

/// How the record of a known volume is to follow what was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It is of instance store that is gone and not expected again.
    Forget {
        /// Its LUKS UUID.
        luks_uuid: Uuid,
    },
    /// It is used on another disk than before, one made from a snapshot of it say, and that is its disk from now on.
    Moved {
        /// Its LUKS UUID.
        luks_uuid: Uuid,
        /// Serial number of the disk.
        serial: String,
        /// Kernel name of the disk.
        device: String,
    },
}

impl Plan {
    /// Makes nothing of the refusals of disks that are not the node's: they are named, and count no more.
    pub fn leave_strangers(&mut self) {
        let strangers = self.refusals.extract_if(.., |refusal| refusal.stranger);
        self.left.extend(strangers.map(|Refusal { subject, evidence, .. }| {
            let because = format!("not one of this node's volumes, left alone: {evidence}");
            Left { subject, because, volume: None }
        }));
    }
}

/// Work on one disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The disk.
    pub device: DeviceFacts,
    /// What it is.
    pub role: VolumeRole,
    /// What to do.
    pub action: Action,
}

/// The things that can be done with a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Encrypt it, then open and mount it.
    Format {
        /// The record of an earlier attempt that did not end, to be taken up.
        resume: Option<Uuid>,
        /// Why this may be done.
        basis: Basis,
        /// Where to mount it.
        mount_point: Option<PathBuf>,
        /// What to make on it.
        filesystem: FilesystemKind,
    },
    /// Open it unless it is open, mount it unless it is mounted.
    Unlock {
        /// Its LUKS UUID.
        luks_uuid: Uuid,
        /// Id of the key that opens it.
        key: u32,
        /// Where to mount it.
        mount_point: Option<PathBuf>,
        /// What is on it.
        filesystem: FilesystemKind,
        /// Whether the mapping is there already, so that no key is needed.
        open: bool,
    },
    /// Grow an open volume to the size of its disk: the mapping, then the file system.
    Grow {
        /// Its LUKS UUID.
        luks_uuid: Uuid,
        /// Id of the key that opens it.
        key: u32,
        /// Where its file system is mounted; `None` where it has none.
        mount_point: Option<PathBuf>,
        /// What is on it.
        filesystem: FilesystemKind,
        /// Size of the disk in bytes when the volume was made or last grown.
        from: u64,
        /// Whether the mapping is to grow too, for which the key is needed: it has the size of the disk already where that had
        /// grown before the volume was opened.
        mapping: bool,
    },
}

/// Something that is not done, for safety or because something is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which disk; or the disk that should be there.
    pub subject: Subject,
    /// What was found.
    pub evidence: String,
    /// What to do about it.
    pub remedy: String,
    /// Whether a known volume is not what it should be; otherwise it is a refusal to format for safety.
    pub known: bool,
    /// Whether it is about a disk that neither the state file nor what is on it connects with this node.
    pub stranger: bool,
}

/// A disk that needs no work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// Which disk.
    pub subject: Subject,
    /// Why there is nothing to do.
    pub because: String,
    /// Set when it is a known volume that is open and, if it should be, mounted.
    pub volume: Option<VolumeRecord>,
}

/// What a row of a report is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Kernel name of the disk, `None` when it is not there.
    pub device: Option<String>,
    /// Its role, or the recorded one.
    pub role: String,
    /// Serial number.
    pub serial: Option<String>,
    /// Size in bytes.
    pub size: u64,
    /// What was found on it, if it was opened.
    pub content: Option<Content>,
}

impl Subject {
    /// The row of a disk.
    pub fn of(facts: &DeviceFacts, role: &Role) -> Self {
        Self {
            device: Some(facts.name.clone()),
            role: role.to_string(),
            serial: facts.serial.clone(),
            size: facts.size,
            content: facts.content.clone(),
        }
    }
}

/// Decides what to do with every disk. `inventory` has the content of the disks that are free to be opened.
pub fn plan(mode: Mode, config: &Config, state: &State, inventory: &Inventory) -> Plan {
    // by serial number, so that neither mount points nor words depend on how the kernel numbered the disks
    let mut inventory = inventory.clone();
    inventory.devices.sort_by(|a, b| by_serial(a).cmp(&by_serial(b)));
    let owners = Owners { state, inventory: &inventory, rules: &config.volumes.rules };
    let successors = expect::successors(config, &owners, |facts| match &facts.content {
        Some(Content::Blank { .. }) => true,
        Some(content) => is_wipeable(content) && may_wipe(mode, config, state, facts, VolumeRole::InstanceStore),
        None => false,
    });
    let mut planner = Planner {
        mode,
        config,
        owners,
        mount_points: MountPoints::new(&owners, &config.filesystem.mount_base),
        successors,
        plan: Plan::default(),
    };
    for facts in &inventory.devices {
        planner.device(facts);
    }
    planner.missing();
    if mode != Mode::Grow {
        planner.shortfalls();
    }
    if mode == Mode::Unlock {
        planner.plan.leave_strangers();
    }
    planner.plan
}

/// What the configuration says of volumes of a role.
pub fn policy(config: &Config, role: VolumeRole) -> Policy {
    match role {
        VolumeRole::Ebs => config.volumes.ebs,
        VolumeRole::InstanceStore => config.volumes.instance_store,
    }
}

/// Whether the configuration lets a disk be overwritten. Never one that held a known volume, whatever is on it now.
fn may_wipe(mode: Mode, config: &Config, state: &State, facts: &DeviceFacts, role: VolumeRole) -> bool {
    let known = |v: &VolumeRecord| v.phase == Phase::Committed && v.is_for(facts);
    role == VolumeRole::InstanceStore
        && mode == Mode::Provision
        && config.volumes.when_not_blank == WhenNotBlank::WipeInstanceStore
        && !state.volumes.iter().any(known)
}

/// What may be overwritten where the configuration says so: nothing that is luks-agent's, nothing that cannot be read.
fn is_wipeable(content: &Content) -> bool {
    let is_data = matches!(content, Content::Noise { .. } | Content::Unrecognised { .. });
    is_data || matches!(content, Content::Foreign { .. } | Content::Luks2 { token: None, .. })
}

/// Whether noise counts as never written: on an EBS volume that no known volume was on, with a serial number, by which the state file
/// would know it again.
fn may_take_noise(mode: Mode, config: &Config, state: &State, facts: &DeviceFacts, role: VolumeRole) -> bool {
    let known = |v: &VolumeRecord| v.phase == Phase::Committed && v.is_for(facts);
    mode == Mode::Provision
        && !state.volumes.iter().any(known)
        && role == VolumeRole::Ebs
        && facts.serial.is_some()
        && config.volumes.noise == Noise::FormatEbs
}

/// What to do about a disk with noise on it.
fn take_or_ignore(facts: &DeviceFacts, role: VolumeRole) -> String {
    match role {
        VolumeRole::Ebs if facts.serial.is_some() => format!(
            "blocks never written of a volume with EBS encryption read so, and encrypted data without a header do: if it is new, set volumes.noise = \"format-ebs\", and see the README for what that risks; or {}",
            wipe_or_ignore(facts)
        ),
        VolumeRole::Ebs | VolumeRole::InstanceStore => wipe_or_ignore(facts),
    }
}

fn by_serial(facts: &DeviceFacts) -> impl Ord {
    (facts.serial.is_none(), &facts.serial, &facts.name)
}

/// Whether a worker should open the disk to see what is on it: only what could be a target and is free.
pub fn wants_probe(config: &Config, facts: &DeviceFacts) -> bool {
    may_be_taken(config, facts) && facts.holders.is_empty() && facts.mounts.is_empty()
}

/// Whether the configuration says to encrypt a disk, if it is blank.
pub fn may_be_taken(config: &Config, facts: &DeviceFacts) -> bool {
    let policy = match classify(facts, &config.volumes.rules) {
        Role::Ebs => policy(config, VolumeRole::Ebs),
        Role::InstanceStore => policy(config, VolumeRole::InstanceStore),
        Role::Boot { .. } | Role::Unclear { .. } | Role::Ignored { .. } => Policy::Ignore,
    };
    policy == Policy::Encrypt
}

const CHECK_VOLUME: &str = "nothing was changed: check that the right volume is attached";

const CHECK_READABLE: &str = "it is not touched while it cannot be read: check the volume, then try again";

const DETACH_ONE: &str = "detach one of them, or add a [[volumes.match]] rule with path and role = \"ignore\" for one";

fn same_serial(facts: &DeviceFacts, twins: &[&DeviceFacts]) -> String {
    let serial = facts.identity();
    format!("it has the serial number of {}, {serial}: they may be one disk", names(twins.iter().copied()))
}

/// What to do about a disk of which nobody says what it is.
pub fn name_it(facts: &DeviceFacts) -> String {
    let path = facts.path.display();
    format!(
        "add a [[volumes.match]] rule with path = \"{path}\" and role = \"ebs\" to have it encrypted if it is blank, or role = \"ignore\" to leave it as it is"
    )
}

/// What to do about a disk that is not blank.
fn wipe_or_ignore(facts: &DeviceFacts) -> String {
    let path = facts.path.display();
    format!(
        "if it holds nothing you need, make it blank with 'wipefs --all {path}' and 'blkdiscard --zeroout {path}'; otherwise add a [[volumes.match]] rule with role = \"ignore\""
    )
}

/// Why no volume can be made on a disk as the configuration has it.
fn unfit(config: &Config, facts: &DeviceFacts) -> Option<(String, String)> {
    let ignore = "or add a [[volumes.match]] rule with role = \"ignore\"";
    if facts.size < 2 * DATA_OFFSET {
        let evidence = format!("it has {}, and a LUKS2 header alone takes {}", Bytes(facts.size), Bytes(DATA_OFFSET));
        return Some((evidence, format!("attach a disk of {} at least, {ignore}", Bytes(2 * DATA_OFFSET))));
    }
    let sector = config.luks.sector_size.filter(|sector| !facts.size.is_multiple_of(u64::from(*sector)))?;
    Some((
        format!("its size, {} bytes, is not a multiple of luks.sector_size, {sector}", facts.size),
        format!("take luks.sector_size out of the configuration, so that each disk gets one that fits, {ignore}"),
    ))
}

/// That a rule which says to ignore a disk by a link of udev's may mean this one, whose links are not there.
fn unresolved_ignore(config: &Config, inventory: &Inventory, facts: &DeviceFacts) -> Option<(String, String)> {
    let means_another = |rule: &&MatchRule| inventory.devices.iter().any(|other| rule.matches(other));
    // the first rule that matches decides
    let earlier = config.volumes.rules.iter().take_while(|rule| !rule.matches(facts));
    let ignores = earlier.filter(|rule| rule.role == RuleRole::Ignore);
    let link = ignores.filter(|rule| !means_another(rule)).find_map(|rule| rule.may_mean(facts))?;
    Some((
        format!("a [[volumes.match]] rule says to ignore {link}, which does not exist, and it may be this disk"),
        "see whether 'udevadm settle' makes the link, or name the disk by its serial number in the rule".to_owned(),
    ))
}

struct Planner<'a> {
    mode: Mode,
    config: &'a Config,
    owners: Owners<'a>,
    mount_points: MountPoints<'a>,
    /// Which volume that is gone a new disk takes the place of, by the name of the disk.
    successors: BTreeMap<String, &'a VolumeRecord>,
    plan: Plan,
}

impl Planner<'_> {
    fn device(&mut self, facts: &DeviceFacts) {
        let role = classify(facts, &self.config.volumes.rules);
        let subject = Subject::of(facts, &role);
        if let Some(volume) = self.owners.mapping_itself(facts) {
            return self.leave(subject, format!("the open mapping of volume {}", volume.luks_uuid));
        }
        let owner = self.owners.of(facts);
        let role = match role {
            Role::Boot { because } | Role::Ignored { because } => {
                return self.no_target(facts, subject, owner, because);
            }
            Role::Unclear { because } => return self.unclear(facts, subject, owner, because),
            Role::Ebs => VolumeRole::Ebs,
            Role::InstanceStore => VolumeRole::InstanceStore,
        };
        if self.policy(role) == Policy::Ignore {
            return self.leave(subject, "the configuration says ignore".to_owned());
        }
        match (owner, owner.record().map(|record| record.phase)) {
            (Owner::Open(record), Some(Phase::Committed)) => self.open(facts, subject, role, record),
            (_, phase) if self.mode == Mode::Grow => {
                self.not_open(subject, owner.record().filter(|_| phase == Some(Phase::Committed)))
            }
            (Owner::Header(record), Some(Phase::Committed)) => self.header(facts, subject, role, record),
            (Owner::Identity(record), Some(Phase::Committed)) => self.lost(facts, subject, role, record),
            (Owner::Open(record) | Owner::Header(record) | Owner::Identity(record), _) => {
                self.unfinished(facts, subject, role, record);
            }
            (Owner::Nobody, _) => {
                let before = self.plan.refusals.len();
                self.unknown(facts, subject, role);
                let ours = self.unknown_volume(facts).is_some_and(|volume| volume.whose != Whose::Other);
                let stranger = !ours && !self.successors.contains_key(&facts.name);
                self.plan.refusals[before..].iter_mut().for_each(|refusal| refusal.stranger = stranger);
            }
        }
    }

    fn may_take_noise(&self, facts: &DeviceFacts, role: VolumeRole) -> bool {
        may_take_noise(self.mode, self.config, self.owners.state, facts, role)
    }

    fn policy(&self, role: VolumeRole) -> Policy {
        policy(self.config, role)
    }

    /// A disk that carries the system or is ignored. One of ours is not forgotten because of it: swap or `/usr` on an open
    /// volume makes its disk carry the system.
    fn no_target(&mut self, facts: &DeviceFacts, subject: Subject, owner: Owner<'_>, because: String) {
        let Some(record) = owner.record().filter(|record| record.phase == Phase::Committed) else {
            return self.leave(subject, because);
        };
        if ignored_by_rule(&self.config.volumes.rules, facts) || self.policy(record.role) == Policy::Ignore {
            return self.leave(subject, because);
        }
        if facts.mapping_of(record.luks_uuid).is_some() {
            return self.open(facts, subject, record.role, record);
        }
        self.refuse(
            subject,
            true,
            format!("known volume, LUKS UUID {}, is on a disk that is left alone: {because}", record.luks_uuid),
            "if it is the right disk, put right what keeps it from being used; otherwise add a [[volumes.match]] rule with role = \"ignore\"".to_owned(),
        );
    }

    /// A disk that may be an EBS volume. It is not encrypted on a guess, and the node does not pass for encrypted while it is there.
    fn unclear(&mut self, facts: &DeviceFacts, subject: Subject, owner: Owner<'_>, because: String) {
        let is_known = owner.record().is_some_and(|record| record.phase == Phase::Committed);
        if is_known || self.mode == Mode::Grow || self.config.volumes.ebs == Policy::Ignore {
            return self.no_target(facts, subject, owner, because);
        }
        match self.unknown_volume(facts) {
            Some(UnknownVolume { evidence, remedy, .. }) => self.refuse(subject, false, evidence, remedy),
            None => {
                self.refuse(subject, false, because, name_it(facts));
                self.plan.refusals.last_mut().into_iter().for_each(|refusal| refusal.stranger = true);
            }
        }
    }

    /// A known volume that is open.
    fn open(&mut self, facts: &DeviceFacts, subject: Subject, role: VolumeRole, record: &VolumeRecord) {
        let Some(mapping) = facts.mapping_of(record.luks_uuid) else { return self.not_open(subject, Some(record)) };
        if let Some((evidence, remedy)) = shrunk(facts, mapping) {
            return self.refuse(subject, true, evidence, remedy);
        }
        // every volume is looked at when it is asked for: without a sign of it here, a file system can be smaller than its
        // mapping, such as one restored from an older snapshot
        if self.mode == Mode::Grow {
            return match self.growth(facts, record, mapping) {
                Ok(action) => self.plan.steps.push(Step { device: facts.clone(), role, action }),
                Err((known, evidence, remedy)) => self.refuse(subject, known, evidence, remedy),
            };
        }
        let mount_point = self.mount_points.of(record);
        let mounts = &mapping.mounts;
        let (because, mount_point) = match (&mount_point, &facts.system) {
            (None, _) => ("open".to_owned(), None),
            (Some(at), _) if mounts.contains(at) => (format!("open, mounted at {}", at.display()), mount_point),
            (Some(at), Some(system)) => (format!("open, but not mounted at {}: it {system}", at.display()), None),
            (Some(_), None) => return self.unlock(facts, role, record, true),
        };
        self.follow(facts, role, record);
        if self.mode == Mode::Provision
            && self.config.volumes.grow
            && outgrown(facts, record, mapping)
            && let Ok(action) = self.growth(facts, record, mapping)
        {
            return self.plan.steps.push(Step { device: facts.clone(), role, action });
        }
        let volume = Some(VolumeRecord { mount_point, ..record.clone() });
        self.plan.left.push(Left { subject, because, volume });
    }

    /// A disk with the header of a known volume.
    fn header(&mut self, facts: &DeviceFacts, subject: Subject, role: VolumeRole, record: &VolumeRecord) {
        let luks_uuid = record.luks_uuid;
        let others: Vec<_> = self.owners.elsewhere(facts, record).collect();
        let original = |other: &&&DeviceFacts| record.is_for(other);
        if let Some(open) = others.iter().find(|other| other.mapping_of(luks_uuid).is_some()) {
            return self.refuse(
                subject,
                false,
                format!("its header is a copy: LUKS UUID {luks_uuid} is open on {}", open.name),
                "detach the copy".to_owned(),
            );
        }
        if let Some(other) = others.iter().find(original).filter(|_| !record.is_for(facts)) {
            return self.refuse(
                subject,
                false,
                format!("its header is a copy: LUKS UUID {luks_uuid} is on {}, where it was last used", other.name),
                format!("detach the copy; or detach {}, if the copy is what you want", other.name),
            );
        }
        if !others.is_empty() && (!record.is_for(facts) || others.iter().any(|other| record.is_for(other))) {
            return self.refuse(
                subject,
                true,
                format!(
                    "LUKS UUID {luks_uuid} is also on {}, and nothing tells which of them is the volume",
                    names(others)
                ),
                "detach all but the one that you want".to_owned(),
            );
        }
        let unseen = |other: &&DeviceFacts| matches!(other.content, None | Some(Content::Unknown { .. }));
        let original = self.owners.others(facts).find(|other| record.is_for(other) && unseen(other));
        if let Some(original) = original.filter(|_| record.serial.is_some() && !record.is_for(facts)) {
            return self.refuse(
                subject,
                true,
                format!(
                    "its header may be a copy: LUKS UUID {luks_uuid} was last used on {}, which could not be examined",
                    original.name
                ),
                format!("release or repair {0}; or detach {0} if this copy is what you want", original.name),
            );
        }
        self.unlock(facts, role, record, false);
    }

    /// A volume is on the disk that it was used on last: should the one that it was made for come back, it has older data.
    fn follow(&mut self, facts: &DeviceFacts, role: VolumeRole, record: &VolumeRecord) {
        let Some(serial) = &facts.serial else { return };
        let others = self.owners.state.volumes.iter().filter(|v| v.luks_uuid != record.luks_uuid);
        let is_taken = others.into_iter().any(|v| v.serial.as_ref() == Some(serial));
        if record.serial.as_ref() == Some(serial) || role != record.role || is_taken {
            return;
        }
        self.plan.changes.push(Change::Moved {
            luks_uuid: record.luks_uuid,
            serial: serial.clone(),
            device: facts.name.clone(),
        });
    }

    fn unlock(&mut self, facts: &DeviceFacts, role: VolumeRole, record: &VolumeRecord, open: bool) {
        let missing = ciphers::missing(self.owners.inventory, record.header.encryption()).filter(|_| !open);
        if let Some((evidence, remedy)) = missing {
            let subject = Subject::of(facts, &classify(facts, &self.config.volumes.rules));
            return self.refuse(subject, true, evidence, remedy);
        }
        self.follow(facts, role, record);
        let action = Action::Unlock {
            luks_uuid: record.luks_uuid,
            key: record.key,
            mount_point: self.mount_points.of(record),
            filesystem: record.filesystem,
            open,
        };
        self.plan.steps.push(Step { device: facts.clone(), role, action });
    }

    /// The disk of a known volume, without its header.
    fn lost(&mut self, facts: &DeviceFacts, subject: Subject, role: VolumeRole, record: &VolumeRecord) {
        let luks_uuid = record.luks_uuid;
        let twins = self.owners.twins(facts);
        if !twins.is_empty() {
            return self.refuse(
                subject,
                true,
                format!("known volume, LUKS UUID {luks_uuid} expected, but {}", same_serial(facts, &twins)),
                DETACH_ONE.to_owned(),
            );
        }
        // what either says is EBS does not come back blank
        let kind = if record.role == VolumeRole::Ebs { VolumeRole::Ebs } else { role };
        let (evidence, remedy) = match (&facts.content, kind, self.mode) {
            (Some(Content::Blank { evidence }), VolumeRole::InstanceStore, Mode::Provision) => {
                // a name says little while the volume may be where nobody could look
                let hidden = self.owners.may_be_hidden(facts, record);
                let replaces = Some(luks_uuid).filter(|_| !hidden);
                let mount_point = self.mount_points.of(record).filter(|_| !hidden);
                let basis = Basis::Blank { evidence: *evidence, replaces };
                return self.format(facts, subject, role, None, basis, mount_point);
            }
            (Some(Content::Blank { .. }), VolumeRole::InstanceStore, Mode::Unlock) => (
                format!("known instance store volume, LUKS UUID {luks_uuid}, came back blank"),
                "instance store is lost at a stop: run 'luks-agent provision' to format it again",
            ),
            (Some(Content::Blank { evidence }), VolumeRole::Ebs, _) => (
                format!("known EBS volume, LUKS UUID {luks_uuid}, came back blank ({evidence})"),
                "restore it from a snapshot; it is not formatted again while the state file knows it",
            ),
            (Some(content @ Content::Unknown { .. }), _, _) => {
                (format!("known volume, LUKS UUID {luks_uuid} expected, but {}", content), CHECK_READABLE)
            }
            (Some(content), _, _) => {
                (format!("known volume, LUKS UUID {luks_uuid} expected, but found: {}", content), CHECK_VOLUME)
            }
            (None, _, _) => (
                format!("known volume, LUKS UUID {luks_uuid} expected, but {}", in_use(facts)),
                "release it, then try again",
            ),
        };
        self.refuse(subject, true, evidence, remedy.to_owned());
    }

    /// A volume whose formatting began and was never recorded as ended.
    fn unfinished(&mut self, facts: &DeviceFacts, subject: Subject, role: VolumeRole, record: &VolumeRecord) {
        if self.mode == Mode::Unlock {
            return self.leave(
                subject,
                "its formatting was interrupted, so it holds no data; 'luks-agent provision' finishes it".to_owned(),
            );
        }
        let luks_uuid = record.luks_uuid;
        if let Some((evidence, remedy)) = self.not_the_unfinished(facts, record) {
            return self.refuse(subject, false, evidence, remedy);
        }
        let resume = Some(luks_uuid);
        let mount_point = self.mount_points.of(record);
        if let Some(mapping) = facts.mapping_of(luks_uuid) {
            if facts.holders.len() == 1 && facts.mounts.is_empty() && mapping.mounts.is_empty() && !mapping.held {
                return self.format(facts, subject, role, resume, Basis::Unfinished { luks_uuid }, mount_point);
            }
            return self.refuse(
                subject,
                false,
                format!("its formatting is not recorded as finished, yet {}", in_use(facts)),
                "unmount and release it if it holds nothing you need, then run 'luks-agent provision'".to_owned(),
            );
        }
        match &facts.content {
            Some(Content::Luks2 { luks_uuid: found, .. }) if *found == luks_uuid => {
                self.format(facts, subject, role, resume, Basis::Unfinished { luks_uuid }, mount_point);
            }
            Some(Content::Unfinished) => {
                self.format(facts, subject, role, resume, Basis::Unfinished { luks_uuid }, mount_point);
            }
            Some(Content::Blank { evidence }) => {
                let basis = Basis::Blank { evidence: *evidence, replaces: None };
                self.format(facts, subject, role, resume, basis, mount_point);
            }
            Some(Content::Noise { evidence, .. }) if self.may_take_noise(facts, role) => {
                let basis = Basis::Noise { evidence: *evidence, begun: resume };
                self.format(facts, subject, role, resume, basis, mount_point);
            }
            Some(_) | None => self.unknown(facts, subject, role),
        }
    }

    /// Why a disk is not the one that an unfinished volume was begun on, although it is open on it or its header is there.
    fn not_the_unfinished(&self, facts: &DeviceFacts, record: &VolumeRecord) -> Option<(String, String)> {
        let luks_uuid = record.luks_uuid;
        let others: Vec<_> = self.owners.elsewhere(facts, record).collect();
        if !others.is_empty() {
            return Some((
                format!("LUKS UUID {luks_uuid}, whose formatting was interrupted, is also on {}", names(others)),
                "it holds no data: detach or wipe all but one".to_owned(),
            ));
        }
        let newest = self.owners.by_identity(facts).filter(|known| known.luks_uuid != luks_uuid);
        if let Some(known) = newest.filter(|known| known.phase == Phase::Committed) {
            return Some((
                format!(
                    "known volume, LUKS UUID {} expected, but found {luks_uuid}, whose formatting was interrupted",
                    known.luks_uuid
                ),
                CHECK_VOLUME.to_owned(),
            ));
        }
        let same = match (&record.serial, &facts.serial) {
            (Some(recorded), Some(serial)) => recorded == serial,
            (None, _) | (_, None) => record.size == facts.size,
        };
        let made_for = match &record.serial {
            Some(serial) => format!("serial number {serial}"),
            None => format!("{}, {}", record.device, Bytes(record.size)),
        };
        let evidence = format!("its header is a copy: the formatting of {luks_uuid} began on another disk, {made_for}");
        (!same).then(|| (evidence, wipe_or_ignore(facts)))
    }

    /// A volume that the state file does not know.
    fn unknown(&mut self, facts: &DeviceFacts, subject: Subject, role: VolumeRole) {
        if let Some(UnknownVolume { evidence, remedy, .. }) = self.unknown_volume(facts) {
            return self.refuse(subject, false, evidence, remedy);
        }
        // A disk in use is looked at for whose volume it is, not to be made blank. One that was blank a moment ago has words of its own.
        let is_free = facts.holders.is_empty() && facts.mounts.is_empty();
        let tells = |content: &&Content| is_free || matches!(content, Content::Blank { .. });
        let Some(content) = facts.content.as_ref().filter(tells) else {
            return self.refuse(
                subject,
                false,
                in_use(facts),
                "if it holds nothing you need, unmount and release it; otherwise add a [[volumes.match]] rule with role = \"ignore\""
                    .to_owned(),
            );
        };
        let gone = self.successors.get(&facts.name).copied();
        match content {
            Content::Blank { evidence } => match (self.mode, gone) {
                (Mode::Provision, _) => {
                    let basis = Basis::Blank { evidence: *evidence, replaces: gone.map(|record| record.luks_uuid) };
                    let mount_point = gone.and_then(|record| self.mount_points.of(record));
                    self.format(facts, subject, role, None, basis, mount_point);
                }
                (Mode::Unlock, Some(record)) => self.refuse(
                    subject,
                    true,
                    format!("blank, and known instance store volume, LUKS UUID {}, is gone", record.luks_uuid),
                    "instance store is lost at a stop: run 'luks-agent provision' to format it again".to_owned(),
                ),
                (Mode::Unlock | Mode::Grow, _) => {
                    self.leave(subject, "blank and not known yet; 'luks-agent provision' encrypts it".to_owned());
                }
            },
            Content::Noise { evidence, .. } if self.may_take_noise(facts, role) => {
                let basis = Basis::Noise { evidence: *evidence, begun: None };
                self.format(facts, subject, role, None, basis, None);
            }
            content if is_wipeable(content) && may_wipe(self.mode, self.config, self.owners.state, facts, role) => {
                // one that was begun here has its mount point already
                let begun = self.owners.by_identity(facts).filter(|record| record.phase == Phase::Intent);
                let mount_point = gone.or(begun).and_then(|record| self.mount_points.of(record));
                let replaces = gone.map(|record| record.luks_uuid);
                self.format(facts, subject, role, None, Basis::Wipe { found: content.clone(), replaces }, mount_point);
            }
            Content::Noise { .. } => {
                self.refuse(subject, false, format!("not blank: {}", content), take_or_ignore(facts, role));
            }
            Content::Foreign { .. } | Content::Unrecognised { .. } | Content::Luks2 { .. } | Content::Unfinished => {
                self.refuse(subject, false, format!("not blank: {}", content), wipe_or_ignore(facts));
            }
            Content::Unknown { .. } => self.refuse(subject, true, content.to_string(), CHECK_READABLE.to_owned()),
        }
    }

    /// The one place where a disk is set down to be formatted: what stands against it, whatever it was that spoke for it.
    fn format(
        &mut self,
        facts: &DeviceFacts,
        subject: Subject,
        role: VolumeRole,
        resume: Option<Uuid>,
        basis: Basis,
        mount_point: Option<PathBuf>,
    ) {
        if let Some((evidence, remedy)) = self.objection(facts, &basis) {
            return self.refuse(subject, false, evidence, remedy);
        }
        let filesystem = match &basis {
            // as it was begun: what is there already may be kept
            Basis::Unfinished { luks_uuid } => {
                self.owners.state.volume(*luks_uuid).map_or(self.config.filesystem.kind, |record| record.filesystem)
            }
            Basis::Blank { .. } | Basis::Noise { .. } | Basis::Wipe { .. } => self.config.filesystem.kind,
        };
        // one that an older release has put into another is not taken again
        let recorded = mount_point.filter(|at| self.mount_points.nested(at).is_none());
        let mount_point = match (filesystem, recorded) {
            (FilesystemKind::None, _) => None,
            (_, Some(at)) => Some(at),
            (_, None) => Some(self.mount_points.next()),
        };
        if let Some(at) = &mount_point
            && let Some(other) = self.mount_points.nested(at)
        {
            let evidence = format!(
                "mount points {} and {}, which is another volume's, would lie one inside the other",
                at.display(),
                other.display()
            );
            return self.refuse(subject, false, evidence, "choose another filesystem.mount_base".to_owned());
        }
        let action = Action::Format { resume, basis, mount_point, filesystem };
        self.plan.steps.push(Step { device: facts.clone(), role, action });
    }

    fn objection(&self, facts: &DeviceFacts, basis: &Basis) -> Option<(String, String)> {
        if let Some(reason) = &self.owners.inventory.boot_unresolved {
            return Some((
                format!("the boot disk could not be resolved: {reason}"),
                "nothing is formatted while any disk might be the boot disk; 'luks-agent status' shows what was found"
                    .to_owned(),
            ));
        }
        if let Some(on) = &self.owners.inventory.state_in_memory {
            return Some((
                format!("a reboot would lose the record of a new volume: the state directory lies on {on}"),
                format!(
                    "move {} to the boot volume, or set state.dir to a directory there",
                    self.config.state.dir.display()
                ),
            ));
        }
        // a new key would go into a new state file, and the old one could not come back
        let lost = |other: &&DeviceFacts| self.unknown_volume(other).is_some_and(|volume| volume.whose == Whose::Lost);
        if let Some(ours) = self.owners.others(facts).find(lost) {
            return Some((
                format!("this node's state file may be lost: {} holds a volume of luks-agent", ours.name),
                format!(
                    "{}; to go on without that volume, add a [[volumes.match]] rule with role = \"ignore\" for it",
                    restore(self.config)
                ),
            ));
        }
        if let Some(volume) = self.owners.formerly_on(facts) {
            return Some((
                format!("known volume, LUKS UUID {}, was on it before it was used on another disk", volume.luks_uuid),
                "it may have data that the other lacks: detach it, or add a [[volumes.match]] rule with role = \"ignore\""
                    .to_owned(),
            ));
        }
        let twins = self.owners.twins(facts);
        if !twins.is_empty() {
            return Some((same_serial(facts, &twins), DETACH_ONE.to_owned()));
        }
        if facts.content.is_some() && (!facts.mounts.is_empty() || !facts.holders.is_empty()) {
            return Some((in_use(facts), "unmount and release it".to_owned()));
        }
        if !facts.partitions.is_empty() && !matches!(basis, Basis::Wipe { .. }) {
            return Some((format!("it has partitions: {}", facts.partitions.join(", ")), wipe_or_ignore(facts)));
        }
        let missing = ciphers::missing(self.owners.inventory, ciphers::of_new(self.config, self.owners.state, basis));
        if matches!(basis, Basis::Unfinished { .. }) || missing.is_some() {
            return missing;
        }
        unresolved_ignore(self.config, self.owners.inventory, facts).or_else(|| unfit(self.config, facts))
    }

    fn unknown_volume(&self, facts: &DeviceFacts) -> Option<UnknownVolume> {
        unknown_volume(self.config, self.owners.state, self.owners.inventory, facts)
    }

    fn refuse(&mut self, subject: Subject, known: bool, evidence: String, remedy: String) {
        self.plan.refusals.push(Refusal { subject, evidence, remedy, known, stranger: false });
    }

    fn leave(&mut self, subject: Subject, because: String) {
        self.plan.left.push(Left { subject, because, volume: None });
    }

    /// Known volumes that no disk belongs to.
    fn missing(&mut self) {
        let devices = &self.owners.inventory.devices;
        let replaced = |v: &VolumeRecord| self.successors.values().any(|gone| gone.luks_uuid == v.luks_uuid);
        // one whose formatting was interrupted may have replaced one that the node had
        let counts = |v: &VolumeRecord| v.phase == Phase::Committed || v.role == VolumeRole::InstanceStore;
        let is_missing = |v: &&VolumeRecord| counts(v) && !self.owners.is_seen(v) && !replaced(v);
        let missing: Vec<_> = self.owners.state.volumes.iter().filter(is_missing).collect();
        for volume in missing {
            let subject = Subject {
                device: None,
                role: volume.role.to_string(),
                serial: volume.serial.clone(),
                size: volume.size,
                content: None,
            };
            let gone = match devices.iter().find(|facts| volume.is_for(facts)) {
                Some(disk) => format!("is no longer on {}, which was its disk", disk.name),
                None => "is not attached".to_owned(),
            };
            let attach = match &volume.serial {
                Some(serial) => format!("attach {serial} again"),
                None => format!("attach it again, as {}", volume.device),
            };
            match volume.role {
                _ if self.policy(volume.role) == Policy::Ignore => {
                    self.leave(subject, "not attached; the configuration says ignore".to_owned());
                }
                // no disk was looked at, and one without a serial number that has grown is known by its header alone
                VolumeRole::Ebs if self.mode == Mode::Grow => self.not_open(subject, Some(volume)),
                VolumeRole::Ebs => self.refuse(
                    subject,
                    true,
                    format!("known EBS volume, LUKS UUID {}, {gone}", volume.luks_uuid),
                    attach,
                ),
                VolumeRole::InstanceStore if self.mode == Mode::Grow => {
                    self.leave(subject, "gone: instance store is lost when the instance stops".to_owned());
                }
                VolumeRole::InstanceStore => self.gone(subject, volume),
            }
        }
    }
}
