//! When the daemon does what; pure, so that bursts, retries and hours of a node's life are tested without waiting.
//!
//! The daemon looks at the node about every minute, and sooner after an event from udev. A look compares the node with what it should
//! be; while they differ, `provision` runs again and again. There is no other reason for a run, and no retry with a reason of its own.

#[cfg(test)]
mod tests;

use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::compare::{Disk, Seen, VolumeState};

/// How long no disk must have come or gone before a look, so that a burst of volumes is one run.
const QUIET: Duration = Duration::from_millis(500);
/// How long the first disk of a burst waits at most.
const BURST: Duration = Duration::from_millis(1500);
/// Time from one look to the next, before jitter.
const MINUTE: Duration = Duration::from_secs(60);
/// Pause after a run that left a difference, unless disks come or go.
const REST: Duration = Duration::from_secs(30);

/// What the daemon does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// Looks at the node.
    Look,
    /// Runs `luks-agent provision`.
    Provision,
    /// Runs `luks-agent health`.
    Health,
    /// Runs `luks-agent audit --record`.
    Audit,
    /// Starts the target, if the boot failed.
    Target,
}

/// A run of `provision`.
#[derive(Debug)]
struct Tried {
    began: Instant,
    /// The disks that it found.
    disks: Vec<Disk>,
}

/// What to do when.
#[derive(Debug)]
pub(super) struct Schedule {
    look: Instant,
    /// The first disk that came or went since the last look began.
    burst: Option<Instant>,
    health: Instant,
    interval: Duration,
    /// The work that is running. Disks must not wait for a health check that waits for the key service.
    running: Vec<Work>,
    /// The last run.
    tried: Option<Tried>,
    /// End of the pause after the last run.
    rest: Instant,
    /// The node at the last look.
    node: Node,
    /// The volumes as the last health check found them.
    checked: Option<Vec<(Uuid, VolumeState)>>,
    /// The audits, if there are any.
    audits: Option<Audits>,
}

/// What an audit depends on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Node {
    disks: Vec<Disk>,
    volumes: Vec<(Uuid, VolumeState)>,
}

/// When to audit the node.
#[derive(Debug)]
struct Audits {
    next: Instant,
    interval: Duration,
    /// The node as it was at the last audit.
    node: Option<Node>,
}

impl Audits {
    fn new(now: Instant, interval: Duration) -> Self {
        Self { next: now + interval.min(MINUTE), interval, node: None }
    }
}

/// How often the daemon does what it does by the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Intervals {
    /// Between health checks.
    pub(super) health: Duration,
    /// Between audits; `None`: there are none.
    pub(super) audit: Option<Duration>,
}

/// How work ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// It is settled until something changes.
    Settled,
    /// It failed for the moment. A health check, such as one without an answer from the key service, is repeated in about a minute. An
    /// audit, which costs more, is repeated after about the interval of health checks.
    ForNow,
}

impl Schedule {
    /// Returns a schedule that begins with a look, because the daemon missed what happened while it did not run. The first health
    /// check and the first audit follow the look, or come after a minute.
    pub(super) fn new(now: Instant, intervals: Intervals) -> Self {
        Self {
            look: now,
            burst: None,
            health: now + MINUTE,
            interval: intervals.health,
            running: Vec::new(),
            tried: None,
            rest: now,
            node: Node::default(),
            checked: None,
            audits: intervals.audit.map(|interval| Audits::new(now, interval)),
        }
    }

    /// Changes the intervals of health checks and audits. One that is due sooner stays.
    pub(super) fn set_intervals(&mut self, now: Instant, intervals: Intervals) {
        self.interval = intervals.health;
        self.health = self.health.min(now + intervals.health);
        self.audits = intervals.audit.map(|interval| match self.audits.take() {
            Some(audits) => Audits { next: audits.next.min(now + interval), interval, ..audits },
            None => Audits::new(now, interval),
        });
    }

    /// Forgets what was decided about the disks, because the configuration changed.
    pub(super) fn begin_anew(&mut self, now: Instant) {
        self.tried = None;
        self.look = now;
        // a rule can except a disk, and the report says by which configuration it was made
        if let Some(audits) = &mut self.audits {
            audits.node = None;
        }
    }

