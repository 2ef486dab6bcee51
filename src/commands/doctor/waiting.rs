//! Which services write to the volumes and do not wait for them.
//!
//! A guess from what the units say: nobody knows where a program writes. So what is found is a warning.

use std::collections::{BTreeSet, HashSet};
use std::fmt;

use super::systemctl::Units;
use crate::config::Config;
use crate::state::State;
use crate::storage::FilesystemKind;

const TARGET: &str = "luks-agent.target";
const BOOT: &str = "luks-agent-boot.service";
/// The properties that may name a path on a volume.
const NAMING: [&str; 4] = ["RequiresMountsFor", "WorkingDirectory", "ReadWritePaths", "ExecStart"];

/// The mount points of volumes: those that are recorded, and those that new volumes get.
#[derive(Debug)]
pub(super) struct MountPoints {
    recorded: Vec<String>,
    /// Followed by nothing or a number.
    base: Option<String>,
}

impl MountPoints {
    pub(super) fn of(config: &Config, state: Option<&State>) -> Self {
        let volumes = state.map(|state| state.volumes.as_slice()).unwrap_or_default();
        let recorded = volumes.iter().filter_map(|volume| Some(volume.mount_point.as_ref()?.display().to_string()));
        let base = config.filesystem.mount_base.display().to_string();
        let base = (config.filesystem.kind != FilesystemKind::None).then_some(base);
        Self { recorded: recorded.collect(), base }
    }

    fn hold(&self, path: &str) -> bool {
        let is_at_or_below = |rest: &str| rest.is_empty() || rest.starts_with('/');
        let below = |point: &String| path.strip_prefix(point.as_str());
        self.recorded.iter().filter_map(below).any(is_at_or_below)
            || self
                .base
                .iter()
                .filter_map(below)
                .any(|rest| is_at_or_below(rest.trim_start_matches(|c: char| c.is_ascii_digit())))
    }
}

impl fmt::Display for MountPoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let points: BTreeSet<&str> = self.recorded.iter().chain(&self.base).map(String::as_str).collect();
        let points: Vec<&str> = points.into_iter().collect();
        f.write_str(&if points.is_empty() { "no mount point".to_owned() } else { points.join(", ") })
    }
}

/// Returns the services that name a path on a volume and are not ordered after the target, with the first such path.
pub(super) fn not_waiting(units: &Units, points: &MountPoints) -> Vec<(String, String)> {
    let services = units.names().filter(|name| name.ends_with(".service") && !name.starts_with("luks-agent"));
    let loaded = services.filter(|name| units.property(name, "LoadState") == "loaded");
    let naming = loaded.filter_map(|name| Some((name, path_on_volume(units, name, points)?)));
    naming.filter(|(name, _)| !waits(units, name)).map(|(name, path)| (name.to_owned(), path)).collect()
}

fn path_on_volume(units: &Units, unit: &str, points: &MountPoints) -> Option<String> {
    let paths = NAMING.iter().flat_map(|property| paths(units.property(unit, property)));
    paths.into_iter().find(|path| points.hold(path))
}

/// Returns the absolute paths in a value, such as `{ path=/bin/x ; argv[]=/bin/x --dir=/mnt/a,/mnt1/b file:///mnt2 ; ... }`.
fn paths(value: &str) -> Vec<String> {
    let is_between = |c: char| c.is_whitespace() || "=,:;\"'{}".contains(c);
    let tokens = value.split(is_between).map(|token| token.trim_start_matches(['-', '+', '!']));
    tokens.filter(|token| token.starts_with('/')).map(|token| format!("/{}", token.trim_start_matches('/'))).collect()
}

/// Whether a unit is ordered after the target, or after a unit that is.
fn waits(units: &Units, unit: &str) -> bool {
    let (mut seen, mut rest) = (HashSet::new(), vec![unit]);
    while let Some(unit) = rest.pop() {
        for before in units.property(unit, "After").split_whitespace() {
            if before == TARGET || before == BOOT {
                return true;
            }
            if seen.insert(before) {
                rest.push(before);
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const UNITS: &str = "\
Id=datanode.service
LoadState=loaded
After=basic.target network.target
ExecStart={ path=/usr/bin/datanode ; argv[]=/usr/bin/datanode --dirs=file:///data/hdfs,/data1/hdfs ; ignore_errors=no }

Id=ordered.service
LoadState=loaded
After=luks-agent.target basic.target
WorkingDirectory=/data/x

Id=behind.service
LoadState=loaded
After=ordered.service
ReadWritePaths=-/data2

Id=elsewhere.service
LoadState=loaded
After=basic.target
WorkingDirectory=/database
ExecStart={ path=/bin/a ; argv[]=/bin/a ; ignore_errors=no }
ExecStart={ path=/bin/b ; argv[]=/bin/b /datax/y /data12x ; ignore_errors=no }

Id=mounts.service
LoadState=loaded
After=data2-logs.mount basic.target
RequiresMountsFor=/data2/logs

Id=data2-logs.mount
LoadState=not-found
After=local-fs-pre.target

Id=gone.service
LoadState=not-found
WorkingDirectory=/data

Id=luks-agent.service
LoadState=loaded
ReadWritePaths=/data
";

    fn points(base: Option<&str>, recorded: &[&str]) -> MountPoints {
        MountPoints {
            recorded: recorded.iter().map(|&point| point.to_owned()).collect(),
            base: base.map(str::to_owned),
        }
    }

    #[test]
    fn services_on_volumes_that_do_not_wait_are_found_and_no_others() {
        let units = Units::parse(UNITS);
        let found = not_waiting(&units, &points(Some("/data"), &[]));
        let found: Vec<_> = found.iter().map(|(unit, path)| (unit.as_str(), path.as_str())).collect();
        assert_eq!(found, [("datanode.service", "/data/hdfs"), ("mounts.service", "/data2/logs")]);
        assert_eq!(not_waiting(&units, &points(None, &[])), []);
        let recorded = not_waiting(&units, &points(None, &["/database"]));
        assert_eq!(recorded, [("elsewhere.service".to_owned(), "/database".to_owned())]);
    }

    #[test]
    fn mount_points_are_the_recorded_ones_and_the_numbered_ones_of_the_base() {
        let points = points(Some("/mnt"), &["/srv/a"]);
        for (path, expected) in [
            ("/mnt", true),
            ("/mnt/x", true),
            ("/mnt12/x", true),
            ("/mntx", false),
            ("/mnt1x", false),
            ("/srv/a", true),
            ("/srv/a1", false),
            ("/srv", false),
        ] {
            assert_eq!(points.hold(path), expected, "{path}");
        }
        assert_eq!(points.to_string(), "/mnt, /srv/a");
    }

    #[test]
    fn the_mount_points_come_from_the_configuration_and_the_state_file() {
        let config = Config::from_text(Path::new("x"), "[kms]\nkey_id = \"alias/x\"\n").unwrap();
        let state = State::sample();
        let points = MountPoints::of(&config, Some(&state));
        let recorded = state.volumes[0].mount_point.as_ref().unwrap().display().to_string();
        assert!(points.hold("/mnt3/x") && points.hold(&recorded), "{points}");
    }
}
