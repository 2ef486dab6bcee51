//! Volumes to take over: which disks may be adopted, and what the state file says afterwards.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use uuid::Uuid;

use super::finding::Finding;
use super::mount_points::MountPoints;
use super::owner::Owners;
use super::policy::policy;
use super::words::{CHECK_READABLE, FINISH_ERASING, name_it, names};
use crate::config::{Config, Policy};
use crate::disk::{Content, DeviceFacts, Inventory, Role, classify};
use crate::key::KeySource;
use crate::key::Provider;
use crate::luks2::{HeaderPolicy, Layout, Opened, Token};
use crate::state::{KeyRecord, Phase, State, VolumeEnd, VolumeRecord, VolumeRole};
use crate::storage::FilesystemKind;

/// A volume that may be adopted, if its key opens it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adoption {
    /// Its disk.
    pub device: DeviceFacts,
    /// What the disk is.
    pub role: VolumeRole,
    /// Its LUKS UUID.
    pub luks_uuid: Uuid,
    /// Its token. Anybody who can write to the disk can write the token.
    pub token: Token,
}

/// Whether the volume on a disk may be adopted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Adoptable {
    /// It may.
    Yes(Box<Adoption>),
    /// The state file lists it already, on this disk.
    Known(Uuid),
    /// It may not.
    No {
        /// Why, and what to do about it.
        finding: Finding,
        /// Whether it is, or may be, a volume of luks-agent that the state file does not list.
        is_unknown: bool,
    },
}

/// How volumes are adopted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AdoptAs<'a> {
    /// Where to mount the volume; there is only one then.
    pub mount_point: Option<&'a Path>,
    /// Whether the volumes get the key of this node instead of theirs.
    pub rekey: bool,
}

/// A volume whose key opened it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// The volume.
    pub adoption: Adoption,
    /// How it was made.
    pub layout: Layout,
    /// The file system on it.
    pub filesystem: FilesystemKind,
    /// What its key opens.
    pub opened: Opened,
}

impl Proven {
    /// Whether a file system of a kind that the agent mounts is on it.
    pub fn has_filesystem(&self) -> bool {
        self.filesystem != FilesystemKind::None
    }
}

/// Decides whether the volume on a disk may be adopted. `inventory` has the headers of all disks that may hold volumes of luks-agent.
pub fn adoptable(config: &Config, state: &State, inventory: &Inventory, facts: &DeviceFacts) -> Adoptable {
    let no = |finding, is_unknown| Adoptable::No { finding, is_unknown };
    let role = match role_of_target(config, facts) {
        Ok(role) => role,
        Err(finding) => return no(finding, false),
    };
    let (luks_uuid, token) = match &facts.content {
        Some(Content::Luks2 { luks_uuid, token: Some(token) }) => (*luks_uuid, token.as_ref().clone()),
        // it may be one
        Some(content @ Content::Unknown { .. }) => {
            return no(Finding::wrong(content.to_string(), CHECK_READABLE), true);
        }
        Some(content) => return no(not_ours(&content.to_string()), false),
        None => return no(not_ours("it has no LUKS2 header"), false),
    };
    if let Some(record) = state.volume(luks_uuid) {
        return match known(inventory, record, facts) {
            None => Adoptable::Known(luks_uuid),
            Some(finding) => no(finding, false),
        };
    }
    let adoption = Adoption { device: facts.clone(), role, luks_uuid, token };
    match objection(state, inventory, &adoption) {
        None => Adoptable::Yes(Box::new(adoption)),
        Some(finding) => no(finding, true),
    }
}

fn not_ours(evidence: &str) -> Finding {
    Finding::refused(
        format!("not a volume of luks-agent: {evidence}"),
        "name the disk of a volume that luks-agent made",
    )
}

/// Returns the role of a disk that the agent may use.
pub(super) fn role_of_target(config: &Config, facts: &DeviceFacts) -> Result<VolumeRole, Finding> {
    let role = match classify(facts, &config.volumes.rules) {
        Role::Ebs => VolumeRole::Ebs,
        Role::InstanceStore => VolumeRole::InstanceStore,
        Role::Boot { because } => {
            let remedy = "the agent leaves disks of the system alone; if its volume is in use as swap or as a system directory, stop that first";
            return Err(Finding::refused(because, remedy));
        }
        Role::Unclear { because } => return Err(Finding::refused(because, name_it(facts))),
        Role::Ignored { because } => {
            let remedy = "add a [[volumes.match]] rule that gives the disk a role, or change the one that ignores it";
            return Err(Finding::refused(format!("the agent does not use this disk: {because}"), remedy));
        }
    };
    match policy(config, role) {
        Policy::Encrypt => Ok(role),
        Policy::Ignore => Err(Finding::refused(
            format!("the configuration says to ignore {role} volumes"),
            "change it, then try again",
        )),
    }
}

