//! Takes over volumes that the state file does not list.

use futures_util::future::join_all;
use jiff::Timestamp;

use super::context::Apply;
use super::keys::Keys;
use super::outcome::{KeyError, StepResult, failure};
use crate::disk::Inventory;
use crate::error::chain;
use crate::job::{self, Answer, Host, Job, Target};
use crate::key::{KeySource, Passphrase};
use crate::kms::KeyService;
use crate::luks2::{Expected, HeaderPolicy};
use crate::plan::{AdoptAs, Adoption, Finding, Proven, adopted};
use crate::state::State;

/// What became of volumes to adopt.
#[derive(Debug)]
pub struct AdoptOutcome {
    /// The state file, with the volumes that were adopted.
    pub state: State,
    /// One for each volume, in their order. One that was adopted is open and may not be mounted yet.
    pub results: Vec<Result<Proven, StepResult>>,
    /// Why they were not recorded.
    pub refusal: Option<Finding>,
    /// Why there was no key, if there was none.
    pub key_error: Option<KeyError>,
}

impl<K: KeyService, H: Host> Apply<'_, K, H> {
    /// Unwraps the key of each volume, has workers prove it and open the volumes, and records them in one durable write.
    ///
    /// A crash before that write leaves at most an open volume that the state file does not list, which can be adopted all the same.
    pub async fn adopt(
        &self,
        adoptions: &[Adoption],
        inventory: &Inventory,
        state: State,
        how: AdoptAs<'_>,
    ) -> AdoptOutcome {
        let mut sources: Vec<KeySource> = Vec::new();
        for source in adoptions.iter().map(|adoption| adoption.token.source()) {
            if !sources.contains(&source) {
                sources.push(source);
            }
        }
        let mut keys = Keys::default();
        // all at once, so that the run waits only once for a service that does not answer
        let unwrapped = join_all(sources.iter().map(async |source| Ok(self.keys.unwrap(source).await?.passphrase())));
        for (number, result) in (0..).zip(unwrapped.await) {
            keys.insert(number, result);
        }
        let number =
            |source: &KeySource| (0..).zip(&sources).find(|(_, known)| *known == source).map(|(number, _)| number);
        let results = adoptions.iter().map(async |adoption| {
            match number(&adoption.token.source()).and_then(|number| keys.get(number)) {
                Some(key) => self.prove_volume(adoption, key).await,
                None => Err(StepResult::NoKey),
            }
        });
        let mut results = join_all(results).await;
        let (mut state, mut refusal) = (state, None);
        let proven: Vec<Proven> = results.iter().flatten().cloned().collect();
        match adopted(self.config, &state, inventory, &proven, how, Timestamp::now()) {
            Ok(next) if next == state => {}
            Ok(next) => match self.save(&next) {
                Ok(()) => state = next,
                Err(e) => {
                    let message = format!("opened, but not recorded: {}", chain(e));
                    results.iter_mut().filter(|result| result.is_ok()).for_each(|result| {
                        *result = Err(StepResult::Failed { message: message.clone() });
                    });
                }
            },
            Err(finding) => refusal = Some(finding),
        }
        AdoptOutcome { state, results, refusal, key_error: keys.error }
    }

    async fn prove_volume(&self, adoption: &Adoption, key: &Passphrase) -> Result<Proven, StepResult> {
        let Adoption { device, luks_uuid, token, .. } = adoption;
        let expected = Expected {
            luks_uuid: *luks_uuid,
            header: HeaderPolicy::Possible,
            key: token.source(),
            other: None,
            reencrypting: false,
            volume_key: None,
        };
        let open = device.mapping_of(*luks_uuid).is_some();
        let mapper = device.mapper_of(*luks_uuid);
        let job = Job::Adopt(job::Adopt { target: Target::from(device), expected, mapper, open });
        match self.host.run(&device.name, job, &[key]).await {
            Ok(Answer::Adopted { layout, filesystem, opened }) => {
                Ok(Proven { adoption: adoption.clone(), layout, filesystem, opened })
            }
            other => Err(failure(other)),
        }
    }
}
