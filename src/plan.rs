//! What is to be done with each disk, and why: pure, so that every refusal can be tested without a disk.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::config::{Config, FilesystemKind, Policy, WhenNotBlank};
use crate::device::{Content, DeviceFacts, Evidence, Inventory, Role, classify};
use crate::state::{Phase, State, VolumeRecord, VolumeRole};

/// Whether formatting is allowed at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Unlock what is known, format what is new and blank.
    Provision,
    /// Unlock what is known; never format.
    Unlock,
}

/// What is to be done; `apply` decides nothing beyond it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Work, in the order of the disks.
    pub steps: Vec<Step>,
    /// What is not done although it could be expected, and why.
    pub refusals: Vec<Refusal>,
    /// Disks that are not the agent's business, and known volumes that need nothing.
    pub left: Vec<Left>,
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

/// The two things that can be done with a disk.
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
}

/// Why a disk may be formatted. The worker checks it again on the disk itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "because", rename_all = "kebab-case")]
pub enum Basis {
    /// It is blank.
    Blank {
        /// The evidence.
        evidence: Evidence,
        /// The volume that was known under this identity and is gone, instance store after a stop.
        replaces: Option<Uuid>,
    },
    /// It is our own unfinished work, never mounted.
    Unfinished {
        /// The UUID that the state file records as intended.
        luks_uuid: Uuid,
    },
    /// The configuration says to wipe instance store volumes.
    Wipe {
        /// What is on it.
        found: String,
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
}

impl Subject {
    /// The row of a disk.
    pub fn of(facts: &DeviceFacts, role: &Role) -> Self {
        Self {
            device: Some(facts.name.clone()),
            role: role.to_string(),
            serial: facts.serial.clone(),
            size: facts.size,
        }
    }
}

/// The record of a disk: of the volume that is open on it, else of the header found on it, else of its identity.
pub fn record_of<'a>(state: &'a State, facts: &DeviceFacts) -> Option<&'a VolumeRecord> {
    let open = state.volumes.iter().find(|v| facts.mapping_of(v.luks_uuid).is_some());
    let header = || match &facts.content {
        Some(Content::Luks2 { luks_uuid, .. }) => state.volume(*luks_uuid),
        _ => None,
    };
    // the newest: after a stop and start of a Xen instance a name can have had several volumes
    let identity = || state.volumes.iter().rev().find(|v| v.is_for(facts));
    open.or_else(header).or_else(identity)
}

/// Decides what to do with every disk. `inventory` has the content of the disks that are free to be opened.
pub fn plan(mode: Mode, config: &Config, state: &State, inventory: &Inventory) -> Plan {
    let mut planner = Planner {
        mode,
        config,
        state,
        inventory,
        taken: mount_points_taken(state, inventory),
        plan: Plan { steps: Vec::new(), refusals: Vec::new(), left: Vec::new() },
    };
    for facts in &inventory.devices {
        planner.device(facts);
    }
    planner.missing();
    planner.plan
}

/// Mount points that belong to known volumes, except to instance store volumes that are gone.
fn mount_points_taken(state: &State, inventory: &Inventory) -> BTreeSet<PathBuf> {
    let present = |v: &VolumeRecord| {
        inventory.devices.iter().any(|facts| record_of(state, facts).is_some_and(|r| r.luks_uuid == v.luks_uuid))
    };
    let volumes = state.volumes.iter().filter(|v| v.role == VolumeRole::Ebs || present(v));
    volumes.filter_map(|v| v.mount_point.clone()).collect()
}

struct Planner<'a> {
    mode: Mode,
    config: &'a Config,
    state: &'a State,
    inventory: &'a Inventory,
    taken: BTreeSet<PathBuf>,
    plan: Plan,
}

