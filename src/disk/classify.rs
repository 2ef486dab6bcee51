//! Decides the role of a disk from what it carries, the configured rules and the rules of EC2.

use super::facts::{DeviceFacts, DiskKind};
use super::role::{MODEL_EBS, MODEL_INSTANCE_STORE, Role};
use super::rule::MatchRule;

fn ignored(because: impl Into<String>) -> Role {
    Role::Ignored { because: because.into() }
}

/// Decides the role of a disk.
///
/// Boot disks come first, then disks that can never be a target, then the configured rules, of which the first match wins, then the
/// EC2 rules. All other disks are ignored.
pub fn classify(facts: &DeviceFacts, rules: &[MatchRule]) -> Role {
    if let Some(because) = &facts.system {
        return Role::Boot { because: because.clone() };
    }
    let never = [
        (facts.kind == DiskKind::Loop, "loop device"),
        (facts.kind == DiskKind::Ram, "ram disk"),
        (facts.kind == DiskKind::Optical, "optical drive"),
        (facts.removable, "removable medium"),
        (facts.read_only, "read-only disk"),
        (facts.zoned, "zoned disk"),
        (facts.size == 0, "no medium"),
    ];
    if let Some((_, because)) = never.iter().find(|(is, _)| *is) {
        return ignored(*because);
    }
    if let Some(rule) = rules.iter().find(|rule| rule.matches(facts)) {
        if rule.is_the_rest() {
            return ignored("volumes.require_rule is set, and no [[volumes.match]] rule names it");
        }
        return rule.role.into();
    }
    match facts.kind {
        DiskKind::Nvme => match facts.model.as_deref() {
            Some(MODEL_EBS) => Role::Ebs,
            Some(MODEL_INSTANCE_STORE) => Role::InstanceStore,
            Some(model) => ignored(format!("model '{model}' is not an EC2 volume")),
            None => ignored("nvme disk without a model name"),
        },
        DiskKind::Xen => match facts.mapping.as_deref() {
            Some("ami" | "root") => Role::Boot { because: "is the root device in the block device mapping".to_owned() },
            Some(key) if key.starts_with("ebs") => Role::Ebs,
            Some(key) if key.starts_with("ephemeral") => Role::InstanceStore,
            Some(key) => ignored(format!("block device mapping entry '{key}'")),
            // the mapping lists only the volumes of the launch request
            None => Role::Unclear {
                because: "xen disk that the block device mapping of IMDS does not list: it may be an EBS volume that was attached later"
                    .to_owned(),
            },
        },
        DiskKind::DeviceMapper => ignored("device-mapper device"),
        DiskKind::Md => ignored("software RAID array"),
        DiskKind::Scsi | DiskKind::Virtio | DiskKind::Other => {
            ignored("not an EC2 volume, and no [[volumes.match]] rule names it")
        }
        DiskKind::Loop | DiskKind::Ram | DiskKind::Optical => ignored("not a disk"),
    }
}

