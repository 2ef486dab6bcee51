//! Finds the kind of a disk by its kernel name.

use crate::disk::DiskKind;

pub(super) fn kind_of(name: &str) -> DiskKind {
    let numbered =
        |prefix: &str| name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    let lettered =
        |prefix: &str| name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()));
    if numbered("nvme") {
        DiskKind::Nvme
    } else if lettered("xvd") {
        DiskKind::Xen
    } else if lettered("sd") {
        DiskKind::Scsi
    } else if lettered("vd") {
        DiskKind::Virtio
    } else if numbered("dm-") {
        DiskKind::DeviceMapper
    } else if numbered("md") || name.starts_with("md_") {
        DiskKind::Md
    } else if numbered("loop") {
        DiskKind::Loop
    } else if numbered("ram") || numbered("zram") {
        DiskKind::Ram
    } else if numbered("sr") {
        DiskKind::Optical
    } else {
        DiskKind::Other
    }
}
