//! The machine tier with the agent: the main job on a Debian with systemd, udev and NVMe controllers with EC2's names.
//!
//! A boot under software emulation takes a good part of a minute, so one machine is asked many things.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod support;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use fake_aws::{Fault, Request, Server};
use luks_agent::audit::{AuditReport, Disk, Standing, asff, inventory, ocsf};
use serde_json::{Value, json};
use support::ec2::{self, EBS_1, EBS_2, EBS_LATER, STORE_1, STORE_2};
use support::findings::{check_asff, check_inventory, check_ocsf, check_schema};
use support::qemu::{Machine, Output};

const CONFIG: &str = "/etc/luks-agent/config.toml";
const STATE: &str = "/etc/luks-agent/state/state.json";

/// Which volume is mounted where: serials sorted, whatever the controllers are called.
const MOUNTS: [(&str, &str); 4] = [(STORE_1, "/mnt"), (STORE_2, "/mnt1"), (EBS_1, "/mnt2"), (EBS_2, "/mnt3")];
const MOUNT_LATER: (&str, &str) = (EBS_LATER, "/mnt4");

const MARKER: &str = "plaintext-that-must-not-be-on-a-raw-disk";

#[test]
#[ignore = "machine tier: needs QEMU, run make test-machine"]
fn the_main_job() {
    let aws = ec2::aws();
    let mut vm = ec2::node_with_agent("agent", &aws).disk(EBS_LATER, ec2::VOLUME);
    vm.boot();
    vm.write_file(CONFIG, ec2::config(&aws));
    let outside = vm.boot_disk_outside_fs();
    let names = kernel_names(&mut vm);
    assert_eq!(names[STORE_1], "nvme0n1");

    plan_writes_nothing(&mut vm, &aws);
    first_provision(&mut vm, &aws);
    let volumes = volumes(&mut vm);
    udev_and_systemd_agree(&mut vm, &volumes);
    write_files(&mut vm, &MOUNTS);
    nothing_changes(&mut vm, &aws, "provision");
    the_boot_volume_is_never_a_target(&mut vm);

    // clean reboot, other order
    vm.attach_order(&[EBS_2, EBS_1, STORE_2, STORE_1]);
    let took = vm.reboot();
    eprintln!("reboot with open volumes: {took:.1?}");
    let renamed = kernel_names(&mut vm);
    for (serial, _) in MOUNTS {
        assert_ne!(renamed[serial], names[serial], "the kernel's name of {serial} did not change");
    }
    status_is(&mut vm, "locked", &MOUNTS);
    aws.clear_requests();
    let unlocked = agent(&mut vm, "unlock");
    assert_rows(&unlocked, "unlocked", &MOUNTS);
    assert!(unlocked.stdout.ends_with("unlock: 4 unlocked\n"), "{}", unlocked.stdout);
    assert_kms_calls(&aws, &[("Decrypt", 1)]);
    check_files(&mut vm, &MOUNTS);
    assert_eq!(volumes, self::volumes(&mut vm), "other volumes or mount points than before the reboot");
    assert_eq!(recoveries(&mut vm), "", "file systems were not unmounted cleanly");
    udev_and_systemd_agree(&mut vm, &volumes);
    nothing_changes(&mut vm, &aws, "unlock");
    nothing_changes(&mut vm, &aws, "provision");
    assert_eq!(vm.boot_disk_outside_fs(), outside);

    // a volume that comes later
    vm.ok(&format!("ec2-nvme.sh attach {EBS_LATER}"));
    no_disk_is_taken_that_no_rule_names(&mut vm);
    aws.clear_requests();
    let provisioned = agent(&mut vm, "provision");
    assert_rows(&provisioned, "formatted", &[MOUNT_LATER]);
    assert_rows(&provisioned, "unchanged", &MOUNTS);
    assert_kms_calls(&aws, &[("DescribeKey", 0), ("Decrypt", 1)]);
    let all = [MOUNTS.as_slice(), &[MOUNT_LATER]].concat();
    write_files(&mut vm, &[MOUNT_LATER]);
    check_files(&mut vm, &all);
    let volumes = self::volumes(&mut vm);

    // power cut, then a boot at which the key service is slow
    vm.write_file("/mnt3/flushed", "flushed before the power cut");
    vm.ok("sync");
    vm.power_cut();
    vm.attach_order(&[EBS_LATER, STORE_2, EBS_2, STORE_1, EBS_1]);
    vm.boot();
    aws.clear_requests();
    aws.push_fault(Fault::delay("imds:*", 300));
    aws.push_fault(Fault::error("Decrypt", "ThrottlingException").times(2));
    unlock_as_a_unit(&mut vm, &all);
    aws.clear_faults();
    assert_kms_calls(&aws, &[("Decrypt", 3)]);
    check_files(&mut vm, &all);
    assert_eq!(vm.read_file("/mnt3/flushed"), "flushed before the power cut");
    assert_eq!(self::volumes(&mut vm), volumes);
    udev_and_systemd_agree(&mut vm, &volumes);
    an_audit_tells_a_stranger_from_the_volumes(&mut vm, &all);
    close_closes_all(&mut vm, &all);
    an_audit_finds_what_is_mounted_around_a_mapping(&mut vm);

    assert_eq!(vm.boot_disk_outside_fs(), outside);
    vm.power_off();
    for (serial, at) in all {
        assert!(vm.disk_holds(serial, b"LUKS\xba\xbe"), "no LUKS header on {serial}");
        assert!(!vm.disk_holds(serial, MARKER.as_bytes()), "plaintext of {at} on the raw disk {serial}");
    }
}

