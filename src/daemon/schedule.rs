//! When the daemon has which unit started: pure, so that bursts and retries are tested without waiting.

use std::time::Duration;

use tokio::time::Instant;

/// How long no disk must have come or gone before the node is provisioned: a burst of volumes is one run.
const QUIET: Duration = Duration::from_millis(500);
/// How long the first of a burst is kept waiting.
const BURST: Duration = Duration::from_millis(1500);
/// How long after a run without an answer of the key service the next one is tried, before jitter.
const RETRY: Duration = Duration::from_secs(60);

/// What the daemon has systemd start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// `luks-agent provision`.
    Provision,
    /// `luks-agent health`.
    Health,
}

/// What is to be started when.
#[derive(Debug)]
pub(super) struct Schedule {
    /// The first disk that came or went since the last run began, and when that run is due.
    burst: Option<(Instant, Instant)>,
    health: Instant,
    interval: Duration,
}

impl Schedule {
    /// Everything is looked at once at the beginning: what came while the daemon did not run, it was not told of.
    pub(super) fn new(now: Instant, interval: Duration) -> Self {
        Self { burst: Some((now, now)), health: now, interval }
    }

    /// Another interval; what is due sooner stays.
    pub(super) fn set_interval(&mut self, now: Instant, interval: Duration) {
        self.interval = interval;
        self.health = self.health.min(now + interval);
    }

    /// A disk came, went or changed.
    pub(super) fn disk_event(&mut self, now: Instant) {
        let first = self.burst.map_or(now, |(first, _)| first);
        self.burst = Some((first, (now + QUIET).min(first + BURST)));
    }

    /// What is due next, and when.
    pub(super) fn next(&self) -> (Instant, Work) {
        match self.burst {
            Some((_, at)) if at <= self.health => (at, Work::Provision),
            Some(_) | None => (self.health, Work::Health),
        }
    }

    /// It was started: what comes from now on is for the next run. `jitter` in 0..1 keeps nodes that booted together apart.
    pub(super) fn started(&mut self, work: Work, now: Instant, jitter: f64) {
        match work {
            Work::Provision => self.burst = None,
            Work::Health => self.health = now + self.interval.mul_f64(0.9 + 0.2 * jitter),
        }
    }

    /// It ended without an answer of the key service, which may have one in a while.
    pub(super) fn again(&mut self, work: Work, now: Instant, jitter: f64) {
        let at = now + RETRY.mul_f64(0.5 + jitter);
        match work {
            Work::Provision => {
                self.burst.get_or_insert((now, at));
            }
            Work::Health => self.health = self.health.min(at),
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

    /// One for which both first runs are done.
    fn idle(now: Instant) -> Schedule {
        let mut schedule = Schedule::new(now, INTERVAL);
        for expected in [Work::Provision, Work::Health] {
            let (at, work) = schedule.next();
            assert_eq!((at, work), (now, expected));
            schedule.started(work, now, 0.5);
        }
        schedule
    }

    #[test]
    fn a_burst_is_one_run_and_begins_within_two_seconds() {
        let now = Instant::now();
        let mut schedule = idle(now);
        for n in 0..24 {
            schedule.disk_event(now + ms(100 * n));
            let (at, work) = schedule.next();
            assert_eq!(work, Work::Provision);
            assert!(at >= now + ms(500) && at <= now + ms(1500), "{:?}", at - now);
        }
        schedule.started(Work::Provision, now + ms(1500), 0.5);
        assert_eq!(schedule.next(), (now + INTERVAL, Work::Health));
        // one that came while the run was under way is not forgotten
        schedule.disk_event(now + ms(1600));
        assert_eq!(schedule.next(), (now + ms(2100), Work::Provision));
    }

    #[test]
    fn health_is_looked_at_again_and_again_apart_from_others() {
        let now = Instant::now();
        let mut schedule = idle(now);
        let at = |schedule: &Schedule| schedule.next().0 - now;
        schedule.started(Work::Health, now, 0.0);
        assert_eq!(at(&schedule), INTERVAL.mul_f64(0.9));
        schedule.started(Work::Health, now, 1.0);
        assert_eq!(at(&schedule), INTERVAL.mul_f64(1.1));
        schedule.set_interval(now, ms(1000));
        assert_eq!(at(&schedule), ms(1000));
        schedule.set_interval(now, INTERVAL);
        assert_eq!(at(&schedule), ms(1000), "what is due sooner stays");
    }

    #[test]
    fn a_run_without_the_key_service_is_tried_again_in_about_a_minute() {
        let now = Instant::now();
        for (jitter, wait) in [(0.0, RETRY / 2), (1.0, RETRY + RETRY / 2)] {
            let mut schedule = idle(now);
            schedule.again(Work::Provision, now, jitter);
            assert_eq!(schedule.next(), (now + wait, Work::Provision));
            // a disk that comes meanwhile does not wait for it
            schedule.disk_event(now);
            assert_eq!(schedule.next().0, now + ms(500));
        }
        let mut schedule = idle(now);
        schedule.again(Work::Health, now, 0.5);
        assert_eq!(schedule.next(), (now + RETRY, Work::Health));
    }
}
