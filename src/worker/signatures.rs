//! The signatures that blkid finds on a disk.

use std::fs::File;
use std::os::fd::AsRawFd;

use libblkid_rs::{BlkidErr, BlkidProbe, BlkidProbeRet, BlkidSublks, BlkidSublksFlags};

/// blkid failed.
#[derive(Debug, thiserror::Error)]
#[error("blkid cannot examine it")]
pub(super) struct SignatureError(#[from] BlkidErr);

pub(super) fn is_luks(signature: &str) -> bool {
    signature.starts_with("crypto_LUKS")
}

/// Returns all superblocks and partition tables that blkid finds, including those with a wrong checksum.
pub(super) fn find_signatures(file: &File) -> Result<Vec<String>, SignatureError> {
    let mut probe = BlkidProbe::new()?;
    probe.set_device(file.as_raw_fd(), 0, 0)?;
    probe.enable_superblocks(true)?;
    probe.set_superblock_flags(BlkidSublksFlags::new(vec![
        BlkidSublks::Type,
        BlkidSublks::Usage,
        BlkidSublks::Version,
        BlkidSublks::Magic,
        BlkidSublks::Badcsum,
    ]))?;
    probe.enable_partitions(true)?;
    let mut found = Vec::new();
    while probe.do_probe()? == BlkidProbeRet::Success {
        let value = |name| probe.lookup_value(name).ok();
        let (name, offset) = match value("TYPE") {
            Some(name) => (name, value("SBMAGIC_OFFSET")),
            None => match value("PTTYPE") {
                Some(name) => (format!("{name} partition table"), value("PTMAGIC_OFFSET")),
                // a signature without a name is still a signature
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
