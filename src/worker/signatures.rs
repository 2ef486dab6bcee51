//! Signatures on a disk, as blkid finds them.

use std::fs::File;
use std::os::fd::AsRawFd;

use libblkid_rs::{BlkidProbe, BlkidProbeRet, BlkidSublks, BlkidSublksFlags};

pub(super) fn is_luks(signature: &str) -> bool {
    signature.starts_with("crypto_LUKS")
}

/// Every signature that blkid knows, superblocks and partition tables, broken checksums included.
pub(super) fn signatures(file: &File) -> Result<Vec<String>, String> {
    let failed = |e: libblkid_rs::BlkidErr| format!("blkid cannot examine it: {e}");
    let mut probe = BlkidProbe::new().map_err(failed)?;
    probe.set_device(file.as_raw_fd(), 0, 0).map_err(failed)?;
    probe.enable_superblocks(true).map_err(failed)?;
    probe
        .set_superblock_flags(BlkidSublksFlags::new(vec![
            BlkidSublks::Type,
            BlkidSublks::Usage,
            BlkidSublks::Version,
            BlkidSublks::Magic,
            BlkidSublks::Badcsum,
        ]))
        .map_err(failed)?;
    probe.enable_partitions(true).map_err(failed)?;
    let mut found = Vec::new();
    while probe.do_probe().map_err(failed)? == BlkidProbeRet::Success {
        let value = |name| probe.lookup_value(name).ok();
        let (name, offset) = match value("TYPE") {
            Some(name) => (name, value("SBMAGIC_OFFSET")),
            None => match value("PTTYPE") {
                Some(name) => (format!("{name} partition table"), value("PTMAGIC_OFFSET")),
                // something was found, and that it has no name does not make it nothing
                None => ("unnamed signature".to_owned(), None),
            },
        };
        found.push(match offset {
            Some(offset) => format!("{name} at byte {offset}"),
            None => name,
        });
    }
    Ok(found)
}
