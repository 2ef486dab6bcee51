//! The machine tier's service: the units of `systemd/`, installed as a package would, on a node that nobody types commands on.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod support;

use std::fs;
use std::time::{Duration, Instant};

use fake_aws::{Fault, Server};
use support::ec2::{self, EBS_LATER};
use support::qemu::Machine;

const CONFIG: &str = "/etc/luks-agent/config.toml";

/// What keeps its data on the volumes, as Hadoop does: it writes to `/mnt`, and would write to the boot volume if nothing were
/// mounted there.
const CONSUMER: &str = "[Unit]
Description=Writes to /mnt
Requires=luks-agent.target
After=luks-agent.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'findmnt -no SOURCE /mnt >/mnt/consumer; date >>/root/consumer-starts'
[Install]
WantedBy=multi-user.target
";

/// Every volume that a new node has.
const VOLUMES: [&str; 4] = ["/mnt", "/mnt1", "/mnt2", "/mnt3"];

#[test]
#[ignore = "machine tier: needs QEMU, run make test-machine"]
fn a_node_that_nobody_types_commands_on() {
    let aws = ec2::aws();
    let mut vm = node("service", &aws);
    vm.boot();
    install(&mut vm, &aws);
    units_are_sound(&mut vm);

    eprintln!("-- first boot");
    aws.clear_requests();
    vm.reboot();
    ready(&mut vm, &VOLUMES);
    assert_eq!(aws.count("GenerateDataKey"), 1);
    vm.ok("echo kept >/mnt2/kept; sync -f /mnt2");
    health(&mut vm, "the key can be used, 4 sound");

    eprintln!("-- reboot");
    aws.clear_requests();
    vm.reboot();
    ready(&mut vm, &VOLUMES);
    assert_eq!(aws.count("GenerateDataKey"), 0);
    assert_eq!(vm.ok("cat /mnt2/kept"), "kept");
    assert_eq!(recoveries(&mut vm), "", "file systems were not unmounted cleanly");

    eprintln!("-- a volume is attached");
    let began = Instant::now();
    vm.ok(&format!("ec2-nvme.sh attach {EBS_LATER}"));
    mounted(&mut vm, "/mnt4");
    eprintln!("   mounted {:.1?} after it was attached", began.elapsed());
    let event_to_start = "journalctl -o short-unix -u luks-agent-provision.service | tail -n 1";
    eprintln!("   {}", vm.ok(event_to_start));
    vm.ok("echo later >/mnt4/file; sync -f /mnt4");

    eprintln!("-- it is pulled, and attached again");
    vm.ok(&format!("ec2-nvme.sh detach {EBS_LATER}"));
    wait(&mut vm, "its mapping to go", "! findmnt -n /mnt4");
    assert_eq!(vm.ok("ls /dev/mapper/luks-* | wc -l"), "4", "mappings");
    vm.ok(&format!("ec2-nvme.sh attach {EBS_LATER}"));
    mounted(&mut vm, "/mnt4");
    assert_eq!(vm.ok("cat /mnt4/file"), "later");

    eprintln!("-- the daemon is killed, restarted, reloaded");
    let before = vm.ok("findmnt -rn; dmsetup table");
    vm.ok("systemctl kill --signal=KILL luks-agent.service");
    wait(&mut vm, "the daemon to be back", "systemctl is-active luks-agent.service");
    vm.ok("systemctl restart luks-agent.service; systemctl reload luks-agent.service");
    vm.ok("echo '[helth]' >/etc/luks-agent/config.d/wrong.toml; systemctl reload luks-agent.service");
    wait(&mut vm, "the mistake to be told", "journalctl -u luks-agent.service | grep -q 'stays as it was.*wrong.toml:1'");
    vm.ok("rm /etc/luks-agent/config.d/wrong.toml; systemctl is-active luks-agent.service");
    assert_eq!(vm.ok("findmnt -rn; dmsetup table"), before);

    eprintln!("-- the key is disabled");
    aws.push_fault(Fault::error("DescribeKey", "DisabledException").times(1000));
    aws.push_fault(Fault::error("Decrypt", "DisabledException").times(1000));
    vm.run("systemctl start luks-agent-health.service");
    vm.ok("systemctl restart luks-agent.service");
    wait(
        &mut vm,
        "the status to say so",
        "systemctl status luks-agent.service | grep -q 'would not survive a reboot'",
    );
    aws.clear_faults();
    vm.power_off();
}

