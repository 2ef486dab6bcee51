//! Gives an open volume a new volume key. It takes hours, and can be asked to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::claim::claim;
use super::error::WorkerError;
use super::stage::Stage;
use crate::error::IoError;
use crate::job::{self, Answer};
use crate::key::Passphrase;
use crate::storage::cryptsetup::{self, OpenVolume, Position, Reencryption};

/// What it says that it does.
const STAGE: &str = "re-encrypting";
/// How often it looks whether it should stop.
const LOOK: Duration = Duration::from_millis(100);

/// Re-encrypts a volume until that is finished, SIGTERM or SIGINT arrives, or the agent exits.
///
/// In another thread, because libcryptsetup calls back from its depths, and this one reports and listens.
pub(super) fn reencrypt(
    job: job::Reencrypt,
    key: Option<Passphrase>,
    stage: &mut Stage<'_>,
) -> Result<Answer, WorkerError> {
    let key = key.ok_or(WorkerError::NoPassphrase)?;
    let _lock = claim(&job.target, stage)?;
    let mut signals = Signals::new().map_err(|e| IoError::when("receive signals for", &job.target.path)(e.into()))?;
    spare_from_oom_killer();
    stage.enter(STAGE);
    let stop = Arc::new(AtomicBool::new(false));
    let (positions, seen) = mpsc::channel();
    let stopped = Arc::clone(&stop);
    let work = thread::spawn(move || {
        let goes_on = Box::new(move |position: Position| {
            let _ = positions.send(position);
            !stopped.load(Ordering::Relaxed)
        });
        let job::Reencrypt { target, expected, mapper, former, speed } = &job;
        let volume = OpenVolume { device: &target.path, name: mapper, expected, former: former.as_ref() };
        cryptsetup::reencrypt(volume, &key, *speed, goes_on)
    });
    let mut course = Course::default();
    loop {
        if signals.ask_to_stop() {
            stop.store(true, Ordering::Relaxed);
        }
        match seen.recv_timeout(LOOK) {
            Ok(position) => {
                course.add(position);
                stage.course(STAGE, position.done, position.total, course.pace());
            }
            Err(RecvTimeoutError::Timeout) if !work.is_finished() => {}
            Err(_) => break,
        }
    }
    let done = work.join().map_err(|_| WorkerError::Panicked)?;
    Ok(match done? {
        Reencryption::Finished { opened } => Answer::Reencrypted { opened },
        Reencryption::Stopped => Answer::Stopped,
        Reencryption::Refused { why } => Answer::Refused { why },
    })
}

/// The signals that ask to stop.
struct Signals(SignalFd);

impl Signals {
    /// Blocks the signals for this thread and those that it starts, and has the kernel send SIGTERM when the agent exits, in place of the
    /// SIGKILL that it would send from the worker's beginning on.
    ///
    /// A worker that is killed in the midst leaves a hot zone that nobody reads or writes until the volume was opened again.
    fn new() -> nix::Result<Self> {
        let mask: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect();
        mask.thread_block()?;
        set_pdeathsig(Signal::SIGTERM)?;
        SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).map(Self)
    }

    fn ask_to_stop(&mut self) -> bool {
        matches!(self.0.read_signal(), Ok(Some(_)))
    }
}

/// Tells the kernel to kill other processes first if memory runs out.
fn spare_from_oom_killer() {
    if let Err(e) = std::fs::write("/proc/self/oom_score_adj", "-1000") {
        tracing::debug!("cannot change /proc/self/oom_score_adj: {e}");
    }
}

/// How fast it goes, as text.
#[derive(Default)]
struct Course {
    first: Option<(Instant, u64)>,
    last: Option<(Instant, Position)>,
}

impl Course {
    fn add(&mut self, position: Position) {
        let now = Instant::now();
        self.first.get_or_insert((now, position.done));
        self.last = Some((now, position));
    }

    /// Returns the speed since the beginning, and the time that is left at this speed.
    fn pace(&self) -> Option<String> {
        let ((since, from), (now, at)) = (self.first?, self.last?);
        let (done, took) = (at.done.saturating_sub(from), now.duration_since(since).as_millis());
        let speed = (u128::from(done) * 1000).checked_div(took).filter(|speed| *speed > 0)?;
        let left = Duration::from_secs(u64::try_from(u128::from(at.total - at.done) / speed).unwrap_or(u64::MAX));
        let (hours, minutes) = (left.as_secs() / 3600, left.as_secs() / 60 % 60);
        Some(format!("{}.{} MiB/s, {hours} h {minutes:02} min left", speed >> 20, ((speed % (1 << 20)) * 10) >> 20))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_course_tells_speed_and_remaining_time() {
        let now = Instant::now();
        let mut course = Course::default();
        assert_eq!(course.pace(), None);
        let total = 100 << 30;
        course.first = Some((now, 10 << 30));
        course.last = Some((now, Position { done: 10 << 30, total }));
        assert_eq!(course.pace(), None);
        let done = (10 << 30) + (10_000 << 20);
        course.last = Some((now + Duration::from_secs(100), Position { done, total }));
        assert_eq!(course.pace().unwrap(), "100.0 MiB/s, 0 h 13 min left");
    }
}
