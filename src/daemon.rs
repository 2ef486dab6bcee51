//! The service: watches udev and the clock, has systemd start the short-lived commands, and says how the node is.
//!
//! It holds no key, opens no block device and reaches no network. What is to be done is done by units of systemd of its own:
//! they need privileges that the daemon is better without, they mount in the namespace that everybody sees, and neither a
//! restart nor the death of the daemon touches them.

mod schedule;

use std::future::pending;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use sd_notify::NotifyState;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, interval, sleep_until};
use tokio_udev::{AsyncMonitorSocket, MonitorBuilder};

use crate::config::{Config, ConfigError};
use crate::last::{self, Last};
use crate::worker::chain;
use schedule::{Schedule, Work};

/// The tag that the project's udev rule gives to disks that may be volumes.
const TAG: &str = "luks-agent";

/// The daemon cannot work.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// udev cannot be listened to.
    #[error("cannot listen to udev")]
    Udev(#[source] io::Error),
    /// Signals cannot be waited for.
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
}

impl Work {
    fn unit(self) -> &'static str {
        match self {
            Self::Provision => "luks-agent-provision.service",
            Self::Health => "luks-agent-health.service",
        }
    }

    /// The command that the unit runs, by which its last report is kept.
    fn command(self) -> &'static str {
        match self {
            Self::Provision => "provision",
            Self::Health => "health",
        }
    }
}

/// Runs until SIGTERM or SIGINT. SIGHUP has it read the configuration again; one with a mistake is told and not used.
///
/// # Errors
/// When it cannot begin.
pub async fn run(path: &Path) -> Result<(), DaemonError> {
    let config = Config::load(path)?;
    let mut disks = disks().map_err(DaemonError::Udev)?;
    let signals = |kind| signal(kind).map_err(DaemonError::Signals);
    let mut terminate = signals(SignalKind::terminate())?;
    let mut interrupt = signals(SignalKind::interrupt())?;
    let mut hang_up = signals(SignalKind::hangup())?;
    // half of what systemd allows, as sd_watchdog_enabled(3) advises
    let watched = sd_notify::watchdog_enabled();
    let mut watchdog = interval(watched.map_or(Duration::from_secs(3600), |limit| limit / 2));
    let mut schedule = Schedule::new(Instant::now(), config.health.interval);
    let mut running: Option<(Work, LocalBoxFuture<'static, ()>)> = None;
    tell(&[NotifyState::Ready, NotifyState::Status(&status())]);
    tracing::info!("watching disks; the key is looked at every {} s", config.health.interval.as_secs());
    loop {
        let (at, work) = schedule.next();
        let idle = running.is_none();
        let ended = async {
            match &mut running {
                Some((_, run)) => run.await,
                None => pending().await,
            }
        };
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hang_up.recv() => reload(path, &mut schedule),
            Some(event) = disks.next() => match event {
                Ok(event) => {
                    tracing::debug!(device = %event.sysname().display(), "{} of a disk", event.event_type());
                    schedule.disk_event(Instant::now());
                }
                // some were lost, so that it is not known what they were
                Err(e) => {
                    tracing::warn!("udev: {e}; looking at all disks");
                    schedule.disk_event(Instant::now());
                }
            },
            _ = watchdog.tick() => tell(&[NotifyState::Watchdog]),
            () = ended => {
                if let Some((work, _)) = running.take()
                    && last::read(work.command()).is_some_and(|last| last.no_key_service())
                {
                    schedule.again(work, Instant::now(), fastrand::f64());
                }
                tell(&[NotifyState::Status(&status())]);
            },
            () = sleep_until(at), if idle => {
                schedule.started(work, Instant::now(), fastrand::f64());
                running = Some((work, Box::pin(start(work))));
            }
        }
    }
    tell(&[NotifyState::Stopping]);
    tracing::info!("ending; volumes stay as they are");
    Ok(())
}

/// Disks that come, go and change, after udev is done with them.
fn disks() -> io::Result<AsyncMonitorSocket> {
    MonitorBuilder::new()?.match_subsystem_devtype("block", "disk")?.match_tag(TAG)?.listen()?.try_into()
}

/// Has systemd run a unit, and waits for its end. What went wrong in it is in its own journal and report.
async fn start(work: Work) {
    let unit = work.unit();
    tracing::debug!(unit, "starting");
    let systemctl = Command::new("systemctl")
        .args(["--quiet", "start", unit])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .output();
    match systemctl.await {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            tracing::warn!(unit, "{unit} did not end well: {}", said.lines().next().unwrap_or_default());
        }
        Err(e) => tracing::error!(unit, "cannot run systemctl to start {unit}: {e}"),
    }
}

fn reload(path: &Path, schedule: &mut Schedule) {
    tell(&[NotifyState::Reloading]);
    match Config::load(path) {
        Ok(config) => {
            schedule.set_interval(Instant::now(), config.health.interval);
            tracing::info!("read the configuration again");
        }
        Err(e) => tracing::error!("the configuration stays as it was: {}", chain(e)),
    }
    tell(&[NotifyState::Ready, NotifyState::Status(&status())]);
}

/// One line on how the node is.
fn status() -> String {
    let say = |last: Option<Last>| last.map(|last| format!("{}: {}", last.command, last.text()));
    let said = [say(last::read("provision")).or_else(|| say(last::read("boot"))), say(last::read("health"))];
    let said: Vec<String> = said.into_iter().flatten().collect();
    if said.is_empty() { "nothing was done yet".to_owned() } else { said.join("; ") }
}

/// Tells systemd; outside of it nobody listens.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(states) {
        tracing::debug!("systemd cannot be told: {e}");
    }
}
