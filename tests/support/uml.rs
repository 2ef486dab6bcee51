//! Nodes of the kernel tier: User-Mode Linux, a whole kernel with dm-crypt as one process, up in two seconds.
//!
//! A node's root is this machine's own tree, read-only, under an overlay whose upper directory is on the node's boot
//! volume `ubda` (see `tests/kernel/init.sh`). The checkout and `target` are thus at the same paths inside, and what a
//! node writes stays on its own disk images.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Bytes in a mebibyte.
pub const MIB: u64 = 1 << 20;

const BOOT_DISK: &str = "ubda";
const BOOT_DISK_BYTES: u64 = 512 * MIB;
/// Guest memory: LocalStack needs about 300 MiB, a scenario without it much less.
const MEMORY_MIB: u64 = 768;
/// How long a node whose scenario has ended may take to power itself off before it is killed.
const POWER_OFF_GRACE: Duration = Duration::from_secs(5);
const STATUS_LINE: &str = "uml-init: scenario ended with status ";
/// Ends what the kernel says while it boots, see `init.sh`.
const BOOTED_LINE: &str = "uml-init: booted";

/// An environment variable: if it is set, each line of a console is shown as it comes. For runs that take hours.
const WATCH: &str = "UML_WATCH";

/// Starts the kernel in a process group of its own, and kills all of it (a node is one host process for each of its
/// own processes, beside helpers that outlive the kernel) when asked by SIGTERM, or when the test that started it dies.
const WATCHDOG: &str = r#"
trap 'kill -KILL -- "-$uml"; wait "$uml"; exit 137' TERM
setsid "$@" 2>&1 &
uml=$!
wait "$uml"
"#;

/// A node: its disks outlive its boots.
#[derive(Debug)]
pub struct Node {
    name: String,
    dir: PathBuf,
    disks: Vec<Disk>,
    boots: u32,
}

#[derive(Debug)]
struct Disk {
    name: String,
    serial: Option<String>,
}

/// What one boot runs: a script of `tests/kernel`, which sources `lib.sh`.
#[derive(Debug, Clone)]
pub struct Script {
    name: String,
    args: Vec<String>,
    env: Vec<(String, String)>,
    kernel_args: Vec<String>,
    timeout: Duration,
    power_cut: PowerCut,
}

#[derive(Debug, Clone)]
enum PowerCut {
    Never,
    /// As soon as the console shows this text, plus the delay.
    AtLine(String, Duration),
}

/// How many points a sweep has tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Points {
    /// All of them.
    pub tried: usize,
    /// Those after which something was wrong.
    pub bad: usize,
    /// Those at which nothing was killed: the process ended before.
    pub missed: usize,
}

/// How a boot ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The script ended with this exit status, and the node powered itself off.
    Status(i32),
    /// The power was cut, as the script asked.
    PowerCut,
    /// The script ran longer than its timeout; the node was killed.
    TimedOut,
    /// The kernel ended by itself, without a word of the script's status: a panic.
    Died,
}

/// One boot, after its end.
#[derive(Debug)]
pub struct Boot {
    title: String,
    end: End,
    console: Vec<(Duration, String)>,
    wall: Duration,
    powered_off: bool,
}

