//! `make demo`: the whole story on a machine like an EC2 node. First boot, a file, a reboot, the file read back, and what
//! the raw disks and AWS get to see.
//!
//! The node is a Debian in QEMU, with the harness of the machine tier; KMS and the instance metadata service are the
//! fake endpoint of the tests, which runs in this process. Everything that is shown is what the commands printed.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, reason = "a story, told on a terminal")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::io::IsTerminal;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use fake_aws::Server;
use support::ec2::{self, EBS_1, EBS_2, STORE_1, STORE_2};
use support::qemu::Machine;

/// Something that nothing else has on its disk.
const SECRET: &str = "Ada Lovelace, born 10 December 1815, account 4711-0815";

fn main() -> ExitCode {
    set_hook(Box::new(|panic| eprintln!("\ndemo failed: {}", panic.payload_as_str().unwrap_or("no reason given"))));
    // a failed step ends in a panic, at which the machine prints the last of its console
    match catch_unwind(AssertUnwindSafe(story)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn story() {
    println!("luks-agent: an EC2 node encrypts its disks, reboots, and has them back.");
    println!("The node is a VM on this machine, its AWS a stand-in beside it. What the commands print is real.");
    let aws = ec2::aws();
    // makes the image of the VM, if that was not done before
    let vm = ec2::node_with_agent("demo", &aws).quiet();
    let began = Instant::now();
    let mut demo = Demo { vm, step: 0, began };

    demo.step("A node boots for the first time, with two instance store and two EBS volumes, all of them blank.");
    demo.booting(Machine::boot);
    demo.node("lsblk -o NAME,SIZE,MODEL,SERIAL,MOUNTPOINTS /dev/vda /dev/nvme?n1");

    demo.step("All it has to be told is the KMS key; here also where the fake AWS is. Credentials come from its role.");
    demo.vm.write_file("/etc/luks-agent/config.toml", ec2::config(&aws));
    demo.node("cat /etc/luks-agent/config.toml");

    demo.step("The plan, disk by disk, with the evidence. Nothing is written yet; the boot volume is never touched.");
    demo.node("luks-agent plan");

    demo.step("One data key from KMS, then every volume is encrypted, given a file system and mounted.");
    demo.node("luks-agent provision");
    demo.node("lsblk -o NAME,SIZE,TYPE,FSTYPE,MOUNTPOINTS /dev/nvme?n1");

    demo.step(
        "A file with something to protect on an EBS volume, and for comparison a copy on the unencrypted boot volume.",
    );
    demo.node(&format!("echo '{SECRET}' > /mnt2/customers.txt"));
    demo.node("cp /mnt2/customers.txt /root/copy-in-clear.txt");

    demo.step("The node reboots, and the controllers come up in another order: nvme0 is now another volume.");
    demo.vm.attach_order(&[EBS_2, EBS_1, STORE_2, STORE_1]);
    demo.booting(Machine::reboot);
    demo.node("luks-agent status");

    demo.step("The key is unwrapped once, all volumes are back where they were, and so is the file.");
    demo.node("luks-agent unlock");
    demo.node("cat /mnt2/customers.txt");
    demo.node("cmp /mnt2/customers.txt /root/copy-in-clear.txt && echo the same");

    demo.step(
        "The node is switched off. Somebody gets hold of its disks and looks for the name in every byte of them.",
    );
    demo.vm.power_off();
    demo.look_at_raw_disks();

    demo.step("What AWS saw of all this: every request to KMS, none with an encryption context.");
    show_requests(&aws);

    println!("\nThat was the whole story, in {}.", seconds(began.elapsed()));
}

struct Demo {
    vm: Machine,
    step: u32,
    began: Instant,
}

impl Demo {
    fn step(&mut self, what: &str) {
        self.step += 1;
        let at = self.began.elapsed().as_secs();
        println!("\n{}  ({}:{:02})", bold(&format!("{}. {what}", self.step)), at / 60, at % 60);
    }

    /// Boots or reboots, and says how long that took.
    fn booting(&mut self, boot: impl FnOnce(&mut Machine) -> Duration) {
        println!("booting ...");
        println!("booted in {}", seconds(boot(&mut self.vm)));
    }

    /// Shows a command as it is typed on the node, runs it, shows what it printed, log lines left out. It must succeed.
    fn node(&mut self, command: &str) {
        println!("{} {command}", bold("node$"));
        let output = self.vm.ok(&format!("{command} 2>/tmp/stderr || {{ cat /tmp/stderr >&2; false; }}"));
        let output = without_backing_disks(&output);
        if !output.is_empty() {
            println!("{output}");
        }
    }

    fn look_at_raw_disks(&self) {
        println!("{:<22} {:<34} FOUND", "DISK", "LOOKED FOR");
        let look = |disk: &str, what: &str, needle: &[u8], expected: bool| {
            let found = self.vm.disk_holds(disk, needle);
            println!("{disk:<22} {what:<34} {}", if found { "yes" } else { "no" });
            assert_eq!(found, expected, "'{what}' on the raw disk {disk}");
        };
        // the control: the same search finds the text where it is in clear
        look("boot", "the name, in the copy in clear", SECRET.as_bytes(), true);
        for disk in [STORE_1, STORE_2, EBS_1, EBS_2] {
            look(disk, "a LUKS header", b"LUKS\xba\xbe", true);
            look(disk, "the name", SECRET.as_bytes(), false);
        }
    }
}

/// The virtio disks that play the volumes behind the NVMe controllers are not shown: no EC2 node has them.
fn without_backing_disks(output: &str) -> String {
    let mut hidden = false;
    let mut shown = Vec::new();
    for line in output.lines() {
        if !line.starts_with("    ") {
            hidden = line.starts_with("vd") && !line.starts_with("vda");
        }
        if !hidden {
            shown.push(line);
        }
    }
    shown.join("\n")
}

fn show_requests(aws: &Server) {
    let requests = aws.requests().into_iter().filter(|request| !request.operation.starts_with("imds:"));
    println!("{:<16} {:<8} {:<20} {:<8} BY", "OPERATION", "STATUS", "KEY", "CONTEXT");
    for request in requests {
        assert_eq!(request.encryption_context, None, "{} has an encryption context", request.operation);
        let key = request.key_id.unwrap_or_default();
        let key = key.rsplit(':').next().unwrap_or_default().get(..17).unwrap_or(&key).to_owned() + "...";
        let agent = request.user_agent.unwrap_or_default();
        let by = agent.split(' ').find_map(|word| word.strip_prefix("app/")).unwrap_or("?").to_owned();
        let status = request.status.unwrap_or_default();
        println!("{:<16} {status:<8} {key:<20} {:<8} {by}", request.operation, "none");
    }
}

fn bold(text: &str) -> String {
    if std::io::stdout().is_terminal() { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
}

fn seconds(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}
