//! The validated configuration.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::digest::sha256_hex;
use crate::disk::{BlankScan, MatchRule, Scan};
use crate::key::Provider;
use crate::luks2::Cipher;
use crate::storage::FilesystemKind;

/// The validated configuration.
#[derive(Debug, Clone, Serialize)]
pub struct Config {
    /// What wraps new data keys.
    pub keys: Keys,
    /// AWS KMS.
    pub kms: Kms,
    /// How IMDS is reached.
    #[serde(skip_serializing_if = "Imds::is_default")]
    pub imds: Imds,
    /// The customer's own key service, if one is configured.
    pub exec: Option<Exec>,
    /// Where the state file is.
    pub state: State,
    /// Which volumes the agent manages.
    pub volumes: Volumes,
    /// How new volumes are encrypted.
    pub luks: Luks,
    /// Which file system new volumes get, and where volumes are mounted.
    pub filesystem: Filesystem,
    /// How often the daemon checks the node.
    pub health: Health,
    /// Where metrics are written.
    pub metrics: Metrics,
    /// How audit reports are written.
    pub audit: Audit,
    /// The EMR security configuration that some of these values come from.
    pub emr: Option<Emr>,
}

impl Config {
    /// Returns how long a run may wait for key services.
    pub fn key_deadline(&self) -> Duration {
        self.exec.as_ref().map_or(self.kms.deadline, |exec| exec.deadline.max(self.kms.deadline))
    }

    /// Returns the SHA-256, in hexadecimal, of the values in force as JSON with sorted keys, without white space: two nodes with the same
    /// values have the same digest, in whichever files and order these stand.
    pub fn sha256(&self) -> String {
        // neither a key that is no text nor a number that JSON lacks is among the values
        let values = serde_json::to_value(self).unwrap_or_default();
        sha256_hex(&[values.to_string().as_bytes()])
    }
}

/// `[keys]`, with the key that the provider uses. The keys of existing volumes are unwrapped by the provider that wrapped them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Keys {
    /// The key service.
    pub provider: Provider,
    /// `key_id` in the section of that key service.
    pub key_id: String,
}

impl Keys {
    /// Returns the name of the configuration key that has the key.
    pub fn setting(&self) -> &'static str {
        match self.provider {
            Provider::AwsKms => "kms.key_id",
            Provider::Exec => "exec.key_id",
        }
    }
}

/// `[exec]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Exec {
    /// The program, an absolute path.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// The key for new data keys, by a name that the program knows.
    pub key_id: String,
    /// How long the agent keeps calling it, in total.
    pub deadline: Duration,
    /// How long one call may take.
    pub timeout: Duration,
    /// Environment variables that it gets from the agent.
    pub pass_environment: Vec<String>,
}

/// `[kms]`
#[derive(Debug, Clone, Serialize)]
pub struct Kms {
    /// Key ARN, key ID, alias name or alias ARN, as configured; `None` if the node has no KMS key.
    pub key_id: Option<String>,
    /// Region; `None`: taken from the key ARN, the environment or IMDS.
    pub region: Option<String>,
    /// Endpoint; `None`: the endpoint of the Region.
    pub endpoint_url: Option<String>,
    /// Whether the endpoint of the Region is the FIPS endpoint; `None`: as the environment or the profile says.
    // a digest of the configuration stays the same where the key is not set
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fips: Option<bool>,
    /// Whether the endpoint of the Region is the one with IPv4 and IPv6 addresses; `None`: as the environment or the profile says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dual_stack: Option<bool>,
    /// Whether an `http://` endpoint may be on another network than loopback and link-local.
    pub allow_http: bool,
    /// How long the agent keeps trying KMS and IMDS, in total.
    pub deadline: Duration,
}

/// `[imds]`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Imds {
    /// The address of IMDS; `None`: as the environment or the profile says.
    pub endpoint_mode: Option<EndpointMode>,
}

