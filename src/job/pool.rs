//! The pool of workers: one process per disk, and a deadline for each of its jobs.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, pending};
use std::io::{self, IsTerminal};
use std::pin::pin;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressDrawTarget};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, timeout, timeout_at};

use super::answer::Answer;
use super::process::{HostError, Worker, kill_group, stop};
use super::progress::{Progress, Stages};
use super::request::Job;
use crate::key::Passphrase;

/// How long examining a disk may go without progress. Nothing can be decided before all disks are examined, so a disk
/// that hangs delays the others by this time. A disk that does not answer a read for half a minute is as good as hung.
const PROBE_PATIENCE: Duration = Duration::from_secs(30);

/// How long a killed worker may take to exit before it counts as stuck in the kernel.
const KILL_PATIENCE: Duration = Duration::from_secs(2);

/// Returns when the user or the service manager asks this process to stop.
async fn asked_to_stop() {
    let signals = [SignalKind::terminate(), SignalKind::interrupt()].map(signal);
    match signals {
        [Ok(mut terminate), Ok(mut interrupt)] => {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        }
        // the signal then ends this process, and that ends the worker
        _ => pending().await,
    }
}

/// What `apply` needs of the machine. The tests of its order use a fake.
pub trait Host {
    /// Runs one job on the disk `device`, with as many `keys` as it needs.
    ///
    /// # Errors
    /// [`HostError`] if no answer came. A failure of the job itself is an answer.
    fn run(&self, device: &str, job: Job, keys: &[&Passphrase]) -> impl Future<Output = Result<Answer, HostError>>;
}

/// Runs the jobs on each disk in a process of its own.
#[derive(Debug)]
pub struct Workers {
    deadline: Duration,
    bars: Option<MultiProgress>,
    stages: Stages,
    /// Workers that may get another job, by name of their disk. Starting a process takes longer than most jobs.
    waiting: RefCell<BTreeMap<String, Worker>>,
}

impl Workers {
    /// Returns workers that may go without progress for `deadline`. They show progress if standard error is a terminal.
    pub fn new(deadline: Duration) -> Self {
        // four times a second, all disks at once: more would be too much for a slow line
        let draw = || MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(4));
        let bars = io::stderr().is_terminal().then(draw);
        Self { deadline, bars, stages: Stages::default(), waiting: RefCell::default() }
    }

    /// Returns the worker of a disk, and starts one if there is none.
    fn take_or_start(&self, device: &str) -> io::Result<Worker> {
        let waiting = self.waiting.borrow_mut().remove(device);
        match waiting.map(|mut worker| (worker.child.try_wait(), worker)) {
            Some((Ok(None), worker)) => Ok(worker),
            _ => Worker::start(),
        }
    }

    /// Returns how long the slowest disk spent in each stage so far, in seconds.
    pub fn stages(&self) -> BTreeMap<String, f64> {
        self.stages.borrow().iter().map(|(stage, took)| (stage.clone(), took.as_secs_f64())).collect()
    }
}

impl Host for Workers {
    async fn run(&self, device: &str, job: Job, keys: &[&Passphrase]) -> Result<Answer, HostError> {
        let mut worker = self.take_or_start(device)?;
        let is_look = matches!(job, Job::Probe { .. } | Job::Header { .. } | Job::Cipher { .. });
        let patience = if is_look { self.deadline.min(PROBE_PATIENCE) } else { self.deadline };
        let heard = Cell::new(Instant::now());
        let mut progress = Progress::new(device, self.bars.as_ref(), &self.stages, &heard);
        let answer = {
            let pid = worker.child.id().unwrap_or_default();
            let mut talk = pin!(worker.perform(&job, keys, &mut progress));
            let mut asked = pin!(async { if job.can_be_stopped() { asked_to_stop().await } else { pending().await } });
            let mut is_asked = false;
            loop {
                let until = heard.get() + patience;
                let heard_until = tokio::select! {
                    answer = timeout_at(until, &mut talk) => answer,
                    () = &mut asked, if !is_asked => {
                        tracing::warn!(device, "stopping; this takes a few seconds");
                        stop(pid);
                        is_asked = true;
                        continue;
                    }
                };
                match heard_until {
                    Ok(answer) => break Some(answer),
                    // the worker sent something meanwhile
                    Err(_) if heard.get() + patience > until => {}
                    Err(_) => break None,
                }
            }
        };
        match answer {
            Some(answer) => {
                if answer.is_ok() && job.is_followed() {
                    self.waiting.borrow_mut().insert(device.to_owned(), worker);
                }
                answer
            }
            None => {
                let pid = worker.child.id().unwrap_or_default();
                if job.can_be_stopped() {
                    stop(pid)
                } else {
                    kill_group(pid)
                }
                let was_killed = timeout(KILL_PATIENCE, worker.child.wait()).await.is_ok();
                Err(HostError::Hung { after: patience, stage: progress.stage().to_owned(), pid, was_killed })
            }
        }
    }
}
