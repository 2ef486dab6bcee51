//! Gets the passphrase from the agent.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::environment::environment;
use crate::failure::Failure;
use crate::pipes::{Answer, End, MOST_SECRET, Secret, listen};
use crate::text::escape_controls;
use crate::token::is_ours;

/// Where the packages install the agent. Not looked up in PATH, which whoever runs `cryptsetup` chooses.
const PROGRAM: &str = "/usr/sbin/luks-agent";
/// How long the agent may take: somewhat longer than it gives itself.
const DEADLINE: Duration = Duration::from_secs(30);
/// How long a killed agent may take to end.
const DYING: Duration = Duration::from_secs(2);
/// How much the JSON of a token may have. A wrapped key has no more than 8 KiB in base64.
const MOST_JSON: usize = 32 << 10;
/// The exit code of the agent when its input is at fault.
const FAILED: i32 = 1;

/// How the agent is started.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) environment: Vec<(OsString, OsString)>,
    pub(crate) deadline: Duration,
}

impl Agent {
    /// Returns the agent that is installed.
    pub(crate) fn installed() -> Self {
        Self {
            program: PROGRAM.into(),
            arguments: ["--log-level", "error", "unwrap"].map(OsString::from).into(),
            environment: environment(),
            deadline: DEADLINE,
        }
    }

    /// Has the agent unwrap the key of a token.
    pub(crate) fn unwrap(&self, json: &[u8]) -> Result<Secret, Failure> {
        if !is_ours(json) {
            return Err(Failure::token("this is not a token of luks-agent"));
        }
        if json.len() > MOST_JSON {
            return Err(Failure::token(&format!("the token has {} bytes, expected at most {MOST_JSON}", json.len())));
        }
        let deadline = Instant::now() + self.deadline;
        let program = self.program.display();
        let mut child = self.spawn(json).map_err(|e| Failure::unavailable(&format!("cannot start {program}: {e}")))?;
        let answer = read_answer(&mut child, deadline);
        let is_closed = answer.as_ref().is_ok_and(|answer| answer.end == End::Closed);
        let status = wait_or_kill(&mut child, is_closed, deadline);
        match answer {
            Ok(answer) => self.passphrase_in(answer, status),
            Err(e) => Err(Failure::unavailable(&format!("cannot read from {program}: {e}"))),
        }
    }

    /// Returns the passphrase in the answer of the agent, or why there is none.
    fn passphrase_in(&self, answer: Answer, status: Option<ExitStatus>) -> Result<Secret, Failure> {
        let program = self.program.display();
        match answer.end {
            End::TooLate => {
                let seconds = self.deadline.as_secs_f32();
                return Err(Failure::unavailable(&format!("{program} did not finish within {seconds} s")));
            }
            End::TooMuch => {
                let why = format!("{program} printed more than {MOST_SECRET} bytes, which is no passphrase");
                return Err(Failure::unavailable(&why));
            }
            End::Closed => {}
        }
        // The program may have waited for all its children, this one included. LUKS finds out whether the passphrase is complete.
        let succeeded = status.is_none_or(|status| status.success());
        if succeeded && !answer.secret.bytes().is_empty() {
            return Ok(answer.secret);
        }
        let said = String::from_utf8_lossy(&answer.messages);
        let mut lines: Vec<String> = said
            .lines()
            .filter(|line| !line.trim().is_empty())
            .map(|line| escape_controls(line).into_owned())
            .collect();
        if lines.is_empty() {
            let how = status.map_or("without a passphrase".to_owned(), |status| format!("with {status}"));
            lines.push(format!("luks-agent: {program} ended {how}"));
        }
        match status.and_then(|status| status.code()) {
            Some(FAILED) => Err(Failure::Token(lines)),
            _ => Err(Failure::Unavailable(lines)),
        }
    }
}

fn read_answer(child: &mut Child, deadline: Instant) -> io::Result<Answer> {
    let (Some(output), Some(messages)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(io::Error::other("no pipes"));
    };
    listen(File::from(OwnedFd::from(output)), File::from(OwnedFd::from(messages)), deadline)
}

/// Waits for the agent, by its process ID: the program may have other children. Kills it at the deadline, or at once if it is not
/// about to end by itself.
///
/// Returns `None` if the program ignores SIGCHLD or waits for all children itself, so that the kernel no longer knows this one.
fn wait_or_kill(child: &mut Child, is_closed: bool, deadline: Instant) -> Option<ExitStatus> {
    let until = if is_closed { deadline } else { Instant::now() };
    if let Some(status) = wait(child, until).ok()? {
        return Some(status);
    }
    // fails only if it has ended
    let _ = child.kill();
    // a process that hangs in the kernel ends when it no longer does
    wait(child, Instant::now() + DYING).ok().flatten()
}

/// Waits for a child. Returns `None` if it has not ended by then.
fn wait(child: &mut Child, until: Instant) -> io::Result<Option<ExitStatus>> {
    loop {
        let ended = child.try_wait()?;
        if ended.is_some() || Instant::now() >= until {
            return Ok(ended);
        }
        sleep(Duration::from_millis(2));
    }
}

#[cfg(test)]
mod tests;
