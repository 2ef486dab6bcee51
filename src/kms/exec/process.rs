//! One run of the program.

use std::path::Path;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use std::{fmt, io};

use futures_util::future::{Either, join, select, try_join};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::super::class::Class;
use super::super::failure::Failure;
use super::messages;
use super::trust::trusted;
use crate::config;

/// Maximum length of an answer in bytes. The answer may hold the data key, so it is in memory that is locked.
const ANSWER_MAX: usize = 16 << 10;
/// The environment of the program, beside `exec.pass_environment`.
const ENVIRONMENT: [(&str, &str); 2] =
    [("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), ("LANG", "C.UTF-8")];
/// How long the program's own children may keep its output open after it has exited.
const GRACE: Duration = Duration::from_secs(1);

/// The result of a program that has exited.
#[derive(Debug)]
pub(super) struct Ended {
    answer: Answer,
    pub(super) status: ExitStatus,
    /// The last line that it printed on standard error.
    pub(super) last_words: String,
}

impl Ended {
    /// Returns what it printed on standard output.
    pub(super) fn answer(&self) -> &[u8] {
        self.answer.bytes.get(..self.answer.length).unwrap_or_default()
    }
}

/// Runs the program with a request. If it is not done within `exec.timeout`, or nobody waits any longer, it is killed with all that
/// it started.
pub(super) async fn run(exec: &config::Exec, request: &[u8]) -> Result<Ended, Failure> {
    let program = trusted(&exec.program)?;
    let mut running = Running::start(&program, exec).map_err(|e| {
        Failure::new(Class::Configuration, format!("exec.command: cannot start '{}': {e}", program.display()))
            .with_remedy("correct exec.command, or the program and its interpreter")
    })?;
    match timeout(exec.timeout, running.talk(exec, request)).await {
        Ok(result) => result,
        Err(_) => {
            let (program, after) = (exec.program.display(), exec.timeout.as_secs_f64());
            Err(Failure::new(Class::Transient, format!("'{program}' did not finish within {after} s and was killed")))
        }
    }
}

/// A program that runs, in a process group of its own. Its end is that of the group.
#[derive(Debug)]
struct Running(Child);

impl Running {
    fn start(program: &Path, exec: &config::Exec) -> io::Result<Self> {
        let passed = exec.pass_environment.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
        let child = Command::new(program)
            .args(&exec.arguments)
            .env_clear()
            .envs(ENVIRONMENT)
            .envs(passed)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        Ok(Self(child))
    }

    /// Sends the request, and reads what the program prints until it has exited.
    async fn talk(&mut self, exec: &config::Exec, request: &[u8]) -> Result<Ended, Failure> {
        let program = exec.program.display();
        let broken = |error| Failure::new(Class::Transient, format!("cannot communicate with '{program}': {error}"));
        let no_pipe = || broken(io::Error::other("no pipe"));
        let stdin = self.0.stdin.take().ok_or_else(no_pipe)?;
        let stdout = self.0.stdout.take().ok_or_else(no_pipe)?;
        let stderr = self.0.stderr.take().ok_or_else(no_pipe)?;
        let group = self.0.id();
        let pipes = pin!(async {
            let answer = async {
                let answer = Answer::read(stdout).await.map_err(broken)?;
                answer.ok_or_else(|| {
                    let what = format!("invalid answer from '{program}': it is longer than {ANSWER_MAX} bytes");
                    Failure::new(Class::Garbled, what)
                })
            };
            let rest = async { Ok(join(feed(stdin, request), messages::log(stderr, &exec.program)).await.1) };
            try_join(answer, rest).await
        });
        let exit = pin!(self.0.wait());
        let (pipes, status) = match select(pipes, exit).await {
            Either::Left((pipes, exit)) => (pipes?, exit.await),
            Either::Right((status, mut pipes)) => match timeout(GRACE, &mut pipes).await {
                Ok(pipes) => (pipes?, status),
                Err(_) => {
                    kill_group(group);
                    (pipes.await?, status)
                }
            },
        };
        let (answer, last_words) = pipes;
        Ok(Ended { answer, status: status.map_err(broken)?, last_words })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // `None` once the program has exited and its process id may be another's
        kill_group(self.0.id());
    }
}

fn kill_group(group: Option<u32>) {
    if let Some(Ok(group @ 2..)) = group.map(i32::try_from) {
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
}

/// Sends the request and closes the pipe. A program may answer without having read it.
async fn feed(mut stdin: ChildStdin, request: &[u8]) {
    let _ = stdin.write_all(request).await;
}

/// What a program prints on standard output. It may hold the data key, so the buffer has its whole length from the beginning and is
/// wiped.
struct Answer {
    bytes: Zeroizing<Vec<u8>>,
    length: usize,
}

impl Answer {
    /// Reads an answer; `None` if it is too long.
    async fn read(mut output: impl AsyncRead + Unpin) -> io::Result<Option<Self>> {
        let mut bytes = Zeroizing::new(vec![0; ANSWER_MAX + 1]);
        let mut length = 0;
        while let Some(rest) = bytes.get_mut(length..).filter(|rest| !rest.is_empty()) {
            match output.read(rest).await? {
                0 => return Ok(Some(Self { bytes, length })),
                more => length += more,
            }
        }
        Ok(None)
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Answer({} bytes)", self.length)
    }
}
