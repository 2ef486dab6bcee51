//! The kernel tier's key hygiene: the memory of every process, and all that is left behind.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod support;

use std::time::Duration;

use support::uml::{MIB, Node, Script};

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn key_material_is_nowhere_but_in_the_processes_that_use_it() {
    let mut node = Node::new("hygiene").disk("ubdb", 40 * MIB);
    let script = Script::with_agent("hygiene").timeout(Duration::from_secs(150));
    let boot = node.boot(&script);
    println!("{}", boot.timed_console());
    boot.assert_ok();
}
