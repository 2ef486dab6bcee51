//! Disks that the state file does not know.

use super::finding::Finding;
use super::format::Proposal;
use super::mode::Mode;
use super::model::Subject;
use super::planner::Planner;
use super::policy::{is_wipeable, may_take_noise, may_wipe};
use super::unknown::UnknownVolume;
use super::words::{CHECK_READABLE, in_use, release, take_or_ignore, wipe_or_ignore};
use crate::disk::{Content, DeviceFacts};
use crate::job::Basis;
use crate::state::{Phase, VolumeRole};

impl Planner<'_> {
    /// Plans a disk that the state file does not know.
    pub(super) fn plan_new(&mut self, facts: &DeviceFacts, subject: Subject, role: VolumeRole) {
        if let Some(UnknownVolume { finding, .. }) = self.unknown_volume(facts) {
            return self.refuse(subject, finding);
        }
        // The content of a disk in use says whose volume it is, and never makes it blank. A disk that was blank a
        // moment ago has its own message.
        let is_free = facts.holders.is_empty() && facts.mounts.is_empty();
        let tells = |content: &&Content| is_free || matches!(content, Content::Blank { .. });
        let Some(content) = facts.content.as_ref().filter(tells) else {
            return self.refuse(subject, Finding::refused(in_use(facts), release(facts)));
        };
        let gone = self.successors.get(&facts.name).copied();
        match content {
            Content::Blank { evidence } => match (self.mode, gone) {
                (Mode::Provision, _) => {
                    let basis = Basis::Blank { evidence: *evidence, replaces: gone.map(|record| record.luks_uuid) };
                    let mount_point = gone.and_then(|record| self.mount_points.of(record));
                    self.format(facts, subject, role, Proposal { resume: None, basis, mount_point });
                }
                (Mode::Unlock, Some(record)) => self.refuse(
                    subject,
                    Finding::wrong(
                        format!("blank, and known instance store volume, LUKS UUID {}, is gone", record.luks_uuid),
                        "instance store does not survive a stop; run 'luks-agent provision' to format it again",
                    ),
                ),
                (Mode::Unlock | Mode::Grow | Mode::Rekey, _) => {
                    self.leave(subject, "blank and new; 'luks-agent provision' encrypts it".to_owned());
                }
            },
            Content::Noise { evidence, .. } if self.may_take_noise(facts, role) => {
                let basis = Basis::Noise { evidence: *evidence, begun: None };
                self.format(facts, subject, role, Proposal { resume: None, basis, mount_point: None });
            }
            content if is_wipeable(content) && may_wipe(self.mode, self.config, self.owners.state, facts, role) => {
                // one that was started here has its mount point already
                let begun = self.owners.by_identity(facts).filter(|record| record.phase == Phase::Intent);
                let mount_point = gone.or(begun).and_then(|record| self.mount_points.of(record));
                let replaces = gone.map(|record| record.luks_uuid);
                let basis = Basis::Wipe { found: content.clone(), replaces };
                self.format(facts, subject, role, Proposal { resume: None, basis, mount_point });
            }
            Content::Noise { .. } => {
                self.refuse(subject, Finding::refused(format!("not blank: {content}"), take_or_ignore(facts, role)));
            }
            Content::Foreign { .. }
            | Content::Unrecognised { .. }
            | Content::Written
            | Content::Luks2 { .. }
            | Content::Unfinished => {
                self.refuse(subject, Finding::refused(format!("not blank: {content}"), wipe_or_ignore(facts)));
            }
            Content::Unknown { .. } => self.refuse(subject, Finding::wrong(content.to_string(), CHECK_READABLE)),
        }
    }

    pub(super) fn may_take_noise(&self, facts: &DeviceFacts, role: VolumeRole) -> bool {
        may_take_noise(self.mode, self.config, self.owners.state, facts, role)
    }
}
