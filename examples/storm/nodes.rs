//! Nodes that boot, each with a client of its own and in virtual time: a storm takes as long as the calculation does.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use luks_agent::config;
use luks_agent::key::{KeySource, WrappedKey};
use luks_agent::kms::{AwsKms, KeyService, KmsError, Options};
use tokio::runtime::Builder;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep_until};

use super::service::{Count, KEY_ARN, OTHERS, Service};

/// The default of `kms.deadline`.
const DEADLINE: Duration = Duration::from_secs(600);

/// What nodes do when they boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Boot {
    /// `provision`: a data key, and its proof.
    First,
    /// `unlock`.
    Again,
}

impl Boot {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::First => "first boot",
            Self::Again => "reboot",
        }
    }

    /// Requests of the shared quota that a boot cannot do without.
    fn needs(self) -> f64 {
        match self {
            Self::First => 2.0,
            Self::Again => 1.0,
        }
    }
}

/// A storm.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Storm {
    pub(crate) nodes: u32,
    pub(crate) boot: Boot,
    /// The nodes begin at random times within this many seconds.
    pub(crate) window: f64,
    /// Requests a second of the quota that `Decrypt` and `GenerateDataKey` share.
    pub(crate) quota: u32,
}

/// What a storm did.
#[derive(Debug, Clone)]
pub(crate) struct Figures {
    pub(crate) storm: Storm,
    /// When each node was open, in seconds, sorted. A node that gave up is not among them.
    pub(crate) open: Vec<f64>,
    /// How long each node that was open at last waited for KMS, in seconds, sorted.
    pub(crate) waited: Vec<f64>,
    /// Requests of the agents, in both quotas.
    pub(crate) agents: Count,
    /// Requests of others in the shared quota, until the last health check.
    pub(crate) others: Count,
    /// The same in the quota of `DescribeKey`.
    pub(crate) others_describing: Count,
}

impl Figures {
    /// Returns the time that the storm takes at least, in seconds: the nodes come when they come, and the others leave this much of the
    /// quota.
    pub(crate) fn bound(&self) -> f64 {
        let left = f64::from(self.storm.quota) * (1.0 - OTHERS);
        (f64::from(self.storm.nodes) * self.storm.boot.needs() / left).max(self.storm.window)
    }

    /// Returns when the last node was open; infinity if one gave up.
    pub(crate) fn time(&self) -> f64 {
        let all = self.open.len() == self.storm.nodes as usize;
        self.open.last().copied().filter(|_| all).unwrap_or(f64::INFINITY)
    }

    /// Returns that time in parts of the lower bound.
    pub(crate) fn ratio(&self) -> f64 {
        self.time() / self.bound()
    }

    pub(crate) fn calls_per_node(&self) -> f64 {
        self.agents.all as f64 / f64::from(self.storm.nodes)
    }

    /// Returns how long half of the nodes waited for KMS at most.
    pub(crate) fn median_wait(&self) -> f64 {
        self.waited.get(self.waited.len() / 2).copied().unwrap_or(f64::INFINITY)
    }

    /// Returns the part of the nodes that is open at a time.
    pub(crate) fn open_at(&self, time: f64) -> f64 {
        self.open.partition_point(|open| *open <= time) as f64 / f64::from(self.storm.nodes)
    }
}

/// Runs a storm.
pub(crate) fn run(storm: Storm, service: fn(u32) -> Service, seed: u64) -> Figures {
    fastrand::seed(seed);
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let nodes = LocalSet::new();
    nodes.block_on(&runtime, async {
        let began = Instant::now();
        let service = service(storm.quota);
        let client = service.client();
        let times = Rc::new(RefCell::new(Vec::new()));
        let mut begin: Vec<f64> = (0..storm.nodes).map(|_| storm.window * fastrand::f64()).collect();
        begin.sort_by(f64::total_cmp);
        let mut running = Vec::new();
        for at in begin {
            sleep_until(began + Duration::from_secs_f64(at)).await;
            let (client, times) = (client.clone(), times.clone());
            running.push(nodes.spawn_local(async move {
                let since = Instant::now();
                if Box::pin(boot(client.clone(), storm.boot)).await.is_ok() {
                    times.borrow_mut().push((began.elapsed().as_secs_f64(), since.elapsed().as_secs_f64()));
                    Box::pin(check_health(client)).await.ok();
                }
            }));
        }
        for node in running {
            node.await.unwrap();
        }
        let (describe, symmetric) = service.quotas();
        let (mut open, mut waited): (Vec<f64>, Vec<f64>) = times.borrow().iter().copied().unzip();
        open.sort_by(f64::total_cmp);
        waited.sort_by(f64::total_cmp);
        let agents = Count {
            all: describe.agents.all + symmetric.agents.all,
            throttled: describe.agents.throttled + symmetric.agents.throttled,
        };
        Figures { storm, open, waited, agents, others: symmetric.others, others_describing: describe.others }
    })
}

async fn boot(http: SharedHttpClient, boot: Boot) -> Result<(), KmsError> {
    let kms = connect(http).await?;
    let source = match boot {
        Boot::First => kms.generate().await?.source(),
        Boot::Again => source(),
    };
    kms.unwrap(&source).await.map(|_| ())
}

/// The daemon does this as soon as the volumes are open.
async fn check_health(http: SharedHttpClient) -> Result<(), KmsError> {
    let (kms, source) = (connect(http).await?, source());
    kms.key_state(&source.key_arn).await?;
    kms.try_unwrap(&source.wrapped_key, &source.key_arn).await
}

fn source() -> KeySource {
    KeySource::aws_kms(WrappedKey::new(vec![9; 184]).unwrap(), KEY_ARN)
}

/// Every command of the agent connects anew.
async fn connect(http: SharedHttpClient) -> Result<AwsKms, KmsError> {
    let config = config::Kms {
        fips: None,
        dual_stack: None,
        key_id: Some(KEY_ARN.to_owned()),
        region: None,
        endpoint_url: Some("https://kms.test".to_owned()),
        allow_http: false,
        deadline: DEADLINE,
    };
    let credentials = Credentials::new("AKIDTEST", "secret", None, None, "test");
    let options = Options { credentials: Some(SharedCredentialsProvider::new(credentials)), ..Options::default() };
    AwsKms::connect_over(http, &config, options).await
}
