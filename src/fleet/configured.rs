//! What security configurations say would be encrypted, against what reports and EC2 show.

use std::fmt;

use serde::Serialize;

use super::answers::{Cluster, Ec2};
use crate::audit::{AuditReport, Disk, Standing};
use crate::emr::{Document, Judgement, Place, Protection};

/// The places of a document that are disks of a node.
const PLACES: [Place; 4] = [Place::BootVolume, Place::EbsVolumes, Place::InstanceStoreNvme, Place::InstanceStoreOther];

/// An EMR security configuration, and the file that it was read from.
#[derive(Debug, Clone)]
pub struct NamedDocument {
    /// What messages call the file.
    pub file: String,
    /// The document.
    pub document: Document,
}

/// A security configuration against the nodes that have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Configured {
    /// Its name, or its file if it has none.
    pub name: String,
    /// The file that it was read from.
    pub file: String,
    /// SHA-256 of the document, in hexadecimal. The report of a node has that of the one it was provisioned with.
    pub sha256: String,
    /// The nodes that have it: by their cluster, or else by the SHA-256 in their report.
    pub nodes: u64,
    /// Of these, the nodes whose cluster has it and whose report has the SHA-256 of another document.
    pub provisioned_with_another: Vec<String>,
    /// What it says about each place, and what is so.
    pub places: Vec<PlaceRow>,
}

/// What a document says about a place, and what is so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlaceRow {
    /// The place.
    pub place: Place,
    /// What EMR would do there.
    pub configured: Protection,
    /// How.
    pub by: &'static str,
    /// Why.
    pub reason: String,
    /// Attached disks that LUKS encrypts, by their reports.
    pub luks: u64,
    /// Others that EC2 calls encrypted.
    pub ebs: u64,
    /// Others with data in clear: neither LUKS nor EC2 encrypts them.
    pub in_clear: u64,
    /// Others.
    pub unknown: u64,
    /// How both agree.
    pub agreement: Agreement,
}

/// How a configuration agrees with what is so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Agreement {
    /// No node has such a disk.
    NoDisks,
    /// Both agree.
    Agrees,
    /// Every disk is encrypted although the configuration does not ask for it.
    Stronger,
    /// It is not known of each disk whether it is encrypted, or the configuration is not known yet.
    NotShown,
    /// The configuration says encrypted, and a disk is in clear.
    Contradicted,
}

impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::NoDisks => "no such disk",
            Self::Agrees => "agrees",
            Self::Stronger => "stronger than configured",
            Self::NotShown => "not shown",
            Self::Contradicted => "contradicted",
        })
    }
}

/// A cluster, and its nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClusterRow {
    /// Its ID.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The name of its security configuration.
    pub security_configuration: Option<String>,
    /// The nodes with a report that belong to it.
    pub nodes: u64,
}

/// Compares nodes with their security configurations.
#[derive(Debug)]
pub(super) struct Comparison<'a> {
    ec2: &'a Ec2,
    pub(super) clusters: Vec<ClusterRow>,
    pub(super) configurations: Vec<Configured>,
    /// Nodes with a report for which there is no document.
    pub(super) unmatched: u64,
}

impl<'a> Comparison<'a> {
    pub(super) fn new(ec2: &'a Ec2, clusters: &[Cluster], documents: &[NamedDocument]) -> Self {
        let row = |cluster: &Cluster| ClusterRow {
            id: cluster.id.clone(),
            name: cluster.name.clone(),
            security_configuration: cluster.security_configuration.clone(),
            nodes: 0,
        };
        Self {
            ec2,
            clusters: clusters.iter().map(row).collect(),
            configurations: documents.iter().map(Configured::of).collect(),
            unmatched: 0,
        }
    }

    /// Adds a node, and returns the name of its security configuration if there is a document for it.
    pub(super) fn add(&mut self, report: &AuditReport) -> Option<String> {
        let cluster_id = report.node.instance_id.as_deref().and_then(|id| self.ec2.cluster_of(id));
        let cluster = self.clusters.iter_mut().find(|cluster| Some(cluster.id.as_str()) == cluster_id);
        let name = match cluster {
            Some(cluster) => {
                cluster.nodes += 1;
                // a cluster without one has nothing to compare, whatever the agent was given
                Some(cluster.security_configuration.clone()?)
            }
            None => None,
        };
        let recorded = report.configuration.security_configuration_sha256.as_deref();
        let Some(configured) = choose(&mut self.configurations, name.as_deref(), recorded) else {
            self.unmatched += 1;
            return None;
        };
        configured.add(report, self.ec2);
        Some(configured.name.clone())
    }

    /// Judges what was added.
    pub(super) fn finish(&mut self) {
        for row in self.configurations.iter_mut().flat_map(|configured| &mut configured.places) {
            row.judge();
        }
    }
}

