//! Whether the kernel can encrypt as the volumes need it: before the key service is asked, and before anything is written.

use std::cell::RefCell;

use crate::config::{Cipher, Config};
use crate::device::classify;
use crate::mapping::{MappingError, can_encrypt};
use crate::plan::{Action, Basis, Plan, Refusal, Step, Subject};
use crate::state::{State, VolumeRecord};
use crate::token::HeaderPolicy;
use crate::worker::chain;

/// A cipher, and the size of the volume key in bits.
type Kind = (Cipher, u32);

/// What this kernel is known to have.
#[derive(Debug, Default)]
pub(super) struct Ciphers {
    usable: RefCell<Vec<Kind>>,
}

impl Ciphers {
    /// Checks that at least one of these volumes can be opened.
    ///
    /// # Errors
    /// [`MappingError`] when none can.
    pub(super) fn need_for(&self, volumes: &[&VolumeRecord]) -> Result<(), MappingError> {
        self.need_one(volumes.iter().map(|volume| kind_of(volume)))
    }

    /// Checks that at least one step of a plan can be done, and refuses those that would make a volume which could not be opened.
    /// A known volume that cannot be opened fails on its own.
    ///
    /// # Errors
    /// [`MappingError`] when none can.
    pub(super) fn settle(&self, plan: &mut Plan, config: &Config, state: &State) -> Result<(), MappingError> {
        let new = (config.luks.cipher, config.luks.key_size);
        let recorded = |luks_uuid| state.volume(luks_uuid).map_or(new, kind_of);
        let needed = |step: &Step| match &step.action {
            Action::Unlock { luks_uuid, open: false, .. } => Some(recorded(*luks_uuid)),
            Action::Format { basis: Basis::Unfinished { luks_uuid }, .. } => Some(recorded(*luks_uuid)),
            Action::Format { .. } => Some(new),
            Action::Unlock { open: true, .. } | Action::Grow { .. } => None,
        };
        self.need_one(plan.steps.iter().filter_map(needed))?;
        for step in std::mem::take(&mut plan.steps) {
            let makes = matches!(step.action, Action::Format { .. });
            match needed(&step).filter(|_| makes).map(|kind| self.check(kind)) {
                Some(Err(e)) => plan.refusals.push(Refusal {
                    subject: Subject::of(&step.device, &classify(&step.device, &config.volumes.rules)),
                    evidence: chain(e),
                    remedy: "choose another luks.cipher, or have the kernel load this one".to_owned(),
                    known: false,
                }),
                Some(Ok(())) | None => plan.steps.push(step),
            }
        }
        Ok(())
    }

    fn need_one(&self, kinds: impl Iterator<Item = Kind>) -> Result<(), MappingError> {
        let mut kinds: Vec<Kind> = kinds.collect();
        kinds.dedup();
        let mut first = None;
        for kind in kinds {
            match self.check(kind) {
                Ok(()) => return Ok(()),
                Err(e) => _ = first.get_or_insert(e),
            }
        }
        first.map_or(Ok(()), Err)
    }

    fn check(&self, (cipher, key_size): Kind) -> Result<(), MappingError> {
        if !self.usable.borrow().contains(&(cipher, key_size)) {
            can_encrypt(cipher, key_size)?;
            self.usable.borrow_mut().push((cipher, key_size));
        }
        Ok(())
    }
}

/// What a known volume is encrypted with.
fn kind_of(volume: &VolumeRecord) -> Kind {
    match volume.header {
        HeaderPolicy::Recorded(layout) => (layout.cipher, layout.key_size),
        // by default, when that was not recorded
        HeaderPolicy::Possible => (Cipher::AesXtsPlain64, 512),
    }
}
