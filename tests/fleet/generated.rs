//! A fleet that is made up: reports of plausible variety, and the answers of AWS about their nodes.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

/// Arguments of `audit fleet` with all that [`generate`] writes: every table of the page has rows.
pub(crate) const EVERYTHING: [&str; 13] = [
    "reports",
    "--volumes",
    "volumes.json",
    "--instances",
    "instances.json",
    "--clusters",
    "clusters",
    "--security-configurations",
    "configurations",
    "--html",
    "fleet.html",
    "--json",
    "fleet.json",
];

/// How many clusters there are.
const CLUSTERS: u64 = 12;

/// Numbers that look random and are the same each time (SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

fn write(path: &Path, value: &Value) {
    fs::write(path, format!("{value:#}")).unwrap();
}

fn time(dice: &mut Dice) -> String {
    format!("2026-03-{:02}T{:02}:{:02}:00Z", 1 + dice.below(28), dice.below(24), dice.below(60))
}

fn key(number: u64) -> String {
    format!("arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-{number:012}")
}

/// Writes `reports/`, `clusters/`, `configurations/`, `volumes.json` and `instances.json` for so many instances.
pub(crate) fn generate(dir: &Path, instances: u64) {
    for name in ["reports", "clusters", "configurations"] {
        fs::create_dir_all(dir.join(name)).unwrap();
    }
    let mut dice = Dice(1);
    let (mut volumes, mut running) = (Vec::new(), Vec::new());
    for number in 0..instances {
        let id = format!("i-{number:017x}");
        let report = report(&mut dice, number, &id);
        volumes.extend(volumes_of(&mut dice, &id, &report));
        let cluster = json!([{"Key": "aws:elasticmapreduce:job-flow-id", "Value": format!("j-{}", number % CLUSTERS)}]);
        running.push(json!({"InstanceId": id, "State": {"Name": "running"}, "Tags": cluster}));
        // some are silent
        if dice.below(30) != 0 {
            write(&dir.join("reports").join(format!("{id}.json")), &report);
        }
        // and some reported twice
        if dice.below(20) == 0 {
            let mut older = report;
            older["made"] = json!("2026-02-01T00:00:00Z");
            write(&dir.join("reports").join(format!("{id}-older.json")), &older);
        }
    }
    let unattached = json!({"VolumeId": "vol-unattached", "Size": 8, "Encrypted": true, "Attachments": []});
    volumes.push(unattached);
    write(&dir.join("volumes.json"), &json!({"Volumes": volumes}));
    write(&dir.join("instances.json"), &json!({"Reservations": [{"Instances": running}]}));
    configurations(dir);
}

fn configurations(dir: &Path) {
    let disks = json!({"EncryptionKeyProviderType": "AwsKms", "AwsKmsKey": key(1)});
    let mut ebs = disks.clone();
    ebs["EnableEbsEncryption"] = json!(true);
    let at_rest = |disks: Value| {
        let at_rest = json!({"LocalDiskEncryptionConfiguration": disks});
        json!({"EncryptionConfiguration": {"EnableInTransitEncryption": false, "EnableAtRestEncryption": true, "AtRestEncryptionConfiguration": at_rest}})
    };
    let nothing =
        json!({"EncryptionConfiguration": {"EnableInTransitEncryption": false, "EnableAtRestEncryption": false}});
    for (name, document) in [("luks", at_rest(disks)), ("ebs", at_rest(ebs)), ("nothing", nothing)] {
        let answer =
            json!({"Name": name, "SecurityConfiguration": document.to_string(), "CreationDateTime": "2026-01-01"});
        write(&dir.join("configurations").join(format!("{name}.json")), &answer);
    }
    for number in 0..CLUSTERS {
        let name = [json!("luks"), json!("ebs"), json!("nothing"), json!("not-given"), Value::Null];
        let configuration = &name[usize::try_from(number).unwrap() % name.len()];
        let cluster = json!({"Id": format!("j-{number}"), "Name": format!("cluster {number}"), "SecurityConfiguration": configuration});
        write(&dir.join("clusters").join(format!("{number}.json")), &json!({"Cluster": cluster}));
    }
}

