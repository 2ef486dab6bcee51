//! The disks of EC2 that are unlike others, on a Debian with NVMe multipath as in the kernels of RHEL's family: as many as an instance
//! can have, with sectors of 4 KiB, and one of 64 TiB.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod support;

use serde_json::Value;
use support::ec2;
use support::qemu::{Machine, Output};

/// Most Nitro instances have 28 attachments, of which one is a network interface.
const VOLUMES: usize = 27;
/// The largest EBS volume, in bytes (io2 Block Express).
const LARGEST: u64 = 64 << 40;
const CONFIG: &str = "/etc/luks-agent/config.toml";

#[test]
#[ignore = "machine tier: needs QEMU, run make test-machine"]
fn as_many_disks_as_an_instance_has_and_the_largest() {
    let aws = ec2::aws();
    let mut vm = Machine::new("disks").forward(80, aws.addresses()[0]).kernel_arg("nvme_core.multipath=Y");
    vm = vm.tool(support::program("luks-agent"));
    vm.boot();
    vm.ok("mkdir -p /etc/luks-agent");
    vm.write_file(CONFIG, format!("{}[filesystem]\ntype = \"ext4\"\n", ec2::config(&aws)));
    // behind files, so with sectors of 4 KiB: NVMe has the block size of the file system
    vm.ok(&format!(
        "ec2-nvme.sh attach-burst {VOLUMES} /root/volumes {}; udevadm control --start-exec-queue; udevadm settle",
        40 << 20
    ));
    assert_eq!(vm.ok("cat /sys/block/nvme*n1/queue/logical_block_size | sort -u"), "4096");
    let paths = vm.ok("cat /sys/block/nvme*c*n1/hidden | sort | uniq -c");
    assert_eq!(paths.trim(), format!("{VOLUMES} 1"), "the paths of NVMe multipath");

    let report = report(&agent(&mut vm, "provision --json"));
    assert_eq!(report["summary"], format!("{VOLUMES} formatted"), "{report:#}");
    assert_eq!(vm.ok("findmnt -rn -o SOURCE | grep -c ^/dev/mapper/luks-"), VOLUMES.to_string());
    let sectors = vm.ok("dmsetup table --target crypt | grep -c 'sector_size:4096'");
    assert_eq!(sectors, VOLUMES.to_string());
    agent(&mut vm, "close");
    agent(&mut vm, "unlock");
    assert_eq!(vm.ok("findmnt -rn -o SOURCE | grep -c ^/dev/mapper/luks-"), VOLUMES.to_string());

    the_kernel_gives_up_on_ebs_too_soon(&mut vm);
    the_largest(&mut vm);
    vm.power_off();
}

fn agent(vm: &mut Machine, command: &str) -> Output {
    let output = vm.run(&format!("luks-agent {command}"));
    assert_eq!(output.status, 0, "luks-agent {command}\n{}{}", output.stdout, output.stderr);
    output
}

fn report(output: &Output) -> Value {
    serde_json::from_str(&output.stdout).unwrap()
}

/// The kernel's default is not what EC2 advises.
fn the_kernel_gives_up_on_ebs_too_soon(vm: &mut Machine) {
    let said = vm.run("luks-agent doctor").stdout;
    assert!(said.contains("the kernel waits 30 s for a request to nvme"), "{said}");
    vm.ok("for path in /sys/block/nvme*c*n1/queue; do echo 4294967295 >$path/io_timeout; done");
    let said = vm.run("luks-agent doctor").stdout;
    assert!(said.contains("s or more for every EBS volume"), "{said}");
}

/// In a file of XFS, as ext4 has none of this size. The agent only opens it: a log of XFS would be gigabytes.
fn the_largest(vm: &mut Machine) {
    vm.ok(&format!(
        "truncate -s 1G /root/xfs && mkfs.xfs -q /root/xfs && mkdir /xfs && mount -o loop /root/xfs /xfs
         truncate -s {LARGEST} /xfs/largest && ec2-nvme.sh attach vol0ffffffffffffffff /xfs/largest"
    ));
    let config = vm.read_file(CONFIG).replace("\"ext4\"", "\"none\"");
    vm.write_file(CONFIG, config);
    let report = report(&agent(vm, "provision --json"));
    assert_eq!(report["summary"], format!("1 formatted, {VOLUMES} unchanged"), "{report:#}");
    let sizes = vm.ok("lsblk -bnr -o TYPE,SIZE | sed -n 's/^crypt //p'");
    assert!(sizes.lines().any(|size| size.parse() == Ok(LARGEST - (16 << 20))), "{sizes}");
    // the end of it takes what is written there
    vm.ok("mapped=$(lsblk -bnr -o TYPE,SIZE,NAME | awk '$1 == \"crypt\" && $2 > 2^45 { print $3 }')
         last=$(($(blockdev --getsize64 /dev/mapper/$mapped) / 4096 - 1))
         head -c 4096 /dev/urandom >/run/end
         dd if=/run/end of=/dev/mapper/$mapped bs=4096 seek=$last oflag=direct status=none
         dd if=/dev/mapper/$mapped bs=4096 skip=$last iflag=direct status=none | cmp - /run/end");
}
