//! Volumes of luks-agent that the state file does not list: whose they are, and what to do about them.

use uuid::Uuid;

use super::finding::Finding;
use super::owner::ignored_by_rule;
use crate::config::{Config, Policy};
use crate::disk::{Content, DeviceFacts, Holder, Inventory, Role, classify};
use crate::luks2::{Token, mapper_name};
use crate::state::{self, FormerVolume, State, VolumeEnd};

/// The owner of an unknown volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// There is no state file: the volume may be this node's, whichever instance its token names.
    Lost,
    /// This node's: the state file is older than the volume.
    Newer,
    /// Another node's.
    Other,
    /// No longer this node's: it was forgotten or erased.
    Former,
}

impl Whose {
    /// Whether it may be a volume that this node should have.
    pub fn may_be_missed(self) -> bool {
        match self {
            Self::Lost | Self::Newer => true,
            Self::Other | Self::Former => false,
        }
    }
}

/// A volume of luks-agent that the state file does not list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownVolume {
    /// Its LUKS UUID.
    pub luks_uuid: Uuid,
    /// Its owner.
    pub whose: Whose,
    /// The evidence, and what to do about it.
    pub finding: Finding,
}

/// Whether a worker should read the header of a disk in use: a LUKS2 volume is open on it that the state file does not
/// list, and it may be the agent's own.
pub fn wants_header(config: &Config, state: &State, facts: &DeviceFacts) -> bool {
    may_hold_ours(config, facts) && unknown_mapping(state, facts).is_some()
}

/// Whether the agent could have made a volume on the whole disk.
///
/// A disk that carries the system counts only if a volume is open on it: swap or `/usr` on a volume of the agent makes
/// its disk carry the system.
pub fn may_hold_ours(config: &Config, facts: &DeviceFacts) -> bool {
    facts.partitions.is_empty()
        && match classify(facts, &config.volumes.rules) {
            // its header says more than its role
            Role::Ebs | Role::Unclear { .. } => config.volumes.ebs == Policy::Encrypt,
            Role::InstanceStore => config.volumes.instance_store == Policy::Encrypt,
            Role::Boot { .. } => {
                !ignored_by_rule(&config.volumes.rules, facts) && facts.holders.iter().any(|h| h.luks_uuid().is_some())
            }
            Role::Ignored { .. } => false,
        }
}

/// Returns the open LUKS2 mapping on a disk that the state file does not list.
pub fn unknown_mapping<'a>(state: &State, facts: &'a DeviceFacts) -> Option<(&'a Holder, Uuid)> {
    let unknown = |holder: &'a Holder| Some((holder, holder.luks_uuid()?));
    facts.holders.iter().filter_map(unknown).find(|(_, luks_uuid)| state.volume(*luks_uuid).is_none())
}

