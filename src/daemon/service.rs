//! The loop of the daemon: signals, disks, the clock and ended work on one side, the schedule on the other.

use std::future::pending;
use std::io;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use sd_notify::NotifyState;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::configuration::wait_for_configuration;
use super::metrics;
use super::schedule::{Ending, Intervals, Schedule, Work};
use super::signals::Signals;
use super::systemd::{tell, watchdog};
use super::udev::{self, is_about_a_disk};
use super::work::{Ended, perform};
use crate::config::Config;
use crate::error::chain;
use crate::report::ExitCode;
use crate::report::last::{self, Last};

/// Why the daemon cannot run.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Listening to udev.
    #[error("cannot listen to udev")]
    Udev(#[source] io::Error),
    /// Waiting for signals.
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
    /// The socket for metrics.
    #[error("cannot use the socket passed by luks-agent-metrics.socket; expected a stream socket, TCP or unix")]
    Socket(#[source] io::Error),
}

impl DaemonError {
    /// Returns the exit code.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Udev(_) | Self::Signals(_) | Self::Socket(_) => ExitCode::Failed,
        }
    }
}

/// Runs until SIGTERM or SIGINT.
///
/// Waits for a valid configuration first. SIGHUP reloads it; one with a mistake is logged and not used.
///
/// # Errors
/// When it cannot begin.
pub async fn run(path: &Path) -> Result<(), DaemonError> {
    let mut signals = Signals::new().map_err(DaemonError::Signals)?;
    let mut disks = udev::listen().map_err(DaemonError::Udev)?;
    let socket = metrics::socket().map_err(DaemonError::Socket)?;
    let mut watchdog = watchdog();
    let config = tokio::select! {
        () = signals.end.recv() => return Ok(()),
        config = wait_for_configuration(path, &mut signals.hang_up, &mut watchdog) => config,
    };
    let mut service = Service::new(path, config);
    let served = service.config.subscribe();
    let mut metrics_server = pin!(async {
        match socket {
            Some(socket) => metrics::serve(socket, served).await,
            None => pending().await,
        }
    });
    service.begin();
    loop {
        tokio::select! {
            () = signals.end.recv() => break,
            _ = signals.hang_up.recv() => service.reload(),
            Some(event) = disks.next() => {
                if is_about_a_disk(event) {
                    service.schedule.disk_event(Instant::now());
                }
            }
            _ = watchdog.tick() => tell(&[NotifyState::Watchdog]),
            () = &mut metrics_server => {}
            Some(ended) = service.running.next() => service.ended(ended),
            work = until_due(&service.schedule) => service.start(work),
        }
    }
    tell(&[NotifyState::Stopping]);
    tracing::info!("stopping; open volumes stay open");
    Ok(())
}

/// Waits until work is due by the clock.
async fn until_due(schedule: &Schedule) -> Work {
    match schedule.next() {
        Some((at, work)) => {
            sleep_until(at).await;
            work
        }
        None => pending().await,
    }
}

/// The daemon once it has a configuration.
struct Service<'a> {
    path: &'a Path,
    config: watch::Sender<Arc<Config>>,
    schedule: Schedule,
    running: FuturesUnordered<LocalBoxFuture<'static, Ended>>,
}

impl<'a> Service<'a> {
    fn new(path: &'a Path, config: Config) -> Self {
        let schedule = Schedule::new(Instant::now(), intervals(&config));
        Self { path, config: watch::Sender::new(Arc::new(config)), schedule, running: FuturesUnordered::new() }
    }

    fn begin(&self) {
        tell(&[NotifyState::Ready, NotifyState::Status(&status())]);
        let Intervals { health, audit } = intervals(&self.config.borrow());
        let audits = audit.map_or_else(String::new, |audit| format!(", auditing the node every {} s", audit.as_secs()));
        tracing::info!("watching disks; checking the KMS key every {} s{audits}", health.as_secs());
    }

    fn start(&mut self, work: Work) {
        self.schedule.started(work, Instant::now(), fastrand::f64());
        let config = Arc::clone(&self.config.borrow());
        self.running.push(Box::pin(perform(work, config)));
    }

    fn ended(&mut self, ended: Ended) {
        // also for the results of commands that the daemon did not start
        self.publish();
        match ended {
            Ended::Looked(seen) => {
                if let Some(work) = self.schedule.looked(seen, Instant::now()) {
                    self.start(work);
                }
            }
            Ended::Done { work, succeeded } => {
                let is_for_now = match work {
                    Work::Audit => !succeeded,
                    Work::Health => last::read("health").is_some_and(|last| last.again),
                    Work::Look | Work::Provision | Work::Target => false,
                };
                let ending = if is_for_now { Ending::ForNow } else { Ending::Settled };
                self.schedule.ended(work, ending, Instant::now(), fastrand::f64());
            }
        }
    }

    /// Reloads the configuration. One with a mistake is logged and not used.
    fn reload(&mut self) {
        tell(&[NotifyState::Reloading]);
        match Config::load(self.path) {
            Ok(new) => {
                self.schedule.set_intervals(Instant::now(), intervals(&new));
                self.schedule.begin_anew(Instant::now());
                metrics::write_file(&new);
                self.config.send_replace(Arc::new(new));
                tracing::info!("reloaded the configuration");
            }
            Err(e) => {
                tracing::error!("cannot reload the configuration, the previous one stays in effect: {}", chain(e))
            }
        }
        tell(&[NotifyState::Ready, NotifyState::Status(&status())]);
    }

    /// Updates the status line and the file of metrics.
    fn publish(&self) {
        tell(&[NotifyState::Status(&status())]);
        metrics::write_file(&self.config.borrow());
    }
}

fn intervals(config: &Config) -> Intervals {
    Intervals { health: config.health.interval, audit: config.audit.interval }
}

/// Returns the status line for systemd.
fn status() -> String {
    let say = |last: Option<Last>| last.map(|last| format!("{}: {}", last.command, last.text()));
    let said = [say(last::read("provision")).or_else(|| say(last::read("boot"))), say(last::read("health"))];
    let said: Vec<String> = said.into_iter().flatten().collect();
    if said.is_empty() { "no provision or health check has run since boot".to_owned() } else { said.join("; ") }
}
