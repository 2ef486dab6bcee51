//! Finds out who holds an open volume and keeps it from being closed. Runs in the worker.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use rustix::fs::{AtFlags, CWD, FileType, StatxFlags, statx};

use super::dm::{self, DmError};
use crate::discover::{Mount, Mounts, Roots};
use crate::disk::DevNo;

/// How many holders a message names.
const NAMED: usize = 5;

/// When to look for holders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// Before the volume is unmounted or closed.
    Before,
    /// After the kernel has refused to unmount or close the volume.
    AfterFailure,
}

/// An open volume in device-mapper and the mount table.
#[derive(Debug)]
pub(crate) struct Volume<'a> {
    /// Mapper name.
    pub(crate) mapper: &'a str,
    /// The device number of its mapping.
    pub(crate) device: DevNo,
}

impl Volume<'_> {
    /// Returns its mounts in this namespace, in the order of mounting.
    pub(crate) fn mounts<'t>(&self, table: &'t Mounts) -> impl DoubleEndedIterator<Item = &'t Mount> {
        let device = self.device;
        table.iter().filter(move |mount| mount.devno == device)
    }

    /// Describes everything that holds the volume, except its mount `own`.
    ///
    /// # Errors
    /// If device-mapper does not answer.
    pub(crate) fn find_holders(&self, table: &Mounts, own: Option<&Mount>, when: When) -> Result<Vec<String>, DmError> {
        let mut found = self.find_mounts_here(table, own);
        let apart = self.find_mounts_elsewhere(table, own);
        let opened = dm::open_count(self.mapper)?;
        // a file system opens its device once, however often it is mounted
        let is_mounted = self.mounts(table).next().is_some() || !apart.is_empty();
        let is_opened = opened > u32::from(is_mounted);
        let busy: Vec<&Mount> = self.mounts(table).filter(|mount| is_busy(mount, table)).collect();
        found.extend(apart);
        found.extend(self.find_swap_and_devices());
        // look at processes only if necessary, because a process that hangs can block the look
        if when == When::AfterFailure || is_opened || !busy.is_empty() {
            found.extend(self.find_processes());
        }
        if found.is_empty() {
            found.extend(
                busy.iter()
                    .map(|mount| format!("{} is busy, but no process that uses it was found", shown(&mount.point))),
            );
        }
        if found.is_empty() && is_opened {
            found.push(format!("mapping {} is open, but no process that uses it was found", self.mapper));
        }
        Ok(found)
    }

    /// Finds its other mounts, mounts on its directories, and overlays that use them.
    fn find_mounts_here(&self, table: &Mounts, own: Option<&Mount>) -> Vec<String> {
        let is_own = |mount: &Mount| own.is_some_and(|own| own.id == mount.id);
        let mut found = Vec::new();
        for mount in self.mounts(table).filter(|mount| !is_own(mount)) {
            let also = if own.is_some() { "also " } else { "" };
            found.push(format!("it is {also}mounted at {}", shown(&mount.point)));
        }
        for mount in table.iter().filter(|mount| mount.devno != self.device) {
            if self.mounts(table).any(|ours| ours.id == mount.parent) {
                found.push(format!("{} is mounted on it at {}", shown(&mount.source), shown(&mount.point)));
            } else if mount.layers_if_overlay().iter().any(|layer| self.leads_to(layer)) {
                found.push(format!("the overlay at {} uses it", shown(&mount.point)));
            }
        }
        found
    }

    /// Finds mounts in other namespaces that remain when `own` is unmounted. Names one process for each namespace.
    fn find_mounts_elsewhere(&self, table: &Mounts, own: Option<&Mount>) -> Vec<String> {
        let mut known: BTreeSet<u32> = table.iter().map(|mount| mount.id).collect();
        let mut found = Vec::new();
        for pid in list_pids() {
            let Ok(theirs) = Mounts::read_of(&Roots::host(), &pid) else { continue };
            for mount in self.mounts(&theirs) {
                // mount ids are unique across namespaces
                let is_new = known.insert(mount.id);
                if is_new && !own.is_some_and(|own| table.takes_along(own, &theirs, mount)) {
                    let (who, at) = (describe_process(&pid), shown(&mount.point));
                    found.push(format!("{who} has it mounted at {at} in another mount namespace"));
                }
            }
        }
        found
    }

    fn find_swap_and_devices(&self) -> Vec<String> {
        let on_it = |paths: Vec<PathBuf>| paths.into_iter().filter(|path| self.leads_to(path));
        let mut found: Vec<String> =
            on_it(list_swap_files()).map(|path| format!("{} is in use as swap", shown(&path))).collect();
        found.extend(on_it(list_loop_files()).map(|path| format!("a loop device uses {}", shown(&path))));
        for holder in fs::read_dir(format!("/sys/dev/block/{}/holders", self.device)).into_iter().flatten().flatten() {
            let name = holder.file_name().to_string_lossy().into_owned();
            let dm_name = fs::read_to_string(holder.path().join("dm/name"));
            let dm_name = dm_name.map(|dm_name| format!(" ({})", dm_name.trim())).unwrap_or_default();
            found.push(format!("device {name}{dm_name} is stacked on it"));
        }
        found
    }

    /// Finds processes that use it, each with one of its uses.
    fn find_processes(&self) -> Vec<String> {
        let uses = |pid: String| {
            let dir = Path::new("/proc").join(&pid);
            let linked = |link: PathBuf| self.leads_to(&link).then(|| fs::read_link(link).unwrap_or_default());
            let files = fs::read_dir(dir.join("fd")).into_iter().flatten().flatten().map(|fd| ("has open", fd.path()));
            let links =
                [("has its working directory in", "cwd"), ("has its root directory in", "root"), ("runs", "exe")];
            let links = links.into_iter().map(|(what, name)| (what, dir.join(name)));
            let linked = links.chain(files).find_map(|(what, link)| Some((what, linked(link)?)));
            let (what, path) = linked.or_else(|| Some(("has mapped", self.find_mapped_file(&dir)?)))?;
            Some(format!("{} {what} {}", describe_process(&pid), shown(&path)))
        };
        list_pids().filter_map(uses).collect()
    }

    /// Finds a file of the volume that a process has mapped into memory (proc_pid_maps(5)).
    fn find_mapped_file(&self, process: &Path) -> Option<PathBuf> {
        let maps = fs::read_to_string(process.join("maps")).ok()?;
        let device = format!("{:02x}:{:02x}", self.device.major, self.device.minor);
        let mut fields = maps.lines().map(|line| line.split_whitespace().skip(3));
        fields.find_map(|mut fields| (fields.next()? == device).then(|| fields.nth(1).unwrap_or_default().into()))
    }

    /// Returns whether a path leads to a file on the volume or to its node. Does not wait for network file systems.
    fn leads_to(&self, path: &Path) -> bool {
        let Ok(file) = statx(CWD, path, AtFlags::STATX_DONT_SYNC, StatxFlags::TYPE) else { return false };
        let on = DevNo { major: file.stx_dev_major, minor: file.stx_dev_minor };
        let node = DevNo { major: file.stx_rdev_major, minor: file.stx_rdev_minor };
        let is_block = FileType::from_raw_mode(file.stx_mode.into()) == FileType::BlockDevice;
        on == self.device || is_block && node == self.device
    }
}

