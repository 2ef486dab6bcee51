//! Records of udev.

use std::collections::BTreeMap;
use std::fs;

use super::roots::Roots;
use crate::disk::DevNo;

/// Returns the properties that udev recorded for a device: the `E:KEY=VALUE` lines of its record. Empty without udev.
pub(super) fn udev_properties(roots: &Roots, devno: DevNo) -> BTreeMap<String, String> {
    let record = fs::read(roots.run.join(format!("udev/data/b{devno}"))).unwrap_or_default();
    String::from_utf8_lossy(&record)
        .lines()
        .filter_map(|line| line.strip_prefix("E:")?.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
        .filter(|(_, value)| !value.is_empty())
        .collect()
}
