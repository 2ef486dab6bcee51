//! Volumes to erase: only luks-agent's own, on exactly the disk that they were made on.

use jiff::Timestamp;
use uuid::Uuid;

use super::adopt::{Adoption, role_of_target};
use super::finding::Finding;
use super::owner::Owners;
use super::words::{DETACH_ONE, in_use, names, same_serial};
use crate::config::Config;
use crate::disk::{Content, DeviceFacts, Inventory};
use crate::key::KeySource;
use crate::luks2::HeaderPolicy;
use crate::state::{KeyRecord, Phase, State, VolumeRecord};
use crate::storage::FilesystemKind;

/// A volume that may be erased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erasure {
    /// Its disk.
    pub device: DeviceFacts,
    /// Its record. A volume that the state file does not list gets one for as long as it is erased.
    pub record: VolumeRecord,
    /// Its key.
    pub key: KeyRecord,
    /// Whether the state file lists it.
    pub is_known: bool,
    /// Other disks that have its header. They are not erased.
    pub copies: Option<String>,
}

impl Erasure {
    /// Whether an interrupted run has begun to erase it.
    pub fn is_resumed(&self) -> bool {
        self.record.phase == Phase::Erasing
    }
}

/// Decides whether the volume on a disk may be erased; with `unknown`, also one that the state file does not list. `inventory` has the
/// headers of all disks that may hold volumes of luks-agent.
///
/// # Errors
/// Returns why not.
pub fn erasable(
    config: &Config,
    state: &State,
    inventory: &Inventory,
    facts: &DeviceFacts,
    unknown: bool,
    now: Timestamp,
) -> Result<Erasure, Finding> {
    let role = role_of_target(config, facts)?;
    let owners = Owners { state, inventory, rules: &config.volumes.rules };
    check_disk(&owners, facts)?;
    let erasure = |record: &VolumeRecord, key: KeyRecord, is_known: bool| {
        let copies: Vec<_> = owners.elsewhere(facts, record).collect();
        let copies = Some(names(copies)).filter(|copies| !copies.is_empty());
        Erasure { device: facts.clone(), record: record.clone(), key, is_known, copies }
    };
    let expected = owners.by_identity(facts).filter(|record| record.phase != Phase::Intent);
    let no_key = || Finding::wrong("the state file does not list its key", "restore the state file from a backup");
    match &facts.content {
        Some(Content::Luks2 { luks_uuid, token }) => {
            if let Some(known) = state.volume(*luks_uuid) {
                check_known(known, facts)?;
                return Ok(erasure(known, state.key(known.key).cloned().ok_or_else(no_key)?, true));
            }
            let found = facts.content.as_ref().map(Content::to_string).unwrap_or_default();
            if let Some(expected) = expected {
                return Err(not_expected(expected.luks_uuid, &found));
            }
            let Some(token) = token else { return Err(not_ours(&found)) };
            if !unknown {
                let evidence = format!("the state file does not list LUKS2 volume {luks_uuid} of luks-agent");
                let remedy = "with --unknown, 'luks-agent erase' erases it; 'luks-agent adopt' takes it over";
                return Err(Finding::refused(evidence, remedy));
            }
            let adoption =
                Adoption { device: facts.clone(), role, luks_uuid: *luks_uuid, token: token.as_ref().clone() };
            let (record, key) = of_unknown(state, &adoption, now);
            Ok(erasure(&record, key, false))
        }
        content => {
            let found = content.as_ref().map_or("no LUKS2 header".to_owned(), Content::to_string);
            match expected {
                // its header is gone already, or damaged; the worker makes sure that nobody uses the disk for something else
                Some(record) if record.phase == Phase::Erasing && record.size == facts.size => {
                    Ok(erasure(record, state.key(record.key).cloned().ok_or_else(no_key)?, true))
                }
                Some(record) => Err(not_expected(record.luks_uuid, &found)),
                None => Err(not_ours(&found)),
            }
        }
    }
}

