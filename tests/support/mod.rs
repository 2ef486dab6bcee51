//! What the integration tests share.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

pub mod localstack;
pub mod qemu;
pub mod uml;

use std::path::{Path, PathBuf};

/// The checkout.
pub fn project_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The `fake-aws` program, which cargo builds with the workspace but names to no test of this package.
///
/// # Panics
/// When it is not built.
pub fn fake_aws() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_luks-agent")).with_file_name("fake-aws");
    assert!(
        program.exists(),
        "{} is not built: run `cargo build --workspace` first (make test-kernel does)",
        program.display()
    );
    program
}

/// `true` when the environment variable `KEEP_VM` is set: the disks and logs of test machines stay behind.
pub fn keep_machines() -> bool {
    std::env::var_os("KEEP_VM").is_some_and(|value| !value.is_empty() && value != "0")
}
