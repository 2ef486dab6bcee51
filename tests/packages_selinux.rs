//! SELinux, enforcing: the `.deb` on a Debian 12 with Debian's policy, and the module for it that the package brings along.
//! `make test-packages` builds what is needed, and runs it.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod support;

use std::collections::BTreeSet;

use fake_aws::Server;
use support::built_packages;
use support::ec2::{self, EBS_1, EBS_LATER, STORE_1};
use support::qemu::{MIB, Machine};
use support::service::{idle, wait};

/// Where the policy has a label that one confined service may write below: `mysqld_db_t`, and `mysqld_t`.
const MOUNTS: [&str; 4] =
    ["/var/lib/mysql/data", "/var/lib/mysql/data1", "/var/lib/mysql/data2", "/var/lib/mysql/data3"];
const GROWN: &str = "vol0fedcba9876543210";

/// A service that the policy confines as `mysqld_t`, because its program has the type `mysqld_exec_t`. It writes its own label.
const CONFINED: &str = "[Service]
Type=oneshot
ExecStart=/usr/local/sbin/confined -c 'read -r label </proc/self/attr/current; echo \"$$label\" >%f/label'
";

#[test]
#[ignore = "needs the packages and QEMU, run make test-packages"]
fn nothing_is_denied_where_selinux_is_enforcing() {
    let aws = ec2::aws();
    let mut vm = machine(&aws);
    vm.boot();
    assert_eq!(vm.ok("getenforce"), "Enforcing");
    let with_module = install(&mut vm, &aws);

    eprintln!("-- first boot");
    vm.reboot();
    ready(&mut vm, &MOUNTS[..2]);
    // Debian's policy denies some things to Debian's own services
    let mut without_agent = denials(&mut vm, "-b -1");
    // doctor's, before the module was loaded
    without_agent.retain(|denial| !denial.contains("{ nnp_transition }"));
    eprintln!("-- denied at the boot before, with the agent installed but not started:\n{without_agent:#?}");
    assert!(!without_agent.iter().any(|denial| denial.contains("scontext=system_u:system_r:initrc_t")));
    // where the other units run too: their programs have the same label, and systemd starts them the same way
    assert_eq!(
        vm.ok("ps -o label= -p $(systemctl show --value -P MainPID luks-agent.service)").trim(),
        "system_u:system_r:initrc_t:s0"
    );
    labels_are_those_of_the_policy(&mut vm, &MOUNTS[..2]);
    confined_service_writes(&mut vm, MOUNTS[0]);
    let doctor = vm.run("luks-agent doctor").stdout;
    assert!(doctor.contains("SELinux is on, and /usr/sbin/restorecon sets the labels of new volumes"), "{doctor}");

    eprintln!("-- an ext4 volume is attached, grows, and is closed");
    vm.write_file("/etc/luks-agent/config.d/60-ext4.toml", "[filesystem]\ntype = \"ext4\"\n");
    vm.ok(&format!("truncate -s {} /var/tmp/grown; ec2-nvme.sh attach {GROWN} /var/tmp/grown", 64 * MIB));
    wait(&mut vm, "the new volume", &format!("findmnt -n {}", MOUNTS[2]));
    idle(&mut vm);
    labels_are_those_of_the_policy(&mut vm, &MOUNTS[2..3]);
    confined_service_writes(&mut vm, MOUNTS[2]);
    one_label_for_everything(&mut vm);
    let grown = vm.ok(&format!("ec2-nvme.sh grow {GROWN} {}; luks-agent grow", 96 * MIB));
    assert!(grown.contains("1 grown"), "{grown}");
    vm.ok(&format!("luks-agent close {GROWN}; ec2-nvme.sh detach {GROWN}; luks-agent forget {GROWN}"));
    assert_eq!(new_denials(&mut vm, &with_module, &without_agent), [""; 0]);

    eprintln!("-- a volume that cannot be labeled");
    vm.ok(&format!("mv /usr/sbin/restorecon /root/; ec2-nvme.sh attach {EBS_LATER}"));
    wait(&mut vm, "the new volume", &format!("findmnt -n {}", MOUNTS[2]));
    idle(&mut vm);
    let warned = vm.ok("journalctl -b -o cat -u luks-agent-provision.service -g 'SELinux label'");
    assert!(warned.contains("'restorecon' is not installed: install package policycoreutils"), "{warned}");
    assert!(vm.run("luks-agent doctor").stdout.contains("SELinux is on, but restorecon is not installed"));
    // nor could another service use it
    assert_eq!(vm.ok(&format!("stat -c %C {}", MOUNTS[2])), "system_u:object_r:unlabeled_t:s0");
    assert_ne!(vm.run(&start_confined(MOUNTS[2])).status, 0);
    let denied = new_denials(&mut vm, &with_module, &without_agent);
    assert!(
        !denied.is_empty() && denied.iter().all(|d| d.contains(":mysqld_t:") && d.contains(":unlabeled_t:")),
        "{denied:#?}"
    );
    vm.ok(&format!("mv /root/restorecon /usr/sbin/; chown nobody {}; systemctl reset-failed", MOUNTS[2]));

    eprintln!("-- reboot");
    vm.attach_order(&[STORE_1, EBS_1, EBS_LATER]);
    vm.reboot();
    ready(&mut vm, &MOUNTS[..3]);
    labels_are_those_of_the_policy(&mut vm, &MOUNTS[..3]);
    confined_service_writes(&mut vm, MOUNTS[2]);
    assert_eq!(new_denials(&mut vm, &with_module, &without_agent), denied);
    vm.power_off();
}

