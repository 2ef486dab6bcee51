//! The kernel tier's life of a volume: it changes nodes, is forgotten, and is erased.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod support;

use std::fs;
use std::time::Duration;

use support::uml::{MIB, Node, Points, Script};

/// Enough for a LUKS2 header and an ext4 file system.
const DATA_DISK: u64 = 40 * MIB;

fn script(name: &str, phase: &str) -> Script {
    Script::with_agent(name).arg(phase).timeout(Duration::from_secs(600))
}

fn boot(node: &mut Node, script: &Script) {
    let boot = node.boot(script);
    boot.assert_ok();
    println!("{}", boot.timed_console());
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn a_volume_of_another_node_or_of_a_lost_state_file_is_adopted_from_its_token() {
    let mut a = Node::new("adopt-a").numbered_disks(&["ubdb", "ubdc"], DATA_DISK);
    boot(&mut a, &script("adopt", "make"));
    let disks = [("ubdb", "vol-b1"), ("ubdc", "vol-b2"), ("ubdd", "vol-b0"), ("ubde", "vol-b3"), ("ubdf", "vol-b4")];
    let mut b =
        disks.iter().fold(Node::new("adopt-b"), |node, (disk, serial)| node.disk_with_serial(disk, DATA_DISK, serial));
    for disk in ["ubdb", "ubdc"] {
        fs::copy(a.disk_path(disk), b.disk_path(disk)).unwrap();
    }
    boot(&mut b, &script("adopt", "other"));
    b.detach("ubdf");
    boot(&mut b, &script("adopt", "again"));
    b.detach("ubdc");
    boot(&mut b, &script("adopt", "gone"));
    b.attach_image("ubdc", Some("vol-b2".to_owned()));
    boot(&mut b, &script("adopt", "back"));
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn erasing_leaves_no_keyslot_and_touches_only_what_was_confirmed() {
    let disks = [("ubdb", "vol-1"), ("ubdc", "vol-2"), ("ubdd", "vol-3"), ("ubde", "vol-4"), ("ubdf", "vol-5")];
    let mut node =
        disks.iter().fold(Node::new("erase"), |node, (disk, serial)| node.disk_with_serial(disk, DATA_DISK, serial));
    boot(&mut node, &Script::with_agent("erase").timeout(Duration::from_secs(900)));
    // from outside
    for disk in ["ubdc", "ubdd"] {
        let image = fs::read(node.disk_path(disk)).unwrap();
        assert!(image[..16 << 20].iter().all(|byte| *byte == 0), "bytes are left in the header area of {disk}");
    }
}

/// `VOLUME_POINTS` says how many points of each command, or `all`; `VOLUME_SEED` which; `VOLUME_ONLY` these points alone.
#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn a_killed_adopt_forget_or_erase_is_finished_by_the_next() {
    let told = |name: &str, usual: &str| std::env::var(name).unwrap_or_else(|_| usual.to_owned());
    let seed = told("VOLUME_SEED", &fastrand::u32(..30_000).to_string());
    let (count, only) = (told("VOLUME_POINTS", "4"), told("VOLUME_ONLY", ""));
    let mut node = Node::new("volume-sweep");
    for (disk, serial) in [("ubdb", "vol-1"), ("ubdc", "vol-2")] {
        node = node.disk_with_serial(disk, 33 * MIB, serial);
    }
    let script = script("volume-sweep", &count)
        .arg(&seed)
        .env("CRASH", support::program("examples/crash").to_str().unwrap())
        .timeout(Duration::from_secs(if count == "all" { 40_000 } else { 1200 }));
    let boot = node.boot(&only.split_whitespace().fold(script, Script::arg));
    println!("{}", boot.timed_console());
    boot.assert_ok();
    let Points { tried, bad, missed } = boot.points();
    let summary =
        format!("sweep of adopt, forget and erase: seed {seed}, {tried} points, {bad} bad, {missed} not reached");
    println!("{summary}");
    assert!(bad == 0 && tried > missed, "{summary}");
}