/// A real kernel in FIPS mode: it has AES and takes the key with which the agent tries it, and has neither Serpent nor Twofish.
#[test]
#[ignore = "machine tier: needs QEMU, run make test-machine"]
fn a_kernel_in_fips_mode_takes_what_the_agent_takes_in_it() {
    let aws = ec2::aws();
    let mut vm = ec2::node_with_agent("fips", &aws).kernel_arg("fips=1");
    vm.boot();
    assert_eq!(vm.read_file("/proc/sys/crypto/fips_enabled").trim(), "1");
    // which the kernel would load outside this mode
    vm.ok("modinfo -n serpent_generic twofish_generic");
    vm.ok("modprobe dm-crypt && dmsetup create none --table '0 8 error'");
    let key = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    for (cipher, is_there) in [("aes", true), ("serpent", false), ("twofish", false)] {
        let table = format!("0 8 crypt {cipher}-xts-plain64 {key} 0 /dev/mapper/none 0");
        let made = vm.run(&format!("dmsetup create tried --table '{table}' && dmsetup remove tried"));
        assert_eq!(made.status == 0, is_there, "{cipher}: {}", made.stderr);
        let config = format!("{}[luks]\ncipher = \"{cipher}-xts-plain64\"\n", ec2::config(&aws));
        vm.write_file(CONFIG, config);
        let planned = vm.run("luks-agent plan");
        assert_eq!(planned.status, if is_there { 0 } else { 3 }, "{cipher}: {}", planned.stderr);
        assert_eq!(planned.stdout.contains("FIPS does not approve the cipher"), !is_there, "{}", planned.stdout);
    }
    vm.ok("dmsetup remove none");
    vm.write_file(CONFIG, ec2::config(&aws));
    // in a starved machine, IMDS and KMS do not always answer within the seconds that the doctor gives them
    let doctor = vm.ok("for _ in 1 2 3 4 5; do luks-agent doctor && exit; sleep 5; done; exit 1");
    assert!(doctor.contains("the kernel is in FIPS mode, but KMS is not called"), "{doctor}");
    assert_rows(&agent(&mut vm, "provision"), "formatted", &MOUNTS);
    write_files(&mut vm, &MOUNTS);
    agent(&mut vm, "close");
    assert_rows(&agent(&mut vm, "unlock"), "unlocked", &MOUNTS);
    check_files(&mut vm, &MOUNTS);
    vm.power_off();
}

/// Where others attach and format disks, as the EBS driver of Kubernetes does. The node's own volumes stay known.
fn no_disk_is_taken_that_no_rule_names(vm: &mut Machine) {
    let rule = "/etc/luks-agent/config.d/rule.toml";
    vm.ok("mkdir -p /etc/luks-agent/config.d");
    vm.write_file(rule, "[volumes]\nrequire_rule = true\n");
    let provisioned = agent(vm, "provision").stdout;
    assert!(provisioned.contains("no [[volumes.match]] rule names it"), "{provisioned}");
    assert!(provisioned.ends_with("4 unchanged\n"), "{provisioned}");
    // nor would the next boot open those that are there
    let health = vm.run("luks-agent health");
    assert!(health.status == 1 && health.stdout.contains("the next boot leaves its disk alone"), "{}", health.stdout);
    vm.ok(&format!("rm {rule}"));
}

