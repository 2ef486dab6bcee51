//! Findings made of audit reports, against what the owners of their formats publish: `tests/fixtures/audit/README.md` says where that is
//! from. Needs no privileges and touches nothing.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use jiff::Timestamp;
use luks_agent::audit::{
    AuditReport, Disk, Encryption, Evidence, Key, MAX_FINDINGS, Proof, Proven, Standing, asff, inventory, ocsf,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::{Value, json};

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn fixture(name: &str) -> Value {
    serde_json::from_str(&read(&format!("tests/fixtures/audit/{name}.json"))).unwrap()
}

static ASFF: LazyLock<Value> = LazyLock::new(|| fixture("asff"));
static OCSF: LazyLock<Value> = LazyLock::new(|| fixture("ocsf"));

fn example(name: &str) -> AuditReport {
    AuditReport::read(read(&format!("fuzz/seeds/audit/{name}.json")).as_bytes()).unwrap()
}

/// Checks a value against a shape of botocore.
fn check_shape(model: &Value, shape: &str, limit: Option<u64>, value: &Value, at: &str) {
    let rules = &model["shapes"][shape];
    let within = |count: usize, what: &str| {
        let count = count as u64;
        let max = rules["max"].as_u64().into_iter().chain(limit).min().unwrap_or(u64::MAX);
        assert!(count <= max, "{at}: {count} {what}, at most {max}");
        assert!(count >= rules["min"].as_u64().unwrap_or(0), "{at}: {count} {what}");
    };
    match rules["type"].as_str().unwrap_or_else(|| panic!("{at}: no shape {shape}")) {
        "structure" => {
            let object = value.as_object().unwrap_or_else(|| panic!("{at}: no object: {value}"));
            for required in rules["required"].as_array().into_iter().flatten() {
                assert!(object.contains_key(required.as_str().unwrap()), "{at}: without {required}");
            }
            for (name, value) in object {
                let member = &rules["members"][name];
                let shape_of = member["shape"].as_str().unwrap_or_else(|| panic!("{at}: {shape} has no {name}"));
                let limit = model["lengths"][format!("{shape}.{name}")].as_u64();
                check_shape(model, shape_of, limit, value, &format!("{at}/{name}"));
            }
        }
        "list" => {
            let items = value.as_array().unwrap_or_else(|| panic!("{at}: no list: {value}"));
            within(items.len(), "items");
            for (index, item) in items.iter().enumerate() {
                check_shape(model, rules["member"]["shape"].as_str().unwrap(), None, item, &format!("{at}/{index}"));
            }
        }
        "map" => {
            let object = value.as_object().unwrap_or_else(|| panic!("{at}: no map: {value}"));
            for (name, value) in object {
                check_shape(model, rules["key"]["shape"].as_str().unwrap(), None, &json!(name), at);
                check_shape(model, rules["value"]["shape"].as_str().unwrap(), None, value, &format!("{at}/{name}"));
            }
        }
        "string" => {
            let text = value.as_str().unwrap_or_else(|| panic!("{at}: no string: {value}"));
            within(text.chars().count(), "characters");
            if let Some(words) = rules["enum"].as_array() {
                assert!(words.contains(value), "{at}: {text} is none of {words:?}");
            }
            if let Some(pattern) = rules["pattern"].as_str() {
                assert_eq!(pattern, r".*\S.*", "a pattern that this test does not know");
                assert!(text.lines().any(|line| !line.trim().is_empty()), "{at}: blank");
            }
        }
        "integer" => assert!(value.as_i64().is_some_and(|n| i32::try_from(n).is_ok()), "{at}: {value}"),
        "double" => assert!(value.is_number(), "{at}: {value}"),
        "boolean" => assert!(value.is_boolean(), "{at}: {value}"),
        other => panic!("{at}: a type that this test does not know: {other}"),
    }
}

/// Checks a finding against the API's model and the limits that are in its guide only.
fn check_asff(finding: &Value) {
    check_shape(&ASFF, "BatchImportFindingsRequest", None, &json!({"Findings": [finding]}), "");
    // as `aws` sends it: Python escapes everything that is not ASCII
    let sent: usize = finding.to_string().chars().map(|c| if c.is_ascii() { 1 } else { 6 * c.len_utf16() }).sum();
    assert!(sent <= 240_000, "a finding of {sent} bytes");
    let fields = finding["ProductFields"].as_object().unwrap();
    assert!(fields.len() <= 50);
    for (name, value) in fields {
        assert!(name.len() <= 128 && value.as_str().unwrap().len() <= 2048, "{name}");
    }
    for resource in finding["Resources"].as_array().unwrap() {
        assert!(resource["Id"].as_str().unwrap().len() <= 512);
        for (name, value) in resource["Details"]["Other"].as_object().unwrap() {
            assert!(name.len() <= 128 && value.as_str().unwrap().len() <= 2048, "{name}");
        }
    }
    for time in ["CreatedAt", "UpdatedAt", "LastObservedAt"] {
        finding[time].as_str().unwrap().parse::<Timestamp>().unwrap();
    }
}

/// Checks an object of OCSF: the attributes that it has, and those that it must have.
fn check_object(schema: &Value, rules: &Value, profiles: &[Value], value: &Value, at: &str) {
    let object = value.as_object().unwrap_or_else(|| panic!("{at}: no object: {value}"));
    let attributes = rules["attributes"].as_object().unwrap();
    for (name, rule) in attributes {
        let applies = rule.get("profile").is_none_or(|profile| profiles.contains(profile));
        assert!(applies || !object.contains_key(name), "{at}: {name} without its profile");
        assert!(!applies || rule["requirement"] != "required" || object.contains_key(name), "{at}: without {name}");
    }
    if let Some(names) = rules["constraints"]["at_least_one"].as_array() {
        assert!(names.iter().any(|name| object.contains_key(name.as_str().unwrap())), "{at}: none of {names:?}");
    }
    for (name, value) in object {
        let rule = attributes.get(name).unwrap_or_else(|| panic!("{at}: {name} is not in the schema"));
        let at = format!("{at}/{name}");
        let values = match rule["is_array"].as_bool() {
            Some(true) => value.as_array().unwrap_or_else(|| panic!("{at}: no list")).iter().collect(),
            _ => vec![value],
        };
        for value in values {
            check_attribute(schema, rule, profiles, value, &at);
        }
    }
}

fn check_attribute(schema: &Value, rule: &Value, profiles: &[Value], value: &Value, at: &str) {
    let kind = rule["type"].as_str().unwrap();
    if let Some(words) = rule["enum"].as_array() {
        assert!(words.contains(value), "{at}: {value} is none of {words:?}");
    }
    match schema["types"][kind].as_str().unwrap_or(kind) {
        "object_t" => {
            let name = rule["object_type"].as_str().unwrap();
            check_object(schema, &schema["objects"][name], profiles, value, at);
        }
        "string_t" => assert!(value.is_string(), "{at}: {value}"),
        "integer_t" | "long_t" => assert!(value.is_i64() || value.is_u64(), "{at}: {value}"),
        "boolean_t" => assert!(value.is_boolean(), "{at}: {value}"),
        "json_t" => {}
        other => panic!("{at}: a type that this test does not know: {other}"),
    }
}

fn check_ocsf(finding: &Value) {
    let schema = &*OCSF;
    assert_eq!(finding["metadata"]["version"], schema["version"]);
    let profiles = finding["metadata"]["profiles"].as_array().unwrap();
    check_object(schema, &schema["class"], profiles, finding, "");
    let (class, activity) = (finding["class_uid"].as_u64().unwrap(), finding["activity_id"].as_u64().unwrap());
    assert_eq!(finding["type_uid"], class * 100 + activity);
}

/// Checks an item of inventory against the limits of `InventoryItem` in the API reference of Systems Manager, of which the SSM Agent makes it.
fn check_inventory(item: &Value) {
    assert!(item["TypeName"].as_str().unwrap().starts_with("Custom:"));
    assert_eq!(item["SchemaVersion"], "1.0");
    let attributes = item["Content"].as_object().unwrap();
    assert!(attributes.len() <= 50);
    for (name, value) in attributes {
        assert!((1..=64).contains(&name.len()), "{name}");
        let value = value.as_str().unwrap_or_else(|| panic!("{name} is no text: {value}"));
        assert!(!value.is_empty() && value.chars().count() <= 4096, "{name}");
    }
}

/// The one finding about the node of a report.
fn asff_of(report: &AuditReport) -> Value {
    let [batch] = asff([report].into_iter()).unwrap().try_into().unwrap();
    let [finding] = batch.findings.try_into().unwrap();
    finding
}

#[test]
fn findings_are_what_the_security_hub_takes() {
    for (name, status, state, severity) in
        [("encrypted", "PASSED", "ARCHIVED", "INFORMATIONAL"), ("in-clear", "FAILED", "ACTIVE", "HIGH")]
    {
        let finding = asff_of(&example(name));
        check_asff(&finding);
        assert_eq!(finding["Compliance"]["Status"], status);
        assert_eq!(finding["RecordState"], state);
        assert_eq!(finding["FindingProviderFields"]["Severity"]["Label"], severity);
        // AWS's own control says something else
        assert_eq!(finding["GeneratorId"], "luks-agent/disks-encrypted");
        assert!(!finding.to_string().contains("EMR.3"));
    }
}

#[test]
fn a_finding_names_the_instance_the_key_and_the_volumes() {
    let finding = asff_of(&example("in-clear"));
    let resources = finding["Resources"].as_array().unwrap();
    let ids: Vec<(&str, &str)> =
        resources.iter().map(|r| (r["Type"].as_str().unwrap(), r["Id"].as_str().unwrap())).collect();
    let volume = |n| format!("arn:aws:ec2:us-east-1:111122223333:volume/vol-0123456789abcdef{n}");
    assert_eq!(
        ids,
        [
            ("AwsEc2Instance", "arn:aws:ec2:us-east-1:111122223333:instance/i-1234567890abcdef0"),
            ("AwsKmsKey", "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"),
            // the worst first
            ("AwsEc2Volume", &volume(2)),
            ("AwsEc2Volume", &volume(0)),
            ("AwsEc2Volume", &volume(1)),
        ]
    );
    // what EC2 calls encrypted is another matter
    assert!(resources.iter().all(|r| r["Details"]["AwsEc2Volume"].get("Encrypted").is_none()));
}

#[test]
fn the_id_of_a_finding_does_not_change_when_a_node_is_repaired() {
    let (bad, mut good) = (example("in-clear"), example("encrypted"));
    good.made = "2027-01-01T00:00:00Z".parse().unwrap();
    assert_eq!(asff_of(&bad)["Id"], asff_of(&good)["Id"]);
    assert_eq!(ocsf(&bad)["finding_info"]["uid"], ocsf(&good)["finding_info"]["uid"]);
    let mut other = bad.clone();
    other.node.instance_id = Some("i-0".to_owned());
    assert_ne!(asff_of(&bad)["Id"], asff_of(&other)["Id"]);
}

#[test]
fn the_product_is_in_the_partition_of_the_region() {
    for (region, arn) in [
        ("us-gov-west-1", "arn:aws-us-gov:securityhub:us-gov-west-1:111122223333:product/111122223333/default"),
        ("cn-north-1", "arn:aws-cn:securityhub:cn-north-1:111122223333:product/111122223333/default"),
    ] {
        let mut report = example("in-clear");
        report.node.region = Some(region.to_owned());
        let finding = asff_of(&report);
        check_asff(&finding);
        assert_eq!(finding["ProductArn"], arn);
    }
}

#[test]
fn a_call_has_a_hundred_findings_of_one_account_and_region() {
    let reports: Vec<AuditReport> = (0..250)
        .map(|n| {
            let mut report = example("in-clear");
            report.node.instance_id = Some(format!("i-{n:017x}"));
            report.node.region = Some(if n % 5 == 0 { "eu-west-1" } else { "us-east-1" }.to_owned());
            report
        })
        .collect();
    let batches = asff(reports.iter()).unwrap();
    let sizes: Vec<(&str, usize)> = batches.iter().map(|b| (b.region.as_str(), b.findings.len())).collect();
    assert_eq!(sizes, [("eu-west-1", 50), ("us-east-1", MAX_FINDINGS), ("us-east-1", MAX_FINDINGS)]);
}

#[test]
fn without_account_or_region_there_is_no_asff_but_ocsf_without_a_cloud() {
    let report = example("unknown-without-imds");
    let error = asff([&report].into_iter()).unwrap_err().to_string();
    assert!(error.starts_with("the report of 'ip-10-0-0-1' has no valid account and Region"), "{error}");
    let finding = ocsf(&report);
    check_ocsf(&finding);
    assert!(finding.get("cloud").is_none());
}

#[test]
fn findings_are_compliance_findings_of_ocsf() {
    for (name, compliance, activity, severity) in [("encrypted", 1, 3, 1), ("in-clear", 3, 1, 4)] {
        let finding = ocsf(&example(name));
        check_ocsf(&finding);
        assert_eq!(finding["compliance"]["status_id"], compliance);
        assert_eq!(finding["activity_id"], activity);
        assert_eq!(finding["severity_id"], severity);
        assert_eq!(finding["cloud"]["account"]["uid"], "111122223333");
    }
}

#[test]
fn what_does_not_fit_is_left_out_and_counted() {
    let mut report = example("in-clear");
    let emoji = "\u{1f600}".repeat(900);
    report.disks = vec![report.disks[0].clone(); 50];
    for disk in &mut report.disks {
        disk.reasons = vec![emoji.clone()];
        disk.role.clone_from(&emoji);
        disk.mounts = vec![emoji.clone().into()];
    }
    report.disks[49].verdict = Standing::NotEncrypted;
    let finding = asff_of(&report);
    check_asff(&finding);
    let resources = finding["Resources"].as_array().unwrap();
    assert_eq!(resources.len(), 32);
    assert_eq!(finding["ProductFields"]["luks-agent/resources-left-out"], "20");
    // the disk that fails is among the first
    assert_eq!(resources[2]["Details"]["Other"]["Verdict"], "not encrypted");
}

fn standing() -> impl Strategy<Value = Standing> {
    prop_oneof![
        Just(Standing::Encrypted),
        Just(Standing::Excepted),
        Just(Standing::Unknown),
        Just(Standing::NotEncrypted),
    ]
}

/// Short texts, long ones, ones that escape badly, and ones with nothing to see.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        vec(any::<char>(), 0..3000).prop_map(String::from_iter),
        Just("\u{1f600}".repeat(900)),
        Just("\u{0}\"\\".repeat(900)),
        Just(" \n".to_owned()),
        Just(String::new()),
    ]
}

