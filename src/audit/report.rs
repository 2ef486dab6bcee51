//! The report.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::disk::{Disk, Standing};
use super::key::Key;
use super::node::Node;

/// Name of the JSON schema of an audit report.
pub const SCHEMA: &str = "luks-agent/audit";
/// Version of the schema. It grows when a field is added, changes its meaning or is removed: a reader refuses fields that it does not know.
pub const SCHEMA_VERSION: u32 = 1;

/// The type of an audit report in a signed envelope.
pub const PAYLOAD_TYPE: &str = "application/vnd.luks-agent.audit-report+json";

/// What one node has on its disks, and how that was shown. It has no key material.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AuditReport {
    /// [`SCHEMA`].
    pub schema: String,
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Version of the agent that made it.
    pub agent_version: String,
    /// When it was made.
    pub made: Timestamp,
    /// The verdict on the node: the worst of its disks'.
    pub verdict: Standing,
    /// Why, one sentence for each disk that is not encrypted or whose state is unknown, and for each thing wrong with the node as a whole.
    pub reasons: Vec<String>,
    /// The node.
    pub node: Node,
    /// What the agent is told to do.
    pub configuration: Configuration,
    /// The KMS keys on which volumes depend, each once, in the order of the state file.
    pub keys: Vec<Key>,
    /// Every disk: the boot volume, disks of others, and volumes that are not attached, too. Sorted by serial number, then by name.
    pub disks: Vec<Disk>,
}

/// The configuration of the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Configuration {
    /// SHA-256, in hexadecimal, of the configuration in force, drop-ins and defaults included.
    pub sha256: String,
    /// SHA-256, in hexadecimal, of the EMR security configuration that the node was provisioned with, if there is one.
    pub security_configuration_sha256: Option<String>,
}