/// Returns whether reports show a disk. Devices that the kernel makes from files, memory or other disks are shown only if they have a
/// role.
pub fn is_shown(kind: DiskKind, role: &Role) -> bool {
    match kind {
        DiskKind::Loop | DiskKind::Ram | DiskKind::DeviceMapper | DiskKind::Md => !matches!(role, Role::Ignored { .. }),
        DiskKind::Nvme | DiskKind::Xen | DiskKind::Scsi | DiskKind::Virtio | DiskKind::Optical | DiskKind::Other => {
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn disk(name: &str, kind: DiskKind, model: Option<&str>) -> DeviceFacts {
        DeviceFacts { kind, model: model.map(str::to_owned), ..DeviceFacts::sample(name, 3) }
    }

    fn rules(text: &str) -> Vec<MatchRule> {
        let text = format!("[kms]\nkey_id = \"k\"\n{text}");
        Config::from_text(Path::new("config.toml"), &text).unwrap().volumes.rules
    }

    fn because(role: &Role) -> &str {
        match role {
            Role::Boot { because } | Role::Unclear { because } | Role::Ignored { because } => because,
            Role::Ebs | Role::InstanceStore => "",
        }
    }

    #[test]
    fn ec2_rules() {
        let xen = |mapping: Option<&str>| {
            let disk = disk("xvdb", DiskKind::Xen, None);
            classify(&DeviceFacts { mapping: mapping.map(str::to_owned), ..disk }, &[])
        };
        let nvme = |model| classify(&disk("nvme1n1", DiskKind::Nvme, model), &[]);
        let other = |name: &str, kind| classify(&disk(name, kind, Some(MODEL_EBS)), &[]);
        for (role, expected, why) in [
            (nvme(Some("Amazon Elastic Block Store")), "ebs", ""),
            (nvme(Some("Amazon EC2 NVMe Instance Storage")), "instance-store", ""),
            (nvme(Some("Amazon Elastic Block Store 2")), "ignored", "model 'Amazon Elastic Block Store 2'"),
            (nvme(Some("amazon elastic block store")), "ignored", "is not an EC2 volume"),
            (nvme(None), "ignored", "without a model"),
            (xen(Some("ebs12")), "ebs", ""),
            (xen(Some("ephemeral0")), "instance-store", ""),
            (xen(Some("ami")), "boot", "block device mapping"),
            (xen(Some("root")), "boot", "block device mapping"),
            (xen(Some("swap")), "ignored", "'swap'"),
            (xen(None), "unclear", "does not list"),
            (other("sda", DiskKind::Scsi), "ignored", "no [[volumes.match]] rule"),
            (other("vdb", DiskKind::Virtio), "ignored", "no [[volumes.match]] rule"),
            (other("nbd0", DiskKind::Other), "ignored", "no [[volumes.match]] rule"),
            (other("dm-0", DiskKind::DeviceMapper), "ignored", "device-mapper"),
            (other("md0", DiskKind::Md), "ignored", "RAID"),
            (other("loop0", DiskKind::Loop), "ignored", "loop"),
            (other("zram0", DiskKind::Ram), "ignored", "ram disk"),
            (other("sr0", DiskKind::Optical), "ignored", "optical"),
        ] {
            assert_eq!(role.to_string(), expected, "{role:?}");
            assert!(because(&role).contains(why), "{role:?}: {why}");
        }
    }

    #[test]
    fn rules_match_path_links_serial_and_model() {
        let facts = DeviceFacts {
            serial: Some("data-7".to_owned()),
            links: vec!["/dev/disk/by-id/virtio-data-7".into(), "/dev/sdf".into()],
            ..disk("vdb", DiskKind::Virtio, Some("QEMU DISK"))
        };
        let role = |rule: &str| classify(&facts, &rules(&format!("[[volumes.match]]\n{rule}\nrole = \"ebs\"\n")));
        for (rule, hit) in [
            ("path = \"/dev/vdb\"", true),
            ("path = \"/dev/vd?\"", true),
            ("path = \"/dev/disk/by-id/virtio-data-*\"", true),
            ("path = \"/dev/sd[f-p]\"", true),
            ("path = \"/dev/{vda,vdb}\"", true),
            ("path = \"vdb\"", false),
            ("path = \"/dev/vd\"", false),
            ("path = \"/dev/vda\"", false),
            ("serial = \"data-7\"", true),
            ("serial = \"data-*\"", true),
            ("serial = \"data\"", false),
            ("model = \"QEMU*\"", true),
            ("model = \"qemu*\"", false),
            ("path = \"/dev/vdb\"\nserial = \"data-7\"\nmodel = \"QEMU DISK\"", true),
            ("path = \"/dev/vdb\"\nserial = \"data-8\"", false),
            ("path = \"/dev/vda\"\nserial = \"data-7\"", false),
        ] {
            assert_eq!(role(rule) == Role::Ebs, hit, "{rule}: {:?}", role(rule));
        }
        // an unknown property matches nothing, not even `*`
        let bare = disk("vdb", DiskKind::Virtio, None);
        assert_ne!(classify(&bare, &rules("[[volumes.match]]\nserial = \"*\"\nrole = \"ebs\"\n")), Role::Ebs);
        let xen = DeviceFacts { kind: DiskKind::Xen, ..bare.clone() };
        let ruled = |rule: &str| classify(&xen, &rules(rule)).to_string();
        assert_eq!(ruled("[[volumes.match]]\npath = \"/dev/vdb\"\nrole = \"ignore\"\n"), "ignored");
        assert_eq!(ruled("[volumes]\nrequire_rule = true\n"), "ignored");
        assert_ne!(classify(&bare, &rules("[[volumes.match]]\nmodel = \"*\"\nrole = \"ebs\"\n")), Role::Ebs);
    }

    #[test]
    fn the_first_rule_that_matches_wins_over_the_ec2_rules() {
        let rules = rules(
            "[[volumes.match]]\nserial = \"vol1\"\nrole = \"ignore\"\n\
             [[volumes.match]]\nserial = \"vol*\"\nrole = \"instance-store\"\n\
             [[volumes.match]]\npath = \"/dev/*\"\nrole = \"ebs\"\n",
        );
        let role = |name: &str, kind, serial: &str| {
            let disk = disk(name, kind, Some(MODEL_EBS));
            classify(&DeviceFacts { serial: Some(serial.to_owned()), ..disk }, &rules)
        };
        assert_eq!(role("nvme1n1", DiskKind::Nvme, "vol1").to_string(), "ignored");
        assert_eq!(role("nvme1n1", DiskKind::Nvme, "vol2"), Role::InstanceStore);
        assert_eq!(role("sda", DiskKind::Scsi, "x"), Role::Ebs);
        // only because a rule names them
        assert_eq!(role("dm-3", DiskKind::DeviceMapper, "x"), Role::Ebs);
        assert_eq!(role("md0", DiskKind::Md, "x"), Role::Ebs);
    }

    #[test]
    fn no_rule_makes_a_target_of_the_boot_disk_or_of_what_can_never_be_one() {
        let all = rules("[[volumes.match]]\npath = \"/**\"\nrole = \"ebs\"\n");
        let plain = || disk("nvme1n1", DiskKind::Nvme, Some(MODEL_EBS));
        assert_eq!(classify(&plain(), &all), Role::Ebs);
        let boot = DeviceFacts { system: Some("carries /".to_owned()), read_only: true, ..plain() };
        assert_eq!(classify(&boot, &all), Role::Boot { because: "carries /".to_owned() });
        for facts in [
            DeviceFacts { read_only: true, ..plain() },
            DeviceFacts { removable: true, ..plain() },
            DeviceFacts { zoned: true, ..plain() },
            DeviceFacts { size: 0, ..plain() },
            disk("loop0", DiskKind::Loop, None),
            disk("ram0", DiskKind::Ram, None),
            disk("sr0", DiskKind::Optical, None),
        ] {
            assert_eq!(classify(&facts, &all).to_string(), "ignored", "{facts:?}");
        }
    }
}
