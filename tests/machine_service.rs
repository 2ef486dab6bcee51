//! The machine tier's service: the units of `systemd/`, installed as a package would, on nodes that nobody types commands on.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod support;

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fake_aws::{Effect, Fault, KeyState, Server};
use serde_json::Value;
use support::ec2::{self, EBS_LATER};
use support::qemu::{MIB, Machine};
use support::service::{self, idle, wait};

const CONFIG: &str = "/etc/luks-agent/config.toml";
/// For what differs from time to time.
const DROP_IN: &str = "/etc/luks-agent/config.d/test.toml";

/// What keeps its data on the volumes, as Hadoop does: it writes to `/mnt`, and would write to the boot volume if nothing were
/// mounted there. At its end the volumes must still be there, too.
const CONSUMER: &str = "[Unit]
Description=Writes to /mnt
Requires=luks-agent.target
After=luks-agent.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'findmnt -no SOURCE /mnt >/mnt/started'
ExecStop=/bin/sh -c 'findmnt -no SOURCE /mnt >/mnt/stopped'
[Install]
WantedBy=luks-agent.target
";

/// Says nothing of sound units.
const VERIFY: &str = "cd /etc/systemd/system && systemd-analyze verify --man=no luks-agent*.{service,socket,target} consumer.service 2>&1";

/// The report that the daemon keeps.
const RECORDED: &str = "/run/luks-agent/audit.json";
/// The directory of the SSM Agent of the node.
const SSM: &str = "/var/lib/amazon/ssm/i-1234567890abcdef0";

/// Where the volumes of a new node are mounted.
const MOUNTS: [&str; 4] = ["/mnt", "/mnt1", "/mnt2", "/mnt3"];

#[test]
#[ignore = "machine tier: needs QEMU, run make test-machine"]
fn a_node_that_nobody_types_commands_on() {
    let aws = ec2::aws();
    let mut vm = node("service", &aws);
    vm.boot();
    install(&mut vm, &aws);
    units_are_sound(&mut vm);

    eprintln!("-- first boot, with a configuration that cloud-init writes, by the name that its unit has since 24.3");
    written_by_cloud_init(&mut vm, &aws);
    aws.clear_requests();
    vm.reboot();
    ready(&mut vm, &MOUNTS);
    assert_eq!(aws.count("GenerateDataKey"), 1);
    let waited = "journalctl -b -q -u luks-agent.service -g 'waiting for a valid configuration' || true";
    assert_eq!(vm.ok(waited), "", "the daemon was earlier than the configuration");
    vm.ok("echo kept >/mnt2/kept; sync -f /mnt2");
    status_says(&mut vm, "the key can be used, 4 sound");
    the_doctor_asks_systemd(&mut vm);

    eprintln!("-- reboot");
    aws.clear_requests();
    vm.reboot();
    ready(&mut vm, &MOUNTS);
    assert_eq!(aws.count("GenerateDataKey"), 0);
    assert_eq!(vm.ok("cat /mnt2/kept"), "kept");
    the_shutdown_was_clean(&mut vm);

    the_node_is_audited(&mut vm);
    a_volume_comes_and_goes(&mut vm);
    the_audit_is_of_the_node_as_it_is(&mut vm);
    a_burst_is_one_run(&mut vm);
    a_volume_grows(&mut vm);
    what_is_closed_stays_closed(&mut vm);
    the_daemon_is_not_what_keeps_volumes_open(&mut vm);
    the_program_is_replaced_while_it_works(&mut vm, &aws);
    metrics_are_there_for_who_wants_them(&mut vm);
    a_key_that_would_fail_is_noticed(&mut vm, &aws);
    vm.power_off();
}

