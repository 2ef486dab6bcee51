//! The resources of a finding in ASFF: the instance, the KMS keys, then the disks.

use serde_json::{Map, Value, json};

use super::disk::Disk;
use super::key::Key;
use super::place::Place;
use super::report::AuditReport;
use super::text::cut;

/// How many keys are resources. A node has one, or two while its key changes.
const MAX_KEYS: usize = 4;

/// Returns the resources, the disks with the worst verdict first.
pub(super) fn resources(report: &AuditReport, place: Place<'_>) -> Vec<Value> {
    let mut resources = vec![instance(report, place)];
    resources.extend(report.keys.iter().take(MAX_KEYS).map(|key| self::key(key, place)));
    let mut disks: Vec<&Disk> = report.disks.iter().collect();
    disks.sort_by_key(|disk| std::cmp::Reverse(disk.verdict));
    resources.extend(disks.into_iter().map(|disk| self::disk(disk, report, place)));
    resources
}

fn instance(report: &AuditReport, place: Place<'_>) -> Value {
    let node = &report.node;
    let other = others([
        ("HostName", Some(node.host_name.as_str())),
        ("Kernel", Some(node.kernel.as_str())),
        ("AvailabilityZone", node.availability_zone.as_deref()),
    ]);
    let Some(id) = &node.instance_id else {
        return resource("Other", &node.host_name, place, json!({ "Other": other }));
    };
    let mut details = Map::new();
    for (name, value) in [("Type", &node.instance_type), ("ImageId", &node.ami)] {
        if let Some(value) = value {
            details.insert(name.to_owned(), cut(value, 128).into());
        }
    }
    let details = json!({"AwsEc2Instance": details, "Other": other});
    resource("AwsEc2Instance", &place.ec2_arn("instance", id), place, details)
}

fn key(key: &Key, place: Place<'_>) -> Value {
    let other = others([("Provider", Some(key.provider.as_str())), ("Error", key.error.as_deref())]);
    if key.provider != "aws-kms" {
        return resource("Other", &key.key_arn, place, json!({ "Other": other }));
    }
    let mut details = Map::new();
    let id = key.key_arn.rsplit('/').next().unwrap_or_default();
    details.insert("KeyId".to_owned(), cut(id, 128).into());
    if let Some(state) = &key.state {
        details.insert("KeyState".to_owned(), cut(state, 64).into());
    }
    resource("AwsKmsKey", &key.key_arn, place, json!({"AwsKmsKey": details, "Other": other}))
}

/// Describes a disk. `Encrypted` and `KmsKeyId` of a volume are about the encryption of EBS, of which a report knows nothing.
fn disk(disk: &Disk, report: &AuditReport, place: Place<'_>) -> Value {
    let (verdict, reasons, size) = (disk.verdict.to_string(), disk.reasons.join("; "), disk.size.to_string());
    let mounts = disk.mount_points(", ");
    let other = others([
        ("Verdict", Some(verdict.as_str())),
        ("Reasons", Some(reasons.as_str()).filter(|reasons| !reasons.is_empty())),
        ("Device", disk.device.as_deref()),
        ("Role", Some(disk.role.as_str())),
        ("Bytes", Some(size.as_str())),
        ("Cipher", disk.encryption.as_ref().map(|encryption| encryption.cipher.as_str())),
        ("LuksUuid", disk.encryption.as_ref().map(|encryption| encryption.luks_uuid.as_str())),
        ("LuksKmsKey", disk.key_arn.as_deref()),
        ("Mounts", Some(mounts.as_str()).filter(|mounts| !mounts.is_empty())),
    ]);
    let Some(id) = &disk.volume_id else {
        let name = disk.serial.as_deref().or(disk.device.as_deref()).unwrap_or("disk");
        let id = format!("{}/{name}", report.node.title());
        return resource("Other", &id, place, json!({ "Other": other }));
    };
    let mut details = json!({"VolumeId": cut(id, 128), "Size": i32::try_from(disk.size >> 30).unwrap_or(i32::MAX)});
    if let (Some(_), Some(instance)) = (&disk.device, &report.node.instance_id) {
        details["Attachments"] = json!([{"InstanceId": cut(instance, 128), "Status": "attached"}]);
    }
    resource("AwsEc2Volume", &place.ec2_arn("volume", id), place, json!({"AwsEc2Volume": details, "Other": other}))
}

fn resource(kind: &str, id: &str, place: Place<'_>, details: Value) -> Value {
    let mut resource = json!({"Type": kind, "Id": cut(id, 512), "Region": place.region, "Details": details});
    // the API knows no other partitions
    if ["aws", "aws-cn", "aws-us-gov"].contains(&place.partition()) {
        resource["Partition"] = place.partition().into();
    }
    resource
}

fn others<const N: usize>(fields: [(&str, Option<&str>); N]) -> Map<String, Value> {
    let known = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), cut(value?, 256).into())));
    known.collect()
}
