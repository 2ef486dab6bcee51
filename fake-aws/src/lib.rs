//! A fake AWS endpoint: KMS over JSON 1.1 with real encryption and signatures, IMDSv2, `GetCallerIdentity` of STS, scripted faults and a request log.
//!
//! It serves the tests and the demo of luks-agent, and is never installed. It does not verify the signatures of requests. With a seed,
//! the material of symmetric keys is as secret as the seed; key pairs are random.
//!
//! Scripts control it over HTTP, on the same port:
//!
//! ```sh
//! curl -X POST $URL/_fake/faults -d '[{"on": "Decrypt", "times": 2, "effect": {"error": {"code": "ThrottlingException"}}},
//!                                     {"on": "imds:*", "delay_ms": 500}, {"on": "DescribeKey", "effect": "hang"}]'
//! curl -X DELETE $URL/_fake/faults
//! curl -X POST $URL/_fake/keys/alias/luks-agent/state -d '{"state": "Disabled"}'
//! curl -X POST $URL/_fake/allow -d '["DescribeKey"]'   # null allows all
//! curl $URL/_fake/requests                             # DELETE clears the list
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

mod control;
mod fault;
mod http;
mod imds;
mod key;
mod kms;
mod log;
mod options;
mod server;
mod shared;
mod sts;
mod tls;

pub use fault::{Effect, Fault};
pub use key::{Key, KeyKind, KeyManager, KeyState};
pub use kms::KmsError;
pub use log::Request;
pub use options::Options;
pub use server::Server;
pub use tls::{Identity, TestCa};