/// Returns the document of a node: the one with the name that its cluster gives. If none has it, as without a cluster, or if documents that
/// differ have it, the one whose digest the node recorded.
fn choose<'c>(all: &'c mut [Configured], name: Option<&str>, recorded: Option<&str>) -> Option<&'c mut Configured> {
    let named: Vec<usize> = (0..all.len()).filter(|at| Some(all[*at].name.as_str()) == name).collect();
    let is_recorded = |at: &usize| Some(all[*at].sha256.as_str()) == recorded;
    let chosen = match named.as_slice() {
        [] => (0..all.len()).find(is_recorded),
        [first, others @ ..] if others.iter().all(|at| all[*at].sha256 == all[*first].sha256) => Some(*first),
        several => several.iter().copied().find(is_recorded),
    };
    all.get_mut(chosen?)
}

impl Configured {
    fn of(named: &NamedDocument) -> Self {
        let judgement = Judgement::of(&named.document);
        let surfaces = PLACES.into_iter().filter_map(|place| judgement.encrypted.iter().find(|s| s.place == place));
        let places = surfaces.map(|surface| PlaceRow {
            place: surface.place,
            configured: surface.protection,
            by: surface.by,
            reason: surface.reason.clone(),
            luks: 0,
            ebs: 0,
            in_clear: 0,
            unknown: 0,
            agreement: Agreement::NoDisks,
        });
        Self {
            name: named.document.name.clone().unwrap_or_else(|| named.file.clone()),
            file: named.file.clone(),
            sha256: named.document.digest(),
            nodes: 0,
            provisioned_with_another: Vec::new(),
            places: places.collect(),
        }
    }

    fn add(&mut self, report: &AuditReport, ec2: &Ec2) {
        self.nodes += 1;
        let recorded = report.configuration.security_configuration_sha256.as_ref();
        if recorded.is_some_and(|recorded| *recorded != self.sha256) {
            self.provisioned_with_another.push(report.node.title().to_owned());
        }
        for disk in report.disks.iter().filter(|disk| disk.device.is_some()) {
            let place = place_of(disk);
            if let Some(row) = self.places.iter_mut().find(|row| Some(row.place) == place) {
                row.add(disk, ec2);
            }
        }
    }
}

/// Returns the place that a document has for an attached disk.
fn place_of(disk: &Disk) -> Option<Place> {
    // the serial numbers of NVMe instance store; a rule may call it something else, and with swap on it, it is a boot volume
    if disk.serial.as_ref().is_some_and(|serial| serial.starts_with("AWS")) {
        return Some(Place::InstanceStoreNvme);
    }
    match disk.role.as_str() {
        "boot" => Some(Place::BootVolume),
        "instance-store" if disk.device.as_ref().is_some_and(|name| name.starts_with("nvme")) => {
            Some(Place::InstanceStoreNvme)
        }
        "instance-store" => Some(Place::InstanceStoreOther),
        // a rule may call an EBS volume something else
        role => (role == "ebs" || disk.volume_id.is_some()).then_some(Place::EbsVolumes),
    }
}

impl PlaceRow {
    fn add(&mut self, disk: &Disk, ec2: &Ec2) {
        let by_ec2 = disk.volume_id.as_ref().and_then(|id| ec2.encrypts(id));
        let can_be_by_ec2 = matches!(self.place, Place::BootVolume | Place::EbsVolumes);
        let counted = match (disk.verdict, by_ec2) {
            (Standing::Encrypted, _) => &mut self.luks,
            (_, Some(true)) => &mut self.ebs,
            (Standing::NotEncrypted, None) if !can_be_by_ec2 => &mut self.in_clear,
            (Standing::NotEncrypted | Standing::Excepted, Some(false)) => &mut self.in_clear,
            (Standing::NotEncrypted | Standing::Excepted | Standing::Unknown, _) => &mut self.unknown,
        };
        *counted += 1;
    }

