//! Walks over the disks and sends each to the function for its case.

use std::collections::BTreeMap;

use super::expect;
use super::finding::Finding;
use super::mode::Mode;
use super::model::{Left, Plan, Refusal, Subject};
use super::mount_points::MountPoints;
use super::owner::{Owner, Owners, ignored_by_rule};
use super::policy::{is_wipeable, may_wipe, policy};
use super::unknown::{UnknownVolume, unknown_volume};
use super::words::{FINISH_ERASING, name_it};
use crate::config::{Config, Policy};
use crate::disk::{Content, DeviceFacts, Inventory, Role, classify};
use crate::state::{Phase, State, VolumeRecord, VolumeRole};

/// Decides what to do with every disk. `inventory` has the content of the disks that are free to be opened.
pub fn plan(mode: Mode, config: &Config, state: &State, inventory: &Inventory) -> Plan {
    // by serial number, so that mount points and messages do not depend on the order in which the kernel found the
    // disks
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
        planner.plan_disk(facts);
    }
    match mode {
        Mode::Provision | Mode::Unlock => {
            planner.report_missing();
            planner.report_shortfalls();
        }
        Mode::Grow => planner.report_missing(),
        Mode::Rekey => planner.leave_away(),
    }
    if mode == Mode::Unlock {
        planner.plan.leave_strangers();
    }
    planner.plan
}

fn by_serial(facts: &DeviceFacts) -> impl Ord {
    (facts.serial.is_none(), &facts.serial, &facts.name)
}

/// A plan in the making, and what it is based on.
pub(super) struct Planner<'a> {
    pub(super) mode: Mode,
    pub(super) config: &'a Config,
    pub(super) owners: Owners<'a>,
    pub(super) mount_points: MountPoints<'a>,
    /// The gone volume that a new disk replaces, by name of the disk.
    pub(super) successors: BTreeMap<String, &'a VolumeRecord>,
    pub(super) plan: Plan,
}

impl Planner<'_> {
    fn plan_disk(&mut self, facts: &DeviceFacts) {
        let role = classify(facts, &self.config.volumes.rules);
        let subject = Subject::of(facts, &role);
        if let Some(volume) = self.owners.mapping_itself(facts) {
            return self.leave(subject, format!("the open mapping of volume {}", volume.luks_uuid));
        }
        let owner = self.owners.of(facts);
        let role = match role {
            Role::Boot { because } | Role::Ignored { because } => {
                return self.pass_over(facts, subject, owner, because);
            }
            Role::Unclear { because } => return self.plan_unclear(facts, subject, owner, because),
            Role::Ebs => VolumeRole::Ebs,
            Role::InstanceStore => VolumeRole::InstanceStore,
        };
        if self.policy(role) == Policy::Ignore {
            return self.leave(subject, "the configuration says ignore".to_owned());
        }
        if self.mode == Mode::Rekey {
            return self.plan_rekey(facts, subject, role, owner);
        }
        match (owner, owner.record().map(|record| record.phase)) {
            (Owner::Open(record), Some(Phase::Committed)) => self.plan_open(facts, subject, role, record),
            (_, phase) if self.mode == Mode::Grow => {
                self.report_not_open(subject, owner.record().filter(|_| phase == Some(Phase::Committed)))
            }
            (Owner::Open(record) | Owner::Header(record) | Owner::Identity(record), Some(Phase::Erasing)) => {
                let evidence =
                    format!("erasing volume {} was interrupted: no key may open it any more", record.luks_uuid);
                self.refuse(subject, Finding::wrong(evidence, FINISH_ERASING));
            }
            (Owner::Header(record), Some(Phase::Committed)) => self.plan_header(facts, subject, role, record),
            (Owner::Identity(record), Some(Phase::Committed)) => self.plan_lost(facts, subject, role, record),
            (Owner::Open(record) | Owner::Header(record) | Owner::Identity(record), _) => {
                self.plan_unfinished(facts, subject, role, record);
            }
            (Owner::Nobody, _) => {
                let before = self.plan.refusals.len();
                self.plan_new(facts, subject, role);
                let ours = self.unknown_volume(facts).is_some_and(|volume| volume.whose.may_be_missed());
                let is_stranger = !ours && !self.successors.contains_key(&facts.name);
                self.plan.refusals[before..].iter_mut().for_each(|refusal| refusal.is_stranger = is_stranger);
            }
        }
    }

    pub(super) fn policy(&self, role: VolumeRole) -> Policy {
        policy(self.config, role)
    }

    /// Plans a disk that carries the system or is ignored. A known volume on it still counts: swap or `/usr` on an open
    /// volume makes its disk carry the system.
    fn pass_over(&mut self, facts: &DeviceFacts, subject: Subject, owner: Owner<'_>, because: String) {
        let Some(record) = owner.record().filter(|record| record.phase == Phase::Committed) else {
            return self.leave(subject, because);
        };
        if ignored_by_rule(&self.config.volumes.rules, facts) || self.policy(record.role) == Policy::Ignore {
            return self.leave(subject, because);
        }
        if facts.mapping_of(record.luks_uuid).is_some() {
            return self.plan_open(facts, subject, record.role, record);
        }
        let evidence = format!(
            "known volume, LUKS UUID {}, is on a disk that the agent does not use: {because}",
            record.luks_uuid
        );
        let remedy = "if it is the right disk, change what excludes it; otherwise add a [[volumes.match]] rule with role = \"ignore\"";
        self.refuse(subject, Finding::wrong(evidence, remedy));
    }

    /// Refuses a disk that may be an EBS volume. The agent does not encrypt it on a guess, and the node does not count
    /// as encrypted while it is attached.
    fn plan_unclear(&mut self, facts: &DeviceFacts, subject: Subject, owner: Owner<'_>, because: String) {
        let is_known = owner.record().is_some_and(|record| record.phase == Phase::Committed);
        if is_known || self.mode == Mode::Grow || self.config.volumes.ebs == Policy::Ignore {
            return self.pass_over(facts, subject, owner, because);
        }
        match self.unknown_volume(facts) {
            Some(UnknownVolume { finding, .. }) => self.refuse(subject, finding),
            None => {
                self.refuse(subject, Finding::refused(because, name_it(facts)));
                self.plan.refusals.last_mut().into_iter().for_each(|refusal| refusal.is_stranger = true);
            }
        }
    }

    pub(super) fn unknown_volume(&self, facts: &DeviceFacts) -> Option<UnknownVolume> {
        unknown_volume(self.config, self.owners.state, self.owners.inventory, facts)
    }

    pub(super) fn refuse(&mut self, subject: Subject, finding: Finding) {
        self.plan.refusals.push(Refusal { subject, finding, is_stranger: false });
    }

    pub(super) fn leave(&mut self, subject: Subject, because: String) {
        self.plan.left.push(Left { subject, because, volume: None });
    }
}
