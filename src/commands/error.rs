//! Why a command cannot begin.

use std::io;
use std::path::PathBuf;

use uuid::Uuid;

use crate::config::ConfigError;
use crate::discover::DiscoverError;
use crate::error::chain;
use crate::job::Answer;
use crate::key::KeyError;
use crate::kms::KmsError;
use crate::report::{ExitCode, WOULD_NOT_SURVIVE, service_exit_code};
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
    /// The disks, which cannot be listed.
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
    /// The library has an earlier form of re-encryption.
    #[error(
        "'luks-agent rotate --volume-key' needs libcryptsetup of cryptsetup 2.4 or later, and this node has that of {}.{}; nothing was changed: 'luks-agent rotate' gives the volumes a new data key, and new volumes have new volume keys",
        .0.0,
        .0.1
    )]
    OldLibcryptsetup((u32, u32)),
    /// The keyslots of a volume in re-encryption cannot be changed.
    #[error(
        "volume {0} is being re-encrypted, and its keyslots cannot change meanwhile; finish that with 'luks-agent rotate --volume-key'"
    )]
    Reencrypting(Uuid),
    /// A name given to `close` or `grow` that no open volume has.
    #[error(
        "no open volume is called '{name}'; expected the device, mapper name, mount point, serial number or LUKS UUID of one of: {open}"
    )]
    NoSuchVolume {
        /// The name.
        name: String,
        /// The volumes that are open.
        open: String,
    },
    /// A name that no known volume has.
    #[error(
        "no volume of this node is called '{name}'; expected the device, mapper name, mount point, serial number or LUKS UUID of one of: {known}"
    )]
    UnknownVolume {
        /// The name.
        name: String,
        /// The volumes that are known.
        known: String,
    },
    /// A volume and a copy of it are attached.
    #[error("volume {luks_uuid} is on {disks}; name the device")]
    SeveralDisks {
        /// The volume.
        luks_uuid: Uuid,
        /// Its disks.
        disks: String,
    },
    /// A name that several known volumes have.
    #[error("several volumes are called '{name}'; use the LUKS UUID of one of: {known}")]
    SeveralVolumes {
        /// The name.
        name: String,
        /// The volumes.
        known: String,
    },
    /// There is no terminal.
    #[error("a recovery key goes to a terminal and nowhere else, and there is none; run the command on a terminal")]
    NoTerminal(#[source] io::Error),
    /// The terminal is gone, or the user gave up.
    #[error("cannot use the terminal; nothing was changed")]
    Terminal(#[source] io::Error),
    /// The kernel gives no random numbers.
    #[error("cannot make a recovery key: the kernel gives no random numbers")]
    NoRandomness(#[source] io::Error),
    /// What was typed is not a recovery key.
    #[error(transparent)]
    RecoveryKey(#[from] KeyError),
    /// The path of a file cannot be made absolute.
    #[error("invalid path {path}")]
    Path {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A name that no disk has.
    #[error(
        "no disk is called '{name}'; expected the device, a link to it, the serial number or the LUKS UUID of one of: {disks}"
    )]
    NoSuchDisk {
        /// The name.
        name: String,
        /// The disks that are there.
        disks: String,
    },
    /// A mount point given to `adopt` that cannot be one.
    #[error("invalid mount point '{0}', expected an absolute path below / without '..', such as '/mnt3'")]
    NoMountPoint(String),
    /// A mount point given to `adopt` for several disks.
    #[error("--mount-point is for one volume, but {0} disks are named; adopt them one after the other")]
    OneMountPoint(usize),
    /// A name that no volume in the state file has.
    #[error(
        "no volume in the state file is called '{name}'; expected the LUKS UUID, serial number, device, mapper name or mount point of one of: {volumes}"
    )]
    NotRecorded {
        /// The name.
        name: String,
        /// The volumes in the state file.
        volumes: String,
    },
    /// A path for a report that leads to something else than a file.
    #[error("cannot write the report to {}: it is {is}; expected a file, which is replaced, or a new name", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What is there.
        is: &'static str,
    },
    /// A report that could not be written.
    #[error("cannot write the report to {}", path.display())]
    Output {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A report with something that JSON cannot have.
    #[error("the report cannot be written as JSON, so it was not written; 'luks-agent audit' prints it as a table")]
    NotJson(#[source] serde_json::Error),
    /// A report that could not be signed.
    #[error("the report is not signed, so it was not written")]
    NotSigned(#[source] KmsError),
    /// `erase` without a confirmation.
    #[error("erasing a volume cannot be undone, and standard input is no terminal on which to confirm it: add --yes")]
    NotConfirmed,
    /// A name that several volumes in the state file have.
    #[error("several volumes in the state file are called '{name}'; give the LUKS UUID of one: {volumes}")]
    AmbiguousVolume {
        /// The name.
        name: String,
        /// Those volumes.
        volumes: String,
    },
}

impl CommandError {
    /// Returns what `command` reports. To `health` an error can be a finding: the next boot would fail for the same reason.
    pub fn message_for(self, command: &str) -> String {
        let fails_boot = match &self {
            // a node without a configuration has no volumes to lose
            Self::Config(e) => !matches!(e, ConfigError::Missing { .. }),
            Self::State(_) => true,
            Self::Discover(_)
            | Self::Tools(_)
            | Self::NotRoot(_)
            | Self::OldLibcryptsetup(_)
            | Self::NoDeviceMapper(_)
            | Self::Reencrypting(_)
            | Self::NoSuchVolume { .. }
            | Self::UnknownVolume { .. }
            | Self::SeveralDisks { .. }
            | Self::SeveralVolumes { .. }
            | Self::NoTerminal(_)
            | Self::Terminal(_)
            | Self::NoRandomness(_)
            | Self::RecoveryKey(_)
            | Self::Path { .. }
            | Self::NoSuchDisk { .. }
            | Self::NoMountPoint(_)
            | Self::OneMountPoint(_)
            | Self::NotRecorded { .. }
            | Self::NotAFile { .. }
            | Self::Output { .. }
            | Self::NotJson(_)
            | Self::NotSigned(_)
            | Self::NotConfirmed
            | Self::AmbiguousVolume { .. } => false,
        };
        let prefix = if ["health", "verify"].contains(&command) && fails_boot { WOULD_NOT_SURVIVE } else { "" };
        format!("{prefix}{}", chain(self))
    }

    /// Returns the exit code.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Reencrypting(_) => ExitCode::Refused,
            Self::NotSigned(e) => service_exit_code(e),
            Self::Config(_)
            | Self::NoSuchVolume { .. }
            | Self::NoSuchDisk { .. }
            | Self::NoMountPoint(_)
            | Self::OneMountPoint(_)
            | Self::NotRecorded { .. }
            | Self::NotConfirmed
            | Self::NotAFile { .. }
            | Self::AmbiguousVolume { .. }
            | Self::UnknownVolume { .. }
            | Self::SeveralDisks { .. }
            | Self::SeveralVolumes { .. }
            | Self::Path { .. }
            | Self::NoTerminal(_)
            | Self::RecoveryKey(_)
            | Self::State(StateError::InMemory { .. }) => ExitCode::Configuration,
            Self::State(_)
            | Self::Discover(_)
            | Self::Tools(_)
            | Self::NotRoot(_)
            | Self::OldLibcryptsetup(_)
            | Self::NoDeviceMapper(_)
            | Self::Terminal(_)
            | Self::Output { .. }
            | Self::NotJson(_)
            | Self::NoRandomness(_) => ExitCode::Failed,
        }
    }
}

/// Describes a worker's answer that does not belong to the job.
pub(super) fn unexpected(answer: &Answer) -> String {
    format!("the worker process sent an unexpected answer: {answer:?}")
}
