//! A Debian machine in QEMU, with systemd, udev and disks that look as on EC2.
//!
//! ```no_run
//! let mut vm = Machine::new("story")
//!     .nvme("vol0123456789abcdef0", 400 * MIB)   // an NVMe controller with EC2's names, attached at boot in this order
//!     .disk("plain", 64 * MIB)                   // a plain virtio disk, by-id/virtio-plain
//!     .tool(support::program("luks-agent"))      // in the guest: /opt/test/luks-agent, in the PATH
//!     .forward(80, fake_aws_address);            // in the guest: 169.254.169.254:80
//! vm.boot();
//! vm.ok("ec2-nvme.sh list");
//! vm.attach_order(&[...]);
//! vm.reboot();
//! ```
//!
//! Everything of one machine lives in a directory under cargo's target directory, removed at the end unless `KEEP_VM`
//! is set. `MACHINE_ACCEL=kvm` or `tcg` overrides the choice of the accelerator.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::volatile::{Lost, Volatile};

pub const MIB: u64 = 1 << 20;

/// Where the guest finds what [`Machine::forward`] forwards: the address of the instance metadata service.
pub const AWS_ADDRESS: &str = "169.254.169.254";

/// Software emulation on a busy machine is slow; these are for "hangs", not for "slow". The longest seen: a boot that installs the package
/// while apt's locks are held, 170 s after commands could be run.
const BOOT_LIMIT: Duration = Duration::from_secs(600);
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(300);
const COMMAND_LIMIT: Duration = Duration::from_secs(600);

const GUEST_ENVIRONMENT: [&str; 3] =
    ["PATH=/opt/test:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"];

const POLL: Duration = Duration::from_millis(50);

/// What systemd does at every boot and no test asks for.
const UNITS_LEFT_OUT: [&str; 14] = [
    "dev-mqueue.mount",
    "kmod-static-nodes.service",
    "modprobe@configfs.service",
    "modprobe@drm.service",
    "modprobe@efi_pstore.service",
    "modprobe@fuse.service",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-journal-flush.service",
    "systemd-modules-load.service",
    "systemd-random-seed.service",
    "systemd-sysctl.service",
    "systemd-sysusers.service",
    "systemd-tmpfiles-clean.timer",
];

/// A machine has some hundred devices, of which a few matter to the tests, and `ttyS0`, which its getty waits for.
const QUICK_TRIGGER: &str = "[Service]\nExecStart=\nExecStart=-udevadm trigger --action=add --subsystem-match=virtio \
    --subsystem-match=virtio-ports --subsystem-match=block --subsystem-match=net\n\
    ExecStart=-udevadm trigger --action=add --sysname-match=ttyS0\n";

/// The architecture of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    X86_64,
    Aarch64,
}

/// What a command in the guest did.
#[derive(Debug)]
pub struct Output {
    /// Exit code, or 128 + signal.
    pub status: i64,
    pub stdout: String,
    pub stderr: String,
}

#[derive(Debug)]
struct Disk {
    serial: String,
    path: PathBuf,
    limit: Option<Limit>,
}

/// What a disk does at most, reads and writes together.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    pub requests_per_second: u64,
    pub bytes_per_second: u64,
}

impl Disk {
    /// As the guest's virtio disk; ec2-nvme.sh knows the rule. The disk behind a controller must not have its serial, or
    /// the two look like two paths to one disk.
    fn virtio_serial(&self) -> String {
        match self.serial.as_str() {
            nvme if nvme.starts_with("vol") || nvme.starts_with("AWS") => {
                format!("behind-{}", &nvme[nvme.len().saturating_sub(13)..])
            }
            plain => plain.to_owned(),
        }
    }
}

#[derive(Debug)]
struct Running {
    qemu: Child,
    agent_socket: PathBuf,
    /// Disks with volatile caches, if it has such.
    caches: Vec<Volatile>,
}

/// One virtual machine: its disks, which last, and its QEMU process while it runs.
#[derive(Debug)]
pub struct Machine {
    name: String,
    arch: Arch,
    dir: PathBuf,
    /// In /tmp, because the path of a socket must be short.
    sockets: tempfile::TempDir,
    image: PathBuf,
    disks: Vec<Disk>,
    order: Vec<String>,
    forwards: Vec<(u16, SocketAddr)>,
    kernel_args: Vec<String>,
    memory_mib: u64,
    quiet: bool,
    volatile: Option<fastrand::Rng>,
    boots: u32,
    running: Option<Running>,
}