/// `audit`, which must end so. The report is as its schema says, and so are the findings made of it.
fn audit(vm: &mut Machine, status: i64) -> AuditReport {
    let output = vm.run("luks-agent audit --json");
    assert_eq!(output.status, status, "{}{}", output.stdout, output.stderr);
    check_schema(&serde_json::from_str(&output.stdout).unwrap());
    let report = AuditReport::read(output.stdout.as_bytes()).unwrap();
    assert_eq!(report.node.instance_id.as_deref(), Some("i-1234567890abcdef0"), "{}", output.stderr);
    for batch in asff([&report].into_iter()).unwrap() {
        batch.findings.iter().for_each(check_asff);
    }
    check_ocsf(&ocsf(&report));
    check_inventory(&inventory(&report));
    report
}

fn disk<'r>(report: &'r AuditReport, serial: &str) -> &'r Disk {
    report.disks.iter().find(|disk| disk.serial.as_deref() == Some(serial)).unwrap()
}

/// All volumes are open. A disk of somebody else comes, and one that a rule ignores.
fn an_audit_tells_a_stranger_from_the_volumes(vm: &mut Machine, volumes: &[(&str, &str)]) {
    let (stranger, ignored) = ("vol0000000000000000a", "vol0000000000000000b");
    for serial in [stranger, ignored] {
        vm.ok(&format!(
            "truncate -s 16M /root/{serial}; mkfs.ext4 -q /root/{serial}; ec2-nvme.sh attach {serial} /root/{serial}"
        ));
    }
    let rule = "/etc/luks-agent/config.d/rule.toml";
    vm.write_file(rule, format!("[[volumes.match]]\nserial = \"{ignored}\"\nrole = \"ignore\"\n"));
    let report = audit(vm, 1);
    assert_eq!(report.verdict, Standing::NotEncrypted);
    for (serial, at) in volumes {
        let disk = disk(&report, serial);
        assert_eq!((disk.verdict, disk.reasons.len()), (Standing::Encrypted, 0), "{disk:?}");
        assert_eq!(json!(disk.mounts), json!([at]));
        let evidence = disk.evidence.as_ref().unwrap();
        assert!(evidence.blocks > 0 && evidence.differ == evidence.blocks, "{disk:?}");
    }
    assert_eq!(disk(&report, stranger).verdict, Standing::NotEncrypted);
    let excepted = disk(&report, ignored);
    assert_eq!(excepted.verdict, Standing::Excepted);
    assert!(excepted.role_because.as_ref().unwrap().contains("[[volumes.match]] rule says ignore"), "{excepted:?}");
    let boot = report.disks.iter().find(|disk| disk.role == "boot").unwrap();
    assert_eq!(boot.verdict, Standing::Excepted);

    vm.ok(&format!("ec2-nvme.sh detach {stranger}"));
    assert_eq!(audit(vm, 0).verdict, Standing::Encrypted);
    vm.ok(&format!("rm {rule}; ec2-nvme.sh detach {ignored}"));
}

/// All volumes are closed. Somebody mounts a file system on the disk of one, past the encryption.
fn an_audit_finds_what_is_mounted_around_a_mapping(vm: &mut Machine) {
    let (serial, _) = MOUNT_LATER;
    assert_eq!(disk(&audit(vm, 0), serial).verdict, Standing::Encrypted, "locked");
    let name = &kernel_names(vm)[serial];
    vm.ok(&format!(
        "dmsetup create around --table \"0 262144 linear /dev/{name} 65536\"
         mkfs.ext4 -q /dev/mapper/around
         mkdir -p /around; mount /dev/mapper/around /around"
    ));
    let report = audit(vm, 1);
    assert_eq!(report.verdict, Standing::NotEncrypted);
    let disk = disk(&report, serial);
    assert_eq!(disk.verdict, Standing::NotEncrypted);
    assert!(disk.reasons.iter().any(|reason| reason.contains("/around is mounted from around")), "{disk:?}");
    vm.ok("umount /around; dmsetup remove --retry around");
}