/// Refuses a disk on which nothing may be erased, whatever is on it.
fn check_disk(owners: &Owners<'_>, facts: &DeviceFacts) -> Result<(), Finding> {
    if let Some(reason) = &owners.inventory.boot_unresolved {
        let remedy =
            "the agent erases nothing while any disk might be the boot disk; 'luks-agent status' shows what it found";
        return Err(Finding::refused(format!("the boot disk could not be resolved: {reason}"), remedy));
    }
    if let Some(on) = &owners.inventory.state_in_memory {
        let evidence =
            format!("a reboot would lose the record of an interrupted erasure: the state directory is on {on}");
        return Err(Finding::refused(evidence, "move it to the boot volume, or set state.dir to a directory there"));
    }
    if !facts.holders.is_empty() || !facts.mounts.is_empty() {
        let remedy = format!("run 'luks-agent close {}' first, or release it", facts.name);
        return Err(Finding::refused(format!("{}, and a volume in use is not erased", in_use(facts)), remedy));
    }
    if !facts.partitions.is_empty() {
        let evidence = format!("it has partitions: {}", facts.partitions.join(", "));
        return Err(Finding::refused(evidence, "the agent erases only volumes that it made, on whole disks"));
    }
    let twins = owners.twins(facts);
    if !twins.is_empty() {
        return Err(Finding::refused(same_serial(facts, &twins), DETACH_ONE));
    }
    Ok(())
}

fn not_ours(found: &str) -> Finding {
    Finding::refused(format!("not a volume of luks-agent: {found}"), "the agent erases only volumes that it made")
}

fn not_expected(luks_uuid: Uuid, found: &str) -> Finding {
    let evidence = format!("the state file expects LUKS UUID {luks_uuid} on this disk, but found: {found}");
    Finding::refused(evidence, "check that the right disk is attached; nothing was changed")
}

/// Refuses a disk that is not the one of the volume whose header it has.
fn check_known(known: &VolumeRecord, facts: &DeviceFacts) -> Result<(), Finding> {
    let luks_uuid = known.luks_uuid;
    if known.phase == Phase::Intent {
        let evidence = format!("the formatting of LUKS UUID {luks_uuid} was interrupted, so it holds no data");
        return Err(Finding::refused(evidence, "run 'luks-agent provision', which finishes it"));
    }
    if known.is_for(facts) && (known.serial.is_some() || known.size == facts.size) {
        return Ok(());
    }
    let disk = known.serial.as_ref().unwrap_or(&known.device);
    Err(Finding::refused(
        format!("its header is a copy: the state file lists LUKS UUID {luks_uuid} on {disk}"),
        "name the disk that the state file lists, or make this the volume's disk with 'luks-agent unlock' while the other is detached",
    ))
}

/// Returns the record and the key of a volume that the state file does not list. They are for erasing it, and never open it.
fn of_unknown(state: &State, adoption: &Adoption, now: Timestamp) -> (VolumeRecord, KeyRecord) {
    let Adoption { device, role, luks_uuid, token } = adoption;
    let source = token.source();
    let known = state.keys.iter().find(|key| key.source() == source).cloned();
    let key = known.unwrap_or_else(|| {
        let KeySource { provider, wrapped_key, key_arn } = source;
        KeyRecord {
            id: state.next_key_id(),
            provider,
            wrapped_key,
            configured_key_id: key_arn.clone(),
            key_arn,
            created: now,
            rewraps: None,
            replaced_by: None,
            adopted: true,
        }
    });
    let record = VolumeRecord {
        luks_uuid: *luks_uuid,
        key: key.id,
        key_change: None,
        volume_key_change: None,
        serial: device.serial.clone(),
        device: device.name.clone(),
        role: *role,
        size: device.size,
        mount_point: None,
        filesystem: FilesystemKind::None,
        header: HeaderPolicy::Possible,
        phase: Phase::Committed,
        keyslot: None,
        volume_key: None,
        made: None,
        former_serials: Vec::new(),
    };
    (record, key)
}
