//! The kernel tier's failures: what the agent does when something is missing, hangs, is in the way or is killed.
//!
//! The scenarios are the scripts of `tests/kernel`; each ends with an assertion of its own.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::time::Duration;

use support::uml::{MIB, Node, Script};

/// Enough for a LUKS2 header and an ext4 file system.
const DATA_DISK: u64 = 40 * MIB;

/// Boots a new node with a scenario, `NAME` or `NAME ARGUMENT`.
fn boot(scenario: &str, disks: &[&str]) {
    let (name, arg) = scenario.split_once(' ').map_or((scenario, None), |(name, arg)| (name, Some(arg)));
    let node = Node::new(&scenario.replace(' ', "-"));
    // with serial numbers, as on EC2: a name alone does not tell which volume it was while another cannot be examined
    let mut node = match name {
        "killed" | "noise" => node.numbered_disks(disks, DATA_DISK),
        _ => disks.iter().fold(node, |node, disk| node.disk(disk, DATA_DISK)),
    };
    let script = arg.iter().fold(Script::with_agent(name), |script, arg| script.arg(*arg));
    // the daemon does things by the minute, and the doctor is asked some fifty times
    let script = script.timeout(Duration::from_secs(if matches!(name, "daemon" | "doctor") { 500 } else { 300 }));
    node.boot(&script).assert_ok();
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn a_provision_that_cannot_do_its_work_writes_nothing() {
    boot("nothing-written", &["ubdb", "ubdc", "ubdd"]);
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn a_hung_device_stops_no_other_and_is_reported() {
    boot("hung before", &["ubdb", "ubdc", "ubdd", "ubde"]);
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn a_device_that_hangs_midway_stops_no_other_and_is_taken_up_again() {
    boot("hung midway", &["ubdb", "ubdc", "ubdd", "ubde"]);
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn what_is_in_the_way_is_named_and_left_as_it_is() {
    boot("in-the-way", &["ubdb", "ubdc", "ubdd", "ubde"]);
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn a_volume_is_closed_whole_or_not_at_all_and_who_holds_it_is_named() {
    boot("held", &["ubdb", "ubdc"]);
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn a_volume_that_another_program_opens_meanwhile_is_no_failure() {
    boot("opened-meanwhile", &["ubdb", "ubdc"]);
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn the_daemon_goes_on_until_the_node_is_as_it_should_be() {
    boot("daemon", &["ubdb", "ubdc"]);
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn after_a_kill_at_any_moment_the_next_provision_converges() {
    boot("killed", &["ubdb", "ubdc"]);
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn volumes_are_made_as_configured() {
    let node =
        Node::new("options").numbered_disks(&["ubdb", "ubdc", "ubdd", "ubde", "ubdg", "ubdh", "ubdi"], DATA_DISK);
    // xfsprogs refuses file systems under 300 MiB
    let mut node = node.disk("ubdf", 340 * MIB);
    node.boot(&Script::with_agent("options").timeout(Duration::from_secs(300))).assert_ok();
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn a_xen_disk_that_nothing_names_is_told_and_keeps_nobody_waiting() {
    boot("xen", &["ubdb"]);
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn mount_points_outlive_a_power_cut_and_a_full_disk_is_named() {
    boot("mount-point", &["ubdb", "ubdc", "ubdd"]);
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn noise_is_refused_with_its_cause_and_taken_where_that_is_configured() {
    boot("noise", &["ubdb", "ubdc", "ubdd", "ubde"]);
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn the_doctor_names_what_is_wrong_with_its_remedy_and_writes_nothing() {
    boot("doctor", &["ubdb", "ubdc"]);
}
