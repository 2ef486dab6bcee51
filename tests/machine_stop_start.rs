//! A node is stopped and started, again and again: its instance store is another disk each time, blank, with another serial number. Not
//! a byte of what waits for `luks-agent.target` may reach the boot volume, nor any disk in the clear.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod support;

use std::fs;

use support::ec2::{self, EBS_1};
use support::qemu::{MIB, Machine};
use support::service::{self, wait};

/// Enough for a header and an ext4 file system: a whole disk is read before it is formatted.
const VOLUME: u64 = 40 * MIB;

/// Instance store sorts before EBS.
const MOUNTS: [&str; 3] = ["/mnt", "/mnt1", "/mnt2"];
const EBS_MOUNT: &str = "/mnt2";

/// What the consumer writes, over and over. It is on the tools disk, and so on the boot volume only if it is written there.
const DATA: &str = "what-a-consumer-writes-when-the-target-is-reached";
/// The same for a file that is written to the boot volume, which must be found there.
const CONTROL: &str = "what-is-written-to-the-boot-volume-to-be-found-there";

/// Writes to every mount point all the time, and makes the directories that it wants, as Hadoop does.
const WRITER: &str = r#"#!/bin/bash
at_boot=$(cut -c-8 /proc/sys/kernel/random/boot_id)
for ((n = 0; ; n++)); do
    for at in MOUNTS; do
        mkdir -p "$at/spark"
        cat "$1" >"$at/spark/$at_boot.$((n % 20))"
        sync "$at/spark/$at_boot.$((n % 20))"
    done
    sleep 0.2
done
"#;

const CONSUMER: &str = "[Unit]
Requires=luks-agent.target
After=luks-agent.target
[Service]
ExecStart=/opt/test/writer.sh /opt/test/data
[Install]
WantedBy=luks-agent.target
";

#[test]
#[ignore = "machine tier: needs QEMU, run make test-machine"]
fn after_any_number_of_stops_nothing_is_written_to_the_boot_volume() {
    let aws = ec2::aws();
    let mut vm = Machine::new("stop-start").lean().nvme(EBS_1, VOLUME).forward(80, aws.addresses()[0]);
    vm = vm.tool(support::program("luks-agent"));
    vm = service::files().into_iter().fold(vm, Machine::tool);
    let tools = tempfile::tempdir().unwrap();
    let writer = WRITER.replace("MOUNTS", &MOUNTS.join(" "));
    for (name, text) in [("writer.sh", writer.as_str()), ("data", &lines(DATA)), ("control", &lines(CONTROL))] {
        fs::write(tools.path().join(name), text).unwrap();
        vm = vm.tool(tools.path().join(name));
    }
    let mut starts = 0;
    start(&mut vm, &mut starts, 2);
    vm.write_file("/etc/luks-agent/config.toml", format!("{}[filesystem]\ntype = \"ext4\"\n", ec2::config(&aws)));
    vm.write_file("/etc/systemd/system/consumer.service", CONSUMER);
    vm.lean_from_the_next_boot();
    service::install(&mut vm);
    vm.ok("cp /opt/test/control /root/control; sync
         systemctl --quiet enable consumer.service
         systemctl start luks-agent.target luks-agent.service");
    all_is_mounted(&mut vm);
    vm.ok(&format!("echo kept >{EBS_MOUNT}/kept; sync -f {EBS_MOUNT}"));

    for stop in 1..=5 {
        // one is cut off, as by a forced stop or a failing host
        if stop == 4 {
            vm.power_cut();
        } else {
            vm.power_off();
        }
        nothing_is_in_the_clear(&vm);
        if stop == 3 {
            eprintln!("-- stop and start {stop}, and one of the instance store volumes is missing at first");
            start(&mut vm, &mut starts, 1);
            wait(&mut vm, "the boot to fail", "systemctl is-failed luks-agent-boot.service");
            assert_eq!(vm.run("systemctl is-active luks-agent.target consumer.service").stdout, "inactive\ninactive\n");
            vm.power_off();
            nothing_is_in_the_clear(&vm);
        }
        eprintln!("-- stop and start {stop}");
        start(&mut vm, &mut starts, 2);
        all_is_mounted(&mut vm);
        assert_eq!(vm.ok(&format!("cat {EBS_MOUNT}/kept")), "kept");
        vm.ok("luks-agent health");
    }
    vm.power_off();
    nothing_is_in_the_clear(&vm);
    assert!(vm.disk_holds("boot", CONTROL.as_bytes()), "the search does not find what is on the boot disk");
}

/// A file that takes some blocks.
fn lines(text: &str) -> String {
    format!("{text}\n").repeat(200)
}

/// Starts the instance on a host where its instance store is new.
fn start(vm: &mut Machine, starts: &mut u32, volumes: u32) {
    *starts += 1;
    let serials: Vec<String> = (0..volumes).map(|n| format!("AWS{:017X}", *starts << 8 | n)).collect();
    serials.iter().for_each(|serial| vm.add_disk(serial, VOLUME));
    let order: Vec<&str> = serials.iter().map(String::as_str).chain([EBS_1]).collect();
    vm.attach_order(&order);
    vm.boot();
}

/// The consumer has started and writes to each volume.
fn all_is_mounted(vm: &mut Machine) {
    wait(vm, "the consumer", "systemctl is-active consumer.service");
    for at in MOUNTS {
        assert!(vm.ok(&format!("findmnt -no SOURCE {at}")).starts_with("/dev/mapper/luks-"));
        wait(vm, "its files", &format!("grep -q . {at}/spark/$(cut -c-8 /proc/sys/kernel/random/boot_id).*"));
    }
}

/// The machine is off.
fn nothing_is_in_the_clear(vm: &Machine) {
    for disk in vm.disk_names() {
        assert!(!vm.disk_holds(disk, DATA.as_bytes()), "what the consumer writes is on disk {disk}");
    }
}