/// Joins the first few holders of a volume for a message.
pub(crate) fn join_some(holders: &[String]) -> String {
    let more = holders.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", holders[..holders.len().min(NAMED)].join(", "))
}

/// Returns whether the mount at its path is in use.
///
/// The kernel unmounts an unused mount by this call, but only the second time in a row. Two calls of this function do not unmount it,
/// because the agent itself uses the mount between them.
fn is_busy(mount: &Mount, table: &Mounts) -> bool {
    table.of(&mount.point).is_ok_and(|found| found.id == mount.id)
        && umount2(&mount.point, MntFlags::MNT_EXPIRE | MntFlags::UMOUNT_NOFOLLOW) == Err(Errno::EBUSY)
}

fn list_pids() -> impl Iterator<Item = String> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.bytes().all(|b| b.is_ascii_digit()))
}

fn describe_process(pid: &str) -> String {
    let name = fs::read_to_string(Path::new("/proc").join(pid).join("comm")).unwrap_or_default();
    format!("process {pid} ({})", name.trim())
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// Returns the devices and files in use as swap (proc_swaps(5)).
fn list_swap_files() -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/swaps").unwrap_or_default();
    text.lines().skip(1).filter_map(|line| line.split_whitespace().next()).map(PathBuf::from).collect()
}

/// Returns the files behind loop devices.
fn list_loop_files() -> Vec<PathBuf> {
    let disks = fs::read_dir("/sys/block").into_iter().flatten().flatten().map(|entry| entry.path());
    let texts = disks.filter_map(|disk| fs::read_to_string(disk.join("loop/backing_file")).ok());
    texts.map(|text| text.trim_end().into()).collect()
}
