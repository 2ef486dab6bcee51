//! The kernel tier's state file: damaged, lost, of another instance; and what a stop does to the disks it knows.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs;
use std::time::Duration;

use support::uml::{MIB, Node, Script};

/// Enough for a LUKS2 header and an ext4 file system.
const DATA_DISK: u64 = 40 * MIB;

fn script(name: &str) -> Script {
    Script::with_agent(name).timeout(Duration::from_secs(400))
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn a_damaged_or_lost_state_file_formats_nothing_and_says_what_to_do() {
    let mut node = Node::new("damaged-state").numbered_disks(&["ubdb", "ubdc", "ubdd", "ubde"], DATA_DISK);
    node.boot(&script("damaged-state")).assert_ok();
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn a_stop_loses_the_instance_store_and_nothing_else_and_a_clone_gets_its_own_key() {
    let disks = [("ubdb", "z-store-1"), ("ubdc", "vol1"), ("ubdd", "vol2")];
    let node = Node::new("stop-start");
    let mut node = disks.iter().fold(node, |node, (disk, serial)| node.disk_with_serial(disk, DATA_DISK, serial));
    node.boot(&script("stop-start").arg("first")).assert_ok();
    node.attach("ubdb", DATA_DISK, Some("z-store-2".to_owned()));
    node.attach("ubde", DATA_DISK, Some("vol9".to_owned()));
    node.boot(&script("stop-start").arg("restarted")).assert_ok();
    node.detach("ubde");
    node.boot(&script("stop-start").arg("bad-ebs")).assert_ok();
    node.attach("ubdb", DATA_DISK, Some("z-store-3".to_owned()));
    // volumes that are made from snapshots have the content and ids of their own
    for (disk, serial) in [("ubdc", "vol3"), ("ubdd", "vol4")] {
        let image = node.disk_path(disk);
        fs::copy(&image, image.with_extension("original")).unwrap();
        node.attach_image(disk, Some(serial.to_owned()));
    }
    node.boot(&script("stop-start").arg("clone")).assert_ok();
    fs::rename(node.disk_path("ubdc").with_extension("original"), node.disk_path("ubdf")).unwrap();
    node.attach_image("ubdf", Some("vol1".to_owned()));
    node.detach("ubdc");
    node.boot(&script("stop-start").arg("denied")).assert_ok();
    node.attach_image("ubdc", Some("vol3".to_owned()));
    node.boot(&script("stop-start").arg("original")).assert_ok();
    node.detach("ubdb");
    node.detach("ubdf");
    node.attach("ubde", DATA_DISK, Some("vol9".to_owned()));
    node.boot(&script("stop-start").arg("gone")).assert_ok();
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn a_tampered_header_is_not_opened() {
    let mut node = Node::new("tampered").numbered_disks(&["ubdb", "ubdc"], DATA_DISK);
    node.boot(&script("tampered")).assert_ok();
}