/// Runs a command of the agent that must succeed. No AWS variable is in the guest's environment.
fn agent(vm: &mut Machine, command: &str) -> Output {
    let output = vm.run(&format!("luks-agent {command}"));
    assert_eq!(output.status, 0, "luks-agent {command}\n{}{}", output.stdout, output.stderr);
    output
}

fn report(vm: &mut Machine, command: &str) -> Value {
    let output = agent(vm, &format!("{command} --json"));
    let report: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(report["schema"], "luks-agent/report");
    report
}

/// The rows of the table with this result are these volumes at these mount points, in this order.
fn assert_rows(output: &Output, result: &str, expected: &[(&str, &str)]) {
    let cells = |line: &str| line.split("  ").map(str::trim).filter(|c| !c.is_empty()).map(str::to_owned).collect();
    let rows: Vec<Vec<String>> = output.stdout.lines().map(cells).collect();
    // DEVICE ROLE SIZE SERIAL RESULT MOUNT MAPPER
    let found: Vec<_> = rows.iter().filter(|row| row.get(4).is_some_and(|cell| cell == result)).collect();
    let shown: Vec<_> = found.iter().map(|row| (row[3].as_str(), row[5].as_str())).collect();
    assert_eq!(shown, expected, "{}", output.stdout);
    for row in found {
        let role = if row[3].starts_with("vol") { "ebs" } else { "instance-store" };
        assert_eq!(row[1], role, "{row:?}");
        assert!(row[6].starts_with("luks-") && row[6].len() == 41, "{row:?}");
    }
}

/// Kernel names by serial number, as sysfs has them.
fn kernel_names(vm: &mut Machine) -> BTreeMap<String, String> {
    let list = vm.ok("ec2-nvme.sh list");
    let name = |line: &str| {
        let mut words = line.split(' ').map(str::to_owned);
        let name = words.next().unwrap();
        (words.next().unwrap(), name)
    };
    list.lines().map(name).collect()
}

/// Mapper name and mount point by serial number, as `status` has them.
fn volumes(vm: &mut Machine) -> BTreeMap<String, (String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let status = report(vm, "status");
    let open = status["rows"].as_array().unwrap().iter().filter(|row| row["result"] == "open");
    open.map(|row| (text(&row["serial"]), (text(&row["mapper"]), text(&row["mount_point"])))).collect()
}

fn status_is(vm: &mut Machine, result: &str, expected: &[(&str, &str)]) {
    let status = report(vm, "status");
    assert_eq!(status["exit_code"], 0);
    for (serial, at) in expected {
        let mut rows = status["rows"].as_array().unwrap().iter();
        let row = rows.find(|row| row["serial"] == *serial && row["role"] != "ignored").unwrap();
        assert_eq!((row["result"].as_str(), row["mount_point"].as_str()), (Some(result), Some(*at)), "{row}");
    }
}

fn kms_requests(aws: &Server) -> Vec<Request> {
    aws.requests().into_iter().filter(|request| !request.operation.starts_with("imds:")).collect()
}

/// Each request of KMS that is named came so often, `DescribeKey` any number of times unless named, no other at all; each
/// as the design says.
fn assert_kms_calls(aws: &Server, expected: &[(&str, usize)]) {
    let requests = kms_requests(aws);
    for request in &requests {
        assert!(
            request.operation == "DescribeKey" || expected.iter().any(|(name, _)| *name == request.operation),
            "not expected: {request:?}"
        );
        assert_eq!(request.encryption_context, None, "{request:?}");
        assert_eq!(request.key_id, Some(aws.key_arn()), "{request:?}");
        assert_eq!(request.access_key_id.as_deref(), Some(fake_aws::Options::ACCESS_KEY_ID), "{request:?}");
        assert_eq!(request.signed_region.as_deref(), Some("us-east-1"), "{request:?}");
        let agent = request.user_agent.as_deref().unwrap_or_default();
        assert!(agent.contains("luks-agent"), "user agent '{agent}'");
    }
    for (operation, count) in expected {
        assert_eq!(aws.count(operation), *count, "number of {operation}: {requests:#?}");
    }
}

