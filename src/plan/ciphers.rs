//! The ciphers that a plan needs, and what happens to a volume whose cipher the kernel lacks.

use std::collections::BTreeSet;

use super::action::{Action, Step, Unlock};
use super::finding::{Finding, Severity};
use super::model::Plan;
use crate::config::Config;
use crate::disk::Inventory;
use crate::job::Basis;
use crate::luks2::Encryption;
use crate::state::State;

/// Returns the encryption of all volumes that a plan makes or opens. A volume that is open already has its cipher.
pub fn needed_ciphers(config: &Config, state: &State, plan: &Plan) -> BTreeSet<Encryption> {
    let needed = |step: &Step| match &step.action {
        Action::Unlock(Unlock { luks_uuid, is_open: false, .. }) => {
            state.volume(*luks_uuid).map(|volume| volume.header.encryption())
        }
        Action::Format(format) => Some(of_new(config, state, &format.basis)),
        Action::Unlock(_) | Action::Grow(_) | Action::Rekey(_) => None,
    };
    plan.steps.iter().filter_map(needed).collect()
}

/// Returns the configured encryption of new volumes.
pub fn configured_encryption(config: &Config) -> Encryption {
    Encryption { cipher: config.luks.cipher, key_size: config.luks.key_size }
}

/// Returns the encryption of a volume to be formatted: as it was started, or as configured.
pub(super) fn of_new(config: &Config, state: &State, basis: &Basis) -> Encryption {
    let configured = configured_encryption(config);
    match basis {
        Basis::Unfinished { luks_uuid } => {
            state.volume(*luks_uuid).map_or(configured, |volume| volume.header.encryption())
        }
        Basis::Blank { .. } | Basis::Noise { .. } | Basis::Wipe { .. } => configured,
    }
}

/// Returns why a volume with this encryption can be neither made nor opened, if the kernel lacks its cipher.
pub(super) fn missing(inventory: &Inventory, encryption: Encryption, severity: Severity) -> Option<Finding> {
    let missing = inventory.missing_ciphers.iter().find(|missing| missing.encryption == encryption)?;
    let evidence = format!("this kernel cannot encrypt with {encryption}: {}", missing.reason);
    Some(Finding { severity, evidence, remedy: missing.remedy() })
}
