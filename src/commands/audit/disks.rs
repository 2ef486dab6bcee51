//! The disks, as an audit report has them.

use super::super::node::Node;
use super::look::Look;
use super::volume::{Examined, examine};
use crate::audit::{Disk, Found, Judgement, Stranger, judge};
use crate::config::{Config, Policy};
use crate::disk::{Content, DeviceFacts, Inventory, Role, classify};
use crate::plan::{in_use, policy, record_of};
use crate::report::proofs::Kept;
use crate::state::{Phase, VolumeRecord, VolumeRole};

impl Look<'_> {
    /// Returns a disk that is attached.
    pub(super) async fn attached(&self, facts: &DeviceFacts) -> Disk {
        let Node { config, state, inventory } = self.node;
        let role = classify(facts, &config.volumes.rules);
        let record = record_of(state, facts);
        let is_open = record.is_some_and(|record| facts.mapping_of(record.luks_uuid).is_some());
        // swap on an open volume makes its disk one that carries the system, and no rule changes what is open
        let without_volume = if is_open { None } else { excepted(config, &role, is_system(inventory, facts)) };
        let (found, volume) = match (without_volume, record) {
            (Some(found), _) => (found, None),
            (None, Some(record)) => {
                let examined = examine(self, record, facts).await;
                (Found::Volume(examined.volume.clone()), Some((record, examined)))
            }
            (None, None) => (Found::Stranger(stranger(facts, &role)), None),
        };
        let Judgement { verdict, reasons } = judge(&found);
        let all = facts.mounts.iter().chain(facts.holders.iter().flat_map(|holder| &holder.mounts));
        let mounts = all.filter(|at| !self.mounts.is_bound_onto_itself(at)).cloned().collect();
        let content = facts.content.as_ref().map_or_else(|| "not examined".to_owned(), Content::to_string);
        let disk = Disk {
            device: Some(facts.name.clone()),
            serial: facts.serial.clone(),
            volume_id: facts.serial.as_deref().and_then(volume_id),
            role_because: because(&role).cloned(),
            mounts,
            ..Disk::new(role.to_string(), facts.size, content, verdict, reasons)
        };
        match volume {
            Some((record, examined)) => self.with_volume(disk, record, examined, is_open),
            None => disk,
        }
    }

    fn with_volume(&self, disk: Disk, record: &VolumeRecord, examined: Examined, is_open: bool) -> Disk {
        let Kept { opened, proven } = self.proofs.get(&record.luks_uuid).copied().unwrap_or_default();
        let content = examined.volume.foreign.is_none().then(|| content_of(record));
        Disk {
            role: record.role.to_string(),
            content: content.unwrap_or(disk.content),
            key_arn: key_arn(self.node, record),
            formatted: record.made,
            opened: opened.filter(|_| is_open),
            proven,
            evidence: examined.evidence(),
            encryption: examined.encryption,
            ..disk
        }
    }

    /// Returns the volumes whose disks are not attached. Instance store that is gone for good is not among them, nor is a volume that was
    /// never finished: neither is anywhere.
    pub(super) fn away(&self) -> impl Iterator<Item = Disk> {
        let is_away = |volume: &&VolumeRecord| {
            volume.phase != Phase::Intent && self.node.disk_of(volume).is_none() && !self.node.is_gone_for_good(volume)
        };
        self.node.state.volumes.iter().filter(is_away).map(|volume| {
            let Judgement { verdict, reasons } = judge(&Found::Away);
            Disk {
                serial: volume.serial.clone(),
                volume_id: volume.serial.as_deref().and_then(volume_id),
                key_arn: key_arn(self.node, volume),
                formatted: volume.made,
                proven: self.proofs.get(&volume.luks_uuid).and_then(|kept| kept.proven),
                ..Disk::new(volume.role.to_string(), volume.size, content_of(volume), verdict, reasons)
            }
        })
    }
}

/// Returns what is found of a disk that the agent leaves alone.
///
/// Swap or the state directory alone make no boot volume of a disk: it has the role so that nothing formats it, and its data is in clear.
fn excepted(config: &Config, role: &Role, is_of_system: bool) -> Option<Found> {
    let ignored = |role, setting: &str| {
        let rule = format!("{setting} is \"ignore\"");
        (policy(config, role) == Policy::Ignore).then_some(Found::Excepted { rule })
    };
    match role {
        Role::Boot { because } if is_of_system => Some(Found::Boot { because: because.clone() }),
        Role::Boot { .. } => None,
        Role::Ignored { because } => Some(Found::Excepted { rule: because.clone() }),
        Role::Ebs => ignored(VolumeRole::Ebs, "volumes.ebs"),
        // it can be either
        Role::Unclear { .. } => ignored(VolumeRole::InstanceStore, "volumes.instance_store")
            .and_then(|_| ignored(VolumeRole::Ebs, "volumes.ebs")),
        Role::InstanceStore => ignored(VolumeRole::InstanceStore, "volumes.instance_store"),
    }
}

