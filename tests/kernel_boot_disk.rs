//! The boot disk on a real kernel, through whatever systems are stacked on: never a target, and known, or nothing is one.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod support;

use std::time::Duration;

use support::uml::{MIB, Node, Script};

/// Boots a node with disks for stacks, and ubdp, which is free: blank, and to be formatted.
fn boot(scenario: &str, part: &str, disks: &str) {
    let node = Node::new(&format!("{scenario}-{part}"));
    let node = disks.chars().fold(node, |node, letter| {
        // btrfs wants more
        let size = if ('h'..='l').contains(&letter) { 48 * MIB } else { 24 * MIB };
        node.disk(&format!("ubd{letter}"), size)
    });
    let script = Script::with_agent(scenario).arg(part).timeout(Duration::from_secs(600));
    // which is read at each attempt, but not formatted where nothing is known
    let free = if scenario == "boot-unresolved" { 8 * MIB } else { 40 * MIB };
    let boot = node.disk("ubdp", free).boot(&script);
    println!("{}", boot.timed_console());
    boot.assert_ok();
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn stacks_of_device_mapper() {
    boot("boot-stacks", "dm", "bcdefghijklmno");
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn raid_btrfs_loop_and_overlay() {
    boot("boot-stacks", "other", "bcdefghijklmno");
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn swap_state_directory_and_further_devices() {
    boot("boot-stacks", "more", "bcdefghijklmno");
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn below_the_root_itself() {
    boot("boot-root", "stacks", "bcdefghi");
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn not_to_be_found_out() {
    boot("boot-unresolved", "all", "bdh");
}