#[test]
#[ignore = "machine tier: needs QEMU, run make test-machine"]
fn the_key_service_is_away() {
    let aws = ec2::aws();
    let mut vm = node("outage", &aws);
    vm.boot();
    install(&mut vm, &aws);
    vm.ok("luks-agent provision");
    what_fails_for_a_moment_heals(&mut vm);

    eprintln!("-- reboot, KMS down for 60 s");
    kms_is_down(&aws);
    vm.reboot_until_commands_run();
    let down = Instant::now();
    wait(&mut vm, "the rest of the boot", "systemctl is-active multi-user.target luks-agent.service");
    one_can_log_in(&mut vm);
    assert_eq!(vm.run("systemctl is-active luks-agent-boot.service").stdout, "activating\n");
    nothing_was_written_to_the_boot_volume(&mut vm);
    std::thread::sleep(Duration::from_secs(60).saturating_sub(down.elapsed()));
    aws.clear_faults();
    let back = Instant::now();
    wait(&mut vm, "the consumer", "systemctl is-active consumer.service");
    eprintln!("   volumes and consumer {:.0?} after KMS was back", back.elapsed());
    ready(&mut vm, &MOUNTS);

    eprintln!("-- reboot, KMS down past the deadline");
    vm.write_file(DROP_IN, "[kms]\ndeadline = \"20s\"\n");
    kms_is_down(&aws);
    vm.reboot();
    one_can_log_in(&mut vm);
    wait(&mut vm, "the boot to fail", "systemctl is-failed luks-agent-boot.service");
    let status = vm.run("systemctl status --no-pager luks-agent-boot.service").stdout;
    assert!(
        status.contains("KMS Decrypt") && status.contains("cannot reach http"),
        "no reason in the unit's status:\n{status}"
    );
    assert_eq!(vm.run("systemctl is-active luks-agent.target consumer.service").stdout, "inactive\ninactive\n");
    nothing_was_written_to_the_boot_volume(&mut vm);
    aws.clear_faults();
    let back = Instant::now();
    wait(&mut vm, "the consumer", "systemctl is-active consumer.service");
    eprintln!("   volumes and consumer {:.0?} after KMS was back, by the daemon", back.elapsed());
    ready(&mut vm, &MOUNTS);

    eprintln!("-- reboot without DNS, with NetworkManager, systemd-networkd and cloud-init");
    vm.write_file(DROP_IN, "[kms]\nendpoint_url = \"http://kms.test\"\nallow_http = true\n");
    others_are_on(&mut vm);
    vm.reboot_until_commands_run();
    wait(&mut vm, "the failed look-up", "journalctl -b -u luks-agent-boot.service | grep -q 'trying again.*kms.test'");
    one_can_log_in(&mut vm);
    vm.ok("echo 169.254.169.254 kms.test >>/etc/hosts");
    ready(&mut vm, &MOUNTS);
    wait(&mut vm, "cloud-init", "systemctl is-active cloud-final.service");
    vm.power_off();
}

/// A node with the service's files at hand.
fn node(name: &str, aws: &Server) -> Machine {
    let vm = ec2::node_with_agent(name, aws).disk(EBS_LATER, ec2::VOLUME).memory(2048);
    service::files().into_iter().fold(vm, Machine::tool)
}

