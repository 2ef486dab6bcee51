//! The command `audit convert` as a person or a program meets it. Needs no privileges and touches nothing.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use luks_agent::audit::AuditReport;
use predicates::prelude::*;
use predicates::str::{contains, is_empty, starts_with};
use serde_json::Value;

fn reports() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/audit")
}

/// `luks-agent audit convert` in the directory of the examples.
fn convert(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_luks-agent"));
    command.env_clear().current_dir(reports()).args(["audit", "convert"]).args(args);
    command
}

fn stdout(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn findings(command: &mut Command) -> Vec<Value> {
    serde_json::from_str(&stdout(command)).unwrap()
}

#[test]
fn converts_failing_nodes_only_unless_all() {
    for format in ["asff", "ocsf"] {
        assert_eq!(findings(&mut convert(&["in-clear.json", "--format", format])).len(), 1);
        assert_eq!(findings(&mut convert(&["encrypted.json", "--format", format, "--all"])).len(), 1);
        convert(&["encrypted.json", "--format", format])
            .assert()
            .code(0)
            .stdout("[]\n")
            .stderr(contains("no finding: the disks of all 1 nodes are encrypted or excepted"));
    }
}

#[test]
fn reads_standard_input_and_takes_the_newest_report_of_a_node() {
    let text = fs::read_to_string(reports().join("encrypted.json")).unwrap();
    let newer = text.replace("\"made\": \"2026-01-02T03:04:05Z\"", "\"made\": \"2026-01-03T03:04:05Z\"");
    assert_ne!(text, newer);
    let found = findings(convert(&["in-clear.json", "-", "--format", "asff", "--all"]).write_stdin(newer));
    let [finding] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(finding["Compliance"]["Status"], "PASSED");
    assert_eq!(finding["UpdatedAt"], "2026-01-03T03:04:05.000Z");
}

#[test]
fn html_is_a_page_about_one_node() {
    assert!(stdout(&mut convert(&["in-clear.json", "--format", "html"])).starts_with("<!DOCTYPE html>"));
    convert(&["in-clear.json", "unknown-without-imds.json", "--format", "html"])
        .assert()
        .code(2)
        .stdout(is_empty())
        .stderr(contains("a page is about one node; give the report of one"));
}

#[test]
fn inventory_is_a_row_about_one_node() {
    let item: Value = serde_json::from_str(&stdout(&mut convert(&["in-clear.json", "--format", "inventory"]))).unwrap();
    assert_eq!(item["TypeName"], "Custom:LuksAgentDisks");
    assert_eq!(item["Content"]["Verdict"], "not encrypted");
    convert(&["in-clear.json", "unknown-without-imds.json", "--format", "inventory"])
        .assert()
        .code(2)
        .stdout(is_empty())
        .stderr(contains("inventory is about one node; give the report of one"));
}

#[test]
fn a_file_that_cannot_be_read_leaves_nothing_converted() {
    let text = fs::read_to_string(reports().join("in-clear.json")).unwrap();
    let edited = text.replacen("\"not-encrypted\"", "\"encrypted\"", 1);
    convert(&["in-clear.json", "-", "--format", "ocsf"])
        .write_stdin(edited)
        .assert()
        .code(2)
        .stdout(is_empty())
        .stderr(
            starts_with("luks-agent: standard input: the report contradicts itself: ").and(contains("(at /verdict)")),
        );
    convert(&["none.json", "later.json", "--format", "asff"])
        .assert()
        .code(2)
        .stderr(contains("cannot read none.json").and(contains("later.json: made by a later luks-agent")));
    convert(&["unknown-without-imds.json", "--format", "asff"])
        .assert()
        .code(2)
        .stderr(contains("has no valid account and Region"));
}

#[test]
fn more_than_one_call_takes_go_into_files() {
    let dir = tempfile::tempdir().unwrap();
    let example = AuditReport::read(&fs::read(reports().join("in-clear.json")).unwrap()).unwrap();
    let mut files = Vec::new();
    for n in 0..101 {
        let mut report = example.clone();
        report.node.instance_id = Some(format!("i-{n:017x}"));
        report.node.identity_document = None;
        let path = dir.path().join(format!("{n}.json"));
        fs::write(&path, serde_json::to_string(&report).unwrap()).unwrap();
        files.push(path.to_str().unwrap().to_owned());
    }
    let mut args: Vec<&str> = files.iter().map(String::as_str).chain(["--format", "asff"]).collect();
    convert(&args).assert().code(2).stdout(is_empty()).stderr(contains("101 findings need 2 calls"));
    let out = dir.path().join("out");
    args.extend(["--output-dir", out.to_str().unwrap()]);
    let names = stdout(&mut convert(&args));
    let sizes: Vec<usize> = names
        .lines()
        .map(|name| serde_json::from_slice::<Vec<Value>>(&fs::read(name).unwrap()).unwrap().len())
        .collect();
    assert_eq!(sizes, [100, 1]);
    assert!(names.lines().all(|name| name.contains("findings-111122223333-us-east-1-000")), "{names}");
    // what an earlier run left there would be imported, too
    convert(&args).assert().code(1).stderr(contains("is not empty"));
}
