//! The command line.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use tracing::level_filters::LevelFilter;

use crate::certificates::Region;
use crate::commands::AuditFormat;
use crate::config::DEFAULT_PATH;
use crate::emr::CONTROLS;

/// The version of the program. A build with the FIPS module names itself.
const VERSION: &str =
    if cfg!(feature = "fips") { concat!(env!("CARGO_PKG_VERSION"), "+fips") } else { env!("CARGO_PKG_VERSION") };

/// Encrypts the local disks of EMR and EC2 cluster nodes with LUKS under a KMS key
#[derive(Debug, Parser)]
#[command(version = VERSION, propagate_version = true, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 done, 1 something failed, 2 usage or configuration, 3 refused for safety, \
                        4 key service or credentials not available in time.")]
pub struct Cli {
    /// Configuration file; drop-ins in config.d beside it are read too
    #[arg(long, global = true, value_name = "FILE", default_value = DEFAULT_PATH)]
    pub config: PathBuf,

    /// How much to log, to the journal or to standard error
    #[arg(long, global = true, value_name = "LEVEL", value_enum)]
    pub log_level: Option<LogLevel>,

    /// The command
    #[command(subcommand)]
    pub command: Command,
}

/// How much to log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Failures
    Error,
    /// Also retries and waits
    Warn,
    /// Also what is done
    Info,
    /// Also details
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
    /// A command that ends with a report.
    #[command(flatten)]
    Verb(Verb),
    /// Report for auditors what is on each disk, what encrypts it, and how that was shown; write nothing else, and call no key service
    /// unless a report is to be signed
    #[command(
        args_conflicts_with_subcommands = true,
        after_help = "Exit codes: 0 each disk is encrypted or excepted by a rule, 1 a disk is not encrypted, or it could not be shown \
                            that it is, 2 usage or configuration, 4 the key service did not sign the report."
    )]
    Audit {
        /// Print the report as JSON instead of a table; docs/schema/audit-report.json is its schema. If audit.signing_key is set, print
        /// an envelope with the report and its signature
        #[arg(long)]
        json: bool,
        /// Also write the report to a file, as --json prints it; only its owner may read the file, and an existing one is replaced
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Write the report to the file of audit.report, and inventory if audit.ssm_inventory is set; print nothing, and exit with 0 whatever
        /// the verdict; the daemon uses this
        #[arg(long, conflicts_with_all = ["json", "output"])]
        record: bool,
        /// How many blocks to compare between mapping and disk of each open volume
        #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
        blocks: u32,
        /// What else to do.
        #[command(subcommand)]
        action: Option<AuditAction>,
    },
    /// Watch disks and the KMS key; run provision and health through systemd
    Daemon,
    /// Check EMR security configurations, or turn one into configuration of this agent; touch no node and no AWS account
    Emr {
        /// What to do.
        #[command(subcommand)]
        action: EmrAction,
    },
    /// Print a shell completion script
    #[command(hide = true)]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the man pages into a directory
    #[command(hide = true)]
    ManPages {
        /// The directory
        dir: PathBuf,
    },
    /// Run one job on one disk, read from standard input; started by the other commands
    #[command(hide = true)]
    Worker,
    /// Read a LUKS2 token from standard input, and write its passphrase to the pipe on standard output; started by the token plug-in of
    /// cryptsetup
    #[command(hide = true)]
    Unwrap,
    /// Write the key of a volume to the socket on standard input, whose other end is systemd-cryptsetup; started by luks-agent-key.socket
    #[command(hide = true)]
    CrypttabKey,
}