impl Script {
    /// A script of `tests/kernel`, without its `.sh`.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            kernel_args: Vec::new(),
            timeout: Duration::from_secs(120),
            power_cut: PowerCut::Never,
        }
    }

    /// One that runs the agent, against the fake endpoint.
    pub fn with_agent(name: &str) -> Self {
        let program = |name| super::program(name).to_str().unwrap().to_owned();
        Self::new(name).env("LUKS_AGENT", program("luks-agent")).env("FAKE_AWS", program("fake-aws"))
    }

    /// One more argument.
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// One more environment variable. The script inherits nothing from the test's own environment.
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// One more argument for the kernel, which wins against those that it has.
    pub fn kernel_arg(mut self, arg: &str) -> Self {
        self.kernel_args.push(arg.to_owned());
        self
    }

    /// Kills the node after this time (two minutes unless told).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Cuts the node's power as soon as its console shows `text`.
    pub fn cut_power_at(self, text: &str) -> Self {
        self.cut_power_after(text, Duration::ZERO)
    }

    /// Cuts the node's power the given time after its console has shown `text`.
    pub fn cut_power_after(mut self, text: &str, delay: Duration) -> Self {
        self.power_cut = PowerCut::AtLine(text.to_owned(), delay);
        self
    }

    /// The shell text that `init.sh` sources to run this script.
    fn job(&self) -> String {
        let mut job = String::new();
        for (name, value) in &self.env {
            writeln!(job, "export {name}={}", quote(value)).unwrap();
        }
        let path = super::project_dir().join("tests/kernel").join(format!("{}.sh", self.name));
        assert!(path.exists(), "no scenario {}", path.display());
        write!(job, "exec bash {}", quote(path.to_str().unwrap())).unwrap();
        for arg in &self.args {
            write!(job, " {}", quote(arg)).unwrap();
        }
        job.push('\n');
        job
    }
}

impl Node {
    /// A node with a boot volume and no other disk. Its files are removed when it is dropped, unless `KEEP_VM` is set.
    ///
    /// # Panics
    /// When what it needs is not installed, naming it.
    pub fn new(name: &str) -> Self {
        check_prerequisites();
        let parent = super::scratch_dir().join("uml");
        remove_leftovers(&parent);
        let dir = parent.join(format!("{name}-{}", std::process::id()));
        let text = dir.to_str().unwrap();
        // They separate the words of the kernel's command line and of its disk options.
        assert!(
            !text.contains([' ', ',', ':']),
            "{text}: User-Mode Linux takes no disk image whose path has a space, comma or colon: set CARGO_TARGET_DIR"
        );
        fs::create_dir_all(&dir).unwrap();
        let node = Self { name: name.to_owned(), dir, disks: Vec::new(), boots: 0 }.disk(BOOT_DISK, BOOT_DISK_BYTES);
        let image = node.disk_path(BOOT_DISK);
        run("mke2fs", &["-q", "-F", "-t", "ext4", image.to_str().unwrap()]);
        node
    }

    /// One more disk, blank: `name` is what the kernel calls it (`ubdb`, `ubdc` …), its size is in bytes.
    pub fn disk(mut self, name: &str, bytes: u64) -> Self {
        self.attach(name, bytes, None);
        self
    }

    /// One more disk, with a serial number (in `/sys/block/NAME/serial`).
    pub fn disk_with_serial(mut self, name: &str, bytes: u64, serial: &str) -> Self {
        self.attach(name, bytes, Some(serial.to_owned()));
        self
    }

    /// More disks of one size, each with the serial number `serial-NAME`.
    pub fn numbered_disks(self, names: &[&str], bytes: u64) -> Self {
        names.iter().fold(self, |node, name| node.disk_with_serial(name, bytes, &format!("serial-{name}")))
    }

    /// Attaches a blank disk between two boots, in place of one of the same name if there is one.
    pub fn attach(&mut self, name: &str, bytes: u64, serial: Option<String>) {
        self.attach_image(name, serial);
        let image = File::create(self.disk_path(name)).unwrap();
        image.set_len(bytes).unwrap();
    }

    /// The same with the image that is at [`Self::disk_path`].
    pub fn attach_image(&mut self, name: &str, serial: Option<String>) {
        let letter = name.strip_prefix("ubd").unwrap_or_default();
        assert!(
            letter.len() == 1 && ("a"..="p").contains(&letter),
            "User-Mode Linux calls its disks ubda to ubdp, not '{name}'"
        );
        self.disks.retain(|disk| disk.name != name);
        self.disks.push(Disk { name: name.to_owned(), serial });
    }

    /// Detaches a disk between two boots; its image stays at [`Self::disk_path`].
    pub fn detach(&mut self, name: &str) {
        self.disks.retain(|disk| disk.name != name);
    }

