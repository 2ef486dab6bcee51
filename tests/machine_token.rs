//! Stock tools open the agent's volumes through KMS on a whole Debian: `cryptsetup` with the token plug-in, and systemd-cryptsetup at boot,
//! with the plug-in and with the key-file socket. Debian 12 has cryptsetup 2.6, Debian 13 has 2.7.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod support;

use std::time::{Duration, Instant};

use fake_aws::{Effect, Fault, KeyState, Server};
use serde_json::{Value, json};
use support::ec2::{self, EBS_1, STORE_1};
use support::qemu::Machine;
use support::service::{self, idle, wait};
use support::{project_dir, token_plugin};

const STOCK_TOOLS: &str = "docs/stock-tools.md";
const KEPT: &str = "kept in plain text";

#[test]
#[ignore = "machine tier: needs QEMU, run make test-machine"]
fn stock_tools_on_debian_12() {
    stock_tools("bookworm", "cryptsetup 2.6.");
}

#[test]
#[ignore = "needs QEMU and minutes, run make test-packages"]
fn stock_tools_on_debian_13() {
    stock_tools("trixie", "cryptsetup 2.7.");
}

fn stock_tools(release: &str, version: &str) {
    let aws = ec2::aws();
    let plugin = token_plugin::build(&format!("machine-{release}"), &[]);
    let vm = Machine::of_release(&format!("stock-tools-{release}"), release)
        .tool(support::program("luks-agent"))
        .tool(&plugin)
        .nvme(STORE_1, ec2::VOLUME)
        .nvme(EBS_1, ec2::VOLUME)
        .forward(80, aws.addresses()[0])
        .memory(2048);
    let mut vm = service::files().into_iter().fold(vm, Machine::tool);
    vm.boot();
    assert!(vm.ok("cryptsetup --version").starts_with(version));
    // where this libcryptsetup looks
    vm.ok(&format!(
        "folder=$(cryptsetup --help | sed -n 's/^.*token plugin path: \\(.*\\)\\.$/\\1/p')
         mkdir -p $folder /var/log/journal
         install -m 644 /opt/test/{} $folder/libcryptsetup-token-luks-agent-awskms.so",
        plugin.file_name().unwrap().to_str().unwrap()
    ));
    service::install(&mut vm);
    vm.write_file("/etc/luks-agent/config.toml", ec2::config(&aws));
    let node = Node::made_by_the_agent(&mut vm);

    cryptsetup_opens(&mut vm, &node);
    keys_that_do_not_come(&mut vm, &aws, &node);
    other_tokens(&mut vm, &aws, &node);
    other_agents(&mut vm, &node);
    crypttab_opens_at_boot(&mut vm, &aws, &node);
    crypttab_and_the_agent(&mut vm);
    crypttab_without_kms(&mut vm, &aws, &node);
    vm.power_off();
}

/// A node with two volumes.
struct Node {
    /// The one that is opened by hand.
    device: String,
    /// LUKS UUIDs: of that one, and of the other.
    uuids: [String; 2],
}

