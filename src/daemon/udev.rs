//! Events from udev about disks.

use std::io;

use tokio_udev::{AsyncMonitorSocket, Event, EventType, MonitorBuilder};

/// The tag that the project's udev rule gives to disks that may be volumes.
const TAG: &str = "luks-agent";

/// Listens for disks that come, go or change, after udev has processed them.
pub(super) fn listen() -> io::Result<AsyncMonitorSocket> {
    MonitorBuilder::new()?.match_subsystem_devtype("block", "disk")?.match_tag(TAG)?.listen()?.try_into()
}

/// Whether a disk came, went or changed its size.
///
/// udev also reports that somebody wrote to a disk. Reacting to that would open a volume again that somebody closed to detach it.
pub(super) fn is_about_a_disk(event: io::Result<Event>) -> bool {
    match event {
        Ok(event) => {
            let resized = || event.property_value("RESIZE").or(event.property_value("DISK_MEDIA_CHANGE")).is_some();
            let matters = event.event_type() != EventType::Change || resized();
            tracing::debug!(device = %event.sysname().display(), matters, "{} of a disk", event.event_type());
            matters
        }
        // events were lost, so any disk may have changed
        Err(e) => {
            tracing::warn!("cannot read events from udev: {e}; checking all disks");
            true
        }
    }
}
