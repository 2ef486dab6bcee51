//! Volumes that are smaller than their disks, and how to grow them.

use super::action::{Action, Grow};
use super::finding::Finding;
use super::model::Subject;
use super::planner::Planner;
use crate::disk::{DeviceFacts, Holder};
use crate::luks2::{DATA_OFFSET, grown_size};
use crate::state::VolumeRecord;
use crate::storage::FilesystemKind;

/// Why the size and the keyslots of a volume cannot change.
pub(super) const REENCRYPTING: &str = "its data is being re-encrypted";
/// What to do about it.
pub(super) const FINISH: &str = "finish that with 'luks-agent rotate --volume-key', then try again";

/// Whether a volume is smaller than its disk, as far as the facts show without a look at the disk. The recorded size
/// changes after everything has grown, file system included, so that the next run finishes an interrupted one.
pub(super) fn outgrown(facts: &DeviceFacts, record: &VolumeRecord, mapping: &Holder) -> bool {
    mapping.size < grown_size(facts.size) || record.size < facts.size
}

/// Returns what is wrong if the disk of an open volume has shrunk.
pub(super) fn shrunk(facts: &DeviceFacts, mapping: &Holder) -> Option<Finding> {
    let needed = mapping.size.saturating_add(DATA_OFFSET);
    (needed > facts.size).then(|| {
        Finding::wrong(
            format!("the disk is smaller than its open volume: it has {} bytes, {needed} are in use", facts.size),
            "check that the right disk is attached, and restore the volume from a snapshot if it is; data past the end of the disk cannot be read, and nothing was changed",
        )
    })
}

impl Planner<'_> {
    /// Returns how to grow an open volume.
    ///
    /// # Errors
    /// The finding that prevents it.
    pub(super) fn growth(
        &self,
        facts: &DeviceFacts,
        record: &VolumeRecord,
        mapping: &Holder,
    ) -> Result<Action, Finding> {
        if let Some(system) = &facts.system {
            let remedy = "the agent does not grow a volume that carries the system; grow it with 'cryptsetup resize' and the file system's own tool";
            return Err(Finding::refused(format!("it {system}"), remedy));
        }
        if record.is_reencrypting() {
            return Err(Finding::refused(REENCRYPTING.to_owned(), FINISH));
        }
        let expected = self.mount_points.of(record);
        let mount_point = match record.filesystem {
            FilesystemKind::None => None,
            FilesystemKind::Xfs | FilesystemKind::Ext4 => {
                let at = mapping.mounts.iter().find(|at| Some(*at) == expected.as_ref()).or(mapping.mounts.first());
                let unmounted = || {
                    let evidence = format!("volume {} is open, but not mounted", record.luks_uuid);
                    let remedy = "a file system can only grow while it is mounted; mount it with 'luks-agent unlock', then try again";
                    Finding::wrong(evidence, remedy)
                };
                Some(at.cloned().ok_or_else(unmounted)?)
            }
        };
        Ok(Action::Grow(Grow {
            luks_uuid: record.luks_uuid,
            key: record.key,
            mount_point,
            filesystem: record.filesystem,
            from: record.size,
            grows_mapping: mapping.size < grown_size(facts.size),
        }))
    }

    /// Reports a disk without an open known volume, in a mode that is only about open ones.
    pub(super) fn report_not_open(&mut self, subject: Subject, record: Option<&VolumeRecord>) {
        match record {
            Some(record) => self.refuse(
                subject,
                Finding::wrong(
                    format!("known volume, LUKS UUID {}, is not open", record.luks_uuid),
                    "open it with 'luks-agent unlock', then try again",
                ),
            ),
            None => self.leave(subject, "no known volume is open on it".to_owned()),
        }
    }
}
