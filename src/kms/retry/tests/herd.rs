//! A thousand nodes that boot at the same time, and a KMS that throttles: in virtual time, with the waits of the real
//! code.
#![allow(clippy::print_stdout, reason = "its figures")]

use std::cell::{Cell, RefCell};

use futures_util::future::join_all;

use super::*;

const NODES: usize = 1000;
/// Size of the token bucket: the requests of one second.
const CALLS_PER_SECOND: f64 = 100.0;
const LATENCY: Duration = Duration::from_millis(20);
/// The default of `kms.deadline`.
const DEADLINE: Duration = Duration::from_secs(600);
/// The calls of a provision.
const CALLS: [Operation; 3] = [Operation::DescribeKey, Operation::GenerateDataKey, Operation::Decrypt];

const WINDOW: Duration = Duration::from_millis(100);
/// Limit of the arrivals in a window.
///
/// After the first second all but a few nodes have been throttled, and a node waits between one and two seconds at first: within any
/// second it calls twice at most, so that at most 200 arrivals are expected in a window. A number that exceeds that by five standard
/// deviations (the root, as for any sum of rare independent events) is no coincidence.
fn expected_at_most() -> f64 {
    let expected = NODES as f64 * WINDOW.as_secs_f64() * 2.0;
    expected + 5.0 * expected.sqrt()
}

/// KMS with a request quota.
struct Service {
    tokens: Cell<f64>,
    filled: Cell<Instant>,
    arrivals: RefCell<Vec<Duration>>,
    began: Instant,
}

impl Service {
    fn new() -> Self {
        let now = Instant::now();
        Self { tokens: Cell::new(CALLS_PER_SECOND), filled: Cell::new(now), arrivals: RefCell::default(), began: now }
    }

    async fn call(&self) -> Result<(), Failure> {
        let now = Instant::now();
        self.arrivals.borrow_mut().push(now - self.began);
        let gained = (now - self.filled.replace(now)).as_secs_f64() * CALLS_PER_SECOND;
        let tokens = (self.tokens.get() + gained).min(CALLS_PER_SECOND);
        let served = tokens >= 1.0;
        self.tokens.set(if served { tokens - 1.0 } else { tokens });
        sleep(LATENCY).await;
        if served { Ok(()) } else { Err(throttled()) }
    }
}

fn throttled() -> Failure {
    let mut failure = Failure::new(Class::Transient, "throttled");
    failure.code = Some("ThrottlingException".into());
    failure
}

struct Figures {
    /// Maximum number of arrivals in any [`WINDOW`] that begins after the first second.
    peak: usize,
    requests: usize,
    /// When each node got its key; none for a node that gave up.
    done: Vec<Option<Duration>>,
}

impl Figures {
    fn without_key(&self) -> usize {
        self.done.iter().filter(|done| done.is_none()).count()
    }

    fn peak(&self) -> f64 {
        self.peak as f64
    }

    fn print(&self, what: &str) {
        let last = self.done.iter().flatten().max().map_or(0.0, Duration::as_secs_f64);
        println!(
            "{what}: {} arrivals at most within {} ms, {} requests for {} calls, last key after {last:.0} s, {} of {NODES} nodes without",
            self.peak,
            WINDOW.as_millis(),
            self.requests,
            NODES * CALLS.len(),
            self.without_key()
        );
    }
}

/// `after_refusal` runs just before a wait is chosen.
fn boot_all(after_refusal: fn()) -> Figures {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let service = &Service::new();
        let limits = &Limits::default();
        let deadline = service.began + DEADLINE;
        let node = async || {
            for call in CALLS {
                let attempt = async || service.call().await.inspect_err(|_| after_refusal());
                retry(limits, deadline, call, attempt).await.ok()?;
            }
            Some(service.began.elapsed())
        };
        let done = join_all((0..NODES).map(|_| node())).await;
        let arrivals = service.arrivals.borrow();
        let late: Vec<_> = arrivals.iter().filter(|at| **at > Duration::from_secs(1)).collect();
        // they are sorted by time
        let within = |(index, first): (usize, &&Duration)| {
            late[index..].iter().take_while(|at| ***at - **first < WINDOW).count()
        };
        let peak = late.iter().enumerate().map(within).max().unwrap_or(0);
        Figures { peak, requests: arrivals.len(), done }
    })
}

#[test]
fn a_thousand_throttled_nodes_do_not_ask_together() {
    let seed = std::env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    println!("seed {seed}");
    fastrand::seed(seed);
    let figures = boot_all(|| ());
    figures.print("full jitter");
    assert_eq!(figures.without_key(), 0);
    let bound = expected_at_most();
    assert!(figures.peak() <= bound, "{} arrivals, expected {bound:.0} at most", figures.peak);

    // the fault that this test must detect: every wait is as long as possible
    const LONGEST: fn() = || fastrand::seed(longest_wait_seed());
    let figures = boot_all(LONGEST);
    figures.print("no jitter");
    assert!(figures.peak() > 2.0 * bound, "nodes without jitter go unnoticed: {}", figures.peak);
}

/// A seed whose first random number is almost 1.
fn longest_wait_seed() -> u64 {
    static SEED: std::sync::LazyLock<u64> = std::sync::LazyLock::new(|| {
        let mut seeds = 0..u64::MAX;
        seeds.find(|seed| fastrand::Rng::with_seed(*seed).f64() > 0.999).unwrap_or_default()
    });
    *SEED
}