impl Planner<'_> {
    fn device(&mut self, facts: &DeviceFacts) {
        let role = classify(facts, &self.config.volumes.rules);
        let subject = Subject::of(facts, &role);
        let (volume_role, policy) = match role {
            Role::Boot { because } | Role::Ignored { because } => return self.leave(subject, because),
            Role::Ebs => (VolumeRole::Ebs, self.config.volumes.ebs),
            Role::InstanceStore => (VolumeRole::InstanceStore, self.config.volumes.instance_store),
        };
        if policy == Policy::Ignore {
            return self.leave(subject, "the configuration says ignore".to_owned());
        }
        match record_of(self.state, facts) {
            Some(record) if record.phase == Phase::Committed => self.known(facts, subject, volume_role, record),
            Some(record) => self.unfinished(facts, subject, volume_role, record),
            None => self.unknown(facts, subject, volume_role),
        }
    }

    /// A volume that may hold data.
    fn known(&mut self, facts: &DeviceFacts, subject: Subject, role: VolumeRole, record: &VolumeRecord) {
        let unlock = |open| Action::Unlock {
            luks_uuid: record.luks_uuid,
            key: record.key,
            mount_point: record.mount_point.clone(),
            filesystem: record.filesystem,
            open,
        };
        if let Some(mapping) = facts.mapping_of(record.luks_uuid) {
            let mounted = record.mount_point.as_ref().is_none_or(|at| mapping.mounts.contains(at));
            if mounted {
                let because = match &record.mount_point {
                    Some(at) => format!("open, mounted at {}", at.display()),
                    None => "open".to_owned(),
                };
                self.plan.left.push(Left { subject, because, volume: Some(record.clone()) });
            } else {
                self.step(facts, role, unlock(true));
            }
            return;
        }
        match &facts.content {
            Some(Content::Luks2 { luks_uuid, .. }) if *luks_uuid == record.luks_uuid => {
                let copies = self.holders_of_header(*luks_uuid);
                if copies.len() > 1 && !record.is_for(facts) {
                    self.refuse(
                        subject,
                        true,
                        format!("its header is a copy: LUKS UUID {luks_uuid} is also on {}", others(&copies, facts)),
                        "detach the copy, or the original if the copy is what you want".to_owned(),
                    );
                } else {
                    self.step(facts, role, unlock(false));
                }
            }
            Some(Content::Blank { evidence }) => match (role, self.mode) {
                (VolumeRole::Ebs, _) => self.refuse(
                    subject,
                    true,
                    format!("known EBS volume, LUKS UUID {}, came back blank ({evidence})", record.luks_uuid),
                    "restore it from a snapshot; it is not formatted again while the state file knows it".to_owned(),
                ),
                (VolumeRole::InstanceStore, Mode::Unlock) => self.refuse(
                    subject,
                    true,
                    format!("known instance store volume, LUKS UUID {}, came back blank", record.luks_uuid),
                    "instance store is lost at a stop: run 'luks-agent provision' to format it again".to_owned(),
                ),
                (VolumeRole::InstanceStore, Mode::Provision) => {
                    let basis = Basis::Blank { evidence: *evidence, replaces: Some(record.luks_uuid) };
                    self.format(facts, subject, role, None, basis, record.mount_point.clone());
                }
            },
            Some(content) => self.refuse(
                subject,
                true,
                format!("known volume, LUKS UUID {} expected, but found: {}", record.luks_uuid, describe(content)),
                "nothing was changed: check that the right volume is attached".to_owned(),
            ),
            None => self.refuse(
                subject,
                true,
                format!("known volume, LUKS UUID {} expected, but {}", record.luks_uuid, in_use(facts)),
                "release it, then try again".to_owned(),
            ),
        }
    }

    /// A volume whose formatting began and was never recorded as ended.
    fn unfinished(&mut self, facts: &DeviceFacts, subject: Subject, role: VolumeRole, record: &VolumeRecord) {
        if self.mode == Mode::Unlock {
            return self.leave(
                subject,
                "its formatting did not end, so it holds no data; 'luks-agent provision' ends it".to_owned(),
            );
        }
        let luks_uuid = record.luks_uuid;
        let unfinished = Basis::Unfinished { luks_uuid };
        let resume = Some(luks_uuid);
        let mount_point = record.mount_point.clone();
        if let Some(mapping) = facts.mapping_of(luks_uuid) {
            if mapping.mounts.is_empty() && !mapping.held {
                return self.format(facts, subject, role, resume, unfinished, mount_point);
            }
            return self.refuse(
                subject,
                false,
                format!("its formatting is not recorded as ended, yet {}", in_use(facts)),
                "unmount and release it if it holds nothing you need, then run 'luks-agent provision'".to_owned(),
            );
        }
        match &facts.content {
            Some(Content::Luks2 { luks_uuid: found, .. }) if *found == luks_uuid => {
                self.format(facts, subject, role, resume, unfinished, mount_point);
            }
            Some(Content::Unfinished) => self.format(facts, subject, role, resume, unfinished, mount_point),
            Some(Content::Blank { evidence }) => {
                let basis = Basis::Blank { evidence: *evidence, replaces: None };
                self.format(facts, subject, role, resume, basis, mount_point);
            }
            Some(_) | None => self.unknown(facts, subject, role),
        }
    }

    /// A volume that the state file does not know.
    fn unknown(&mut self, facts: &DeviceFacts, subject: Subject, role: VolumeRole) {
        let Some(content) = &facts.content else {
            return self.refuse(
                subject,
                false,
                in_use(facts),
                "if it holds nothing you need, unmount and release it; otherwise add a [[volumes.match]] rule with role = \"ignore\""
                    .to_owned(),
            );
        };
        let ignore = "wipe it with 'wipefs --all' and 'blkdiscard --zeroout' if it holds nothing you need, or add a [[volumes.match]] rule with role = \"ignore\"";
        match content {
            Content::Blank { evidence } => match self.mode {
                Mode::Provision => {
                    let basis = Basis::Blank { evidence: *evidence, replaces: None };
                    self.format(facts, subject, role, None, basis, None);
                }
                Mode::Unlock => {
                    self.leave(subject, "blank and not known yet; 'luks-agent provision' encrypts it".to_owned());
                }
            },
            Content::Luks2 { luks_uuid, token: Some(token) } => self.refuse(
                subject,
                false,
                format!(
                    "LUKS2 volume {luks_uuid} of luks-agent on {}, unknown to this node's state file; its key is wrapped by {}",
                    token.instance_id.as_deref().unwrap_or("an unknown instance"),
                    token.key_arn
                ),
                "nothing is formatted; see 'break-glass' in the README to get its data back".to_owned(),
            ),
            Content::Foreign { .. } | Content::Unrecognised { .. } | Content::Luks2 { token: None, .. }
                if role == VolumeRole::InstanceStore
                    && self.mode == Mode::Provision
                    && self.config.volumes.when_not_blank == WhenNotBlank::WipeInstanceStore =>
            {
                self.format(facts, subject, role, None, Basis::Wipe { found: describe(content) }, None);
            }
            Content::Foreign { .. } | Content::Unrecognised { .. } | Content::Luks2 { .. } | Content::Unfinished => {
                self.refuse(subject, false, format!("not blank: {}", describe(content)), ignore.to_owned());
            }
            Content::Unknown { .. } => self.refuse(
                subject,
                true,
                describe(content),
                "it is not touched while it cannot be read: check the volume, then try again".to_owned(),
            ),
        }
    }

    fn format(
        &mut self,
        facts: &DeviceFacts,
        subject: Subject,
        role: VolumeRole,
        resume: Option<Uuid>,
        basis: Basis,
        mount_point: Option<PathBuf>,
    ) {
        if let Some(reason) = &self.inventory.boot_unresolved {
            return self.refuse(
                subject,
                false,
                format!("the boot disk could not be resolved: {reason}"),
                "nothing is formatted while any disk might be the boot disk; 'luks-agent status' shows what was found"
                    .to_owned(),
            );
        }
        if facts.content.is_some() && (!facts.mounts.is_empty() || !facts.holders.is_empty()) {
            return self.refuse(subject, false, in_use(facts), "unmount and release it".to_owned());
        }
        let filesystem = self.config.filesystem.kind;
        let mount_point = match (filesystem, mount_point) {
            (FilesystemKind::None, _) => None,
            (_, Some(at)) => Some(at),
            (_, None) => Some(self.next_mount_point()),
        };
        self.step(facts, role, Action::Format { resume, basis, mount_point, filesystem });
    }

    fn next_mount_point(&mut self) -> PathBuf {
        let base = &self.config.filesystem.mount_base;
        let nth = |n: u32| match n {
            0 => base.clone(),
            n => PathBuf::from(format!("{}{n}", base.display())),
        };
        let free = (0..).map(nth).find(|at| !self.taken.contains(at)).expect("an unbounded range has a free one");
        self.taken.insert(free.clone());
        free
    }

    fn step(&mut self, facts: &DeviceFacts, role: VolumeRole, action: Action) {
        self.plan.steps.push(Step { device: facts.clone(), role, action });
    }

    fn refuse(&mut self, subject: Subject, known: bool, evidence: String, remedy: String) {
        self.plan.refusals.push(Refusal { subject, evidence, remedy, known });
    }

    fn leave(&mut self, subject: Subject, because: String) {
        self.plan.left.push(Left { subject, because, volume: None });
    }

    fn holders_of_header(&self, luks_uuid: Uuid) -> Vec<&DeviceFacts> {
        let has = |facts: &&DeviceFacts| match &facts.content {
            Some(Content::Luks2 { luks_uuid: found, .. }) => *found == luks_uuid,
            _ => facts.mapping_of(luks_uuid).is_some(),
        };
        self.inventory.devices.iter().filter(has).collect()
    }

    /// Known volumes that no disk belongs to.
    fn missing(&mut self) {
        let devices = &self.inventory.devices;
        let present = |v: &VolumeRecord| {
            devices.iter().any(|facts| record_of(self.state, facts).is_some_and(|r| r.luks_uuid == v.luks_uuid))
                || devices.iter().any(|facts| v.is_for(facts))
        };
        let missing: Vec<&VolumeRecord> =
            self.state.volumes.iter().filter(|v| v.phase == Phase::Committed && !present(v)).collect();
        for volume in missing {
            let subject = Subject {
                device: None,
                role: volume.role.to_string(),
                serial: volume.serial.clone(),
                size: volume.size,
            };
            match volume.role {
                VolumeRole::Ebs => self.refuse(
                    subject,
                    true,
                    format!("known EBS volume, LUKS UUID {}, is not attached", volume.luks_uuid),
                    "attach it again".to_owned(),
                ),
                VolumeRole::InstanceStore => {
                    self.leave(subject, "gone: instance store is lost when the instance stops".to_owned());
                }
            }
        }
    }
}

