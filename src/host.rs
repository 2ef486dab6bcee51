//! Workers as seen from the command that starts them: one process per disk, and a deadline for each of its jobs.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io::{self, IsTerminal};
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use futures_util::future::{Either, select};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, timeout, timeout_at};

use crate::key::Passphrase;
use crate::worker::{Answer, Job};

/// What a worker needs of the environment; credentials in it are none of its business.
const ENVIRONMENT: [&str; 2] = ["PATH", "DM_DISABLE_UDEV"];

/// The variable in which a worker is told who started it: when that has ended, nobody is left to be answered.
pub const PARENT: &str = "LUKS_AGENT_PARENT";

/// How long a look at a disk may go without progress: nothing can be decided before all have been looked at, so a disk that
/// hangs holds the others up for this long. One that cannot answer a read for half a minute is as good as hung.
const PROBE_PATIENCE: Duration = Duration::from_secs(30);

/// How long a killed worker may take to end before it counts as stuck in the kernel.
const KILL_PATIENCE: Duration = Duration::from_secs(2);

/// A worker that gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// It could not be started, or the pipe to it broke.
    #[error("cannot talk to the worker process")]
    Io(#[from] io::Error),
    /// It ended without an answer.
    #[error("the worker process ended without an answer, {status}{}{last_words}", if .last_words.is_empty() { "" } else { ": " })]
    Died {
        /// How.
        status: ExitStatus,
        /// The last line it printed on standard error.
        last_words: String,
    },
    /// It gave no sign of progress.
    #[error("no progress for {} s, last seen {stage}; the disk hangs, and its worker process {pid} {}; check the state of the volume, then run the command again",
        .after.as_secs(), if *.killed { "was killed" } else { "is left behind: not even SIGKILL ends it now" })]
    Hung {
        /// How long it was waited for.
        after: Duration,
        /// What it was at.
        stage: String,
        /// Its process id.
        pid: u32,
        /// Whether it could be ended; in uninterruptible I/O it cannot.
        killed: bool,
    },
    /// What it printed is not an answer.
    #[error("the worker process sent an invalid answer")]
    Garbled(#[source] serde_json::Error),
}

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

/// How long the slowest disk was at each stage.
type Stages = RefCell<BTreeMap<String, Duration>>;

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
        let mut progress = Progress::new(device, self, &heard);
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

