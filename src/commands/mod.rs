//! The commands. Each is a part of the pipeline from configuration to report, in a file of its own.
//!
//! May import: `apply`, `audit`, `certificates`, `config`, `discover`, `disk`, `dsse`, `emr`, `error`, `fips`, `fleet`, `job`, `key`, `kms`,
//! `luks2`, `permissions`, `plan`, `report`, `state`, `storage`.
//! Never: a device, `worker`, `daemon`.

// one file a command
mod adopt;
mod audit;
mod audit_convert;
mod audit_fleet;
mod audit_record;
mod audit_verify;
mod close;
mod crypttab_key;
mod doctor;
mod emr;
mod erase;
mod forget;
mod grow;
mod header;
mod health;
mod plan;
mod provision;
mod recovery_key;
mod rewrap;
mod rotate;
mod status;
mod unlock;
mod unwrap;
mod verify;

// what they share
mod audit_reports;
mod ciphers;
mod error;
mod input;
mod instance;
mod lazy_kms;
mod named;
mod named_disks;
mod new_keys;
mod node;
mod open_volumes;
mod orphans;
mod picture;
mod planning;
mod preflight;
mod printed;
mod recorded;
mod security_configuration;
mod survey;
mod terminal;
mod volume_keys;
mod waiting;

pub use adopt::{Adopt, adopt};
pub use audit::{audit, audit_text, check_output, write_report};
pub use audit_convert::{AuditFormat, audit_convert};
pub use audit_fleet::{FleetFiles, FleetOutputs, audit_fleet};
pub use audit_record::record_audit;
pub use audit_verify::audit_verify;
pub use close::{Closing, close};
pub use crypttab_key::{CrypttabKeyError, crypttab_key};
pub use doctor::doctor;
pub use emr::{EmrFiles, EmrFormat, emr_check, emr_import};
pub use erase::{Erase, erase};
pub use error::CommandError;
pub use forget::forget;
pub use grow::grow;
pub use header::{Restoring, header_backup, header_restore, header_show};
pub use health::health;
pub use node::is_known;
pub use picture::{Picture, picture};
pub use plan::show_plan;
pub use printed::Printed;
pub use provision::{Occasion, provision};
pub use recovery_key::{Recovery, recovery_key, unlock_with_recovery_key};
pub use rewrap::rewrap;
pub use rotate::{Rotation, rotate};
pub use status::{local_status, status};
pub use unlock::unlock;
pub use unwrap::{UnwrapError, unwrap};
pub use verify::verify;