fn others(devices: &[&DeviceFacts], not: &DeviceFacts) -> String {
    let names = devices.iter().filter(|d| d.devno != not.devno).map(|d| d.name.as_str());
    names.collect::<Vec<_>>().join(", ")
}

/// Whether a worker should open the disk to see what is on it: only what could be a target and is free.
pub fn wants_probe(config: &Config, facts: &DeviceFacts) -> bool {
    let policy = match classify(facts, &config.volumes.rules) {
        Role::Ebs => config.volumes.ebs,
        Role::InstanceStore => config.volumes.instance_store,
        Role::Boot { .. } | Role::Ignored { .. } => Policy::Ignore,
    };
    policy == Policy::Encrypt && facts.holders.is_empty() && facts.mounts.is_empty()
}

fn in_use(facts: &DeviceFacts) -> String {
    let list = |what: &str, items: Vec<String>| match items.as_slice() {
        [] => None,
        items => Some(format!("{what} {}", items.join(", "))),
    };
    let at = |path: &PathBuf| Path::display(path).to_string();
    let holders = facts.holders.iter().map(|h| h.dm_name.clone().unwrap_or_else(|| h.name.clone())).collect();
    let mounts = facts.mounts.iter().chain(facts.holders.iter().flat_map(|h| &h.mounts)).map(at).collect();
    let parts = [list("held by", holders), list("mounted at", mounts)];
    match parts.into_iter().flatten().collect::<Vec<_>>().as_slice() {
        [] => "it was not examined".to_owned(),
        parts => format!("it is {}", parts.join(" and ")),
    }
}

