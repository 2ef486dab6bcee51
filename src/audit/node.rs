//! The node of a report.

use serde::{Deserialize, Serialize};

/// The node. What IMDS says is missing if there is no IMDS.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Its host name.
    pub host_name: String,
    /// Its instance ID, `i-...`.
    pub instance_id: Option<String>,
    /// Its instance type, such as `m7gd.2xlarge`.
    pub instance_type: Option<String>,
    /// Its AWS account, 12 digits.
    pub account: Option<String>,
    /// Its Region.
    pub region: Option<String>,
    /// Its Availability Zone.
    pub availability_zone: Option<String>,
    /// The AMI that it was launched from, `ami-...`.
    pub ami: Option<String>,
    /// Release of its kernel, as `uname -r` prints it.
    pub kernel: String,
    /// Where the fields from IMDS come from, signed by AWS.
    pub identity_document: Option<IdentityDocument>,
}

/// The instance identity document, as IMDS gives it.
///
/// See "Verify the instance identity document" in the user guide of EC2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct IdentityDocument {
    /// The document, byte for byte (`dynamic/instance-identity/document`).
    pub document: String,
    /// Its RSA-2048 signature: PKCS #7 in base64 without header and footer (`dynamic/instance-identity/rsa2048`).
    pub rsa2048: Option<String>,
}
