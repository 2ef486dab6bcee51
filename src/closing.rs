//! Closing a volume: all of it, or nothing, and who holds it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

use crate::device::DevNo;
use crate::discover::{Mount, Mounts, Roots};
use crate::luks::{self, Mapping};
use crate::mount;
use crate::worker::chain;

/// How many of those that hold a volume are named.
const NAMED: usize = 5;

/// Unmounts a volume wherever it is mounted and removes its mapping; one that is not open stays so.
///
/// # Errors
/// Who holds it. Then it is mounted as it was.
pub(crate) fn close(mapper: &str) -> Result<(), String> {
    match luks::mapping(mapper).map_err(chain)? {
        Mapping::Absent => return Ok(()),
        // libcryptsetup closes nothing that is not open
        Mapping::Empty => return mount::remove_mapping(mapper).map_err(chain),
        Mapping::Open => {}
    }
    let node = mount::mapping_node(mapper).map_err(chain)?;
    let metadata = fs::metadata(&node).map_err(|e| format!("{} cannot be examined: {e}", node.display()))?;
    let device = DevNo::from_rdev(metadata.rdev()).ok_or("its mapping has no device number")?;
    let table = Mounts::read(&Roots::host())?;
    let volume = Volume { node, device, mounts: table.iter().filter(|mount| mount.devno == device).collect() };
    let holders = volume.holders(&table);
    if !holders.is_empty() {
        return Err(format!("it is in use, and nothing was changed: {}; end that, then try again", list(&holders)));
    }
    for (index, mount) in volume.mounts.iter().enumerate().rev() {
        if let Err(e) = mount::unmount(&mount.point) {
            return Err(volume.mount_again(index + 1, chain(e)));
        }
    }
    luks::close(mapper).map_err(|e| volume.mount_again(0, chain(e)))
}

fn list(holders: &[String]) -> String {
    let more = holders.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", holders[..holders.len().min(NAMED)].join(", "))
}

/// An open volume.
struct Volume<'a> {
    /// The node of its mapping.
    node: PathBuf,
    device: DevNo,
    /// Where it is mounted in this namespace, in the order of mounting.
    mounts: Vec<&'a Mount>,
}

impl Volume<'_> {
    /// All that would keep it from being closed, as far as can be told beforehand, in words.
    fn holders(&self, table: &Mounts) -> Vec<String> {
        let is_ours = |id: u32| self.mounts.iter().any(|mount| mount.id == id);
        let mut found = Vec::new();
        for above in table.iter().filter(|mount| is_ours(mount.parent) && mount.devno != self.device) {
            found.push(format!("{} is mounted on it, at {}", above.source.display(), above.point.display()));
        }
        let busy: Vec<&Path> =
            self.mounts.iter().filter(|mount| is_busy(mount, table)).map(|m| m.point.as_path()).collect();
        let named = found.len();
        for process in processes() {
            if process.opens.iter().any(|path| self.is_node(path) || busy.iter().any(|at| path.starts_with(at))) {
                found.push(process.to_string());
            } else if let Some(at) = self.mounted_apart(&process) {
                found.push(format!("{process} has it mounted at {}, in a mount namespace of its own", at.display()));
            }
        }
        let files = swap_files().into_iter().map(|path| ("swap", path));
        for (what, path) in files.chain(loop_files().into_iter().map(|path| ("a loop device", path))) {
            if self.is_node(&path) || busy.iter().any(|at| path.starts_with(at)) {
                found.push(format!("{what} on {}", path.display()));
            }
        }
        let stacked = fs::read_dir(format!("/sys/dev/block/{}/holders", self.device));
        for holder in stacked.into_iter().flatten().flatten() {
            found.push(format!("device {}", holder.file_name().to_string_lossy()));
        }
        if found.len() == named
            && let Some(at) = busy.first()
        {
            found.push(format!("{} is busy, by nobody that could be found", at.display()));
        }
        found
    }

    fn is_node(&self, path: &Path) -> bool {
        path.starts_with("/dev") && fs::metadata(path).is_ok_and(|m| DevNo::from_rdev(m.rdev()) == Some(self.device))
    }

    /// Where a process has it mounted that does not see when it is unmounted here.
    fn mounted_apart(&self, process: &Process) -> Option<PathBuf> {
        if !process.is_apart {
            return None;
        }
        let table = Mounts::read_of(&Roots::host(), &process.pid.to_string()).ok()?;
        let follows =
            |mount: &Mount| self.mounts.iter().any(|ours| ours.groups.iter().any(|g| mount.groups.contains(g)));
        table.iter().find(|mount| mount.devno == self.device && !follows(mount)).map(|mount| mount.point.clone())
    }

    /// Mounts what was unmounted, from the `first` on, and says so beside `why`.
    fn mount_again(&self, first: usize, why: String) -> String {
        for mount in &self.mounts[first..] {
            if let Err(e) = mount::mount_as_it_was(&self.node, mount, &self.mounts) {
                return format!("{why}; {} could not be mounted again: {}", mount.point.display(), chain(e));
            }
        }
        format!("{why}; it stays open, mounted as it was")
    }
}

/// Whether anything uses a mount. The kernel is asked to unmount what nobody uses, as it does the second time that it is asked;
/// and between the two, the mount is used.
fn is_busy(mount: &Mount, table: &Mounts) -> bool {
    // what is mounted on it uses it, and is named or goes first
    if table.iter().any(|above| above.parent == mount.id && above.id != mount.id) || fs::metadata(&mount.point).is_err()
    {
        return false;
    }
    umount2(&mount.point, MntFlags::MNT_EXPIRE) == Err(Errno::EBUSY)
}

/// A process, and what it has open.
struct Process {
    pid: u32,
    name: String,
    opens: Vec<PathBuf>,
    /// Whether it is in another mount namespace.
    is_apart: bool,
}

impl std::fmt::Display for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} ({})", self.pid, self.name)
    }
}

/// All but this one. What cannot be looked at, of a process that ends just now or of a more mighty one, is left out.
fn processes() -> Vec<Process> {
    let own = fs::read_link("/proc/self/ns/mnt").ok();
    let process = |entry: fs::DirEntry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok().filter(|pid| *pid != std::process::id())?;
        let dir = entry.path();
        let files = fs::read_dir(dir.join("fd")).into_iter().flatten().flatten().map(|fd| fd.path());
        let links = ["cwd", "root", "exe"].map(|name| dir.join(name)).into_iter().chain(files);
        let name = fs::read_to_string(dir.join("comm")).unwrap_or_default();
        let namespace = fs::read_link(dir.join("ns/mnt")).ok();
        Some(Process {
            pid,
            name: name.trim().to_owned(),
            opens: links.filter_map(|link| fs::read_link(link).ok()).collect(),
            is_apart: namespace.is_some() && namespace != own,
        })
    };
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(process).collect()
}

/// Devices and files with swap on them (proc_swaps(5)).
fn swap_files() -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/swaps").unwrap_or_default();
    text.lines().skip(1).filter_map(|line| line.split_whitespace().next()).map(PathBuf::from).collect()
}

/// Files that are loop devices.
fn loop_files() -> Vec<PathBuf> {
    let names = fs::read_dir("/sys/block").into_iter().flatten().flatten().map(|entry| entry.path());
    names
        .filter_map(|disk| fs::read_to_string(disk.join("loop/backing_file")).ok())
        .map(|text| text.trim().into())
        .collect()
}