/// Returns the unknown volume on a disk whose header was read.
pub fn unknown_volume(
    config: &Config,
    state: &State,
    inventory: &Inventory,
    facts: &DeviceFacts,
) -> Option<UnknownVolume> {
    let mapping = unknown_mapping(state, facts);
    let lost = state.keys.is_empty();
    let (luks_uuid, token) = match &facts.content {
        Some(Content::Luks2 { luks_uuid, token: Some(token) }) if state.volume(*luks_uuid).is_none() => {
            (*luks_uuid, token)
        }
        // without a readable header, the name of the mapping identifies it
        Some(Content::Unknown { reason }) if lost => {
            let (_, luks_uuid) = mapping.filter(|(holder, luks_uuid)| has_our_name(holder, *luks_uuid))?;
            let evidence = format!(
                "LUKS2 volume {luks_uuid}, open under a mapper name of luks-agent, and there is no state file; its header could not be read: {reason}"
            );
            let remedy = format!("{}{}", while_open(mapping), restore(config, facts));
            return Some(UnknownVolume { luks_uuid, whose: Whose::Lost, finding: Finding::refused(evidence, remedy) });
        }
        _ => return None,
    };
    let former = state.former_volume(luks_uuid);
    let whose = former.map_or_else(|| whose_is(state, inventory, token), |_| Whose::Former);
    // anybody who can write to the disk can set this: keep control characters off the terminal
    let key = token.key_arn.escape_debug();
    let made_on = made_on(inventory, token);
    let finding = match whose {
        Whose::Lost => Finding::refused(
            format!(
                "LUKS2 volume {luks_uuid}, which luks-agent made on {made_on}, and there is no state file; its key is wrapped by {key}"
            ),
            format!("{}{}", while_open(mapping), restore(config, facts)),
        ),
        Whose::Newer => Finding::refused(
            format!(
                "LUKS2 volume {luks_uuid}, which luks-agent made on this node and the state file does not list; its key is wrapped by {key}"
            ),
            format!(
                "it is not formatted: the state file is older than the volume; {}run 'luks-agent adopt {}', or restore a newer copy of {}",
                while_open(mapping),
                facts.name,
                state::file(&config.state.dir).display()
            ),
        ),
        Whose::Other | Whose::Former => Finding::refused(
            format!(
                "LUKS2 volume {luks_uuid}, which luks-agent made on {made_on} and this node's state file does not list; its key is wrapped by {key}"
            ),
            format!(
                "it is not formatted; 'luks-agent adopt {}' takes it over, if KMS lets this node use its key",
                facts.name
            ),
        ),
    };
    let finding = former.map_or(finding, |former| no_longer(former, facts));
    Some(UnknownVolume { luks_uuid, whose, finding })
}

fn no_longer(former: &FormerVolume, facts: &DeviceFacts) -> Finding {
    let FormerVolume { volume, end, ended, .. } = former;
    let (how, remedy) = match end {
        VolumeEnd::Forgotten => ("forgot", format!("'luks-agent adopt {}' takes it back", facts.name)),
        VolumeEnd::Erased => ("erased", "find out where this copy comes from, or who restored its header".to_owned()),
    };
    let evidence = format!("LUKS2 volume {}, which this node {how} at {ended:.0}", volume.luks_uuid);
    Finding::refused(evidence, format!("it is not formatted; {remedy}"))
}

fn whose_is(state: &State, inventory: &Inventory, token: &Token) -> Whose {
    let made_on = token.instance_id.as_deref();
    if state.keys.is_empty() {
        Whose::Lost
    } else if is_made_here(inventory, token)
        || made_on.is_none()
        || made_on == state.instance_id.as_deref()
        || state.keys.iter().any(|known| known.wrapped_key == token.wrapped_key)
    {
        Whose::Newer
    } else {
        Whose::Other
    }
}

fn is_made_here(inventory: &Inventory, token: &Token) -> bool {
    token.instance_id.is_some() && token.instance_id == inventory.instance_id
}

/// Returns the instance that a token names, for a message.
fn made_on(inventory: &Inventory, token: &Token) -> String {
    if is_made_here(inventory, token) {
        return "this instance".to_owned();
    }
    // as above: no control characters
    token.instance_id.as_deref().unwrap_or("an unknown instance").escape_debug().to_string()
}

/// Whether a mapping has the name that the agent gives to its volumes.
pub fn has_our_name(holder: &Holder, luks_uuid: Uuid) -> bool {
    holder.dm_name.as_deref() == Some(mapper_name(luks_uuid).as_str())
}

/// Returns what to do first while the volume is open.
fn while_open(mapping: Option<(&Holder, Uuid)>) -> &'static str {
    if mapping.is_some() { "back up its data now, while it is open; " } else { "" }
}

/// Returns what to do when the state file is lost.
pub(super) fn restore(config: &Config, facts: &DeviceFacts) -> String {
    format!(
        "nothing is formatted; restore {} from a backup of the boot volume, or run 'luks-agent adopt {}' ('--all' for all such volumes)",
        state::file(&config.state.dir).display(),
        facts.name
    )
}