/// The commands that end with a report.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Show what provision would do to each disk, and why; write nothing
    Plan {
        /// How it reports.
        #[command(flatten)]
        output: Output,
    },
    /// Unlock known volumes, format new and blank disks, mount both; safe to repeat
    Provision {
        /// Do not open volumes that were closed with 'luks-agent close'; the daemon uses this
        #[arg(long)]
        leave_closed: bool,
        /// How it reports.
        #[command(flatten)]
        output: Output,
    },
    /// Unlock and mount known volumes; never format
    Unlock {
        /// Ask for the recovery key on the terminal, and call no key service
        #[arg(long)]
        recovery_key: bool,
        /// How it reports.
        #[command(flatten)]
        output: Output,
    },
    /// Like provision, but wait for the volumes of [volumes.expect]; the boot service uses this
    Boot {
        /// How it reports.
        #[command(flatten)]
        output: Output,
    },
    /// Grow open volumes to the size of their disks: the mapping, then the mounted file system
    Grow {
        /// Which volumes.
        #[command(flatten)]
        volumes: Volumes,
        /// How it reports.
        #[command(flatten)]
        output: Output,
    },
    /// Unmount and close volumes, each completely or not at all; name what uses one
    Close {
        /// Which volumes.
        #[command(flatten)]
        volumes: Volumes,
        /// Unmount and close as much as possible, and mount nothing again; the boot service uses this when it stops
        #[arg(long)]
        for_shutdown: bool,
        /// How it reports.
        #[command(flatten)]
        output: Output,
    },
    /// Give all volumes a new data key: add it, prove it, then remove the former one; finish an interrupted run
    Rotate {
        /// Then also give each open volume a new volume key: encrypt all its data again while it is in use, which takes hours. If that
        /// was stopped, go on with it
        #[arg(long)]
        volume_key: bool,
        /// Re-encrypt no faster than this many bytes a second; K, M and G stand for KiB, MiB and GiB
        #[arg(long, value_name = "BYTES", value_parser = parse_speed, requires = "volume_key")]
        max_speed: Option<u64>,
        /// How it reports.
        #[command(flatten)]
        output: Output,
    },
    /// Wrap the data key with another KMS key; the passphrase and the data of the volumes stay as they are
    Rewrap {
        /// The KMS key: ARN, key ID, alias name or alias ARN, in the same Region
        #[arg(long, value_name = "KEY")]
        to: String,
        /// How it reports.
        #[command(flatten)]
        output: Output,
    },
    /// Show the role, state, LUKS UUID, mapping and mount point of every disk
    Status {
        /// How it reports.
        #[command(flatten)]
        output: Output,
    },
    /// Say whether this node can do its work, before anything is formatted: kernel, tools, KMS key, permissions, units; write nothing
    Doctor {
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
    /// Take over volumes that another node made, or this one before it lost its state file
    Adopt {
        /// Device, link to it, serial number or LUKS UUID of the disks
        #[arg(id = "disks", value_name = "DEVICE", required_unless_present = "all")]
        names: Vec<String>,
        /// Every attached volume of luks-agent that the state file does not list
        #[arg(long, conflicts_with_all = ["disks", "mount_point"])]
        all: bool,
        /// Where to mount the volume; without it, where this node last mounted it, or at the next free mount point
        #[arg(long, value_name = "DIR")]
        mount_point: Option<PathBuf>,
        /// Give the volumes the key of this node, and remove the one that they came with
        #[arg(long)]
        rekey: bool,
        /// How it reports.
        #[command(flatten)]
        output: Output,
    },
    /// Remove volumes that are gone for good from the state file; keep their records aside
    Forget {
        /// LUKS UUID, serial number, device, mapper name or mount point of the volumes
        #[arg(id = "volumes", value_name = "VOLUME", required = true)]
        names: Vec<String>,
        /// Forget a volume although its disk is attached and it could be opened
        #[arg(long)]
        even_if_attached: bool,
        /// How it reports.
        #[command(flatten)]
        output: Output,
    },
    /// Destroy volumes: overwrite the headers, so that no key opens them any more
    Erase {
        /// Device, link to it, serial number or LUKS UUID of the disks
        #[arg(id = "disks", value_name = "DEVICE", required = true)]
        names: Vec<String>,
        /// Also volumes of luks-agent that the state file does not list
        #[arg(long)]
        unknown: bool,
        /// Do not ask for a confirmation
        #[arg(long)]
        yes: bool,
        /// How it reports.
        #[command(flatten)]
        output: Output,
    },
    /// Rehearse the next reboot: unwrap the keys and try them on every volume; close and write nothing
    Verify {
        /// How it reports.
        #[command(flatten)]
        output: Output,
    },
    /// Show, back up or restore the LUKS2 headers of volumes
    Header {
        /// What to do.
        #[command(subcommand)]
        action: HeaderAction,
    },
    /// Enroll or remove a recovery key, which opens volumes without the key service
    RecoveryKey {
        /// What to do.
        #[command(subcommand)]
        action: RecoveryKeyAction,
    },
}

