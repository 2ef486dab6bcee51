//! Known volumes: those that are open, and those whose header is on a disk.

use super::action::{Action, Step, Unlock};
use super::ciphers;
use super::finding::{Finding, Severity};
use super::growth::{outgrown, shrunk};
use super::mode::Mode;
use super::model::{Change, Left, Subject};
use super::owner::Owner;
use super::planner::Planner;
use super::words::names;
use crate::disk::{Content, DeviceFacts, Holder, classify};
use crate::state::{VolumeRecord, VolumeRole};

impl Planner<'_> {
    /// Plans a known volume that is open.
    pub(super) fn plan_open(&mut self, facts: &DeviceFacts, subject: Subject, role: VolumeRole, record: &VolumeRecord) {
        let Some(mapping) = facts.mapping_of(record.luks_uuid) else {
            return self.report_not_open(subject, Some(record));
        };
        if self.mode == Mode::Rekey {
            return self.plan_rekey(facts, subject, role, Owner::Open(record));
        }
        if let Some(finding) = shrunk(facts, mapping) {
            return self.refuse(subject, finding);
        }
        // always look when asked: a file system can be smaller than its mapping without a sign of it here, such as one
        // restored from an older snapshot
        if self.mode == Mode::Grow {
            return match self.growth(facts, record, mapping) {
                Ok(action) => self.plan.steps.push(Step { device: facts.clone(), role, action }),
                Err(finding) => self.refuse(subject, finding),
            };
        }
        let mount_point = self.mount_points.of(record);
        let mounts = &mapping.mounts;
        let (because, mount_point) = match (&mount_point, &facts.system) {
            (None, _) => ("open".to_owned(), None),
            (Some(at), _) if mounts.contains(at) => (format!("open, mounted at {}", at.display()), mount_point),
            (Some(at), Some(system)) => (format!("open, but not mounted at {}: it {system}", at.display()), None),
            (Some(_), None) => return self.unlock(facts, role, record, Some(mapping)),
        };
        self.follow(facts, role, record);
        if self.mode == Mode::Provision && self.owners.state.is_behind(record) && !record.is_reencrypting() {
            return self.rekey(facts, role, record);
        }
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

    /// Plans a disk with the header of a known volume.
    pub(super) fn plan_header(
        &mut self,
        facts: &DeviceFacts,
        subject: Subject,
        role: VolumeRole,
        record: &VolumeRecord,
    ) {
        if let Some(finding) = self.copied(facts, record) {
            return self.refuse(subject, finding);
        }
        self.unlock(facts, role, record, None);
    }

    /// Returns why the header on a disk is a copy, or may be one.
    pub(super) fn copied(&self, facts: &DeviceFacts, record: &VolumeRecord) -> Option<Finding> {
        let luks_uuid = record.luks_uuid;
        let others: Vec<_> = self.owners.elsewhere(facts, record).collect();
        let original = |other: &&&DeviceFacts| record.is_for(other);
        if let Some(open) = others.iter().find(|other| other.mapping_of(luks_uuid).is_some()) {
            return Some(Finding::refused(
                format!("its header is a copy: LUKS UUID {luks_uuid} is open on {}", open.name),
                "detach the copy",
            ));
        }
        if let Some(other) = others.iter().find(original).filter(|_| !record.is_for(facts)) {
            return Some(Finding::refused(
                format!("its header is a copy: LUKS UUID {luks_uuid} is on {}, where it was last used", other.name),
                format!("detach the copy; or detach {} to use the copy", other.name),
            ));
        }
        if !others.is_empty() && (!record.is_for(facts) || others.iter().any(|other| record.is_for(other))) {
            let others = names(others);
            return Some(Finding::wrong(
                format!(
                    "LUKS UUID {luks_uuid} is also on {others}, and the agent cannot tell which of them is the volume"
                ),
                "detach all except the one to use",
            ));
        }
        let unseen = |other: &&DeviceFacts| matches!(other.content, None | Some(Content::Unknown { .. }));
        let original = self.owners.others(facts).find(|other| record.is_for(other) && unseen(other));
        if let Some(original) = original.filter(|_| record.serial.is_some() && !record.is_for(facts)) {
            let name = &original.name;
            return Some(Finding::wrong(
                format!(
                    "its header may be a copy: LUKS UUID {luks_uuid} was last used on {name}, which could not be examined"
                ),
                format!("release or repair {name}; or detach {name} to use this copy"),
            ));
        }
        None
    }

    /// Records that a volume moved to another disk. If the disk it was made for comes back, that one has older data.
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

    fn unlock(&mut self, facts: &DeviceFacts, role: VolumeRole, record: &VolumeRecord, mapping: Option<&Holder>) {
        let encryption = record.header.encryption();
        let missing =
            ciphers::missing(self.owners.inventory, encryption, Severity::Wrong).filter(|_| mapping.is_none());
        if let Some(finding) = missing {
            let subject = Subject::of(facts, &classify(facts, &self.config.volumes.rules));
            return self.refuse(subject, finding);
        }
        self.follow(facts, role, record);
        let action = Action::Unlock(Unlock {
            luks_uuid: record.luks_uuid,
            key: record.key,
            mount_point: self.mount_points.of(record),
            filesystem: record.filesystem,
            is_open: mapping.is_some(),
        });
        self.plan.steps.push(Step { device: facts.clone(), role, action });
    }
}
