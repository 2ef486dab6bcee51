//! What a plan asks of the kernel's ciphers, and what becomes of a volume whose cipher the kernel lacks.

use std::collections::BTreeSet;

use super::finding::{Finding, Severity};
use super::model::{Action, Plan, Step};
use crate::config::Config;
use crate::disk::Inventory;
use crate::job::Basis;
use crate::luks2::Encryption;
use crate::state::State;

/// How the volumes are encrypted that a plan makes or opens. One that is open has its cipher.
pub fn needed_ciphers(config: &Config, state: &State, plan: &Plan) -> BTreeSet<Encryption> {
    let needed = |step: &Step| match &step.action {
        Action::Unlock { luks_uuid, open: false, .. } => {
            state.volume(*luks_uuid).map(|volume| volume.header.encryption())
        }
        Action::Format { basis, .. } => Some(of_new(config, state, basis)),
        Action::Unlock { open: true, .. } | Action::Grow { .. } => None,
    };
    plan.steps.iter().filter_map(needed).collect()
}

/// How a volume that is to be formatted is encrypted: as it was begun, or as is configured.
pub(super) fn of_new(config: &Config, state: &State, basis: &Basis) -> Encryption {
    let configured = Encryption { cipher: config.luks.cipher, key_size: config.luks.key_size };
    match basis {
        Basis::Unfinished { luks_uuid } => {
            state.volume(*luks_uuid).map_or(configured, |volume| volume.header.encryption())
        }
        Basis::Blank { .. } | Basis::Noise { .. } | Basis::Wipe { .. } => configured,
    }
}

/// Why a volume that is encrypted so can be neither made nor opened, and what to do about it.
pub(super) fn missing(inventory: &Inventory, encryption: Encryption, severity: Severity) -> Option<Finding> {
    let missing = inventory.missing_ciphers.iter().find(|missing| missing.encryption == encryption)?;
    let evidence = format!("this kernel cannot encrypt with {encryption}: {}", missing.reason);
    let modules = missing.modules.join(" ");
    let remedy = format!(
        "load what is missing with 'modprobe -a {modules}', or install the kernel's package that has these modules; then try again"
    );
    Some(Finding { severity, evidence, remedy })
}