impl Machine {
    /// A machine with only its boot disk, of the release that this machine has, whose programs it is to run: Debian 12 or 13. Builds
    /// the image when it is not there yet (about a minute, once).
    ///
    /// # Panics
    ///
    /// When a program that is needed is not installed, naming its Debian package.
    pub fn new(name: &str) -> Self {
        Self::of_release(name, own_release())
    }

    /// The same of another release of Debian.
    pub fn of_release(name: &str, release: &str) -> Self {
        Self::of_architecture(name, release, Arch::X86_64)
    }

    /// The same for another architecture, by software emulation.
    pub fn of_architecture(name: &str, release: &str, arch: Arch) -> Self {
        require_programs(arch);
        let image = image(release, arch);
        let dir = super::scratch_dir().join(format!("machine-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("tools")).unwrap();
        host(
            Command::new("qemu-img")
                .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
                .arg(image.join("disk.img"))
                .arg(dir.join("boot.qcow2")),
        );
        let guest_files = super::project_dir().join("tests/machine");
        Self {
            name: name.to_owned(),
            arch,
            sockets: tempfile::Builder::new().prefix("machine-").tempdir().unwrap(),
            image,
            disks: Vec::new(),
            order: Vec::new(),
            forwards: Vec::new(),
            kernel_args: Vec::new(),
            memory_mib: 1024,
            quiet: false,
            volatile: None,
            boots: 0,
            running: None,
            dir,
        }
        .tool(guest_files.join("ec2-nvme.sh"))
    }

    /// A blank virtio disk of `bytes`, `/dev/disk/by-id/virtio-SERIAL`. At most 20 characters.
    pub fn disk(mut self, serial: &str, bytes: u64) -> Self {
        self.add_disk(serial, bytes);
        self
    }

    /// A blank disk behind an NVMe controller with EC2's model names: EBS when `serial` is `vol…`, instance store when
    /// it is `AWS…`. Attached at boot, in the order of the calls. `mkfs.xfs` needs 300 MiB.
    pub fn nvme(mut self, serial: &str, bytes: u64) -> Self {
        self.order.push(serial.to_owned());
        self.disk(serial, bytes)
    }

    /// Copies a program or file of the host to `/opt/test` of the guest, which is in the PATH.
    pub fn tool(self, path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        let copy = self.dir.join("tools").join(path.file_name().unwrap());
        fs::copy(path, &copy).unwrap_or_else(|error| panic!("copy {} for the guest: {error}", path.display()));
        self
    }

    /// Makes `169.254.169.254:guest_port` of the guest lead to `host` on this machine. The guest reaches nothing else.
    pub fn forward(mut self, guest_port: u16, host: SocketAddr) -> Self {
        self.forwards.push((guest_port, host));
        self
    }

    /// An argument for the guest's kernel command line.
    pub fn kernel_arg(mut self, arg: &str) -> Self {
        self.kernel_args.push(arg.to_owned());
        self
    }

    /// For a machine that boots many times: what no test asks for is left out of its boots.
    pub fn lean(self) -> Self {
        self.kernel_arg(&UNITS_LEFT_OUT.map(|unit| format!("systemd.mask={unit}")).join(" "))
    }

    /// Has later boots look only at the devices that matter here. The machine is running.
    pub fn lean_from_the_next_boot(&mut self) {
        self.write_file("/etc/systemd/system/systemd-udev-trigger.service.d/quick.conf", QUICK_TRIGGER);
    }

    /// All disks have volatile write caches: a power cut loses a random part of what the guest has not flushed (see
    /// [`Volatile`]). The boot disk is a copy of the image then.
    pub fn volatile_caches(mut self, random: fastrand::Rng) -> Self {
        host(
            Command::new("cp")
                .args(["--sparse=always", "--no-preserve=mode"])
                .arg(self.image.join("disk.img"))
                .arg(self.dir.join("boot.img")),
        );
        self.volatile = Some(random);
        self
    }

    /// Says nothing of how long booting took.
    pub fn quiet(mut self) -> Self {
        self.quiet = true;
        self
    }

    pub fn memory(mut self, mib: u64) -> Self {
        self.memory_mib = mib;
        self
    }

    /// Whether it runs on KVM, which is tens of times faster than software emulation.
    pub fn on_kvm(&self) -> bool {
        accelerator(&self.image)[1] == "kvm"
    }

    /// Adds a disk while the machine is off: it is there at the next boot, as a plain virtio disk or, with a serial of
    /// `vol…` or `AWS…`, for [`attach_order`](Self::attach_order) or `ec2-nvme.sh attach`.
    pub fn add_disk(&mut self, serial: &str, bytes: u64) {
        assert!(serial.len() <= 20, "virtio serials have at most 20 characters: {serial}");
        let path = self.dir.join(format!("{serial}.img"));
        File::create_new(&path).unwrap().set_len(bytes).unwrap();
        self.disks.push(Disk { serial: serial.to_owned(), path, limit: None });
    }

    /// The same of a disk that is as slow as QEMU is told.
    pub fn add_slow_disk(&mut self, serial: &str, bytes: u64, limit: Limit) {
        self.add_disk(serial, bytes);
        self.disks.last_mut().unwrap().limit = Some(limit);
    }

    /// All disks, `boot` among them.
    pub fn disk_names(&self) -> impl Iterator<Item = &str> {
        std::iter::once("boot").chain(self.disks.iter().map(|disk| disk.serial.as_str()))
    }

    /// The image of a disk, on the host: raw, but that of `boot` is qcow2, in which a search finds what is short.
    pub fn disk_path(&self, serial: &str) -> PathBuf {
        if serial == "boot" {
            return self.dir.join("boot.qcow2");
        }
        let disk = self.disks.iter().find(|disk| disk.serial == serial);
        disk.unwrap_or_else(|| panic!("machine {} has no disk {serial}", self.name)).path.clone()
    }

    /// Whether the image of a disk holds these bytes anywhere. Power off first, or sync in the guest.
    pub fn disk_holds(&self, serial: &str, needle: &[u8]) -> bool {
        super::holds(&self.disk_path(serial), needle)
    }

    /// Which NVMe controllers are attached at the next boot, in which order. The first is `nvme0`.
    pub fn attach_order(&mut self, serials: &[&str]) {
        self.order = serials.iter().map(|&serial| serial.to_owned()).collect();
    }

    /// Starts the machine, waits until systemd has finished booting and commands can be run, returns how long it took.
    pub fn boot(&mut self) -> Duration {
        let start = Instant::now();
        self.boot_until_commands_run();
        // "degraded" is for the test to find: it may have meant a unit to fail
        self.run("systemctl is-system-running --wait");
        self.note(&format!("boot {} took {:.1} s", self.boots, start.elapsed().as_secs_f32()));
        start.elapsed()
    }

    /// Starts the machine, waits until commands can be run, whatever systemd still waits for.
    pub fn boot_until_commands_run(&mut self) {
        assert!(self.running.is_none(), "machine {} runs already", self.name);
        let start = Instant::now();
        self.start_qemu();
        while self.agent("guest-ping", json!({})).is_err() {
            self.assert_alive();
            assert!(start.elapsed() < BOOT_LIMIT, "machine {} did not boot in {BOOT_LIMIT:?}", self.name);
            if self.hangs_before_user_space() {
                self.note("the kernel hangs before user space, switched off and on");
                self.power_cut();
                self.start_qemu();
            }
            sleep(POLL);
        }
    }

    fn start_qemu(&mut self) {
        self.boots += 1;
        self.make_tools_disk();
        let agent_socket = self.sockets.path().join(format!("agent-{}", self.boots));
        let caches = self.serve_disks();
        let mut command = self.qemu_command(&agent_socket);
        fs::write(self.dir.join("qemu.args"), format!("{command:?}\n")).unwrap();
        let qemu = command
            .stdin(Stdio::null())
            .stdout(File::create(self.dir.join("qemu.log")).unwrap())
            .stderr(File::options().append(true).open(self.dir.join("qemu.log")).unwrap())
            .spawn()
            .unwrap();
        self.running = Some(Running { qemu, agent_socket, caches });
    }

    /// Whether the kernel says that its own start hangs, as it does now and then under software emulation. Its process has this name
    /// until it runs init, so nothing has been read from or written to a disk, and no program of a test has run.
    fn hangs_before_user_space(&self) -> bool {
        let console = fs::read(self.console()).unwrap_or_default();
        String::from_utf8_lossy(&console)
            .lines()
            .any(|line| line.contains("soft lockup") && line.contains("[swapper/0:1]"))
    }

    /// What the machine has said since its last boot.
    fn console(&self) -> PathBuf {
        self.dir.join(format!("console-{}.log", self.boots))
    }

    /// Starts a bash command as root and does not wait for its end. What it says is lost.
    pub fn start(&mut self, command: &str) {
        let start = json!({ "path": "/bin/bash", "arg": ["-c", command], "env": GUEST_ENVIRONMENT });
        if let Err(error) = self.agent("guest-exec", start) {
            panic!("machine {}: cannot run `{command}`: {error}", self.name);
        }
    }

    /// Runs a bash command as root. It must end in [`COMMAND_LIMIT`].
    pub fn run(&mut self, command: &str) -> Output {
        self.run_with(command, b"", COMMAND_LIMIT)
    }

    /// Runs a bash command with `stdin`, for at most `limit`.
    ///
    /// # Panics
    ///
    /// When the command does not end in time or the machine dies.
    pub fn run_with(&mut self, command: &str, stdin: &[u8], limit: Duration) -> Output {
        let mut start = json!({
            "path": "/bin/bash",
            "arg": ["-c", command],
            "env": GUEST_ENVIRONMENT,
            "capture-output": true,
        });
        if !stdin.is_empty() {
            start["input-data"] = json!(BASE64.encode(stdin));
        }
        let pid = match self.agent("guest-exec", start) {
            Ok(answer) => answer["pid"].clone(),
            Err(error) => panic!("machine {}: cannot run `{command}`: {error}", self.name),
        };
        let start = Instant::now();
        let deadline = start + limit;
        loop {
            match self.agent("guest-exec-status", json!({ "pid": pid })) {
                Ok(status) if status["exited"] == true => {
                    let text = |name: &str| {
                        let bytes = BASE64.decode(status[name].as_str().unwrap_or_default()).unwrap();
                        String::from_utf8_lossy(&bytes).into_owned()
                    };
                    return Output {
                        status: status["exitcode"]
                            .as_i64()
                            .unwrap_or_else(|| 128 + status["signal"].as_i64().unwrap_or_default()),
                        stdout: text("out-data"),
                        stderr: text("err-data"),
                    };
                }
                Ok(_) => {}
                Err(error) => {
                    self.assert_alive();
                    eprintln!("machine {}: no answer about `{command}` yet: {error}", self.name);
                }
            }
            assert!(Instant::now() < deadline, "machine {}: `{command}` did not end in {limit:?}", self.name);
            // each question costs the guest some time, and a line in its journal
            sleep(if start.elapsed() < Duration::from_secs(2) { POLL } else { 8 * POLL });
        }
    }

    /// Runs a bash command that must succeed, returns its stdout without the last newline. With `set -e` and pipefail.
    pub fn ok(&mut self, command: &str) -> String {
        let output = self.run(&format!("set -eo pipefail\n{command}"));
        assert!(
            output.status == 0,
            "machine {}: `{command}` ended with {}\n--- stdout\n{}--- stderr\n{}",
            self.name,
            output.status,
            output.stdout,
            output.stderr
        );
        output.stdout.trim_end_matches('\n').to_owned()
    }

    /// Writes a file in the guest, with its directories, and flushes it. Up to a few MiB.
    pub fn write_file(&mut self, path: &str, content: impl AsRef<[u8]>) {
        let command = format!("mkdir -p \"$(dirname '{path}')\" && cat >'{path}' && sync '{path}'");
        let output = self.run_with(&command, content.as_ref(), COMMAND_LIMIT);
        assert!(output.status == 0, "machine {}: write {path}: {}", self.name, output.stderr);
    }

    /// Reads a text file of the guest.
    pub fn read_file(&mut self, path: &str) -> String {
        let output = self.run(&format!("cat '{path}'"));
        assert!(output.status == 0, "machine {}: read {path}: {}", self.name, output.stderr);
        output.stdout
    }

    /// Has the next boot run cloud-init, whose units have other names since 24.3.
    pub fn cloud_init_is_on(&mut self) {
        self.ok(
            "for unit in cloud-init-main cloud-init-local cloud-init cloud-init-network cloud-config cloud-final; do
                 [ ! -e /usr/lib/systemd/system/$unit.service ] || systemctl --quiet enable $unit.service
             done",
        );
    }

    /// A checksum of the boot disk outside its file system: the partition table and the free space behind the partition.
    pub fn boot_disk_outside_fs(&mut self) -> String {
        self.ok("start=$(cat /sys/block/vda/vda1/start) size=$(cat /sys/block/vda/vda1/size)
             { head -c $((start * 512)) /dev/vda; tail -c +$(((start + size) * 512 + 1)) /dev/vda; } | sha256sum")
    }

    /// A clean reboot from inside, as `systemctl reboot` on a node. Changes of [`attach_order`](Self::attach_order)
    /// and added disks take effect. Returns how long going down and coming up took.
    pub fn reboot(&mut self) -> Duration {
        let start = Instant::now();
        // QEMU ends when the guest reboots (-no-reboot) and is started anew
        self.shut_down("reboot");
        self.boot();
        start.elapsed()
    }

    /// As [`reboot`](Self::reboot), but does not wait for systemd to finish booting.
    pub fn reboot_until_commands_run(&mut self) {
        self.shut_down("reboot");
        self.boot_until_commands_run();
    }

    /// A clean power-off from inside.
    pub fn power_off(&mut self) {
        self.shut_down("poweroff");
    }

    /// Pulls the plug. What the guest has flushed is on the disks; what it wrote without flushing is, too, since the
    /// host's page cache has it, but not with [volatile caches](Self::volatile_caches). Returns what these lost.
    pub fn power_cut(&mut self) -> Lost {
        let mut running = self.running.take().unwrap_or_else(|| panic!("machine {} is off", self.name));
        running.qemu.kill().unwrap();
        running.qemu.wait().unwrap();
        let mut sum = Lost::default();
        for cache in running.caches {
            let lost = cache.cut(self.volatile.as_mut().unwrap());
            sum = Lost { unflushed: sum.unflushed + lost.unflushed, lost: sum.lost + lost.lost };
        }
        sum
    }

    /// Where the disk of this name is served when it has a volatile cache.
    fn cache_socket(&self, disk: &str) -> PathBuf {
        self.sockets.path().join(format!("{disk}-{}", self.boots))
    }

    fn serve_disks(&self) -> Vec<Volatile> {
        if self.volatile.is_none() {
            return Vec::new();
        }
        let serve = |name: &str| Volatile::serve(&self.dir.join(format!("{name}.img")), &self.cache_socket(name));
        self.disk_names().map(serve).collect()
    }

    fn shut_down(&mut self, verb: &str) {
        // the guest agent may be stopped before it can answer
        let _ = self.agent("guest-exec", json!({ "path": "/bin/systemctl", "arg": ["--no-block", verb] }));
        let start = Instant::now();
        loop {
            let running = self.running.as_mut().unwrap_or_else(|| panic!("machine {} is off", self.name));
            if running.qemu.try_wait().unwrap().is_some() {
                break;
            }
            assert!(start.elapsed() < SHUTDOWN_LIMIT, "machine {} did not {verb} in {SHUTDOWN_LIMIT:?}", self.name);
            sleep(POLL);
        }
        let running = self.running.take();
        running.into_iter().flat_map(|running| running.caches).for_each(Volatile::keep);
        self.note(&format!("{verb} took {:.1} s to go down", start.elapsed().as_secs_f32()));
    }

    fn note(&self, what: &str) {
        if !self.quiet {
            eprintln!("machine {}: {what}", self.name);
        }
    }

    /// A read-only ext4 disk with what the test brings along; made anew for every boot.
    fn make_tools_disk(&self) {
        let tools = self.dir.join("tools");
        let mut bytes = 8 * MIB;
        for entry in fs::read_dir(&tools).unwrap() {
            let entry = entry.unwrap();
            bytes += entry.metadata().unwrap().len() + MIB;
            fs::set_permissions(entry.path(), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let disk = self.dir.join("tools.img");
        let _ = fs::remove_file(&disk);
        File::create_new(&disk).unwrap().set_len((bytes + bytes / 8).next_multiple_of(MIB)).unwrap();
        host(
            Command::new("mke2fs")
                .args(["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-L", "machine-tools"])
                .args(["-E", "root_owner=0:0", "-d"])
                .arg(&tools)
                .arg(&disk),
        );
    }

    fn qemu_command(&self, agent_socket: &Path) -> Command {
        // util-linux's setpriv: a test that is killed must not leave a machine behind
        let mut command = Command::new("setpriv");
        let (qemu, platform, console) = match self.arch {
            Arch::X86_64 => {
                let mut platform = accelerator(&self.image).to_vec();
                // QEMU 7.2 emulates cmpxchg16b with wrong flags now and then, and the kernel's allocator, of Debian 13 above all,
                // falls over it
                let cpu = if platform == KVM { "max" } else { "max,-cx16" };
                platform.extend(["-machine", "q35", "-cpu", cpu]);
                ("qemu-system-x86_64", platform, "ttyS0")
            }
            // a Graviton's, more or less; `max` has pointer authentication, which is slow to emulate
            Arch::Aarch64 => {
                let mut platform = TCG.to_vec();
                platform.extend(["-machine", "virt", "-cpu", "neoverse-n1"]);
                ("qemu-system-aarch64", platform, "ttyAMA0")
            }
        };
        command.args(["--pdeathsig", "KILL", "--", qemu]);
        command.current_dir(&self.dir).env("PATH", search_path());
        command.args(["-name", &self.name, "-no-user-config", "-nodefaults", "-display", "none", "-no-reboot"]);
        command.args(platform);
        command.args(["-smp", "2", "-m", &self.memory_mib.to_string()]);
        // as on EC2, where the agent waits for the metadata service; `virt` has no DMI without firmware
        if self.arch == Arch::X86_64 && self.forwards.iter().any(|(port, _)| *port == 80) {
            command.args(["-smbios", "type=1,manufacturer=Amazon EC2"]);
        }

        command.arg("-kernel").arg(self.image.join("vmlinuz"));
        command.arg("-initrd").arg(self.image.join("initrd.img"));
        // no NVMe multipath: sysfs as on EC2, where nvme0n1 is a child of the controller nvme0
        // Without the check of copies, which stopped Linux 6.1 when both ends of NVMe over TCP moved much data through the loopback
        // interface of one kernel.
        // leaving out cipher self-tests and KASLR saves about a tenth of the boot under software emulation
        let mut append = format!(
            "root=LABEL=machine-root rw console={console} quiet loglevel=4 net.ifnames=0 \
             nvme_core.multipath=N mitigations=off panic=-1 cryptomgr.notests nokaslr rcupdate.rcu_expedited=1 \
             hardened_usercopy=off"
        );
        if !self.order.is_empty() {
            write!(append, " ec2nvme={}", self.order.join(",")).unwrap();
        }
        for arg in &self.kernel_args {
            write!(append, " {arg}").unwrap();
        }
        command.args(["-append", &append]);
        command.arg("-serial").arg(format!("file:console-{}.log", self.boots));

        // writeback: a flush of the guest makes QEMU write out its own tables (qcow2), and what reached the host's page
        // cache outlives the process
        let mut drive = |serial: &str, file: &str, format: &str, read_only: &str| {
            let id = format!("drive-{serial}");
            command.arg("-drive").arg(format!(
                "if=none,id={id},{file},format={format},cache=writeback,discard=unmap,read-only={read_only}"
            ));
            command.arg("-device").arg(format!("virtio-blk-pci,drive={id},serial={serial}"));
        };
        let nbd = |name: &str| {
            format!("file.driver=nbd,file.server.type=unix,file.server.path={}", self.cache_socket(name).display())
        };
        let volatile = self.volatile.is_some();
        if volatile {
            drive("boot", &nbd("boot"), "raw", "off");
        } else {
            drive("boot", "file=boot.qcow2", "qcow2", "off");
        }
        drive("tools", "file=tools.img", "raw", "on");
        for disk in &self.disks {
            let file = if volatile { nbd(&disk.serial) } else { format!("file={}.img", disk.serial) };
            let throttled = disk.limit.map(|Limit { requests_per_second, bytes_per_second }| {
                format!(",throttling.iops-total={requests_per_second},throttling.bps-total={bytes_per_second}")
            });
            drive(&disk.virtio_serial(), &(file + &throttled.unwrap_or_default()), "raw", "off");
        }

        command.args(["-device", "virtio-serial-pci", "-device"]);
        command.arg("virtserialport,chardev=agent,name=org.qemu.guest_agent.0");
        command.arg("-chardev").arg(format!("socket,id=agent,server=on,wait=off,path={}", agent_socket.display()));

        // restrict: no packet leaves but to the forwarded addresses
        let relay = super::project_dir().join("tests/machine/relay.sh");
        let mut net = "user,id=net,restrict=on,ipv6=off,net=169.254.169.0/24,host=169.254.169.1".to_owned();
        for (port, host) in &self.forwards {
            let relay = format!("bash '{}' {} {}", relay.display(), host.ip(), host.port());
            write!(net, ",guestfwd=tcp:{AWS_ADDRESS}:{port}-cmd:{}", relay.replace(',', ",,")).unwrap();
        }
        command.args(["-netdev", &net, "-device", "virtio-net-pci,netdev=net,romfile="]);
        command
    }

    fn assert_alive(&mut self) {
        let running = self.running.as_mut().unwrap_or_else(|| panic!("machine {} is off", self.name));
        if let Some(status) = running.qemu.try_wait().unwrap() {
            self.running = None;
            let log = fs::read_to_string(self.dir.join("qemu.log")).unwrap_or_default();
            panic!("machine {}: QEMU ended with {status} while the machine was in use\n{log}", self.name);
        }
    }

    /// One call of the guest agent, on a connection of its own: one that was cut off by a reboot or a timeout leaves
    /// nothing behind that the next could take for its answer.
    fn agent(&self, execute: &str, arguments: Value) -> Result<Value, String> {
        static SYNC: AtomicU64 = AtomicU64::new(1);

        let running = self.running.as_ref().ok_or("the machine is off")?;
        let text = |error: std::io::Error| error.to_string();
        let mut socket = UnixStream::connect(&running.agent_socket).map_err(text)?;
        let limit = if execute == "guest-ping" { Duration::from_secs(1) } else { Duration::from_secs(30) };
        socket.set_read_timeout(Some(limit)).map_err(text)?;
        let id = SYNC.fetch_add(1, Ordering::Relaxed);
        writeln!(socket, "{}", json!({ "execute": "guest-sync", "arguments": { "id": id } })).map_err(text)?;

        let mut lines = BufReader::new(socket.try_clone().map_err(text)?).lines();
        let mut answer = || -> Result<Value, String> {
            let line = lines.next().ok_or("the guest agent closed the connection")?.map_err(text)?;
            serde_json::from_str(&line).map_err(|error| format!("not JSON from the guest agent: {error}: {line}"))
        };
        while answer()?["return"] != id {}
        writeln!(socket, "{}", json!({ "execute": execute, "arguments": arguments })).map_err(text)?;
        let mut value = answer()?;
        if value.get("error").is_some() {
            return Err(value["error"]["desc"].to_string());
        }
        Ok(value["return"].take())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let keep = super::keep_machines();
        if std::thread::panicking() {
            let console = String::from_utf8_lossy(&fs::read(self.console()).unwrap_or_default()).into_owned();
            let lines: Vec<_> = console.lines().collect();
            let tail = lines[lines.len().saturating_sub(40)..].join("\n");
            eprintln!("machine {}: the last of its console:\n{tail}", self.name);
        }
        if let Some(mut running) = self.running.take() {
            let _ = running.qemu.kill();
            let _ = running.qemu.wait();
        }
        if keep {
            eprintln!("machine {}: disks and logs kept in {}", self.name, self.dir.display());
        } else {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// `PATH` with the directories of the system programs, which a user's does not have.
fn search_path() -> String {
    format!("{}:/usr/local/sbin:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

/// Runs a program of the host that must succeed.
fn host(command: &mut Command) {
    let output = command.env("PATH", search_path()).stdin(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => {}
        Ok(output) => panic!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr)),
        Err(error) => panic!("{command:?}: {error}"),
    }
}

fn require_programs(arch: Arch) {
    let (groups, qemu) = match arch {
        Arch::X86_64 => ("machine", ("qemu-system-x86_64", "qemu-system-x86")),
        Arch::Aarch64 => ("machine aarch64", ("qemu-system-aarch64", "qemu-system-arm")),
    };
    let needed = [qemu, ("qemu-img", "qemu-utils"), ("mke2fs", "e2fsprogs"), ("setpriv", "util-linux")];
    let path = search_path();
    for (program, package) in needed {
        assert!(
            std::env::split_paths(&path).any(|dir| dir.join(program).exists()),
            "this machine has no {program} (Debian package {package}): run scripts/deps.sh {groups}"
        );
    }
}

/// The release of Debian that this machine has. Any other machine is more likely to have a newer C library than an older one, so it gets
/// the newer release.
fn own_release() -> &'static str {
    let about = fs::read_to_string("/etc/os-release").unwrap_or_default();
    if about.lines().any(|line| line == "VERSION_CODENAME=bookworm") { "bookworm" } else { "trixie" }
}

/// The directory of the image, built when it is not there.
fn image(release: &str, arch: Arch) -> PathBuf {
    let script = super::project_dir().join("scripts/machine-image.sh");
    let arch = match arch {
        Arch::X86_64 => "amd64",
        Arch::Aarch64 => "arm64",
    };
    let output = Command::new(&script).args([release, arch]).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{} failed, see above", script.display());
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

const KVM: [&str; 2] = ["-accel", "kvm"];
const TCG: [&str; 2] = ["-accel", "tcg,thread=multi"];

/// KVM when it works: there are hosts where `/dev/kvm` exists and a guest hangs or dies, so a kernel has to run to its
/// end there first, which takes a second. Otherwise software emulation. A try that hangs takes five seconds; for the next hour that is
/// remembered, since every test is a process of its own.
fn accelerator(image: &Path) -> [&'static str; 2] {
    static WORKS: OnceLock<bool> = OnceLock::new();

    match std::env::var("MACHINE_ACCEL").as_deref() {
        Ok("kvm") => return KVM,
        Ok("tcg") => return TCG,
        Ok(other) => panic!("MACHINE_ACCEL is {other}, expected kvm or tcg"),
        Err(_) => {}
    }
    let works = *WORKS.get_or_init(|| {
        if File::options().read(true).write(true).open("/dev/kvm").is_err() {
            return false;
        }
        let hung = super::scratch_dir().join("kvm-does-not-work");
        let age = fs::metadata(&hung).and_then(|hung| hung.modified()).ok().and_then(|at| at.elapsed().ok());
        if age.is_some_and(|age| age < Duration::from_secs(3600)) {
            return false;
        }
        let works = kvm_works(image);
        eprintln!("QEMU: {}", if works { "KVM" } else { "KVM does not work here, software emulation" });
        if !works {
            fs::write(hung, "").unwrap();
        }
        works
    });
    if works { KVM } else { TCG }
}

fn kvm_works(image: &Path) -> bool {
    // without a root file system the kernel panics, which with panic=-1 and -no-reboot ends QEMU
    let mut qemu = Command::new("qemu-system-x86_64")
        .args(["-no-user-config", "-nodefaults", "-display", "none", "-no-reboot"])
        .args(["-accel", "kvm", "-machine", "q35", "-cpu", "max", "-smp", "2", "-m", "256"])
        .args(["-append", "panic=-1", "-kernel"])
        .arg(image.join("vmlinuz"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(5) {
        if let Some(status) = qemu.try_wait().unwrap() {
            return status.success();
        }
        sleep(POLL);
    }
    let _ = qemu.kill();
    let _ = qemu.wait();
    false
}
