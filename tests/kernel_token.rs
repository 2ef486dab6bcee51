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

/// Runs a scenario on a node with one disk, and prints its console.
fn succeeds(node: &str, script: &Script) {
    let boot = Node::new(node).numbered_disks(&["ubdb"], 64 * MIB).boot(script);
    println!("{}", boot.timed_console());
    boot.assert_ok();
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn stock_cryptsetup_opens_a_volume_through_kms() {
    succeeds("token-plugin", &script("token-plugin", "fake"));
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn stock_cryptsetup_opens_a_volume_through_localstack() {
    let localstack = LocalStack::find();
    let script = script("token-plugin", "localstack")
        .env("LOCALSTACK_VENV", localstack.venv())
        .env("AWS_CLI", localstack.aws_cli());
    succeeds("token-plugin-localstack", &script);
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn no_key_is_left_in_a_program_that_opened_a_volume() {
    succeeds("token-memory", &script("token-process", "memory"));
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn valgrind_finds_nothing_in_a_program_that_loads_the_plug_in() {
    succeeds("token-valgrind", &script("token-process", "valgrind"));
}
