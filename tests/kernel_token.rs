//! The kernel tier's token plug-in: stock cryptsetup opens volumes through KMS.
//!
//! The scenarios are `tests/kernel/token-plugin.sh` and `tests/kernel/token-process.sh`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod support;

use std::time::Duration;

use support::localstack::LocalStack;
use support::token_plugin;
use support::uml::{MIB, Node, Script};

fn script(name: &str, argument: &str) -> Script {
    let plugin = token_plugin::build(&format!("kernel-{argument}"), &[]);
    Script::with_agent(name)
        .arg(argument)
        .env("TOKEN_PLUGIN", plugin.to_str().unwrap())
        .timeout(Duration::from_secs(500))
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn stock_cryptsetup_opens_a_volume_through_kms() {
    let mut node = Node::new("token-plugin").numbered_disks(&["ubdb"], 64 * MIB);
    let boot = node.boot(&script("token-plugin", "fake"));
    println!("{}", boot.timed_console());
    boot.assert_ok();
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn stock_cryptsetup_opens_a_volume_through_localstack() {
    let localstack = LocalStack::find();
    let mut node = Node::new("token-plugin-localstack").numbered_disks(&["ubdb"], 64 * MIB);
    let script = script("token-plugin", "localstack")
        .env("LOCALSTACK_VENV", localstack.venv())
        .env("AWS_CLI", localstack.aws_cli());
    let boot = node.boot(&script);
    println!("{}", boot.timed_console());
    boot.assert_ok();
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn no_key_is_left_in_a_program_that_opened_a_volume() {
    let mut node = Node::new("token-memory").numbered_disks(&["ubdb"], 64 * MIB);
    let boot = node.boot(&script("token-process", "memory"));
    println!("{}", boot.timed_console());
    boot.assert_ok();
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn valgrind_finds_nothing_in_a_program_that_loads_the_plug_in() {
    let mut node = Node::new("token-valgrind").numbered_disks(&["ubdb"], 64 * MIB);
    let boot = node.boot(&script("token-process", "valgrind"));
    println!("{}", boot.timed_console());
    boot.assert_ok();
}
