//! udev, which tells of disks.

use std::io;

use tokio_udev::{AsyncMonitorSocket, Event, EventType, MonitorBuilder};

/// The tag that the project's udev rule gives to disks that may be volumes.
const TAG: &str = "luks-agent";

/// Disks that come, go and change, after udev is done with them.
pub(super) fn listen() -> io::Result<AsyncMonitorSocket> {
    MonitorBuilder::new()?.match_subsystem_devtype("block", "disk")?.match_tag(TAG)?.listen()?.try_into()
}

/// Whether there is another disk than before, or one of another size. That somebody has written to a disk, which udev tells of
/// too, is no reason to touch it: whoever closes a volume to detach it would find it open again.
pub(super) fn is_about_a_disk(event: io::Result<Event>) -> bool {
    match event {
        Ok(event) => {
            let resized = || event.property_value("RESIZE").or(event.property_value("DISK_MEDIA_CHANGE")).is_some();
            let matters = event.event_type() != EventType::Change || resized();
            tracing::debug!(device = %event.sysname().display(), matters, "{} of a disk", event.event_type());
            matters
        }
        // some were lost, so that it is not known what they were
        Err(e) => {
            tracing::warn!("cannot read events from udev: {e}; checking all disks");
            true
        }
    }
}
