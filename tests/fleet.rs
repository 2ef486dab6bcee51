//! The command `audit fleet` as a person or a program meets it. Needs no privileges and touches nothing.
//!
//! [`ten_thousand_reports_take_less_than_a_minute_and_a_gibibyte`] is slow and only runs when asked for.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "fleet/generated.rs"]
mod generated;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use assert_cmd::Command;
use generated::{EVERYTHING, generate};
use jiff::{SignedDuration, Timestamp};
use predicates::prelude::*;
use predicates::str::{contains, is_empty};
use serde_json::{Value, json};

/// `luks-agent audit fleet` in a directory.
fn fleet(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_luks-agent"));
    command.env_clear().current_dir(dir).args(["audit", "fleet"]).args(args);
    command
}

fn read(file: &Path) -> Value {
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

fn list<'v>(value: &'v Value, field: &str) -> &'v [Value] {
    value[field].as_array().unwrap()
}

/// Finds the newest report of each node by the rules of the documentation, from the files alone.
fn newest(dir: &Path) -> Vec<Value> {
    let mut newest: BTreeMap<String, Value> = BTreeMap::new();
    for entry in fs::read_dir(dir.join("reports")).unwrap() {
        let report = read(&entry.unwrap().path());
        let node = report["node"]["instance_id"].as_str().or(report["node"]["host_name"].as_str()).unwrap().to_owned();
        let is_older = newest.get(&node).is_some_and(|known| known["made"].as_str() > report["made"].as_str());
        if !is_older {
            newest.insert(node, report);
        }
    }
    newest.into_values().collect()
}

fn tally(found: impl Iterator<Item = (Value, u64)>) -> Value {
    let mut tally = json!({"encrypted": 0, "excepted": 0, "unknown": 0, "not_encrypted": 0});
    for (verdict, count) in found {
        let field = verdict.as_str().unwrap().replace('-', "_");
        tally[&field] = json!(tally[&field].as_u64().unwrap() + count);
    }
    tally
}

#[test]
fn every_figure_is_the_one_that_counting_by_other_means_gives() {
    let dir = tempfile::tempdir().unwrap();
    generate(dir.path(), 300);
    fleet(dir.path(), &EVERYTHING).assert().code(1).stdout(contains("audit fleet: this fleet is not encrypted"));
    let summary = read(&dir.path().join("fleet.json"));
    let reports = newest(dir.path());
    let disks: Vec<&Value> = reports.iter().flat_map(|report| list(report, "disks")).collect();
    let attached: Vec<&&Value> = disks.iter().filter(|disk| !disk["device"].is_null()).collect();
    let coverage = json!({
        "nodes": tally(reports.iter().map(|report| (report["verdict"].clone(), 1))),
        "volumes": tally(attached.iter().map(|disk| (disk["verdict"].clone(), 1))),
        "bytes": tally(attached.iter().map(|disk| (disk["verdict"].clone(), disk["size"].as_u64().unwrap()))),
        "detached": disks.len() - attached.len(),
    });
    assert_eq!(summary["coverage"], coverage);
    assert_eq!(summary["reports"]["counted"], json!(reports.len()));
    let files = fs::read_dir(dir.path().join("reports")).unwrap().count();
    assert_eq!(summary["reports"]["older"], json!(files - reports.len()));
    assert!(files > reports.len());

    for key in list(&summary, "keys") {
        let depends: Vec<&&Value> = disks.iter().filter(|disk| disk["key_arn"] == key["key_arn"]).collect();
        let bytes: u64 = depends.iter().map(|disk| disk["size"].as_u64().unwrap()).sum();
        let on = |report: &&Value| list(report, "disks").iter().any(|disk| disk["key_arn"] == key["key_arn"]);
        assert_eq!(key["volumes"], json!(depends.len()));
        assert_eq!(key["bytes"], json!(bytes));
        assert_eq!(list(key, "nodes").len(), reports.iter().filter(on).count());
    }
    assert!(list(&summary, "keys").len() > 3);

    let volumes_of_the_agent = attached.iter().filter(|disk| !disk["key_arn"].is_null());
    let proofs: Vec<&str> = volumes_of_the_agent.clone().filter_map(|disk| disk["proven"]["at"].as_str()).collect();
    assert_eq!(summary["proofs"]["oldest"]["at"].as_str(), proofs.iter().min().copied());
    assert_eq!(summary["proofs"]["unproven"], json!(volumes_of_the_agent.count() - proofs.len()));

    let excepted: u64 = list(&summary, "exceptions").iter().map(|e| e["volumes"].as_u64().unwrap()).sum();
    assert_eq!(excepted, attached.iter().filter(|disk| disk["verdict"] == "excepted").count() as u64);
}