fn describe(content: &Content) -> String {
    match content {
        Content::Blank { evidence } => format!("blank ({evidence})"),
        Content::Luks2 { luks_uuid, token } => {
            let whose = if token.is_some() { " of luks-agent" } else { "" };
            format!("LUKS2 volume {luks_uuid}{whose}")
        }
        Content::Unfinished => "the beginning of a LUKS2 header of luks-agent".to_owned(),
        Content::Foreign { signatures } => signatures.join(", "),
        Content::Unrecognised { offset } => format!("data without a known signature, first seen at byte {offset}"),
        Content::Unknown { reason } => format!("could not be examined: {reason}"),
    }
}

impl std::fmt::Display for Basis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Blank { evidence, replaces: None } => write!(f, "{evidence}"),
            Self::Blank { evidence, replaces: Some(uuid) } => {
                write!(f, "{evidence}; replaces {uuid}, lost with the instance store")
            }
            Self::Unfinished { luks_uuid } => write!(f, "ends the formatting of {luks_uuid}, which holds no data"),
            Self::Wipe { found } => write!(f, "wipe-instance-store is configured; overwrites {found}"),
        }
    }
}

impl std::fmt::Display for VolumeRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ebs => "ebs",
            Self::InstanceStore => "instance-store",
        })
    }
}
