//! What EC2 says of a volume, beside what a report shows of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use super::answers::{Ec2, Volume};
use crate::audit::{AuditReport, Disk, Standing};

/// The EBS volumes of the fleet as EC2 lists them. A volume that is attached to two instances counts twice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SideBySide {
    /// Volumes that EC2 calls encrypted.
    pub encrypted_by_ec2: u64,
    /// Of these, volumes that LUKS encrypts, too.
    pub encrypted_by_both: u64,
    /// Volumes that EC2 calls unencrypted and LUKS encrypts.
    pub resolved: u64,
    /// Volumes that EC2 calls unencrypted and of which no report shows that LUKS encrypts them.
    pub open: u64,
    /// The volumes that EC2 calls unencrypted: the open ones first.
    pub unencrypted_by_ec2: Vec<Unencrypted>,
}

/// A volume that EC2 calls unencrypted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unencrypted {
    /// Its ID.
    pub volume_id: String,
    /// The instance that it is attached to.
    pub instance_id: Option<String>,
    /// Its size in bytes.
    pub bytes: u64,
    /// What the report of the instance shows.
    pub shown: Shown,
    /// Its LUKS UUID, if LUKS encrypts it.
    pub luks_uuid: Option<String>,
    /// The key that it depends on.
    pub key_arn: Option<String>,
}

/// What a report shows of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shown {
    /// Data is or could be in clear on it.
    NotEncrypted,
    /// It is attached to an instance without a report.
    NoReport,
    /// The report of its instance does not have it: it was attached later.
    NotInReport,
    /// The report does not show whether it is encrypted.
    Unknown,
    /// It is not the agent's to encrypt.
    Excepted,
    /// It is attached to no instance.
    NotAttached,
    /// LUKS encrypts it.
    Encrypted,
}

impl From<Standing> for Shown {
    fn from(verdict: Standing) -> Self {
        match verdict {
            Standing::Encrypted => Self::Encrypted,
            Standing::Excepted => Self::Excepted,
            Standing::Unknown => Self::Unknown,
            Standing::NotEncrypted => Self::NotEncrypted,
        }
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::NotEncrypted => "not encrypted",
            Self::NoReport => "no report of its node",
            Self::NotInReport => "not in the report of its node",
            Self::Unknown => "unknown",
            Self::Excepted => "excepted",
            Self::NotAttached => "not attached",
            Self::Encrypted => "encrypted",
        })
    }
}

/// A disk of a report.
#[derive(Debug)]
struct Reported {
    verdict: Standing,
    luks_uuid: Option<String>,
    key_arn: Option<String>,
}

/// Collects the disks of reports, to put them beside what EC2 says.
#[derive(Debug)]
pub(super) struct Sides<'a> {
    volumes: &'a BTreeMap<String, Volume>,
    /// Attached disks, by instance and volume: a report about another instance's volume does not count.
    disks: BTreeMap<(String, String), Reported>,
}

impl<'a> Sides<'a> {
    /// Begins, if EC2 says something of volumes.
    pub(super) fn new(ec2: &'a Ec2) -> Option<Self> {
        Some(Self { volumes: ec2.volumes.as_ref()?, disks: BTreeMap::new() })
    }

    /// Adds the disks of a node.
    pub(super) fn add(&mut self, report: &AuditReport) {
        let Some(instance) = &report.node.instance_id else { return };
        for disk in report.disks.iter().filter(|disk| disk.device.is_some()) {
            let Some(volume) = &disk.volume_id else { continue };
            let (place, reported) = ((instance.clone(), volume.clone()), Reported::of(disk));
            // of two disks that say they are the same volume, the worse one counts
            if self.disks.get(&place).is_none_or(|known| known.verdict < reported.verdict) {
                self.disks.insert(place, reported);
            }
        }
    }

