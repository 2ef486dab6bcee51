//! Identifies Xen disks, which have neither model nor serial number, by the IMDS block device mapping.

use std::collections::BTreeMap;

use super::boot::Boot;
use crate::disk::{DeviceFacts, DiskKind};

/// Letter shifts: kernels of the RHEL family name the first disk `xvde` where the mapping says `sda`.
const SHIFTS: [u8; 2] = [0, 4];

/// Sets `mapping` of every Xen disk that the block device mapping names unambiguously.
///
/// Returns how the mapping and the running system disagree on the boot disk, if they do.
pub(super) fn assign(devices: &mut [DeviceFacts], mapping: &BTreeMap<String, String>, boot: &Boot) -> Option<String> {
    let disk = |name: &str, shift: u8| {
        let name = shifted(name, shift)?;
        let whole = name.trim_end_matches(|c: char| c.is_ascii_digit());
        // Some instances have a disk `xvda1` and no `xvda`.
        let named = |n: &str| devices.iter().position(|d| d.kind == DiskKind::Xen && d.name == n);
        named(&name).or_else(|| named(whole))
    };
    // The root device always exists and is always listed, so it shows the shift of the letters.
    let roots = || mapping.iter().filter(|(key, _)| is_root(key)).map(|(_, name)| name);
    let shift = SHIFTS.into_iter().find(|shift| roots().any(|name| disk(name, *shift).is_some()))?;

    let mut found: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
    for (key, name) in mapping {
        if let Some(at) = disk(name, shift) {
            found.entry(at).or_default().push(key);
        }
    }
    let mut mismatch = None;
    for (at, keys) in found {
        let facts = &mut devices[at];
        let root = keys.iter().find(|key| is_root(key));
        facts.mapping = match (root, keys.as_slice()) {
            (Some(root), _) => Some((*root).to_owned()),
            (None, [only]) => Some((*only).to_owned()),
            (None, _) => None,
        };
        if let Some(root) = root
            && !boot.carries_mount(&facts.name)
            && boot.unresolved.is_none()
        {
            mismatch = Some(format!(
                "the block device mapping names {} as the root device ({root}), but no part of the running system is on it",
                facts.name
            ));
        }
    }
    mismatch
}

fn is_root(key: &str) -> bool {
    key == "ami" || key == "root"
}

/// Returns `xvdb1` for `sdb1`, `/dev/sdb1` or `xvdb1`, with its letter shifted.
fn shifted(name: &str, shift: u8) -> Option<String> {
    let name = name.trim();
    let name = name.strip_prefix("/dev/").unwrap_or(name);
    let rest = name.strip_prefix("sd").or_else(|| name.strip_prefix("xvd"))?;
    let letters = rest.trim_end_matches(|c: char| c.is_ascii_digit());
    match (shift, letters.as_bytes()) {
        (0, [b'a'..=b'z', ..]) => Some(format!("xvd{rest}")),
        (_, [letter @ b'a'..=b'z']) => {
            let moved = letter.checked_add(shift).filter(u8::is_ascii_lowercase)?;
            Some(format!("xvd{}{}", char::from(moved), &rest[1..]))
        }
        _ => None,
    }
}
