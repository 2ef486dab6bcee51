//! The life of the packages on machines with volumes: the `.deb` on Debian 11, 12 and 13, installed, upgraded, removed and purged; the
//! `.rpm` on a Debian 12 made to resemble its family; and what the documentation says of installing them.
//! `make test-packages` builds what is needed, and runs them.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod support;

use std::time::{Duration, Instant};

use fake_aws::Server;
use support::ec2::{self, EBS_1, STORE_1};
use support::qemu::{AWS_ADDRESS, Arch, Machine};
use support::{built_packages, built_plugin_packages};

/// Nothing but the key, and here the endpoint.
const DROP_IN: &str = "/etc/luks-agent/config.d/50-node.toml";
const STATE: &str = "/etc/luks-agent/state/state.json";
const KEPT: &str = "kept in plain text";
const MOUNTS: [&str; 2] = ["/mnt", "/mnt1"];

#[test]
#[ignore = "needs the packages and QEMU, run make test-packages"]
fn life_on_debian_11() {
    life("bullseye", "247");
}

#[test]
#[ignore = "needs the packages and QEMU, run make test-packages"]
fn life_on_debian_12() {
    life("bookworm", "252");
}

#[test]
#[ignore = "needs the packages and QEMU, run make test-packages"]
fn life_on_debian_13() {
    life("trixie", "257");
}

/// Debian 12 has the versions of Amazon Linux 2023: systemd 252, cryptsetup 2.6, Linux 6.1. What else differs and can be made is made: rpm
/// with a database of its own, one directory for programs as on Fedora 42 and later, no Debian-style presets.
#[test]
#[ignore = "needs the packages and QEMU, run make test-packages"]
fn life_of_the_rpm() {
    let aws = ec2::aws();
    let (vm, plugin) = with_plugin(Machine::new("package-rpm"), "x86_64.rpm");
    let (mut vm, rpms) = node(vm, "x86_64.rpm", &aws);
    let [first, second] = <[String; 2]>::try_from(rpms)
        .unwrap_or_else(|found| panic!("{found:?}: expected two revisions, run make test-packages"));
    vm.boot();
    like_fedora(&mut vm);
    vm.ok("mkdir -p /var/log/journal");

    eprintln!("-- an administrator's preset is honoured");
    let site = "/etc/systemd/system-preset/00-site.preset";
    vm.write_file(site, "disable luks-agent.service\n");
    vm.ok(&RPM.install(&first));
    assert_eq!(enabled(&mut vm), "enabled\ndisabled\ndisabled\n");
    vm.ok(&format!("{} 2>&1; rm {site}", RPM.remove));
    assert_eq!(vm.ok("find /etc /usr -path '*luks-agent*'"), "");

    installed(&mut vm, &RPM, &first);
    vm.write_file(DROP_IN, ec2::config(&aws));
    boots(&mut vm, &aws);
    upgraded(&mut vm, &RPM, &second);
    vm.ok("echo '# changed' >>/etc/luks-agent/config.toml");
    let changed = vm.ok("rpm -V --nodeps luks-agent || true");
    assert!(changed.ends_with(" c /etc/luks-agent/config.toml") && changed.lines().count() == 1, "{changed}");
    plugin_comes_and_goes(&mut vm, &RPM, &plugin, |vm| {
        // libcryptsetup of this Debian does not look there
        let files = vm.ok(&format!("rpm -ql {PLUGIN} | grep -F .so"));
        let expected =
            ["awskms", "exec"].map(|kind| format!("/usr/lib64/cryptsetup/libcryptsetup-token-luks-agent-{kind}.so"));
        assert_eq!(files, expected.join("\n"));
        assert_eq!(vm.ok(&format!("rpm -V --nodeps {PLUGIN}")), "");
    });
    removed(&mut vm, &RPM, &aws, &second);

    eprintln!("-- removed for good: the state stays, as it does not belong to the package");
    vm.ok("echo '# changed' >>/etc/luks-agent/config.toml");
    vm.ok(&format!("{} 2>&1", RPM.remove));
    vm.ok(&format!("test -s {STATE} && test -s /etc/luks-agent/config.toml.rpmsave && cat /mnt1/kept"));
    let left = vm.ok("find /usr /run /var/lib/systemd -path '*luks-agent*' -not -path '/run/udev/*' -not -path '/run/systemd/units/*' \
         -not -path '/run/luks-agent*'");
    assert_eq!(left, "");
    vm.power_off();
}

