//! Whether the kernel is in FIPS mode, as it is when booted with `fips=1`.

use std::fs;
use std::path::Path;

/// The file that says so. A kernel without FIPS mode has none.
pub(crate) const FIPS_ENABLED: &str = "/proc/sys/crypto/fips_enabled";

/// Returns whether the kernel is in FIPS mode.
pub(crate) fn is_on() -> bool {
    says_on(Path::new(FIPS_ENABLED))
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
}
