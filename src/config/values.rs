//! The validated configuration.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::disk::{BlankScan, MatchRule, Scan};
use crate::luks2::Cipher;
use crate::storage::FilesystemKind;

/// The validated configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The key service.
    pub kms: Kms,
    /// Where the state file is.
    pub state: State,
    /// Which volumes are taken care of.
    pub volumes: Volumes,
    /// How new volumes are encrypted.
    pub luks: Luks,
    /// What is made on them and where it is mounted.
    pub filesystem: Filesystem,
    /// What the daemon looks at.
    pub health: Health,
    /// Where metrics go.
    pub metrics: Metrics,
}

/// `[kms]`
#[derive(Debug, Clone)]
pub struct Kms {
    /// Key ARN, key id, alias name or alias ARN, as configured.
    pub key_id: String,
    /// Region, when it is not taken from the ARN, the environment or IMDS.
    pub region: Option<String>,
    /// Endpoint, when it is not the region's.
    pub endpoint_url: Option<String>,
    /// Whether an endpoint may be `http://` that is neither on this machine nor on its own link.
    pub allow_http: bool,
    /// How long KMS and IMDS are tried in all.
    pub deadline: Duration,
}

/// `[state]`
#[derive(Debug, Clone)]
pub struct State {
    /// The state directory, on the boot volume.
    pub dir: PathBuf,
}

/// `[volumes]`
#[derive(Debug, Clone)]
pub struct Volumes {
    /// What to do with instance store volumes.
    pub instance_store: Policy,
    /// What to do with EBS volumes.
    pub ebs: Policy,
    /// What to do with a volume that holds something.
    pub when_not_blank: WhenNotBlank,
    /// What to do with a volume on which nothing but noise is found.
    pub noise: Noise,
    /// How much of a volume is read before it counts as blank.
    pub blank_scan: BlankScan,
    /// How long the work on one volume may go without progress, and how long a sampled look at it may take in all.
    pub deadline: Duration,
    /// Whether provision grows volumes whose disk has grown.
    pub grow: bool,
    /// `[volumes.expect]`
    pub expect: Expect,
    /// `[[volumes.match]]`, in order; behind them one that ignores the rest, where `require_rule` is set.
    pub rules: Vec<MatchRule>,
}

impl Volumes {
    /// How a disk is read before it counts as blank.
    pub fn scan(&self) -> Scan {
        Scan { how: self.blank_scan, within: self.deadline }
    }
}

/// `[volumes.expect]`: how many volumes of a role there must be at least before the node is ready. Without a number, those
/// that it had before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expect {
    /// EBS volumes, the boot volume not counted.
    pub ebs: Option<u32>,
    /// Instance store volumes; fewer than the node had before are fine then.
    pub instance_store: Option<u32>,
    /// How long the boot waits for them.
    pub within: Duration,
}

/// Whether volumes of one role are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// Encrypt, open and mount them.
    Encrypt,
    /// Leave them alone.
    Ignore,
}

/// What to do with a volume that is not blank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenNotBlank {
    /// Refuse it.
    Refuse,
    /// Format instance store volumes all the same, unless mounted, held or known; refuse EBS volumes.
    WipeInstanceStore,
}

/// What to do with a volume on which nothing but noise is found: uniformly random blocks, with zeros among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Noise {
    /// Refuse it.
    Refuse,
    /// Take it for blocks that were never written where it is an EBS volume that is not known; refuse others.
    FormatEbs,
}

/// `[luks]`
#[derive(Debug, Clone)]
pub struct Luks {
    /// Cipher and mode, as dm-crypt names them.
    pub cipher: Cipher,
    /// Volume key size in bits: 256 or 512.
    pub key_size: u32,
    /// Encryption sector size in bytes; unset: 4096 where the disk writes that atomically, else 512.
    pub sector_size: Option<u32>,
    /// Let discards through.
    pub discards: bool,
    /// dm-crypt's `no_read_workqueue`.
    pub no_read_workqueue: bool,
    /// dm-crypt's `no_write_workqueue`.
    pub no_write_workqueue: bool,
}

/// `[filesystem]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filesystem {
    /// What is made on a new volume.
    pub kind: FilesystemKind,
    /// The first mount point; the others have a number appended.
    pub mount_base: PathBuf,
    /// Mount options.
    pub options: Vec<String>,
}

/// `[health]`
#[derive(Debug, Clone)]
pub struct Health {
    /// How often key and volumes are looked at.
    pub interval: Duration,
}

/// Where metrics go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metrics {
    /// The file for node_exporter's textfile collector, if any.
    pub textfile: Option<PathBuf>,
}
