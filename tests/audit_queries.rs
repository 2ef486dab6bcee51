//! The queries for Athena in `packaging/athena`, run by DuckDB over the rows of 10,000 nodes, against counts of the test's own.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::Command;

use jiff::{SignedDuration, Timestamp};
use luks_agent::audit::{AuditReport, Disk, Standing};
use serde_json::Value;

const NODES: u32 = 10_000;

/// What the queries should find.
#[derive(Default)]
struct Expected {
    in_clear: BTreeSet<String>,
    unknown: BTreeSet<String>,
    depends_on_key: BTreeSet<String>,
    not_proven: BTreeSet<String>,
    silent: BTreeSet<String>,
    /// Nodes by Region and verdict.
    nodes: BTreeMap<(String, &'static str), u64>,
    /// Attached disks and their bytes by account and verdict.
    coverage: BTreeMap<(String, &'static str), (u64, u64)>,
}

/// A bucket in the layout of the table: a directory for each day.
struct Bucket<'d> {
    dir: &'d Path,
    files: BTreeMap<String, BufWriter<File>>,
}

impl Bucket<'_> {
    fn put(&mut self, report: &AuditReport) {
        let day = report.made.strftime("%Y-%m-%d").to_string();
        let dir = self.dir.join(format!("day={day}"));
        let file = self.files.entry(day).or_insert_with(|| {
            fs::create_dir(&dir).unwrap();
            BufWriter::new(File::create(dir.join("reports.json")).unwrap())
        });
        file.write_all(report.to_rows().as_bytes()).unwrap();
    }
}

fn example(name: &str) -> AuditReport {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fuzz/seeds/audit/{name}.json"));
    AuditReport::read(&fs::read(path).unwrap()).unwrap()
}

fn days(days: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * days)
}

fn key(number: u32) -> String {
    format!("arn:aws:kms:us-east-1:111122223333:key/{number:08x}-0000-0000-0000-000000000000")
}

/// Node number `n`, and what is expected of it.
fn node(n: u32, now: Timestamp, expected: &mut Expected) -> AuditReport {
    let id = format!("i-{n:017x}");
    let mut report = example(if n.is_multiple_of(50) { "in-clear" } else { "encrypted" });
    let account = format!("{:012}", 100 + n % 3);
    report.node.instance_id = Some(id.clone());
    report.node.account = Some(account.clone());
    let region = if n.is_multiple_of(2) { "eu-west-1" } else { "us-east-1" };
    report.node.region = Some(region.to_owned());
    report.made = now - SignedDuration::from_mins(10);
    if n.is_multiple_of(31) {
        report.made = now - days(5);
        expected.silent.insert(id.clone());
    }
    if n.is_multiple_of(50) {
        expected.in_clear.insert(id.clone());
    } else if n.is_multiple_of(97) {
        report.verdict = Standing::Unknown;
        report.reasons = vec!["nvme7n1: the kernel's facts about it could not be read".to_owned()];
        expected.unknown.insert(id.clone());
    }
    let volume = &mut report.disks[1];
    volume.key_arn = Some(key(n % 7));
    if n % 7 == 3 {
        expected.depends_on_key.insert(id.clone());
    }
    let proven = volume.proven.as_mut().unwrap();
    proven.at = now;
    if n % 10 == 1 {
        proven.at = now - days(9);
        expected.not_proven.insert(id);
    } else if n % 10 == 2 {
        volume.proven = None;
        expected.not_proven.insert(id);
    }
    for Disk { verdict, size, .. } in &report.disks {
        let (disks, bytes) = expected.coverage.entry((account.clone(), word(*verdict))).or_default();
        *disks += 1;
        *bytes += size;
    }
    *expected.nodes.entry((region.to_owned(), word(report.verdict))).or_default() += 1;
    if n.is_multiple_of(11) {
        let mut away = report.disks[0].clone();
        (away.device, away.verdict) = (None, Standing::Unknown);
        report.disks.push(away);
    }
    report
}

fn word(verdict: Standing) -> &'static str {
    match verdict {
        Standing::Encrypted => "encrypted",
        Standing::Excepted => "excepted",
        Standing::Unknown => "unknown",
        Standing::NotEncrypted => "not-encrypted",
    }
}

/// The nodes in the answer to a query.
fn nodes(answers: &Value, query: &str) -> BTreeSet<String> {
    answers[query].as_array().unwrap().iter().map(|row| row["node"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_auditors_questions_have_the_right_answers() {
    let dir = tempfile::tempdir().unwrap();
    let (now, mut expected) = (Timestamp::now(), Expected::default());
    let mut bucket = Bucket { dir: dir.path(), files: BTreeMap::new() };
    for n in 0..NODES {
        let report = node(n, now, &mut expected);
        // it was worse before, and again so long ago that nobody asks
        for age in [10, 40] {
            let mut former = example("in-clear");
            former.node = report.node.clone();
            former.made = now - days(age);
            bucket.put(&former);
        }
        bucket.put(&report);
    }
    let mut gone = example("in-clear");
    gone.made = now - days(40);
    bucket.put(&gone);
    drop(bucket);

    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let venv = Command::new(project.join("scripts/deps.sh")).arg("--duckdb-dir").output().unwrap().stdout;
    let python = Path::new(String::from_utf8(venv).unwrap().trim_end()).join("bin/python3");
    assert!(python.exists(), "{} is missing; run 'scripts/deps.sh test'", python.display());
    let output = Command::new(python)
        .arg(project.join("tests/queries/run.py"))
        .args([dir.path(), &project.join("packaging/athena")])
        .arg(key(3))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answers: Value = serde_json::from_slice(&output.stdout).unwrap();

    assert_eq!(nodes(&answers, "in-clear"), expected.in_clear);
    // one disk of each, and not all its disks
    assert_eq!(answers["in-clear"].as_array().unwrap().len(), expected.in_clear.len());
    assert_eq!(nodes(&answers, "unknown"), expected.unknown);
    assert_eq!(nodes(&answers, "depends-on-key"), expected.depends_on_key);
    assert_eq!(nodes(&answers, "not-proven"), expected.not_proven);
    assert_eq!(nodes(&answers, "silent"), expected.silent);
    assert!([&expected.in_clear, &expected.unknown, &expected.silent].iter().all(|nodes| nodes.len() > 90));
    let mut coverage: BTreeMap<(String, &str), (u64, u64)> = BTreeMap::new();
    for row in answers["coverage"].as_array().unwrap() {
        let text = |name: &str| row[name].as_str().unwrap();
        let (disks, bytes) = coverage.entry((text("account").to_owned(), text("verdict"))).or_default();
        *disks += row["disks"].as_u64().unwrap();
        *bytes += row["bytes"].as_u64().unwrap();
    }
    assert_eq!(coverage, expected.coverage);
    let mut nodes: BTreeMap<(String, &str), u64> = BTreeMap::new();
    for row in answers["nodes"].as_array().unwrap() {
        let text = |name: &str| row[name].as_str().unwrap();
        *nodes.entry((text("region").to_owned(), text("node_verdict"))).or_default() += row["nodes"].as_u64().unwrap();
    }
    assert_eq!(nodes, expected.nodes);
    let excepted: u64 = answers["excepted"].as_array().unwrap().iter().map(|row| row["disks"].as_u64().unwrap()).sum();
    assert_eq!(excepted, u64::from(NODES));
    assert_eq!(answers.as_object().unwrap().len(), 8, "a query without a check");
}
