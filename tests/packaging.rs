//! What is in `packaging/` and its pages, against the agent, its units and its version.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use luks_agent::config::Config;
use luks_agent::kms::Operation;
use serde_json::Value;

const POLICIES: [&str; 5] = ["admin-policy", "key-policy", "node-policy", "node-trust-policy", "operator-policy"];

fn at(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn file(path: &str) -> String {
    fs::read_to_string(at(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn files(dir: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(at(dir)).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let path = format!("{dir}/{name}");
        if at(&path).is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// The ways onto a node, and their pages.
fn ways() -> Vec<String> {
    let dirs = ["packaging/ansible", "packaging/cloud-init", "packaging/emr", "packaging/packer"];
    let pages = ["docs/ansible.md", "docs/cloud-init.md", "docs/emr-ami.md", "docs/emr-bootstrap.md"];
    dirs.into_iter().flat_map(files).chain(pages.map(str::to_owned)).collect()
}

/// The words of a text that can be names of files.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || "-._".contains(c)));
    words.map(|word| word.trim_end_matches('.'))
}

fn statements(policy: &str) -> Vec<Value> {
    let policy: Value = serde_json::from_str(&file(&format!("packaging/iam/{policy}.json"))).unwrap();
    policy["Statement"].as_array().unwrap().clone()
}

/// The actions that a statement allows.
fn allowed(policy: &str, sid: &str) -> BTreeSet<String> {
    let statement = statements(policy).into_iter().find(|statement| statement["Sid"] == sid);
    let statement = statement.unwrap_or_else(|| panic!("{policy} has no statement {sid}"));
    assert_eq!(statement["Effect"], "Allow");
    let actions = statement["Action"].as_array().unwrap();
    actions.iter().map(|action| action.as_str().unwrap().to_owned()).collect()
}

/// A list of actions in the Terraform module.
fn listed(name: &str) -> BTreeSet<String> {
    let text = file("packaging/terraform/main.tf");
    let (_, rest) = text.split_once(&format!("\n  {name} = [\n")).unwrap_or_else(|| panic!("no list {name}"));
    let (list, _) = rest.split_once(']').unwrap();
    list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The permission that an operation needs.
fn action(operation: Operation) -> Option<String> {
    match operation {
        // IMDS is asked, and no permission needed
        Operation::FindRegion | Operation::GetCredentials => None,
        // `rewrap` alone calls it, and is allowed for that day: docs/iam.md has the statement
        Operation::ReEncrypt => None,
        // `audit` alone calls it, if reports are signed: docs/iam.md has the statement
        Operation::Sign => None,
        // the customer's program needs none of AWS
        Operation::Generate | Operation::Unwrap | Operation::Describe => None,
        // a new operation needs a place here, in the list below, and in every policy
        Operation::DescribeKey | Operation::GenerateDataKey | Operation::Decrypt => {
            Some(format!("kms:{}", operation.name()))
        }
    }
}

#[test]
fn nodes_may_do_what_the_agent_calls_and_nothing_else() {
    let operations = [Operation::FindRegion, Operation::DescribeKey, Operation::GenerateDataKey, Operation::Decrypt];
    let called: BTreeSet<String> = operations.into_iter().filter_map(action).collect();
    assert_eq!(allowed("node-policy", "LuksAgentNode"), called);
    assert_eq!(allowed("key-policy", "LuksAgentNodes"), called);
    assert_eq!(listed("node_actions"), called);
}

#[test]
fn json_and_terraform_allow_the_same() {
    let admin = listed("admin_actions");
    let alias = listed("alias_actions");
    assert_eq!(allowed("operator-policy", "LuksAgentBreakGlass"), listed("operator_actions"));
    assert_eq!(allowed("key-policy", "LuksAgentBreakGlass"), listed("operator_actions"));
    assert_eq!(allowed("admin-policy", "LuksAgentKeyAdministration"), admin);
    assert_eq!(allowed("admin-policy", "LuksAgentAlias"), alias);
    let mut account = &admin | &alias;
    account.insert("kms:ScheduleKeyDeletion".to_owned());
    assert_eq!(allowed("key-policy", "IamPoliciesMayAllowAdministrationButNoUse"), account);

    let terraform = file("packaging/terraform/main.tf");
    for statement in POLICIES.into_iter().flat_map(statements) {
        let sid = statement["Sid"].as_str().unwrap();
        assert!(terraform.contains(&format!("\"{sid}\"")), "main.tf has no statement {sid}");
    }
}

#[test]
fn administration_is_no_use_of_the_key() {
    let use_of_it = ["Decrypt", "Encrypt", "GenerateDataKey", "ReEncrypt", "CreateGrant", "*"];
    for action in allowed("key-policy", "IamPoliciesMayAllowAdministrationButNoUse") {
        assert!(!use_of_it.iter().any(|word| action.contains(word)), "administrators may {action}");
    }
}

#[test]
fn the_agent_accepts_the_configurations() {
    let image = file("packaging/packer/luks-agent.toml");

    let user_data = file("packaging/cloud-init/user-data.yaml");
    let (_, content) = user_data.split_once("    content: |\n").unwrap();
    let lines = content.lines().map_while(|line| line.strip_prefix("      "));
    let user_data = lines.collect::<Vec<_>>().join("\n");

    let bootstrap = file("packaging/emr/bootstrap.sh");
    let (_, rule) = bootstrap.split_once("printf '[[volumes.match]]").unwrap();
    let (rule, _) = rule.split_once('\'').unwrap();
    let rule = rule.replace("\\n", "\n").replace("%s", "vol0123456789abcdef0");
    let bootstrap = format!("{image}\n[[volumes.match]]{rule}");

    for (name, text) in [("the image", image), ("the user data", user_data), ("bootstrap.sh", bootstrap)] {
        if let Err(e) = Config::from_text(Path::new("config.toml"), &text) {
            panic!("{name}: {e}:\n{text}");
        }
    }
}

#[test]
fn the_units_that_are_named_exist() {
    for path in ways() {
        let text = file(&path);
        for name in names(&text).filter(|name| name.starts_with("luks-agent")) {
            let is_unit = [".service", ".target", ".socket"].iter().any(|kind| name.ends_with(kind));
            assert!(!is_unit || at("systemd").join(name).exists(), "{path} names {name}, which is no unit");
        }
    }
}

#[test]
fn every_way_enables_what_the_preset_does() {
    let preset = file("systemd/luks-agent.preset");
    let enabled: Vec<&str> = preset.lines().filter_map(|line| line.strip_prefix("enable ")).collect();
    assert!(!enabled.is_empty());
    for path in [
        "packaging/ansible/roles/luks_agent/tasks/main.yml",
        "packaging/cloud-init/user-data.yaml",
        "packaging/emr/bootstrap.sh",
        "packaging/packer/setup.sh",
    ] {
        let text = file(path);
        for unit in &enabled {
            assert!(names(&text).any(|name| name == *unit), "{path} does not enable {unit}");
        }
    }
}

#[test]
fn packages_are_named_with_this_version() {
    let release = format!("{}-1", env!("CARGO_PKG_VERSION"));
    let mut seen = 0;
    for path in ways() {
        let text = file(&path);
        for name in names(&text).filter(|name| name.ends_with(".deb") || name.ends_with(".rpm")) {
            let version = name.strip_prefix("luks-agent_").or_else(|| name.strip_prefix("luks-agent-"));
            if let Some(version) = version {
                assert!(version.starts_with(&release), "{path} names {name}, and this is {release}");
                seen += 1;
            }
        }
    }
    assert!(seen > 3, "only {seen} names of packages found");
}
