//! When the daemon does what; pure, so that bursts, retries and hours of a node's life are tested without waiting.
//!
//! The daemon looks at the node about every minute, and sooner after an event from udev. A look compares the node with what it should
//! be; while they differ, `provision` runs again and again. There is no other reason for a run, and no retry with a reason of its own.

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
    /// The volumes at the last look.
    volumes: Vec<(Uuid, VolumeState)>,
    /// The volumes as the last health check found them.
    checked: Option<Vec<(Uuid, VolumeState)>>,
}

impl Schedule {
    /// Returns a schedule that begins with a look, because the daemon missed what happened while it did not run. The first health
    /// check follows the look, or comes after a minute.
    pub(super) fn new(now: Instant, interval: Duration) -> Self {
        Self {
            look: now,
            burst: None,
            health: now + MINUTE,
            interval,
            running: Vec::new(),
            tried: None,
            rest: now,
            volumes: Vec::new(),
            checked: None,
        }
    }

    /// Changes the interval of health checks. A check that is due sooner stays.
    pub(super) fn set_interval(&mut self, now: Instant, interval: Duration) {
        self.interval = interval;
        self.health = self.health.min(now + interval);
    }

    /// Forgets what was decided about the disks, because the configuration changed.
    pub(super) fn begin_anew(&mut self, now: Instant) {
        self.tried = None;
        self.look = now;
    }

    /// Notes that a disk came, went or changed.
    pub(super) fn disk_event(&mut self, now: Instant) {
        let first = *self.burst.get_or_insert(now);
        // wait while more disks are coming, even if a look is due
        self.look = (now + QUIET).min(first + BURST);
    }