    /// The raw image of a disk, for assertions from outside.
    pub fn disk_path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.img"))
    }

    /// Whether the raw image of a disk holds this text anywhere.
    pub fn disk_contains(&self, name: &str, text: &str) -> bool {
        super::holds(&self.disk_path(name), text.as_bytes())
    }

    /// Boots the node, runs the script and waits for the node's end.
    pub fn boot(&mut self, script: &Script) -> Boot {
        self.boots += 1;
        let title = format!("{}, boot {} ({})", self.name, self.boots, script.name);
        let job = self.dir.join(format!("boot-{}.job", self.boots));
        fs::write(&job, script.job()).unwrap();

        // Its sockets live there: a short path, they have a limit of about 100 bytes.
        let uml_dir = tempfile::Builder::new().prefix("uml-").tempdir().unwrap();
        let began = Instant::now();
        let mut child = self.spawn(&job, uml_dir.path(), &script.kernel_args);
        let lines = console_lines(&mut child, began);

        let watch = std::env::var_os(WATCH).is_some();
        let mut console = Vec::new();
        let mut end = None;
        let mut power_off_at = None;
        let mut cut_at = None;
        let mut powered_off = false;
        loop {
            let limit = [Some(began + script.timeout), cut_at, power_off_at].into_iter().flatten().min().unwrap();
            match lines.recv_timeout(limit.saturating_duration_since(Instant::now())) {
                Ok((at, line)) => {
                    if let Some(status) = line.strip_prefix(STATUS_LINE) {
                        end = Some(End::Status(status.trim().parse().unwrap()));
                        power_off_at = Some(Instant::now() + POWER_OFF_GRACE);
                    }
                    if let PowerCut::AtLine(text, delay) = &script.power_cut
                        && cut_at.is_none()
                        && line.contains(text)
                    {
                        cut_at = Some(Instant::now() + *delay);
                    }
                    if watch {
                        println!("{line}");
                    }
                    console.push((at, line));
                    let now = Instant::now();
                    if cut_at.is_some_and(|cut_at| cut_at <= now) && end.is_none() {
                        end = Some(End::PowerCut);
                        break;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => {
                    powered_off = true;
                    break;
                }
                Err(RecvTimeoutError::Timeout) if end.is_some() => break,
                Err(RecvTimeoutError::Timeout) if cut_at.is_some() => {
                    end = Some(End::PowerCut);
                    break;
                }
                Err(RecvTimeoutError::Timeout) => {
                    let at = began.elapsed();
                    console.extend(still_life(&uml_dir.path().join(&self.name)).into_iter().map(|line| (at, line)));
                    end = Some(End::TimedOut);
                    break;
                }
            }
        }
        kill_all(&mut child);
        let boot = Boot { title, end: end.unwrap_or(End::Died), console, wall: began.elapsed(), powered_off };
        fs::write(self.dir.join(format!("boot-{}.log", self.boots)), boot.timed_console()).unwrap();
        println!("{}: {:?} after {:.1?}", boot.title, boot.end, boot.wall);
        boot
    }

    fn spawn(&self, job: &Path, uml_dir: &Path, kernel_args: &[String]) -> Child {
        let init = super::project_dir().join("tests/kernel/init.sh");
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "TERM", "--", "bash", "-c", WATCHDOG, "uml"])
            .arg(kernel_dir().join("linux"))
            .arg(format!("mem={MEMORY_MIB}M"))
            .args(["root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro"])
            .args(["con=null", "con0=null,fd:1"])
            // faster than ptrace; a kernel or a host that does not know it goes on without
            .arg("seccomp=auto")
            .arg(format!("uml_modules={}", kernel_dir().join("modules").display()))
            .arg(format!("init={}", init.display()))
            .arg(format!("uml_job={}", job.display()))
            .arg(format!("umid={}", self.name))
            .arg(format!("uml_dir={}", uml_dir.display()));
        command.args(kernel_args);
        for disk in &self.disks {
            let number = disk.name.as_bytes()[3] - b'a';
            let mut option = format!("ubd{number}={}", self.disk_path(&disk.name).display());
            if let Some(serial) = &disk.serial {
                write!(option, ",,{serial}").unwrap();
            }
            command.arg(option);
        }
        command
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("TMPDIR", self.memory_dir())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run setpriv: {error}"))
    }

    /// Where the guest's memory lives, as a file: memory, if there is room for it.
    fn memory_dir(&self) -> PathBuf {
        let shm = Path::new("/dev/shm");
        let room = nix::sys::statvfs::statvfs(shm)
            .is_ok_and(|stat| stat.blocks_available() * stat.fragment_size() > 2 * MEMORY_MIB * MIB);
        if room { shm.to_owned() } else { self.dir.clone() }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if super::keep_machines() {
            println!("{}: disks and logs kept in {}", self.name, self.dir.display());
        } else {
            fs::remove_dir_all(&self.dir).ok();
        }
    }
}