impl Imds {
    /// Returns whether the section says nothing.
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The address of IMDS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndpointMode {
    /// 169.254.169.254
    Ipv4,
    /// fd00:ec2::254
    Ipv6,
}

/// `[state]`
#[derive(Debug, Clone, Serialize)]
pub struct State {
    /// The state directory, on the boot volume.
    pub dir: PathBuf,
}

/// `[volumes]`
#[derive(Debug, Clone, Serialize)]
pub struct Volumes {
    /// What to do with instance store volumes.
    pub instance_store: Policy,
    /// What to do with EBS volumes.
    pub ebs: Policy,
    /// What to do with a volume that is not blank.
    pub when_not_blank: WhenNotBlank,
    /// What to do with a volume that contains only noise.
    pub noise: Noise,
    /// How much of a volume is read before it counts as blank.
    pub blank_scan: BlankScan,
    /// How long the work on one volume may go without progress, and how long a sampled scan may take in total.
    pub deadline: Duration,
    /// Whether `provision` grows volumes whose disk has grown.
    pub grow: bool,
    /// `[volumes.expect]`
    pub expect: Expect,
    /// `[[volumes.match]]`, in order; with `require_rule`, followed by a rule that ignores all other disks.
    pub rules: Vec<MatchRule>,
}

impl Volumes {
    /// Returns how a disk is scanned before it counts as blank.
    pub fn scan(&self) -> Scan {
        Scan { how: self.blank_scan, within: self.deadline }
    }
}

/// `[volumes.expect]`: the minimum number of volumes of each role before the node is ready.
///
/// Without a number, the volumes that the node had before are expected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Expect {
    /// Minimum number of EBS volumes, without the boot volume.
    pub ebs: Option<u32>,
    /// Minimum number of instance store volumes; if set, there may be fewer than the node had before.
    pub instance_store: Option<u32>,
    /// How long the boot waits for these volumes.
    pub within: Duration,
}

/// Whether volumes of one role are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// Encrypt, open and mount them.
    Encrypt,
    /// Do not touch them.
    Ignore,
}

/// What to do with a volume that is not blank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenNotBlank {
    /// Refuse it.
    Refuse,
    /// Format instance store volumes anyway, unless mounted, held or known; refuse EBS volumes.
    WipeInstanceStore,
}

/// What to do with a volume that contains only noise: uniformly random blocks, with zeros among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Noise {
    /// Refuse it.
    Refuse,
    /// Treat it as never written if it is an unknown EBS volume; refuse others.
    FormatEbs,
}

/// `[luks]`
#[derive(Debug, Clone, Serialize)]
pub struct Luks {
    /// Cipher and mode, as dm-crypt names them.
    pub cipher: Cipher,
    /// Volume key size in bits: 256 or 512.
    pub key_size: u32,
    /// Encryption sector size in bytes; `None`: 4096 if the disk writes 4096 bytes atomically, else 512.
    pub sector_size: Option<u32>,
    /// Whether discards are passed to the disk.
    pub discards: bool,
    /// dm-crypt's `no_read_workqueue`.
    pub no_read_workqueue: bool,
    /// dm-crypt's `no_write_workqueue`.
    pub no_write_workqueue: bool,
}

/// `[filesystem]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filesystem {
    /// File system of new volumes.
    pub kind: FilesystemKind,
    /// The first mount point; a number is appended for the others.
    pub mount_base: PathBuf,
    /// Mount options.
    pub options: Vec<String>,
}

/// `[health]`
#[derive(Debug, Clone, Serialize)]
pub struct Health {
    /// How often the daemon checks the key and the volumes.
    pub interval: Duration,
}

/// Where metrics are written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Metrics {
    /// The file for the textfile collector of node_exporter, if any.
    pub textfile: Option<PathBuf>,
}

/// `[audit]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// The KMS key that signs audit reports: key ARN, key ID, alias name or alias ARN; `None` if none does.
    pub signing_key: Option<String>,
    /// How often the daemon audits the node; `None`: never.
    pub interval: Option<Duration>,
    /// The file of the report that the daemon keeps.
    pub report: PathBuf,
    /// Whether that report also becomes custom inventory of Systems Manager.
    pub ssm_inventory: bool,
}

/// `[emr]`: a security configuration that was taken over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Emr {
    /// Its file.
    pub security_configuration: PathBuf,
    /// SHA-256 of the document, in hexadecimal.
    pub digest: String,
}
