mod herd;

use super::*;

fn run(class: Class, limits: &Limits, deadline: Duration) -> (u32, Duration) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let (_, tries) = runtime.block_on(async {
        let end = Instant::now() + deadline;
        retry::<(), _>(limits, end, Operation::Decrypt, || async { Err(Failure::new(class, "test")) })
            .await
            .unwrap_err()
    });
    (tries.count, tries.time)
}

#[test]
fn each_class_is_tried_as_long_as_it_deserves() {
    let limits = Limits::default();
    let hour = Duration::from_secs(3600);
    for class in [
        Class::NoCredentialSource,
        Class::KeyState,
        Class::Certificate,
        Class::Configuration,
        Class::WrappedKey,
        Class::Unexpected,
    ] {
        assert_eq!(run(class, &limits, hour).0, 1, "{class:?}");
    }
    for class in [Class::Limit, Class::Clock, Class::Garbled] {
        assert_eq!(run(class, &limits, hour).0, limits.few, "{class:?}");
    }
    for class in [Class::Denied, Class::BadCredentials] {
        let (count, time) = run(class, &limits, hour);
        assert!(count > 2 && time >= limits.patience, "{class:?}: {count} in {time:?}");
        assert!(time <= limits.patience + limits.longest_wait, "{class:?}: {time:?}");
    }
    for class in [Class::Transient, Class::NoCredentials, Class::KeyNotReady] {
        let (count, time) = run(class, &limits, hour);
        assert!(count > 100 && time <= hour && time >= hour - limits.longest_wait, "{class:?}: {count} in {time:?}");
    }
}

#[test]
fn waits_are_random_and_bounded() {
    let limits = Limits::default();
    let wait = |tries| limits.wait(&Failure::new(Class::Transient, "test"), tries, Duration::ZERO).unwrap();
    for tries in 1..200 {
        assert!(wait(tries) <= limits.longest_wait.min(limits.first_wait * 2u32.saturating_pow(tries - 1)));
    }
    let waits: std::collections::BTreeSet<_> = (0..20).map(|_| wait(50)).collect();
    assert!(waits.len() > 10, "{waits:?}");
}

#[test]
fn a_throttled_call_waits_at_least_half_of_a_lower_bound() {
    let limits = Limits::default();
    for code in ["ThrottlingException", "TooManyRequestsException", "SlowDown"] {
        let mut failure = Failure::new(Class::Transient, "test");
        failure.code = Some(code.into());
        for tries in 1..200 {
            let bound = (limits.first_throttled_wait * 2u32.pow(tries.min(20) - 1)).min(limits.longest_throttled_wait);
            let wait = limits.wait(&failure, tries, Duration::ZERO).unwrap();
            assert!(bound / 2 <= wait && wait <= bound, "{code}, {tries}: {wait:?}");
        }
    }
}

#[test]
fn the_last_reason_survives_an_attempt_that_the_deadline_cuts_short() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let mut first = true;
    let (failure, tries) = runtime
        .block_on(async {
            let end = Instant::now() + Duration::from_secs(60);
            retry::<(), _>(&Limits::default(), end, Operation::Decrypt, || {
                let answers = std::mem::take(&mut first);
                async move {
                    if !answers {
                        sleep(Duration::from_secs(3600)).await;
                    }
                    Err(Failure::new(Class::Transient, "throttled"))
                }
            })
            .await
        })
        .unwrap_err();
    assert_eq!((failure.to_string().as_str(), tries.count), ("throttled", 1));
}