#[test]
fn what_ec2_says_is_counted_right() {
    let dir = tempfile::tempdir().unwrap();
    generate(dir.path(), 300);
    fleet(dir.path(), &EVERYTHING).assert().code(1);
    let summary = read(&dir.path().join("fleet.json"));
    let reports = newest(dir.path());
    let reported: BTreeSet<&str> = reports.iter().filter_map(|report| report["node"]["instance_id"].as_str()).collect();
    let mut silent = BTreeSet::new();
    let (mut resolved, mut open) = (0, 0);
    let answer = read(&dir.path().join("volumes.json"));
    for volume in list(&answer, "Volumes") {
        let [attachment] = list(volume, "Attachments") else { continue };
        let instance = attachment["InstanceId"].as_str().unwrap();
        if !reported.contains(instance) {
            silent.insert(instance);
        }
        let report = reports.iter().find(|report| report["node"]["instance_id"] == instance);
        let disk = report.and_then(|r| list(r, "disks").iter().find(|disk| disk["volume_id"] == volume["VolumeId"]));
        match disk {
            _ if volume["Encrypted"] == true => {}
            Some(disk) if disk["verdict"] == "encrypted" => resolved += 1,
            _ => open += 1,
        }
    }
    let found: BTreeSet<&str> =
        list(&summary, "silent").iter().map(|node| node["instance_id"].as_str().unwrap()).collect();
    assert_eq!(found, silent);
    assert!(silent.len() > 3 && resolved > 100 && open > 10, "{} {resolved} {open}", silent.len());
    assert_eq!((&summary["volumes"]["resolved"], &summary["volumes"]["open"]), (&json!(resolved), &json!(open)));
    assert_eq!(list(&summary["volumes"], "unencrypted_by_ec2").len(), resolved + open);

    let clusters: BTreeMap<&str, u64> = list(&summary, "clusters")
        .iter()
        .map(|cluster| (cluster["id"].as_str().unwrap(), cluster["nodes"].as_u64().unwrap()))
        .collect();
    let tagged = list(&summary, "nodes").iter().filter(|node| !node["cluster_id"].is_null()).count();
    assert_eq!(clusters.values().sum::<u64>(), tagged as u64);
    let configured: u64 = list(&summary, "configurations").iter().map(|c| c["nodes"].as_u64().unwrap()).sum();
    let named = list(&summary, "nodes").iter().filter(|node| !node["security_configuration"].is_null()).count();
    assert_eq!(configured, named as u64);
    assert!(configured > 100, "{configured}");
}