fn plan_writes_nothing(vm: &mut Machine, aws: &Server) {
    let plan = agent(vm, "plan");
    assert!(plan.stdout.contains("\nplan: would format 4, would unlock 0, 0 refused\n"), "{}", plan.stdout);
    assert!(plan.stdout.contains("carries /"), "{}", plan.stdout);
    vm.ok("! test -e /etc/luks-agent/state");
    assert_kms_calls(aws, &[]);
    let unlock = vm.run("luks-agent unlock");
    assert_eq!(unlock.status, 1, "{}", unlock.stderr);
    assert!(unlock.stderr.contains("run 'luks-agent provision' first"), "{}", unlock.stderr);
}

fn first_provision(vm: &mut Machine, aws: &Server) {
    let provisioned = agent(vm, "provision");
    assert_rows(&provisioned, "formatted", &MOUNTS);
    assert!(provisioned.stdout.ends_with("provision: 4 formatted\n"), "{}", provisioned.stdout);
    // Decrypt is the proof before the first write to any disk
    assert_kms_calls(aws, &[("GenerateDataKey", 1), ("Decrypt", 1)]);
    let generate = kms_requests(aws).into_iter().find(|request| request.operation == "GenerateDataKey").unwrap();
    assert_eq!(generate.key_spec.as_deref(), Some("AES_256"));
    let state: Value = serde_json::from_str(&vm.read_file(STATE)).unwrap();
    assert_eq!(state["instance_id"], "i-1234567890abcdef0");
    assert_eq!(state["keys"].as_array().unwrap().len(), 1);
    assert_eq!(vm.ok(&format!("stat -c %a /etc/luks-agent/state {STATE}")), "700\n600");
    for (_, at) in MOUNTS {
        assert_eq!(vm.ok(&format!("findmnt -no FSTYPE {at}")), "xfs");
        assert!(vm.ok(&format!("findmnt -no OPTIONS {at}")).contains("noatime"));
    }
}

/// A file with the marker and one that would show any block that came back wrong.
fn write_files(vm: &mut Machine, mounts: &[(&str, &str)]) {
    for (serial, at) in mounts {
        vm.ok(&format!(
            "for i in $(seq 500); do echo '{MARKER} {serial}'; done >{at}/file
             head -c 4M /dev/urandom >{at}/random
             sync -f {at}
             sha256sum {at}/file {at}/random >/root/sums-{serial}
             sync /root/sums-{serial}"
        ));
    }
}

fn check_files(vm: &mut Machine, mounts: &[(&str, &str)]) {
    let checks = mounts.iter().map(|(serial, at)| {
        format!("sha256sum --quiet -c /root/sums-{serial}; grep -qx '{MARKER} {serial}' {at}/file\n")
    });
    vm.ok(&checks.collect::<String>());
}

/// The command run once more does nothing, asks nobody, and says so.
fn nothing_changes(vm: &mut Machine, aws: &Server, command: &str) {
    let look = format!("cat {STATE}; dmsetup table; findmnt -rn");
    let before = vm.ok(&look);
    aws.clear_requests();
    let again = report(vm, command);
    assert_eq!(again["summary"], "nothing changed: 4 unchanged", "{again:#}");
    assert_eq!(vm.ok(&look), before);
    assert_kms_calls(aws, &[]);
}

fn the_boot_volume_is_never_a_target(vm: &mut Machine) {
    let config = vm.read_file(CONFIG);
    vm.write_file("/root/rule/config.toml", config + "[[volumes.match]]\npath = \"/dev/vda*\"\nrole = \"ebs\"\n");
    for command in ["plan", "provision"] {
        let report = report(vm, &format!("--config /root/rule/config.toml {command}"));
        let row = report["rows"].as_array().unwrap().iter().find(|row| row["device"] == "vda").unwrap();
        assert_eq!((&row["role"], &row["result"]), (&Value::from("boot"), &Value::from("left")), "{row}");
        assert!(row["reason"].as_str().unwrap().contains("carries /"), "{row}");
    }
}