    /// Puts both sides together. `reported` are the instances with a report.
    pub(super) fn finish(self, reported: &BTreeSet<String>) -> SideBySide {
        let mut sides = SideBySide::default();
        for (volume_id, volume) in self.volumes {
            let mut instances: Vec<Option<&str>> = volume.instances().map(Some).collect();
            if instances.is_empty() {
                instances.push(None);
            }
            for instance in instances {
                let disk = instance.and_then(|id| self.disks.get(&(id.to_owned(), volume_id.clone())));
                let shown = match (instance, disk) {
                    (None, _) => Shown::NotAttached,
                    (Some(_), Some(disk)) => disk.verdict.into(),
                    (Some(id), None) if reported.contains(id) => Shown::NotInReport,
                    (Some(_), None) => Shown::NoReport,
                };
                sides.count(volume.encrypted, shown);
                if !volume.encrypted {
                    sides.unencrypted_by_ec2.push(Unencrypted {
                        volume_id: volume_id.clone(),
                        instance_id: instance.map(str::to_owned),
                        bytes: volume.bytes(),
                        shown,
                        luks_uuid: disk.and_then(|disk| disk.luks_uuid.clone()),
                        key_arn: disk.and_then(|disk| disk.key_arn.clone()),
                    });
                }
            }
        }
        sides.unencrypted_by_ec2.sort_by_key(|volume| volume.shown);
        sides
    }
}

impl SideBySide {
    fn count(&mut self, by_ec2: bool, shown: Shown) {
        let by_luks = shown == Shown::Encrypted;
        self.encrypted_by_ec2 += u64::from(by_ec2);
        self.encrypted_by_both += u64::from(by_ec2 && by_luks);
        self.resolved += u64::from(!by_ec2 && by_luks);
        self.open += u64::from(!by_ec2 && !by_luks);
    }
}

impl Reported {
    fn of(disk: &Disk) -> Self {
        Self {
            verdict: disk.verdict,
            luks_uuid: disk.encryption.as_ref().map(|encryption| encryption.luks_uuid.clone()),
            key_arn: disk.key_arn.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::audit::example::example;

    /// Puts the example, whose volume 0 is the boot volume, 1 is encrypted and 2 in clear, beside one volume of EC2.
    fn beside(volume: &str, encrypted: bool, attached_to: Option<&str>) -> SideBySide {
        let attachments: Vec<_> = attached_to.iter().map(|id| json!({"InstanceId": id, "State": "attached"})).collect();
        let volume = json!({"VolumeId": volume, "Size": 1, "Encrypted": encrypted, "Attachments": attachments});
        let mut ec2 = Ec2::default();
        ec2.add_volumes(json!({"Volumes": [volume]}).to_string().as_bytes()).unwrap();
        let mut sides = Sides::new(&ec2).unwrap();
        let report = example();
        sides.add(&report);
        sides.finish(&report.node.instance_id.into_iter().collect())
    }

    #[test]
    fn a_volume_that_ec2_calls_unencrypted_is_resolved_only_by_the_report_of_its_node() {
        let node = Some("i-1234567890abcdef0");
        let [boot, luks, clear] = [0, 1, 2].map(|n| format!("vol-0123456789abcdef{n}"));
        for (volume, attached_to, shown) in [
            (&luks, node, Shown::Encrypted),
            (&clear, node, Shown::NotEncrypted),
            (&boot, node, Shown::Excepted),
            // what another node has under this name is another matter
            (&luks, Some("i-other"), Shown::NoReport),
            (&luks, None, Shown::NotAttached),
            (&"vol-later".to_owned(), node, Shown::NotInReport),
        ] {
            let sides = beside(volume, false, attached_to);
            let [found] = &sides.unencrypted_by_ec2[..] else { panic!("{sides:?}") };
            assert_eq!(found.shown, shown, "{volume}");
            assert_eq!((sides.resolved, sides.open), if shown == Shown::Encrypted { (1, 0) } else { (0, 1) });
            assert_eq!(found.luks_uuid.is_some(), shown == Shown::Encrypted);
        }
    }

    #[test]
    fn a_volume_that_ec2_encrypts_is_not_listed() {
        let sides = beside("vol-0123456789abcdef1", true, Some("i-1234567890abcdef0"));
        let expected = SideBySide { encrypted_by_ec2: 1, encrypted_by_both: 1, ..SideBySide::default() };
        assert_eq!(sides, expected);
    }
}
