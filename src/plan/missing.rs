//! Known volumes that have no disk, and volumes that `[volumes.expect]` asks for.

use super::expect::{Shortfall, expected, is_superseded};
use super::finding::Finding;
use super::mode::Mode;
use super::model::{Change, Subject};
use super::planner::Planner;
use crate::config::Policy;
use crate::disk::Bytes;
use crate::state::{Phase, VolumeRecord, VolumeRole};

impl Planner<'_> {
    /// Reports known volumes that have no disk.
    pub(super) fn report_missing(&mut self) {
        let devices = &self.owners.inventory.devices;
        let replaced = |v: &VolumeRecord| self.successors.values().any(|gone| gone.luks_uuid == v.luks_uuid);
        // one whose formatting was interrupted may have replaced one that the node had
        let counts = |v: &VolumeRecord| v.phase == Phase::Committed || v.role == VolumeRole::InstanceStore;
        let is_missing = |v: &&VolumeRecord| counts(v) && !self.owners.is_seen(v) && !replaced(v);
        let missing: Vec<_> = self.owners.state.volumes.iter().filter(is_missing).collect();
        for volume in missing {
            let subject = Subject::absent(volume);
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
                // no disk was examined, and a disk without a serial number that has grown is known by its header alone
                VolumeRole::Ebs if self.mode == Mode::Grow => self.report_not_open(subject, Some(volume)),
                VolumeRole::Ebs => self.refuse(
                    subject,
                    Finding::wrong(format!("known EBS volume, LUKS UUID {}, {gone}", volume.luks_uuid), attach),
                ),
                VolumeRole::InstanceStore if self.mode == Mode::Grow => {
                    self.leave(subject, "gone: instance store is lost when the instance stops".to_owned());
                }
                VolumeRole::InstanceStore => self.report_gone(subject, volume),
            }
        }
    }

    /// Reports an instance store volume that has no disk and that no new disk replaces.
    fn report_gone(&mut self, subject: Subject, record: &VolumeRecord) {
        let luks_uuid = record.luks_uuid;
        if is_superseded(self.owners.state, record) && record.serial.is_some() {
            self.plan.changes.push(Change::Forget { luks_uuid });
            return self.leave(subject, "gone: a newer volume replaced it; its record is removed".to_owned());
        }
        let role = VolumeRole::InstanceStore;
        match expected(self.config, role) {
            None => {
                let size = Bytes(record.size);
                let evidence = format!(
                    "known instance store volume, LUKS UUID {luks_uuid}, {size}, is gone, and no blank instance store takes its place"
                );
                let remedy = "instance store is lost when the instance stops; if this instance has fewer instance store volumes now, set volumes.expect.instance_store to the minimum that it must have";
                self.refuse(subject, Finding::wrong(evidence, remedy));
            }
            Some(expected) if self.there(role) < expected as usize => {
                self.leave(subject, "gone: instance store is lost when the instance stops".to_owned());
            }
            // keep its record: its disk may come late, and the record costs nothing
            Some(_) => {
                let because = "gone: instance store is lost when the instance stops; volumes.expect.instance_store is satisfied without it";
                self.leave(subject, because.to_owned());
            }
        }
    }

    /// Returns how many volumes of a role are open now or will be open after the plan.
    fn there(&self, role: VolumeRole) -> usize {
        let steps = self.plan.steps.iter().filter(|step| step.role == role).count();
        let left = self.plan.left.iter().filter_map(|left| left.volume.as_ref());
        steps + left.filter(|volume| volume.role == role).count()
    }

    /// Reports the volumes that `[volumes.expect]` asks for and that are not there.
    pub(super) fn report_shortfalls(&mut self) {
        for role in [VolumeRole::Ebs, VolumeRole::InstanceStore] {
            let Some(short) = Shortfall::of(self.config, role, self.there(role)) else { continue };
            self.refuse(Subject::absent_of(role), short.finding());
            self.plan.shortfalls.push(short);
        }
    }
}