/// udev's database and links are as for any LUKS volume, no unit failed, nothing waits, no link leads to nothing.
fn udev_and_systemd_agree(vm: &mut Machine, volumes: &BTreeMap<String, (String, String)>) {
    let names = kernel_names(vm);
    // one script for all of it, and only what is wrong is printed
    let mut script = r#"
        is() { [ "$2" = "$3" ] || echo "$1 is '$2', expected '$3'"; }
        property() { udevadm info -q property "$1" | sed -n "s/^$2=//p"; }
        volume() {
            local disk=/dev/$1 uuid=$2 mapper=luks-$2 at=$3 dm
            dm=$(readlink -f /dev/mapper/$mapper)
            is "type of $disk in udev" "$(property $disk ID_FS_TYPE)" crypto_LUKS
            is "UUID of $disk in udev" "$(property $disk ID_FS_UUID)" $uuid
            is "by-uuid/$uuid" "$(readlink -f /dev/disk/by-uuid/$uuid)" $disk
            is "by-id/dm-name" "$(readlink -f /dev/disk/by-id/dm-name-$mapper)" $dm
            is "by-id/dm-uuid" "$(readlink -f /dev/disk/by-id/dm-uuid-CRYPT-LUKS2-${uuid//-/}-$mapper)" $dm
            is "type of $dm in udev" "$(property $dm ID_FS_TYPE)" xfs
            is "by-uuid of the file system" "$(readlink -f /dev/disk/by-uuid/$(blkid -p -s UUID -o value $dm))" $dm
            is "source of $at" "$(findmnt -no SOURCE $at)" /dev/mapper/$mapper
            is "holder of $disk" "$(ls /sys/class/block/$1/holders)" ${dm#/dev/}
        }
        udevadm settle --timeout=30
        is "links to nothing" "$(find /dev/disk /dev/mapper -xtype l)" ""
        is "cookies nobody answered" "$(dmsetup udevcookies | grep ^0x)" ""
        is "units of systemd-cryptsetup" "$(systemctl list-units --no-legend --plain 'systemd-cryptsetup*')" ""
        is "failed units" "$(systemctl list-units --no-legend --plain --failed)" ""
        is "state of the system" "$(systemctl is-system-running)" running
        "#
    .to_owned();
    for (serial, (mapper, at)) in volumes {
        writeln!(script, "volume {} {} {at}", names[serial], mapper.strip_prefix("luks-").unwrap()).unwrap();
    }
    assert_eq!(vm.ok(&script), "");
}

/// What the kernel said of recovering file systems since boot.
fn recoveries(vm: &mut Machine) -> String {
    vm.ok("dmesg | grep -E 'XFS.*([Rr]ecovery|[Cc]orrupt)|EXT4-fs.*recover' || true")
}

/// No terminal, no standard input, no environment: and the journal has it all, in fields.
fn unlock_as_a_unit(vm: &mut Machine, expected: &[(&str, &str)]) {
    let unit = "unlock-test.service";
    vm.ok(&format!(
        "systemd-run --quiet --wait --unit={unit} --property=StandardInput=null --setenv=PATH=/nowhere \
         /opt/test/luks-agent unlock"
    ));
    let lines = vm.ok(&format!("journalctl --sync; journalctl -o json -u {unit} SYSLOG_IDENTIFIER=luks-agent"));
    let entries: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names = kernel_names(vm);
    for (serial, _) in expected {
        let mut mounting = entries.iter().filter(|e| e["DEVICE"] == names[*serial].as_str());
        assert!(mounting.any(|entry| entry["MESSAGE"] == "mounting"), "{serial} is not in the journal: {lines}");
    }
    let waited = entries.iter().filter(|entry| entry["PRIORITY"] == "4").count();
    assert!(waited >= 2, "the waits for KMS are not in the journal: {lines}");
    let all = vm.ok(&format!("journalctl -o cat -u {unit}"));
    assert!(all.contains(&format!("unlock: {} unlocked", expected.len())), "the report is not in the journal: {all}");
    // User-Mode Linux is newer than most kernels, which may refuse what it takes
    assert!(!all.contains("cannot check whether this kernel supports"), "the cipher could not be tried: {all}");
}

fn close_closes_all(vm: &mut Machine, mounts: &[(&str, &str)]) {
    let closed = report(vm, "close");
    assert_eq!(closed["summary"], format!("{0} of {0} closed", mounts.len()));
    assert_eq!(vm.ok("findmnt -rno TARGET | grep ^/mnt || true"), "");
    assert_eq!(vm.ok("udevadm settle; ls /dev/mapper"), "control");
    status_is(vm, "locked", mounts);
    assert_eq!(report(vm, "close")["summary"], "no volume is open, nothing changed");
}