    /// Notes that a disk came, went or changed.
    pub(super) fn disk_event(&mut self, now: Instant) {
        let first = *self.burst.get_or_insert(now);
        // wait while more disks are coming, even if a look is due
        self.look = (now + QUIET).min(first + BURST);
    }

    /// Returns the work that is due next and not running, and when.
    pub(super) fn next(&self) -> Option<(Instant, Work)> {
        let audit = self.audits.as_ref().filter(|_| !self.is_changing()).map(|audits| (audits.next, Work::Audit));
        let all = [(self.look, Work::Look), (self.health, Work::Health)].into_iter().chain(audit);
        all.filter(|(_, work)| !self.running.contains(work)).min_by_key(|(at, _)| *at)
    }

    /// Whether volumes are being opened, or will be in a moment. An audit would find the node between two states.
    ///
    /// A look that hangs does not count: the report shall tell of the disk that it hangs on.
    fn is_changing(&self) -> bool {
        self.running.contains(&Work::Provision) || self.burst.is_some() && !self.running.contains(&Work::Look)
    }

    /// Notes that work was started. `jitter`, in 0..1, keeps nodes that booted together apart.
    pub(super) fn started(&mut self, work: Work, now: Instant, jitter: f64) {
        self.running.push(work);
        match work {
            // disks that come from now on are for the next look
            Work::Look => {
                self.burst = None;
                self.look = now + MINUTE.mul_f64(0.75 + 0.5 * jitter);
            }
            Work::Health => {
                self.health = now + self.interval.mul_f64(0.9 + 0.2 * jitter);
                self.checked = Some(self.node.volumes.clone());
            }
            Work::Audit => {
                if let Some(audits) = &mut self.audits {
                    audits.next = now + audits.interval.mul_f64(0.9 + 0.2 * jitter);
                    audits.node = Some(self.node.clone());
                }
            }
            Work::Provision | Work::Target => {}
        }
    }

    /// Notes that a look ended, and returns the work to start because of what it saw. `seen` is `None` if the look failed.
    pub(super) fn looked(&mut self, seen: Option<Seen>, now: Instant) -> Option<Work> {
        self.running.retain(|running| *running != Work::Look);
        let seen = seen?;
        self.node = Node { disks: seen.disks.clone(), volumes: seen.volumes };
        if self.running.contains(&Work::Provision) {
            return None;
        }
        let (others, began) = match &self.tried {
            Some(Tried { began, disks }) => (*disks != seen.disks, *began),
            None => (true, now),
        };
        let again = (seen.differs && now >= self.rest) || (seen.refused && now >= began + self.interval);
        if others || again {
            self.tried = Some(Tried { began: now, disks: seen.disks });
            return Some(Work::Provision);
        }
        // the volumes changed since the last health check
        if self.checked.as_ref() != Some(&self.node.volumes) {
            self.health = now;
        }
        // the volumes or the disks changed since the last audit: a report is about disks that the agent leaves alone, too
        if let Some(audits) = &mut self.audits
            && audits.node.as_ref() != Some(&self.node)
        {
            audits.next = now;
        }
        (seen.ready && !self.running.contains(&Work::Target)).then_some(Work::Target)
    }

    /// Notes that work ended.
    pub(super) fn ended(&mut self, work: Work, ending: Ending, now: Instant, jitter: f64) {
        self.running.retain(|running| *running != work);
        match work {
            Work::Provision => {
                self.rest = now + REST;
                if self.burst.is_none() {
                    self.look = now;
                }
                // the look comes first: an audit is to know which state it is of
                if let Some(audits) = &mut self.audits {
                    audits.next = audits.next.max(now + QUIET);
                }
            }
            Work::Health if ending == Ending::ForNow => {
                self.health = self.health.min(now + MINUTE.mul_f64(0.5 + jitter))
            }
            Work::Audit if ending == Ending::ForNow => {
                let pause = self.interval.mul_f64(0.5 + jitter);
                if let Some(audits) = &mut self.audits {
                    audits.next = audits.next.min(now + pause);
                }
            }
            Work::Health | Work::Audit | Work::Look | Work::Target => {}
        }
    }
}