fn time() -> impl Strategy<Value = Timestamp> {
    (0_i64..253_402_207_200, 0_i32..1_000_000_000).prop_map(|(s, ns)| Timestamp::new(s, ns).unwrap())
}

prop_compose! {
    fn disk()(
        texts in vec(text(), 7),
        optional in vec(option::of(text()), 5),
        (size, verdict, time) in (any::<u64>(), standing(), time()),
        is_ours in any::<bool>(),
    ) -> Disk {
        let encryption = Encryption {
            luks_uuid: texts[0].clone(),
            mapper: optional[0].clone(),
            cipher: texts[1].clone(),
            key_size: 512,
            sector_size: 4096,
            violation: optional[0].clone(),
        };
        Disk {
            device: optional[1].clone(),
            serial: optional[2].clone(),
            volume_id: optional[3].clone(),
            role: texts[2].clone(),
            role_because: optional[0].clone(),
            size,
            content: texts[3].clone(),
            verdict,
            reasons: vec![texts[4].clone(), texts[5].clone()],
            encryption: is_ours.then_some(encryption),
            key_arn: optional[4].clone(),
            formatted: Some(time),
            opened: None,
            proven: Some(Proven { at: time, by: Proof::Health }),
            mounts: vec![texts[6].clone().into()],
            evidence: Some(Evidence { read: time, block_size: 4096, blocks: 1, differ: 1, unwritten: 0 }),
        }
    }
}

