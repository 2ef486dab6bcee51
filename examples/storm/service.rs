//! KMS with its request quotas, in place of the network: whatever asks it is the agent's own client.
//!
//! A quota is a token bucket that holds the requests of one second. Others use it, too, at a constant rate.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_types::body::SdkBody;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

/// The part of each quota that others use.
pub(crate) const OTHERS: f64 = 0.5;
/// Shortest and longest time that a request takes, in milliseconds.
const LATENCY_MS: std::ops::RangeInclusive<u64> = 5..=25;

/// The key of all nodes.
pub(crate) const KEY_ARN: &str = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

/// Requests, and how many of them were throttled.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Count {
    pub(crate) all: u64,
    pub(crate) throttled: u64,
}

impl Count {
    pub(crate) fn share(self) -> f64 {
        if self.all == 0 { 0.0 } else { self.throttled as f64 / self.all as f64 }
    }

    fn note(&mut self, served: bool) {
        self.all += 1;
        self.throttled += u64::from(!served);
    }
}

/// A request quota.
#[derive(Debug, Clone)]
pub(crate) struct Quota {
    /// Requests a second.
    rate: f64,
    tokens: f64,
    /// Seconds since the storm began, at which `tokens` was right.
    at: f64,
    next_of_others: f64,
    /// Requests of agents that came and are not decided yet: nanoseconds since the storm began, and a number.
    came: BTreeSet<Ticket>,
    /// Whether a request was served.
    decided: BTreeMap<Ticket, bool>,
    pub(crate) agents: Count,
    pub(crate) others: Count,
}

type Ticket = (u128, u64);

impl Quota {
    fn new(rate: u32) -> Self {
        let rate = f64::from(rate);
        let (agents, others) = (Count::default(), Count::default());
        let (came, decided) = (BTreeSet::new(), BTreeMap::new());
        Self { rate, tokens: rate, at: 0.0, next_of_others: 0.0, came, decided, agents, others }
    }

    fn take(&mut self, at: f64) -> bool {
        self.tokens = (self.tokens + (at - self.at) * self.rate).min(self.rate);
        self.at = at;
        let served = self.tokens >= 1.0;
        self.tokens -= if served { 1.0 } else { 0.0 };
        served
    }

    /// Makes the requests of the others until now.
    fn let_others_ask(&mut self, now: f64) {
        while self.next_of_others <= now {
            let served = self.take(self.next_of_others);
            self.others.note(served);
            self.next_of_others += 1.0 / (OTHERS * self.rate);
        }
    }

    /// Notes a request. Timers have a resolution of a millisecond, and it comes at a random time within it: all at its end would come
    /// when the others have just taken what they need.
    fn register(&mut self, now: Duration) -> Ticket {
        let ticket = (now.as_nanos() + u128::from(fastrand::u32(0..1_000_000)), fastrand::u64(..));
        self.came.insert(ticket);
        ticket
    }

    /// Decides a request, and all that came before it.
    fn decide(&mut self, ticket: Ticket) -> bool {
        while let Some(first) = self.came.first().copied().filter(|first| *first <= ticket) {
            self.came.remove(&first);
            let at = first.0 as f64 / 1e9;
            self.let_others_ask(at);
            let served = self.take(at);
            self.agents.note(served);
            self.decided.insert(first, served);
        }
        self.decided.remove(&ticket).unwrap()
    }
}

#[derive(Debug)]
struct State {
    describe: Quota,
    symmetric: Quota,
}

/// The simulated KMS.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    state: Arc<Mutex<State>>,
    began: Instant,
}

impl Service {
    /// `symmetric` is the quota that `Decrypt`, `GenerateDataKey` and others share; `DescribeKey` has its own.
    pub(crate) fn new(symmetric: u32, describe: u32) -> Self {
        let state = State { describe: Quota::new(describe), symmetric: Quota::new(symmetric) };
        Self { state: Arc::new(Mutex::new(state)), began: Instant::now() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the quota of `DescribeKey` and the shared one, as they are now.
    pub(crate) fn quotas(&self) -> (Quota, Quota) {
        let now = self.began.elapsed().as_secs_f64();
        let mut state = self.state();
        state.describe.let_others_ask(now);
        state.symmetric.let_others_ask(now);
        (state.describe.clone(), state.symmetric.clone())
    }

    pub(crate) fn client(&self) -> SharedHttpClient {
        let connection = SharedHttpConnector::new(self.clone());
        http_client_fn(move |_, _| connection.clone())
    }

    async fn is_served(&self, operation: &str) -> bool {
        let now = self.began.elapsed();
        let ticket = self.state().quota(operation).register(now);
        sleep(Duration::from_millis(fastrand::u64(LATENCY_MS))).await;
        self.state().quota(operation).decide(ticket)
    }
}

impl State {
    fn quota(&mut self, operation: &str) -> &mut Quota {
        if operation == "DescribeKey" { &mut self.describe } else { &mut self.symmetric }
    }
}

fn answer(operation: &str, is_dry_run: bool) -> (u16, Value) {
    let (plaintext, wrapped_key) = (STANDARD.encode([7; 32]), STANDARD.encode([9; 184]));
    match operation {
        _ if is_dry_run => error("DryRunOperationException", "The request would have succeeded"),
        "GenerateDataKey" => (200, json!({"KeyId": KEY_ARN, "Plaintext": plaintext, "CiphertextBlob": wrapped_key})),
        "Decrypt" => (200, json!({"KeyId": KEY_ARN, "Plaintext": plaintext})),
        "DescribeKey" => (
            200,
            json!({"KeyMetadata": {
                "KeyId": KEY_ARN, "Arn": KEY_ARN, "KeyManager": "CUSTOMER", "KeyState": "Enabled",
                "KeySpec": "SYMMETRIC_DEFAULT", "KeyUsage": "ENCRYPT_DECRYPT",
            }}),
        ),
        other => panic!("the agent sent {other}"),
    }
}

fn error(code: &str, message: &str) -> (u16, Value) {
    (400, json!({"__type": code, "message": message}))
}

impl HttpConnector for Service {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let service = self.clone();
        HttpConnectorFuture::new(async move {
            let target = request.headers().get("x-amz-target").unwrap();
            let operation = target.rsplit('.').next().unwrap();
            let body: Value = serde_json::from_slice(request.body().bytes().unwrap()).unwrap();
            let (status, answer) = match service.is_served(operation).await {
                true => answer(operation, body["DryRun"] == true),
                false => error("ThrottlingException", "Rate exceeded"),
            };
            Ok(HttpResponse::new(status.try_into().unwrap(), SdkBody::from(answer.to_string())))
        })
    }
}
