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
    /// What is under way. A health check that waits for the key service must not keep disks waiting.
    running: Vec<Work>,
}

impl Schedule {
    /// Everything is looked at once at the beginning: what came while the daemon did not run, it was not told of. The health comes
    /// after that, or when that takes long.
    pub(super) fn new(now: Instant, interval: Duration) -> Self {
        Self { burst: Some((now, now)), health: now + RETRY, interval, running: Vec::new() }
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

    /// What is due next of the work that is not under way, and when.
    pub(super) fn next(&self) -> Option<(Instant, Work)> {
        let provision = self.burst.map(|(_, at)| (at, Work::Provision));
        let all = [provision, Some((self.health, Work::Health))];
        all.into_iter().flatten().filter(|(_, work)| !self.running.contains(work)).min_by_key(|(at, _)| *at)
    }

    /// It was started: what comes from now on is for the next run. `jitter` in 0..1 keeps nodes that booted together apart.
    pub(super) fn started(&mut self, work: Work, now: Instant, jitter: f64) {
        self.running.push(work);
        match work {
            Work::Provision => self.burst = None,
            Work::Health => self.health = now + self.interval.mul_f64(0.9 + 0.2 * jitter),
        }
    }

    /// It ended.
    pub(super) fn ended(&mut self, work: Work) {
        self.running.retain(|running| *running != work);
    }

    /// The node has changed: what the last health check said is of the past.
    pub(super) fn check_now(&mut self, now: Instant) {
        self.health = now;
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
        for expected in [(now, Work::Provision), (now + RETRY, Work::Health)] {
            assert_eq!(schedule.next(), Some(expected));
            run(&mut schedule, expected.1, now, 0.5);
        }
        schedule
    }

    /// Starts and ends at once.
    fn run(schedule: &mut Schedule, work: Work, now: Instant, jitter: f64) {
        schedule.started(work, now, jitter);
        schedule.ended(work);
    }

    #[test]
    fn what_is_under_way_is_not_started_again_and_does_not_hold_up_the_other() {
        let now = Instant::now();
        let mut schedule = Schedule::new(now, INTERVAL);
        schedule.started(Work::Health, now, 0.5);
        assert_eq!(schedule.next(), Some((now, Work::Provision)));
        schedule.started(Work::Provision, now, 0.5);
        schedule.disk_event(now + ms(10));
        assert_eq!(schedule.next(), None);
        schedule.ended(Work::Provision);
        assert_eq!(schedule.next(), Some((now + ms(510), Work::Provision)));
        schedule.started(Work::Provision, now, 0.5);
        schedule.ended(Work::Health);
        assert_eq!(schedule.next(), Some((now + INTERVAL, Work::Health)));
    }

    #[test]
    fn a_burst_is_one_run_and_begins_within_two_seconds() {
        let now = Instant::now();
        let mut schedule = idle(now);
        for n in 0..24 {
            schedule.disk_event(now + ms(100 * n));
            let (at, work) = schedule.next().unwrap();
            assert_eq!(work, Work::Provision);
            assert!(at >= now + ms(500) && at <= now + ms(1500), "{:?}", at - now);
        }
        schedule.started(Work::Provision, now + ms(1500), 0.5);
        assert_eq!(schedule.next(), Some((now + INTERVAL, Work::Health)));
        // one that came while the run was under way is not forgotten
        schedule.disk_event(now + ms(1600));
        schedule.ended(Work::Provision);
        assert_eq!(schedule.next(), Some((now + ms(2100), Work::Provision)));
    }

    #[test]
    fn health_is_looked_at_again_and_again_apart_from_others() {
        let now = Instant::now();
        let mut schedule = idle(now);
        let at = |schedule: &Schedule| schedule.next().unwrap().0 - now;
        run(&mut schedule, Work::Health, now, 0.0);
        assert_eq!(at(&schedule), INTERVAL.mul_f64(0.9));
        run(&mut schedule, Work::Health, now, 1.0);
        assert_eq!(at(&schedule), INTERVAL.mul_f64(1.1));
        schedule.set_interval(now, ms(1000));
        assert_eq!(at(&schedule), ms(1000));
        schedule.set_interval(now, INTERVAL);
        assert_eq!(at(&schedule), ms(1000), "what is due sooner stays");
        schedule.check_now(now);
        assert_eq!(schedule.next(), Some((now, Work::Health)));
    }

    #[test]
    fn a_run_without_the_key_service_is_tried_again_in_about_a_minute() {
        let now = Instant::now();
        for (jitter, wait) in [(0.0, RETRY / 2), (1.0, RETRY + RETRY / 2)] {
            let mut schedule = idle(now);
            schedule.again(Work::Provision, now, jitter);
            assert_eq!(schedule.next(), Some((now + wait, Work::Provision)));
            // a disk that comes meanwhile does not wait for it
            schedule.disk_event(now);
            assert_eq!(schedule.next(), Some((now + ms(500), Work::Provision)));
        }
        let mut schedule = idle(now);
        schedule.again(Work::Health, now, 0.5);
        assert_eq!(schedule.next(), Some((now + RETRY, Work::Health)));
    }
}
