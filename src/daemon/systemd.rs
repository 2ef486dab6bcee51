//! systemd: runs commands for the daemon, and hears how the node is.

use std::process::Stdio;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::process::Command;
use tokio::time::{Interval, interval};

/// The unit that the boot runs, and the one that consumers wait for.
const BOOT: &str = "luks-agent-boot.service";
const TARGET: &str = "luks-agent.target";

/// Returns the clock of watchdog notifications: half of the interval that systemd allows, as sd_watchdog_enabled(3) recommends.
pub(super) fn watchdog() -> Interval {
    let watched = sd_notify::watchdog_enabled();
    interval(watched.map_or(Duration::from_secs(3600), |limit| limit / 2))
}

/// Notifies systemd. Without systemd this does nothing.
pub(super) fn tell(states: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(states) {
        tracing::debug!("cannot notify systemd: {e}");
    }
}

/// Has systemd run a unit, waits for it, and returns whether it succeeded. The unit reports its own failures.
pub(super) async fn run_unit(unit: &str) -> bool {
    tracing::debug!(unit, "starting");
    let started = systemctl(&["start", unit]).await;
    if let Err(e) = &started {
        tracing::warn!(unit, "{unit} failed: {e}");
    }
    started.is_ok()
}

/// Starts the target if the boot failed: all volumes are open now, so what waits for the target can start. Returns whether that succeeded.
///
/// Starting the target runs the boot again, which decides. If somebody stopped the boot service, the target stays stopped.
pub(super) async fn start_target() -> bool {
    let boot =
        systemctl(&["show", "--property=ActiveState", "--property=ExecMainStatus", BOOT]).await.unwrap_or_default();
    let is = |line: &str| boot.lines().any(|other| other == line);
    // with status 0 the boot succeeded, and stopping it failed
    if !is("ActiveState=failed") || is("ExecMainStatus=0") {
        return true;
    }
    tracing::info!("all volumes are open and mounted now, starting {TARGET}");
    let started = systemctl(&["start", "--no-block", TARGET]).await;
    if let Err(e) = &started {
        tracing::warn!(unit = TARGET, "cannot start {TARGET}: {e}");
    }
    started.is_ok()
}

/// Runs systemctl. Returns its output, or the first line of its error.
async fn systemctl(arguments: &[&str]) -> Result<String, String> {
    let systemctl = Command::new("systemctl")
        .args(arguments)
        // these are for the daemon alone
        .env_remove("NOTIFY_SOCKET")
        .env_remove("WATCHDOG_USEC")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .output();
    match systemctl.await {
        Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default().to_owned()),
        Err(e) => Err(format!("cannot run systemctl: {e}")),
    }
}
