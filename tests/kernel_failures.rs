//! The kernel tier's failures: what the agent does when something is missing, hangs, is in the way or is killed.
//!
//! The scenarios are the scripts of `tests/kernel`; each ends with an assertion of its own.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::time::Duration;

use support::uml::{MIB, Node, Script};

/// Enough for a LUKS2 header and an ext4 file system.
const DATA_DISK: u64 = 40 * MIB;

fn boot(scenario: &str, disks: &[&str]) {
    let mut node = disks.iter().fold(Node::new(scenario), |node, disk| node.disk(disk, DATA_DISK));
    let script = Script::new(scenario)
        .env("LUKS_AGENT", env!("CARGO_BIN_EXE_luks-agent"))
        .env("FAKE_AWS", support::fake_aws().to_str().unwrap())
        .timeout(Duration::from_secs(400));
    node.boot(&script).assert_ok();
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn a_provision_that_cannot_do_its_work_writes_nothing() {
    boot("nothing-written", &["ubdb", "ubdc"]);
}
