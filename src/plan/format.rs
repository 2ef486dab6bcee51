//! The only place that adds the formatting of a disk to a plan, and every objection to it.

use std::path::PathBuf;

use uuid::Uuid;

use super::action::{Action, Format, Step};
use super::ciphers;
use super::finding::{Finding, Severity};
use super::model::Subject;
use super::planner::Planner;
use super::unknown::{Whose, restore};
use super::words::{DETACH_ONE, in_use, same_serial, wipe_or_ignore};
use crate::config::Config;
use crate::disk::{Bytes, DeviceFacts, Inventory, MatchRule, RuleRole};
use crate::job::Basis;
use crate::luks2::DATA_OFFSET;
use crate::state::VolumeRole;
use crate::storage::FilesystemKind;

/// A proposal to format a disk.
#[derive(Debug)]
pub(super) struct Proposal {
    /// The LUKS UUID of an interrupted attempt to continue.
    pub(super) resume: Option<Uuid>,
    /// Why the disk may be formatted.
    pub(super) basis: Basis,
    /// The mount point that is recorded for it.
    pub(super) mount_point: Option<PathBuf>,
}

impl Planner<'_> {
    /// Adds the formatting of a disk to the plan, unless there is an objection. No other function does so, whatever the
    /// basis.
    pub(super) fn format(&mut self, facts: &DeviceFacts, subject: Subject, role: VolumeRole, proposal: Proposal) {
        let Proposal { resume, basis, mount_point } = proposal;
        if let Some(finding) = self.objection(facts, &basis) {
            return self.refuse(subject, finding);
        }
        let filesystem = match &basis {
            // as it was started: the worker may keep the file system that is there already
            Basis::Unfinished { luks_uuid } => {
                self.owners.state.volume(*luks_uuid).map_or(self.config.filesystem.kind, |record| record.filesystem)
            }
            Basis::Blank { .. } | Basis::Noise { .. } | Basis::Wipe { .. } => self.config.filesystem.kind,
        };
        // an older release may have nested it in another mount point; do not use it again
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
                "mount point {} would be nested with {}, the mount point of another volume",
                at.display(),
                other.display()
            );
            return self.refuse(subject, Finding::refused(evidence, "choose another filesystem.mount_base"));
        }
        let action = Action::Format(Format { resume, basis, mount_point, filesystem });
        self.plan.steps.push(Step { device: facts.clone(), role, action });
    }

    fn objection(&self, facts: &DeviceFacts, basis: &Basis) -> Option<Finding> {
        if let Some(reason) = &self.owners.inventory.boot_unresolved {
            return Some(Finding::refused(
                format!("the boot disk could not be resolved: {reason}"),
                "the agent formats nothing while any disk might be the boot disk; 'luks-agent status' shows what it found",
            ));
        }
        if let Some(on) = &self.owners.inventory.state_in_memory {
            return Some(Finding::refused(
                format!("a reboot would lose the record of a new volume: the state directory is on {on}"),
                format!(
                    "move {} to the boot volume, or set state.dir to a directory there",
                    self.config.state.dir.display()
                ),
            ));
        }
        // a new key would go into a new state file, and then the old one could not be restored
        let lost = |other: &&DeviceFacts| self.unknown_volume(other).is_some_and(|volume| volume.whose == Whose::Lost);
        if let Some(ours) = self.owners.others(facts).find(lost) {
            return Some(Finding::refused(
                format!("this node's state file may be lost: {} holds a volume of luks-agent", ours.name),
                format!(
                    "{}; to continue without that volume, add a [[volumes.match]] rule with role = \"ignore\" for it",
                    restore(self.config, ours)
                ),
            ));
        }
        if let Some(volume) = self.owners.formerly_on(facts) {
            return Some(Finding::refused(
                format!(
                    "known volume, LUKS UUID {}, was on this disk before it moved to another one",
                    volume.luks_uuid
                ),
                "detach it, or add a [[volumes.match]] rule with role = \"ignore\"; it may hold data that the other disk lacks",
            ));
        }
        let twins = self.owners.twins(facts);
        if !twins.is_empty() {
            return Some(Finding::refused(same_serial(facts, &twins), DETACH_ONE));
        }
        if facts.content.is_some() && (!facts.mounts.is_empty() || !facts.holders.is_empty()) {
            return Some(Finding::refused(in_use(facts), "unmount and release it"));
        }
        if !facts.partitions.is_empty() && !matches!(basis, Basis::Wipe { .. }) {
            return Some(Finding::refused(
                format!("it has partitions: {}", facts.partitions.join(", ")),
                wipe_or_ignore(facts),
            ));
        }
        let encryption = ciphers::of_new(self.config, self.owners.state, basis);
        let missing = ciphers::missing(self.owners.inventory, encryption, Severity::Refused);
        if matches!(basis, Basis::Unfinished { .. }) || missing.is_some() {
            return missing;
        }
        unresolved_ignore(self.config, self.owners.inventory, facts).or_else(|| unfit(self.config, facts))
    }
}

/// Returns why the configuration does not allow a volume on a disk of this size.
fn unfit(config: &Config, facts: &DeviceFacts) -> Option<Finding> {
    let ignore = "or add a [[volumes.match]] rule with role = \"ignore\"";
    if facts.size < 2 * DATA_OFFSET {
        let evidence = format!("it has {}, but the LUKS2 header alone takes {}", Bytes(facts.size), Bytes(DATA_OFFSET));
        return Some(Finding::refused(
            evidence,
            format!("attach a disk of at least {}, {ignore}", Bytes(2 * DATA_OFFSET)),
        ));
    }
    let sector = config.luks.sector_size.filter(|sector| !facts.size.is_multiple_of(u64::from(*sector)))?;
    Some(Finding::refused(
        format!("its size, {} bytes, is not a multiple of luks.sector_size, {sector}", facts.size),
        format!("remove luks.sector_size from the configuration, so that each disk gets a size that fits, {ignore}"),
    ))
}

/// Returns the objection that a rule ignores a disk by a udev link that does not exist, and that it may mean this disk.
fn unresolved_ignore(config: &Config, inventory: &Inventory, facts: &DeviceFacts) -> Option<Finding> {
    let means_another = |rule: &&MatchRule| inventory.devices.iter().any(|other| rule.matches(other));
    // the first rule that matches is the one that counts
    let earlier = config.volumes.rules.iter().take_while(|rule| !rule.matches(facts));
    let ignores = earlier.filter(|rule| rule.role == RuleRole::Ignore);
    let link = ignores.filter(|rule| !means_another(rule)).find_map(|rule| rule.may_mean(facts))?;
    Some(Finding::refused(
        format!("a [[volumes.match]] rule ignores {link}, which does not exist and may be this disk"),
        "check whether 'udevadm settle' creates the link, or match the disk by its serial number in the rule",
    ))
}
