//! Why a command cannot begin.

use std::io;

use crate::config::ConfigError;
use crate::discover::DiscoverError;
use crate::error::chain;
use crate::job::Answer;
use crate::report::{ExitCode, WOULD_NOT_SURVIVE};
use crate::state::StateError;
use crate::storage::ToolError;

/// A command that could not begin; nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The state file.
    #[error(transparent)]
    State(#[from] StateError),
    /// The disks cannot be listed.
    #[error(transparent)]
    Discover(#[from] DiscoverError),
    /// A tool is missing.
    #[error(transparent)]
    Tools(#[from] ToolError),
    /// Not root.
    #[error("'luks-agent {0}' works on block devices and needs root; run it with sudo")]
    NotRoot(&'static str),
    /// No device-mapper.
    #[error(
        "device-mapper is not available: cannot open /dev/mapper/control; load the modules with 'modprobe dm-crypt', or boot a kernel that has them"
    )]
    NoDeviceMapper(#[source] io::Error),
    /// `close` or `grow` of something that is not an open volume.
    #[error(
        "no open volume is called '{name}'; expected the device, mapper name, mount point, serial number or LUKS UUID of one of: {open}"
    )]
    NoSuchVolume {
        /// What was asked for.
        name: String,
        /// What there is.
        open: String,
    },
}

impl CommandError {
    /// What a command says that could not begin. To `health` it is a finding: the next boot could not begin either.
    pub fn told_by(self, command: &str) -> String {
        let fails_boot = match &self {
            // a node that was never configured has nothing to lose
            Self::Config(e) => !matches!(e, ConfigError::Missing { .. }),
            Self::State(_) => true,
            Self::Discover(_)
            | Self::Tools(_)
            | Self::NotRoot(_)
            | Self::NoDeviceMapper(_)
            | Self::NoSuchVolume { .. } => false,
        };
        let prefix = if command == "health" && fails_boot { WOULD_NOT_SURVIVE } else { "" };
        format!("{prefix}{}", chain(self))
    }

    /// The exit code.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Config(_) | Self::NoSuchVolume { .. } | Self::State(StateError::InMemory { .. }) => {
                ExitCode::Configuration
            }
            Self::State(_) | Self::Discover(_) | Self::Tools(_) | Self::NotRoot(_) | Self::NoDeviceMapper(_) => {
                ExitCode::Failed
            }
        }
    }
}

/// The answer of a worker that answers another question than the one it was asked.
pub(super) fn unexpected(answer: &Answer) -> String {
    format!("the worker process sent an unexpected answer: {answer:?}")
}
