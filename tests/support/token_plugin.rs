//! The token plug-in of cryptsetup.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// Builds the plug-in, and links it with these options.
///
/// # Panics
/// When that fails.
pub fn build(name: &str, linker: &[&str]) -> PathBuf {
    let folder = super::profile_dir().with_file_name("tmp");
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join(format!("token-plugin-{name}.so"));
    let script = super::project_dir().join("scripts/token.sh");
    let built = Command::new(script).arg(&file).args(linker).output().unwrap();
    assert!(built.status.success(), "scripts/token.sh failed:\n{}", String::from_utf8_lossy(&built.stderr));
    file
}
