//! The commands `audit convert` and `audit verify` as a person or a program meets them. Needs no privileges and touches nothing.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use luks_agent::audit::{AuditReport, PAYLOAD_TYPE};
use luks_agent::dsse::{Envelope, Signature, encode};
use predicates::prelude::*;
use predicates::str::{contains, is_empty, starts_with};
use rcgen::{KeyPair, SigningKey as _};
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

/// The public key in PEM and the envelope of a report that its private key signed.
fn signed(payload_type: &str, payload: &[u8]) -> (String, Envelope) {
    let key = KeyPair::generate().unwrap();
    let bytes = key.sign(&encode(payload_type, payload)).unwrap();
    let signature = Signature { key_id: Some("arn:aws:kms:example".to_owned()), bytes };
    let envelope = Envelope { payload: payload.to_vec(), payload_type: payload_type.to_owned(), signature };
    (key.public_key_pem(), envelope)
}

/// A directory with the public key, and `luks-agent audit verify` there. The envelope comes from standard input.
fn verify(pem: &str, envelope: impl Into<Vec<u8>>) -> (tempfile::TempDir, Command) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("key.pem"), pem).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_luks-agent"));
    command.env_clear().current_dir(dir.path()).args(["audit", "verify", "--public-key", "key.pem", "-"]);
    command.write_stdin(envelope);
    (dir, command)
}

#[track_caller]
fn not_verified(pem: &str, envelope: impl Into<Vec<u8>>, code: i32, says: &str) {
    let (_dir, mut command) = verify(pem, envelope);
    command.assert().code(code).stdout(is_empty()).stderr(contains(says));
}

#[test]
fn a_signed_report_is_printed_as_it_was_signed_and_can_be_converted() {
    let report = fs::read(reports().join("in-clear.json")).unwrap();
    let (pem, envelope) = signed(PAYLOAD_TYPE, &report);
    let (_dir, mut command) = verify(&pem, envelope.to_json());
    let printed = stdout(&mut command);
    assert_eq!(printed.as_bytes(), report);
    assert_eq!(findings(convert(&["-", "--format", "asff"]).write_stdin(printed)).len(), 1);
    convert(&["-", "--format", "asff"])
        .write_stdin(envelope.to_json())
        .assert()
        .code(2)
        .stdout(is_empty())
        .stderr(contains("standard input: a signed envelope; 'luks-agent audit verify --public-key KEY.pem ENVELOPE'"));
}

#[test]
fn a_signature_that_does_not_verify_fails() {
    let report = fs::read(reports().join("in-clear.json")).unwrap();
    let (pem, envelope) = signed(PAYLOAD_TYPE, &report);
    let (other, _) = signed(PAYLOAD_TYPE, &report);
    let says = "standard input: the signature does not verify with key.pem";
    not_verified(&other, envelope.to_json(), 1, says);
    not_verified(&other, envelope.to_json(), 1, "the envelope names the key 'arn:aws:kms:example'");
    let mut tampered = envelope.clone();
    tampered.payload[100] ^= 1;
    not_verified(&pem, tampered.to_json(), 1, says);
    let mut tampered = envelope;
    *tampered.signature.bytes.last_mut().unwrap() ^= 1;
    not_verified(&pem, tampered.to_json(), 1, says);
    // the type is signed, too
    let (pem, mut envelope) = signed("text/plain", &report);
    not_verified(&pem, envelope.to_json(), 2, "the payload type is 'text/plain', expected 'application/vnd.luks-agent");
    envelope.payload_type = PAYLOAD_TYPE.to_owned();
    not_verified(&pem, envelope.to_json(), 1, says);
}

#[test]
fn what_is_no_envelope_or_no_public_key_is_bad_input() {
    let report = fs::read(reports().join("in-clear.json")).unwrap();
    let (pem, envelope) = signed(PAYLOAD_TYPE, &report);
    let json = envelope.to_json();
    not_verified(&pem, report, 2, "standard input: an audit report without a signature");
    not_verified(&pem, "{}", 2, "standard input: not a DSSE envelope: missing field `payload`");
    let signature = json.split_once('[').unwrap().1.split_once(']').unwrap().0;
    let several = json.replace(signature, &format!("{signature},{signature}"));
    not_verified(&pem, several, 2, "the envelope has 2 signatures, expected one");
    not_verified("", json.as_str(), 2, "key.pem: no public key in PEM");
    let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().public_key_pem();
    not_verified(&ed25519, json.as_str(), 2, "key.pem: this kind of public key signs no audit reports");
    Command::new(env!("CARGO_BIN_EXE_luks-agent"))
        .args(["audit", "verify", "--public-key", "-", "-"])
        .assert()
        .code(2)
        .stderr(contains("'-' is given twice"));
}