/// Returns why a known volume is not simply the one on this disk.
fn known(inventory: &Inventory, record: &VolumeRecord, facts: &DeviceFacts) -> Option<Finding> {
    let luks_uuid = record.luks_uuid;
    match record.phase {
        Phase::Intent => {
            let evidence = format!("the state file lists LUKS UUID {luks_uuid}, whose formatting was interrupted");
            return Some(Finding::refused(evidence, "run 'luks-agent provision', which finishes it; it holds no data"));
        }
        Phase::Erasing => {
            let evidence = format!("the state file lists LUKS UUID {luks_uuid}, whose erasing was interrupted");
            return Some(Finding::refused(evidence, FINISH_ERASING));
        }
        Phase::Committed => {}
    }
    let others = || inventory.devices.iter().filter(|other| other.name != facts.name);
    let open = others().find(|other| other.mapping_of(luks_uuid).is_some());
    if open.is_none() && (record.is_for(facts) || facts.mapping_of(luks_uuid).is_some()) {
        return None;
    }
    let on = match open {
        Some(open) => format!("{}, where it is open", open.name),
        None => {
            record.serial.as_ref().map_or_else(|| record.device.clone(), |serial| format!("serial number {serial}"))
        }
    };
    Some(Finding::refused(
        format!("it is a known volume or a copy of one: the state file lists LUKS UUID {luks_uuid}, on {on}"),
        "there is nothing to adopt; to use this copy, detach the other disk and run 'luks-agent unlock'",
    ))
}

/// Returns why a volume that the state file does not list must not be adopted.
fn objection(state: &State, inventory: &Inventory, adoption: &Adoption) -> Option<Finding> {
    let Adoption { device, luks_uuid, token, .. } = adoption;
    if let Some(on) = &inventory.state_in_memory {
        return Some(Finding::refused(
            format!("a reboot would lose its record: the state directory is on {on}"),
            "move it to the boot volume, or set state.dir to a directory there",
        ));
    }
    let has_it = |other: &&DeviceFacts| {
        let header = matches!(&other.content, Some(Content::Luks2 { luks_uuid: found, .. }) if found == luks_uuid);
        other.name != device.name && (header || other.mapping_of(*luks_uuid).is_some())
    };
    let copies: Vec<_> = inventory.devices.iter().filter(has_it).collect();
    if !copies.is_empty() {
        return Some(Finding::refused(
            format!(
                "LUKS UUID {luks_uuid} is also on {}, and the agent cannot tell which of them is the volume",
                names(copies)
            ),
            "detach all except the one to use",
        ));
    }
    if let Some(former) = state.former_volume(*luks_uuid).filter(|former| former.end == VolumeEnd::Erased) {
        return Some(Finding::refused(
            format!(
                "LUKS UUID {luks_uuid} was erased at {:.0}, so this is a copy, or its header was restored",
                former.ended
            ),
            "find out where it comes from; 'luks-agent erase --unknown' erases it again, and 'break-glass' in the README opens it",
        ));
    }
    let is_other = |v: &&VolumeRecord| v.phase != Phase::Intent && v.is_for(device);
    if let Some(other) = state.volumes.iter().find(is_other) {
        return Some(Finding::refused(
            format!(
                "the state file expects another volume on this disk, LUKS UUID {}, and found {luks_uuid}",
                other.luks_uuid
            ),
            format!(
                "check that the right disk is attached; if the other volume is gone for good, run 'luks-agent forget --even-if-attached {}'",
                other.luks_uuid
            ),
        ));
    }
    if token.provider() == Provider::AwsKms && !token.names_a_kms_key() {
        return Some(Finding::refused(
            format!("its token names '{}', which is not the ARN of a KMS key", token.key_arn.escape_debug()),
            "find out who changed its header",
        ));
    }
    None
}

/// Returns the state file with volumes whose keys opened them.
///
/// # Errors
/// If a volume cannot have its mount point, or the node has no key that it could get.
pub fn adopted(
    config: &Config,
    state: &State,
    inventory: &Inventory,
    proven: &[Proven],
    how: AdoptAs<'_>,
    now: Timestamp,
) -> Result<State, Finding> {
    let mut next = state.clone();
    let owners = Owners { state, inventory, rules: &config.volumes.rules };
    let mut points = MountPoints::new(&owners, &config.filesystem.mount_base);
    for Proven { adoption, layout, filesystem, opened } in proven {
        let Adoption { device, role, luks_uuid, token } = adoption;
        let former = state.former_volume(*luks_uuid);
        let mount_point = match filesystem {
            FilesystemKind::None => None,
            FilesystemKind::Xfs | FilesystemKind::Ext4 => {
                let wish = former.and_then(|former| former.volume.mount_point.as_deref());
                let mounted = device.mapping_of(*luks_uuid).and_then(|mapping| mapping.mounts.last());
                Some(mount_point(&mut points, how.mount_point, wish.into_iter().chain(mounted.map(PathBuf::as_path)))?)
            }
        };
        let key = key_for(config, &mut next, inventory, adoption, now);
        let record = VolumeRecord {
            luks_uuid: *luks_uuid,
            key,
            key_change: None,
            volume_key_change: None,
            serial: device.serial.clone(),
            device: device.name.clone(),
            role: *role,
            size: device.size,
            mount_point,
            filesystem: *filesystem,
            header: HeaderPolicy::Recorded(*layout),
            phase: Phase::Committed,
            keyslot: Some(opened.keyslot.clone()),
            volume_key: opened.volume_key.clone(),
            made: None,
            former_serials: Vec::new(),
        };
        debug_assert!(token.source() == next.key(key).map(KeyRecord::source).unwrap_or_else(|| token.source()));
        // what was about to be formatted there holds no data
        next.volumes.retain(|v| v.phase != Phase::Intent || v.identity() != record.identity());
        next.former.retain(|former| former.volume.luks_uuid != *luks_uuid);
        next.volumes.push(record);
    }
    if how.rekey {
        rekey(&mut next, proven)?;
    }
    Ok(next)
}

