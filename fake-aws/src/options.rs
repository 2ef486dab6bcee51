//! The options of an endpoint.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use crate::fault::Fault;
use crate::key::Key;
use crate::tls::Identity;

/// What a [`Server`](crate::Server) serves, and where.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen for HTTP; with port 0 the kernel chooses one.
    pub listen: Vec<SocketAddr>,
    /// Where to listen for HTTPS; needs `tls`.
    pub tls_listen: Vec<SocketAddr>,
    /// The certificate for HTTPS.
    pub tls: Option<Identity>,
    /// The seed of the key material; without one the material is random and lost when the process ends.
    pub seed: Option<String>,
    /// The region of keys and instance.
    pub region: String,
    /// The account of keys and instance.
    pub account: String,
    /// The keys; [`Server::key_arn`](crate::Server::key_arn) returns the ARN of the first.
    pub keys: Vec<Key>,
    /// The only KMS actions that the caller may perform, without the `kms:` prefix; `None` allows all.
    pub allow: Option<Vec<String>>,
    /// The instance id in IMDS and in the caller's ARN.
    pub instance_id: String,
    /// The instance type in IMDS.
    pub instance_type: String,
    /// The role of the instance, if it has one.
    pub role: Option<String>,
    /// The lifetime of the role's credentials, in seconds from each request; a negative number makes expired credentials.
    pub credentials_seconds: i64,
    /// The block device mapping: name (`ami`, `ebs1`, `ephemeral0`) and device (`xvda`, `sdb`).
    pub block_device_mapping: Vec<(String, String)>,
    /// The file to which each request is appended as one line of JSON.
    pub log_file: Option<PathBuf>,
    /// The faults at the start.
    pub faults: Vec<Fault>,
}

impl Options {
    /// The access key id of the role's credentials.
    pub const ACCESS_KEY_ID: &str = "ASIAIOSFODNN7EXAMPLE";
}

impl Default for Options {
    /// HTTP on a free loopback port, one enabled key with the alias `alias/luks-agent`, and an instance with a role and a
    /// boot volume.
    fn default() -> Self {
        let device = |name: &str, device: &str| (name.to_owned(), device.to_owned());
        Self {
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))],
            tls_listen: Vec::new(),
            tls: None,
            seed: None,
            region: "us-east-1".to_owned(),
            account: "111122223333".to_owned(),
            keys: vec![Key::default()],
            allow: None,
            instance_id: "i-1234567890abcdef0".to_owned(),
            instance_type: "m5d.xlarge".to_owned(),
            role: Some("luks-agent-node".to_owned()),
            credentials_seconds: 6 * 3600,
            block_device_mapping: vec![device("ami", "xvda"), device("root", "/dev/xvda")],
            log_file: None,
            faults: Vec::new(),
        }
    }
}