impl Boot {
    /// How it ended.
    pub fn end(&self) -> End {
        self.end
    }

    /// From the kernel's start to its end.
    pub fn wall(&self) -> Duration {
        self.wall
    }

    /// `false` when the node hung on its way out and had to be killed.
    pub fn powered_off(&self) -> bool {
        self.powered_off
    }

    /// The whole console, line by line.
    pub fn console(&self) -> String {
        let mut text = String::new();
        for (_, line) in &self.console {
            writeln!(text, "{line}").unwrap();
        }
        text
    }

    /// What follows `prefix` in the first console line that starts with it.
    pub fn value(&self, prefix: &str) -> Option<&str> {
        self.console.iter().find_map(|(_, line)| line.strip_prefix(prefix)).map(str::trim)
    }

    /// What a sweep said of its points, each in a line `-- point POINT ok|missed|BAD ...`.
    pub fn points(&self) -> Points {
        let console = self.console();
        let said: Vec<&str> = console.lines().filter_map(|line| line.strip_prefix("-- point ")).collect();
        let count = |what: &str| said.iter().filter(|line| line.contains(what)).count();
        Points { tried: said.len(), bad: count(" BAD "), missed: count(" missed ") }
    }

    /// The console with the time of each line, for a person. What the kernel says while it boots is left out, unless the boot got no
    /// further.
    pub fn timed_console(&self) -> String {
        let booted = self.console.iter().position(|(_, line)| line == BOOTED_LINE).map_or(0, |line| line + 1);
        let mut text = String::new();
        for (at, line) in &self.console[booted..] {
            writeln!(text, "{:7.2} {line}", at.as_secs_f64()).unwrap();
        }
        if self.end == End::Died && !self.console.iter().any(|(_, line)| line.starts_with("uml-init: ")) {
            let kernel = kernel_dir().display();
            writeln!(text, "{kernel}/linux ended before init.sh; if it cannot run a process here, scripts/deps.sh kernel finds one that can")
                .unwrap();
        }
        text
    }

    /// # Panics
    /// Unless the boot ended as expected; with the console.
    #[track_caller]
    pub fn assert_end(&self, expected: End) -> &Self {
        assert!(
            self.end == expected,
            "{}: {:?} after {:.1?}, expected {expected:?}; its console:\n{}",
            self.title,
            self.end,
            self.wall,
            self.timed_console()
        );
        self
    }

    /// # Panics
    /// Unless the script ended with status 0; with the console.
    #[track_caller]
    pub fn assert_ok(&self) -> &Self {
        self.assert_end(End::Status(0))
    }

    /// # Panics
    /// Unless the power was cut; with the console.
    #[track_caller]
    pub fn assert_power_cut(&self) -> &Self {
        self.assert_end(End::PowerCut)
    }
}

/// Reads the console in a thread of its own; the channel closes when the kernel has ended.
fn console_lines(child: &mut Child, began: Instant) -> mpsc::Receiver<(Duration, String)> {
    let stdout = child.stdout.take().unwrap();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
            if sender.send((began.elapsed(), line)).is_err() {
                break;
            }
        }
    });
    receiver
}

