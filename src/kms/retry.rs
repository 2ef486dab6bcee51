//! Retries failed calls.
//!
//! The retries of the SDK are off: they know neither the deadline of the boot nor which failures of a first boot pass,
//! and do not log what the agent waits for.

#[cfg(test)]
mod tests;

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::class::Class;
use super::error::Operation;
use super::failure::{Failure, Tries};

/// Time limits of the calls to KMS; `kms.deadline` limits all of them together.
#[derive(Debug, Clone)]
pub struct Limits {
    /// For connecting.
    pub connect: Duration,
    /// For one attempt, including credentials.
    pub attempt: Duration,
    /// Upper bound of the first wait; it doubles with every wait.
    pub first_wait: Duration,
    /// The same while the KMS key is not ready.
    pub first_slow_wait: Duration,
    /// Maximum of the upper bound.
    pub longest_wait: Duration,
    /// Upper bound of the first wait after KMS throttled a call; it doubles with every wait.
    pub first_throttled_wait: Duration,
    /// Its maximum.
    pub longest_throttled_wait: Duration,
    /// How long a denied call (policy, credentials) is retried: IAM is eventually consistent, and the role may be new.
    pub patience: Duration,
    /// Number of attempts where a few are enough (clock, quota).
    pub few: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            attempt: Duration::from_secs(10),
            first_wait: Duration::from_millis(500),
            first_slow_wait: Duration::from_secs(5),
            longest_wait: Duration::from_secs(20),
            first_throttled_wait: Duration::from_secs(2),
            longest_throttled_wait: Duration::from_secs(10),
            patience: Duration::from_secs(60),
            few: 4,
        }
    }
}

impl Limits {
    /// Returns how long to wait before attempt `tries + 1`; `None` if there is none.
    ///
    /// It is a random time up to a bound that doubles ("full jitter"), so that the nodes of a cluster that boot
    /// together do not ask together. After throttling it is at least half the bound: to ask sooner takes from the quota that is
    /// exhausted. The bound stays lower then, because a quota is filled again every second and the last node should not sleep
    /// when it is free (`make storm`).
    fn wait(&self, failure: &Failure, tries: u32, since_first: Duration) -> Option<Duration> {
        let (again, first) = match failure.class {
            Class::Transient if failure.is_throttling() => {
                let bound = doubled(self.first_throttled_wait, tries).min(self.longest_throttled_wait);
                return Some(bound.mul_f64(0.5 + 0.5 * fastrand::f64()));
            }
            Class::Transient | Class::NoCredentials => (true, self.first_wait),
            Class::KeyNotReady => (true, self.first_slow_wait),
            Class::Denied | Class::BadCredentials => (since_first < self.patience, self.first_wait),
            Class::Limit | Class::Clock | Class::Garbled => (tries < self.few, self.first_wait),
            Class::NoCredentialSource
            | Class::KeyState
            | Class::Certificate
            | Class::Configuration
            | Class::WrappedKey
            | Class::Unexpected => (false, Duration::ZERO),
        };
        again.then(|| doubled(first, tries).min(self.longest_wait).mul_f64(fastrand::f64()))
    }
}

/// Doubles a time with every try but the first.
fn doubled(first: Duration, tries: u32) -> Duration {
    first.saturating_mul(2u32.saturating_pow(tries.saturating_sub(1)))
}

/// Calls `attempt` until it succeeds, fails permanently, or `deadline` is near; logs every wait with its reason.
pub(super) async fn retry<T, F>(
    limits: &Limits,
    deadline: Instant,
    operation: Operation,
    mut attempt: impl FnMut() -> F,
) -> Result<T, (Failure, Tries)>
where
    F: Future<Output = Result<T, Failure>>,
{
    let start = Instant::now();
    let mut last: Option<Failure> = None;
    let mut count = 0;
    loop {
        count += 1;
        let failure = match timeout_at(deadline, attempt()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(failure)) => failure,
            // the result of an earlier attempt says more than that this one was cut short
            Err(_) => match last.take() {
                Some(failure) => return Err((failure, tries(count - 1, start))),
                None => Failure::new(Class::Transient, format!("no response before {}", operation.deadline_key())),
            },
        };
        let left = deadline.saturating_duration_since(Instant::now());
        match limits.wait(&failure, count, start.elapsed()) {
            Some(wait) if wait < left => {
                tracing::warn!(
                    operation = operation.name(),
                    attempt = count,
                    wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
                    left_s = left.as_secs(),
                    code = failure.code.as_deref(),
                    "{operation} failed, trying again in {:.1} s, giving up in {} s: {failure}",
                    wait.as_secs_f64(),
                    left.as_secs(),
                );
                last = Some(failure);
                sleep(wait).await;
            }
            Some(_) | None => return Err((failure, tries(count, start))),
        }
    }
}

fn tries(count: u32, start: Instant) -> Tries {
    Tries { count, time: start.elapsed() }
}
