//! The node under test as the sweeps see it: its two disks, what is open and mounted on them, and its state file.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek as _, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::mount::umount;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// The disks with the volumes.
pub(crate) const DISKS: [&str; 2] = ["ubdb", "ubdc"];
/// Where volumes are mounted; the agent decides which is where.
pub(crate) const MOUNTS: [&str; 2] = ["/data", "/data1"];
pub(crate) const STATE_DIR: &str = "/etc/luks-agent/state";
/// What the scenarios begin with, made by `sweep.sh prepare`.
pub(crate) const BASE: &str = "/var/lib/sweep";
/// Far beyond what a command of the agent takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(150);

pub(crate) fn state_file() -> PathBuf {
    Path::new(STATE_DIR).join("state.json")
}

/// One volume of the state file.
#[derive(Clone)]
pub(crate) struct Volume {
    pub(crate) luks_uuid: String,
    pub(crate) disk: String,
    pub(crate) mount_point: String,
    pub(crate) committed: bool,
}

/// The volumes in a state file, and how many keys there are in it; none of either if there is no such file, or a torn one.
pub(crate) fn read_state(path: &Path) -> (Vec<Volume>, usize) {
    let text = fs::read(path).unwrap_or_default();
    let Ok(state) = serde_json::from_slice::<Value>(&text) else { return (Vec::new(), 0) };
    let volumes = state["volumes"].as_array().unwrap().iter().map(|volume| {
        let text = |name: &str| volume[name].as_str().unwrap().to_owned();
        Volume {
            luks_uuid: text("luks_uuid"),
            disk: text("device"),
            mount_point: text("mount_point"),
            committed: text("phase") == "committed",
        }
    });
    (volumes.collect(), state["keys"].as_array().unwrap().len())
}

pub(crate) fn replace_state(file: Option<&Path>) {
    if Path::new(STATE_DIR).exists() {
        fs::remove_dir_all(STATE_DIR).unwrap();
    }
    if let Some(file) = file {
        fs::DirBuilder::new().mode(0o700).create(STATE_DIR).unwrap();
        fs::copy(file, state_file()).unwrap();
    }
}

/// Runs the agent to its end, or to that of all patience (137). What it says goes to `/run/NAME`.
pub(crate) fn agent(command: &str, name: &str) -> i32 {
    let out = File::create(Path::new("/run").join(name)).unwrap();
    let mut agent = Command::new(std::env::var_os("LUKS_AGENT").unwrap());
    let agent = agent.arg(command).stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out);
    let mut child = agent.spawn().unwrap();
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().unwrap_or(137);
        }
        if began.elapsed() > PATIENCE {
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What is mounted at `/data` or `/data1`: source and mount point, in the order of mounting.
pub(crate) fn mounted() -> Vec<(String, String)> {
    let text = fs::read_to_string("/proc/self/mounts").unwrap();
    let mounts = text.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (source, at) = (words.next()?, words.next()?);
        MOUNTS.contains(&at).then(|| (source.to_owned(), at.to_owned()))
    });
    mounts.collect()
}

pub(crate) fn mapping(luks_uuid: &str) -> PathBuf {
    Path::new("/dev/mapper").join(format!("luks-{luks_uuid}"))
}

/// As the kernel has them: a mapping need not have a node in `/dev/mapper`.
fn mappings() -> Vec<String> {
    let disks = fs::read_dir("/sys/block").unwrap().map(|entry| entry.unwrap().path().join("dm/name"));
    let names = disks.filter_map(|file| fs::read_to_string(file).ok()).map(|name| name.trim_end().to_owned());
    names.filter(|name| name.starts_with("luks-")).collect()
}

pub(crate) fn unmount_all() {
    for (_, at) in mounted().iter().rev() {
        umount(at.as_str()).unwrap();
    }
}

/// The agent, its workers and what they started.
fn running() -> Vec<Pid> {
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let entry = entry.unwrap();
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let name = fs::read_to_string(entry.path().join("comm")).ok()?;
        ["luks-agent", "exe", "mkfs.ext4", "mount"].contains(&name.trim()).then(|| Pid::from_raw(pid))
    });
    processes.collect()
}

/// What a reboot does to what runs, is mounted and is open.
pub(crate) fn shut_down() {
    let began = Instant::now();
    // again and again: one that is about to die may start another
    loop {
        let left = running();
        if left.is_empty() {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "processes {left:?} do not end");
        for pid in left {
            // gone by itself, perhaps
            let _ = kill(pid, Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    unmount_all();
    let open = mappings();
    if !open.is_empty() {
        let status = Command::new("dmsetup").args(["remove", "--retry"]).args(&open).status().unwrap();
        assert!(status.success(), "dmsetup remove {open:?}: {status}");
    }
}

pub(crate) fn device(disk: &str) -> PathBuf {
    Path::new("/dev").join(disk)
}

fn open(path: &Path, write: bool) -> (File, usize) {
    let file = OpenOptions::new().read(true).write(write).open(path).unwrap();
    let size = (&file).seek(SeekFrom::End(0)).unwrap();
    (file, usize::try_from(size).unwrap())
}

pub(crate) fn size_of(path: &Path) -> usize {
    open(path, false).1
}

pub(crate) fn read(path: &Path, from: usize, to: usize) -> Vec<u8> {
    let mut bytes = vec![0; to - from];
    File::open(path).unwrap().read_exact_at(&mut bytes, from as u64).unwrap();
    bytes
}

pub(crate) fn read_all(path: &Path) -> Vec<u8> {
    read(path, 0, size_of(path))
}

pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let zeros = vec![0; bytes.len().min(1 << 20)];
    bytes.chunks(1 << 20).all(|chunk| chunk == &zeros[..chunk.len()])
}

/// Makes the disk hold this, and zeros behind it.
pub(crate) fn write_disk(disk: &Path, image: &[u8]) {
    let (file, size) = open(disk, true);
    let mut image = image.to_vec();
    image.resize(size, 0);
    file.write_all_at(&image, 0).unwrap();
    file.sync_all().unwrap();
}

/// Something that nobody else writes, safe on the disk.
pub(crate) fn write_file(at: &str, random: &mut fastrand::Rng) {
    let path = Path::new(at).join("file");
    let bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(50_000).collect();
    fs::write(&path, bytes).unwrap();
    File::open(&path).unwrap().sync_all().unwrap();
    File::open(at).unwrap().sync_all().unwrap();
}
