//! What a worker is at, for the agent that waits for it.

use std::io;
use std::time::{Duration, Instant};

use crate::job::Answer;

/// How often a worker that makes progress says so, at least.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Says what a worker is at; what cannot be said any more is no reason to stop half way.
pub(super) struct Stage<'a> {
    pub(super) send: &'a mut dyn FnMut(Answer) -> io::Result<()>,
    pub(super) last: Option<u64>,
    pub(super) since: Instant,
}

impl Stage<'_> {
    pub(super) fn enter(&mut self, stage: &str) {
        self.last = None;
        let _ = (self.send)(Answer::Progress { stage: stage.to_owned(), percent: None });
    }

    pub(super) fn percent(&mut self, stage: &str, done: u64, total: u64) {
        let percent = (done * 100).checked_div(total);
        if percent != self.last || self.since.elapsed() > HEARTBEAT {
            self.last = percent;
            self.since = Instant::now();
            let _ = (self.send)(Answer::Progress { stage: stage.to_owned(), percent });
        }
    }
}
