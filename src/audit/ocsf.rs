//! Findings in the Open Cybersecurity Schema Framework: class Compliance Finding.

use serde_json::{Map, Value, json};

use super::control::{CONTROL, DEMAND, REMEDY, REQUIREMENTS, STANDARD, description, title};
use super::disk::{Disk, Standing};
use super::place::Place;
use super::report::{AuditReport, SCHEMA};

/// Version of the schema.
const VERSION: &str = "1.6.0";
/// Compliance Finding, in the category Findings.
const CLASS: u32 = 2003;

/// Returns a finding about the node of a report.
///
/// If the report does not say where the node is in AWS, the finding is without the profile `cloud`.
pub fn ocsf(report: &AuditReport) -> Value {
    let place = Place::of(&report.node);
    let fine = report.verdict.is_fine();
    let (activity, activity_name) = if fine { (3, "Close") } else { (1, "Create") };
    let (status_id, status) = if fine { (4, "Resolved") } else { (1, "New") };
    let (severity_id, severity) = match report.verdict {
        Standing::Encrypted | Standing::Excepted => (1, "Informational"),
        Standing::Unknown => (3, "Medium"),
        Standing::NotEncrypted => (4, "High"),
    };
    let time = report.made.as_millisecond();
    let title = title(report);
    let profiles = if place.is_some() { vec!["cloud", "host"] } else { vec!["host"] };
    let mut finding = json!({
        "activity_id": activity,
        "activity_name": activity_name,
        "category_name": "Findings",
        "category_uid": 2,
        "class_name": "Compliance Finding",
        "class_uid": CLASS,
        "type_uid": CLASS * 100 + activity,
        "severity": severity,
        "severity_id": severity_id,
        "status": status,
        "status_id": status_id,
        "time": time,
        "message": title,
        "metadata": {
            "version": VERSION,
            "profiles": profiles,
            "log_name": SCHEMA,
            "original_time": report.made.to_string(),
            "product": {"name": "luks-agent", "vendor_name": "luks-agent", "version": report.agent_version},
        },
        "finding_info": {
            "uid": uid(report),
            "title": title,
            "desc": description(report),
            "types": ["Software and Configuration Checks"],
            "last_seen_time": time,
            "product_uid": "luks-agent",
        },
        "compliance": compliance(report),
        "device": device(report),
        "resources": resources(report, place),
        "remediation": {"desc": REMEDY},
    });
    if let Some(place) = place {
        let mut cloud = json!({
            "provider": "AWS",
            "cloud_partition": place.partition(),
            "region": place.region,
            "account": {"uid": place.account, "type": "AWS Account", "type_id": 10},
        });
        set(&mut cloud, "zone", report.node.availability_zone.as_deref());
        finding["cloud"] = cloud;
    }
    finding
}

/// Returns the same ID for every report of a node.
fn uid(report: &AuditReport) -> String {
    let node = &report.node;
    let parts = [node.account.as_deref(), node.region.as_deref(), Some(node.title())];
    let parts: Vec<&str> = parts.into_iter().map(|part| part.unwrap_or("-")).collect();
    format!("{CONTROL}/{}", parts.join("/"))
}

fn compliance(report: &AuditReport) -> Value {
    let (status, status_id) = compliance_status(report.verdict);
    let checks: Vec<Value> = report
        .disks
        .iter()
        .map(|disk| {
            let (status, status_id) = compliance_status(disk.verdict);
            let text = format!("{}: {}", disk.verdict, disk.reasons.join("; "));
            json!({"uid": format!("{CONTROL}/{}", name(disk)), "name": name(disk), "desc": text, "status": status, "status_id": status_id})
        })
        .collect();
    json!({
        "control": CONTROL,
        "desc": DEMAND,
        "standards": [STANDARD],
        "requirements": REQUIREMENTS,
        "status": status,
        "status_id": status_id,
        "status_details": report.reasons,
        "checks": checks,
    })
}

fn compliance_status(verdict: Standing) -> (&'static str, u32) {
    match verdict {
        Standing::Encrypted | Standing::Excepted => ("Pass", 1),
        Standing::Unknown => ("Warning", 2),
        Standing::NotEncrypted => ("Fail", 3),
    }
}

fn device(report: &AuditReport) -> Value {
    let node = &report.node;
    let mut device = json!({
        "type": "Server",
        "type_id": 1,
        "hostname": node.host_name,
        "os": {"name": "Linux", "type": "Linux", "type_id": 200, "kernel_release": node.kernel},
    });
    set(&mut device, "uid", node.instance_id.as_deref());
    set(&mut device, "instance_uid", node.instance_id.as_deref());
    set(&mut device, "region", node.region.as_deref());
    set(&mut device, "zone", node.availability_zone.as_deref());
    if let Some(ami) = &node.ami {
        device["image"] = json!({ "uid": ami });
    }
    device
}

/// Describes the instance, the keys and the disks.
fn resources(report: &AuditReport, place: Option<Place<'_>>) -> Vec<Value> {
    let mut resources = Vec::new();
    let mut add = |kind: &str, name: &str, uid: String, data: Value| {
        let mut resource = json!({"type": kind, "name": name, "uid": uid, "data": data});
        if let Some(place) = place {
            resource["region"] = place.region.into();
            resource["cloud_partition"] = place.partition().into();
        }
        resources.push(resource);
    };
    let arn = |kind: &str, id: &str| place.map_or_else(|| id.to_owned(), |place| place.ec2_arn(kind, id));
    let node = &report.node;
    match &node.instance_id {
        Some(id) => add("AWS::EC2::Instance", id, arn("instance", id), Value::Object(Map::new())),
        None => add("Host", &node.host_name, node.host_name.clone(), Value::Object(Map::new())),
    }
    for key in &report.keys {
        let kind = if key.provider == "aws-kms" { "AWS::KMS::Key" } else { "Key" };
        add(kind, &key.key_arn, key.key_arn.clone(), json!({"state": key.state, "error": key.error}));
    }
    for disk in &report.disks {
        let (kind, uid) = match &disk.volume_id {
            Some(id) => ("AWS::EC2::Volume", arn("volume", id)),
            None => ("Disk", format!("{}/{}", node.title(), name(disk))),
        };
        add(kind, name(disk), uid, json!(disk));
    }
    resources
}

fn name(disk: &Disk) -> &str {
    [&disk.volume_id, &disk.serial, &disk.device].into_iter().find_map(|name| name.as_deref()).unwrap_or("disk")
}

fn set(object: &mut Value, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        object[name] = value.into();
    }
}
