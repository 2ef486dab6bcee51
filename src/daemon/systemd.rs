//! systemd, which runs what the daemon finds to do, and which the daemon tells how the node is.

use std::process::Stdio;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::process::Command;
use tokio::time::{Interval, interval};

/// What the boot runs, and what consumers wait for.
const BOOT: &str = "luks-agent-boot.service";
const TARGET: &str = "luks-agent.target";

/// Returns the clock of the watchdog's signs of life: half of what systemd allows, as sd_watchdog_enabled(3) advises.
pub(super) fn watchdog() -> Interval {
    let watched = sd_notify::watchdog_enabled();
    interval(watched.map_or(Duration::from_secs(3600), |limit| limit / 2))
}

/// Tells systemd; outside of it nobody listens.
pub(super) fn tell(states: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(states) {
        tracing::debug!("cannot notify systemd: {e}");
    }
}

/// Has systemd run a unit. What went wrong in it is in its own journal and report.
pub(super) async fn run_unit(unit: &str) {
    tracing::debug!(unit, "starting");
    if let Err(e) = systemctl(&["start", unit]).await {
        tracing::warn!(unit, "{unit} failed: {e}");
    }
}

/// Starts the target where the boot failed: what it could not do is done now, whoever did it, and what waits for the target can
/// start. The boot decides once more. Where somebody stopped it, it stays stopped.
pub(super) async fn start_target() {
    let boot =
        systemctl(&["show", "--property=ActiveState", "--property=ExecMainStatus", BOOT]).await.unwrap_or_default();
    let is = |line: &str| boot.lines().any(|other| other == line);
    // the boot had succeeded where it was the stop that failed
    if !is("ActiveState=failed") || is("ExecMainStatus=0") {
        return;
    }
    tracing::info!("all volumes are open and mounted now, starting {TARGET}");
    if let Err(e) = systemctl(&["start", "--no-block", TARGET]).await {
        tracing::warn!(unit = TARGET, "cannot start {TARGET}: {e}");
    }
}

/// What it prints, or the first line of what it says is wrong.
async fn systemctl(arguments: &[&str]) -> Result<String, String> {
    let systemctl = Command::new("systemctl")
        .args(arguments)
        // what is meant for the daemon alone
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
