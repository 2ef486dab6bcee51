//! `/etc/luks-agent/config.toml` and its drop-ins, read, merged and validated.
//!
//! Each file is read on its own into a fragment, so that an error names file and line; the fragments are merged in
//! order, later ones win, and defaults fill the rest.
//!
//! May import: `disk`, `luks2`, `permissions`, `storage`.
//! Never: what is done with a value.

mod checked;
mod error;
mod fragment;
mod load;
mod values;

pub use checked::crosses_in_clear;
pub use error::ConfigError;
pub use load::DEFAULT_PATH;
pub use values::{Config, Expect, Filesystem, Health, Kms, Luks, Metrics, Noise, Policy, State, Volumes, WhenNotBlank};
