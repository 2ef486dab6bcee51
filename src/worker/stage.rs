//! Reports a worker's progress to the agent that waits for it.

use std::io;
use std::time::{Duration, Instant};

use crate::job::Answer;

/// The longest time between two reports of a worker that makes progress.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// A reporter of progress. Ignores write errors, because a lost report is no reason to stop halfway.
pub(super) struct Stage<'a> {
    pub(super) send: &'a mut dyn FnMut(Answer) -> io::Result<()>,
    pub(super) last: Option<u64>,
    pub(super) since: Instant,
}

impl Stage<'_> {
    pub(super) fn enter(&mut self, stage: &str) {
        self.last = None;
        let _ = (self.send)(Answer::Progress { stage: stage.to_owned(), percent: None, pace: None });
    }

    pub(super) fn percent(&mut self, stage: &str, done: u64, total: u64) {
        self.course(stage, done, total, None);
    }

    /// Reports progress together with how fast it is.
    pub(super) fn course(&mut self, stage: &str, done: u64, total: u64, pace: Option<String>) {
        let percent = (done * 100).checked_div(total);
        if percent != self.last || self.since.elapsed() > HEARTBEAT {
            self.last = percent;
            self.since = Instant::now();
            let _ = (self.send)(Answer::Progress { stage: stage.to_owned(), percent, pace });
        }
    }
}
