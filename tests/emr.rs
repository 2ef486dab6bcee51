//! EMR security configurations: the verdicts on public examples, and the commands `emr check` and `emr import` as a person or a program
//! meets them. Needs no privileges and touches nothing.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use luks_agent::config::{Config, Policy};
use luks_agent::emr::{CONTROLS, Document, Import, Judgement, ProblemKind, Verdict};
use predicates::prelude::*;
use predicates::str::{contains, is_empty, starts_with};
use serde_json::{Value, json};

const KEY: &str = "arn:aws:kms:us-east-1:111122223333:key/12345678-1234-1234-1234-123456789012";

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/emr")
}

fn read(name: &str) -> String {
    fs::read_to_string(fixtures().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// The table of expected verdicts: each file with its row by column.
fn expected() -> Vec<(String, BTreeMap<String, String>)> {
    let table = read("expected.tsv");
    let mut lines = table.lines().map(|line| line.split('\t').map(str::to_owned).collect::<Vec<_>>());
    let columns = lines.next().unwrap();
    lines.map(|row| (row[0].clone(), columns.iter().cloned().zip(row).collect())).collect()
}

fn documents(name: &str) -> Result<Vec<Document>, String> {
    Document::read_all(read(name).as_bytes()).map_err(|e| e.to_string())
}

/// `luks-agent emr` in the directory of the documents.
fn emr(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_luks-agent"));
    command.env_clear().current_dir(fixtures()).arg("emr").args(args);
    command
}

fn stdout(command: &mut Command) -> String {
    String::from_utf8(command.output().unwrap().stdout).unwrap()
}

fn parsed(command: &mut Command) -> Value {
    serde_json::from_str(&stdout(command)).unwrap()
}

#[test]
fn every_document_has_the_verdicts_of_the_table() {
    let mut seen = 0;
    for (name, row) in expected() {
        if row["local disks"] == "refuse" {
            assert!(documents(&name).is_err(), "{name} is taken for a security configuration");
            continue;
        }
        let [document] = documents(&name).unwrap_or_else(|e| panic!("{name}: {e}")).try_into().unwrap();
        let judgement = Judgement::of(&document);
        assert_eq!(
            judgement.local_disks.encryption.to_string(),
            row["local disks"],
            "{name}: {:?}",
            judgement.local_disks
        );
        for found in &judgement.controls {
            let Some(expected) = row.get(found.id) else { continue };
            let verdict = if found.verdict == Verdict::Pass { "PASS" } else { "FAIL" };
            assert_eq!(verdict, expected, "{name}: {} {}", found.id, found.reason);
            seen += 1;
        }
    }
    assert_eq!(seen, 45 * 6);
}

#[test]
fn the_table_has_every_document() {
    let in_table: Vec<String> = expected().into_iter().map(|(name, _)| name).collect();
    let mut files: Vec<String> =
        fs::read_dir(fixtures()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    files.retain(|name| name.ends_with(".json"));
    files.sort();
    assert_eq!(files, in_table);
}

#[test]
fn what_aws_documents_is_neither_invalid_nor_rejected() {
    let page = read("README.md");
    let rows = page.lines().filter(|line| line.contains("| documented |") || line.contains("| accepted |"));
    let mut seen = 0;
    for name in rows.map(|row| format!("{}.json", row.split('|').nth(1).unwrap().trim())) {
        for document in documents(&name).unwrap() {
            let problems = Judgement::of(&document).problems;
            let bad: Vec<_> = problems.iter().filter(|problem| problem.kind != ProblemKind::Doubtful).collect();
            assert!(bad.is_empty(), "{name}: {bad:?}");
            seen += 1;
        }
    }
    assert!(seen > 25, "{seen}");
}

#[test]
fn data_in_clear_behind_a_passing_control_is_told() {
    let hidden = |name: &str| {
        let found = Judgement::of(&documents(name).unwrap()[0]).hidden;
        found.into_iter().map(|hidden| (hidden.place.to_string(), hidden.controls)).collect::<Vec<_>>()
    };
    let disks = |controls: &[&'static str]| {
        ["boot volume", "EBS volumes", "instance store, other"]
            .map(|place| (place.to_owned(), controls.to_vec()))
            .to_vec()
    };
    // the seed of this command: the control passes, and no disk is encrypted
    assert_eq!(hidden("10-sse-s3-only.json"), disks(&["EMR.3"]));
    let mut everything = disks(&["EMR.3", CONTROLS[10].id]);
    everything.push(("in transit".to_owned(), vec![CONTROLS[10].id]));
    assert_eq!(hidden("41-at-rest-flag-only.json"), everything);
    assert_eq!(hidden("05-sse-s3-luks.json"), [("boot volume".to_owned(), vec!["EMR.3", "CKV_AWS_349"])]);
    assert_eq!(hidden("12-ebs-encryption.json"), []);
    let transit = hidden("31-transit-flag-without-configuration.json");
    assert_eq!(transit, [("in transit".to_owned(), vec!["EMR.4", "CKV_AWS_351", CONTROLS[10].id])]);
}

#[test]
fn what_a_template_does_not_say_yet_is_unknown_and_no_pass() {
    let mut document = inside("05-sse-s3-luks.json");
    document["EncryptionConfiguration"]["EnableAtRestEncryption"] = json!({"Fn::If": ["A", true, false]});
    let documents = Document::read_all(document.to_string().as_bytes()).unwrap();
    let judgement = Judgement::of(&documents[0]);
    assert_eq!(judgement.local_disks.encryption.to_string(), "unknown");
    let states: Vec<String> = judgement.encrypted.iter().map(|surface| surface.protection.to_string()).collect();
    assert_eq!(states, ["unknown", "unknown", "not by EMR", "unknown", "unknown", "in clear"]);
    assert!(judgement.has(ProblemKind::Invalid) && judgement.hidden.is_empty());
}

/// A template with one security configuration.
fn template(document: &Value) -> String {
    let resource =
        json!({"Type": "AWS::EMR::SecurityConfiguration", "Properties": {"SecurityConfiguration": document}});
    json!({"Resources": {"S": resource}}).to_string()
}

fn judged(file: &str) -> Judgement {
    Judgement::of(&Document::read_all(file.as_bytes()).unwrap()[0])
}

/// The places and names of the problems of a file.
fn problems(file: &str) -> Vec<(String, &'static str)> {
    let short = |at: &str| at.rsplit('/').take(2).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("/");
    judged(file).problems.iter().map(|problem| (short(problem.at.as_str()), problem.id)).collect()
}

#[test]
fn a_function_above_the_flags_leaves_everything_below_it_unknown() {
    let function = json!({"Fn::If": ["Prod", {"EnableAtRestEncryption": true}, {"Ref": "AWS::NoValue"}]});
    let whole = judged(&template(&json!({ "EncryptionConfiguration": function })));
    let states = |judgement: &Judgement| -> Vec<String> {
        judgement.encrypted.iter().map(|surface| surface.protection.to_string()).collect()
    };
    assert_eq!(whole.local_disks.encryption.to_string(), "unknown");
    assert_eq!(states(&whole), ["unknown", "unknown", "not by EMR", "unknown", "unknown", "unknown", "unknown"]);
    assert!(whole.hidden.is_empty() && whole.has(ProblemKind::Invalid));
    let at_rest = judged(&template(&json!({"EncryptionConfiguration": {
        "EnableAtRestEncryption": true, "AtRestEncryptionConfiguration": function}})));
    assert_eq!(at_rest.local_disks.encryption.to_string(), "unknown");
    assert_eq!(states(&at_rest), ["unknown", "unknown", "not by EMR", "unknown", "unknown", "in clear"]);
    let verdict = |id: &str| at_rest.controls.iter().find(|found| found.id == id).unwrap();
    assert_eq!((verdict("EMR.3").verdict, verdict("CKV_AWS_349").verdict), (Verdict::Pass, Verdict::Unknown));
    assert!(
        verdict("CT.EMR.PR.3").reason.contains("is not known before the deployment"),
        "{:?}",
        verdict("CT.EMR.PR.3")
    );
    assert!(at_rest.problems.iter().all(|problem| !problem.message.contains("missing")), "{:?}", at_rest.problems);

    let mut check = emr(&["check", "-", "--require", "EMR.3"]);
    check.write_stdin(template(&json!({ "EncryptionConfiguration": function }))).assert().code(2).stderr(
        contains("whether local disks are encrypted is not known: EnableAtRestEncryption is not known before")
            .and(contains("required control EMR.3 of Security Hub is unknown")),
    );
}

#[test]
fn a_reference_is_a_key_in_a_template_only() {
    let mut document = inside("11-luks-only.json");
    let local = "/EncryptionConfiguration/AtRestEncryptionConfiguration/LocalDiskEncryptionConfiguration";
    document.pointer_mut(local).unwrap()["AwsKmsKey"] = json!({"Ref": "Key"});
    let [in_template, alone, in_text] =
        [template(&document), document.to_string(), template(&json!(document.to_string()))].map(|file| {
            let judgement = judged(&file);
            (judgement.local_disks.encryption.to_string(), judgement.problems[0].id, judgement.problems[0].kind)
        });
    assert_eq!(in_template, ("LUKS".to_owned(), "unresolved", ProblemKind::Doubtful));
    for refused in [alone, in_text] {
        assert_eq!(refused, ("invalid".to_owned(), "wrong-type", ProblemKind::Invalid));
    }
    emr(&["check", "-"]).write_stdin(document.to_string()).assert().code(2).stderr(contains(
        r#"expected a string, found a function of CloudFormation outside of a template: {"Ref":"Key"}"#,
    ));
}

#[test]
fn parts_that_are_incomplete_are_told() {
    let s3 = |part: Value| {
        json!({"EncryptionConfiguration": {"EnableAtRestEncryption": true,
            "AtRestEncryptionConfiguration": {"S3EncryptionConfiguration": part}}})
        .to_string()
    };
    let kerberos = |part: Value| json!({"AuthenticationConfiguration": {"KerberosConfiguration": part}}).to_string();
    for (file, expected) in [
        (s3(json!({})), &[("S3EncryptionConfiguration/EncryptionMode", "s3-mode-missing")][..]),
        (
            s3(
                json!({"EncryptionMode": "SSE-S3", "Overrides": [{"BucketName": "b"}, {"EncryptionMode": "SSE-S3"}, {}]}),
            ),
            &[
                ("0/EncryptionMode", "s3-mode-missing"),
                ("1/BucketName", "override-without-bucket"),
                ("2/BucketName", "override-without-bucket"),
                ("2/EncryptionMode", "s3-mode-missing"),
            ],
        ),
        (
            s3(json!({"EncryptionMode": "SSE-KMS", "AwsKmsKey": ""})),
            &[("S3EncryptionConfiguration/AwsKmsKey", "empty-key")],
        ),
        (
            json!({"EncryptionConfiguration": {"EMRWALEncryptionConfiguration": {"AwsKmsKey": " "}}}).to_string(),
            &[("EMRWALEncryptionConfiguration/AwsKmsKey", "empty-key")],
        ),
        (kerberos(json!({})), &[("KerberosConfiguration/Provider", "kerberos-incomplete")]),
        (
            kerberos(json!({"Provider": "ExternalKdc"})),
            &[("KerberosConfiguration/ExternalKdcConfiguration", "kerberos-incomplete")],
        ),
    ] {
        let expected: Vec<(String, &str)> = expected.iter().map(|(at, id)| ((*at).to_owned(), *id)).collect();
        assert_eq!(problems(&file), expected, "{file}");
    }
    // what the service gets wrong is told once
    let mut document = inside("11-luks-only.json");
    document["EncryptionConfiguration"]["AtRestEncryptionConfiguration"]["LocalDiskEncryptionConfiguration"]["AwsKmsKey"] =
        json!("");
    assert_eq!(problems(&document.to_string()).len(), 1);
}

#[test]
fn other_encodings_and_yaml_are_told_with_the_remedy() {
    let wide: Vec<u8> = "\u{feff}{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let marked = json!({"Name": "n", "SecurityConfiguration": "\u{feff}{}"}).to_string().into_bytes();
    for (input, said) in [
        (wide, "standard input: UTF-16, expected UTF-8; convert it with 'iconv -f UTF-16 -t UTF-8 FILE'"),
        (
            b"Resources:\n  A: !Ref B\n".to_vec(),
            "this looks like YAML, expected JSON; convert a CloudFormation template with 'cfn-flip -j FILE'",
        ),
        (marked, "the text at /SecurityConfiguration begins with a byte order mark"),
    ] {
        emr(&["check", "-"]).write_stdin(input).assert().code(2).stdout(is_empty()).stderr(contains(said));
    }
    // one before the whole file does no harm
    let file = format!("\u{feff}{}", read("12-ebs-encryption.json"));
    emr(&["check", "-"]).write_stdin(file).assert().success();
}

#[test]
fn a_document_is_shown_as_tables() {
    insta::assert_snapshot!(stdout(&mut emr(&["check", "05-sse-s3-luks.json", "w5-cfn-intrinsic.json"])));
}

#[test]
fn the_exit_code_says_whether_it_will_do() {
    for (args, code, complaint) in [
        (&["12-ebs-encryption.json", "w1-describe.json"][..], 0, ""),
        (&["10-sse-s3-only.json"], 1, "10-sse-s3-only.json:5: local disks are in clear: there is no LocalDisk"),
        (&["28-cli-example.json", "--require", "EMR.3", "--require", "EMR.4"], 0, ""),
        (
            &["28-cli-example.json", "--require", "CT.EMR.PR.3"],
            1,
            "required control CT.EMR.PR.3 of Control Tower fails",
        ),
        (
            &["34-provider-type-unknown.json"],
            2,
            "unknown EncryptionKeyProviderType 'AwsS3', expected one of AwsKms, Custom",
        ),
        (&["43-empty.json"], 2, "the document is empty"),
        (&["47-not-the-emr-schema.json"], 2, "did you mean 'EncryptionConfiguration'?"),
        (&["48-emr-on-eks.json"], 2, "EMR on EKS"),
        (&["w8-list.json"], 2, "run 'aws emr describe-security-configuration --name NAME'"),
        (&["none.json"], 2, "cannot read none.json: No such file"),
        (&["."], 2, "cannot read .: Is a directory"),
        (&["-", "-"], 2, "'-' is given twice"),
        (&["28-cli-example.json", "--require", "EMR.5"], 2, "possible values: EMR.3, EMR.4"),
    ] {
        let assert = emr(&[&["check"], args].concat()).assert().code(code);
        match complaint {
            "" => assert.stderr(is_empty()),
            text => assert.stderr(contains(text)),
        };
    }
}

#[test]
fn one_file_that_cannot_be_read_stops_all_before_anything_is_printed() {
    let files = ["check", "12-ebs-encryption.json", "48-emr-on-eks.json", "none.json"];
    let both = contains("48-emr-on-eks.json: ").and(contains("cannot read none.json"));
    emr(&files).assert().code(2).stdout(is_empty()).stderr(both);
    let object = parsed(&mut emr(&[&files[..], &["--json"]].concat()));
    assert_eq!((&object["exit_code"], &object["files"]), (&json!(2), &json!([])));
    assert!(object["error"].as_str().unwrap().contains("EMR on EKS"), "{object}");
}

#[test]
fn bad_input_is_one_error_with_its_place() {
    let deep = format!("{}{}", "{\"a\":".repeat(70), "}".repeat(70));
    let large = " ".repeat(100 << 20);
    let local = |part: &str| {
        format!(
            r#"{{"EncryptionConfiguration": {{"EnableAtRestEncryption": true, "AtRestEncryptionConfiguration": {{"LocalDiskEncryptionConfiguration": {{{part}}}}}}}}}"#
        )
    };
    let key = format!(r#""EncryptionKeyProviderType": "AwsKms", "AwsKmsKey": "{KEY}""#);
    for (input, code, said) in [
        ("Resources:\n  A: b\n", 2, "standard input: expected value at line 1 column 1 (at the top level)"),
        ("{\"EncryptionConfiguration\": {\"EnableAtRestEncryption\": true,}}", 2, "trailing comma at line 1 column 61"),
        (&deep, 2, "nested more than 64 levels deep"),
        (&large, 2, "larger than 16 MiB"),
        (&local(&format!("{key}, \"AwsKmsKey\": 1")), 2, "duplicate key at line 1"),
        (&local(&format!("{key}, \"EnableEbsEncryption\": 1")), 2, "expected true or false, found a number: 1"),
        (
            &local(&format!("{key}, \"LocalDiskEncryptionKeyProvider\": \"x\"")),
            1,
            "expected one of EnableEbsEncryption, EncryptionKeyProviderType",
        ),
        (&local(r#""EncryptionKeyProviderType": "Kms", "AwsKmsKey": "x""#), 2, "did you mean 'AwsKms'?"),
        (&local(r#""EncryptionKeyProviderType": "Custom", "EnableEbsEncryption": true"#), 1, "AwsKms only"),
    ] {
        let assert = emr(&["check", "-"]).write_stdin(input).assert().code(code);
        assert.stderr(contains(said).and(contains("(at /").or(contains("(at the top level)").or(contains("MiB")))));
    }
}

#[test]
fn the_json_has_what_the_tables_have() {
    let object = parsed(&mut emr(&["check", "--json", "--require", "EMR.4", "05-sse-s3-luks.json"]));
    assert_eq!((&object["schema"], &object["exit_code"]), (&json!("luks-agent/emr-check"), &json!(1)));
    let document = &object["files"][0]["documents"][0];
    assert_eq!(document["form"], "document");
    assert_eq!(document["local_disks"]["encryption"], "luks");
    assert_eq!(document["local_disks"]["key"], KEY);
    let states: Vec<_> =
        document["encrypted"].as_array().unwrap().iter().map(|s| (&s["place"], &s["protection"])).collect();
    assert_eq!(states[0], (&json!("boot-volume"), &json!("in-clear")));
    assert_eq!(document["controls"].as_array().unwrap().len(), CONTROLS.len());
    assert_eq!(document["controls"][0]["at"], "/EncryptionConfiguration/EnableAtRestEncryption");
}

#[test]
fn sarif_names_rule_file_line_and_place() {
    let files = [
        "10-sse-s3-only.json",
        "w6-terraform-plan.json",
        "34-provider-type-unknown.json",
        "35-string-booleans-luks.json",
    ];
    let log = parsed(&mut emr(&[&["check", "--sarif", "--require", "CT.EMR.PR.3"], &files[..]].concat()));
    assert_eq!(log["version"], "2.1.0");
    let run = &log["runs"][0];
    let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
    let results = run["results"].as_array().unwrap();
    assert!(results.len() > 20, "{}", results.len());
    let mut prints = std::collections::BTreeSet::new();
    for result in results {
        let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
        assert_eq!(rules[index]["id"], result["ruleId"]);
        let place = &result["locations"][0]["physicalLocation"];
        let uri = place["artifactLocation"]["uri"].as_str().unwrap();
        assert!(files.contains(&uri), "{uri}");
        let line = usize::try_from(place["region"]["startLine"].as_u64().unwrap()).unwrap();
        assert!((1..=read(uri).lines().count()).contains(&line));
        assert!(prints.insert((uri, result["partialFingerprints"]["luksAgentEmr/v1"].as_str().unwrap())), "{result}");
    }
    let of = |rule: &str, uri: &str| {
        let is =
            |r: &&Value| r["ruleId"] == rule && r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == uri;
        let found = results.iter().find(is).unwrap_or_else(|| panic!("{uri}: no {rule}"));
        let line = found["locations"][0]["physicalLocation"]["region"]["startLine"].as_u64().unwrap();
        (found["level"].as_str().unwrap(), line)
    };
    assert_eq!(of("local-disks-in-clear", "10-sse-s3-only.json"), ("error", 5));
    assert_eq!(of("unknown-mode", "34-provider-type-unknown.json"), ("error", 9));
    assert_eq!(of("string-boolean", "35-string-booleans-luks.json"), ("warning", 10));
    // the whole document is one string, on one line
    assert_eq!(of("alias-arn", "w6-terraform-plan.json"), ("warning", 12));
    assert_eq!(of("CT.EMR.PR.3", "10-sse-s3-only.json").0, "error");
    assert_eq!(of("CT.EMR.PR.4", "10-sse-s3-only.json").0, "note");
}

/// The places and values of a document that hold no others.
fn leaves(value: &Value, at: String, found: &mut Vec<String>) {
    match value {
        Value::Object(object) if !object.is_empty() => {
            object.iter().for_each(|(key, value)| leaves(value, format!("{at}/{key}"), found));
        }
        Value::Array(items) if !items.is_empty() => {
            items.iter().enumerate().for_each(|(index, item)| leaves(item, format!("{at}/{index}"), found));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            found.push(at);
        }
    }
}

/// The document in a file, unwrapped by other means.
fn inside(name: &str) -> Value {
    let file: Value = serde_json::from_str(&read(name)).unwrap();
    let text = |value: &Value| serde_json::from_str(value.as_str().unwrap()).unwrap();
    match name {
        "w1-describe.json" | "w2-create-input.json" => text(&file["SecurityConfiguration"]),
        "w3-cfn-object.json" => {
            file["Resources"]["SecurityConfiguration"]["Properties"]["SecurityConfiguration"].clone()
        }
        "w6-terraform-plan.json" => {
            text(&file["planned_values"]["root_module"]["resources"][0]["values"]["configuration"])
        }
        "w9-inner-only.json" => json!({ "EncryptionConfiguration": file }),
        _ => file,
    }
}

#[test]
fn a_drop_in_does_what_the_document_says_and_passes_over_nothing() {
    let mut seen = 0;
    for (name, row) in expected() {
        let encryption = row["local disks"].as_str();
        if !["LUKS", "EBS encryption"].contains(&encryption) {
            continue;
        }
        let drop_in = stdout(&mut emr(&["import", &name]));
        let config =
            Config::from_text(Path::new("60-emr.toml"), &drop_in).unwrap_or_else(|e| panic!("{name}: {e}\n{drop_in}"));
        let ebs = if encryption == "LUKS" { Policy::Encrypt } else { Policy::Ignore };
        assert_eq!((config.volumes.instance_store, config.volumes.ebs), (Policy::Encrypt, ebs), "{name}");
        let document = inside(&name);
        let key = document.pointer(
            "/EncryptionConfiguration/AtRestEncryptionConfiguration/LocalDiskEncryptionConfiguration/AwsKmsKey",
        );
        assert_eq!(config.kms.key_id.as_deref(), key.and_then(Value::as_str), "{name}");
        let mut places = Vec::new();
        leaves(&document, String::new(), &mut places);
        for place in places.iter().filter(|place| !place.ends_with("/EnableAtRestEncryption")) {
            let is_named = drop_in
                .lines()
                .any(|line| line.contains(&format!("{place} = ")) || line.contains(&format!("({place})")));
            assert!(is_named, "{name}: nothing of {place} in\n{drop_in}");
        }
        for line in drop_in.lines().filter(|line| !line.starts_with(['#', '[']) && !line.is_empty()) {
            assert!(line.contains(" # "), "{name}: no reason beside {line}");
        }
        seen += 1;
    }
    assert!(seen > 9, "{seen}");
}

#[test]
fn drop_ins_are_as_before() {
    for name in ["05-sse-s3-luks", "06-pem-sse-kms-luks", "30-ebs-sse-s3", "w6-terraform-plan"] {
        insta::assert_snapshot!(name, stdout(&mut emr(&["import", &format!("{name}.json")])));
    }
}

#[test]
fn what_cannot_be_imported_is_told_with_the_remedy() {
    for (name, code, said) in [
        ("07-emr-tls-cse-kms-local-custom", 2, "Java class \"com.mycompany.MyKeyProvider\""),
        ("07-emr-tls-cse-kms-local-custom", 2, "set keys.provider = \"exec\", exec.command"),
        ("10-sse-s3-only", 1, "it encrypts no local disks: there is no LocalDiskEncryptionConfiguration"),
        (
            "37-ebs-false-only",
            1,
            "EnableAtRestEncryption is missing, so EMR does not use LocalDiskEncryptionConfiguration",
        ),
        ("34-provider-type-unknown", 2, "unknown EncryptionKeyProviderType 'AwsS3'"),
        ("43-empty", 2, "the document is empty"),
        ("w8-list", 2, "describe-security-configuration --name NAME"),
        ("48-emr-on-eks", 2, "EMR on EKS"),
    ] {
        let file = format!("{name}.json");
        let assert = emr(&["import", &file]).assert().code(code).stdout(is_empty());
        assert.stderr(starts_with(format!("luks-agent: {file}: ")).and(contains(said)));
        let object = parsed(&mut emr(&["import", "--json", &file]));
        assert_eq!((&object["exit_code"], &object["toml"]), (&json!(code), &Value::Null), "{name}");
    }
}

#[test]
fn a_key_that_is_none_or_hostile_gets_into_no_drop_in() {
    for key in [
        "alias/x",
        "1234abcd-12ab-34cd-56ef-1234567890ab",
        "arn:aws:kms:x:111122223333:key/1\"\n[exec]\ncommand = [\"/x\"]",
        "",
    ] {
        let mut document = inside("11-luks-only.json");
        document["EncryptionConfiguration"]["AtRestEncryptionConfiguration"]["LocalDiskEncryptionConfiguration"]["AwsKmsKey"] =
            json!(key);
        let assert = emr(&["import", "-"]).write_stdin(document.to_string()).assert();
        assert.code(2).stdout(is_empty()).stderr(contains("AwsKmsKey"));
    }
}

#[test]
fn a_hostile_text_stays_in_its_comment() {
    let mut document = inside("05-sse-s3-luks.json");
    document["AuthorizationConfiguration"] =
        json!({"EmrFsConfiguration": {"RoleMappings": [{"Role": "x\n[exec]\ncommand = [\"/bin/x\"]\u{1b}[2J"}]}});
    let file = json!({"Name": "n\n[exec]", "SecurityConfiguration": document.to_string()}).to_string();
    let drop_in = stdout(emr(&["import", "-"]).write_stdin(file.clone()));
    let config = Config::from_text(Path::new("x.toml"), &drop_in).unwrap();
    assert!(config.exec.is_none() && drop_in.contains("\\n[exec]"), "{drop_in}");
    let table = stdout(emr(&["check", "-"]).write_stdin(file));
    assert!(table.chars().all(|c| c == '\n' || !c.is_control()), "{table}");
}

#[test]
fn one_of_several_configurations_is_chosen_by_name() {
    let resource = |name: &str| json!({"Type": "AWS::EMR::SecurityConfiguration", "Properties": {"SecurityConfiguration": inside(name)}});
    let template =
        json!({"Resources": {"Luks": resource("11-luks-only.json"), "Ebs": resource("12-ebs-encryption.json")}});
    let import = |args: &[&str]| {
        let mut command = emr(&[&["import", "-"], args].concat());
        command.write_stdin(template.to_string());
        command.assert()
    };
    import(&[]).code(2).stderr(contains("several security configurations: Ebs, Luks; choose one with --name"));
    import(&["--name", "X"]).code(2).stderr(contains("no security configuration 'X'; it has: Ebs, Luks"));
    import(&["--name", "Ebs"]).success().stdout(contains("ebs = \"ignore\""));
    import(&["--name", "Luks"]).success().stdout(contains("ebs = \"encrypt\""));
    let mut check = emr(&["check", "-"]);
    check.write_stdin(template.to_string()).assert().success().stdout(contains("emr check: 2 checked"));
}

#[test]
fn the_import_in_json_has_the_drop_in() {
    let object = parsed(&mut emr(&["import", "--json", "30-ebs-sse-s3.json"]));
    assert_eq!((&object["schema"], &object["exit_code"]), (&json!("luks-agent/emr-import"), &json!(0)));
    assert_eq!(object["toml"].as_str().unwrap(), stdout(&mut emr(&["import", "30-ebs-sse-s3.json"])));
    let settings: Vec<String> = object["settings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| {
            format!(
                "{}.{}={}",
                s["section"].as_str().unwrap(),
                s["key"].as_str().unwrap(),
                s["value"].as_str().unwrap()
            )
        })
        .collect();
    assert_eq!(settings[2..], ["volumes.instance_store=encrypt", "volumes.ebs=ignore"]);
    assert_eq!(object["not_done"][0]["part"], "data in S3");
    let [document] = documents("30-ebs-sse-s3.json").unwrap().try_into().unwrap();
    assert_eq!(Import::of(&document, "30-ebs-sse-s3.json").unwrap().settings.len(), 4);
}

#[test]
fn the_loss_of_ebs_encryption_is_told_beside_the_setting_and_in_a_warning() {
    let object = parsed(&mut emr(&["import", "--json", "30-ebs-sse-s3.json"]));
    assert_eq!(object["settings"][3]["reason"], "left to EBS encryption, which must be turned on elsewhere: see below");
    let notes = object["notes"].to_string();
    for said in [
        "WARNING: a launch without LocalDiskEncryptionConfiguration also ends EBS encryption of the boot volume",
        "First turn on EBS encryption by default, with your KMS key",
        "volumes.ebs = \\\"encrypt\\\"",
    ] {
        assert!(notes.contains(said), "{notes}");
    }
    let luks = parsed(&mut emr(&["import", "--json", "05-sse-s3-luks.json"]))["notes"].to_string();
    assert!(!luks.contains("WARNING"), "{luks}");
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/emr.md")).unwrap();
    assert!(page.contains("aws ec2 enable-ebs-encryption-by-default") && !page.contains("| sudo tee"));
}

#[test]
fn the_import_tells_if_nothing_is_left_to_encrypt_at_rest() {
    let notes = |name: &str| parsed(&mut emr(&["import", "--json", name]))["notes"].to_string();
    let said = "EMR may refuse EnableAtRestEncryption true with nothing below it";
    assert!(notes("11-luks-only.json").contains(said) && !notes("05-sse-s3-luks.json").contains(said));
}

#[test]
fn local_disks_by_the_agent_are_told_and_do_not_fail() {
    let by_agent = "--local-disks-by-agent";
    let file = "10-sse-s3-only.json";
    let assert = emr(&["check", by_agent, file]).assert().success().stderr(is_empty());
    assert.stdout(contains("local disks: none, left to luks-agent").and(contains("1 with local disks in clear")));
    let object = parsed(&mut emr(&["check", by_agent, "--json", file]));
    assert_eq!((&object["local_disks_by_agent"], &object["exit_code"]), (&json!(true), &json!(0)));
    let log = parsed(&mut emr(&["check", by_agent, "--sarif", file]));
    let results = log["runs"][0]["results"].as_array().unwrap();
    let found = results.iter().find(|result| result["ruleId"] == "local-disks-in-clear").unwrap();
    assert_eq!(found["level"], "warning");
    // a required control still counts, and so does a part for local disks that cannot work
    emr(&["check", by_agent, "--require", "EMR.4", file]).assert().code(1).stderr(contains("EMR.4"));
    let mut broken = inside("11-luks-only.json");
    broken["EncryptionConfiguration"]["AtRestEncryptionConfiguration"]["LocalDiskEncryptionConfiguration"] = json!({});
    let mut check = emr(&["check", by_agent, "-"]);
    check.write_stdin(broken.to_string()).assert().code(1).stderr(contains("local disks are in clear"));
}

#[test]
fn many_documents_are_checked_in_linear_time() {
    let list = format!("[{}]", vec!["{}"; 10_000].join(",\n"));
    for format in [&[][..], &["--sarif"]] {
        let mut check = emr(&[&["check", "-"], format].concat());
        let assert = check.write_stdin(list.clone()).timeout(std::time::Duration::from_secs(60)).assert().code(2);
        assert.stderr(contains("standard input:9999: ").and(contains("standard input:10000: ")));
    }
}

#[test]
fn a_name_of_several_configurations_chooses_none() {
    let answer = |name: &str| json!({"Name": name, "SecurityConfiguration": read("11-luks-only.json")});
    let list = json!([answer("a"), answer("b"), answer("a")]).to_string();
    let import = |args: &[&str], list: &str| {
        let mut command = emr(&[&["import", "-"], args].concat());
        command.write_stdin(list.to_owned());
        command.assert()
    };
    let said = "several security configurations 'a': at /0/SecurityConfiguration, /2/SecurityConfiguration; import";
    import(&["--name", "a"], &list).code(2).stdout(is_empty()).stderr(contains(said));
    import(&["--name", "b"], &list).success();
    let many: Vec<Value> = (0..23).map(|n| answer(&format!("n{n}"))).collect();
    import(&[], &json!(many).to_string()).code(2).stderr(contains(", n19 and 3 more; choose one"));
}

#[test]
fn a_flag_that_says_neither_is_in_clear() {
    let file = json!({"EncryptionConfiguration": {"EnableInTransitEncryption": "yes"}}).to_string();
    let table = stdout(emr(&["check", "-"]).write_stdin(file));
    assert!(table.contains("in transit             in clear "), "{table}");
}

#[test]
fn documents_without_a_name_have_other_fingerprints() {
    let document = inside("10-sse-s3-only.json");
    let log = parsed(emr(&["check", "--sarif", "-"]).write_stdin(json!([document, document]).to_string()));
    let results = log["runs"][0]["results"].as_array().unwrap();
    let prints: std::collections::BTreeSet<String> =
        results.iter().map(|result| result["partialFingerprints"].to_string()).collect();
    assert_eq!(prints.len(), results.len());
}

#[test]
fn a_drop_in_has_long_values_whole() {
    let mut document = inside("11-luks-only.json");
    let role = format!("arn:aws:iam::111122223333:role/{}", "x".repeat(300));
    document["AuthorizationConfiguration"] = json!({"EmrFsConfiguration": {"RoleMappings": [{"Role": role}]}});
    let drop_in = stdout(emr(&["import", "-"]).write_stdin(document.to_string()));
    assert!(drop_in.contains(&format!("Role = \"{role}\"\n")), "{drop_in}");
}