/// Whether a disk is a boot volume by a mount point of the system, or by the block device mapping of IMDS.
fn is_system(inventory: &Inventory, facts: &DeviceFacts) -> bool {
    facts.system.is_none() || inventory.with_system_mount.contains(&facts.name)
}

fn because(role: &Role) -> Option<&String> {
    match role {
        Role::Boot { because } | Role::Unclear { because } | Role::Ignored { because } => Some(because),
        Role::Ebs | Role::InstanceStore => None,
    }
}

fn stranger(facts: &DeviceFacts, role: &Role) -> Stranger {
    let is_free = facts.holders.is_empty() && facts.mounts.is_empty() && facts.system.is_none();
    // what lies on a LUKS2 volume of others is encrypted by it, as far as can be known
    let is_on_luks = facts.mounts.is_empty() && facts.holders.iter().any(|holder| holder.luks_uuid().is_some());
    // what is mounted from the disk itself is no LUKS2 volume, whatever header is left on it
    let content = facts.content.clone().filter(|_| facts.mounts.is_empty());
    Stranger {
        unclear: matches!(role, Role::Unclear { .. }).then(|| because(role).cloned()).flatten(),
        in_use: (!is_free && (!is_on_luks || content.is_some())).then(|| match &facts.system {
            Some(what) => format!("it {what}"),
            None => in_use(facts),
        }),
        content,
    }
}

fn content_of(record: &VolumeRecord) -> String {
    format!("LUKS2 volume {} of luks-agent", record.luks_uuid)
}

fn key_arn(node: Node<'_>, record: &VolumeRecord) -> Option<String> {
    node.state.key(record.key).map(|key| key.key_arn.clone())
}

/// Returns the ID of an EBS volume, which has a dash where its serial number has none.
fn volume_id(serial: &str) -> Option<String> {
    let id = serial.strip_prefix("vol")?.trim_start_matches('-');
    (id.len() >= 8 && id.bytes().all(|b| b.is_ascii_hexdigit())).then(|| format!("vol-{id}"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_volume_id_is_told_by_the_serial_number() {
        assert_eq!(volume_id("vol0123456789abcdef0").as_deref(), Some("vol-0123456789abcdef0"));
        for other in ["vol", "volume-data1", "AWS2C1436F5159EB6614", "vol0123"] {
            assert_eq!(volume_id(other), None, "{other}");
        }
    }

    #[test]
    fn a_disk_is_excepted_by_the_rule_or_setting_that_says_so() {
        let config = |text: &str| {
            let text = format!("[kms]\nkey_id = \"k\"\n[volumes]\n{text}");
            Config::from_text(Path::new("config.toml"), &text).unwrap()
        };
        let excepted = |config: &Config, role: &Role| excepted(config, role, false);
        let rule = |config: &Config, role: &Role| match excepted(config, role) {
            Some(Found::Excepted { rule }) => rule,
            other => format!("{other:?}"),
        };
        let (encrypt, ignore) = (config(""), config("ebs = \"ignore\"\ninstance_store = \"ignore\""));
        let unclear = Role::Unclear { because: "xen".to_owned() };
        for role in [&Role::Ebs, &Role::InstanceStore, &unclear] {
            assert_eq!(excepted(&encrypt, role), None);
        }
        assert_eq!(rule(&ignore, &Role::Ebs), "volumes.ebs is \"ignore\"");
        assert_eq!(rule(&ignore, &unclear), "volumes.ebs is \"ignore\"");
        assert_eq!(rule(&ignore, &Role::InstanceStore), "volumes.instance_store is \"ignore\"");
        assert_eq!(rule(&encrypt, &Role::Ignored { because: "a rule".to_owned() }), "a rule");
        for one in ["ebs = \"ignore\"", "instance_store = \"ignore\""] {
            assert_eq!(excepted(&config(one), &unclear), None, "{one}: it can be the other");
        }
    }

    #[test]
    fn only_a_mount_of_the_system_makes_a_disk_a_boot_volume() {
        let text = Config::from_text(Path::new("config.toml"), "[kms]\nkey_id = \"k\"\n").unwrap();
        let boot = |what: &str, is_of_system| {
            let facts = DeviceFacts { system: Some(what.to_owned()), ..DeviceFacts::sample("nvme1n1", 1) };
            let role = classify(&facts, &text.volumes.rules);
            match excepted(&text, &role, is_of_system) {
                Some(found) => judge(&found),
                None => judge(&Found::Stranger(stranger(&facts, &role))),
            }
        };
        assert_eq!(boot("carries / through nvme1n1p1", true).verdict, crate::audit::Standing::Excepted);
        let swap = boot("carries swap", false);
        assert_eq!(swap.verdict, crate::audit::Standing::NotEncrypted);
        assert_eq!(swap.reasons, ["not a volume of luks-agent on this node: it carries swap"]);
    }
}