    /// Returns the work that is due next and not running, and when.
    pub(super) fn next(&self) -> Option<(Instant, Work)> {
        let all = [(self.look, Work::Look), (self.health, Work::Health)];
        all.into_iter().filter(|(_, work)| !self.running.contains(work)).min_by_key(|(at, _)| *at)
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
                self.checked = Some(self.volumes.clone());
            }
            Work::Provision | Work::Target => {}
        }
    }

    /// Notes that a look ended, and returns the work to start because of what it saw; `None` if the look failed.
    pub(super) fn looked(&mut self, seen: Option<Seen>, now: Instant) -> Option<Work> {
        self.running.retain(|running| *running != Work::Look);
        let seen = seen?;
        self.volumes = seen.volumes;
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
        if self.checked.as_ref() != Some(&self.volumes) {
            self.health = now;
        }
        (seen.ready && !self.running.contains(&Work::Target)).then_some(Work::Target)
    }

    /// Notes that work ended. With `again`, a health check that failed for the moment is repeated in about a minute.
    pub(super) fn ended(&mut self, work: Work, again: bool, now: Instant, jitter: f64) {
        self.running.retain(|running| *running != work);
        match work {
            Work::Provision => {
                self.rest = now + REST;
                if self.burst.is_none() {
                    self.look = now;
                }
            }
            Work::Health if again => self.health = self.health.min(now + MINUTE.mul_f64(0.5 + jitter)),
            Work::Health | Work::Look | Work::Target => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(900);

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// A node with these disks, on which all is well.
    fn well(disks: &[&str]) -> Seen {
        Seen {
            disks: disks.iter().map(|name| Disk::sample(name)).collect(),
            volumes: vec![(Uuid::from_u128(1), VolumeState::Ready)],
            differs: false,
            refused: false,
            ready: false,
        }
    }

    /// A node of which something cannot be put right.
    fn wrong() -> Seen {
        Seen { differs: true, ..well(&["a"]) }
    }

    /// Lets a node live, as `seen` says it is at a time, with runs that take no time. Gives back what was done when, but for looks.
    fn live(
        schedule: &mut Schedule,
        from: Instant,
        to: Instant,
        seen: impl Fn(Instant) -> Seen,
    ) -> Vec<(Duration, Work)> {
        let mut done = Vec::new();
        while let Some((at, work)) = schedule.next().filter(|(at, _)| *at < to) {
            schedule.started(work, at, 0.5);
            if work != Work::Look {
                done.push((at - from, work));
                schedule.ended(work, false, at, 0.5);
            } else if let Some(work) = schedule.looked(Some(seen(at)), at) {
                schedule.started(work, at, 0.5);
                done.push((at - from, work));
                schedule.ended(work, false, at, 0.5);
            }
        }
        done
    }

    fn times(done: &[(Duration, Work)], work: Work) -> Vec<u64> {
        done.iter().filter(|(_, other)| *other == work).map(|(at, _)| at.as_secs()).collect()
    }

    #[test]
    fn a_node_on_which_all_is_well_is_provisioned_once_and_checked_every_interval() {
        let now = Instant::now();
        let mut schedule = Schedule::new(now, INTERVAL);
        let done = live(&mut schedule, now, now + INTERVAL * 4, |_| well(&["a"]));
        assert_eq!(times(&done, Work::Provision), [0]);
        assert_eq!(times(&done, Work::Health), [0, 900, 1800, 2700]);
        assert!(times(&done, Work::Target).is_empty());
    }

    #[test]
    fn what_differs_is_tried_every_minute_until_it_agrees() {
        let now = Instant::now();
        let mut schedule = Schedule::new(now, INTERVAL);
        let minutes = |n| now + MINUTE * n + ms(100);
        let done = live(&mut schedule, now, minutes(20), |at| if at < minutes(5) { wrong() } else { well(&["a"]) });
        assert_eq!(times(&done, Work::Provision), [0, 60, 120, 180, 240, 300]);
        assert_eq!(times(&done, Work::Health), [0, 900]);
    }

    #[test]
    fn what_a_person_is_needed_for_is_tried_at_the_interval() {
        let now = Instant::now();
        let mut schedule = Schedule::new(now, INTERVAL);
        let refused = |_| Seen { refused: true, ..well(&["a"]) };
        let done = live(&mut schedule, now, now + INTERVAL * 3 + ms(1), refused);
        assert_eq!(times(&done, Work::Provision), [0, 900, 1800, 2700]);
    }

    #[test]
    fn a_disk_that_comes_or_goes_is_a_reason_for_a_run_and_is_waited_for_less_than_two_seconds() {
        let now = Instant::now();
        let mut schedule = Schedule::new(now, INTERVAL);
        live(&mut schedule, now, now + ms(1), |_| wrong());
        // one at every tenth of a second
        for n in 0..24 {
            schedule.disk_event(now + ms(100 * n));
            let (at, work) = schedule.next().unwrap();
            assert_eq!(work, Work::Look);
            assert!(at <= now + ms(1500) && at >= (now + ms(100 * n + 500)).min(now + ms(1500)), "{:?}", at - now);
        }
        let done = live(&mut schedule, now, now + ms(2000), |_| Seen { differs: true, ..well(&["a", "b"]) });
        assert_eq!(done, [(ms(1500), Work::Provision)], "although the last run was a moment ago");
        // one that comes while a run is under way
        schedule.disk_event(now + ms(2000));
        let (at, _) = schedule.next().unwrap();
        schedule.started(Work::Look, at, 0.5);
        assert_eq!(schedule.looked(Some(well(&["a", "b", "c"])), at), Some(Work::Provision));
        schedule.started(Work::Provision, at, 0.5);
        schedule.disk_event(at);
        schedule.started(Work::Look, at + ms(500), 0.5);
        assert_eq!(schedule.looked(Some(well(&["a", "b"])), at + ms(500)), None);
        schedule.ended(Work::Provision, false, at + ms(900), 0.5);
        let done = live(&mut schedule, at, at + ms(901), |_| well(&["a", "b"]));
        assert_eq!(times(&done, Work::Provision), [0], "one that went meanwhile");
    }

    #[test]
    fn the_target_is_started_when_all_is_ready_and_asked_for_again_each_minute() {
        let now = Instant::now();
        let mut schedule = Schedule::new(now, INTERVAL);
        let ready = |_| Seen { ready: true, ..well(&["a"]) };
        let done = live(&mut schedule, now, now + MINUTE * 2 + ms(1), ready);
        assert_eq!(times(&done, Work::Target), [0, 60, 120]);
    }

    #[test]
    fn a_volume_that_is_closed_or_lost_is_noticed_by_the_next_look() {
        let now = Instant::now();
        let mut schedule = Schedule::new(now, INTERVAL);
        let closed = || Seen { volumes: vec![(Uuid::from_u128(1), VolumeState::Closed)], ..well(&["a"]) };
        let done =
            live(&mut schedule, now, now + INTERVAL, |at| if at < now + ms(90_000) { well(&["a"]) } else { closed() });
        assert_eq!(times(&done, Work::Provision), [0], "closed on purpose");
        assert_eq!(times(&done, Work::Health), [0, 120]);
    }

    #[test]
    fn nothing_holds_up_anything_else_and_nothing_is_done_twice_at_a_time() {
        let now = Instant::now();
        let mut schedule = Schedule::new(now, INTERVAL);
        schedule.started(Work::Health, now, 0.5);
        schedule.started(Work::Look, now, 0.5);
        // a look that hangs
        assert_eq!(schedule.next(), None);
        schedule.ended(Work::Health, false, now, 0.5);
        assert_eq!(schedule.next(), Some((now + INTERVAL, Work::Health)));
        assert_eq!(schedule.looked(None, now), None);
        assert_eq!(schedule.next(), Some((now + MINUTE, Work::Look)));
    }

    #[test]
    fn looks_and_health_checks_of_nodes_that_booted_together_are_apart() {
        let now = Instant::now();
        for (jitter, look, health) in [(0.0, 45, 810), (1.0, 75, 990)] {
            let mut schedule = Schedule::new(now, INTERVAL);
            schedule.started(Work::Look, now, jitter);
            assert_eq!(schedule.look - now, Duration::from_secs(look));
            schedule.started(Work::Health, now, jitter);
            assert_eq!(schedule.health - now, Duration::from_secs(health));
            // without an answer of the key service
            schedule.ended(Work::Health, true, now, jitter);
            assert_eq!(schedule.health - now, MINUTE.mul_f64(0.5 + jitter));
        }
    }

    #[test]
    fn a_shorter_interval_counts_at_once() {
        let now = Instant::now();
        let mut schedule = Schedule::new(now, INTERVAL);
        schedule.started(Work::Health, now, 0.5);
        schedule.set_interval(now, ms(1000));
        assert_eq!(schedule.health, now + ms(1000));
        schedule.set_interval(now, INTERVAL);
        assert_eq!(schedule.health, now + ms(1000), "what is due sooner stays");
    }
}