prop_compose! {
    fn report()(
        texts in vec(text(), 5),
        optional in vec(option::of(text()), 6),
        (verdict, made) in (standing(), time()),
        reasons in vec(text(), 0..30),
        keys in vec((text(), any::<bool>(), option::of(text())), 0..7),
        disks in vec(disk(), 0..50),
    ) -> AuditReport {
        let mut report = example("in-clear");
        report.agent_version = texts[0].clone();
        report.configuration.sha256 = texts[1].clone();
        report.node.host_name = texts[2].clone();
        report.node.kernel = texts[3].clone();
        report.node.instance_id = optional[0].clone();
        report.node.instance_type = optional[1].clone();
        report.node.ami = optional[2].clone();
        report.node.availability_zone = optional[3].clone();
        report.keys = keys
            .into_iter()
            .map(|(key_arn, is_kms, state)| Key {
                key_arn,
                provider: if is_kms { "aws-kms".to_owned() } else { texts[4].clone() },
                wrapped: made,
                looked: None,
                error: state.clone(),
                state,
            })
            .collect();
        AuditReport { verdict, made, reasons, disks, ..report }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn findings_about_any_report_are_within_the_limits(report in report()) {
        check_asff(&asff_of(&report));
        check_ocsf(&ocsf(&report));
        check_inventory(&inventory(&report));
        let page = report.to_html();
        prop_assert!(page.ends_with("</html>\n"));
        prop_assert!(!page.contains("<script"));
    }
}
