//! The planning that `plan`, `provision` and `unlock` share: survey, plan, and once more if the kernel lacks a cipher.

use futures_util::future::join;

use super::ciphers::Ciphers;
use super::error::CommandError;
use super::instance::Instance;
use super::survey::survey;
use crate::config::{Config, Policy};
use crate::disk::{Content, DeviceFacts, Inventory, Role, classify};
use crate::job::Host;
use crate::plan::{
    Mode, Plan, configured_encryption, name_it, needed_ciphers, plan, record_of, unknown_volume, wants_probe,
};
use crate::state::State;

/// What a command needs to make a plan.
#[derive(Debug)]
pub(super) struct Planning<'a, H> {
    pub(super) config: &'a Config,
    pub(super) state: &'a State,
    pub(super) ciphers: &'a Ciphers<'a, H>,
    pub(super) instance: &'a Instance<'a>,
}

impl<H: Host> Planning<'_, H> {
    /// Makes a plan: lists the disks, unless they were `seen` a moment ago, examines them and decides.
    ///
    /// Decides again if the kernel lacks a cipher that the first plan needs.
    ///
    /// # Errors
    /// When the disks cannot be listed.
    pub(super) async fn plan(&self, mode: Mode, seen: Option<Inventory>) -> Result<Plan, CommandError> {
        let Self { config, state, ciphers, instance } = *self;
        // a node without volumes will probably format with the configured cipher; it is tried while the disks are examined, and
        // `ciphers` keeps the result
        let has_candidates = seen.iter().flat_map(|seen| &seen.devices).any(|facts| wants_probe(config, facts));
        let is_first = mode == Mode::Provision && state.volumes.is_empty();
        let likely_made = (is_first && has_candidates).then(|| configured_encryption(config));
        let (surveyed, _) = join(survey(config, state, ciphers.host(), seen), ciphers.missing(likely_made)).await;
        let mut inventory = surveyed?;
        let of_ours = |facts: &DeviceFacts| matches!(&facts.content, Some(Content::Luks2 { token: Some(_), .. }));
        if state.keys.is_empty() && inventory.devices.iter().any(of_ours) {
            inventory.instance_id = instance.id().await;
        }
        self.warn_of_unclear(&inventory);
        let planned = plan(mode, config, state, &inventory);
        inventory.missing_ciphers = ciphers.missing(needed_ciphers(config, state, &planned)).await;
        Ok(if inventory.missing_ciphers.is_empty() { planned } else { plan(mode, config, state, &inventory) })
    }

    /// Logs each disk that stays unencrypted because its role is unclear. If it does not fail the run, its row is easily missed.
    fn warn_of_unclear(&self, inventory: &Inventory) {
        let Self { config, state, .. } = *self;
        for facts in &inventory.devices {
            if let Role::Unclear { because } = classify(facts, &config.volumes.rules)
                && config.volumes.ebs == Policy::Encrypt
                && record_of(state, facts).is_none()
                && unknown_volume(config, state, inventory, facts).is_none()
            {
                tracing::warn!(disk = facts.name, "{} is not encrypted: {because}; {}", facts.name, name_it(facts));
            }
        }
    }
}
