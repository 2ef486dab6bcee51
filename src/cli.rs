//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tracing::level_filters::LevelFilter;

use crate::config::DEFAULT_PATH;

/// Encrypts the local disks of EMR and EC2 cluster nodes with LUKS under a KMS key
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 done, 1 something failed, 2 usage or configuration, 3 refused for safety, \
                        4 key service or credentials not available in time.")]
pub struct Cli {
    /// Configuration file; drop-ins are read from config.d beside it
    #[arg(long, global = true, value_name = "FILE", default_value = DEFAULT_PATH)]
    pub config: PathBuf,

    /// What is logged, to the journal or to standard error
    #[arg(long, global = true, value_name = "LEVEL", value_enum)]
    pub log_level: Option<LogLevel>,

    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// What failed
    Error,
    /// And what is waited for
    Warn,
    /// And what is done
    Info,
    /// And how
    Debug,
}

impl From<LogLevel> for LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
        }
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// One that ends with a report.
    #[command(flatten)]
    Verb(Verb),
    /// Watch disks and the key; have systemd provision what is new
    Daemon,
    /// Print a completion script
    #[command(hide = true)]
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
    /// Write the man pages into a directory
    #[command(hide = true)]
    ManPages {
        /// The directory
        dir: PathBuf,
    },
    /// Do one job on one disk, given on standard input; started by the other commands
    #[command(hide = true)]
    Worker,
}

/// The commands that end with a report.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Show what provision would do, disk by disk, with the evidence; write nothing
    Plan {
        /// How it reports.
        #[command(flatten)]
        output: Output,
    },
    /// Unlock what is known, format what is new and blank, mount both; safe to repeat
    Provision {
        /// Leave volumes closed that somebody closed with 'luks-agent close'; what the daemon does
        #[arg(long)]
        leave_closed: bool,
        /// How it reports.
        #[command(flatten)]
        output: Output,
    },
    /// Unlock and mount what is known; never format
    Unlock {
        /// How it reports.
        #[command(flatten)]
        output: Output,
    },
    /// Provision, waiting for volumes that are expected; what the boot service runs
    Boot {
        /// How it reports.
        #[command(flatten)]
        output: Output,
    },
    /// Grow open volumes to the size of their disks: the mapping, then the file system, while it is mounted
    Grow {
        /// Which volumes.
        #[command(flatten)]
        volumes: Volumes,
        /// How it reports.
        #[command(flatten)]
        output: Output,
    },
    /// Unmount and close volumes, each of them whole or not at all; name who holds one
    Close {
        /// Which volumes.
        #[command(flatten)]
        volumes: Volumes,
        /// Unmount and close as far as can be, and mount nothing again; what the boot service runs when it is stopped
        #[arg(long)]
        for_shutdown: bool,
        /// How it reports.
        #[command(flatten)]
        output: Output,
    },
    /// Show every disk: its role, state, LUKS UUID, mapping and mount point
    Status {
        /// How it reports.
        #[command(flatten)]
        output: Output,
    },
    /// Check that this node would come back after a reboot: the KMS key, the state file, every volume
    Health {
        /// How it reports.
        #[command(flatten)]
        output: Output,
    },
}

// clap takes doc comments of flattened structs for help
#[allow(missing_docs, reason = "it would be shown as the help of the command")]
#[derive(Debug, Clone, Copy, Args)]
pub struct Output {
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub json: bool,
}

#[allow(missing_docs, reason = "it would be shown as the help of the command")]
#[derive(Debug, Args)]
pub struct Volumes {
    /// Which: device, mapper name, mount point, serial number or LUKS UUID; all open ones if none is given
    #[arg(id = "volumes", value_name = "DEVICE")]
    pub names: Vec<String>,
}

impl Verb {
    /// Its name, as a report has it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Plan { .. } => "plan",
            Self::Provision { .. } => "provision",
            Self::Unlock { .. } => "unlock",
            Self::Boot { .. } => "boot",
            Self::Grow { .. } => "grow",
            Self::Close { .. } => "close",
            Self::Status { .. } => "status",
            Self::Health { .. } => "health",
        }
    }

    /// How it reports.
    pub fn output(&self) -> Output {
        match self {
            Self::Plan { output }
            | Self::Provision { output, .. }
            | Self::Unlock { output }
            | Self::Boot { output }
            | Self::Grow { output, .. }
            | Self::Close { output, .. }
            | Self::Status { output }
            | Self::Health { output } => *output,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
