//! What a volume is on disk: layout, header, token, keyslot, and the policy that a header must pass.
//!
//! It reads open files but opens none itself. The LUKS2 on-disk format is specified at
//! <https://gitlab.com/cryptsetup/LUKS2-docs>.
//!
//! May import: `digest`, `key`.
//! Never: libcryptsetup, device-mapper, or the disks of the machine.

mod areas;
mod backup;
mod facts;
mod header;
mod keyslot;
mod layout;
mod policy;
mod recovery;
mod reencryption;
mod segment;
mod spec;
mod token;
mod violation;
mod volume_key;

pub(crate) use areas::{KeyslotArea, keyslot_areas};
pub use backup::{BackupError, BackupNote, BackupOrigin};
pub(crate) use backup::{note_about, read_backup};
pub use facts::{HeaderFacts, KeyslotFacts, TokenFacts};
pub use header::HeaderError;
pub(crate) use header::{Copies, Luks2Header};
pub(crate) use keyslot::forget_cached;
pub use keyslot::{KeyslotError, ProvenKeyslot};
pub use layout::{Cipher, DATA_OFFSET, Encryption, Flags, Layout, grown_size, mapper_name};
pub use policy::{Expected, check_header};
pub(crate) use policy::{check_file, check_volume_key};
pub use recovery::RECOVERY_TOKEN_TYPE;
pub(crate) use recovery::RecoveryToken;
pub(crate) use reencryption::{is_reencrypting, reencrypted};
pub use segment::HeaderPolicy;
pub use spec::FormatSpec;
pub use token::{EXEC_TOKEN_TYPE, SUBSYSTEM, TOKEN_TYPE, Token};
pub use violation::PolicyViolation;
pub use volume_key::{Opened, VolumeKeyId};
