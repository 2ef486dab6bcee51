//! The kernel tier's key service: its faults, keys that are not the volume's, and what opens a volume besides.
//!
//! The scenarios are the scripts of `tests/kernel`; each ends with an assertion of its own.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod support;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use support::uml::{End, MIB, Node, Script};

fn script(name: &str) -> Script {
    Script::with_agent(name).timeout(Duration::from_secs(300))
}

/// A scenario that kills commands at every sixth system call or so; `CRASH_STEP=1` at each.
fn killing(name: &str, crash: &Path) -> Script {
    let script = script(name).env("CRASH", crash.to_str().unwrap()).timeout(Duration::from_secs(900));
    match std::env::var("CRASH_STEP") {
        Ok(step) => script.env("CRASH_STEP", step).timeout(Duration::from_secs(2 * 3600)),
        Err(_) => script,
    }
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn every_fault_of_the_key_service_has_its_exit_code_and_writes_no_disk() {
    // one for each of those that run at a time; the least that holds a header and data
    let disks = ["ubdb", "ubdc", "ubdd", "ubde", "ubdf"];
    let mut node = disks.iter().fold(Node::new("key-service-faults"), |node, disk| node.disk(disk, 33 * MIB));
    let script = disks.iter().fold(script("key-service-faults"), |script, disk| script.arg(*disk));
    let boot = node.boot(&script);
    boot.assert_ok();
    println!("{}", boot.timed_console());
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn a_wrapped_key_that_is_not_the_volumes_opens_nothing_and_is_told() {
    let mut node = Node::new("swapped-key").numbered_disks(&["ubdb", "ubdc"], 40 * MIB);
    let boot = node.boot(&script("swapped-key"));
    boot.assert_ok();
    println!("{}", boot.timed_console());
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn what_would_keep_a_node_from_coming_back_is_noticed_and_nothing_written() {
    let mut node = Node::new("health").numbered_disks(&["ubdb", "ubdc"], 40 * MIB);
    let boot = node.boot(&script("health"));
    boot.assert_ok();
    println!("{}", boot.timed_console());
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn volumes_get_a_new_key_while_they_are_used_and_one_that_was_away_follows() {
    let mut node = Node::new("rotate").numbered_disks(&["ubdb", "ubdc"], 40 * MIB);
    node.boot(&script("rotate").arg("first")).assert_ok();
    node.detach("ubdc");
    node.boot(&script("rotate").arg("away")).assert_ok();
    node.attach_image("ubdc", Some("serial-ubdc".to_owned()));
    node.boot(&script("rotate").arg("back")).assert_ok();
}

/// OpenBao's virtual environment.
fn openbao() -> String {
    let script = support::project_dir().join("scripts/deps.sh");
    let output = Command::new(script).arg("--openbao-dir").output().unwrap();
    let dir = String::from_utf8(output.stdout).unwrap().trim_end().to_owned();
    assert!(Path::new(&dir).join("complete").exists(), "no OpenBao in {dir}: run `scripts/deps.sh openbao`");
    dir
}

fn life_with_a_program(service: &str) {
    let mut node = Node::new(&format!("exec-{service}")).disk("ubdb", 40 * MIB).disk("ubdc", 40 * MIB);
    for phase in ["first", "reboot"] {
        let script = script("exec-provider").arg(service).arg(phase).timeout(Duration::from_secs(500));
        let boot = node.boot(&if service == "openbao" { script.env("OPENBAO_VENV", openbao()) } else { script });
        boot.assert_ok();
        println!("{}", boot.timed_console());
    }
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn a_node_lives_with_keys_that_a_program_wraps_and_without_aws() {
    life_with_a_program("file");
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn a_node_lives_with_keys_that_the_transit_engine_of_openbao_wraps() {
    life_with_a_program("openbao");
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn every_fault_of_the_program_is_one_error_and_writes_no_disk_and_a_node_may_have_both_providers() {
    let mut node = Node::new("exec-faults").disk("ubdb", 40 * MIB).disk("ubdc", 40 * MIB);
    let boot = node.boot(&script("exec-faults").timeout(Duration::from_secs(500)));
    boot.assert_ok();
    println!("{}", boot.timed_console());
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn verify_tries_the_keys_on_every_volume_and_writes_nothing() {
    let mut node = Node::new("verify").numbered_disks(&["ubdb", "ubdc"], 40 * MIB);
    let boot = node.boot(&script("verify"));
    boot.assert_ok();
    println!("{}", boot.timed_console());
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn a_lost_header_is_restored_from_its_backup_and_a_kill_loses_nothing() {
    let mut node = Node::new("header").numbered_disks(&["ubdb", "ubdc"], 40 * MIB);
    let crash = support::program("examples/crash");
    let boot = node.boot(&killing("header", &crash));
    boot.assert_ok();
    println!("{}", boot.timed_console());
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn a_recovery_key_opens_the_volumes_when_kms_is_gone_and_a_kill_loses_nothing() {
    let mut node = Node::new("recovery-key").numbered_disks(&["ubdb", "ubdc"], 40 * MIB);
    let crash = support::program("examples/crash");
    let script = killing("recovery-key", &crash);
    let boot = node.boot(&script);
    boot.assert_ok();
    println!("{}", boot.timed_console());
}

/// How many boots are interrupted (`REENCRYPT_BOOTS`), and how many moments each has.
const REENCRYPT_BOOTS: u64 = 3;
const MOMENTS_A_BOOT: u64 = 3;

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn a_volume_gets_a_new_volume_key_under_load_and_loses_nothing_at_any_interruption() {
    let number = |name: &str, default| std::env::var(name).ok().map_or(default, |text| text.parse().unwrap());
    let (boots, seed) = (number("REENCRYPT_BOOTS", REENCRYPT_BOOTS), number("REENCRYPT_SEED", 1));
    let cut = "-- cut the power here";
    let script = |name| script(name).timeout(Duration::from_secs(600));
    let mut node = Node::new("reencrypt").disk("ubdb", 64 * MIB).disk("ubdc", 64 * MIB);
    let run = |node: &mut Node, script: Script| {
        let boot = node.boot(&script);
        println!("{}", boot.timed_console());
        boot
    };
    let first = script("reencrypt").arg("first").arg(seed.to_string()).cut_power_at(cut);
    assert_eq!(run(&mut node, first).end(), End::PowerCut);
    for boot in 0..boots {
        let moments = script("reencrypt").arg("moments").arg((seed * 1000 + boot).to_string());
        let moments = moments.arg(MOMENTS_A_BOOT.to_string()).cut_power_at(cut);
        assert_eq!(run(&mut node, moments).end(), End::PowerCut);
    }
    run(&mut node, script("reencrypt").arg("last")).assert_ok();
}
