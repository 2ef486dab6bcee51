//! A fake AWS endpoint: KMS over JSON 1.1 with real wrapping, IMDSv2, scripted faults, and a log of every request.
//!
//! For tests and the demo of luks-agent; never part of what is installed. Signatures are not verified, and the key
//! material of a server with a seed is as secret as the seed.
//!
//! A script does the same over HTTP, on the port of the rest:
//!
//! ```sh
//! curl -X POST $URL/_fake/faults -d '[{"on": "Decrypt", "times": 2, "effect": {"error": {"code": "ThrottlingException"}}},
//!                                     {"on": "imds:*", "delay_ms": 500}, {"on": "DescribeKey", "effect": "hang"}]'
//! curl -X DELETE $URL/_fake/faults
//! curl -X POST $URL/_fake/keys/alias/luks-agent/state -d '{"state": "Disabled"}'
//! curl -X POST $URL/_fake/allow -d '["DescribeKey"]'   # null allows all
//! curl $URL/_fake/requests                             # DELETE forgets them
//! ```
//!
//! ```no_run
//! use fake_aws::{Fault, Options, Server};
//!
//! let server = Server::start_blocking(Options::default())?;
//! server.push_fault(Fault::error("Decrypt", "ThrottlingException").times(2));
//! // ... run something with AWS_ENDPOINT_URL and AWS_EC2_METADATA_SERVICE_ENDPOINT set to server.url() ...
//! assert_eq!(server.count("GenerateDataKey"), 1);
//! # Ok::<(), std::io::Error>(())
//! ```

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

mod control;
mod fault;
mod http;
mod imds;
mod key;
mod kms;
mod log;
mod server;
mod tls;

pub use fault::{Effect, Fault};
pub use key::{Key, KeyKind, KeyManager, KeyState};
pub use kms::KmsError;
pub use log::Request;
pub use server::Server;
pub use tls::{Identity, TestCa};

/// What a [`Server`] serves and where.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen for HTTP; port 0 is one of the kernel's choice.
    pub listen: Vec<SocketAddr>,
    /// Where to listen for HTTPS; needs `tls`.
    pub tls_listen: Vec<SocketAddr>,
    /// The certificate for HTTPS.
    pub tls: Option<Identity>,
    /// What key material is derived from; none for material that ends with the process.
    pub seed: Option<String>,
    /// The region of keys and instance.
    pub region: String,
    /// The account of keys and instance.
    pub account: String,
    /// The keys; the first is the one whose ARN [`Server::key_arn`] gives.
    pub keys: Vec<Key>,
    /// The only KMS actions (`Decrypt`, without `kms:`) that the caller may do; none for all.
    pub allow: Option<Vec<String>>,
    /// The instance id in IMDS and in the caller's ARN.
    pub instance_id: String,
    /// The instance type in IMDS.
    pub instance_type: String,
    /// The instance's role; none for an instance without one.
    pub role: Option<String>,
    /// How long the role's credentials are valid, in seconds from each request; negative for expired ones.
    pub credentials_seconds: i64,
    /// The block device mapping: name (`ami`, `ebs1`, `ephemeral0`) and device (`xvda`, `sdb`).
    pub block_device_mapping: Vec<(String, String)>,
    /// Gets one line of JSON for each request.
    pub log_file: Option<PathBuf>,
    /// The faults to begin with.
    pub faults: Vec<Fault>,
}

impl Options {
    /// The access key id of the role's credentials.
    pub const ACCESS_KEY_ID: &str = "ASIAIOSFODNN7EXAMPLE";
}

impl Default for Options {
    /// HTTP on a loopback port of the kernel's choice, one enabled key with the alias `alias/luks-agent`, a node with a
    /// role and a boot volume.
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