/// Has the key of this node take the place of those that the adopted volumes came with. `provision` finishes that, if need be.
fn rekey(state: &mut State, proven: &[Proven]) -> Result<(), Finding> {
    let Some(own) = state.node_key().map(|key| key.id) else {
        let remedy = "adopt it without --rekey, and run 'luks-agent rotate'";
        return Err(Finding::refused("this node has no key yet that the volume could get", remedy));
    };
    let uuids: Vec<Uuid> = proven.iter().map(|proven| proven.adoption.luks_uuid).collect();
    let volumes = state.volumes.iter().filter(|volume| uuids.contains(&volume.luks_uuid));
    let theirs: Vec<u32> = volumes.map(|volume| volume.key).filter(|key| *key != own).collect();
    state.keys.iter_mut().filter(|key| theirs.contains(&key.id)).for_each(|key| key.replaced_by = Some(own));
    Ok(())
}

/// Returns the mount point asked for, or the first of the `wishes` that is free, or the next one.
fn mount_point<'a>(
    points: &mut MountPoints<'_>,
    asked: Option<&Path>,
    wishes: impl Iterator<Item = &'a Path>,
) -> Result<PathBuf, Finding> {
    if let Some(at) = asked {
        return points.claim(at).map_err(|taken| {
            let evidence = format!(
                "mount point {} is, or would be nested with, that of another volume: {}",
                at.display(),
                taken.display()
            );
            Finding::refused(evidence, "choose another --mount-point")
        });
    }
    for wish in wishes {
        if let Ok(at) = points.claim(wish) {
            return Ok(at);
        }
    }
    let next = points.next();
    match points.nested(&next) {
        None => Ok(next),
        Some(other) => {
            let evidence = format!(
                "mount point {} would be nested with {}, that of another volume",
                next.display(),
                other.display()
            );
            Err(Finding::refused(evidence, "choose another filesystem.mount_base, or give --mount-point"))
        }
    }
}

/// Returns the ID of the key of a volume, and adds the key to the state file if it is not there.
fn key_for(config: &Config, state: &mut State, inventory: &Inventory, adoption: &Adoption, now: Timestamp) -> u32 {
    let source = adoption.token.source();
    if let Some(known) = state.keys.iter().find(|key| key.source() == source) {
        return known.id;
    }
    let former = state.former_volume(adoption.luks_uuid).map(|former| &former.key).filter(|key| key.source() == source);
    let own = is_own(config, state, inventory, &adoption.token);
    let KeySource { provider, wrapped_key, key_arn } = source.clone();
    let key = match former {
        Some(former) => former.clone(),
        None => KeyRecord {
            id: 0,
            provider,
            wrapped_key,
            configured_key_id: if own { config.keys.key_id.clone() } else { key_arn.clone() },
            key_arn,
            created: now,
            rewraps: None,
            replaced_by: None,
            adopted: true,
        },
    };
    let id = state.next_key_id();
    if own {
        state.instance_id.clone_from(&inventory.instance_id);
    }
    state.keys.push(KeyRecord { id, rewraps: None, replaced_by: None, adopted: !own, ..key });
    id
}

/// Whether a key is the one that this node lost with its state file, so that new volumes may get it.
///
/// The token alone does not prove that, because anybody who can write to the disk can write it. So it must name the configured KMS
/// key too, and a node that has a key keeps it. If the configuration names the key by an alias, the node gets a new key.
fn is_own(config: &Config, state: &State, inventory: &Inventory, token: &Token) -> bool {
    let configured = &config.keys.key_id;
    let is_configured = token.provider() == config.keys.provider
        && (token.key_arn == *configured || token.key_arn.ends_with(&format!(":key/{configured}")));
    let is_here = token.instance_id.is_some() && token.instance_id == inventory.instance_id;
    is_here && is_configured && state.node_key().is_none()
}