impl Node {
    fn made_by_the_agent(vm: &mut Machine) -> Self {
        vm.ok("systemctl start luks-agent.target luks-agent.service");
        vm.ok(&format!("for at in /mnt /mnt1; do echo '{KEPT}' >$at/kept; sync -f $at; done"));
        idle(vm);
        let mut volume = |at: &str| vm.ok(&format!("findmnt -no SOURCE {at}")).replace("/dev/mapper/luks-", "");
        let uuids = [volume("/mnt"), volume("/mnt1")];
        let device = vm.ok(&format!("readlink -f /dev/disk/by-uuid/{}", uuids[0]));
        // from here on, somebody else opens them
        vm.ok("systemctl --quiet disable luks-agent.target luks-agent.service
             systemctl stop luks-agent.service luks-agent-boot.service");
        assert_eq!(vm.ok("ls /dev/mapper"), "control");
        Self { device, uuids }
    }
}

/// Runs cryptsetup as where nobody can type. Returns how it ended and what it said.
fn cryptsetup(vm: &mut Machine, arguments: &str) -> (i64, String) {
    let ran = vm.run(&format!("exec cryptsetup {arguments} </dev/null 2>&1"));
    eprintln!("# cryptsetup {arguments}\n{}", ran.stdout.trim_end());
    (ran.status, ran.stdout)
}

fn succeeds(vm: &mut Machine, arguments: &str) -> String {
    let (status, said) = cryptsetup(vm, arguments);
    assert_eq!(status, 0, "{said}");
    said
}

fn opens(vm: &mut Machine, Node { device, .. }: &Node) {
    succeeds(vm, &format!("open --token-only --test-passphrase {device}"));
}

/// It fails, says why, and leaves nothing open.
fn fails(vm: &mut Machine, Node { device, .. }: &Node, reason: &str) {
    let began = Instant::now();
    let (status, said) = cryptsetup(vm, &format!("open --token-only {device} rescued"));
    assert_eq!(status, 1, "{said}");
    assert!(said.contains(reason), "{said}");
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    assert_eq!(vm.ok("ls /dev/mapper; pgrep luks-agent || true"), "control");
}

fn cryptsetup_opens(vm: &mut Machine, node: &Node) {
    eprintln!("-- by hand");
    let Node { device, .. } = node;
    vm.ok(&documented("README.md", "break-glass with the plug-in", device));
    assert_eq!(vm.ok("cat /media/kept; umount /media"), KEPT);
    succeeds(vm, "resize --token-only rescued");
    succeeds(vm, "luksSuspend rescued");
    succeeds(vm, "luksResume --token-only rescued");
    vm.ok("mount -o ro /dev/mapper/rescued /mnt; cat /mnt/kept; umount /mnt; cryptsetup close rescued");
    let dump = succeeds(vm, &format!("luksDump {device}"));
    for line in
        ["luks-agent-awskms", "Provider:   aws-kms", "Region:     us-east-1", "Key:        arn:aws:kms:us-east-1:"]
    {
        assert!(dump.contains(line), "{line}: {dump}");
    }
}

/// KMS is away, slow, or refuses.
fn keys_that_do_not_come(vm: &mut Machine, aws: &Server, node: &Node) {
    eprintln!("-- KMS is down");
    aws.push_fault(Fault::new("Decrypt", Effect::Hang));
    fails(vm, node, "luks-agent: KMS Decrypt with KMS key arn:aws:kms:us-east-1:");
    aws.clear_faults();
    aws.set_key_state(&aws.key_arn(), KeyState::Disabled).unwrap();
    // asked for a passphrase only where --token-only does not keep cryptsetup from it
    let typed = vm.run(&format!("echo wrong | cryptsetup open {} rescued 2>&1", node.device));
    assert!(typed.status == 2 && typed.stdout.contains("the KMS key is disabled"), "{typed:?}");
    aws.set_key_state(&aws.key_arn(), KeyState::Enabled).unwrap();

    eprintln!("-- access denied");
    aws.set_allow(Some(&["DescribeKey"]));
    fails(vm, node, "kms:Decrypt");
    aws.set_allow(None);

    eprintln!("-- another Region");
    let elsewhere = vm.ok(&format!(
        "AWS_REGION=eu-west-1 AWS_DEFAULT_REGION=eu-west-1 cryptsetup open --token-only --test-passphrase {} 2>&1",
        node.device
    ));
    assert_eq!(elsewhere, "");
    opens(vm, node);
}

/// Replaces the token by what `change` makes of it; cryptsetup has the plug-in validate it.
fn change_token(vm: &mut Machine, Node { device, .. }: &Node, change: impl FnOnce(&mut Value)) {
    let mut token = serde_json::from_str(&vm.ok(&format!("cryptsetup token export --token-id 0 {device}"))).unwrap();
    change(&mut token);
    vm.write_file("/run/token", token.to_string());
    vm.ok(&format!("cryptsetup token import --token-replace --token-id 0 --json-file /run/token {device}"));
}

fn other_tokens(vm: &mut Machine, aws: &Server, node: &Node) {
    let ours: Value =
        serde_json::from_str(&vm.ok(&format!("cryptsetup token export --token-id 0 {}", node.device))).unwrap();

    eprintln!("-- a token of a later version");
    change_token(vm, node, |token| {
        token["version"] = json!(9);
        token["more"] = json!({"of": ["it"]});
    });
    opens(vm, node);
    change_token(vm, node, |token| token["instance_id"] = json!({"later": 1}));
    fails(vm, node, "if a later release of luks-agent wrote it, install that release");

    eprintln!("-- tokens of an enemy");
    aws.clear_requests();
    // libcryptsetup accepts no more than 31
    let deep = (0..25).fold(json!(1), |inner, _| json!([inner]));
    let changes: [(&str, Value, &str); 6] = [
        ("key_arn", json!("arn:aws:kms:evil.example/:111122223333:key/1"), "names no KMS key"),
        ("key_arn", json!("arn:aws:kms:us-east-1:111122223333:key/\u{0}\u{1b}[2J"), "names no KMS key"),
        ("wrapped_key", json!("A".repeat(8500)), "the wrapped key has"),
        ("wrapped_key", deep, "the token on standard input cannot be read"),
        ("wrapped_key", json!(""), "the wrapped key has"),
        ("type", json!("another-program"), "rescued"),
    ];
    for (name, value, reason) in changes {
        change_token(vm, node, |token| {
            token.clone_from(&ours);
            token[name] = value;
        });
        if name == "type" {
            // nobody has a plug-in for it
            let (status, said) = cryptsetup(vm, &format!("open --token-only {} rescued", node.device));
            assert!(status == 1 && !said.contains("luks-agent:"), "{said}");
        } else {
            fails(vm, node, reason);
            let dump = succeeds(vm, &format!("luksDump {}", node.device));
            assert!(!dump.contains(['\u{1b}', '\0']), "{dump:?}");
        }
    }
    assert_eq!(aws.count("Decrypt"), 0);
    change_token(vm, node, |token| token.clone_from(&ours));
    opens(vm, node);

    eprintln!("-- a key of another Region");
    let arn = ours["key_arn"].as_str().unwrap();
    change_token(vm, node, |token| token["key_arn"] = json!(arn.replace("us-east-1", "eu-west-1")));
    fails(vm, node, "KMS Decrypt with KMS key arn:aws:kms:eu-west-1:");
    change_token(vm, node, |token| token.clone_from(&ours));
}

/// An agent from before `unwrap`, and none. What a later one answers is the same pipe, and any exit code.
fn other_agents(vm: &mut Machine, node: &Node) {
    eprintln!("-- an earlier agent, a later one, and none");
    let agent = "/usr/sbin/luks-agent";
    vm.ok(&format!("mv {agent} /root/agent"));
    fails(vm, node, "cannot start /usr/sbin/luks-agent");
    vm.write_file(agent, "#!/bin/sh\necho \"error: unrecognized subcommand 'unwrap'\" >&2\nexit 2\n");
    vm.ok(&format!("chmod 755 {agent}"));
    fails(vm, node, "unrecognized subcommand 'unwrap'");
    vm.write_file(agent, "#!/bin/sh\necho 'a word of a later release' >&2\nexec /root/agent \"$@\"\n");
    opens(vm, node);
    vm.ok(&format!("mv /root/agent {agent}"));
}

/// The commands between these markers of a page, for another device.
fn documented(page: &str, mark: &str, device: &str) -> String {
    let text = std::fs::read_to_string(project_dir().join(page)).unwrap();
    let (_, rest) = text.split_once(&format!("<!-- {mark} -->\n```sh\n")).unwrap();
    let (commands, _) = rest.split_once(&format!("```\n<!-- end of {mark} -->")).unwrap();
    assert!(commands.contains("/dev/nvme1n1") || mark == "socket", "{commands}");
    commands.replace("/dev/nvme1n1", device)
}

/// The first volume by the plug-in, the second by the socket, and no agent at work.
fn crypttab_opens_at_boot(vm: &mut Machine, aws: &Server, node: &Node) {
    eprintln!("-- lines of crypttab and fstab, without the agent's service");
    for (uuid, at) in node.uuids.iter().zip(["/mnt", "/mnt1"]) {
        let device = vm.ok(&format!("readlink -f /dev/disk/by-uuid/{uuid}"));
        let commands = documented(STOCK_TOOLS, "crypttab", &device);
        assert!(commands.contains(" /data "), "{commands}");
        vm.ok(&commands.replace(" /data ", &format!(" {at} ")));
    }
    vm.ok(&format!("uuid={}\n{}", node.uuids[1], documented(STOCK_TOOLS, "socket", &node.device)));
    aws.clear_requests();
    vm.reboot();
    wait(vm, "the volumes", "findmnt -n /mnt && findmnt -n /mnt1");
    assert_eq!(vm.ok("cat /mnt/kept /mnt1/kept"), format!("{KEPT}\n{KEPT}"));
    assert_eq!(aws.count("Decrypt"), 2);
    assert_eq!(vm.run("systemctl is-active luks-agent-boot.service luks-agent.service").stdout, "inactive\ninactive\n");
    let said = vm.ok("journalctl -b --no-pager -o cat -u 'luks-agent-key@*'");
    assert!(said.contains(&format!("gave systemd-cryptsetup the key of volume {}", node.uuids[1])), "{said}");
    assert!(!said.contains(&node.uuids[0]), "{said}");
    is_running(vm);
}

fn is_running(vm: &mut Machine) {
    wait(vm, "the system", "systemctl is-system-running");
    assert_eq!(vm.ok("systemctl --failed --no-legend"), "");
}

/// systemd opens the volumes at boot, and the agent, whose service is on again, finds them open.
fn crypttab_and_the_agent(vm: &mut Machine) {
    eprintln!("-- with the agent's service, which mounts what systemd has opened");
    vm.ok("sed -i '/luks-/d' /etc/fstab
         systemctl --quiet enable remote-cryptsetup.target luks-agent.target luks-agent.service");
    vm.reboot();
    wait(vm, "the volumes", "systemctl is-active luks-agent.target");
    assert_eq!(vm.ok("cat /mnt/kept /mnt1/kept"), format!("{KEPT}\n{KEPT}"));
    idle(vm);
    let boot = vm.ok("journalctl -b --no-pager -o cat -u luks-agent-boot.service");
    assert!(boot.contains("boot: 2 unlocked") && !boot.contains("KMS"), "{boot}");
    assert_eq!(vm.ok("systemctl is-active 'systemd-cryptsetup@luks*'"), "active\nactive");
    let status = vm.ok("luks-agent status");
    assert_eq!(status.matches(" open ").count(), 2, "{status}");
    is_running(vm);
    // at shutdown, neither complains of the other
    vm.ok("systemctl stop luks-agent-boot.service");
    assert_eq!(vm.ok("ls /dev/mapper"), "control");
    vm.ok("systemctl stop 'systemd-cryptsetup@luks*'");
    is_running(vm);
}

/// The units fail with the reason, and ask nobody for a passphrase.
fn crypttab_without_kms(vm: &mut Machine, aws: &Server, node: &Node) {
    eprintln!("-- KMS refuses while systemd opens them");
    vm.ok("systemctl stop luks-agent.service");
    let units = node.uuids.each_ref().map(|uuid| {
        let name = format!("systemd-escape --template=systemd-cryptsetup@.service luks-{uuid}");
        format!("'{}'", vm.ok(&name))
    });
    aws.set_key_state(&aws.key_arn(), KeyState::Disabled).unwrap();
    for (unit, speaker) in units.iter().zip([units[0].as_str(), "'luks-agent-key@*'"]) {
        let since = vm.ok("date +@%s");
        assert_ne!(vm.run(&format!("systemctl start {unit}")).status, 0);
        let said = vm.ok(&format!("journalctl --no-pager -o cat --since={since} -u {unit} -u {speaker}"));
        assert!(said.contains("the KMS key is disabled") && said.contains("Password querying disabled"), "{said}");
    }
    assert_eq!(vm.ok("ls /dev/mapper"), "control");
    aws.set_key_state(&aws.key_arn(), KeyState::Enabled).unwrap();
    vm.ok(&format!("systemctl start {}", units.join(" ")));
    assert_eq!(vm.ok("ls /dev/mapper").lines().count(), 3);
}