/// Asks for the end of a worker and all that it started; one that hangs in the kernel stays all the same.
fn kill_group(pid: u32) {
    if let Ok(pid) = i32::try_from(pid)
        && pid > 1
    {
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// One process, as long as it has jobs to do.
#[derive(Debug)]
struct Worker {
    child: Child,
    /// `None` once it has been told that there is nothing more to do.
    input: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    errors: Lines<BufReader<ChildStderr>>,
}

impl Worker {
    fn start() -> io::Result<Self> {
        let mut child = Command::new("/proc/self/exe")
            .arg("worker")
            .env_clear()
            .envs(ENVIRONMENT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
            .env(PARENT, std::process::id().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // not inherited: who reads the agent's would wait for a worker that is left behind
            .stderr(Stdio::piped())
            // a group of its own, so that what it started is killed with it
            .process_group(0)
            .spawn()?;
        let no_pipe = || io::Error::other("no pipe");
        Ok(Self {
            input: Some(child.stdin.take().ok_or_else(no_pipe)?),
            answers: BufReader::new(child.stdout.take().ok_or_else(no_pipe)?),
            errors: BufReader::new(child.stderr.take().ok_or_else(no_pipe)?).lines(),
            child,
        })
    }

    /// Has one job done, and waits for the end of the process if no other follows.
    async fn perform(
        &mut self,
        job: &Job,
        key: Option<&Passphrase>,
        progress: &mut Progress<'_>,
    ) -> Result<Answer, HostError> {
        let device = progress.device.clone();
        // a worker that died early is better told by its exit status than by a broken pipe
        let sent = self.send(job, key).await;
        let (answer, last_words) = {
            let answer = pin!(answer(&mut self.answers, |stage, percent| progress.show(stage, percent)));
            let last_words = pin!(log_lines(&mut self.errors, &device));
            match select(answer, last_words).await {
                Either::Left((Ok(None), last_words)) => (None, last_words.await),
                Either::Left((answer, _)) => (answer?, String::new()),
                Either::Right((last_words, answer)) => (answer.await?, last_words),
            }
        };
        if let Some(answer) = answer {
            if !job.is_followed() {
                self.input = None;
                self.child.wait().await?;
            }
            return Ok(answer);
        }
        self.input = None;
        let status = self.child.wait().await?;
        match sent {
            Err(e) if status.success() => Err(HostError::Io(e)),
            _ => Err(HostError::Died { status, last_words }),
        }
    }

    async fn send(&mut self, job: &Job, key: Option<&Passphrase>) -> io::Result<()> {
        let input = self.input.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut line = serde_json::to_vec(job)?;
        line.push(b'\n');
        input.write_all(&line).await?;
        if let Some(key) = key.filter(|_| job.needs_key()) {
            input.write_all(key.expose()).await?;
            input.write_all(b"\n").await?;
        }
        input.flush().await
    }
}

/// Logs what a worker prints on standard error, where nothing but a panic or a library's complaint ever is; gives back
/// the last line.
async fn log_lines(lines: &mut Lines<BufReader<ChildStderr>>, device: &str) -> String {
    let mut last = String::new();
    while let Ok(Some(line)) = lines.next_line().await {
        tracing::warn!(device, "worker: {line}");
        // a panic ends with the advice to ask for a backtrace
        if !line.starts_with("note: ") && !line.trim().is_empty() {
            last = line;
        }
    }
    last
}

/// Reads what a worker says, up to the outcome of its job; `progress` is told its stage, and how many percent of that are done.
/// `None` if it ended without.
///
/// # Errors
/// [`HostError::Garbled`] at the first line that is not an answer, [`HostError::Io`] when it cannot be read or is not UTF-8.
pub async fn answer(
    output: impl AsyncBufRead + Unpin,
    mut progress: impl FnMut(String, Option<u64>),
) -> Result<Option<Answer>, HostError> {
    let mut lines = output.lines();
    while let Some(line) = lines.next_line().await? {
        let answer = serde_json::from_str(&line).map_err(HostError::Garbled)?;
        let Answer::Progress { stage, percent } = answer else { return Ok(Some(answer)) };
        progress(stage, percent);
    }
    Ok(None)
}

/// What one worker is at: a line on a terminal, log entries elsewhere.
struct Progress<'a> {
    device: String,
    /// When the worker was last heard of.
    heard: &'a Cell<Instant>,
    /// `None` before the first.
    stage: Option<(String, Instant)>,
    stages: &'a Stages,
    bar: Option<ProgressBar>,
}

impl<'a> Progress<'a> {
    fn new(device: &str, workers: &'a Workers, heard: &'a Cell<Instant>) -> Self {
        let bar = workers.bars.as_ref().map(|bars| {
            let bar = bars.add(ProgressBar::new_spinner());
            if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix:10} {msg} [{elapsed}]") {
                bar.set_style(style);
            }
            bar.set_prefix(device.to_owned());
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self { device: device.to_owned(), heard, stage: None, stages: &workers.stages, bar }
    }

    fn stage(&self) -> &str {
        self.stage.as_ref().map_or("starting", |(stage, _)| stage)
    }

    /// The stage is at its end: notes how long it took.
    fn note(&mut self) {
        if let Some((stage, since)) = self.stage.take() {
            let mut stages = self.stages.borrow_mut();
            let longest = stages.entry(stage).or_default();
            *longest = since.elapsed().max(*longest);
        }
    }

    fn show(&mut self, stage: String, percent: Option<u64>) {
        self.heard.set(Instant::now());
        if let Some(bar) = &self.bar {
            bar.set_message(match percent {
                Some(percent) => format!("{stage}, {percent} %"),
                None => stage.clone(),
            });
        } else if stage != self.stage() {
            tracing::info!(device = self.device, "{stage}");
        }
        if stage != self.stage() {
            self.note();
            self.stage = Some((stage, Instant::now()));
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.note();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl fmt::Debug for Progress<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Progress({}: {})", self.device, self.stage())
    }
}
