//! Findings made of audit reports, against what the owners of their formats publish: `tests/fixtures/audit/README.md` says where that is
//! from. Needs no privileges and touches nothing.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use jiff::Timestamp;
use luks_agent::audit::{
    AuditReport, Disk, Encryption, Evidence, Key, MAX_FINDINGS, Proof, Proven, Standing, asff, inventory, ocsf,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::Value;
use support::findings::{check_asff, check_inventory, check_ocsf, read};

fn example(name: &str) -> AuditReport {
    AuditReport::read(read(&format!("fuzz/seeds/audit/{name}.json")).as_bytes()).unwrap()
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
