//! The proof that a key opens its volumes.

use super::super::error::unexpected;
use super::super::lazy_kms::LazyKms;
use super::super::node::Node;
use super::keys::check_key;
use crate::error::chain;
use crate::job::{self, Answer, Host, HostError, Job, Target};
use crate::key::{Passphrase, Provider};
use crate::kms::KeyService as _;
use crate::luks2::ProvenKeyslot;
use crate::report::{KeyFinding, Row, Verdict};
use crate::state::{KeyRecord, VolumeRecord};

/// How a command finds out whether the keys of the node open its volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::commands) enum Proof {
    /// KMS says whether it would unwrap the keys; nothing is unwrapped.
    DryRun,
    /// KMS unwraps the keys, and each is tried on its volumes.
    Trial,
}

/// A key that volumes depend on.
pub(super) struct TriedKey {
    id: u32,
    pub(super) finding: KeyFinding,
    /// The key itself, if it was unwrapped.
    passphrase: Option<Passphrase>,
}

impl Proof {
    pub(super) async fn ask(self, kms: &LazyKms<'_>, key: &KeyRecord) -> TriedKey {
        match self {
            Self::DryRun => TriedKey { id: key.id, finding: check_key(kms, key).await, passphrase: None },
            Self::Trial => unwrap(kms, key).await,
        }
    }

    /// Adds to the row of a volume, as `health` has it, whether its key opens it.
    pub(super) async fn of(
        self,
        node: Node<'_>,
        volume: &VolumeRecord,
        row: Row,
        keys: &[TriedKey],
        host: &impl Host,
    ) -> Row {
        match self {
            Self::DryRun => row,
            Self::Trial => {
                let id = node.state.key_to_unwrap(volume.key).map(|key| key.id);
                let key = keys.iter().find(|key| Some(key.id) == id).and_then(|key| key.passphrase.as_ref());
                try_key(node, volume, row, key, host).await
            }
        }
    }
}

async fn unwrap(kms: &LazyKms<'_>, key: &KeyRecord) -> TriedKey {
    let mut state = None;
    let ask = async {
        if key.provider == Provider::AwsKms {
            state = kms.get().await?.key_state(&key.key_arn).await?;
        }
        kms.unwrap(&key.source()).await
    };
    let (passphrase, error) = match ask.await {
        Ok(data_key) => (Some(data_key.passphrase()), None),
        Err(e) => (None, Some(chain(e))),
    };
    TriedKey { id: key.id, finding: KeyFinding { key_arn: key.key_arn.clone(), state, error }, passphrase }
}

async fn try_key(node: Node<'_>, volume: &VolumeRecord, row: Row, key: Option<&Passphrase>, host: &impl Host) -> Row {
    let open = node.inventory.open_on(volume.luks_uuid);
    let disk = open.or_else(|| node.disk_of(volume));
    let (Some(facts), Some(expected)) = (disk, node.state.expected(volume.luks_uuid)) else { return row };
    let Some(key) = key else {
        return if row.result == Verdict::Wrong { row } else { because(row, Verdict::NoKey, "not tried: no key") };
    };
    let job = Job::Verify(job::Verify { target: Target::from(facts), expected });
    match host.run(&facts.name, job, &[key]).await {
        Ok(Answer::Verified { keyslot }) => proven(volume, row, &keyslot),
        // what `health` found names the cause
        Ok(Answer::Failed { message }) if row.result != Verdict::Wrong => because(row, Verdict::Wrong, message),
        Ok(Answer::Failed { .. }) => row,
        Ok(other) => because(row, Verdict::Failed, unexpected(&other)),
        Err(e @ HostError::Hung { .. }) => because(row, Verdict::Hung, chain(e)),
        Err(e) => because(row, Verdict::Failed, chain(e)),
    }
}

/// Returns the row of a volume whose key opens a keyslot.
fn proven(volume: &VolumeRecord, row: Row, keyslot: &ProvenKeyslot) -> Row {
    match &volume.keyslot {
        Some(recorded) if recorded != keyslot && !volume.is_reencrypting() => {
            let why = match recorded.number == keyslot.number {
                true => format!("its data key opens keyslot {}, which is not as recorded", keyslot.number),
                false => format!(
                    "its data key opens keyslot {}, but the state file records keyslot {}",
                    keyslot.number, recorded.number
                ),
            };
            because(row, Verdict::Unsound, why)
                .with_remedy("find out who changed its keyslots; 'luks-agent close', then 'unlock' record the new one")
        }
        // a volume that somebody closed comes back at the next boot
        _ if row.result == Verdict::Locked => because(row, Verdict::Sound, "it is not open; its data key opens it"),
        _ => row,
    }
}

fn because(row: Row, result: Verdict, why: impl Into<String>) -> Row {
    Row { result, remedy: None, ..row }.because(why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Subject;
    use crate::state::State;

    #[test]
    fn a_keyslot_is_compared_with_the_recorded_one_and_a_closed_volume_comes_back() {
        let volume = State::sample().volumes.remove(0);
        let recorded = volume.keyslot.clone().unwrap();
        let row = |result| Row::new(&Subject::absent(&volume), result);
        let result = |found, keyslot: &ProvenKeyslot| proven(&volume, row(found), keyslot).result;
        let changed = ProvenKeyslot { sha256: "0".repeat(64), ..recorded.clone() };
        let other = ProvenKeyslot { number: 1, ..recorded.clone() };
        assert_eq!(result(Verdict::Sound, &recorded), Verdict::Sound);
        assert_eq!(result(Verdict::Locked, &recorded), Verdict::Sound);
        assert_eq!(result(Verdict::NotMounted, &recorded), Verdict::NotMounted);
        for found in [Verdict::Sound, Verdict::Wrong, Verdict::Locked] {
            assert_eq!(result(found, &changed), Verdict::Unsound);
            assert_eq!(result(found, &other), Verdict::Unsound);
        }
        let earlier = VolumeRecord { keyslot: None, ..volume.clone() };
        assert_eq!(proven(&earlier, row(Verdict::Sound), &recorded).result, Verdict::Sound);
    }
}
