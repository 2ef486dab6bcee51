//! The key services as the commands use them: called only if a key is needed, and as early as possible.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::pin::pin;

use futures_util::future::{Either, FutureExt as _, join_all, select};
use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::error::CommandError;
use crate::apply::needs_key;
use crate::config::{self, Config};
use crate::disk::{DeviceFacts, Inventory};
use crate::key::{DataKey, KeySource, Provider};
use crate::kms::{AwsKms, ExecProvider, GeneratedKey, KeyService, KmsError, Options, RewrappedKey, Usage};
use crate::plan::Plan;
use crate::state::closed::Closed;
use crate::state::{Phase, State, VolumeRecord};

/// Returns the volumes that the plan will most likely open: known ones that are attached and not open, and that nobody closed.
pub(super) fn likely_opened<'a>(
    state: &'a State,
    seen: Option<&Inventory>,
    closed: &[Closed],
) -> Vec<&'a VolumeRecord> {
    let devices = seen.map(|seen| seen.devices.as_slice()).unwrap_or_default();
    let waits = |facts: &DeviceFacts, luks_uuid| {
        facts.mapping_of(luks_uuid).is_none() && !closed.iter().any(|closed| closed.is(luks_uuid, facts))
    };
    let volumes = state.volumes.iter().filter(|volume| volume.phase == Phase::Committed);
    volumes.filter(|v| devices.iter().any(|facts| v.is_for(facts) && waits(facts, v.luks_uuid))).collect()
}

/// AWS KMS and the customer's own program. Each is set up when the first key is needed from it, so a run that needs none calls nothing.
#[derive(Debug)]
pub(super) struct LazyKms<'a> {
    config: &'a Config,
    kms: OnceCell<AwsKms>,
    exec: std::cell::OnceCell<ExecProvider>,
    /// When the first key was needed from KMS. The deadline counts from here, however often connecting fails.
    since: Cell<Option<Instant>>,
    /// Keys that were unwrapped before they were asked for.
    ahead: RefCell<Vec<(KeySource, Result<DataKey, KmsError>)>>,
}

impl<'a> LazyKms<'a> {
    pub(super) fn new(config: &'a Config) -> Self {
        Self {
            config,
            kms: OnceCell::new(),
            exec: std::cell::OnceCell::new(),
            since: Cell::new(None),
            ahead: RefCell::default(),
        }
    }

    /// Awaits a plan, and at the same time finds the volumes that it will `likely` open and unwraps their keys.
    ///
    /// The two take about equally long. If the plan needs no key after all, it does not wait for KMS.
    pub(super) async fn meanwhile(
        &self,
        state: &State,
        likely: impl Future<Output = Vec<&VolumeRecord>>,
        plan: impl Future<Output = Result<Plan, CommandError>>,
    ) -> Result<Plan, CommandError> {
        let unwrapped = async {
            let ids: BTreeSet<u32> = likely.await.iter().map(|volume| volume.key).collect();
            let records = ids.iter().filter_map(|id| state.key_to_unwrap(*id));
            join_all(records.map(async |record| {
                let source = record.source();
                let result = self.unwrap(&source).boxed_local().await;
                self.ahead.borrow_mut().push((source, result));
            }))
            .await
        };
        match select(pin!(plan), pin!(unwrapped)).await {
            Either::Left((plan, unwrapped)) => {
                let plan = plan?;
                if needs_key(&plan, state) {
                    unwrapped.await;
                }
                Ok(plan)
            }
            Either::Right((_, plan)) => plan.await,
        }
    }

    pub(super) async fn get(&self) -> Result<&AwsKms, KmsError> {
        let since = self.since.get().unwrap_or_else(Instant::now);
        self.since.set(Some(since));
        let left = self.config.kms.deadline.saturating_sub(since.elapsed());
        let config = config::Kms { deadline: left, ..self.config.kms.clone() };
        let options = Options { imds: self.config.imds, ..Options::default() };
        self.kms.get_or_try_init(|| AwsKms::connect_with(&config, options)).await
    }

    /// Returns the customer's own program.
    pub(super) fn exec(&self) -> Result<&ExecProvider, KmsError> {
        match self.exec.get() {
            Some(exec) => Ok(exec),
            None => {
                let exec = ExecProvider::new(self.config.exec.as_ref())?;
                Ok(self.exec.get_or_init(|| exec))
            }
        }
    }