/// The commands about EMR security configurations.
#[derive(Debug, Subcommand)]
pub enum EmrAction {
    /// Show what EMR would encrypt and reject, where data stays in clear, and the verdicts of Security Hub, Control Tower, checkov and KICS
    #[command(
        after_help = "Exit codes: 0 local disks are encrypted and EMR would accept it, 1 local disks in clear, EMR would reject \
                            it, a required control fails, or nodes cannot use the certificates, 2 bad input."
    )]
    Check {
        /// Files with security configurations: the document, the answer of 'aws emr describe-security-configuration', a CloudFormation
        /// template in JSON, or a Terraform plan in JSON; - is standard input
        #[arg(value_name = "FILE", required_unless_present = "certificates")]
        files: Vec<PathBuf>,
        /// A zip file with PEM certificates for encryption in transit, as S3Object names one: check key, dates, names and order; can be
        /// given several times, also without FILE
        #[arg(long, value_name = "ZIP")]
        certificates: Vec<PathBuf>,
        /// A Region whose nodes the certificates must be for; can be given several times
        #[arg(long, value_name = "REGION", requires = "certificates")]
        region: Vec<Region>,
        /// A control that must pass; can be given several times
        #[arg(long, value_name = "ID", value_parser = PossibleValuesParser::new(CONTROLS.iter().map(|control| control.id)))]
        require: Vec<String>,
        /// luks-agent encrypts local disks: a document without LocalDiskEncryptionConfiguration does not fail for that
        #[arg(long)]
        local_disks_by_agent: bool,
        /// Print one JSON object instead of tables
        #[arg(long, conflicts_with = "sarif")]
        json: bool,
        /// Print a SARIF 2.1.0 log for code scanning instead of tables
        #[arg(long)]
        sarif: bool,
    },
    /// Print a drop-in for this agent that encrypts local disks as a security configuration says, and list what it does not do
    Import {
        /// A file as for 'emr check'; - is standard input
        file: PathBuf,
        /// The name of the security configuration, if the file has several: its name, its logical ID or its Terraform address
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// Print one JSON object instead of the drop-in, which is a part of it
        #[arg(long)]
        json: bool,
    },
}

