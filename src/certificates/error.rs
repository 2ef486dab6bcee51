//! Why a file cannot be read as a bundle of certificates.

use super::member::{CHAIN, KEY, MAX_BUNDLE_BYTES, MAX_FILES, MAX_MEMBER_BYTES, TRUSTED};

/// A file that is not a zip file, or not one that can be read.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// More than three files of certificates ever have.
    #[error("larger than {} MiB; expected a zip file with {KEY}, {CHAIN} and perhaps {TRUSTED}", MAX_BUNDLE_BYTES >> 20)]
    TooLarge,
    /// Not a zip file.
    #[error("not a zip file that can be read: {0}; make one with 'zip -X certs.zip {KEY} {CHAIN} {TRUSTED}'")]
    NotZip(String),
    /// More files than anybody has.
    #[error("more than {MAX_FILES} files in it; expected {KEY}, {CHAIN} and perhaps {TRUSTED}")]
    TooManyFiles,
    /// One name for two files, of which one would be passed over in silence.
    #[error("two files of one name in it; zip each file once")]
    Twice,
    /// A file that needs a password.
    #[error("{0} in it is encrypted, and EMR has no password for it; zip it without one")]
    Encrypted(&'static str),
    /// A file that is larger than certificates are, whatever its compressed size is.
    #[error("{name} in it is larger than {limit} MiB; expected one private key or a few certificates in PEM", limit = MAX_MEMBER_BYTES >> 20)]
    MemberTooLarge {
        /// The file.
        name: &'static str,
    },
    /// A file that cannot be decompressed.
    #[error("{name} in it cannot be decompressed: {message}; make the zip file again")]
    Damaged {
        /// The file.
        name: &'static str,
        /// What the decompressor says.
        message: String,
    },
}
