//! What the integration tests share.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

pub mod ec2;
pub mod findings;
pub mod images;
pub mod localstack;
pub mod qemu;
pub mod service;
pub mod token_plugin;
pub mod uml;
pub mod volatile;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The checkout.
pub fn project_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where cargo puts the programs of this build, `target/debug` for one. Found from where the test is (in `deps`) or the
/// example (in `examples`), which cargo does not tell it.
pub fn profile_dir() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    program.ancestors().nth(2).unwrap().to_owned()
}

/// A program of the workspace.
///
/// # Panics
/// When it is not built.
pub fn program(name: &str) -> PathBuf {
    let program = profile_dir().join(name);
    assert!(
        program.exists(),
        "{} is not built: run `cargo build --workspace` first (the targets of the Makefile do)",
        program.display()
    );
    program
}

/// Prometheus' `promtool`.
///
/// # Panics
/// When it is not there.
pub fn promtool() -> PathBuf {
    let said = Command::new(project_dir().join("scripts/deps.sh")).arg("--promtool").output().unwrap();
    let path = PathBuf::from(String::from_utf8(said.stdout).unwrap().trim());
    assert!(path.exists(), "promtool is not installed: run scripts/deps.sh test");
    path
}

/// The agent's packages that `make packages` has built, those of other versions left out.
///
/// # Panics
/// When there is none.
pub fn built_packages() -> Vec<PathBuf> {
    packages_named("luks-agent")
}

/// As `built_packages`, of the token plug-in.
///
/// # Panics
/// When there is none.
pub fn built_plugin_packages() -> Vec<PathBuf> {
    packages_named("luks-agent-cryptsetup-token")
}

fn packages_named(name: &str) -> Vec<PathBuf> {
    let dir = profile_dir().with_file_name("packages");
    let version = env!("CARGO_PKG_VERSION");
    let ours = [format!("{name}_{version}-"), format!("{name}-{version}-")];
    let entries = std::fs::read_dir(&dir).into_iter().flatten().map(|entry| entry.unwrap().path());
    let mut packages: Vec<_> = entries
        .filter(|path| ours.iter().any(|o| path.file_name().unwrap().to_str().unwrap().starts_with(o)))
        .collect();
    packages.sort();
    assert!(!packages.is_empty(), "no packages of {name} in {}: run make packages", dir.display());
    packages
}

/// Whether a file, a disk's image above all, has these bytes in one piece anywhere: neither a zero byte nor the end of a line is among
/// them.
pub fn holds(path: &Path, bytes: &[u8]) -> bool {
    assert!(
        !bytes.is_empty() && !bytes.iter().any(|byte| b"\0\n".contains(byte)),
        "cannot search for {}",
        bytes.escape_ascii()
    );
    // "lines" end at a zero byte, so that the blank parts of an image do not make one huge line
    let status = Command::new("grep")
        .args(["--null-data", "--text", "--quiet", "--fixed-strings", "--"])
        .arg(OsStr::from_bytes(bytes))
        .arg(path)
        .env("LC_ALL", "C")
        .status()
        .unwrap_or_else(|error| panic!("cannot run grep: {error}"));
    match status.code() {
        Some(0) => true,
        Some(1) => false,
        _ => panic!("grep of {}: {status}", path.display()),
    }
}

/// For what lasts no longer than a test: `target/tmp`.
pub fn scratch_dir() -> PathBuf {
    profile_dir().with_file_name("tmp")
}

/// `true` when the environment variable `KEEP_VM` is set: the disks and logs of test machines stay behind.
pub fn keep_machines() -> bool {
    std::env::var_os("KEEP_VM").is_some_and(|value| !value.is_empty() && value != "0")
}
