//! Volumes whose key was replaced.

use super::action::{Action, Rekey, Step};
use super::finding::Finding;
use super::growth::{FINISH, REENCRYPTING};
use super::model::Subject;
use super::owner::Owner;
use super::planner::Planner;
use crate::disk::DeviceFacts;
use crate::state::{KeyChange, Phase, VolumeRecord, VolumeRole};

impl Planner<'_> {
    /// Plans a disk for a change of keys. Disks without a known volume are no concern of it.
    pub(super) fn plan_rekey(&mut self, facts: &DeviceFacts, subject: Subject, role: VolumeRole, owner: Owner<'_>) {
        let Some(record) = owner.record().filter(|record| record.phase == Phase::Committed) else {
            return self.leave(subject, "not a volume of this node".to_owned());
        };
        if !self.owners.state.is_behind(record) {
            return self.leave(subject, "has the current key".to_owned());
        }
        let finding = match owner {
            _ if record.is_reencrypting() => Some(Finding::refused(REENCRYPTING.to_owned(), FINISH)),
            Owner::Open(_) => None,
            Owner::Header(_) => self.copied(facts, record),
            Owner::Identity(_) | Owner::Nobody => Some(Finding::wrong(
                format!("expected known volume, LUKS UUID {}, but its header was not found", record.luks_uuid),
                "run 'luks-agent plan' to see what is on the disk",
            )),
        };
        match finding {
            Some(finding) => self.refuse(subject, finding),
            None => self.rekey(facts, role, record),
        }
    }

    /// Adds the step that changes the key of a volume.
    pub(super) fn rekey(&mut self, facts: &DeviceFacts, role: VolumeRole, record: &VolumeRecord) {
        let wanted = match &record.key_change {
            Some(KeyChange::Adding { key }) => *key,
            Some(KeyChange::Removing { .. }) => record.key,
            None => self.owners.state.wanted_key(record),
        };
        let action = Action::Rekey(Rekey {
            luks_uuid: record.luks_uuid,
            key: record.key,
            wanted,
            mount_point: record.mount_point.clone(),
        });
        self.plan.steps.push(Step { device: facts.clone(), role, action });
    }

    /// Names the volumes that are away. They get their key when they come back.
    pub(super) fn leave_away(&mut self) {
        let (state, owners) = (self.owners.state, self.owners);
        for record in state.volumes.iter().filter(|record| state.is_behind(record) && !owners.is_seen(record)) {
            let because = "not attached; it gets its new key when it comes back, and its former key stays recorded";
            self.leave(Subject::absent(record), because.to_owned());
        }
    }
}