/// The commands about audit reports.
#[derive(Debug, Subcommand)]
pub enum AuditAction {
    /// Convert reports into findings for Security Hub or a SIEM, a page to read or print, inventory for Systems Manager, or rows for Athena
    #[command(after_help = "Exit codes: 0 converted, 1 a file cannot be written, 2 bad input.")]
    Convert {
        /// Files with one report each; - is standard input. Of several reports of a node, the newest counts
        #[arg(value_name = "REPORT", required = true)]
        reports: Vec<PathBuf>,
        /// The format
        #[arg(long, value_name = "FORMAT", value_enum)]
        format: AuditFormat,
        /// Also findings that pass; without it, only nodes with a disk that is not encrypted or not known to be
        #[arg(long)]
        all: bool,
        /// Write the findings for each call of 'aws securityhub batch-import-findings' into a file in this directory, and print the
        /// names of the files; one call takes 100 findings of one account and Region
        #[arg(long, value_name = "DIR")]
        output_dir: Option<PathBuf>,
    },
    /// Summarize the reports of many nodes: coverage, keys and what depends on them, silent nodes, configuration against reality
    #[command(
        after_help = "Exit codes: 0 each node is encrypted or excepted and none is silent, 1 not so or not shown, or a file cannot be \
                            written, 2 bad input, of which nothing is written."
    )]
    Fleet {
        /// Files with one report each, and directories: all files in and below them that end in .json; - is standard input. Of several
        /// reports of a node, the newest counts
        #[arg(value_name = "REPORT", required = true)]
        reports: Vec<PathBuf>,
        /// Also write the summary as one page to read and print, which needs neither a network nor scripts
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
        /// Also write the summary as JSON
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// An answer of 'aws ec2 describe-volumes', to find silent nodes and volumes that EC2 calls unencrypted; can be given several
        /// times, for each account and Region
        #[arg(long, value_name = "FILE")]
        volumes: Vec<PathBuf>,
        /// An answer of 'aws ec2 describe-instances', to find silent nodes and the EMR cluster of each node; can be given several times
        #[arg(long, value_name = "FILE")]
        instances: Vec<PathBuf>,
        /// An answer of 'aws emr describe-cluster', or a directory with such; can be given several times
        #[arg(long, value_name = "FILE")]
        clusters: Vec<PathBuf>,
        /// EMR security configurations as for 'emr check', or a directory with such; can be given several times
        #[arg(long, value_name = "DIR")]
        security_configurations: Vec<PathBuf>,
    },
    /// Verify the signature of a report, and print the report
    #[command(after_help = "Exit codes: 0 verified, 1 the signature does not verify, 2 bad input.")]
    Verify {
        /// The public key of the KMS key that signs reports, in PEM
        #[arg(long, value_name = "FILE")]
        public_key: PathBuf,
        /// The envelope that 'luks-agent audit' wrote; - is standard input
        envelope: PathBuf,
    },
}

/// The commands about recovery keys.
#[derive(Debug, Subcommand)]
pub enum RecoveryKeyAction {
    /// Make a recovery key, show it once on the terminal, and add it to volumes in place of an earlier one
    Enroll {
        /// Which volumes.
        #[command(flatten)]
        volumes: KnownVolumes,
        /// How it reports.
        #[command(flatten)]
        output: Output,
    },
    /// Remove the recovery key of volumes
    Remove {
        /// Which volumes.
        #[command(flatten)]
        volumes: KnownVolumes,
        /// How it reports.
        #[command(flatten)]
        output: Output,
    },
}

impl RecoveryKeyAction {
    fn name(&self) -> &'static str {
        match self {
            Self::Enroll { .. } => "recovery-key enroll",
            Self::Remove { .. } => "recovery-key remove",
        }
    }

    fn output(&self) -> Output {
        match self {
            Self::Enroll { output, .. } | Self::Remove { output, .. } => *output,
        }
    }
}

/// The commands about headers.
#[derive(Debug, Subcommand)]
pub enum HeaderAction {
    /// Show what the headers say: keyslots, tokens, and whether both copies are intact; no key material
    Show {
        /// Which volumes.
        #[command(flatten)]
        volumes: KnownVolumes,
        /// How it reports.
        #[command(flatten)]
        output: Output,
    },
    /// Write the header of a volume to a new file, from which this program and cryptsetup can restore it
    Backup {
        /// Device, mapper name, mount point, serial number or LUKS UUID of a volume
        volume: String,
        /// The file, which must not exist
        file: PathBuf,
        /// How it reports.
        #[command(flatten)]
        output: Output,
    },
    /// Replace the header of a closed volume by that in a backup, after proving that the data key opens it
    Restore {
        /// Device, mapper name, mount point, serial number or LUKS UUID of a volume
        volume: String,
        /// The backup
        file: PathBuf,
        /// Restore it even if that brings back or loses keyslots
        #[arg(long)]
        replace_keyslots: bool,
        /// Restore it even if the header on the disk has another volume key than the state file records: that header is lost
        #[arg(long)]
        replace_volume_key: bool,
        /// Restore it even if the disk had another serial number or size when the backup was made
        #[arg(long)]
        other_disk: bool,
        /// Only show what would change
        #[arg(long)]
        dry_run: bool,
        /// How it reports.
        #[command(flatten)]
        output: Output,
    },
}

