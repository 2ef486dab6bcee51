//! The service: compares the node with what it should be, has systemd start the short-lived commands for the difference, and says
//! how the node is.
//!
//! It holds no key, opens no block device and reaches no network. What is to be done is done by units of systemd of its own:
//! they need privileges that the daemon is better without, they mount in the namespace that everybody sees, and neither a
//! restart nor the death of the daemon touches them.
//!
//! May import: `commands`, `config`, `disk`, `error`, `plan`, `report`, `state`.
//! Never: a disk, a key, the network.

mod compare;
mod metrics;
mod schedule;

use std::future::pending;
use std::io;
use std::path::Path;
use std::pin::pin;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use compare::Seen;
use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use schedule::{Schedule, Work};
use sd_notify::NotifyState;
use tokio::process::Command;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, Interval, interval, sleep, sleep_until};
use tokio_udev::{AsyncMonitorSocket, Event, EventType, MonitorBuilder};

use crate::commands;
use crate::config::Config;
use crate::error::chain;
use crate::report::ExitCode;
use crate::report::last::{self, Last};
use crate::state::closed;

/// The tag that the project's udev rule gives to disks that may be volumes.
const TAG: &str = "luks-agent";

/// What the boot runs, and what consumers wait for.
const BOOT: &str = "luks-agent-boot.service";
const TARGET: &str = "luks-agent.target";

/// How often it is tried whether there is a configuration. It is used when it was valid twice, so that what is written in several
/// files is complete.
const CONFIGURATION: Duration = Duration::from_secs(10);

/// Signals, which are waited for everywhere.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }
}

/// Until the daemon is to end.
async fn end(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// The daemon cannot work.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
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
            Self::Udev(_) | Self::Signals(_) | Self::Socket(_) => ExitCode::Failed,
        }
    }
}

/// What came of a piece of work.
enum Ended {
    /// A look at the node; `None` where it could not be looked at.
    Looked(Option<Seen>),
    /// Anything else.
    Done(Work),
}

/// Runs until SIGTERM or SIGINT. SIGHUP has it read the configuration again; one with a mistake is told and not used. While there
/// is no valid one it waits for it.
///
/// # Errors
/// When it cannot begin.
pub async fn run(path: &Path) -> Result<(), DaemonError> {
    let mut signals = Signals::new().map_err(DaemonError::Signals)?;
    let mut disks = disks().map_err(DaemonError::Udev)?;
    let socket = metrics::socket().map_err(DaemonError::Socket)?;
    // half of what systemd allows, as sd_watchdog_enabled(3) advises
    let watched = sd_notify::watchdog_enabled();
    let mut watchdog = interval(watched.map_or(Duration::from_secs(3600), |limit| limit / 2));
    let config = tokio::select! {
        () = end(&mut signals.terminate, &mut signals.interrupt) => return Ok(()),
        config = configuration(path, &mut signals.hang_up, &mut watchdog) => Arc::new(config),
    };
    let mut schedule = Schedule::new(Instant::now(), config.health.interval);
    let (config, served) = watch::channel(config);
    let mut asked = pin!(async {
        match socket {
            Some(socket) => metrics::serve(socket, served).await,
            None => pending().await,
        }
    });
    let mut running: FuturesUnordered<LocalBoxFuture<'static, Ended>> = FuturesUnordered::new();
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
        let work = tokio::select! {
            () = end(&mut signals.terminate, &mut signals.interrupt) => break,
            _ = signals.hang_up.recv() => {
                reload(path, &config, &mut schedule);
                None
            }
            Some(event) = disks.next() => {
                if is_about_a_disk(event) {
                    schedule.disk_event(Instant::now());
                }
                None
            }
            _ = watchdog.tick() => {
                tell(&[NotifyState::Watchdog]);
                None
            }
            () = &mut asked => None,
            Some(ended) = running.next() => {
                // also what commands found that the daemon has not started
                publish(&config.borrow());
                match ended {
                    Ended::Looked(seen) => schedule.looked(seen, Instant::now()),
                    Ended::Done(work) => {
                        let again = last::read("health").is_some_and(|last| last.again);
                        schedule.ended(work, again, Instant::now(), fastrand::f64());
                        None
                    }
                }
            }
            work = due => Some(work),
        };
        if let Some(work) = work {
            schedule.started(work, Instant::now(), fastrand::f64());
            let config = Arc::clone(&config.borrow());
            running.push(Box::pin(start(work, config)));
        }
    }
    tell(&[NotifyState::Stopping]);
    tracing::info!("ending; volumes stay as they are");
    Ok(())
}

