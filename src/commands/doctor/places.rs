//! Where things are: the boot volume, the state directory, the state file; and how long the kernel waits for the disks.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::security_configuration::change;
use super::super::survey::Disks;
use super::io_timeout;
use crate::config::Config;
use crate::discover::{Roots, in_memory};
use crate::disk::{DeviceFacts, Inventory};
use crate::error::chain;
use crate::permissions::objection;
use crate::report::{Check, ExitCode};
use crate::state::{State, StateError, file};

pub(super) async fn checks(config: &Config, state: &Result<Option<State>, StateError>) -> Vec<Check> {
    let inventory = Disks::briefly(config).inventory().await;
    let dir = &config.state.dir;
    let (boot, disks) = match &inventory {
        Ok(inventory) => (boot_volume(inventory), inventory.devices.as_slice()),
        Err(e) => (Check::failure("boot-volume", ExitCode::Failed, e.to_string()), [].as_slice()),
    };
    let changed = state.as_ref().ok().and_then(Option::as_ref).and_then(|state| change(config, state));
    let changed = changed.map(|change| Check::warning("security-configuration", change));
    let io_timeout = io_timeout::check(disks, Path::new("/sys/block"));
    [boot, state_directory(dir, disks), state_file(dir, state)].into_iter().chain(changed).chain(io_timeout).collect()
}

fn boot_volume(inventory: &Inventory) -> Check {
    const NAME: &str = "boot-volume";
    if let Some(reason) = &inventory.boot_unresolved {
        return Check::failure(NAME, ExitCode::Failed, reason.clone())
            .with_remedy("the agent formats nothing on this node; 'luks-agent status' shows the disks");
    }
    let of_system = |facts: &DeviceFacts| Some(format!("{} {}", facts.name, facts.system.as_ref()?));
    let carriers: Vec<String> = inventory.devices.iter().filter_map(of_system).collect();
    Check::ok(NAME, carriers.join(", "))
}

fn state_directory(dir: &Path, disks: &[DeviceFacts]) -> Check {
    const NAME: &str = "state-directory";
    let named = |what: &str| format!("{} {what}", dir.display());
    match in_memory(&Roots::host(), dir) {
        Ok(None) => {}
        Ok(Some(on)) => {
            return Check::failure(NAME, ExitCode::Configuration, named(&format!("is in memory: it lies on {on}")))
                .with_remedy("set state.dir to a directory on the boot volume");
        }
        Err(e) => {
            return Check::failure(NAME, ExitCode::Failed, named(&format!("lies on an unknown disk: {}", chain(e))));
        }
    }
    let (existing, wrong) = nearest_existing(dir);
    if let Some(wrong) = wrong {
        let path = existing.display();
        return Check::failure(
            NAME,
            ExitCode::Failed,
            format!("{path} {wrong}; expected root and no writing by others"),
        )
        .with_remedy(format!("chown root: {path} && chmod go-w {path}"));
    }
    match disks.iter().find(|facts| facts.system.as_deref().is_some_and(carries_state_alone)) {
        Some(facts) => Check::warning(NAME, named(&format!("is on {}, not on the disk that carries /", facts.name)))
            .with_remedy(
                "set state.dir to a directory on the boot volume: without that disk, no boot opens any volume",
            ),
        None if existing == dir => Check::ok(NAME, named("is on the boot volume")),
        None => Check::ok(NAME, named("will be made on the boot volume")),
    }
}

/// Returns the part of a path that exists, and what is wrong with its owner or mode.
fn nearest_existing(dir: &Path) -> (PathBuf, Option<String>) {
    let user = nix::unistd::geteuid().as_raw();
    let mut paths = dir.ancestors().filter_map(|path| Some((path, fs::symlink_metadata(path).ok()?)));
    paths.next().map_or((dir.to_owned(), None), |(path, metadata)| (path.to_owned(), objection(&metadata, user)))
}

/// Whether a disk belongs to the system only because it carries the state directory, and does not carry `/`.
fn carries_state_alone(system: &str) -> bool {
    system.contains("the state directory") && system != "carries /" && !system.starts_with("carries / ")
}

fn state_file(dir: &Path, state: &Result<Option<State>, StateError>) -> Check {
    const NAME: &str = "state-file";
    match state {
        Ok(None) => Check::ok(NAME, format!("{} does not exist: this node is new", file(dir).display())),
        Ok(Some(state)) => {
            Check::ok(NAME, format!("{} volumes, {} wrapped keys", state.volumes.len(), state.keys.len()))
        }
        Err(e) => Check::failure(NAME, ExitCode::Failed, chain(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_with_the_state_directory_and_without_the_root_is_recognised() {
        for (system, alone) in [
            ("carries / and the state directory through nvme0n1p1", false),
            ("carries / through nvme0n1p1; the state directory through nvme0n1p3", false),
            ("carries the state directory", true),
            ("carries /boot and the state directory", true),
            ("carries /", false),
            ("carries swap", false),
        ] {
            assert_eq!(carries_state_alone(system), alone, "{system}");
        }
    }
}