/// One directory for programs, and units that no preset names are disabled.
fn like_fedora(vm: &mut Machine) {
    vm.ok("cp -an /usr/sbin/. /usr/bin/ && mv /usr/sbin /usr/sbin-was && /usr/bin/ln -s bin /usr/sbin && rm -r /usr/sbin-was
        test -L /sbin && test -x /sbin/init");
    vm.ok("rpm --initdb && ! rpm -q luks-agent");
    // without a preset, Debian's systemd enables a unit
    vm.write_file("/usr/lib/systemd/system-preset/99-default-disable.preset", "disable *\n");
}

/// The package for Graviton: first boot, and a reboot.
#[test]
#[ignore = "needs the package for aarch64 and QEMU, run make test-packages"]
fn first_boot_and_reboot_on_aarch64() {
    let aws = ec2::aws();
    let (mut vm, debs) = node(Machine::of_architecture("package-arm64", "bookworm", Arch::Aarch64), "arm64.deb", &aws);
    vm.boot();
    assert_eq!(vm.ok("uname -m"), "aarch64");
    vm.ok(&format!("dpkg -i /opt/test/{} 2>&1", debs.last().unwrap()));
    vm.write_file(DROP_IN, ec2::config(&aws));
    boots(&mut vm, &aws);
    vm.power_off();
    for serial in [STORE_1, EBS_1] {
        assert!(!vm.disk_holds(serial, KEPT.as_bytes()));
        assert!(vm.disk_holds(serial, b"luks-agent-awskms"));
    }
}

/// The user data in packaging/, from a NoCloud seed, with what its page says is yours put in.
#[test]
#[ignore = "needs the packages and QEMU, run make test-packages"]
fn user_data_installs_and_encrypts() {
    let aws = ec2::aws();
    let (mut vm, mut debs) = node(Machine::new("package-cloud-init"), "amd64.deb", &aws);
    let deb = debs.swap_remove(0);
    vm.boot();
    let config = ec2::config(&aws).trim_start_matches("[kms]\n").trim_end().replace('\n', "\n      ");
    let sum = vm.ok(&format!("sha256sum /opt/test/{deb} | cut -d ' ' -f 1"));
    let yours = [
        ("key_id = \"arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab\"", config),
        ("package=https://example.com/", "package=file:///opt/test/".to_owned()),
        ("luks-agent_0.1.0-1_amd64.deb", deb),
        ("sha256=0000000000000000000000000000000000000000000000000000000000000000", format!("sha256={sum}")),
    ];
    let mut user_data =
        std::fs::read_to_string(support::project_dir().join("packaging/cloud-init/user-data.yaml")).unwrap();
    for (example, ours) in yours {
        assert!(user_data.contains(example), "{example}");
        user_data = user_data.replace(example, &ours);
    }
    vm.write_file("/var/lib/cloud/seed/nocloud/user-data", user_data);
    vm.write_file("/var/lib/cloud/seed/nocloud/meta-data", "instance-id: i-0123456789abcdef0\n");
    // the modules that are needed, at their stages; others fail on a system as small as this
    let cloud = "datasource_list: [NoCloud]\nnetwork: {config: disabled}\ncloud_init_modules: [write-files]\n\
                 cloud_config_modules: [mounts, runcmd]\ncloud_final_modules: [scripts-user]\n";
    vm.write_file("/etc/cloud/cloud.cfg.d/99-test.cfg", cloud);
    vm.cloud_init_is_on();
    locks_are_held_at_boot(&mut vm);

    eprintln!("-- the boot at which cloud-init has its seed");
    vm.reboot();
    let status = vm.run("cloud-init status --wait --long; cat /var/log/cloud-init-output.log");
    assert!(status.stdout.contains("status: done\n"), "{status:?}");
    assert!(vm.ok("journalctl -b --no-pager -u install-luks-agent.service").contains("Waiting for cache lock"));
    assert_eq!(vm.run("systemctl is-enabled install-luks-agent.service").stdout, "disabled\n");
    comes_back(&mut vm, &aws);
    assert_eq!(vm.ok("grep -c luks-agent /etc/fstab || true"), "0");
    vm.power_off();
}

/// As the first boot's unattended upgrade holds them: apt's, then dpkg's.
fn locks_are_held_at_boot(vm: &mut Machine) {
    let hold = r#"use Fcntl qw(:DEFAULT :flock :seek F_SETLKW F_WRLCK);
sub hold {
    sysopen(my $file, shift, O_RDWR | O_CREAT, 0640) or die;
    my $lock = pack("s s x4 q q i x4", F_WRLCK, SEEK_SET, 0, 0, 0);
    fcntl($file, F_SETLKW, $lock) or die;
    return $file;
}
my $dpkg = hold("/var/lib/dpkg/lock-frontend");
my $lists = hold("/var/lib/apt/lists/lock");
system("systemd-notify", "--ready");
# until the installation has met both
sleep 1 until `systemctl show -P ActiveState install-luks-agent.service` eq "activating\n";
sleep 20;
close($lists);
sleep 40;
"#;
    vm.write_file("/root/hold.pl", hold);
    vm.write_file(
        "/etc/systemd/system/hold-locks.service",
        "[Unit]\nBefore=cloud-config.service\n[Service]\nType=notify\nNotifyAccess=all\nExecStart=/usr/bin/perl /root/hold.pl\n\
         [Install]\nWantedBy=multi-user.target\n",
    );
    vm.ok("systemctl -q enable hold-locks.service 2>&1");
}

/// The quick start of the README: its commands as they stand there, on a node that knows its endpoint.
#[test]
#[ignore = "needs the packages and QEMU, run make test-packages"]
fn quick_start_as_it_is_written() {
    let readme = std::fs::read_to_string(support::project_dir().join("README.md")).unwrap();
    let (_, rest) = readme.split_once("**2. Build and install.**").unwrap();
    let (steps, _) = rest.split_once("### At boot").unwrap();
    let commands: Vec<_> =
        steps.split("```sh\n").skip(1).map(|block| block.split_once("```").unwrap().0.trim_end()).collect();
    let [build, install, configure, plan, provision, status] = commands[..] else {
        panic!("the quick start has other steps now: {commands:#?}");
    };
    // done by whoever runs this
    assert!(build.starts_with("make packages "), "{build}");
    let (apt, dnf) = install.split_once('\n').unwrap();
    assert!(dnf.starts_with("sudo dnf install ./luks-agent-0.1.0-1.x86_64.rpm "), "{dnf}");

    let aws = ec2::aws();
    let (mut vm, _) = node(Machine::new("package-quick-start"), "amd64.deb", &aws);
    vm.boot();
    // not here: sudo, which root does not need, and AWS
    let typed = |vm: &mut Machine, command: &str| {
        eprintln!("# {command}");
        let said = vm.ok(&format!("sudo() {{ \"$@\"; }}; cd /opt/test; exec 2>&1\n{command}"));
        eprintln!("{said}");
        said
    };
    assert!(configure.contains(&format!("key_id = \"{}\"", aws.key_arn())), "{configure}");

    typed(&mut vm, apt);
    typed(&mut vm, configure);
    let endpoint = format!("[kms]\nendpoint_url = \"http://{AWS_ADDRESS}\"\n");
    vm.write_file("/etc/luks-agent/config.d/endpoint.toml", endpoint);
    let said = typed(&mut vm, plan);
    assert!(said.ends_with("plan: would format 2, would unlock 0, 0 refused"), "{said}");
    assert_eq!(vm.ok("ls /dev/mapper"), "control");
    typed(&mut vm, provision);
    assert!(vm.ok("findmnt -no SOURCE /mnt").starts_with("/dev/mapper/luks-"));
    let before = mapped(&mut vm);
    let said = typed(&mut vm, provision);
    assert!(said.contains("nothing changed: 2 unchanged"), "{said}");
    assert_eq!(mapped(&mut vm), before);
    vm.reboot();
    ready(&mut vm);
    let said = typed(&mut vm, status);
    assert_eq!(said.matches(" open ").count(), 2, "{said}");
    typed(&mut vm, "sudo luks-agent unlock");
    vm.power_off();
}

/// A node with two volumes and the packages of one kind in /opt/test, and the names of these, by their revisions.
fn node(vm: Machine, kind: &str, aws: &Server) -> (Machine, Vec<String>) {
    let mut packages = built_packages();
    packages.retain(|path| path.to_str().unwrap().ends_with(kind));
    let names: Vec<_> = packages.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    assert!(!names.is_empty(), "no package for {kind}, run make test-packages");
    let vm = packages.iter().fold(vm, Machine::tool);
    (vm.forward(80, aws.addresses()[0]).memory(2048).nvme(STORE_1, ec2::VOLUME).nvme(EBS_1, ec2::VOLUME), names)
}

/// A machine with the plug-in's package of one kind in /opt/test, and its name.
fn with_plugin(vm: Machine, kind: &str) -> (Machine, String) {
    let package = built_plugin_packages().into_iter().find(|path| path.to_str().unwrap().ends_with(kind));
    let package = package.unwrap_or_else(|| panic!("no {PLUGIN} for {kind}, run make test-packages"));
    let name = package.file_name().unwrap().to_str().unwrap().to_owned();
    (vm.tool(package), name)
}

/// The first boot with a configuration encrypts, the next one unlocks.
fn boots(vm: &mut Machine, aws: &Server) {
    eprintln!("-- configured: the next boot encrypts");
    vm.reboot();
    comes_back(vm, aws);
}

/// A boot has encrypted the volumes; the next one unlocks them.
fn comes_back(vm: &mut Machine, aws: &Server) {
    ready(vm);
    assert_eq!(aws.count("GenerateDataKey"), 1);
    vm.ok(&format!("for at in {}; do echo {KEPT} >$at/kept; sync -f $at; done", MOUNTS.join(" ")));

    eprintln!("-- reboot: unlocked");
    aws.clear_requests();
    vm.reboot();
    ready(vm);
    assert_eq!(aws.count("GenerateDataKey"), 0);
    assert_eq!(vm.ok("cat /mnt/kept /mnt1/kept"), format!("{KEPT}\n{KEPT}"));
}

fn life(release: &str, systemd: &str) {
    let aws = ec2::aws();
    let (vm, plugin) = with_plugin(Machine::of_release(&format!("package-{release}"), release), "amd64.deb");
    let (mut vm, debs) = node(vm, "amd64.deb", &aws);
    let [first, second] = <[String; 2]>::try_from(debs)
        .unwrap_or_else(|found| panic!("{found:?}: expected two revisions, run make test-packages"));
    vm.boot();
    let version = vm.ok("systemctl --version | head -n 1");
    eprintln!("-- {release}: {version}, {}", vm.ok("cryptsetup --version"));
    assert!(version.starts_with(&format!("systemd {systemd} ")));

    vm.ok("mkdir -p /var/log/journal");
    installed(&mut vm, &DEB, &first);
    vm.write_file(DROP_IN, ec2::config(&aws));
    match release {
        "trixie" => {
            netplan_has_the_network(&mut vm);
            boots(&mut vm, &aws);
            came_up_with_netplan(&mut vm);
            unattended_upgrades_are_on(&mut vm);
            upgraded(&mut vm, &UNATTENDED, &second);
        }
        _ => {
            boots(&mut vm, &aws);
            upgraded(&mut vm, &DEB, &second);
        }
    }
    if release == "bookworm" {
        restarted_after_an_upgrade_of_a_library(&mut vm);
    }
    reencrypted(&mut vm, release);
    match release {
        "bullseye" => plugin_is_refused(&mut vm, &plugin),
        _ => plugin_comes_and_goes(&mut vm, &DEB, &plugin, |vm| stock_cryptsetup_uses_the_plugin(vm, &aws)),
    }
    removed(&mut vm, &DEB, &aws, &second);
    purged(&mut vm, &second);
    vm.power_off();
}

/// From the next boot on, networkd does what netplan says, with DHCP, as on Ubuntu. The boot waits for an address that is not link-local.
/// DHCP gives none here, so there is one more.
fn netplan_has_the_network(vm: &mut Machine) {
    let netplan = "network:\n  version: 2\n  renderer: networkd\n  ethernets:\n    eth0:\n      dhcp4: true\n      \
                   addresses: [10.9.9.9/24]\n";
    vm.write_file("/etc/netplan/50-test.yaml", netplan);
    // netplan's generator writes this if the interface is there when it runs. Here its driver is not in the initrd, and comes later.
    let wait = "/usr/lib/systemd/systemd-networkd-wait-online";
    vm.write_file(
        "/etc/systemd/system/systemd-networkd-wait-online.service.d/20-test.conf",
        format!(
            "[Unit]\nConditionPathIsSymbolicLink=\n[Service]\nExecStart=\nExecStart={wait} -i eth0:degraded\n\
             ExecStart={wait} --any -o routable -i eth0\n"
        ),
    );
    vm.ok("chmod 600 /etc/netplan/50-test.yaml
         systemctl --quiet disable machine-network.service
         systemctl --quiet enable systemd-networkd-wait-online.service");
}

fn came_up_with_netplan(vm: &mut Machine) {
    assert_eq!(vm.run("systemctl is-active machine-network.service").stdout, "inactive\n");
    let state = vm.ok("networkctl --no-pager status eth0");
    assert!(state.contains("/run/systemd/network/10-netplan-eth0.network") && state.contains("(DHCP"), "{state}");
    let online = vm.ok("systemctl show -P ActiveEnterTimestampMonotonic systemd-networkd-wait-online.service");
    let boot = vm.ok("systemctl show -P ExecMainStartTimestampMonotonic luks-agent-boot.service");
    assert!((1..boot.parse().unwrap()).contains(&online.parse::<u64>().unwrap()), "{online} {boot}");
}

/// `/root/unattended FILE` offers the package in a repository of its own, and runs the unattended upgrade.
fn unattended_upgrades_are_on(vm: &mut Machine) {
    vm.write_file(
        "/etc/apt/apt.conf.d/60test",
        "Unattended-Upgrade::Origins-Pattern { \"origin=luks-agent-test\"; };\n",
    );
    let script = r#"set -e
mkdir -p /srv/repository
cp "$1" /srv/repository
cd /srv/repository
deb=${1##*/}
{
    dpkg-deb -f "$deb" | sed "/^$/d" # it ends in an empty line
    echo "Filename: ./$deb"
    echo "Size: $(stat -c %s "$deb")"
    echo "SHA256: $(sha256sum "$deb" | cut -d ' ' -f 1)"
} >Packages
{
    echo "Origin: luks-agent-test"
    echo "Date: $(date -u -R)"
    echo "SHA256:"
    echo " $(sha256sum Packages | cut -d ' ' -f 1) $(stat -c %s Packages) Packages"
} >Release
rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*
echo 'deb [trusted=yes] file:/srv/repository ./' >/etc/apt/sources.list
apt-get -q update
unattended-upgrade -v
dpkg-query -W -f '${Version}
' luks-agent
test "$(dpkg-query -W -f '${Version}' luks-agent)" = "$(dpkg-deb -f "$deb" Version)"
"#;
    vm.write_file(
        "/root/unattended",
        format!(
            "#!/bin/bash
{script}"
        ),
    );
    vm.ok("chmod 755 /root/unattended");
}

/// The package with the token plug-in of cryptsetup.
const PLUGIN: &str = "luks-agent-cryptsetup-token";
const UNITS: &str = "luks-agent.target luks-agent.service luks-agent-metrics.socket";

/// A package manager: its commands.
struct Manager {
    install: &'static str,
    upgrade: &'static str,
    remove: &'static str,
    remove_plugin: &'static str,
    is_installed: &'static str,
}

const DEB: Manager = Manager {
    install: "dpkg -i",
    upgrade: "dpkg -i",
    remove: "dpkg -r luks-agent",
    remove_plugin: "dpkg -r luks-agent-cryptsetup-token",
    is_installed: "dpkg-query -W -f '${db:Status-Status}' luks-agent | grep -qx installed",
};

/// With the upgrade that nobody types, from a repository of its own.
const UNATTENDED: Manager = Manager { upgrade: "/root/unattended", ..DEB };

/// Without dependencies: no package of this database has them.
const RPM: Manager = Manager {
    install: "rpm -i --nodeps",
    upgrade: "rpm -U --nodeps",
    remove: "rpm -e luks-agent",
    remove_plugin: "rpm -e luks-agent-cryptsetup-token",
    is_installed: "rpm -q luks-agent | wc -l | grep -qx 1",
};

impl Manager {
    fn install(&self, package: &str) -> String {
        format!("{} /opt/test/{package} 2>&1", self.install)
    }

    fn upgrade(&self, package: &str) -> String {
        format!("{} /opt/test/{package} 2>&1", self.upgrade)
    }
}

fn enabled(vm: &mut Machine) -> String {
    vm.run(&format!("systemctl is-enabled {UNITS}")).stdout
}

fn installed(vm: &mut Machine, manager: &Manager, package: &str) {
    eprintln!("-- installed, not configured");
    vm.ok(&manager.install(package));
    assert_eq!(enabled(vm), "enabled\nenabled\ndisabled\n");
    assert_eq!(vm.run(&format!("systemctl is-active {UNITS}")).stdout, "inactive\ninactive\ninactive\n");
    assert_eq!(vm.ok("systemd-analyze verify --man=no /usr/lib/systemd/system/luks-agent*.service 2>&1"), "");
    let plan = vm.run("luks-agent plan");
    assert_eq!(plan.status, 2, "{plan:?}");
    assert!(plan.stderr.contains("kms.key_id is missing"), "{plan:?}");
    vm.reboot();
    assert_eq!(vm.run("systemctl show -P ExecMainStatus luks-agent-boot.service").stdout, "2\n");
    let status = vm.ok("systemctl status --no-pager luks-agent.service");
    assert!(
        status.contains("waiting for a valid configuration: ") && status.contains("kms.key_id is missing"),
        "{status}"
    );
    assert_eq!(vm.run("systemctl is-active luks-agent.target").stdout, "inactive\n");
    assert_eq!(vm.ok("ls /dev/mapper"), "control");
}

/// The mappings, and what is mounted where.
fn mapped(vm: &mut Machine) -> String {
    vm.ok("dmsetup info -c --noheadings -o name,uuid,minor,open
         findmnt -rno ID,TARGET,SOURCE /mnt; findmnt -rno ID,TARGET,SOURCE /mnt1")
}

/// What shows that the volumes are as they were: the same mappings and mounts, and who uses them uses them.
fn volumes(vm: &mut Machine) -> String {
    mapped(vm) + &vm.ok("readlink /proc/$(cat /run/user.pid)/fd/3")
}

fn upgraded(vm: &mut Machine, manager: &Manager, package: &str) {
    eprintln!("-- upgraded, while a file on a volume is open");
    // it ends when it cannot write any more
    vm.start("exec 3>/mnt/used; echo $$ >/run/user.pid; while echo still here >&3; do sleep 0.2; done");
    wait(vm, "the user of the volume", "test -s /mnt/used");
    let boot = "systemctl show -P InvocationID -P ActiveEnterTimestampMonotonic luks-agent-boot.service";
    let before = (volumes(vm), vm.ok(boot), vm.ok("sha256sum /etc/luks-agent/state/state.json"));
    restarts_the_daemon(vm, &manager.upgrade(package));
    assert_eq!(before, (volumes(vm), vm.ok(boot), vm.ok("sha256sum /etc/luks-agent/state/state.json")));
    vm.ok(manager.is_installed);
    assert_eq!(enabled(vm), "enabled\nenabled\ndisabled\n");
}

/// Runs a command that restarts the daemon, and waits for the end of the run with which a daemon begins.
fn restarts_the_daemon(vm: &mut Machine, command: &str) {
    let daemon = "systemctl show -P MainPID luks-agent.service";
    let runs =
        "journalctl -b --no-pager -u luks-agent-provision.service | grep -cE 'systemd.*(Finished|Failed)' || true";
    let (old, before) = (vm.ok(daemon), vm.ok(runs));
    vm.ok(command);
    // is-active is content with one
    wait(
        vm,
        "the new daemon",
        "for unit in luks-agent.service luks-agent.target luks-agent-boot.service; do systemctl is-active $unit || exit 1; done",
    );
    let new = vm.ok(daemon);
    assert!(new != old && new != "0", "the daemon was not restarted: {old}, {new}");
    wait(vm, "its first run", &format!("test \"$({runs})\" != {before}"));
}

/// By needrestart, which Ubuntu runs after each upgrade, and without a question after an unattended one. Only the daemon is restarted.
fn restarted_after_an_upgrade_of_a_library(vm: &mut Machine) {
    eprintln!("-- restarted by needrestart, while a file on a volume is open");
    let before = volumes(vm);
    vm.ok("library=$(readlink -f /usr/lib/x86_64-linux-gnu/libcryptsetup.so.12)
         cp -a $library $library.new && mv $library.new $library");
    let listed =
        vm.ok("NEEDRESTART_UI=NeedRestart::UI::stdio needrestart -b -r l 2>&1 | grep '^NEEDRESTART-SVC' || true");
    assert!(listed.contains("luks-agent.service") && !listed.contains("luks-agent-"), "{listed}");
    restarts_the_daemon(vm, "needrestart -r a -m a -l 2>&1");
    assert_eq!(before, volumes(vm));
}

/// With the release's own libcryptsetup and kernel; the file that `upgraded` opened is being written meanwhile.
fn reencrypted(vm: &mut Machine, release: &str) {
    eprintln!("-- new volume keys, while the volumes are used");
    if release == "bullseye" {
        let before = vm.ok("cat /etc/luks-agent/state/state.json");
        let rotate = vm.run("luks-agent rotate --volume-key 2>&1");
        assert!(rotate.stdout.contains("and this node has that of 2.3; nothing was changed"), "{}", rotate.stdout);
        assert_eq!(rotate.status, 1);
        assert_eq!(vm.ok("cat /etc/luks-agent/state/state.json"), before);
        vm.ok("luks-agent verify");
        return;
    }
    let digests = "for disk in $(blkid -t TYPE=crypto_LUKS -o device); do
        cryptsetup luksDump $disk | sed -n '/^Digests:/,$p' | grep -A 1 Digest:; done";
    let (old, before) = (vm.ok(digests), volumes(vm));
    vm.ok("head -c 32M /dev/urandom >/mnt1/noise; sha256sum /mnt1/noise >/root/noise.sum; sync -f /mnt1");
    let start = Instant::now();
    let rotate = vm.run_with("luks-agent rotate --volume-key 2>&1", b"", Duration::from_secs(600));
    eprintln!("{} after {:?}", rotate.stdout, start.elapsed());
    assert_eq!(rotate.status, 0);
    assert!(rotate.stdout.contains("2 of 2 volumes have a new volume key"));
    assert_eq!(volumes(vm), before);
    let new = vm.ok(digests);
    assert_eq!(old.lines().count(), new.lines().count());
    assert!(old.lines().filter(|line| *line != "--").all(|line| !new.contains(line)), "old: {old}\nnew: {new}");
    vm.ok("echo 3 >/proc/sys/vm/drop_caches; sha256sum --check /root/noise.sum; luks-agent verify");
    vm.ok("touch /run/since; sleep 1; test /mnt/used -nt /run/since");
    assert_eq!(vm.ok("cat /mnt1/kept"), KEPT);
}

/// Installed, used as `with_it` does, and removed: volumes and agent are as before, and stock cryptsetup as well.
fn plugin_comes_and_goes(vm: &mut Machine, manager: &Manager, package: &str, with_it: impl FnOnce(&mut Machine)) {
    eprintln!("-- the token plug-in");
    let before = volumes(vm);
    assert_ne!(vm.run(&test_passphrase()).status, 0, "a token of this type opened without the plug-in");
    vm.ok(&manager.install(package));
    with_it(vm);
    vm.ok(&format!("{} 2>&1", manager.remove_plugin));
    assert_eq!(vm.ok(PLUGIN_FILES), "");
    assert_ne!(vm.run(&test_passphrase()).status, 0, "the plug-in is still there");
    assert_eq!(volumes(vm), before);
    vm.ok("luks-agent verify && systemctl is-active luks-agent.target && systemctl is-active luks-agent.service");
}

const PLUGIN_FILES: &str = "find /usr /etc /var/lib/dpkg -name '*cryptsetup-token*' -name '*luks-agent*'";

/// Opens nothing, as the agent has the volume open; but needs its passphrase.
fn test_passphrase() -> String {
    format!("cryptsetup open --token-only --test-passphrase /dev/disk/by-id/nvme-*_{EBS_1} 2>&1")
}

/// With the endpoint of the agent's configuration and the credentials of the instance.
fn stock_cryptsetup_uses_the_plugin(vm: &mut Machine, aws: &Server) {
    aws.clear_requests();
    vm.ok(&test_passphrase());
    assert!(aws.count("Decrypt") >= 1, "KMS was not asked");
    let dump = vm.ok(&format!("cryptsetup luksDump /dev/disk/by-id/nvme-*_{EBS_1} 2>&1"));
    assert!(dump.contains("Provider:   aws-kms") && dump.contains(&aws.key_arn()), "{dump}");
}

/// By a release whose libcryptsetup loads no plug-ins.
fn plugin_is_refused(vm: &mut Machine, deb: &str) {
    eprintln!("-- the token plug-in is refused");
    let refused = vm.run(&DEB.install(deb));
    assert_eq!(refused.status, 1, "{refused:?}");
    assert!(refused.stdout.contains("depends on libcryptsetup12 (>= 2:2.4)"), "{refused:?}");
    // dpkg has unpacked it
    vm.ok(&format!("{} 2>&1", DEB.remove_plugin));
    assert_eq!(vm.ok(PLUGIN_FILES), "");
}

fn removed(vm: &mut Machine, manager: &Manager, aws: &Server, package: &str) {
    eprintln!("-- removed: volumes and state stay");
    let before = volumes(vm);
    vm.ok(&format!("{} 2>&1", manager.remove));
    assert_eq!(volumes(vm), before);
    assert_eq!(vm.run("systemctl is-active luks-agent.service").stdout, "inactive\n");
    vm.ok(&format!("test -s {STATE} && test -s {DROP_IN} && ! test -e /usr/sbin/luks-agent"));
    assert_eq!(vm.ok("cat /mnt1/kept"), KEPT);

    eprintln!("-- reboot without it, then installed again: the volumes are back");
    vm.reboot();
    assert_eq!(vm.ok("ls /dev/mapper"), "control");
    vm.ok(&manager.install(package));
    aws.clear_requests();
    vm.ok("systemctl start luks-agent.target luks-agent.service");
    ready(vm);
    assert_eq!(aws.count("GenerateDataKey"), 0);
    assert_eq!(vm.ok("cat /mnt1/kept"), KEPT);
}

fn purged(vm: &mut Machine, deb: &str) {
    eprintln!("-- purged: the state stays, as volumes depend on it");
    let said = vm.ok("dpkg -P luks-agent 2>&1");
    assert!(said.contains("/etc/luks-agent/state is kept"), "{said}");
    vm.ok(&format!("test -s {STATE} && ! test -e /etc/luks-agent/config.toml && cat /mnt1/kept"));

    eprintln!("-- installed again, and purged when there is no volume any more");
    vm.ok(&format!("dpkg -i /opt/test/{deb} 2>&1; luks-agent unlock; luks-agent close"));
    // what an operator does with volumes that are not needed any more
    vm.ok(&format!("rm {STATE} {DROP_IN}"));
    let said = vm.ok("dpkg -P luks-agent 2>&1");
    assert!(!said.contains("kept"), "{said}");
    assert_eq!(vm.ok("find /etc /run /usr /var/lib/systemd -path '*luks-agent*' -not -path '/run/udev/*' -not -path '/run/systemd/units/*'"), "");
}

/// Everything is open and mounted, and nothing failed.
fn ready(vm: &mut Machine) {
    wait(vm, "the volumes", "systemctl is-active luks-agent.target && systemctl is-active luks-agent.service");
    for at in MOUNTS {
        assert!(vm.ok(&format!("findmnt -no SOURCE {at}")).starts_with("/dev/mapper/luks-"));
    }
    wait(vm, "the daemon's first look", "test -s /run/luks-agent/health.json");
    wait(vm, "the system", "systemctl is-system-running");
}

/// Until a command succeeds.
fn wait(vm: &mut Machine, what: &str, command: &str) {
    let start = Instant::now();
    while vm.run(command).status != 0 {
        if start.elapsed() > Duration::from_secs(120) {
            let units = vm.run("systemctl --no-pager --failed; systemctl list-jobs; journalctl -b --no-pager -n 60 -u 'luks-agent*'").stdout;
            panic!("{what} did not come: {command}\n{units}");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}
