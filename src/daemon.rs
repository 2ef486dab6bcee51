//! The service: watches udev and the clock, has systemd start the short-lived commands, and says how the node is.
//!
//! It holds no key, opens no block device and reaches no network. What is to be done is done by units of systemd of its own:
//! they need privileges that the daemon is better without, they mount in the namespace that everybody sees, and neither a
//! restart nor the death of the daemon touches them.

mod metrics;
mod schedule;

use std::future::pending;
use std::io;
use std::path::Path;
use std::pin::pin;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use sd_notify::NotifyState;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, interval, sleep_until};
use tokio_udev::{AsyncMonitorSocket, Event, EventType, MonitorBuilder};

use crate::config::{Config, ConfigError};
use crate::last::{self, Last};
use crate::report::ExitCode;
use crate::worker::chain;
use schedule::{Schedule, Work};

/// The tag that the project's udev rule gives to disks that may be volumes.
const TAG: &str = "luks-agent";

/// What the boot runs, and what consumers wait for.
const BOOT: &str = "luks-agent-boot.service";
const TARGET: &str = "luks-agent.target";

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
    /// The socket for metrics is of no use.
    #[error("cannot use the socket that luks-agent-metrics.socket hands over; expected a stream socket, TCP or unix")]
    Socket(#[source] io::Error),
}

impl DaemonError {
    /// The exit code.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Config(_) => ExitCode::Configuration,
            Self::Udev(_) | Self::Signals(_) | Self::Socket(_) => ExitCode::Failed,
        }
    }
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
    let config = Arc::new(Config::load(path)?);
    let mut disks = disks().map_err(DaemonError::Udev)?;
    let signals = |kind| signal(kind).map_err(DaemonError::Signals);
    let mut terminate = signals(SignalKind::terminate())?;
    let mut interrupt = signals(SignalKind::interrupt())?;
    let mut hang_up = signals(SignalKind::hangup())?;
    // half of what systemd allows, as sd_watchdog_enabled(3) advises
    let watched = sd_notify::watchdog_enabled();
    let mut watchdog = interval(watched.map_or(Duration::from_secs(3600), |limit| limit / 2));
    let mut schedule = Schedule::new(Instant::now(), config.health.interval);
    let (config, served) = watch::channel(config);
    let socket = metrics::socket().map_err(DaemonError::Socket)?;
    let mut asked = pin!(async {
        match socket {
            Some(socket) => metrics::serve(socket, served).await,
            None => pending().await,
        }
    });
    let mut minute = interval(Duration::from_secs(60));
    let mut running: FuturesUnordered<LocalBoxFuture<'static, Work>> = FuturesUnordered::new();
    tell(&[NotifyState::Ready, NotifyState::Status(&status())]);
    tracing::info!("watching disks; the key is looked at every {} s", config.borrow().health.interval.as_secs());
    loop {
        let due = async {
            match schedule.next() {
                Some((at, work)) => {
                    sleep_until(at).await;
                    work
                }
                None => pending().await,
            }
        };
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hang_up.recv() => reload(path, &config, &mut schedule),
            Some(event) = disks.next() => if is_about_a_disk(event) {
                schedule.disk_event(Instant::now());
            },
            _ = watchdog.tick() => tell(&[NotifyState::Watchdog]),
            // also what was found by commands that the daemon has not started
            _ = minute.tick() => publish(&config.borrow()),
            () = &mut asked => {}
            Some(work) = running.next() => {
                schedule.ended(work);
                if last::read(work.command()).is_some_and(|last| last.no_key_service()) {
                    schedule.again(work, Instant::now(), fastrand::f64());
                } else if work == Work::Provision {
                    schedule.check_now(Instant::now());
                }
                publish(&config.borrow());
            },
            work = due => {
                schedule.started(work, Instant::now(), fastrand::f64());
                running.push(Box::pin(start(work)));
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

/// Whether there is another disk than before, or one of another size. That somebody has written to a disk, which udev tells of
/// too, is no reason to touch it: whoever closes a volume to detach it would find it open again.
fn is_about_a_disk(event: io::Result<Event>) -> bool {
    match event {
        Ok(event) => {
            let resized = || event.property_value("RESIZE").or(event.property_value("DISK_MEDIA_CHANGE")).is_some();
            let matters = event.event_type() != EventType::Change || resized();
            tracing::debug!(device = %event.sysname().display(), matters, "{} of a disk", event.event_type());
            matters
        }
        // some were lost, so that it is not known what they were
        Err(e) => {
            tracing::warn!("udev: {e}; looking at all disks");
            true
        }
    }
}

/// Has systemd run a unit, and waits for its end. What went wrong in it is in its own journal and report.
async fn start(work: Work) -> Work {
    let unit = work.unit();
    tracing::debug!(unit, "starting");
    if let Err(e) = systemctl(&["start", unit]).await {
        tracing::warn!(unit, "{unit} did not end well: {e}");
    } else if work == Work::Provision && systemctl(&["is-failed", BOOT]).await.is_ok() {
        // what the boot could not do is done now: what waits for the target can start
        tracing::info!("all volumes are there now, starting {TARGET}");
        if let Err(e) = systemctl(&["start", TARGET]).await {
            tracing::warn!(unit = TARGET, "{TARGET} was not reached: {e}");
        }
    }
    work
}

async fn systemctl(arguments: &[&str]) -> Result<(), String> {
    let systemctl = Command::new("systemctl")
        .args(arguments)
        // what is meant for the daemon alone
        .env_remove("NOTIFY_SOCKET")
        .env_remove("WATCHDOG_USEC")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .output();
    match systemctl.await {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default().to_owned()),
        Err(e) => Err(format!("cannot run systemctl: {e}")),
    }
}

fn reload(path: &Path, config: &watch::Sender<Arc<Config>>, schedule: &mut Schedule) {
    tell(&[NotifyState::Reloading]);
    match Config::load(path) {
        Ok(new) => {
            schedule.set_interval(Instant::now(), new.health.interval);
            metrics::write_file(&new);
            config.send_replace(Arc::new(new));
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

/// Tells how the node is, where it does not have to be asked for.
fn publish(config: &Config) {
    tell(&[NotifyState::Status(&status())]);
    metrics::write_file(config);
}

/// Tells systemd; outside of it nobody listens.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(states) {
        tracing::debug!("systemd cannot be told: {e}");
    }
}
