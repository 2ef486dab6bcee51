//! The configuration: `/etc/luks-agent/config.toml` and its drop-ins, read, merged and validated.
//!
//! Each file is read into a fragment of its own, so that an error can name the file and the line. Later fragments
//! override earlier ones, and defaults fill the rest.
//!
//! May import: `digest`, `disk`, `emr`, `key`, `luks2`, `permissions`, `storage`.
//! Never: decides what follows from a value.

mod checked;
mod error;
mod fragment;
mod load;
mod security_configuration;
mod values;

pub use checked::crosses_in_clear;
pub use error::ConfigError;
pub use load::DEFAULT_PATH;
pub use values::{
    Audit, Config, Emr, EndpointMode, Exec, Expect, Filesystem, Health, Imds, Keys, Kms, Luks, Metrics, Noise, Policy,
    State, Volumes, WhenNotBlank,
};
