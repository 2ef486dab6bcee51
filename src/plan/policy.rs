//! What the configuration allows: which disks the agent may take, and what it may overwrite.

use super::mode::Mode;
use crate::config::{Config, Noise, Policy, WhenNotBlank};
use crate::disk::{Content, DeviceFacts, Role, classify};
use crate::state::{Phase, State, VolumeRecord, VolumeRole};

/// Returns the configured policy for volumes of a role.
pub fn policy(config: &Config, role: VolumeRole) -> Policy {
    match role {
        VolumeRole::Ebs => config.volumes.ebs,
        VolumeRole::InstanceStore => config.volumes.instance_store,
    }
}

/// Whether the configuration allows overwriting a disk. Never one that held a known volume, whatever is on it now.
pub(super) fn may_wipe(mode: Mode, config: &Config, state: &State, facts: &DeviceFacts, role: VolumeRole) -> bool {
    let known = |v: &VolumeRecord| v.phase == Phase::Committed && v.is_for(facts);
    role == VolumeRole::InstanceStore
        && mode == Mode::Provision
        && config.volumes.when_not_blank == WhenNotBlank::WipeInstanceStore
        && !state.volumes.iter().any(known)
}

/// Whether this content may be overwritten if the configuration allows it: nothing that is luks-agent's, and nothing
/// that could not be read.
pub(super) fn is_wipeable(content: &Content) -> bool {
    let is_data = matches!(content, Content::Noise { .. } | Content::Unrecognised { .. });
    is_data || matches!(content, Content::Foreign { .. } | Content::Luks2 { token: None, .. })
}

/// Whether noise counts as unwritten blocks: on an EBS volume that held no known volume and has a serial number, by
/// which the state file would know it again.
pub(super) fn may_take_noise(
    mode: Mode,
    config: &Config,
    state: &State,
    facts: &DeviceFacts,
    role: VolumeRole,
) -> bool {
    let known = |v: &VolumeRecord| v.phase == Phase::Committed && v.is_for(facts);
    mode == Mode::Provision
        && !state.volumes.iter().any(known)
        && role == VolumeRole::Ebs
        && facts.serial.is_some()
        && config.volumes.noise == Noise::FormatEbs
}

/// Whether a worker should open the disk to see what is on it: only if it could be a target and is free.
pub fn wants_probe(config: &Config, facts: &DeviceFacts) -> bool {
    may_be_taken(config, facts) && facts.holders.is_empty() && facts.mounts.is_empty()
}

/// Whether the configuration says to encrypt a disk if it is blank.
pub fn may_be_taken(config: &Config, facts: &DeviceFacts) -> bool {
    let policy = match classify(facts, &config.volumes.rules) {
        Role::Ebs => policy(config, VolumeRole::Ebs),
        Role::InstanceStore => policy(config, VolumeRole::InstanceStore),
        Role::Boot { .. } | Role::Unclear { .. } | Role::Ignored { .. } => Policy::Ignore,
    };
    policy == Policy::Encrypt
}