    fn judge(&mut self) {
        let is_empty = self.luks + self.ebs + self.in_clear + self.unknown == 0;
        self.agreement = match self.configured {
            _ if is_empty => Agreement::NoDisks,
            Protection::Unknown => Agreement::NotShown,
            Protection::Encrypted if self.in_clear > 0 => Agreement::Contradicted,
            Protection::InClear | Protection::Otherwise if self.in_clear > 0 => Agreement::Agrees,
            _ if self.unknown > 0 => Agreement::NotShown,
            Protection::Encrypted => Agreement::Agrees,
            Protection::InClear | Protection::Otherwise => Agreement::Stronger,
        };
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::audit::example::example;

    fn document(name: &str, text: Value) -> NamedDocument {
        let answer = json!({"Name": name, "CreationDateTime": 1, "SecurityConfiguration": text.to_string()});
        let mut read = Document::read_all(answer.to_string().as_bytes()).unwrap();
        NamedDocument { file: format!("{name}.json"), document: read.remove(0) }
    }

    fn at_rest(ebs: Option<bool>) -> Value {
        let mut disks = json!({"EncryptionKeyProviderType": "AwsKms", "AwsKmsKey": "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"});
        if let Some(on) = ebs {
            disks["EnableEbsEncryption"] = json!(on);
        }
        let at_rest = json!({"LocalDiskEncryptionConfiguration": disks});
        json!({"EncryptionConfiguration": {"EnableInTransitEncryption": false, "EnableAtRestEncryption": true, "AtRestEncryptionConfiguration": at_rest}})
    }

    fn nothing() -> Value {
        json!({"EncryptionConfiguration": {"EnableInTransitEncryption": false, "EnableAtRestEncryption": false}})
    }

    /// What EC2 says: the node is of cluster j-1, and whether each of its volumes is encrypted.
    fn ec2(volumes: &[bool]) -> Ec2 {
        let volume = |(n, encrypted): (usize, &bool)| {
            let at = json!([{"InstanceId": "i-1234567890abcdef0", "State": "attached"}]);
            json!({"VolumeId": format!("vol-0123456789abcdef{n}"), "Size": 1, "Encrypted": encrypted, "Attachments": at})
        };
        let volumes: Vec<Value> = volumes.iter().enumerate().map(volume).collect();
        let tags = json!([{"Key": "aws:elasticmapreduce:job-flow-id", "Value": "j-1"}]);
        let instance = json!({"InstanceId": "i-1234567890abcdef0", "State": {"Name": "running"}, "Tags": tags});
        let mut ec2 = Ec2::default();
        ec2.add_volumes(json!({"Volumes": volumes}).to_string().as_bytes()).unwrap();
        ec2.add_instances(json!({"Reservations": [{"Instances": [instance]}]}).to_string().as_bytes()).unwrap();
        ec2
    }

    fn cluster(security_configuration: Value) -> Cluster {
        let cluster = json!({"Id": "j-1", "Name": "x", "SecurityConfiguration": security_configuration});
        Cluster::read(json!({"Cluster": cluster}).to_string().as_bytes()).unwrap()
    }

    #[test]
    fn what_ebs_encryption_promises_is_compared_with_ec2() {
        // boot volume, a volume under LUKS, a volume that LUKS does not encrypt
        for (text, volumes, boot, ebs) in [
            (at_rest(Some(true)), &[true, true, true][..], Agreement::Agrees, Agreement::Agrees),
            (at_rest(Some(true)), &[false, false, true], Agreement::Contradicted, Agreement::Agrees),
            (at_rest(Some(true)), &[true, true, false], Agreement::Agrees, Agreement::Contradicted),
            (at_rest(Some(true)), &[], Agreement::NotShown, Agreement::NotShown),
            (at_rest(None), &[true, false, true], Agreement::Stronger, Agreement::Agrees),
            (nothing(), &[true, true, true], Agreement::Stronger, Agreement::Stronger),
            (nothing(), &[false, false, false], Agreement::Agrees, Agreement::Agrees),
        ] {
            let ec2 = ec2(volumes);
            let mut found = Comparison::new(&ec2, &[cluster(json!("a"))], &[document("a", text.clone())]);
            assert_eq!(found.add(&example()).as_deref(), Some("a"));
            found.finish();
            let agreement =
                |place| found.configurations[0].places.iter().find(|row| row.place == place).unwrap().agreement;
            assert_eq!(agreement(Place::BootVolume), boot, "{text} {volumes:?}");
            assert_eq!(agreement(Place::EbsVolumes), ebs, "{text} {volumes:?}");
            assert_eq!(agreement(Place::InstanceStoreNvme), Agreement::NoDisks);
        }
    }

    #[test]
    fn the_cluster_decides_which_document_counts_and_the_digest_without_one() {
        let documents = [document("a", nothing()), document("b", at_rest(None))];
        let mut recorded = example();
        recorded.configuration.security_configuration_sha256 = Some(documents[1].document.digest());
        let with_cluster = ec2(&[]);
        let without = Ec2::default();
        let cases = [
            (&without, vec![], Some("b"), 0),
            (&with_cluster, vec![], Some("b"), 0),
            (&with_cluster, vec![cluster(json!("b"))], Some("b"), 0),
            // the agent was given another document than EMR
            (&with_cluster, vec![cluster(json!("a"))], Some("a"), 1),
            // a document in a file of its own has no name
            (&with_cluster, vec![cluster(json!("unknown"))], Some("b"), 0),
            (&with_cluster, vec![cluster(Value::Null)], None, 0),
        ];
        for (ec2, clusters, expected, another) in cases {
            let mut found = Comparison::new(ec2, &clusters, &documents);
            assert_eq!(found.add(&recorded).as_deref(), expected, "{clusters:?}");
            let others: usize = found.configurations.iter().map(|c| c.provisioned_with_another.len()).sum();
            assert_eq!(others, another, "{clusters:?}");
        }
    }
}
