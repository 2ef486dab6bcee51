//! One row of a report.

use std::path::PathBuf;

use serde::Serialize;
use uuid::Uuid;

use super::erasure::ErasureEvidence;
use super::found::Found;
use super::verdict::Verdict;
use crate::luks2::{HeaderFacts, mapper_name};
use crate::plan::Subject;

/// The reason in the row of a volume that `rotate` or `rewrap` has not caught up with yet.
pub const HAS_FORMER_KEY: &str = "opens with its former key; 'luks-agent provision' gives it the new one";

/// The reason in the row of a volume whose re-encryption is not finished.
pub const REENCRYPTING: &str = "its re-encryption is not finished";

/// The reason in the row of a volume whose erasing was interrupted.
pub const ERASING: &str = "erasing was interrupted: part of it may still be there, and it is never opened again";

/// A disk, or a known volume whose disk is not attached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Kernel name; `null` if the disk is not attached.
    pub device: Option<String>,
    /// Role.
    pub role: String,
    /// Serial number.
    pub serial: Option<String>,
    /// Size in bytes.
    pub size: u64,
    /// The result: what is, was done, or would be done.
    pub result: Verdict,
    /// Why.
    pub reason: Option<String>,
    /// What was found on the disk; `null` if it was not examined.
    pub evidence: Option<Found>,
    /// What to do about it.
    pub remedy: Option<String>,
    /// LUKS UUID.
    pub luks_uuid: Option<Uuid>,
    /// Mapper name.
    pub mapper: Option<String>,
    /// Mount point.
    pub mount_point: Option<PathBuf>,
    /// Whether its file system is marked with errors, as `unlock` and `health` find.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub filesystem_errors: bool,
    /// What its header says, as `header show` finds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<Box<HeaderFacts>>,
    /// Whether this run opened it. A volume that was open already may have been mounted.
    #[serde(skip)]
    pub opened: bool,
    /// The evidence that it was erased.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub erasure: Option<Box<ErasureEvidence>>,
}

impl Row {
    /// Returns a row with nothing but the disk and the result.
    pub fn new(subject: &Subject, result: Verdict) -> Self {
        Self {
            device: subject.device.clone(),
            role: subject.role.clone(),
            serial: subject.serial.clone(),
            size: subject.size,
            result,
            reason: None,
            evidence: subject.content.as_ref().map(Found::from),
            remedy: None,
            luks_uuid: None,
            mapper: None,
            mount_point: None,
            filesystem_errors: false,
            header: None,
            opened: false,
            erasure: None,
        }
    }

    /// Adds the volume.
    #[must_use]
    pub fn volume(mut self, luks_uuid: Option<Uuid>, mount_point: Option<PathBuf>) -> Self {
        self.mapper = luks_uuid.map(mapper_name);
        self.luks_uuid = luks_uuid;
        self.mount_point = mount_point;
        self
    }

    /// Adds the reason.
    #[must_use]
    pub fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Adds that its file system is marked with errors, and what to do about it.
    #[must_use]
    pub fn with_filesystem_errors(mut self) -> Self {
        self.filesystem_errors = true;
        self.reason = Some("its file system is marked with errors".to_owned());
        let mapper = self.mapper.as_deref().unwrap_or("MAPPER");
        self.remedy = Some(format!(
            "unmount it, run 'e2fsck -f /dev/mapper/{mapper}', then 'luks-agent unlock'; see the kernel's messages for the cause"
        ));
        self
    }
}
