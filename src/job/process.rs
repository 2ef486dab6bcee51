//! One worker process, as seen by the command that started it.

use std::io;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use futures_util::future::{Either, select};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

use super::answer::Answer;
use super::progress::{Course, Progress};
use super::request::Job;
use crate::key::Passphrase;

/// The environment of a worker. It must not see credentials.
const ENVIRONMENT: [&str; 2] = ["PATH", "DM_DISABLE_UDEV"];

/// The variable that tells a worker the process id of its parent. Once the parent has exited, nobody reads the answers.
pub const PARENT: &str = "LUKS_AGENT_PARENT";

/// A job that got no answer.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The worker could not be started, or the pipe to it broke.
    #[error("cannot communicate with the worker process")]
    Io(#[from] io::Error),
    /// The worker exited without an answer.
    #[error("the worker process ended without an answer, {status}{}{last_words}", if .last_words.is_empty() { "" } else { ": " })]
    Died {
        /// Its exit status.
        status: ExitStatus,
        /// The last line that it printed on standard error.
        last_words: String,
    },
    /// The worker made no progress.
    #[error("no progress for {} s, last seen {stage}; the disk hangs, and its worker process {pid} {}; check the state of the volume, then run the command again",
        .after.as_secs(), if *.was_killed { "was killed" } else { "could not be killed: it is stuck in disk I/O" })]
    Hung {
        /// How long the agent waited for progress.
        after: Duration,
        /// The last stage that the worker reported.
        stage: String,
        /// Its process id.
        pid: u32,
        /// Whether it was killed. A process in uninterruptible I/O cannot be.
        was_killed: bool,
    },
    /// The worker's output is not an answer.
    #[error("the worker process sent an invalid answer")]
    Garbled(#[source] serde_json::Error),
}

/// Kills a worker and all that it started. A process that hangs in the kernel stays.
pub(super) fn kill_group(pid: u32) {
    if let Ok(pid) = i32::try_from(pid)
        && pid > 1
    {
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// Asks a worker to stop.
pub(super) fn stop(pid: u32) {
    if let Ok(pid) = i32::try_from(pid)
        && pid > 1
    {
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
}

/// A worker process, for as long as it has jobs to do.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) child: Child,
    /// `None` once the worker knows that no other job follows.
    input: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    errors: Lines<BufReader<ChildStderr>>,
}

impl Worker {
    /// Starts a worker.
    pub(super) fn start() -> io::Result<Self> {
        let mut child = Command::new("/proc/self/exe")
            .arg("worker")
            .env_clear()
            .envs(ENVIRONMENT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
            .env(PARENT, std::process::id().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // not inherited: a worker that cannot be killed would keep the agent's standard error open for whoever
            // reads it
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

    /// Runs one job, and waits for the process to exit if no other job follows.
    pub(super) async fn perform(
        &mut self,
        job: &Job,
        keys: &[&Passphrase],
        progress: &mut Progress<'_>,
    ) -> Result<Answer, HostError> {
        let device = progress.device.clone();
        // if the worker died early, its exit status says more than a broken pipe
        let sent = self.send(job, keys).await;
        let (answer, last_words) = {
            let answer = pin!(read_answer(&mut self.answers, |step| progress.show(step)));
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

    async fn send(&mut self, job: &Job, keys: &[&Passphrase]) -> io::Result<()> {
        let input = self.input.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut line = serde_json::to_vec(job)?;
        line.push(b'\n');
        input.write_all(&line).await?;
        for key in keys.iter().take(job.passphrases()) {
            input.write_all(key.expose()).await?;
            input.write_all(b"\n").await?;
        }
        input.flush().await
    }
}

/// Logs what a worker prints on standard error, which is only ever a panic or a library's complaint, and returns the
/// last line.
async fn log_lines(lines: &mut Lines<BufReader<ChildStderr>>, device: &str) -> String {
    let mut last = String::new();
    while let Ok(Some(line)) = lines.next_line().await {
        tracing::warn!(device, "worker: {line}");
        // a panic ends with a note about backtraces
        if !line.starts_with("note: ") && !line.trim().is_empty() {
            last = line;
        }
    }
    last
}

/// Reads the answers of a worker up to the result of its job, which it returns; `None` if the worker exited without
/// one. `progress` gets each report in between.
///
/// # Errors
/// [`HostError::Garbled`] at the first line that is not an answer; [`HostError::Io`] if the output cannot be read or is
/// not UTF-8.
pub async fn read_answer(
    output: impl AsyncBufRead + Unpin,
    mut progress: impl FnMut(Course),
) -> Result<Option<Answer>, HostError> {
    let mut lines = output.lines();
    while let Some(line) = lines.next_line().await? {
        let answer = serde_json::from_str(&line).map_err(HostError::Garbled)?;
        let Answer::Progress { stage, percent, pace } = answer else { return Ok(Some(answer)) };
        progress(Course { stage, percent, pace });
    }
    Ok(None)
}
