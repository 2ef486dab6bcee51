//! The answers of a worker.

use serde::{Deserialize, Serialize};

use crate::disk::{Content, MissingCipher};
use crate::luks2::{BackupNote, HeaderFacts, Layout, Opened, ProvenKeyslot};
use crate::storage::FilesystemKind;
use crate::storage::dm::Crypt;

/// One line of a worker's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// The worker is still at work.
    Progress {
        /// The current stage.
        stage: String,
        /// How much of the stage is done, in percent.
        percent: Option<u64>,
        /// How fast it goes, and how long it will take, if that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pace: Option<String>,
    },
    /// What is on the disk.
    Content {
        /// The content.
        content: Content,
    },
    /// Which volume the header belongs to.
    Header {
        /// [`Content::Luks2`]; `None` if there is no header.
        content: Option<Content>,
    },
    /// The disk is formatted, open, and has a file system; it is not mounted.
    Formatted {
        /// What the key opens.
        opened: Opened,
    },
    /// Not formatted: what is on the disk is no longer what the plan was based on.
    Changed {
        /// What is on it now.
        content: Content,
    },
    /// The volume is open and mounted.
    Unlocked {
        /// What the key opened; `None` if the volume was open already.
        opened: Option<Opened>,
        /// Whether its file system is marked with errors.
        filesystem_errors: bool,
        /// A warning about it.
        warning: Option<String>,
    },
    /// The volume has grown.
    Grown,
    /// The volume has the size of its disk already.
    Unchanged,
    /// The volume is on the disk as it was made.
    Sound {
        /// What is not as it should be, but does not affect a reboot.
        #[serde(skip_serializing_if = "Option::is_none")]
        unsound: Option<String>,
        /// Whether its file system is marked with errors.
        filesystem_errors: bool,
        /// How much of it has its new volume key, in percent, if it is being re-encrypted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reencrypted: Option<u64>,
    },
    /// Whether the kernel has a cipher.
    Cipher {
        /// What the kernel lacks; `None` if it has the cipher.
        missing: Option<MissingCipher>,
    },
    /// The volume is closed.
    Closed,
    /// The volume has both keys.
    KeyAdded {
        /// The keyslot of its own key.
        own: ProvenKeyslot,
        /// The keyslot of the added key.
        added: ProvenKeyslot,
    },
    /// The volume has lost the key.
    KeyRemoved {
        /// The keyslot that was left, because it is not as the key opened it.
        left: Option<u32>,
    },
    /// All data of the volume has the new volume key.
    Reencrypted {
        /// What the data key opens from now on.
        opened: Opened,
    },
    /// The re-encryption was stopped before it was finished. The next job goes on.
    Stopped,
    /// Nothing was done, for the safety of the volume.
    Refused {
        /// Why.
        why: String,
    },
    /// The job failed.
    Failed {
        /// The reason, including its causes.
        message: String,
    },
    /// The passphrase opens the volume.
    Verified {
        /// The keyslot that it opens.
        keyslot: ProvenKeyslot,
    },
    /// What the header says.
    HeaderShown {
        /// The header.
        header: Box<HeaderFacts>,
    },
    /// The header is backed up.
    HeaderBackedUp {
        /// The sequence id of the header.
        seqid: u64,
    },
    /// A backup is as it was written.
    BackupInspected(Box<InspectedBackup>),
    /// The file is not a backup, or it is damaged.
    BackupRefused {
        /// Why.
        why: String,
    },
    /// The header is restored, and the passphrase opens it.
    HeaderRestored {
        /// The keyslot that it opens.
        keyslot: ProvenKeyslot,
    },
    /// The recovery key opens the volume, and the data key does.
    RecoveryEnrolled {
        /// Whether an earlier recovery key opened it.
        replaced: bool,
    },
    /// No recovery key opens the volume, and the data key does.
    RecoveryRemoved {
        /// Whether there was one.
        any: bool,
    },
    /// The key opens the volume, which is open now.
    Adopted {
        /// How it was made.
        layout: Layout,
        /// The file system on it.
        filesystem: FilesystemKind,
        /// What the key opens.
        opened: Opened,
    },
    /// How the volume is encrypted.
    Audited(Box<Audited>),
    /// Every byte of the header area is zero, on the disk itself.
    Erased {
        /// What this job has overwritten, in that order; nothing if an earlier one has.
        overwritten: Vec<Overwritten>,
    },
    /// Nothing was overwritten.
    Untouched {
        /// Why, including the causes.
        message: String,
    },
}

/// See [`Answer::BackupInspected`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InspectedBackup {
    /// The note in it.
    pub note: BackupNote,
    /// The header in it.
    pub header: HeaderFacts,
    /// Why its header does not pass the policy; `None` if it does.
    pub violation: Option<String>,
    /// Whether the reason is that the data has another volume key.
    pub other_volume_key: bool,
    /// Whether the header on the disk has another volume key than the state file records. If it fits the data, replacing it loses them.
    pub replaces_volume_key: bool,
    /// The header on the disk, if there is one.
    pub present: Option<HeaderFacts>,
}

/// See [`Answer::Audited`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audited {
    /// Why the header on the disk is not as the agent made it; `None` if it is.
    pub header: Option<String>,
    /// How it is encrypted: by the table of its mapping, or by its header if it is not open or is being re-encrypted.
    pub crypt: Option<Crypt>,
    /// Its mapping, if it is open.
    pub mapping: Option<AuditedMapping>,
    /// How much of it has its new volume key, in percent, if it is being re-encrypted.
    pub reencrypted: Option<u64>,
}

/// The mapping of an [`Audited`] volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditedMapping {
    /// Whether the kernel encrypts what goes through it.
    pub is_crypt: bool,
    /// Why it is not as the agent made it; `None` if it is.
    pub violation: Option<String>,
    /// The comparison, or why there is none.
    pub compared: Result<Compared, String>,
}

/// Blocks of a mapping, compared with those of the disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    /// Size of a block in bytes.
    pub block_size: u32,
    /// How many were compared.
    pub blocks: u64,
    /// How many of them differ.
    pub differ: u64,
    /// How many were not compared, because they are zero on the disk: nothing was written there.
    pub unwritten: u64,
}

/// A part of a disk that was overwritten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overwritten {
    /// What was in it.
    pub what: String,
    /// The offset of its first byte.
    pub begin: u64,
    /// The offset of the first byte behind it.
    pub end: u64,
    /// With what.
    pub with: String,
}