fn machine(aws: &Server) -> Machine {
    let deb = built_packages().into_iter().find(|path| path.to_str().unwrap().ends_with("amd64.deb")).unwrap();
    Machine::of_release("package-selinux", "bookworm-selinux")
        .tool(&deb)
        .nvme(STORE_1, ec2::VOLUME)
        .nvme(EBS_1, ec2::VOLUME)
        .disk(EBS_LATER, ec2::VOLUME)
        .forward(80, aws.addresses()[0])
        .memory(2048)
        // commands of the test come from QEMU's guest agent, which runs in initrc_t, too: the policy does not confine it
        .kernel_arg("security=selinux enforcing=1")
}

/// The package, and the module as docs/selinux.md says. The journal is kept, with the denials of shutdowns: logind's, for one, which may not
/// look at who asks for a reboot. Returns when the module was loaded.
fn install(vm: &mut Machine, aws: &Server) -> String {
    vm.ok("mkdir -p /var/log/journal && restorecon -R /var/log/journal && journalctl --flush
         dpkg -i /opt/test/luks-agent_*.deb 2>&1");
    let config = format!("{}[filesystem]\nmount_base = \"{}\"\n", ec2::config(aws), MOUNTS[0]);
    vm.write_file("/etc/luks-agent/config.d/50-node.toml", config);
    let doctor = vm.run("luks-agent doctor").stdout;
    assert!(doctor.contains("does not let udev's dmsetup (lvm_t) use the semaphores of initrc_t"), "{doctor}");
    vm.ok("semodule -i /usr/share/selinux/packages/luks-agent.cil 2>&1
         cp /bin/dash /usr/local/sbin/confined && chcon -t mysqld_exec_t /usr/local/sbin/confined");
    vm.write_file("/etc/systemd/system/confined@.service", CONFINED);
    vm.ok("sleep 1; date +@%s")
}

fn ready(vm: &mut Machine, mounts: &[&str]) {
    wait(vm, "the volumes", "systemctl is-active luks-agent.target");
    for at in mounts {
        assert!(vm.ok(&format!("findmnt -no SOURCE {at}")).starts_with("/dev/mapper/luks-"));
    }
    wait(vm, "the daemon's first look", "test -s /run/luks-agent/health.json");
    wait(vm, "the system", "systemctl is-system-running");
}

/// With the mount option that docs/selinux.md has.
fn one_label_for_everything(vm: &mut Machine) {
    let context = "system_u:object_r:public_content_t:s0";
    let drop_in = "/etc/luks-agent/config.d/70-context.toml";
    vm.write_file(drop_in, format!("[filesystem]\noptions = [\"context={context}\"]\n"));
    vm.ok(&format!("luks-agent close {GROWN} && luks-agent unlock && rm {drop_in}"));
    assert_eq!(vm.ok(&format!("stat -c %C {0} {0}/label", MOUNTS[2])), format!("{context}\n{context}"));
}

/// Roots, mount points below them, and `lost+found`.
fn labels_are_those_of_the_policy(vm: &mut Machine, mounts: &[&str]) {
    // not in mount_t, which may mount on few directories
    vm.ok("mkdir -p /run/below && runcon -t initrc_t mount --bind / /run/below");
    for at in mounts {
        let found = vm.ok(&format!("stat -c %C {at} /run/below{at}; stat -c %C {at}/lost+found 2>/dev/null || true"));
        let expected = vm.ok(&format!("matchpathcon -n {at}"));
        assert_eq!(expected, "system_u:object_r:mysqld_db_t:s0");
        assert!(found.lines().all(|label| label == expected), "{at}: {found}");
        assert_eq!(vm.ok(&format!("find {at} -context '*:unlabeled_t:*'")), "");
    }
    vm.ok("runcon -t initrc_t umount /run/below");
}

fn start_confined(at: &str) -> String {
    format!("systemctl start \"confined@$(systemd-escape --path {at}).service\"")
}

fn confined_service_writes(vm: &mut Machine, at: &str) {
    vm.ok(&format!("{} && grep -q :mysqld_t: {at}/label", start_confined(at)));
}

/// What was denied in these boots: permissions, labels of subject and object, and class.
fn denials(vm: &mut Machine, boots: &str) -> BTreeSet<String> {
    let parts = r"s/.*denied +(\{[^}]*\}).*(scontext=[^ ]*) (tcontext=[^ ]*) (tclass=[^ ]*).*/\1 \2 \3 \4/";
    let all = vm.ok(&format!("{{ journalctl {boots} -q --no-pager -o cat _TRANSPORT=audit + _TRANSPORT=kernel | grep 'avc: *denied' || true; }} | sed -E '{parts}'"));
    all.lines().map(str::to_owned).collect()
}

/// In all boots, since the module was loaded.
fn new_denials(vm: &mut Machine, since: &str, before: &BTreeSet<String>) -> Vec<String> {
    denials(vm, &format!("--since={since}")).difference(before).cloned().collect()
}
