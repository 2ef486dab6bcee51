//! Counts and times the calls to the key service, for reports and metrics.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::error::Operation;
use super::failure::Failure;

/// Calls, failures and times of one connection.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Calls by operation, including failed ones.
    pub calls: BTreeMap<String, u64>,
    /// Failed calls by [class](super::Class::name).
    pub errors: BTreeMap<String, u64>,
    /// Time spent waiting for credentials, in seconds.
    pub credentials_seconds: f64,
    /// Time from the first call to the last response, without that, but with the waits between attempts, in seconds.
    pub kms_seconds: f64,
}

impl Usage {
    /// Returns the usage of two connections together.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.count(&other);
        self.credentials_seconds += other.credentials_seconds;
        self.kms_seconds += other.kms_seconds;
        self
    }

    /// Adds the calls and failures of another connection.
    pub fn count(&mut self, other: &Self) {
        for (all, more) in [(&mut self.calls, &other.calls), (&mut self.errors, &other.errors)] {
            for (name, count) in more {
                *all.entry(name.clone()).or_default() += count;
            }
        }
    }
}

/// Records the usage of a connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Meter(Arc<Mutex<Noted>>);

#[derive(Debug, Default)]
struct Noted {
    usage: Usage,
    first_call: Option<Instant>,
}

impl Meter {
    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn usage(&self) -> Usage {
        self.noted().usage.clone()
    }

    /// Makes a call and records it.
    pub(super) async fn call<T>(
        &self,
        operation: Operation,
        attempt: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let first = *self.noted().first_call.get_or_insert_with(Instant::now);
        let result = attempt.await;
        let usage = &mut self.noted().usage;
        *usage.calls.entry(operation.name().to_owned()).or_default() += 1;
        if let Err(failure) = &result {
            *usage.errors.entry(failure.class.name().to_owned()).or_default() += 1;
        }
        usage.kms_seconds = (first.elapsed().as_secs_f64() - usage.credentials_seconds).max(0.0);
        result
    }
}

/// Credentials, with a record of how long they took.
#[derive(Debug)]
pub(super) struct Metered(pub(super) SharedCredentialsProvider, pub(super) Meter);

impl ProvideCredentials for Metered {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let began = Instant::now();
            let credentials = self.0.provide_credentials().await;
            self.1.noted().usage.credentials_seconds += began.elapsed().as_secs_f64();
            credentials
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::sleep;

    use super::*;
    use crate::kms::class::Class;

    #[tokio::test(start_paused = true)]
    async fn calls_failures_and_times_are_noted() {
        let meter = Meter::default();
        let slow = async {
            sleep(Duration::from_secs(3)).await;
            Err(Failure::new(Class::Transient, "busy"))
        };
        meter.call::<()>(Operation::Decrypt, slow).await.unwrap_err();
        sleep(Duration::from_secs(1)).await;
        meter.call(Operation::Decrypt, async { Ok(()) }).await.unwrap();
        let once = meter.usage();
        assert_eq!((once.calls["Decrypt"], once.errors["transient"]), (2, 1));
        assert!((once.kms_seconds - 4.0).abs() < 0.01, "{once:?}");
        let mut both = once.clone();
        both.count(&once);
        assert_eq!((both.calls["Decrypt"], both.errors["transient"]), (4, 2));
    }
}