    pub(super) fn usage(&self) -> Option<Usage> {
        let all = [self.kms.get().map(AwsKms::usage), self.exec.get().map(ExecProvider::usage)];
        all.into_iter().flatten().reduce(Usage::and)
    }
}

impl KeyService for LazyKms<'_> {
    async fn generate(&self) -> Result<GeneratedKey, KmsError> {
        match self.config.keys.provider {
            Provider::AwsKms => self.get().await?.generate().await,
            Provider::Exec => self.exec()?.generate().await,
        }
    }

    async fn unwrap(&self, source: &KeySource) -> Result<DataKey, KmsError> {
        let ahead = self.ahead.borrow().iter().position(|(known, _)| known == source);
        if let Some(ahead) = ahead {
            return self.ahead.borrow_mut().swap_remove(ahead).1;
        }
        match source.provider {
            Provider::AwsKms => self.get().await?.unwrap(source).await,
            Provider::Exec => self.exec()?.unwrap(source).await,
        }
    }

    async fn rewrap(&self, source: &KeySource, to: &str) -> Result<RewrappedKey, KmsError> {
        match source.provider {
            Provider::AwsKms => self.get().await?.rewrap(source, to).await,
            Provider::Exec => self.exec()?.rewrap(source, to).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::disk::Holder;

    #[tokio::test]
    async fn a_plan_that_needs_no_key_does_not_wait_for_kms() {
        // it takes connections and never answers
        let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let state = State::sample();
        let config = format!(
            "[kms]\nkey_id = \"{}\"\nendpoint_url = \"http://{}\"\ndeadline = \"1h\"",
            state.keys[0].key_arn,
            deaf.local_addr().unwrap()
        );
        let config = Config::from_text(std::path::Path::new("c.toml"), &config).unwrap();
        let keys = LazyKms::new(&config);
        let planned = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Ok(Plan::default())
        };
        let likely = std::future::ready(vec![&state.volumes[0]]);
        let plan = tokio::time::timeout(Duration::from_secs(60), keys.meanwhile(&state, likely, planned)).await;
        assert!(plan.expect("it waits for KMS").unwrap().steps.is_empty());
        assert!(keys.since.get().is_some(), "KMS was not asked meanwhile");
    }

    #[test]
    fn a_volume_that_is_there_and_not_open_is_likely_to_be_opened() {
        let state = State::sample();
        let volume = &state.volumes[0];
        let closed = DeviceFacts { serial: volume.serial.clone(), ..DeviceFacts::sample("nvme7n1", 7) };
        let mapper = crate::luks2::mapper_name(volume.luks_uuid);
        let mapping = Holder {
            name: "dm-0".to_owned(),
            dm_uuid: Some(format!("CRYPT-LUKS2-{}-{mapper}", volume.luks_uuid.simple())),
            dm_name: Some(mapper),
            size: 1 << 30,
            mounts: Vec::new(),
            held: false,
        };
        let open = DeviceFacts { holders: vec![mapping], ..closed.clone() };
        let other = DeviceFacts::sample("nvme8n1", 8);
        let seen = |devices: &[&DeviceFacts]| Inventory {
            devices: devices.iter().copied().cloned().collect(),
            boot_unresolved: None,
            state_in_memory: None,
            instance_id: None,
            missing_ciphers: Vec::new(),
            with_system_mount: Vec::new(),
            unreadable: Vec::new(),
        };
        assert_eq!(likely_opened(&state, Some(&seen(&[&other, &closed])), &[]), [volume]);
        let on_purpose = [Closed::new(volume.luks_uuid, &closed)];
        assert!(likely_opened(&state, Some(&seen(&[&closed])), &on_purpose).is_empty());
        let mut unfinished = state.clone();
        unfinished.volumes[0].phase = Phase::Intent;
        for (state, seen) in [
            (&state, Some(seen(&[&other, &open]))),
            (&state, Some(seen(&[&other]))),
            (&state, None),
            (&unfinished, Some(seen(&[&closed]))),
        ] {
            assert!(likely_opened(state, seen.as_ref(), &[]).is_empty(), "{seen:?}");
        }
    }
}
