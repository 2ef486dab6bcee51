//! Workers as seen from the command that starts them: one process per disk, and a deadline for each of its jobs.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::io::{self, IsTerminal};
use std::pin::pin;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressDrawTarget};
use tokio::time::{Instant, timeout, timeout_at};

use super::answer::Answer;
use super::process::{HostError, Worker, kill_group};
use super::progress::{Progress, Stages};
use super::request::Job;
use crate::key::Passphrase;

/// How long a look at a disk may go without progress: nothing can be decided before all have been looked at, so a disk that
/// hangs holds the others up for this long. One that cannot answer a read for half a minute is as good as hung.
const PROBE_PATIENCE: Duration = Duration::from_secs(30);

/// How long a killed worker may take to end before it counts as stuck in the kernel.
const KILL_PATIENCE: Duration = Duration::from_secs(2);

/// What apply asks of the machine; the tests of its order use a fake.
pub trait Host {
    /// Has one job done on the disk called `device`.
    ///
    /// # Errors
    /// [`HostError`] when no answer came; a failure of the job itself is an answer.
    fn run(&self, device: &str, job: Job, key: Option<&Passphrase>) -> impl Future<Output = Result<Answer, HostError>>;
}

/// Has the jobs on a disk done by a process of its own.
#[derive(Debug)]
pub struct Workers {
    deadline: Duration,
    bars: Option<MultiProgress>,
    stages: Stages,
    /// Those that have done a job which another may follow, by the name of their disk: to start a process takes longer than
    /// most jobs.
    waiting: RefCell<BTreeMap<String, Worker>>,
}

impl Workers {
    /// Workers that may go without progress for `deadline`. Their progress is shown if standard error is a terminal.
    pub fn new(deadline: Duration) -> Self {
        // all disks at once, each time: more often would be much over a slow line
        let draw = || MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(4));
        let bars = io::stderr().is_terminal().then(draw);
        Self { deadline, bars, stages: Stages::default(), waiting: RefCell::default() }
    }

    /// The worker of a disk, started if there is none.
    fn worker(&self, device: &str) -> io::Result<Worker> {
        let waiting = self.waiting.borrow_mut().remove(device);
        match waiting.map(|mut worker| (worker.child.try_wait(), worker)) {
            Some((Ok(None), worker)) => Ok(worker),
            _ => Worker::start(),
        }
    }

    /// How long the slowest disk was at each stage so far, in seconds.
    pub fn stages(&self) -> BTreeMap<String, f64> {
        self.stages.borrow().iter().map(|(stage, took)| (stage.clone(), took.as_secs_f64())).collect()
    }
}

impl Host for Workers {
    async fn run(&self, device: &str, job: Job, key: Option<&Passphrase>) -> Result<Answer, HostError> {
        let mut worker = self.worker(device)?;
        let looks = matches!(job, Job::Probe { .. } | Job::Header { .. } | Job::Cipher { .. });
        let patience = if looks { self.deadline.min(PROBE_PATIENCE) } else { self.deadline };
        let heard = Cell::new(Instant::now());
        let mut progress = Progress::new(device, self.bars.as_ref(), &self.stages, &heard);
        let answer = {
            let mut talk = pin!(worker.perform(&job, key, &mut progress));
            loop {
                let until = heard.get() + patience;
                match timeout_at(until, &mut talk).await {
                    Ok(answer) => break Some(answer),
                    // it said something meanwhile
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
                kill_group(pid);
                let killed = timeout(KILL_PATIENCE, worker.child.wait()).await.is_ok();
                Err(HostError::Hung { after: patience, stage: progress.stage().to_owned(), pid, killed })
            }
        }
    }
}
