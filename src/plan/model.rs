//! What a plan consists of: steps, refusals, disks left alone, and changes to the state file.

use std::fmt;

use uuid::Uuid;

use super::action::Step;
use super::expect::Shortfall;
use super::finding::Finding;
use crate::disk::{Content, DeviceFacts};
use crate::state::{VolumeRecord, VolumeRole};

/// What to do; `apply` decides nothing beyond it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Work, in the order of the disks.
    pub steps: Vec<Step>,
    /// What the agent does not do although somebody could expect it, and why.
    pub refusals: Vec<Refusal>,
    /// Disks that the agent does not use, and known volumes that need nothing.
    pub left: Vec<Left>,
    /// Changes to the state file that follow from what was found, whatever the result of the steps.
    pub changes: Vec<Change>,
    /// Roles with fewer volumes than the configuration asks for; each has a refusal, too.
    pub shortfalls: Vec<Shortfall>,
}

/// A change to the record of a known volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The volume is instance store that is gone and not expected again.
    Forget {
        /// Its LUKS UUID.
        luks_uuid: Uuid,
    },
    /// The volume is in use on another disk than before, for example one made from a snapshot. That is its disk from
    /// now on.
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
    /// Turns refusals of disks that are not the node's into disks left alone: a report names them, and they do not
    /// count as failures.
    pub fn leave_strangers(&mut self) {
        let strangers = self.refusals.extract_if(.., |refusal| refusal.is_stranger);
        self.left.extend(strangers.map(|Refusal { subject, finding, .. }| {
            let because = format!("not one of this node's volumes, left alone: {}", finding.evidence);
            Left { subject, because, volume: None }
        }));
    }
}

/// Something that the agent does not do, for safety or because something is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The disk, or the disk that should be there.
    pub subject: Subject,
    /// Why, and what to do about it.
    pub finding: Finding,
    /// Whether neither the state file nor the content of the disk connects it with this node.
    pub is_stranger: bool,
}

/// A disk that needs no work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// Which disk.
    pub subject: Subject,
    /// Why there is nothing to do.
    pub because: String,
    /// The record of a known volume that is open and, if it should be, mounted.
    pub volume: Option<VolumeRecord>,
}

/// The disk that a row of a report is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Kernel name of the disk; `None` if it is not attached.
    pub device: Option<String>,
    /// Its role, or the recorded one.
    pub role: String,
    /// Serial number.
    pub serial: Option<String>,
    /// Size in bytes.
    pub size: u64,
    /// What a worker found on it; `None` if it was not opened.
    pub content: Option<Content>,
}

impl Subject {
    /// Returns the subject of a disk, as a disk of `role`.
    pub fn of(facts: &DeviceFacts, role: &impl fmt::Display) -> Self {
        Self {
            device: Some(facts.name.clone()),
            role: role.to_string(),
            serial: facts.serial.clone(),
            size: facts.size,
            content: facts.content.clone(),
        }
    }

    /// Returns the subject of a known volume that is not there.
    pub fn absent(volume: &VolumeRecord) -> Self {
        Self { serial: volume.serial.clone(), size: volume.size, ..Self::absent_of(volume.role) }
    }

    /// Returns the subject of a volume that should be there, of which nothing but the role is known.
    pub fn absent_of(role: VolumeRole) -> Self {
        Self { device: None, role: role.to_string(), serial: None, size: 0, content: None }
    }
}
