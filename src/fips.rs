//! FIPS mode: whether the kernel is in it, as it is when booted with `fips=1`, and whether the agent was built with a FIPS module.

use std::fs;
use std::path::Path;

/// The file that says so. A kernel without FIPS mode has none.
pub(crate) const FIPS_ENABLED: &str = "/proc/sys/crypto/fips_enabled";

/// Returns whether the kernel is in FIPS mode.
pub(crate) fn is_on() -> bool {
    says_on(Path::new(FIPS_ENABLED))
}

/// Returns name and version of the FIPS module in this program, or `None` if it was built without the feature `fips`.
///
/// The version says nothing about a certificate.
pub(crate) fn module() -> Option<String> {
    let version = || format!("AWS-LC-FIPS {}", aws_lc_rs::awslc_version());
    aws_lc_rs::try_fips_mode().is_ok().then(version)
}

fn says_on(file: &Path) -> bool {
    fs::read_to_string(file).is_ok_and(|text| text.trim() == "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_in_fips_mode_if_its_file_says_1() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("fips_enabled");
        assert!(!says_on(&file));
        for (text, expected) in [("1\n", true), ("1", true), ("0\n", false), ("", false), ("10\n", false)] {
            fs::write(&file, text).unwrap();
            assert_eq!(says_on(&file), expected, "{text:?}");
        }
    }

    #[test]
    fn a_build_with_the_feature_has_the_fips_module_in_all_of_tls() {
        assert_eq!(module().is_some(), cfg!(feature = "fips"));
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        assert_eq!(provider.fips(), cfg!(feature = "fips"));
        if cfg!(feature = "fips") {
            let version = module().unwrap();
            assert!(version.starts_with("AWS-LC-FIPS 4."), "{version}; docs/fips.md is about version 4");
        }
    }
}
