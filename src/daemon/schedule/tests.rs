//! Bursts, retries and hours of a node's life, without waiting.

use super::*;

const INTERVAL: Duration = Duration::from_secs(900);
const WITHOUT_AUDITS: Intervals = Intervals { health: INTERVAL, audit: None };
const WITH_AUDITS: Intervals = Intervals { health: INTERVAL, audit: Some(Duration::from_secs(3600)) };

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
fn live(schedule: &mut Schedule, from: Instant, to: Instant, seen: impl Fn(Instant) -> Seen) -> Vec<(Duration, Work)> {
    let mut done = Vec::new();
    while let Some((at, work)) = schedule.next().filter(|(at, _)| *at < to) {
        schedule.started(work, at, 0.5);
        if work != Work::Look {
            done.push((at - from, work));
            schedule.ended(work, Ending::Settled, at, 0.5);
        } else if let Some(work) = schedule.looked(Some(seen(at)), at) {
            schedule.started(work, at, 0.5);
            done.push((at - from, work));
            schedule.ended(work, Ending::Settled, at, 0.5);
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
    let mut schedule = Schedule::new(now, WITHOUT_AUDITS);
    let done = live(&mut schedule, now, now + INTERVAL * 4, |_| well(&["a"]));
    assert_eq!(times(&done, Work::Provision), [0]);
    assert_eq!(times(&done, Work::Health), [0, 900, 1800, 2700]);
    assert!(times(&done, Work::Target).is_empty() && times(&done, Work::Audit).is_empty());
}

#[test]
fn a_node_is_audited_after_its_first_look_and_every_interval() {
    let now = Instant::now();
    let mut schedule = Schedule::new(now, WITH_AUDITS);
    let done = live(&mut schedule, now, now + INTERVAL * 12, |_| well(&["a"]));
    assert_eq!(times(&done, Work::Audit), [0, 3600, 7200]);
    let first: Vec<Work> = done.iter().map(|(_, work)| *work).take(3).collect();
    assert_eq!(first, [Work::Provision, Work::Health, Work::Audit], "what runs at once can wait for the next look");
}

#[test]
fn a_change_is_a_reason_for_an_audit() {
    let now = Instant::now();
    let mut schedule = Schedule::new(now, WITH_AUDITS);
    let later = |n| now + MINUTE * n + ms(100);
    let done = live(&mut schedule, now, now + INTERVAL * 3, |at| {
        let volumes = vec![(Uuid::from_u128(1), VolumeState::Missing)];
        match at {
            at if at < later(10) => well(&["a"]),
            // a volume that is lost
            at if at < later(20) => Seen { volumes, ..well(&["a"]) },
            // a disk that the agent leaves alone
            _ => Seen { volumes, ..well(&["a", "b"]) },
        }
    });
    assert_eq!(times(&done, Work::Audit), [0, 660, 1260]);
}

#[test]
fn a_node_is_not_audited_while_volumes_are_opened_or_disks_come() {
    let now = Instant::now();
    let mut schedule = Schedule::new(now, WITH_AUDITS);
    schedule.started(Work::Look, now, 0.5);
    assert_eq!(schedule.looked(Some(well(&["a"])), now), Some(Work::Provision));
    schedule.started(Work::Provision, now, 0.5);
    schedule.started(Work::Health, now, 0.5);
    schedule.started(Work::Look, now, 0.5);
    let end = now + INTERVAL;
    assert_eq!(schedule.next(), None, "the run takes long, and the audit is due");
    schedule.ended(Work::Provision, Ending::Settled, end, 0.5);
    assert_eq!(schedule.looked(None, end), None);
    assert_eq!(schedule.next(), Some((end, Work::Look)), "the look comes first");
    schedule.started(Work::Look, end, 0.5);
    assert_eq!(schedule.next(), Some((end + QUIET, Work::Audit)), "which a look that hangs does not hold up");
    assert_eq!(schedule.looked(Some(well(&["a"])), end), None);
    assert_eq!(schedule.next(), Some((end, Work::Audit)));
    schedule.disk_event(end);
    assert_eq!(schedule.next(), Some((end + QUIET, Work::Look)), "disks are coming");
}

#[test]
fn an_audit_without_a_report_is_repeated_and_audits_of_nodes_that_booted_together_are_apart() {
    let now = Instant::now();
    for (jitter, due, again) in [(0.0, 3240, 450), (1.0, 3960, 1350)] {
        let mut schedule = Schedule::new(now, WITH_AUDITS);
        let next = |schedule: &Schedule| schedule.audits.as_ref().unwrap().next - now;
        schedule.started(Work::Audit, now, jitter);
        assert_eq!(next(&schedule), Duration::from_secs(due));
        schedule.ended(Work::Audit, Ending::ForNow, now, jitter);
        assert_eq!(next(&schedule), Duration::from_secs(again));
    }
}

#[test]
fn another_configuration_is_a_reason_for_an_audit() {
    let now = Instant::now();
    let mut schedule = Schedule::new(now, WITH_AUDITS);
    live(&mut schedule, now, now + MINUTE, |_| well(&["a"]));
    let from = now + MINUTE;
    schedule.begin_anew(from);
    let done = live(&mut schedule, from, from + INTERVAL, |_| well(&["a"]));
    assert_eq!(times(&done, Work::Audit).len(), 1);
}

#[test]
fn a_reload_begins_and_ends_audits_and_changes_their_interval() {
    let now = Instant::now();
    let mut schedule = Schedule::new(now, WITHOUT_AUDITS);
    live(&mut schedule, now, now + MINUTE, |_| well(&["a"]));
    let from = now + MINUTE;
    schedule.set_intervals(from, WITH_AUDITS);
    let done = live(&mut schedule, from, from + MINUTE * 3, |_| well(&["a"]));
    assert_eq!(times(&done, Work::Audit).len(), 1, "with the next look");
    let hour = Duration::from_secs(3600);
    for (interval, due) in [(hour / 2, hour / 2), (hour, hour / 2)] {
        schedule.set_intervals(from, Intervals { audit: Some(interval), ..WITHOUT_AUDITS });
        assert_eq!(schedule.audits.as_ref().unwrap().next, from + due, "one that is due sooner stays");
    }
    schedule.set_intervals(from, WITHOUT_AUDITS);
    let done = live(&mut schedule, from, from + hour, |_| well(&["a"]));
    assert!(times(&done, Work::Audit).is_empty());
}

#[test]
fn what_differs_is_tried_every_minute_until_it_agrees() {
    let now = Instant::now();
    let mut schedule = Schedule::new(now, WITHOUT_AUDITS);
    let minutes = |n| now + MINUTE * n + ms(100);
    let done = live(&mut schedule, now, minutes(20), |at| if at < minutes(5) { wrong() } else { well(&["a"]) });
    assert_eq!(times(&done, Work::Provision), [0, 60, 120, 180, 240, 300]);
    assert_eq!(times(&done, Work::Health), [0, 900]);
}

#[test]
fn what_a_person_is_needed_for_is_tried_at_the_interval() {
    let now = Instant::now();
    let mut schedule = Schedule::new(now, WITHOUT_AUDITS);
    let refused = |_| Seen { refused: true, ..well(&["a"]) };
    let done = live(&mut schedule, now, now + INTERVAL * 3 + ms(1), refused);
    assert_eq!(times(&done, Work::Provision), [0, 900, 1800, 2700]);
}

#[test]
fn a_disk_that_comes_or_goes_is_a_reason_for_a_run_and_is_waited_for_less_than_two_seconds() {
    let now = Instant::now();
    let mut schedule = Schedule::new(now, WITHOUT_AUDITS);
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
    schedule.ended(Work::Provision, Ending::Settled, at + ms(900), 0.5);
    let done = live(&mut schedule, at, at + ms(901), |_| well(&["a", "b"]));
    assert_eq!(times(&done, Work::Provision), [0], "one that went meanwhile");
}

#[test]
fn the_target_is_started_when_all_is_ready_and_asked_for_again_each_minute() {
    let now = Instant::now();
    let mut schedule = Schedule::new(now, WITHOUT_AUDITS);
    let ready = |_| Seen { ready: true, ..well(&["a"]) };
    let done = live(&mut schedule, now, now + MINUTE * 2 + ms(1), ready);
    assert_eq!(times(&done, Work::Target), [0, 60, 120]);
}

#[test]
fn a_volume_that_is_closed_or_lost_is_noticed_by_the_next_look() {
    let now = Instant::now();
    let mut schedule = Schedule::new(now, WITHOUT_AUDITS);
    let closed = || Seen { volumes: vec![(Uuid::from_u128(1), VolumeState::Closed)], ..well(&["a"]) };
    let done =
        live(&mut schedule, now, now + INTERVAL, |at| if at < now + ms(90_000) { well(&["a"]) } else { closed() });
    assert_eq!(times(&done, Work::Provision), [0], "closed on purpose");
    assert_eq!(times(&done, Work::Health), [0, 120]);
}

#[test]
fn nothing_holds_up_anything_else_and_nothing_is_done_twice_at_a_time() {
    let now = Instant::now();
    let mut schedule = Schedule::new(now, WITHOUT_AUDITS);
    schedule.started(Work::Health, now, 0.5);
    schedule.started(Work::Look, now, 0.5);
    // a look that hangs
    assert_eq!(schedule.next(), None);
    schedule.ended(Work::Health, Ending::Settled, now, 0.5);
    assert_eq!(schedule.next(), Some((now + INTERVAL, Work::Health)));
    assert_eq!(schedule.looked(None, now), None);
    assert_eq!(schedule.next(), Some((now + MINUTE, Work::Look)));
}

#[test]
fn looks_and_health_checks_of_nodes_that_booted_together_are_apart() {
    let now = Instant::now();
    for (jitter, look, health) in [(0.0, 45, 810), (1.0, 75, 990)] {
        let mut schedule = Schedule::new(now, WITHOUT_AUDITS);
        schedule.started(Work::Look, now, jitter);
        assert_eq!(schedule.look - now, Duration::from_secs(look));
        schedule.started(Work::Health, now, jitter);
        assert_eq!(schedule.health - now, Duration::from_secs(health));
        // without an answer of the key service
        schedule.ended(Work::Health, Ending::ForNow, now, jitter);
        assert_eq!(schedule.health - now, MINUTE.mul_f64(0.5 + jitter));
    }
}

#[test]
fn a_shorter_interval_counts_at_once() {
    let now = Instant::now();
    let mut schedule = Schedule::new(now, WITHOUT_AUDITS);
    schedule.started(Work::Health, now, 0.5);
    schedule.set_intervals(now, Intervals { health: ms(1000), ..WITHOUT_AUDITS });
    assert_eq!(schedule.health, now + ms(1000));
    schedule.set_intervals(now, WITHOUT_AUDITS);
    assert_eq!(schedule.health, now + ms(1000), "what is due sooner stays");
}