fn report(dice: &mut Dice, number: u64, id: &str) -> Value {
    let keys: Vec<String> = (0..1 + dice.below(2)).map(|_| key(dice.below(7))).collect();
    let mut disks = vec![disk(dice, number, 0, "boot", "excepted", None)];
    for n in 1..2 + dice.below(8) {
        let role = if dice.below(4) == 0 { "instance-store" } else { "ebs" };
        let verdict = match dice.below(200) {
            0 => "not-encrypted",
            1 => "unknown",
            2..=5 => "excepted",
            _ => "encrypted",
        };
        let key = &keys[usize::try_from(n).unwrap() % keys.len()];
        disks.push(disk(dice, number, n, role, verdict, Some(key)));
    }
    if dice.below(40) == 0 {
        let mut detached = disk(dice, number, 99, "ebs", "unknown", Some(&keys[0]));
        detached["device"] = Value::Null;
        disks.push(detached);
    }
    let attached = || disks.iter().filter(|disk| !disk["device"].is_null());
    let has = |verdict: &str| attached().any(|disk| disk["verdict"] == verdict);
    let verdict = ["not-encrypted", "unknown", "encrypted"].into_iter().find(|verdict| has(verdict));
    let verdict = verdict.unwrap_or("excepted");
    let is_fine = ["encrypted", "excepted"].contains(&verdict);
    let document = json!({"accountId": "111122223333", "instanceId": id, "region": "us-east-1"}).to_string();
    // a node without IMDS now and then
    let has_imds = dice.below(100) != 0;
    let known = |value: Value| if has_imds { value } else { Value::Null };
    let looked = time(dice);
    let listed = |arn: &String| json!({"key_arn": arn, "provider": "aws-kms", "wrapped": "2026-01-01T00:00:00Z", "state": "Enabled", "looked": looked, "error": null});
    let mut listed: Vec<Value> = keys.iter().map(listed).collect();
    listed.dedup();
    json!({
        "schema": "luks-agent/audit", "schema_version": 1, "agent_version": "0.1.0", "made": time(dice), "verdict": verdict,
        "reasons": if is_fine { json!([]) } else { json!([format!("a disk is {verdict}")]) },
        "node": {
            "host_name": format!("ip-10-{}-{}-{}", number >> 16, (number >> 8) & 255, number & 255),
            "instance_id": known(json!(id)), "instance_type": known(json!("m7gd.2xlarge")), "account": known(json!("111122223333")),
            "region": known(json!("us-east-1")), "availability_zone": known(json!("us-east-1a")), "ami": known(json!("ami-0123456789abcdef0")),
            "kernel": "6.12.0", "identity_document": known(json!({"document": document, "rsa2048": "MIAGCSqGSIb3".repeat(100)})),
        },
        "configuration": {"sha256": "ab".repeat(32), "security_configuration_sha256": null},
        "keys": listed,
        "disks": disks,
    })
}

fn disk(dice: &mut Dice, number: u64, n: u64, role: &str, verdict: &str, key: Option<&String>) -> Value {
    let is_ebs = role != "instance-store";
    let serial = if is_ebs { format!("vol{number:012x}{n:05x}") } else { format!("AWS{number:012x}{n:05x}") };
    let is_volume = key.is_some() && verdict != "excepted" && verdict != "not-encrypted";
    let made = time(dice);
    let proven = if dice.below(50) == 0 { Value::Null } else { json!({"at": time(dice), "by": "verify"}) };
    let encryption = json!({
        "luks_uuid": format!("5d0f4ff1-9f5c-4a55-{n:04x}-{number:012x}"), "mapper": format!("luks-5d0f4ff1-9f5c-4a55-{n:04x}-{number:012x}"),
        "cipher": "aes-xts-plain64", "key_size": 512, "sector_size": 4096, "violation": null,
    });
    let evidence = json!({"read": made, "block_size": 4096, "blocks": 64, "differ": 64, "unwritten": dice.below(9)});
    let only = |value: Value| if is_volume { value } else { Value::Null };
    let reason = match (role, verdict) {
        ("boot", _) => {
            "boot volume: nvme0n1p1 carries /; luks-agent never encrypts it, and EBS encryption does not show on the node"
        }
        (_, "excepted") => "excepted by the rule for model 'scratch'",
        (_, "encrypted") => "64 of 64 blocks differ",
        (_, "unknown") => "its worker did not answer",
        _ => "it has an xfs file system in clear",
    };
    json!({
        "device": format!("nvme{n}n1"), "serial": serial, "volume_id": is_ebs.then(|| serial.replacen("vol", "vol-", 1)), "role": role,
        "role_because": null, "size": (8 + dice.below(500)) << 30, "content": "a LUKS2 header", "verdict": verdict, "reasons": [reason],
        "encryption": only(encryption), "key_arn": only(json!(key)), "formatted": only(json!(made)), "opened": only(json!(made)),
        "proven": only(proven), "mounts": [format!("/mnt{n}")], "evidence": only(evidence),
    })
}

/// Returns what EC2 says of the volumes of a node.
fn volumes_of(dice: &mut Dice, instance: &str, report: &Value) -> Vec<Value> {
    let disks = report["disks"].as_array().unwrap();
    let attached = disks.iter().filter(|disk| disk["volume_id"].is_string() && disk["device"].is_string());
    let volume = |disk: &Value| {
        let state = json!([{"InstanceId": instance, "State": "attached", "Device": disk["device"], "DeleteOnTermination": true}]);
        json!({
            "VolumeId": disk["volume_id"], "Size": disk["size"].as_u64().unwrap() >> 30, "Encrypted": dice.below(10) == 0,
            "Attachments": state, "State": "in-use", "VolumeType": "gp3", "AvailabilityZone": "us-east-1a", "SnapshotId": "",
        })
    };
    attached.map(volume).collect()
}
