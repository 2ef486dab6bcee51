//! The machine tier: a whole Debian with systemd and udev in QEMU, NVMe controllers with EC2's names.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};

use support::ec2::{self, EBS_1, EBS_2, STORE_1, STORE_2};
use support::qemu::{AWS_ADDRESS, Machine};

const EBS_1_LINK: &str = "/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_vol0a1b2c3d4e5f60718";

/// The harness itself, with stock cryptsetup: controllers look as on EC2, a reboot in another order renumbers them,
/// data comes back, the raw disk shows none of it, and flushed data outlives a power cut.
#[test]
#[ignore = "machine tier: needs QEMU, run make test-machine"]
fn stock_cryptsetup_survives_reorder_and_power_cut() {
    let mut vm = ec2::node("harness");
    vm.boot();
    assert_eq!(
        vm.ok("ec2-nvme.sh list"),
        format!(
            "nvme0n1 {STORE_1} Amazon EC2 NVMe Instance Storage\n\
             nvme1n1 {STORE_2} Amazon EC2 NVMe Instance Storage\n\
             nvme2n1 {EBS_1} Amazon Elastic Block Store\n\
             nvme3n1 {EBS_2} Amazon Elastic Block Store"
        )
    );
    assert_eq!(vm.ok(&format!("readlink -f {EBS_1_LINK}")), "/dev/nvme2n1");
    assert_eq!(vm.ok("systemctl is-system-running"), "running");

    let outside = vm.boot_disk_outside_fs();

    let marker = "plaintext that must not be on the raw disk";
    let open =
        format!("printf passphrase | cryptsetup open --key-file=- {EBS_1_LINK} test && mount /dev/mapper/test /mnt");
    vm.ok(&format!(
        "printf passphrase | cryptsetup luksFormat --batch-mode --pbkdf pbkdf2 --pbkdf-force-iterations 1000 {EBS_1_LINK} -
         printf passphrase | cryptsetup open --key-file=- {EBS_1_LINK} test
         mkfs.xfs -q /dev/mapper/test
         mount /dev/mapper/test /mnt"
    ));
    vm.write_file("/mnt/file", marker);

    vm.attach_order(&[EBS_2, EBS_1, STORE_2, STORE_1]);
    vm.reboot();
    assert_eq!(
        vm.ok("ec2-nvme.sh list | cut -d' ' -f1,2"),
        format!("nvme0n1 {EBS_2}\nnvme1n1 {EBS_1}\nnvme2n1 {STORE_2}\nnvme3n1 {STORE_1}")
    );
    assert_eq!(vm.ok(&format!("readlink -f {EBS_1_LINK}")), "/dev/nvme1n1");
    vm.ok(&open);
    assert_eq!(vm.read_file("/mnt/file"), marker);

    vm.write_file("/mnt/flushed", "written before the power cut");
    vm.power_cut();
    vm.boot();
    vm.ok(&open);
    assert_eq!(vm.read_file("/mnt/flushed"), "written before the power cut");

    vm.ok(&format!("umount /mnt; cryptsetup close test; ec2-nvme.sh detach {EBS_1}; ! test -e {EBS_1_LINK}"));
    vm.ok(&format!("ec2-nvme.sh attach {EBS_1}; {open}"));
    assert_eq!(vm.boot_disk_outside_fs(), outside);
    vm.power_off();
    assert!(vm.disk_holds(EBS_1, b"LUKS\xba\xbe"));
    assert!(!vm.disk_holds(EBS_1, marker.as_bytes()));
    assert!(!vm.disk_holds(EBS_2, b"LUKS\xba\xbe"));
}

/// The guest reaches the instance metadata address, served by the host, and nothing else.
#[test]
#[ignore = "machine tier: needs QEMU, run make test-machine"]
fn guest_reaches_the_metadata_address_and_nothing_else() {
    let server = one_line_server();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut vm = Machine::new("network").forward(80, server).forward(4566, server);
    vm.boot();
    for port in [80, 4566] {
        for _ in 0..3 {
            let get = format!("exec 3<>/dev/tcp/{AWS_ADDRESS}/{port}; printf 'GET /x\\r\\n\\r\\n' >&3; cat <&3");
            assert_eq!(vm.ok(&get), "you asked for GET /x");
        }
    }
    for address in ["169.254.169.1", "169.254.169.3", "10.0.2.2", "127.0.0.1"] {
        let port = other.local_addr().unwrap().port();
        let reached = vm.run(&format!("timeout 3 bash -c 'exec 3<>/dev/tcp/{address}/{port}'"));
        assert_ne!(reached.status, 0, "the guest reached the host through {address}");
    }
}

/// Answers every HTTP-like request with its first line, then closes.
fn one_line_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let request = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
            let head: Vec<_> = request.take_while(|line| !line.is_empty()).collect();
            write!(stream, "you asked for {}", head[0]).unwrap();
        }
    });
    address
}
