//! Volumes whose formatting was interrupted.

use super::finding::Finding;
use super::format::Proposal;
use super::mode::Mode;
use super::model::Subject;
use super::planner::Planner;
use super::words::{CHECK_VOLUME, in_use, names, wipe_or_ignore};
use crate::disk::{Bytes, Content, DeviceFacts};
use crate::job::Basis;
use crate::state::{Phase, VolumeRecord, VolumeRole};

impl Planner<'_> {
    /// Plans a volume whose formatting started and was never recorded as finished.
    pub(super) fn plan_unfinished(
        &mut self,
        facts: &DeviceFacts,
        subject: Subject,
        role: VolumeRole,
        record: &VolumeRecord,
    ) {
        if self.mode == Mode::Unlock {
            return self.leave(
                subject,
                "formatting was interrupted, so it holds no data; 'luks-agent provision' finishes it".to_owned(),
            );
        }
        let luks_uuid = record.luks_uuid;
        if let Some(finding) = self.not_the_unfinished(facts, record) {
            return self.refuse(subject, finding);
        }
        let resume = Some(luks_uuid);
        let mount_point = self.mount_points.of(record);
        if let Some(mapping) = facts.mapping_of(luks_uuid) {
            if facts.holders.len() == 1 && facts.mounts.is_empty() && mapping.mounts.is_empty() && !mapping.held {
                let basis = Basis::Unfinished { luks_uuid };
                return self.format(facts, subject, role, Proposal { resume, basis, mount_point });
            }
            return self.refuse(
                subject,
                Finding::refused(
                    format!("the state file does not record its formatting as finished, but {}", in_use(facts)),
                    "if it holds nothing you need, unmount and release it, then run 'luks-agent provision'",
                ),
            );
        }
        match &facts.content {
            Some(Content::Luks2 { luks_uuid: found, .. }) if *found == luks_uuid => {
                let basis = Basis::Unfinished { luks_uuid };
                self.format(facts, subject, role, Proposal { resume, basis, mount_point });
            }
            Some(Content::Unfinished) => {
                let basis = Basis::Unfinished { luks_uuid };
                self.format(facts, subject, role, Proposal { resume, basis, mount_point });
            }
            Some(Content::Blank { evidence }) => {
                let basis = Basis::Blank { evidence: *evidence, replaces: None };
                self.format(facts, subject, role, Proposal { resume, basis, mount_point });
            }
            Some(Content::Noise { evidence, .. }) if self.may_take_noise(facts, role) => {
                let basis = Basis::Noise { evidence: *evidence, begun: resume };
                self.format(facts, subject, role, Proposal { resume, basis, mount_point });
            }
            Some(_) | None => self.plan_new(facts, subject, role),
        }
    }

    /// Returns why a disk is not the one on which this formatting started, although the volume is open on it or its
    /// header is there.
    fn not_the_unfinished(&self, facts: &DeviceFacts, record: &VolumeRecord) -> Option<Finding> {
        let luks_uuid = record.luks_uuid;
        let others: Vec<_> = self.owners.elsewhere(facts, record).collect();
        if !others.is_empty() {
            return Some(Finding::refused(
                format!("LUKS UUID {luks_uuid}, whose formatting was interrupted, is also on {}", names(others)),
                "detach or wipe all but one; it holds no data",
            ));
        }
        let newest = self.owners.by_identity(facts).filter(|known| known.luks_uuid != luks_uuid);
        if let Some(known) = newest.filter(|known| known.phase == Phase::Committed) {
            return Some(Finding::refused(
                format!(
                    "expected known volume, LUKS UUID {}, but found {luks_uuid}, whose formatting was interrupted",
                    known.luks_uuid
                ),
                CHECK_VOLUME,
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
        (!same).then(|| Finding::refused(evidence, wipe_or_ignore(facts)))
    }
}