/// The journal is kept, so that a boot can be asked how the one before it ended.
fn install(vm: &mut Machine, aws: &Server) {
    vm.write_file(CONFIG, ec2::config(aws));
    vm.write_file("/etc/systemd/system/consumer.service", CONSUMER);
    service::install(vm);
    vm.ok("mkdir -p /etc/luks-agent/config.d /var/log/journal
         systemctl --quiet enable consumer.service");
    let enabled = vm.run("systemctl is-enabled luks-agent.target luks-agent.service luks-agent-metrics.socket").stdout;
    assert_eq!(enabled, "enabled\nenabled\ndisabled\n");
}

/// The configuration comes in the boot, by a unit with the name that cloud-init's network stage has since 24.3.
fn written_by_cloud_init(vm: &mut Machine, aws: &Server) {
    vm.write_file("/root/written", ec2::config(aws));
    vm.write_file(
        "/etc/systemd/system/cloud-init-network.service",
        "[Unit]
Before=network-online.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'sleep 5; cp /root/written /etc/luks-agent/config.d/50-cloud-init.toml'
[Install]
WantedBy=multi-user.target
",
    );
    vm.ok(&format!(": >{CONFIG}; systemctl --quiet enable cloud-init-network.service"));
}

/// What a boot could not do, whatever kept it from that, is done as soon as it can be, and what waits for it starts.
fn what_fails_for_a_moment_heals(vm: &mut Machine) {
    vm.ok("systemctl start luks-agent.target luks-agent.service");
    wait(vm, "the consumer", "systemctl is-active consumer.service");
    wait(vm, "the daemon's first runs", "test -s /run/luks-agent/health.json");
    a_stop_waits_for_slow_unmounts(vm);

    eprintln!("-- a mount that fails for a moment: the daemon tries again");
    a_boot_fails_to_mount(vm);
    healed(vm);

    eprintln!("-- the same, and somebody types 'luks-agent unlock'");
    a_boot_fails_to_mount(vm);
    vm.ok("luks-agent unlock");
    healed(vm);

    a_configuration_comes_late(vm);
}

fn a_stop_waits_for_slow_unmounts(vm: &mut Machine) {
    eprintln!("-- a stop with slow unmounts");
    vm.write_file("/run/systemd/system/luks-agent-boot.service.d/test.conf", "[Service]\nTimeoutStopSec=5\n");
    vm.write_file("/usr/local/sbin/umount", "#!/bin/sh\nsleep 12\nexec /usr/bin/umount \"$@\"\n");
    vm.ok("chmod 755 /usr/local/sbin/umount; systemctl daemon-reload; systemctl stop luks-agent-boot.service");
    let result = vm.ok("systemctl show -P Result luks-agent-boot.service");
    vm.ok("rm -r /usr/local/sbin/umount /run/systemd/system/luks-agent-boot.service.d; systemctl daemon-reload");
    assert_eq!(result, "success");
    assert_eq!(vm.ok("ls /dev/mapper"), "control");
}

/// And so does whatever the daemon has begun meanwhile; then it is over.
fn a_boot_fails_to_mount(vm: &mut Machine) {
    vm.write_file("/usr/local/sbin/mount", "#!/bin/sh\necho 'busy for a moment' >&2\nexit 32\n");
    let start =
        "chmod 755 /usr/local/sbin/mount; systemctl stop luks-agent-boot.service; systemctl start luks-agent.target";
    assert_ne!(vm.run(start).status, 0);
    assert_eq!(vm.run("systemctl is-active consumer.service").stdout, "inactive\n");
    idle(vm);
    assert_eq!(vm.run("systemctl is-failed luks-agent-boot.service").stdout, "failed\n");
    vm.ok("rm /usr/local/sbin/mount");
}

fn a_configuration_comes_late(vm: &mut Machine) {
    eprintln!("-- a configuration that comes after the boot");
    vm.ok(&format!("systemctl stop luks-agent.service luks-agent-boot.service; mv {CONFIG} /root/later; : >{CONFIG}"));
    // which a reboot would have forgotten
    vm.ok("rm -f /run/luks-agent/closed.json");
    vm.run("systemctl start luks-agent.service");
    assert_ne!(vm.run("systemctl start luks-agent.target").status, 0);
    assert_eq!(vm.ok("systemctl show -P ExecMainStatus luks-agent-boot.service"), "2");
    status_says(vm, "waiting for a valid configuration: .*kms.key_id is missing");
    vm.ok(&format!("mv /root/later {CONFIG}"));
    healed(vm);
}

/// What waits for the volumes has started, and has them.
fn healed(vm: &mut Machine) {
    wait(vm, "the consumer", "systemctl is-active consumer.service");
    assert!(vm.ok("findmnt -no SOURCE /mnt3").starts_with("/dev/mapper/luks-"));
}

/// systemd has nothing to say of them, and what it calls their exposure is printed. What stays open in those that mount is in
/// their comments.
fn units_are_sound(vm: &mut Machine) {
    assert_eq!(vm.ok(VERIFY), "");
    for (unit, most) in [
        ("luks-agent.service", 2.0),
        ("luks-agent-boot.service", 5.0),
        ("luks-agent-provision.service", 5.0),
        ("luks-agent-health.service", 3.0),
        ("luks-agent-audit.service", 3.4),
        ("luks-agent-key@1.service", 2.5),
    ] {
        let said = vm.ok(&format!("systemd-analyze security --no-pager {unit} | tail -n 1"));
        eprintln!("{said}");
        let exposure: f64 = said.split_whitespace().find_map(|word| word.parse().ok()).unwrap();
        assert!(exposure <= most, "{}", vm.ok(&format!("systemd-analyze security --no-pager {unit}")));
    }
    units_that_upload_reports_are_sound(vm);
    one_drop_in_sets_variables_for_all_that_reach_the_network(vm);
}

/// The drop-in of docs/service.md.
fn one_drop_in_sets_variables_for_all_that_reach_the_network(vm: &mut Machine) {
    let page = fs::read_to_string(support::project_dir().join("docs/service.md")).unwrap();
    let (_, drop_in) = page.split_once("```ini\n# /etc/systemd/system/luks-agent-").unwrap();
    let (name, lines) = drop_in.split_once("```").unwrap().0.split_once('\n').unwrap();
    let path = format!("/etc/systemd/system/luks-agent-{name}");
    vm.write_file(&path, lines);
    vm.ok("systemctl daemon-reload");
    let mut environment = |unit: &str| vm.ok(&format!("systemctl show -P Environment {unit}"));
    for unit in ["boot", "provision", "health", "audit"] {
        let found = environment(&format!("luks-agent-{unit}.service"));
        assert_eq!(found, "HTTPS_PROXY=http://proxy.example:3128 NO_PROXY=.vpce.example", "{unit}");
    }
    assert_eq!(environment("luks-agent.service"), "", "the daemon needs none");
    vm.ok(&format!("rm {path}; systemctl daemon-reload"));
}

/// Those in `packaging/s3`, installed as docs/fleet.md says, and away again.
fn units_that_upload_reports_are_sound(vm: &mut Machine) {
    let files = [
        ("sh", "/usr/local/sbin/luks-agent-report"),
        ("service", "/etc/systemd/system/luks-agent-report.service"),
        ("timer", "/etc/systemd/system/luks-agent-report.timer"),
    ];
    for (extension, path) in files {
        let source = support::project_dir().join("packaging/s3/luks-agent-report").with_extension(extension);
        vm.write_file(path, fs::read(source).unwrap());
    }
    vm.ok("chmod 755 /usr/local/sbin/luks-agent-report");
    let verify = "cd /etc/systemd/system && systemd-analyze verify --man=no luks-agent-report.{service,timer} 2>&1";
    assert_eq!(vm.ok(verify), "");
    vm.ok("rm /usr/local/sbin/luks-agent-report /etc/systemd/system/luks-agent-report.*");
}

/// Everything is open and mounted, what waited for it has started, and nothing failed or went round in circles.
fn ready(vm: &mut Machine, mounts: &[&str]) {
    wait(vm, "the consumer", "systemctl is-active consumer.service");
    for at in mounts {
        assert!(vm.ok(&format!("findmnt -no SOURCE {at}")).starts_with("/dev/mapper/luks-"));
    }
    assert!(vm.ok("cat /mnt/started").starts_with("/dev/mapper/luks-"), "the consumer was too early");
    wait(vm, "the daemon's first runs", "test -s /run/luks-agent/health.json");
    wait(vm, "the system", "systemctl is-system-running");
    assert_eq!(vm.ok("systemctl list-units --no-legend --plain --failed"), "");
    assert_eq!(vm.ok("stat -c %a /run/luks-agent /run/luks-agent/health.json"), "700\n600");
    assert_eq!(vm.ok("journalctl -b -q -t systemd -g 'ordering cycle' || true"), "");
}

/// Of the boot before: the consumer still had the volumes when it stopped, they were closed after that, and no file system had to
/// be recovered in this one.
fn the_shutdown_was_clean(vm: &mut Machine) {
    assert!(vm.ok("cat /mnt/stopped").starts_with("/dev/mapper/luks-"), "the volumes were gone before the consumer");
    let closed = vm.ok("journalctl -b -1 -o cat -u luks-agent-boot.service | tail -n 20");
    assert!(closed.contains("close: 4 of 4 closed") && closed.contains("Deactivated successfully"), "{closed}");
    assert_eq!(vm.ok("journalctl -b -1 -q -t systemd -g 'Failed unmounting|Failed to unmount' || true"), "");
    let recovered = "dmesg | grep -E 'XFS.*([Rr]ecovery|[Cc]orrupt)|EXT4-fs.*recover' | grep -v vda || true";
    assert_eq!(vm.ok(recovered), "", "file systems were not unmounted cleanly");
}

/// By its unit, whose sandbox must neither keep it from a disk nor be seen in the report.
fn the_node_is_audited(vm: &mut Machine) {
    eprintln!("-- the daemon has the node audited");
    assert_eq!(vm.run(&format!("test -e {RECORDED}")).status, 1, "without audit.interval");
    vm.ok(&format!("mkdir -p {SSM}"));
    vm.write_file(DROP_IN, "[audit]\ninterval = \"24h\"\nssm_inventory = true\n");
    vm.ok("systemctl reload luks-agent.service");
    wait(vm, "the report", &format!("test -s {RECORDED}"));
    idle(vm);
    assert_eq!(vm.ok(&format!("stat -c %a {RECORDED}")), "600");
    let row = vm.ok(&format!("luks-agent audit convert --format inventory {RECORDED}"));
    assert!(row.contains("\"DisksEncrypted\": \"4\"") && row.contains("\"Verdict\": \"encrypted\""), "{row}");
    assert_eq!(vm.ok(&format!("cat {SSM}/inventory/custom/luks-agent.json")), row);
    vm.ok("luks-agent audit --output /run/typed.json");
    let [recorded, typed] = [RECORDED, "/run/typed.json"].map(|file| {
        let report: Value = serde_json::from_str(&vm.ok(&format!("cat {file}"))).unwrap();
        let disks = report["disks"].as_array().unwrap().iter();
        disks.map(|disk| [&disk["device"], &disk["verdict"], &disk["mounts"]].map(Value::clone)).collect::<Vec<_>>()
    });
    assert_eq!(recorded, typed);
}

/// After a volume came, went and came back.
fn the_audit_is_of_the_node_as_it_is(vm: &mut Machine) {
    eprintln!("-- the report is of five volumes");
    let five = format!("luks-agent audit convert --format inventory {RECORDED} | grep '\"DisksEncrypted\": \"5\"'");
    wait(vm, "the report of the node as it is", &five);
    idle(vm);
    assert_eq!(vm.ok("systemctl list-units --no-legend --plain --failed"), "");
    vm.ok(&format!("rm -r {DROP_IN} {SSM}; systemctl reload luks-agent.service"));
}

fn a_volume_comes_and_goes(vm: &mut Machine) {
    eprintln!("-- a volume is attached");
    vm.start("udevadm monitor --udev --subsystem-match=block/disk >/run/udev-events");
    wait(vm, "udevadm", "test -s /run/udev-events");
    vm.ok(&format!("ec2-nvme.sh attach {EBS_LATER}"));
    mounted(vm, "/mnt4");
    eprintln!("   provision was started {:.2} s after udev's event", event_to_start(vm));
    vm.ok("echo later >/mnt4/file; sync -f /mnt4");

    eprintln!("-- it is pulled, and attached again");
    vm.ok(&format!("ec2-nvme.sh detach {EBS_LATER}"));
    wait(vm, "its mapping to go", "! findmnt -n /mnt4 && [ $(ls /dev/mapper/luks-* | wc -l) = 4 ]");
    wait(
        vm,
        "the report",
        "journalctl -b -u luks-agent-provision.service | grep -q 'closed luks-.*, whose disk is gone'",
    );
    let missing = vm.ok("luks-agent status");
    assert!(missing.contains(&format!("{EBS_LATER}  missing")), "{missing}");
    vm.ok(&format!("ec2-nvme.sh attach {EBS_LATER}"));
    mounted(vm, "/mnt4");
    assert_eq!(vm.ok("cat /mnt4/file"), "later");

    eprintln!("-- it is pulled while a process has a file on it open, attached again, and the process ends");
    vm.start("exec sleep 600 </mnt4/file");
    wait(vm, "the process", "pgrep -x sleep");
    let old = vm.ok("basename $(readlink -f $(findmnt -no SOURCE /mnt4))");
    vm.ok(&format!("ec2-nvme.sh detach {EBS_LATER}"));
    let runs = "journalctl -b -u luks-agent-provision.service | grep -q 'cannot close luks-.*, whose disk is gone'";
    wait(vm, "the report", runs);
    eprintln!("   what is left of it: {}", vm.ok(&format!("ls -l /sys/block/{old}/slaves")));
    vm.ok(&format!("ec2-nvme.sh attach {EBS_LATER}"));
    idle(vm);
    assert!(vm.ok("luks-agent status").contains(&format!("{EBS_LATER}  locked")));
    vm.ok("pkill -x sleep");
    wait(
        vm,
        "the volume on its new disk",
        &format!("test -b $(findmnt -no SOURCE /mnt4) && luks-agent status | grep -q '{EBS_LATER} *open'"),
    );
    assert_eq!(vm.ok("cat /mnt4/file"), "later");
}

/// Seconds from the last disk that udev told of to the start of the unit.
fn event_to_start(vm: &mut Machine) -> f64 {
    // UDEV  [123.456789] add      /devices/... (block)
    let event =
        vm.ok("pkill udevadm; sed -n 's/^UDEV *\\[\\([0-9.]*\\)\\] add .*nvme.*/\\1/p' /run/udev-events | tail -n 1");
    let start = "journalctl --sync; journalctl -b -o short-monotonic -u luks-agent-provision.service | grep 'Starting ' | tail -n 1";
    let start = vm.ok(start).trim_start_matches('[').split(']').next().unwrap().trim().to_owned();
    start.parse::<f64>().unwrap() - event.parse::<f64>().unwrap()
}

/// 24 of 40 MiB, too small for XFS.
fn a_burst_is_one_run(vm: &mut Machine) {
    eprintln!("-- 24 volumes at once");
    vm.write_file(DROP_IN, "[filesystem]\ntype = \"ext4\"\n");
    // it is stopped below for as long as udev works, which on a slow machine is longer than its watchdog waits
    vm.write_file("/run/systemd/system/luks-agent.service.d/patient.conf", "[Service]\nWatchdogSec=600\n");
    vm.ok("systemctl daemon-reload; systemctl restart luks-agent.service");
    idle(vm);
    let runs = "journalctl --sync; journalctl -b -u luks-agent-provision.service | grep -c 'Starting '";
    let before: u32 = vm.ok(runs).parse().unwrap();
    // under software emulation, what is a moment on a node takes longer than the minute from one look of the daemon to the next: it is
    // stopped meanwhile, and hears of all of it at once
    vm.ok("systemctl kill --signal=STOP luks-agent.service; ec2-nvme.sh attach-burst 24 /var/tmp/burst 40M");
    let began = Instant::now();
    vm.ok("udevadm control --start-exec-queue
         udevadm settle --timeout=500
         systemctl kill --signal=CONT luks-agent.service");
    wait(vm, "24 volumes", "[ $(findmnt -rn -t ext4 -o SOURCE | grep -c luks-) = 24 ]");
    idle(vm);
    let runs = vm.ok(runs).parse::<u32>().unwrap() - before;
    eprintln!("   mounted {:.0?} after they began to come, {runs} runs", began.elapsed());
    let journal = "journalctl --sync; journalctl -b -u luks-agent-provision.service -n 400 -o cat";
    let said = vm.ok(journal);
    assert!(said.contains("24 formatted") && runs == 1, "{runs} runs: {said}");
    vm.ok(&format!("rm {DROP_IN}"));
}

fn a_volume_grows(vm: &mut Machine) {
    eprintln!("-- a volume grows");
    vm.ok(&format!("truncate -s {} /var/tmp/grown; ec2-nvme.sh attach vol0fedcba9876543210 /var/tmp/grown", 320 * MIB));
    mounted(vm, "/mnt29");
    let size = |vm: &mut Machine| vm.ok("findmnt -bno SIZE /mnt29").trim().parse::<u64>().unwrap();
    let before = size(vm);
    vm.ok("echo grows >/mnt29/file");
    vm.ok(&format!("ec2-nvme.sh grow vol0fedcba9876543210 {}", 480 * MIB));
    idle(vm);
    assert_eq!(size(vm), before, "grown without being asked to");
    let grown = vm.ok("luks-agent grow");
    assert!(grown.contains("1 grown"), "{grown}");
    assert!(size(vm) > before + 150 * MIB);

    vm.write_file(DROP_IN, "[volumes]\ngrow = true\n");
    vm.ok(&format!("ec2-nvme.sh grow vol0fedcba9876543210 {}", 640 * MIB));
    wait(vm, "the daemon to grow it", &format!("[ $(findmnt -bno SIZE /mnt29) -gt {} ]", before + 300 * MIB));
    assert_eq!(vm.ok("cat /mnt29/file"), "grows");
    vm.ok(&format!("rm {DROP_IN}"));
}

fn what_is_closed_stays_closed(vm: &mut Machine) {
    eprintln!("-- a volume is closed, to be detached");
    idle(vm);
    vm.ok(&format!("luks-agent close {EBS_LATER}; udevadm settle; sleep 3"));
    idle(vm);
    let status = vm.ok("luks-agent status");
    assert!(status.contains(&format!("{EBS_LATER}  locked")), "{status}");

    eprintln!("-- and another one; the first is detached, which is no reason to open the other");
    let other = "vol0fedcba9876543210";
    vm.ok(&format!("luks-agent close {other}; ec2-nvme.sh detach {EBS_LATER}"));
    idle(vm);
    let status = vm.ok("luks-agent status");
    assert!(status.contains(&format!("{EBS_LATER}  missing")), "{status}");
    assert!(status.contains(&format!("{other}  locked")), "{status}");
    vm.ok(&format!("ec2-nvme.sh attach {EBS_LATER}"));
    mounted(vm, "/mnt4");
    idle(vm);
    let status = vm.ok("luks-agent status");
    assert!(status.contains(&format!("{other}  locked")), "{status}");
    vm.ok("luks-agent unlock");
    mounted(vm, "/mnt29");
}

fn the_daemon_is_not_what_keeps_volumes_open(vm: &mut Machine) {
    eprintln!("-- the daemon is killed, restarted, reloaded");
    idle(vm);
    let volumes = "findmnt -rn; dmsetup table";
    let before = vm.ok(volumes);
    let pid = "systemctl show -P MainPID luks-agent.service";
    let another = |vm: &mut Machine, old: &str| {
        wait(vm, "another daemon", &format!("systemctl is-active luks-agent.service && [ $({pid}) != {old} ]"));
    };
    let old = vm.ok(pid);
    vm.ok("systemctl kill --signal=KILL luks-agent.service");
    another(vm, &old);
    let old = vm.ok(pid);
    let took =
        vm.ok("time=$(date +%s%N); systemctl restart luks-agent.service; echo $((($(date +%s%N) - time) / 1000000))");
    eprintln!("   restarting it takes {took} ms");
    another(vm, &old);
    vm.ok("systemctl reload luks-agent.service");
    vm.write_file(DROP_IN, "[helth]\n");
    vm.ok("systemctl reload luks-agent.service");
    wait(
        vm,
        "the mistake to be told",
        "journalctl -b -u luks-agent.service | grep -q 'cannot reload the configuration.*test.toml:1'",
    );
    vm.ok(&format!("rm {DROP_IN}; systemctl is-active luks-agent.service"));

    eprintln!("-- it hangs, and the watchdog notices");
    vm.write_file(
        "/run/systemd/system/luks-agent.service.d/test.conf",
        "[Service]\nWatchdogSec=4\nTimeoutAbortSec=2\n",
    );
    vm.ok("systemctl daemon-reload; systemctl restart luks-agent.service");
    let old = vm.ok(pid);
    vm.ok("systemctl kill --signal=STOP luks-agent.service");
    another(vm, &old);
    wait(vm, "the reason", "journalctl -b -u luks-agent.service | grep -q 'Watchdog timeout'");
    vm.ok(
        "rm -r /run/systemd/system/luks-agent.service.d; systemctl daemon-reload; systemctl restart luks-agent.service",
    );
    idle(vm);
    assert_eq!(vm.ok(volumes), before);
}

/// As a package's upgrade does it, while a volume is being formatted.
fn the_program_is_replaced_while_it_works(vm: &mut Machine, aws: &Server) {
    eprintln!("-- the program is replaced while a volume is formatted");
    aws.push_fault(Fault::delay("Decrypt", 5000));
    let before = vm.ok("findmnt -rn; dmsetup table");
    vm.ok("truncate -s 320M /var/tmp/upgrade; ec2-nvme.sh attach vol0a9876543210fedcb /var/tmp/upgrade");
    wait(vm, "provision", "systemctl is-active luks-agent-provision.service | grep activating");
    vm.ok("cp /usr/sbin/luks-agent /usr/sbin/luks-agent.new
         mv /usr/sbin/luks-agent.new /usr/sbin/luks-agent
         systemctl daemon-reload
         systemctl try-restart luks-agent.service
         systemctl is-active luks-agent.service");
    mounted(vm, "/mnt30");
    aws.clear_faults();
    let after = vm.ok("findmnt -rn; dmsetup table");
    for line in before.lines() {
        assert!(after.contains(line), "gone after the upgrade: {line}");
    }
}

fn metrics_are_there_for_who_wants_them(vm: &mut Machine) {
    eprintln!("-- metrics");
    idle(vm);
    vm.ok("systemctl enable luks-agent-metrics.socket
         systemctl stop luks-agent.service
         systemctl start luks-agent-metrics.socket luks-agent.service
         mkdir -p /var/lib/prometheus/node-exporter");
    vm.write_file(DROP_IN, "[metrics]\ntextfile = \"/var/lib/prometheus/node-exporter/luks-agent.prom\"\n");
    // the directory is new, and part of the daemon's file system since its start
    vm.ok("systemctl restart luks-agent.service");
    wait(vm, "the file", "grep -q '^luks_agent_healthy 1' /var/lib/prometheus/node-exporter/luks-agent.prom");
    assert_eq!(vm.ok("stat -c %a /var/lib/prometheus/node-exporter/luks-agent.prom"), "644");
    let file = vm.ok("cat /var/lib/prometheus/node-exporter/luks-agent.prom");
    let served = vm.ok("exec 3<>/dev/tcp/127.0.0.1/9742
         printf 'GET /metrics HTTP/1.1\\r\\nHost: node\\r\\nConnection: close\\r\\n\\r\\n' >&3
         cat <&3");
    let (head, served) = served.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    for page in [served, &file] {
        assert!(page.contains("luks_agent_volumes{role=\"ebs\",state=\"open\"} 29\n"), "{page}");
        assert!(page.contains("luks_agent_last_unlock_phase_seconds{phase=\"luks\"}"), "{page}");
        promtool(&format!("{}\n", page.trim_end()));
    }
    vm.ok(&format!(
        "rm {DROP_IN}; systemctl disable luks-agent-metrics.socket; systemctl stop luks-agent-metrics.socket
         systemctl restart luks-agent.service"
    ));
}

/// Prometheus' own opinion.
fn promtool(page: &str) {
    let mut promtool = Command::new(support::promtool())
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let said = promtool.wait_with_output().unwrap();
    let text = [said.stdout, said.stderr].concat();
    assert!(said.status.success() && text.is_empty(), "{}", String::from_utf8_lossy(&text));
}

fn a_key_that_would_fail_is_noticed(vm: &mut Machine, aws: &Server) {
    eprintln!("-- the key is disabled, then to be deleted");
    vm.write_file(DROP_IN, "[health]\ninterval = \"3s\"\n");
    vm.ok("systemctl reload luks-agent.service");
    let would_not = "this node would not survive a reboot, because";
    aws.set_key_state("alias/luks-agent", KeyState::Disabled).unwrap();
    status_says(vm, &format!("{would_not} .* is disabled"));
    aws.set_key_state("alias/luks-agent", KeyState::PendingDeletion).unwrap();
    status_says(vm, &format!("{would_not} .* is scheduled for deletion on .* cancel-key-deletion"));
    let status = vm.run("luks-agent status").stdout;
    assert!(status.contains("would not survive a reboot"), "{status}");
    let entry = "journalctl -b -o json MESSAGE_ID=5eca565bae244f68843ae4b6ca1166bb ERROR_CLASS=key-service | grep -c arn:aws:kms";
    assert!(vm.ok(entry).parse::<u32>().unwrap() > 1);
    aws.set_key_state("alias/luks-agent", KeyState::Enabled).unwrap();
    status_says(vm, "the key can be used");
    vm.ok(&format!("rm {DROP_IN}; systemctl reload luks-agent.service"));
}

/// The units that it asks systemd about: those of the agent, one that waits for the volumes, and one that does not.
fn the_doctor_asks_systemd(vm: &mut Machine) {
    let enabled = "luks-agent.target is enabled, luks-agent.service is enabled";
    let all = "every service that names a path below /mnt, /mnt1, /mnt2, /mnt3 waits";
    doctor_says(vm, &[enabled, all, "4 volumes", ", 0 failed"]);
    let hasty = "/etc/systemd/system/hasty.service";
    vm.write_file(hasty, "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/ls --all /mnt2\n");
    vm.ok("systemctl daemon-reload && systemctl start hasty.service");
    doctor_says(vm, &["not ordered after luks-agent.target, but naming paths of its volumes: hasty.service (/mnt2)"]);
    vm.ok(&format!("systemctl stop hasty.service && rm {hasty} && systemctl daemon-reload"));
}

/// Asks the doctor until it says all of this: in a starved machine, neither IMDS nor systemctl always answers within the seconds that they
/// have.
fn doctor_says(vm: &mut Machine, parts: &[&str]) {
    let greps: Vec<String> = parts.iter().map(|part| format!("grep -qF '{part}' /run/doctor")).collect();
    wait(vm, "the doctor's answers", &format!("luks-agent doctor >/run/doctor && {}", greps.join(" && ")));
}

/// What `systemctl status` says of the daemon.
fn status_says(vm: &mut Machine, expected: &str) {
    wait(vm, "the status line", &format!("systemctl status luks-agent.service | grep -q 'Status:.*{expected}'"));
}

fn kms_is_down(aws: &Server) {
    for operation in ["DescribeKey", "GenerateDataKey", "Decrypt"] {
        aws.push_fault(Fault { effect: Effect::Reset, ..Fault::delay(operation, 0) });
    }
}

/// By the console, or over ssh if there were a network.
fn one_can_log_in(vm: &mut Machine) {
    wait(vm, "a login prompt", "systemctl is-active serial-getty@ttyS0.service && ! test -e /run/nologin");
    assert_eq!(vm.ok("su -l nobody -s /bin/sh -c 'id -un'"), "nobody");
}

fn nothing_was_written_to_the_boot_volume(vm: &mut Machine) {
    assert_eq!(vm.run("ls -A /mnt /mnt1 /mnt2 /mnt3 | grep -v ':$' | grep .").stdout, "");
}

/// Whatever else brings up a network, or waits for it. A circle among any of them would be one among all.
fn others_are_on(vm: &mut Machine) {
    vm.write_file("/etc/NetworkManager/conf.d/test.conf", "[keyfile]\nunmanaged-devices=*\n");
    vm.write_file(
        "/etc/systemd/network/eth0.network",
        "[Match]\nName=eth0\n[Network]\nAddress=169.254.169.10/24\nLinkLocalAddressing=no\n",
    );
    // its units are what matters here; modules of a minimal system fail
    let cloud = "datasource_list: [NoCloud]\nnetwork: {config: disabled}\ncloud_init_modules: []\ncloud_config_modules: []\n\
                 cloud_final_modules: []\n";
    vm.write_file("/etc/cloud/cloud.cfg.d/99-test.cfg", cloud);
    vm.write_file("/var/lib/cloud/seed/nocloud/meta-data", "instance-id: test\n");
    vm.write_file("/var/lib/cloud/seed/nocloud/user-data", "#cloud-config\n");
    vm.cloud_init_is_on();
    vm.ok(
        // networkd is to have the interface to itself: two that give it the address at the same time fail now and then
        "systemctl --quiet disable machine-network.service
         systemctl --quiet enable NetworkManager.service NetworkManager-wait-online.service systemd-networkd.service \
             systemd-networkd-wait-online.service",
    );
    assert_eq!(vm.ok(VERIFY), "");
}

fn mounted(vm: &mut Machine, at: &str) {
    wait(vm, at, &format!("findmnt -n {at}"));
}