impl HeaderAction {
    fn name(&self) -> &'static str {
        match self {
            Self::Show { .. } => "header show",
            Self::Backup { .. } => "header backup",
            Self::Restore { .. } => "header restore",
        }
    }

    fn output(&self) -> Output {
        match self {
            Self::Show { output, .. } | Self::Backup { output, .. } | Self::Restore { output, .. } => *output,
        }
    }
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
    /// Device, mapper name, mount point, serial number or LUKS UUID of a volume; without one, all open volumes
    #[arg(id = "volumes", value_name = "DEVICE")]
    pub names: Vec<String>,
}

#[allow(missing_docs, reason = "it would be shown as the help of the command")]
#[derive(Debug, Args)]
pub struct KnownVolumes {
    /// Device, mapper name, mount point, serial number or LUKS UUID of a volume; without one, all that are attached
    #[arg(id = "volumes", value_name = "VOLUME")]
    pub names: Vec<String>,
}

impl Verb {
    /// Returns its name, as it stands in reports.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Plan { .. } => "plan",
            Self::Provision { .. } => "provision",
            Self::Unlock { .. } => "unlock",
            Self::Boot { .. } => "boot",
            Self::Grow { .. } => "grow",
            Self::Close { .. } => "close",
            Self::Rotate { .. } => "rotate",
            Self::Rewrap { .. } => "rewrap",
            Self::Status { .. } => "status",
            Self::Doctor { .. } => "doctor",
            Self::Health { .. } => "health",
            Self::Verify { .. } => "verify",
            Self::Header { action } => action.name(),
            Self::RecoveryKey { action } => action.name(),
            Self::Adopt { .. } => "adopt",
            Self::Forget { .. } => "forget",
            Self::Erase { .. } => "erase",
        }
    }

    /// Returns how it reports.
    pub fn output(&self) -> Output {
        match self {
            Self::Plan { output }
            | Self::Provision { output, .. }
            | Self::Unlock { output, .. }
            | Self::Boot { output }
            | Self::Grow { output, .. }
            | Self::Close { output, .. }
            | Self::Rotate { output, .. }
            | Self::Rewrap { output, .. }
            | Self::Status { output }
            | Self::Doctor { output }
            | Self::Health { output }
            | Self::Verify { output }
            | Self::Adopt { output, .. }
            | Self::Forget { output, .. }
            | Self::Erase { output, .. } => *output,
            Self::Header { action } => action.output(),
            Self::RecoveryKey { action } => action.output(),
        }
    }
}

/// Parses a number of bytes with a unit.
fn parse_speed(text: &str) -> Result<u64, String> {
    let (number, shift) = match text.char_indices().last() {
        Some((at, 'K')) => (&text[..at], 10),
        Some((at, 'M')) => (&text[..at], 20),
        Some((at, 'G')) => (&text[..at], 30),
        _ => (text, 0),
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    bytes.filter(|bytes| *bytes > 0).ok_or_else(|| "expected a number of bytes such as 50M".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_speed_is_a_number_with_a_unit() {
        assert_eq!(["50M", "1G", "4K", "512"].map(parse_speed), [Ok(50 << 20), Ok(1 << 30), Ok(4 << 10), Ok(512)]);
        for invalid in ["", "M", "0", "-1M", "50MB", "1.5G", "99999999999G", "5é"] {
            assert!(parse_speed(invalid).is_err(), "{invalid}");
        }
    }
}