/// A node with the service installed, after its first boot without it.
fn node(name: &str, aws: &Server) -> Machine {
    let vm = ec2::node_with_agent(name, aws).disk(EBS_LATER, ec2::VOLUME);
    let files = fs::read_dir(support::project_dir().join("systemd")).unwrap();
    files.map(|file| file.unwrap().path()).fold(vm, Machine::tool)
}

/// As a package does it.
fn install(vm: &mut Machine, aws: &Server) {
    vm.write_file(CONFIG, ec2::config(aws));
    vm.write_file("/etc/systemd/system/consumer.service", CONSUMER);
    vm.ok("install -m 755 /opt/test/luks-agent /usr/sbin/luks-agent
         mkdir -p /etc/luks-agent/config.d
         cd /opt/test
         install -m 644 *.service *.target /etc/systemd/system/
         install -m 644 80-luks-agent.rules /etc/udev/rules.d/
         install -m 644 luks-agent.tmpfiles.conf /usr/lib/tmpfiles.d/luks-agent.conf
         systemctl daemon-reload
         systemctl --quiet enable luks-agent.target luks-agent.service consumer.service");
}

fn units_are_sound(vm: &mut Machine) {
    let verify = vm.run("cd /etc/systemd/system && systemd-analyze verify --man=no luks-agent* consumer.service");
    assert_eq!((verify.status, verify.stdout.as_str(), verify.stderr.as_str()), (0, "", ""));
    for (unit, most) in [("luks-agent.service", 2.0), ("luks-agent-boot.service", 9.0)] {
        let said = vm.ok(&format!("systemd-analyze security --no-pager {unit} | tail -n 1"));
        eprintln!("{said}");
        let exposure: f64 = said.split_whitespace().find_map(|word| word.parse().ok()).unwrap();
        assert!(exposure <= most, "{said}");
    }
}

/// Everything is open and mounted, what waited for it has started, and nothing failed.
fn ready(vm: &mut Machine, volumes: &[&str]) {
    wait(vm, "the consumer", "systemctl is-active consumer.service");
    for at in volumes {
        assert!(vm.ok(&format!("findmnt -no SOURCE {at}")).starts_with("/dev/mapper/luks-"));
    }
    assert!(vm.ok("cat /mnt/consumer").starts_with("/dev/mapper/luks-"), "the consumer was too early");
    wait(vm, "the daemon's first runs", "test -s /run/luks-agent/health.json");
    wait(vm, "the system", "systemctl is-system-running");
    assert_eq!(vm.ok("systemctl list-units --no-legend --plain --failed"), "");
}

fn health(vm: &mut Machine, expected: &str) {
    wait(vm, "the status line", &format!("systemctl status luks-agent.service | grep -q 'Status:.*{expected}'"));
}

fn mounted(vm: &mut Machine, at: &str) {
    wait(vm, at, &format!("findmnt -n {at}"));
}

/// Waits in the guest: a question from outside takes long.
fn wait(vm: &mut Machine, what: &str, condition: &str) {
    let limit = Duration::from_secs(120);
    let waited = vm.run(&format!(
        "end=$((SECONDS + {})); until {{ {condition}; }} >/dev/null 2>&1; do ((SECONDS < end)) || exit 1; sleep 0.2; done",
        limit.as_secs()
    ));
    if waited.status != 0 {
        let about = vm.run("systemctl --no-pager status 'luks-agent*' consumer.service; journalctl -b --no-pager -n 60");
        panic!("{what}: not within {limit:?}: {condition}\n{}{}", about.stdout, about.stderr);
    }
}

/// What the kernel said of recovering file systems since boot.
fn recoveries(vm: &mut Machine) -> String {
    vm.ok("dmesg | grep -E 'XFS.*([Rr]ecovery|[Cc]orrupt)|EXT4-fs.*recover' || true")
}
