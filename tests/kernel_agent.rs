//! The kernel tier with the agent: the whole story and its failures on a real kernel.
//!
//! The scenarios are the scripts of `tests/kernel`; a test here boots nodes with them and looks at the disks from outside.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod support;

use std::time::Duration;

use support::localstack::LocalStack;
use support::uml::{MIB, Node, Script};

/// xfsprogs refuses file systems under 300 MiB.
const DATA_DISK: u64 = 340 * MIB;

fn node(name: &str) -> Node {
    ["ubdb", "ubdc", "ubdd", "ubde"].iter().fold(Node::new(name), |node, disk| node.disk(disk, DATA_DISK))
}

fn script(name: &str) -> Script {
    let localstack = LocalStack::find();
    Script::with_agent(name)
        .env("LOCALSTACK_VENV", localstack.venv())
        .env("AWS_CLI", localstack.aws_cli())
        .timeout(Duration::from_secs(400))
}

fn no_plaintext_on_raw_disks(node: &Node, text: &str) {
    for disk in ["ubdb", "ubdc", "ubdd", "ubde"] {
        assert!(!node.disk_contains(disk, text), "plaintext on the raw disk {disk}");
    }
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn the_main_job_with_the_fake_endpoint() {
    let mut node = node("story-fake");
    for phase in ["first", "reboot"] {
        // without LocalStack, so that `make try` needs little on a new machine
        let script = Script::with_agent("story").arg("fake").arg(phase).arg("one").timeout(Duration::from_secs(400));
        let boot = node.boot(&script);
        boot.assert_ok();
        println!("{}", boot.timed_console());
    }
    no_plaintext_on_raw_disks(&node, "plaintext-marker-one");
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn the_main_job_and_break_glass_with_localstack() {
    let mut node = node("story-localstack");
    for phase in ["first", "reboot", "break-glass"] {
        let boot = node.boot(&script("story").arg("localstack").arg(phase).arg("two"));
        boot.assert_ok();
        println!("{}", boot.timed_console());
    }
    no_plaintext_on_raw_disks(&node, "plaintext-marker-two");
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn a_volume_and_a_recovery_key_live_with_localstack() {
    let mut node = Node::new("localstack-life").numbered_disks(&["ubdb", "ubdc"], 40 * MIB);
    let boot = node.boot(&script("localstack-life"));
    boot.assert_ok();
    println!("{}", boot.timed_console());
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn volumes_grow_with_their_disks_and_go_on_where_they_were_cut() {
    let mut node = Node::new("grow").disk("ubdb", 520 * MIB).disk("ubdc", 240 * MIB).disk("ubdd", 96 * MIB);
    let boot = node.boot(&Script::with_agent("grow").timeout(Duration::from_secs(400)));
    boot.assert_ok();
    println!("{}", boot.timed_console());
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn the_agent_does_what_an_emr_security_configuration_says() {
    let disks = ["ubdb", "ubdc", "ubdd", "ubde"];
    let mut node = Node::new("emr-import").numbered_disks(&disks, 40 * MIB);
    let boot = node.boot(&Script::with_agent("emr-import").timeout(Duration::from_secs(400)));
    boot.assert_ok();
    println!("{}", boot.timed_console());
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn every_job_is_done_with_the_capabilities_of_its_unit() {
    let mut node = Node::new("as-units").disk("ubdb", 420 * MIB).disk("ubdc", 200 * MIB);
    node.boot(&Script::with_agent("as-units").timeout(Duration::from_secs(300))).assert_ok();
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn an_audit_shows_how_each_disk_is_encrypted_and_writes_nothing() {
    let mut node = Node::new("audit").numbered_disks(&["ubdb", "ubdc", "ubdd", "ubde"], 40 * MIB);
    let boot = node.boot(&script("audit"));
    boot.assert_ok();
    println!("{}", boot.timed_console());
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn a_node_without_ipv4_does_the_main_job() {
    let mut node = Node::new("ipv6").numbered_disks(&["ubdb", "ubdc"], 40 * MIB);
    node.boot(&Script::with_agent("ipv6").timeout(Duration::from_secs(200))).assert_ok();
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn a_node_in_fips_mode_does_the_main_job_with_what_is_approved_or_says_what_is_not() {
    let mut node = Node::new("fips").numbered_disks(&["ubdb", "ubdc"], 40 * MIB);
    node.boot(&Script::with_agent("fips").timeout(Duration::from_secs(300))).assert_ok();
}
