//! PEM certificates for EMR's encryption in transit: the zip file that `TLSCertificateConfiguration.S3Object` names, and whether nodes
//! could use what is in it.
//!
//! May import: `text`.
//! Never: a file, the network, or the clock; bytes come in, and what is said of them holds no key material.

mod bundle;
mod certificate;
mod chain;
mod checked_bundle;
mod error;
mod finding;
mod member;
mod pem;
mod private_key;
mod region;
mod table;

pub use bundle::Bundle;
pub use certificate::Certificate;
pub use checked_bundle::CheckedBundle;
pub use error::BundleError;
pub use finding::{CertificateFinding, Weight};
pub use member::MAX_BUNDLE_BYTES;
pub use private_key::KeyState;
pub use region::Region;
