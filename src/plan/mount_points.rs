//! Mount points: known volumes keep theirs, new ones get the first that is free.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::expect::is_superseded;
use super::owner::Owners;
use crate::state::{VolumeRecord, VolumeRole};

#[derive(Debug)]
pub(super) struct MountPoints<'a> {
    base: &'a Path,
    taken: BTreeSet<PathBuf>,
    known: BTreeMap<Uuid, PathBuf>,
}

impl<'a> MountPoints<'a> {
    /// Assigns the mount points of known volumes.
    ///
    /// A volume keeps its mount point while its disk is not attached. Gone instance store keeps it for the disk that
    /// replaces it, unless one has already. If two volumes want the same mount point, a volume mounted there goes
    /// first, then one that is not gone, then the newer one.
    pub(super) fn new(owners: &Owners<'_>, base: &'a Path) -> Self {
        let devices = &owners.inventory.devices;
        let is_gone = |v: &VolumeRecord| v.role == VolumeRole::InstanceStore && !owners.is_seen(v);
        let is_expected = |v: &VolumeRecord| !is_superseded(owners.state, v);
        let mounted = |v: &VolumeRecord, at: &PathBuf| {
            devices.iter().filter_map(|facts| facts.mapping_of(v.luks_uuid)).any(|mapping| mapping.mounts.contains(at))
        };
        let mut wishes: Vec<(&VolumeRecord, &PathBuf)> = owners
            .state
            .volumes
            .iter()
            .rev()
            .filter(|v| !is_gone(v) || is_expected(v))
            .filter_map(|v| Some((v, v.mount_point.as_ref()?)))
            .collect();
        wishes.sort_by_key(|(v, at)| (!mounted(v, at), is_gone(v)));
        let mut points = Self { base, taken: BTreeSet::new(), known: BTreeMap::new() };
        let mut late = Vec::new();
        for (volume, at) in wishes {
            if points.taken.insert(at.clone()) {
                points.known.insert(volume.luks_uuid, at.clone());
            } else {
                late.push(volume.luks_uuid);
            }
        }
        for luks_uuid in late {
            let at = points.next();
            points.known.insert(luks_uuid, at);
        }
        points
    }

    /// Returns the mount point of a known volume.
    pub(super) fn of(&self, record: &VolumeRecord) -> Option<PathBuf> {
        self.known.get(&record.luks_uuid).cloned()
    }

    /// Returns the mount point of another volume that lies inside this one, or that contains it.
    pub(super) fn nested(&self, at: &Path) -> Option<&Path> {
        let mut others = self.taken.iter().map(PathBuf::as_path).filter(|other| *other != at);
        others.find(|other| at.starts_with(other) || other.starts_with(at))
    }

    /// Takes a mount point.
    ///
    /// # Errors
    /// Returns the mount point of another volume that is the same, lies inside this one, or contains it.
    pub(super) fn claim(&mut self, at: &Path) -> Result<PathBuf, PathBuf> {
        if let Some(other) = self.taken.get(at).map(PathBuf::as_path).or_else(|| self.nested(at)) {
            return Err(other.to_owned());
        }
        self.taken.insert(at.to_owned());
        Ok(at.to_owned())
    }

    /// Takes the first free mount point.
    pub(super) fn next(&mut self) -> PathBuf {
        let nth = |n: u32| match n {
            0 => self.base.to_owned(),
            n => PathBuf::from(format!("{}{n}", self.base.display())),
        };
        let free = (0..).map(nth).find(|at| !self.taken.contains(at)).expect("an unbounded range has a free one");
        self.taken.insert(free.clone());
        free
    }
}
