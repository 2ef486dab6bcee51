//! The files of a bundle: their names and how large they may be.

/// The private key. EMR requires it under this name, as all names here.
pub(super) const KEY: &str = "privateKey.pem";
/// The certificate of the key, and those that lead from it to a root.
pub(super) const CHAIN: &str = "certificateChain.pem";
/// What nodes trust besides Java's default roots. Optional.
pub(super) const TRUSTED: &str = "trustedCertificates.pem";

/// How large a bundle may be, in bytes.
pub const MAX_BUNDLE_BYTES: usize = 16 << 20;
/// How large a file in it may be, in bytes. Only the three files that EMR reads are decompressed.
pub(super) const MAX_MEMBER_BYTES: usize = 1 << 20;
/// How many files may be in it.
pub(super) const MAX_FILES: usize = 1_000;
