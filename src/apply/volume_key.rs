//! Gives volumes new volume keys: all their data is encrypted again while they are in use.
//!
//! That takes hours, so the state directory is locked only for the records before and after it, and other commands work meanwhile.

use uuid::Uuid;

use super::context::Apply;
use super::outcome::KeyError;
use crate::job::Host;
use crate::key::Passphrase;
use crate::kms::KeyService;
use crate::luks2::{Expected, Opened, ProvenKeyslot};
use crate::state::{Phase, State, StateError, VolumeKeyChange, VolumeRecord};

/// What the re-encryption of a volume begins with.
#[derive(Debug)]
pub struct Beginning {
    /// The header that it must have.
    pub expected: Expected,
    /// The recorded keyslot, if it has begun before: that of the former volume key.
    pub former: Option<ProvenKeyslot>,
    /// The passphrase, which opens it before, meanwhile and afterwards.
    pub passphrase: Passphrase,
}

/// Why a re-encryption cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum NoBeginning {
    /// There is no key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The state file could not be written.
    #[error(transparent)]
    State(#[from] StateError),
    /// The volume does not have the data key yet that takes the place of its own.
    #[error("it does not have the new data key yet; run 'luks-agent provision', then try again")]
    Behind,
    /// The state file no longer has the volume, or no longer asks for a new volume key.
    #[error("the state file no longer says that volume {0} gets a new volume key")]
    Gone(Uuid),
}

impl<K: KeyService, H: Host> Apply<'_, K, H> {
    /// Records durably that all volumes are to get new volume keys.
    ///
    /// # Errors
    /// If the state file cannot be written.
    pub fn plan_volume_keys(&self, state: &State) -> Result<(), StateError> {
        let mut next = state.clone();
        let committed = next.volumes.iter_mut().filter(|volume| volume.phase == Phase::Committed);
        committed.for_each(|volume| {
            volume.volume_key_change.get_or_insert(VolumeKeyChange::Planned);
        });
        self.save(&next)
    }

    /// Records durably that re-encryption of a volume has begun, and returns what it takes.
    ///
    /// # Errors
    /// If there is no key or the state file cannot be written; nothing was begun then.
    pub async fn begin_volume_key(&self, luks_uuid: Uuid, state: &State) -> Result<Beginning, NoBeginning> {
        let volume = state.volume(luks_uuid).filter(|volume| volume.volume_key_change.is_some());
        let volume = volume.ok_or(NoBeginning::Gone(luks_uuid))?;
        if state.is_behind(volume) {
            return Err(NoBeginning::Behind);
        }
        let passphrase = self.unwrap(state, volume.key).await?;
        let next = with(state, luks_uuid, |volume| volume.volume_key_change = Some(VolumeKeyChange::Begun));
        self.save(&next)?;
        let expected = next.expected(luks_uuid).ok_or(NoBeginning::Gone(luks_uuid))?;
        let former = volume.keyslot.clone().filter(|_| volume.is_reencrypting());
        Ok(Beginning { expected, former, passphrase })
    }

    /// Records durably that a volume has its new volume key, which one, and the keyslot that the data key opens.
    ///
    /// # Errors
    /// If the state file cannot be written. The next run then finds that it is finished.
    pub fn end_volume_key(&self, luks_uuid: Uuid, opened: Opened, state: &State) -> Result<(), StateError> {
        self.save(&with(state, luks_uuid, |volume| {
            volume.keyslot = Some(opened.keyslot);
            volume.volume_key = opened.volume_key;
            volume.volume_key_change = None;
        }))
    }

    /// Records that a volume does not get a new volume key after all: nothing was begun.
    ///
    /// # Errors
    /// If the state file cannot be written.
    pub fn cancel_volume_key(&self, luks_uuid: Uuid, state: &State) -> Result<(), StateError> {
        self.save(&with(state, luks_uuid, |volume| volume.volume_key_change = None))
    }
}

fn with(state: &State, luks_uuid: Uuid, change: impl FnOnce(&mut VolumeRecord)) -> State {
    let mut next = state.clone();
    if let Some(volume) = next.volumes.iter_mut().find(|volume| volume.luks_uuid == luks_uuid) {
        change(volume);
    }
    next
}