#[test]
fn a_file_that_cannot_be_read_leaves_nothing_written() {
    let dir = tempfile::tempdir().unwrap();
    generate(dir.path(), 3);
    let outputs = ["fleet.html", "fleet.json"];
    let good = fs::read_to_string(dir.path().join("volumes.json")).unwrap();
    for (file, text, complaint) in [
        ("reports/bad.json", "{", "reports/bad.json: not JSON: EOF while parsing an object at line 1 column 1"),
        ("volumes.json", "{}", "volumes.json: not the answer of 'aws ec2 describe-volumes': missing field `Volumes`"),
        ("instances.json", &good, "instances.json: not the answer of 'aws ec2 describe-instances': missing field"),
        ("clusters/bad.json", "[]", "clusters/bad.json: not the answer of 'aws emr describe-cluster'"),
        ("configurations/bad.json", "{\"x\": 1}", "configurations/bad.json: not an EMR security configuration"),
    ] {
        let path = dir.path().join(file);
        let before = fs::read(&path).ok();
        fs::write(&path, text).unwrap();
        let assert = fleet(dir.path(), &EVERYTHING).assert().code(2).stdout(is_empty()).stderr(contains(complaint));
        assert_eq!(assert.get_output().stderr.iter().filter(|byte| **byte == b'\n').count(), 1, "{file}");
        assert!(outputs.iter().all(|output| !dir.path().join(output).exists()), "{file}");
        match before {
            Some(before) => fs::write(&path, before).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
    }
    let nowhere = ["reports", "--html", "fleet.html", "--json", "none/fleet.json"];
    fleet(dir.path(), &nowhere).assert().code(1).stdout(is_empty()).stderr(contains("none/fleet.json"));
    assert!(!dir.path().join("fleet.html").exists());
    fleet(dir.path(), &["reports", "--html", "x", "--json", "x"]).assert().code(2).stderr(contains("the same file"));
    fleet(dir.path(), &["clusters"]).assert().code(2).stderr(contains("not an audit report"));
    fs::create_dir(dir.path().join("empty")).unwrap();
    fleet(dir.path(), &["empty"]).assert().code(2).stderr(contains("no file whose name ends in .json"));
}

#[test]
fn reports_alone_are_enough_and_a_good_fleet_exits_with_0() {
    let reports = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/audit");
    let old = fs::read_to_string(reports.join("encrypted.json")).unwrap();
    let made = |at: Timestamp| old.replace("\"made\": \"2026-01-02T03:04:05Z\"", &format!("\"made\": \"{at}\""));
    fleet(&reports, &["-"]).write_stdin(made(Timestamp::now())).assert().code(0).stdout(
        contains("audit fleet: every disk of these nodes is encrypted or excepted")
            .and(contains("silent nodes: not known without --volumes or --instances")),
    );
    let unknown = contains("it could not be shown that every disk of this fleet is encrypted or excepted");
    for (text, reason) in [
        (old.clone(), "nodes whose newest report is more than 7 days old: 1"),
        (made(Timestamp::now() + SignedDuration::from_hours(1)), "nodes whose newest report is from the future: 1"),
    ] {
        fleet(&reports, &["-"]).write_stdin(text).assert().code(1).stdout(unknown.clone().and(contains(reason)));
    }
    let text = fs::read(reports.join("in-clear.json")).unwrap();
    fleet(&reports, &["-"])
        .write_stdin(text)
        .assert()
        .code(1)
        .stdout(contains("nodes with a disk that is not encrypted: 1"));
}

#[test]
#[ignore = "slow: writes 10,000 reports"]
#[allow(clippy::print_stdout, reason = "the figures are what somebody runs it for")]
fn ten_thousand_reports_take_less_than_a_minute_and_a_gibibyte() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    generate(dir.path(), 10_000);
    let began = Instant::now();
    let mut command = std::process::Command::new("/usr/bin/time");
    command.current_dir(dir.path()).args(["-f", "%M"]).arg(env!("CARGO_BIN_EXE_luks-agent"));
    let output = command.args(["audit", "fleet"]).args(EVERYTHING).output().unwrap();
    let took = began.elapsed();
    let said = String::from_utf8(output.stderr).unwrap();
    let kib: u64 = said.lines().next_back().unwrap().parse().unwrap();
    let size = |name: &str| fs::metadata(dir.path().join(name)).unwrap().len() >> 20;
    println!(
        "{took:?}, {} MiB of memory, {} MiB of HTML, {} MiB of JSON",
        kib >> 10,
        size("fleet.html"),
        size("fleet.json")
    );
    if let Some(kept) = std::env::var_os("KEEP_FLEET") {
        fs::rename(dir.keep(), kept).unwrap();
    }
    assert!(took < Duration::from_secs(60) && kib < 1 << 20, "{took:?}, {kib} KiB");
}
