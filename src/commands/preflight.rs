//! What the commands check before they do anything, and the lock that they take.

use std::fs::OpenOptions;
use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::error::CommandError;
use crate::config::Config;
use crate::state::{StateDir, StateError};
use crate::storage::{FilesystemKind, check_tools};

/// Pause between two attempts to lock the state directory.
const LOCK_PAUSE: Duration = Duration::from_millis(200);

pub(super) fn need_root(command: &'static str) -> Result<(), CommandError> {
    if nix::unistd::geteuid().is_root() { Ok(()) } else { Err(CommandError::NotRoot(command)) }
}

/// Checks that the command runs as root, with its tools and with device-mapper.
pub(super) fn preflight(command: &'static str, filesystem: FilesystemKind) -> Result<(), CommandError> {
    need_root(command)?;
    check_tools(filesystem)?;
    // opening it makes the kernel load the module, if it is not built in
    let control = OpenOptions::new().read(true).write(true).open("/dev/mapper/control");
    control.map(|_| ()).map_err(CommandError::NoDeviceMapper)
}

/// Returns how long another run may take: one that waits for the key service and for a disk.
pub(super) fn patience_with_another_run(config: &Config) -> Duration {
    config.key_deadline().saturating_add(config.volumes.deadline)
}

/// Locks the state directory. Waits up to `patience` for another luks-agent that holds the lock.
pub(super) async fn lock(
    config: &Config,
    patience: Duration,
    take: impl Fn(&Path) -> Result<StateDir, StateError>,
) -> Result<StateDir, StateError> {
    let since = Instant::now();
    let mut told = None;
    loop {
        match take(&config.state.dir) {
            Err(StateError::Locked { path, holder, .. }) => {
                let waited = since.elapsed();
                if waited >= patience {
                    return Err(StateError::Locked { path, holder, waited });
                }
                if told.as_ref() != Some(&holder) {
                    tracing::warn!(
                        "waiting for another luks-agent ({holder}) to finish: it holds the lock on {}; giving up in {} s",
                        path.display(),
                        (patience - waited).as_secs()
                    );
                    told = Some(holder);
                }
                sleep(LOCK_PAUSE).await;
            }
            other => return other,
        }
    }
}
