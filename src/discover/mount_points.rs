//! Where devices are mounted.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::backing::Backing;
use super::error::DiscoverError;
use super::sysfs::{Node, Sysfs};
use super::table::Mounts;
use crate::disk::DevNo;

/// Mount points by the number of the block device directly below them, in the order of mounting.
#[derive(Debug, Default)]
pub(super) struct MountPoints(BTreeMap<DevNo, Vec<PathBuf>>);

impl MountPoints {
    /// Collects the mount points of a mount table.
    pub(super) fn from_table(sysfs: &Sysfs<'_>, mounts: &Mounts) -> Self {
        let mut all: BTreeMap<DevNo, Vec<PathBuf>> = BTreeMap::new();
        for mount in mounts.iter() {
            let devices = if mount.devno.major != 0 {
                vec![mount.devno]
            } else {
                // A failure here is not of a system mount (`boot::resolve` reports those); such a device is busy when
                // it is opened.
                mount.backing(sysfs).unwrap_or_default().iter().filter_map(Backing::devno).collect()
            };
            for devno in devices {
                all.entry(devno).or_default().push(mount.point.clone());
            }
        }
        Self(all)
    }

    /// Returns where a disk or partition is mounted.
    pub(super) fn of(&self, node: &Node) -> Result<Vec<PathBuf>, DiscoverError> {
        Ok(self.0.get(&node.devno()?).cloned().unwrap_or_default())
    }
}