/// Waits for a valid configuration: user data may write it long after the boot. Told once is what keeps it from being valid.
async fn configuration(path: &Path, hang_up: &mut Signal, watchdog: &mut Interval) -> Config {
    let mut told = String::new();
    let mut valid = false;
    loop {
        match Config::load(path) {
            // nothing was ever wrong, or it was valid a while ago
            Ok(config) if valid || told.is_empty() => return config,
            Ok(_) => valid = true,
            Err(e) => {
                valid = false;
                let error = chain(e);
                if error != told {
                    tracing::error!("waiting for a valid configuration: {error}");
                    tell(&[
                        NotifyState::Ready,
                        NotifyState::Status(&format!("waiting for a valid configuration: {error}")),
                    ]);
                    told = error;
                }
            }
        }
        let again = sleep(CONFIGURATION);
        let mut again = pin!(again);
        loop {
            tokio::select! {
                () = &mut again => break,
                _ = watchdog.tick() => tell(&[NotifyState::Watchdog]),
                // somebody says that it is complete
                _ = hang_up.recv() => {
                    tell(&[NotifyState::Reloading, NotifyState::Ready]);
                    valid = true;
                    break;
                }
            }
        }
    }
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

/// Does it, and waits for its end.
async fn start(work: Work, config: Arc<Config>) -> Ended {
    match work {
        // a disk that hangs may hold it up
        Work::Look => return Ended::Looked(spawn_blocking(move || look(&config)).await.ok().flatten()),
        Work::Provision => run_unit("luks-agent-provision.service").await,
        Work::Health => run_unit("luks-agent-health.service").await,
        Work::Target => start_target().await,
    }
    Ended::Done(work)
}

/// Compares the node with what it should be.
fn look(config: &Config) -> Option<Seen> {
    match commands::picture(config) {
        Ok(picture) => {
            let (last, boot) = (last::read("provision"), last::read("boot"));
            Some(Seen::of(config, &picture, &closed::read(), last.as_ref(), boot.as_ref()))
        }
        Err(e) => {
            tracing::warn!("cannot tell whether the node is as it should be: {}", chain(e));
            None
        }
    }
}

/// Has systemd run a unit. What went wrong in it is in its own journal and report.
async fn run_unit(unit: &str) {
    tracing::debug!(unit, "starting");
    if let Err(e) = systemctl(&["start", unit]).await {
        tracing::warn!(unit, "{unit} failed: {e}");
    }
}

/// Starts the target where the boot failed: what it could not do is done now, whoever did it, and what waits for the target can
/// start. The boot decides once more. Where somebody stopped it, it stays stopped.
async fn start_target() {
    let boot =
        systemctl(&["show", "--property=ActiveState", "--property=ExecMainStatus", BOOT]).await.unwrap_or_default();
    let is = |line: &str| boot.lines().any(|other| other == line);
    // the boot had succeeded where it was the stop that failed
    if !is("ActiveState=failed") || is("ExecMainStatus=0") {
        return;
    }
    tracing::info!("all volumes are open and mounted now, starting {TARGET}");
    if let Err(e) = systemctl(&["start", "--no-block", TARGET]).await {
        tracing::warn!(unit = TARGET, "{TARGET} was not started: {e}");
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

fn reload(path: &Path, config: &watch::Sender<Arc<Config>>, schedule: &mut Schedule) {
    tell(&[NotifyState::Reloading]);
    match Config::load(path) {
        Ok(new) => {
            schedule.set_interval(Instant::now(), new.health.interval);
            schedule.begin_anew(Instant::now());
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
