//! The kernel tier's token plug-in: stock cryptsetup opens volumes through KMS.
//!
//! The scenario is `tests/kernel/token-plugin.sh`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod support;

use std::time::Duration;

use support::localstack::LocalStack;
use support::token_plugin;
use support::uml::{MIB, Node, Script};

fn script(service: &str) -> Script {
    let plugin = token_plugin::build(&format!("kernel-{service}"), &[]);
    Script::with_agent("token-plugin")
        .arg(service)
        .env("TOKEN_PLUGIN", plugin.to_str().unwrap())
        .timeout(Duration::from_secs(500))
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn stock_cryptsetup_opens_a_volume_through_kms() {
    let mut node = Node::new("token-plugin").numbered_disks(&["ubdb"], 64 * MIB);
    let boot = node.boot(&script("fake"));
    println!("{}", boot.timed_console());
    boot.assert_ok();
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn stock_cryptsetup_opens_a_volume_through_localstack() {
    let localstack = LocalStack::find();
    let mut node = Node::new("token-plugin-localstack").numbered_disks(&["ubdb"], 64 * MIB);
    let script = script("localstack").env("LOCALSTACK_VENV", localstack.venv()).env("AWS_CLI", localstack.aws_cli());
    let boot = node.boot(&script);
    println!("{}", boot.timed_console());
    boot.assert_ok();
}
