//! Reads what the agent says, no more than it may say and no longer than it may take.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

/// How much of the passphrase is read. It has 44 bytes.
pub(crate) const MOST_SECRET: usize = 512;
/// How much of the messages is kept.
const MOST_MESSAGES: usize = 4096;

/// What came from the standard output of the agent. It is wiped when it is dropped.
pub(crate) struct Secret {
    // one more than it may have, to see that there is more
    memory: Box<Zeroizing<[u8; MOST_SECRET + 1]>>,
    len: usize,
}

impl Secret {
    fn new() -> Self {
        Self { memory: Box::new(Zeroizing::new([0; MOST_SECRET + 1])), len: 0 }
    }

    #[cfg(test)]
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let mut secret = Self::new();
        secret.memory[..bytes.len()].copy_from_slice(bytes);
        secret.len = bytes.len();
        secret
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.memory[..self.len]
    }

    /// Reads once; returns whether there can be more to read.
    fn read(&mut self, pipe: &mut File) -> io::Result<bool> {
        let read = pipe.read(&mut self.memory[self.len..])?;
        self.len += read;
        Ok(read > 0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// How listening ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The agent has closed both.
    Closed,
    /// The deadline has passed.
    TooLate,
    /// It said more than a passphrase can have.
    TooMuch,
}

/// What the agent said.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) secret: Secret,
    pub(crate) messages: Vec<u8>,
    pub(crate) end: End,
}

/// Listens to the standard output and error of the agent until both are closed, but not longer than until `deadline`.
pub(crate) fn listen(output: File, messages: File, deadline: Instant) -> io::Result<Answer> {
    let mut answer = Answer { secret: Secret::new(), messages: Vec::new(), end: End::Closed };
    let (mut output, mut messages) = (Some(output), Some(messages));
    while output.is_some() || messages.is_some() {
        let Some(ready) = wait([output.as_ref(), messages.as_ref()], deadline)? else {
            return Ok(Answer { end: End::TooLate, ..answer });
        };
        if ready[0] && !retried(output.as_mut().map_or(Ok(false), |pipe| answer.secret.read(pipe)))? {
            output = None;
        }
        if answer.secret.len > MOST_SECRET {
            return Ok(Answer { end: End::TooMuch, ..answer });
        }
        if ready[1] && !retried(messages.as_mut().map_or(Ok(false), |pipe| read_some(pipe, &mut answer.messages)))? {
            messages = None;
        }
    }
    Ok(answer)
}

/// Reads once and keeps what there is room for, so that the agent never waits for a reader.
fn read_some(pipe: &mut File, kept: &mut Vec<u8>) -> io::Result<bool> {
    let mut buffer = [0; 1024];
    let read = pipe.read(&mut buffer)?;
    let room = MOST_MESSAGES.saturating_sub(kept.len());
    kept.extend_from_slice(&buffer[..read.min(room)]);
    Ok(read > 0)
}

/// A signal handler of the program may interrupt any read.
fn retried(read: io::Result<bool>) -> io::Result<bool> {
    match read {
        Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(true),
        other => other,
    }
}

/// Waits until a pipe can be read. Returns which can; `None` if the deadline has passed.
fn wait(pipes: [Option<&File>; 2], deadline: Instant) -> io::Result<Option<[bool; 2]>> {
    // poll ignores negative descriptors
    let fd = |pipe: Option<&File>| pipe.map_or(-1, AsRawFd::as_raw_fd);
    let mut polled = pipes.map(|pipe| libc::pollfd { fd: fd(pipe), events: libc::POLLIN, revents: 0 });
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left == Duration::ZERO {
            return Ok(None);
        }
        let millis = i32::try_from(left.as_millis()).unwrap_or(i32::MAX).saturating_add(1);
        // SAFETY: the array has two entries.
        let ready = unsafe { libc::poll(polled.as_mut_ptr(), 2, millis) };
        match ready {
            0 => {}
            1.. => return Ok(Some(polled.map(|polled| polled.revents != 0))),
            _ => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}
