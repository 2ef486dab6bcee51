//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
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
    /// Show what provision would do, disk by disk, with the evidence; write nothing
    Plan {
        /// Print one JSON object instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Unlock what is known, format what is new and blank, mount both; safe to repeat
    Provision {
        /// Leave volumes closed that somebody closed with 'luks-agent close'; what the daemon does
        #[arg(long)]
        leave_closed: bool,
        /// Print one JSON object instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Unlock and mount what is known; never format
    Unlock {
        /// Print one JSON object instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Provision, waiting for volumes that are expected; what the boot service runs
    Boot {
        /// Print one JSON object instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Grow open volumes to the size of their disks: the mapping, then the file system, while it is mounted
    Grow {
        /// Which: device, mapper name, mount point, serial number or LUKS UUID; all open ones if none is given
        #[arg(value_name = "DEVICE")]
        volumes: Vec<String>,
        /// Print one JSON object instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Unmount and close volumes, each of them whole or not at all; name who holds one
    Close {
        /// Which: device, mapper name, mount point, serial number or LUKS UUID; all open ones if none is given
        #[arg(value_name = "DEVICE")]
        volumes: Vec<String>,
        /// Unmount and close as far as can be, and mount nothing again; what the boot service runs when it is stopped
        #[arg(long)]
        for_shutdown: bool,
        /// Print one JSON object instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Show every disk: its role, state, LUKS UUID, mapping and mount point
    Status {
        /// Print one JSON object instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Check that this node would come back after a reboot: the KMS key, the state file, every volume
    Health {
        /// Print one JSON object instead of a table
        #[arg(long)]
        json: bool,
    },
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

impl Command {
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
            Self::Daemon => "daemon",
            Self::Completions { .. } => "completions",
            Self::ManPages { .. } => "man-pages",
            Self::Worker => "worker",
        }
    }

    /// Whether the command reports as JSON.
    pub fn json(&self) -> bool {
        match self {
            Self::Plan { json }
            | Self::Provision { json, .. }
            | Self::Unlock { json }
            | Self::Boot { json }
            | Self::Grow { json, .. }
            | Self::Close { json, .. }
            | Self::Status { json }
            | Self::Health { json } => *json,
            Self::Daemon | Self::Completions { .. } | Self::ManPages { .. } | Self::Worker => false,
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