/// What a kernel that does not come to its end is at: as its process on the host, and by its management console (`mconsole`),
/// should it still answer. `dir` is where its sockets live.
fn still_life(dir: &Path) -> Vec<String> {
    let mut said = Vec::new();
    let pid = fs::read_to_string(dir.join("pid")).unwrap_or_default();
    for what in ["stat", "wchan", "syscall"] {
        let state = fs::read_to_string(format!("/proc/{}/{what}", pid.trim()));
        said.push(format!("host: {what}: {}", state.unwrap_or_else(|e| e.to_string()).trim()));
    }
    for command in ["version", "proc loadavg", "proc interrupts", "sysrq w"] {
        match ask_mconsole(dir, command) {
            Ok(answer) => said.extend(answer.lines().map(|line| format!("mconsole: {command}: {line}"))),
            Err(e) => said.push(format!("mconsole: {command}: {e}")),
        }
    }
    said
}

/// One request, with its answer in pieces: magic, version, length, text; then error, whether there is more, length, text
/// (`arch/um/drivers/mconsole.h`).
fn ask_mconsole(dir: &Path, command: &str) -> io::Result<String> {
    const MAGIC: u32 = 0xcafe_babe;
    const VERSION: u32 = 2;
    let own = dir.join("asking");
    let _ = fs::remove_file(&own);
    let socket = UnixDatagram::bind(&own)?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut request = [MAGIC, VERSION, u32::try_from(command.len()).unwrap()].map(u32::to_ne_bytes).concat();
    request.extend(command.bytes());
    request.resize(12 + 512, 0);
    socket.send_to(&request, dir.join("mconsole"))?;
    let mut answer = String::new();
    let mut piece = [0; 4096];
    loop {
        let got = socket.recv(&mut piece)?;
        answer.push_str(&String::from_utf8_lossy(&piece[12.min(got)..got]));
        if piece[4..8] == [0; 4] {
            return Ok(answer.replace('\0', ""));
        }
    }
}

/// Has the watchdog kill the node, if it still runs, and waits for it.
fn kill_all(child: &mut Child) {
    if child.try_wait().unwrap().is_none() {
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    }
    child.wait().unwrap();
}

/// Where the kernel and its modules are: in `UML_DIR`, which `scripts/test.sh` sets for a whole run, or where `scripts/uml.sh` has chosen
/// them.
///
/// # Panics
/// When none was chosen.
fn kernel_dir() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        if let Some(dir) = std::env::var_os("UML_DIR").filter(|dir| !dir.is_empty()) {
            return dir.into();
        }
        let script = super::project_dir().join("scripts/uml.sh");
        let said = Command::new(script).arg("--dir").output().unwrap();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        PathBuf::from(String::from_utf8(said.stdout).unwrap().trim())
    })
}

fn check_prerequisites() {
    let needed = [
        ("setpriv", "util-linux"),
        ("mke2fs", "e2fsprogs"),
        ("modprobe", "kmod"),
        ("cryptsetup", "cryptsetup-bin"),
        ("dmsetup", "dmsetup"),
        ("mkfs.xfs", "xfsprogs"),
        ("ip", "iproute2"),
        ("strace", "strace"),
        ("sfdisk", "fdisk"),
        ("lvm", "lvm2"),
        ("mdadm", "mdadm"),
        ("mkfs.btrfs", "btrfs-progs"),
        ("make-bcache", "bcache-tools"),
        ("mkfs.vfat", "dosfstools"),
        ("fuse2fs", "fuse2fs"),
    ];
    let missing: Vec<&str> = needed
        .iter()
        .filter(|(program, _)| {
            !["/usr/sbin", "/usr/bin", "/sbin", "/bin"].iter().any(|dir| Path::new(dir).join(program).exists())
        })
        .map(|(_, package)| *package)
        .collect();
    assert!(
        missing.is_empty(),
        "the kernel tier needs the Debian packages {}: run `scripts/deps.sh kernel`",
        missing.join(", ")
    );
    kernel_dir();
}

/// Removes what runs left behind that were killed: the directories are named for their process.
fn remove_leftovers(parent: &Path) {
    if super::keep_machines() {
        return;
    }
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let path = entry.path();
        let pid = path.to_str().and_then(|text| text.rsplit('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            fs::remove_dir_all(&path).ok();
        }
    }
}

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program)
        .args(args)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .output()
        .unwrap_or_else(|error| panic!("cannot run {program}: {error}"));
    assert!(
        output.status.success(),
        "{program} {args:?}: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}

/// In single quotes, for a shell.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
