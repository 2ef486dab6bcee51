//! What a worker says.

use serde::{Deserialize, Serialize};

use crate::disk::{Content, MissingCipher};
use crate::luks2::ProvenKeyslot;

/// One line of a worker's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// Still at work.
    Progress {
        /// At what.
        stage: String,
        /// How much of it is done, in percent.
        percent: Option<u64>,
    },
    /// What is on the disk.
    Content {
        /// What.
        content: Content,
    },
    /// Which volume its header is of.
    Header {
        /// [`Content::Luks2`]; `None` where there is none.
        content: Option<Content>,
    },
    /// Formatted, open, and with a file system; not mounted.
    Formatted {
        /// The keyslot that its key opens.
        keyslot: ProvenKeyslot,
    },
    /// Not formatted: what is on the disk is no longer what the plan was based on.
    Changed {
        /// What is there now.
        content: Content,
    },
    /// Open and mounted.
    Unlocked {
        /// The keyslot that opened; `None` where the volume was open.
        keyslot: Option<ProvenKeyslot>,
        /// Whether its file system is marked with errors.
        filesystem_errors: bool,
        /// What is worth a warning all the same.
        warning: Option<String>,
    },
    /// Larger than it was.
    Grown,
    /// As large as its disk already.
    Unchanged,
    /// On the disk as it was made.
    Sound {
        /// What of it is not as it should be, and no matter of a reboot.
        #[serde(skip_serializing_if = "Option::is_none")]
        unsound: Option<String>,
        /// Whether its file system is marked with errors.
        filesystem_errors: bool,
    },
    /// Whether the kernel has a cipher.
    Cipher {
        /// What it lacks.
        missing: Option<MissingCipher>,
    },
    /// Closed.
    Closed,
    /// Failed.
    Failed {
        /// Why, causes included.
        message: String,
    },
}
