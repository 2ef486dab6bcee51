//! The kernel tier: real device-mapper, dm-crypt, file systems, crashes and power cuts, in User-Mode Linux.
//!
//! The scenarios are the scripts of `tests/kernel`; a test here boots nodes with them and looks at the disks from outside.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::time::Duration;

use support::localstack::LocalStack;
use support::uml::{End, MIB, Node, Script};

// xfsprogs refuses file systems under 300 MiB.
const DATA_DISK: u64 = 320 * MIB;

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn a_node_keeps_its_boot_volume_and_writes_nothing_to_the_host() {
    let mut node = Node::new("harness").disk_with_serial("ubdb", DATA_DISK, "vol0123");
    node.boot(&Script::new("harness").arg("first").env("GREETING", "it's me")).assert_ok();
    node.boot(&Script::new("harness").arg("second")).assert_ok();
    assert!(!std::path::Path::new("/etc/luks-agent-harness").exists(), "the node wrote to the host");

    let failed = node.boot(&Script::new("harness").arg("fail"));
    failed.assert_end(End::Status(1));
    assert!(
        failed.console().contains("FAILED: harness.sh:"),
        "the failed line is not named:\n{}",
        failed.timed_console()
    );
    let hung = node.boot(&Script::new("harness").arg("hang").timeout(Duration::from_secs(10)));
    hung.assert_end(End::TimedOut);
    for said in ["host: stat: ", "mconsole: version: Linux", "mconsole: sysrq w: "] {
        assert!(hung.console().contains(said), "what it hangs at is not told:\n{}", hung.timed_console());
    }
    let died = node.boot(&Script::new("harness").arg("die"));
    died.assert_end(End::Died);
    assert!(died.timed_console().contains("Kernel panic"), "what it died of is not told:\n{}", died.timed_console());
    assert!(!died.timed_console().contains("Linux version"), "it died later than that:\n{}", died.timed_console());
    // as on a processor with which the kernel runs no process
    let early = node.boot(&Script::new("harness").kernel_arg("init=/nowhere"));
    early.assert_end(End::Died);
    for said in ["Linux version", "Kernel panic", "linux ended before init.sh"] {
        assert!(early.timed_console().contains(said), "what it died of is not told:\n{}", early.timed_console());
    }
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn stock_cryptsetup_volume_survives_a_reboot() {
    let mut node = Node::new("cryptsetup").disk("ubdb", DATA_DISK);
    let first = node.boot(&Script::new("cryptsetup").arg("format"));
    let text = first.assert_ok().value("text: ").unwrap();
    node.boot(&Script::new("cryptsetup").arg("reopen").arg(text)).assert_ok();

    assert!(!node.disk_contains("ubdb", text), "plaintext on the raw disk");
    // The search itself works: the same text was written to the boot volume in clear.
    assert!(node.disk_contains("ubda", text), "no text on the boot volume");
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn synced_file_survives_a_power_cut_in_the_middle_of_writes() {
    let mut node = Node::new("power-cut").disk("ubdb", DATA_DISK);
    node.boot(&Script::new("power-cut").arg("write").cut_power_after("writing on", Duration::from_millis(300)))
        .assert_power_cut();
    node.boot(&Script::new("power-cut").arg("check")).assert_ok();
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn a_reader_stuck_on_a_suspended_device_does_not_keep_the_node_up() {
    let mut node = Node::new("suspended").disk("ubdb", DATA_DISK);
    let boot = node.boot(&Script::new("suspended"));
    boot.assert_ok();
    assert!(boot.powered_off(), "had to be killed:\n{}", boot.timed_console());
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn power_cut_at_every_write_of_a_format_can_be_replayed() {
    let mut node = Node::new("log-writes")
        .disk("ubdb", 32 * MIB)
        .disk("ubdc", 64 * MIB)
        .disk("ubdd", 32 * MIB)
        .disk("ubde", 32 * MIB);
    node.boot(&Script::new("log-writes").timeout(Duration::from_secs(240))).assert_ok();
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn localstack_in_the_node_decrypts_after_a_reboot_what_it_wrapped_before() {
    let localstack = LocalStack::find();
    let mut node = Node::new("localstack");
    for phase in ["wrap", "unwrap"] {
        node.boot(
            &Script::new("localstack")
                .arg(phase)
                .env("LOCALSTACK_VENV", localstack.venv())
                .env("AWS_CLI", localstack.aws_cli())
                .timeout(Duration::from_secs(300)),
        )
        .assert_ok();
    }
}
