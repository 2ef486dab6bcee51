//! What a plan says: steps, refusals, what is left alone, and how the state file is to follow.

use uuid::Uuid;

use super::action::Step;
use super::expect::Shortfall;
use super::finding::Finding;
use crate::disk::{Content, DeviceFacts, Role};
use crate::state::VolumeRecord;

/// Whether formatting is allowed at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Unlock what is known, format what is new and blank.
    Provision,
    /// Unlock what is known; never format. Disks that are not the node's are left alone, whatever is on them.
    Unlock,
    /// Grow what is open to the size of its disk, and nothing else. No disk is looked at for it.
    Grow,
}

/// What is to be done; `apply` decides nothing beyond it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Work, in the order of the disks.
    pub steps: Vec<Step>,
    /// What is not done although it could be expected, and why.
    pub refusals: Vec<Refusal>,
    /// Disks that are not the agent's business, and known volumes that need nothing.
    pub left: Vec<Left>,
    /// How the state file is to follow what was found, whatever becomes of the steps.
    pub changes: Vec<Change>,
    /// Of which roles there are fewer volumes than the configuration asks for; each has its refusal, too.
    pub shortfalls: Vec<Shortfall>,
}

/// How the record of a known volume is to follow what was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It is of instance store that is gone and not expected again.
    Forget {
        /// Its LUKS UUID.
        luks_uuid: Uuid,
    },
    /// It is used on another disk than before, one made from a snapshot of it say, and that is its disk from now on.
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
    /// Makes nothing of the refusals of disks that are not the node's: they are named, and count no more.
    pub fn leave_strangers(&mut self) {
        let strangers = self.refusals.extract_if(.., |refusal| refusal.is_stranger);
        self.left.extend(strangers.map(|Refusal { subject, finding, .. }| {
            let because = format!("not one of this node's volumes, left alone: {}", finding.evidence);
            Left { subject, because, volume: None }
        }));
    }
}

/// Something that is not done, for safety or because something is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which disk; or the disk that should be there.
    pub subject: Subject,
    /// Why, and what to do about it.
    pub finding: Finding,
    /// Whether it is about a disk that neither the state file nor what is on it connects with this node.
    pub is_stranger: bool,
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
    /// What was found on it, if it was opened.
    pub content: Option<Content>,
}

impl Subject {
    /// The row of a disk.
    pub fn of(facts: &DeviceFacts, role: &Role) -> Self {
        Self {
            device: Some(facts.name.clone()),
            role: role.to_string(),
            serial: facts.serial.clone(),
            size: facts.size,
            content: facts.content.clone(),
        }
    }
}
