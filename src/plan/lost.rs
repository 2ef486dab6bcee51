//! Disks of known volumes that have no header of the volume.

use super::finding::Finding;
use super::format::Proposal;
use super::mode::Mode;
use super::model::Subject;
use super::planner::Planner;
use super::words::{CHECK_READABLE, CHECK_VOLUME, DETACH_ONE, in_use, same_serial};
use crate::disk::{Content, DeviceFacts};
use crate::job::Basis;
use crate::state::{VolumeRecord, VolumeRole};

impl Planner<'_> {
    /// Plans the disk of a known volume that has no header of it.
    pub(super) fn plan_lost(&mut self, facts: &DeviceFacts, subject: Subject, role: VolumeRole, record: &VolumeRecord) {
        let luks_uuid = record.luks_uuid;
        let twins = self.owners.twins(facts);
        if !twins.is_empty() {
            return self.refuse(
                subject,
                Finding::wrong(
                    format!("expected known volume, LUKS UUID {luks_uuid}, but {}", same_serial(facts, &twins)),
                    DETACH_ONE,
                ),
            );
        }
        // if either the record or the rules say EBS, it is EBS: EBS does not come back blank
        let kind = if record.role == VolumeRole::Ebs { VolumeRole::Ebs } else { role };
        let (evidence, remedy) = match (&facts.content, kind, self.mode) {
            (Some(Content::Blank { evidence }), VolumeRole::InstanceStore, Mode::Provision) => {
                // the name of a disk proves little while the volume may be on a disk that could not be examined
                let hidden = self.owners.may_be_hidden(facts, record);
                let replaces = Some(luks_uuid).filter(|_| !hidden);
                let mount_point = self.mount_points.of(record).filter(|_| !hidden);
                let basis = Basis::Blank { evidence: *evidence, replaces };
                return self.format(facts, subject, role, Proposal { resume: None, basis, mount_point });
            }
            (Some(Content::Blank { .. }), VolumeRole::InstanceStore, Mode::Unlock) => (
                format!("known instance store volume, LUKS UUID {luks_uuid}, came back blank"),
                "instance store does not survive a stop; run 'luks-agent provision' to format it again",
            ),
            (Some(Content::Blank { evidence }), VolumeRole::Ebs, _) => (
                format!("known EBS volume, LUKS UUID {luks_uuid}, came back blank ({evidence})"),
                "restore it from a snapshot; the agent does not format it while the state file lists it",
            ),
            (Some(content @ Content::Unknown { .. }), _, _) => {
                (format!("expected known volume, LUKS UUID {luks_uuid}, but {}", content), CHECK_READABLE)
            }
            (Some(content), _, _) => {
                (format!("expected known volume, LUKS UUID {luks_uuid}, but found: {}", content), CHECK_VOLUME)
            }
            (None, _, _) => (
                format!("expected known volume, LUKS UUID {luks_uuid}, but {}", in_use(facts)),
                "release it, then try again",
            ),
        };
        self.refuse(subject, Finding::wrong(evidence, remedy));
    }
}
