//! What the documentation says, against what the program does.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use luks_agent::config::Config;
use luks_agent::disk::MatchRule;
use luks_agent::luks2::Token;
use luks_agent::plan::Subject;
use luks_agent::report::{Found, Report, Row, Verdict};
use luks_agent::state;
use serde_json::Value;

const MINIMAL: &str =
    "[kms]\nkey_id = \"arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab\"\n";

fn file(path: &str) -> String {
    fs::read_to_string(at(path)).unwrap()
}

fn at(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn config(text: &str) -> Config {
    Config::from_text(Path::new("config.toml"), text).unwrap()
}

/// The keys that a section may have, from the message about one that it may not have.
fn known_keys(section: &str) -> Vec<String> {
    let text = format!("{section}\nnone_such = 1\n");
    let message = Config::from_text(Path::new("config.toml"), &text).unwrap_err().to_string();
    let (_, expected) = message.split_once("expected ").unwrap_or_else(|| panic!("{section}: {message}"));
    let expected = expected.split(';').next().unwrap();
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Dotted keys of the whole configuration, as the program knows them.
fn all_keys() -> Vec<String> {
    let mut keys = Vec::new();
    for section in known_keys("") {
        keys.extend(known_keys(&format!("[{section}]")).iter().map(|key| format!("{section}.{key}")));
    }
    keys.retain(|key| key != "volumes.match" && key != "volumes.expect");
    keys.extend(known_keys("[[volumes.match]]").iter().map(|key| format!("volumes.match.{key}")));
    keys.extend(known_keys("[volumes.expect]").iter().map(|key| format!("volumes.expect.{key}")));
    keys
}

/// Every line of the example that gives a key: its dotted name, the mark before it, and the value.
fn example_keys() -> BTreeMap<String, (&'static str, String)> {
    let mut keys = BTreeMap::new();
    let mut section = String::new();
    for line in file("config/luks-agent.toml").lines() {
        let mark = ["##", "#", ""].into_iter().find(|mark| line.starts_with(mark)).unwrap();
        let line = &line[mark.len()..];
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_matches(['[', ']']).to_owned();
        } else if let Some((key, value)) = line.split_once(" = ")
            && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
        {
            keys.insert(format!("{section}.{key}"), (mark, value.to_owned()));
        }
    }
    keys
}

/// The example with the lines in force that begin with one of `marks` and a key or section.
fn example_with(marks: &[&str]) -> String {
    let text = file("config/luks-agent.toml");
    let lines = text.lines().map(|line| {
        let mark = ["##", "#", ""].into_iter().find(|mark| line.starts_with(mark)).unwrap();
        let rest = &line[mark.len()..];
        let is_key = rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[');
        if is_key && marks.contains(&mark) { rest } else { line }
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_configuration_loads_as_it_is() {
    let loaded = Config::load(&at("config/luks-agent.toml")).unwrap();
    assert_eq!(format!("{loaded:?}"), format!("{:?}", config(MINIMAL)));
}

#[test]
fn the_defaults_in_the_example_are_the_defaults() {
    assert_eq!(format!("{:?}", config(&example_with(&["#"]))), format!("{:?}", config(MINIMAL)));
}

#[test]
fn the_examples_without_a_default_are_valid() {
    let text = example_with(&["##"]);
    // which kms.fips and kms.dual_stack exclude
    let without = |key: &str| text.lines().filter(|line| !line.starts_with(key)).collect::<Vec<_>>().join("\n");
    let own = config(&without("fips").replace("dual_stack = true\n", ""));
    assert!(own.kms.endpoint_url.is_some_and(|url| url.contains(".vpce.")));
    let loaded = config(&without("endpoint_url"));
    assert_eq!(loaded.kms.region.as_deref(), Some("us-east-1"));
    assert_eq!(loaded.luks.sector_size, Some(4096));
    let [MatchRule { .. }] = loaded.volumes.rules.as_slice() else { panic!("not one rule") };
}

#[test]
fn the_example_has_every_key() {
    let example: Vec<String> = example_keys().into_keys().collect();
    let mut known = all_keys();
    known.sort();
    assert_eq!(example, known);
}

#[test]
fn the_configuration_page_has_every_key_with_its_default() {
    let page = file("docs/configuration.md");
    for (key, (mark, value)) in example_keys() {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{key}` |")));
        let row = row.unwrap_or_else(|| panic!("docs/configuration.md has no row for {key}"));
        let default = row.split('|').nth(2).unwrap().trim();
        if mark == "#" {
            assert_eq!(default, format!("`{value}`"), "the default of {key}");
        } else {
            assert!(!default.starts_with('`'), "{key} has no default");
        }
    }
    let rows = page.lines().filter(|line| line.starts_with("| `")).filter_map(|line| line.split('`').nth(1));
    for key in rows.filter(|key| key.contains('.') && !key.contains(' ')) {
        assert!(all_keys().contains(&key.to_owned()), "docs/configuration.md has {key}, which is no key");
    }
}

/// The commands between two marks of a page, without comments.
fn commands(page: &str, mark: &str) -> Vec<String> {
    let text = file(page);
    let (_, rest) = text.split_once(&format!("<!-- {mark} -->")).unwrap();
    let (block, _) = rest.split_once(&format!("<!-- end of {mark} -->")).unwrap();
    let lines = block.lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with(['#', '`'])).map(str::to_owned).collect()
}

#[test]
fn the_kernel_tier_runs_every_break_glass_command() {
    let story = file("tests/kernel/story.sh");
    for mark in ["break-glass", "break-glass from the header", "break-glass of a read-only copy"] {
        let commands = commands("docs/break-glass.md", mark);
        assert!(commands.len() > 1, "{mark}: {commands:?}");
        for command in commands {
            // what differs: the disk, the state file is in a variable, and the two wrapped keys are compared
            let here = command
                .replace("/dev/nvme1n1", "/dev/ubdd")
                .replace("wrapped=$(cryptsetup", "from_token=$(cryptsetup")
                .replace("\"/etc/luks-agent/state/state.json\"", "\"'\"$STATE\"'\"");
            let there = story.lines().map(str::trim);
            assert!(there.clone().any(|line| line == here), "tests/kernel/story.sh does not run: {here}");
        }
    }
}

/// The commands of luks-agent in the shell blocks of a page: the verb, its subcommand if it has one, and the options.
fn agent_commands(page: &str) -> Vec<Vec<String>> {
    let blocks = blocks(page, "sh");
    let lines = blocks.iter().flat_map(|block| block.lines());
    let calls = lines
        .filter_map(|line| Some(line.split_once("luks-agent ")?.1.split(['#', '&', '|', ';', '>']).next()?.to_owned()));
    calls
        .map(|call| {
            let words = call.split_whitespace();
            let is_name =
                |word: &&str| word.starts_with("--") || word.chars().all(|c| c.is_ascii_lowercase() || c == '-');
            words.filter(is_name).map(str::to_owned).collect()
        })
        .collect()
}

#[test]
fn a_test_runs_every_command_of_the_runbooks() {
    let files = |dir| fs::read_dir(at(dir)).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let scenarios = ["tests/kernel", "tests"].into_iter().flat_map(files);
    let scenarios: Vec<String> = scenarios.map(|path| fs::read_to_string(path).unwrap()).collect();
    let runs: Vec<Vec<&str>> = scenarios
        .iter()
        .flat_map(|text| text.lines())
        .filter(|line| line.contains("agent") || line.contains("on_terminal"))
        .map(|line| line.split(|c: char| c.is_whitespace() || "\"'();|".contains(c)).collect())
        .collect();
    for page in ["docs/operations.md", "docs/keys.md"] {
        for command in agent_commands(page) {
            let is_run = runs.iter().any(|run| command.iter().all(|word| run.contains(&word.as_str())));
            assert!(is_run, "{page}: no scenario runs 'luks-agent {}'", command.join(" "));
        }
    }
}

#[test]
fn the_kernel_tier_opens_volumes_with_the_program_as_the_page_says() {
    let scenario = file("tests/kernel/exec-provider.sh");
    let commands = commands("docs/exec-provider.md", "by hand");
    assert!(commands.len() > 2, "{commands:?}");
    for command in commands {
        let here = command
            .replace("/usr/local/libexec/vault-transit.sh /etc/luks-agent/vault.conf", "\"$program\" \"$argument\"")
            .replace("/dev/nvme1n1 rescued", "--test-passphrase \"$disk\"");
        assert!(scenario.lines().any(|line| line.trim() == here), "tests/kernel/exec-provider.sh does not run: {here}");
    }
}

#[test]
fn the_kernel_tier_verifies_a_signed_audit_report_with_openssl_as_the_page_says() {
    let scenario = file("tests/kernel/audit.sh");
    let commands = commands("docs/audit.md", "verify with openssl");
    assert!(commands.len() > 2, "{commands:?}");
    for command in commands {
        assert!(scenario.lines().any(|line| line.trim() == command), "tests/kernel/audit.sh does not run: {command}");
    }
}

#[test]
fn the_readme_and_the_break_glass_page_have_the_same_commands() {
    assert_eq!(commands("README.md", "break-glass"), commands("docs/break-glass.md", "break-glass"));
}

/// The texts in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn sources(dir: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(at(dir)).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(path.to_str().unwrap()));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found
}

#[test]
fn the_tests_that_the_documentation_names_exist() {
    let all = ["src", "tests", "fake-aws", "fuzz"].iter().flat_map(|dir| sources(dir));
    let all: String = all.map(|path| fs::read_to_string(path).unwrap()).collect();
    let text = [file("docs/architecture.md"), file("docs/safety.md")].join("\n");
    let rows = text.lines().filter(|line| line.starts_with("| ")).collect::<Vec<_>>().join("\n");
    // the name of a test is a sentence, so three underscores tell it from other names
    let names: Vec<&str> = quoted(&rows)
        .filter(|q| q.matches('_').count() > 2 && q.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
        .collect();
    assert!(names.len() > 20, "{names:?}");
    for name in names {
        assert!(all.contains(&format!("fn {name}(")), "the documentation names a test {name}, which is not there");
    }
}

#[test]
fn the_architecture_names_every_module_and_no_file_that_is_not_there() {
    let text = file("docs/architecture.md");
    let named: Vec<&str> = quoted(&text).collect();
    for entry in fs::read_dir(at("src")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name == "snapshots" {
            continue;
        }
        let is_named = |path: &str| named.iter().any(|named| named.starts_with(path));
        assert!(is_named(&format!("src/{name}")), "docs/architecture.md does not name src/{name}");
    }
    for path in named.iter().filter(|q| q.starts_with("src/")) {
        assert!(at(path).exists(), "docs/architecture.md names {path}, which is not there");
    }
}

/// The functions and types that the documentation places in a file: "`src/plan/format.rs` (`objection`)".
#[test]
fn the_documentation_places_functions_in_the_files_that_have_them() {
    let mut places = 0;
    for page in ["docs/architecture.md", "docs/safety.md", "docs/kms.md"] {
        let text = file(page);
        for place in text.split("`src/").skip(1) {
            let Some((path, rest)) = place.split_once("` (`") else { continue };
            if path.contains('`') || !path.ends_with(".rs") {
                continue;
            }
            let source = file(&format!("src/{path}"));
            let named = rest.split(')').next().unwrap();
            // the first is already open
            for name in named.split('`').step_by(2).filter(|name| !name.contains('.')) {
                let name = name.rsplit("::").next().unwrap();
                let has_it = source.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|word| word == name);
                assert!(has_it, "{page} says that src/{path} has {name}");
                places += 1;
            }
        }
    }
    assert!(places > 20, "{places}");
}

/// The blocks of one language in a file.
fn blocks(path: &str, language: &str) -> Vec<String> {
    let text = file(path);
    let blocks = text.split("\n```").skip(1).step_by(2);
    blocks.filter_map(|block| block.strip_prefix(&format!("{language}\n"))).map(str::to_owned).collect()
}

#[test]
fn the_examples_are_what_they_say() {
    for path in [
        "README.md",
        "docs/architecture.md",
        "docs/configuration.md",
        "docs/emr.md",
        "docs/exec-provider.md",
        "docs/fips.md",
        "docs/selinux.md",
        "docs/iam.md",
        "docs/kms.md",
        "docs/reports.md",
    ] {
        for json in blocks(path, "json") {
            let part = format!("{{{json}}}");
            let value = serde_json::from_str::<Value>(&json).or_else(|_| serde_json::from_str(&part));
            assert!(value.is_ok(), "{path}: not JSON: {json}");
        }
        for toml in blocks(path, "toml") {
            let is_whole = toml.contains("key_id =");
            config(&if is_whole { toml } else { format!("{MINIMAL}\n{toml}") });
        }
    }
    let formats =
        blocks("docs/architecture.md", "json").iter().map(|b| b.replace("<base64>", "AQID")).collect::<Vec<_>>();
    let [state, token] = formats.as_slice() else { panic!("not two formats") };
    let mut state: Value = serde_json::from_str(state).unwrap();
    state.as_object_mut().unwrap().remove("sha256").unwrap();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("state.json"), state.to_string()).unwrap();
    state::read(dir.path()).unwrap().unwrap();
    serde_json::from_str::<Token>(token).unwrap();
    let minimal = file("README.md");
    let (_, written) = minimal.split_once("<<'END'\n").unwrap();
    assert_eq!(written.split_once("END\n").unwrap().0, MINIMAL);
}

#[test]
fn the_fields_of_reports_are_documented() {
    let subject = Subject { device: None, role: String::new(), serial: None, size: 0, content: None };
    let report = Report::new("status", vec![Row::new(&subject, Verdict::New)], String::new());
    let report = serde_json::to_value(report).unwrap();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let [example] = blocks("docs/reports.md", "json").try_into().unwrap();
    let example: Value = serde_json::from_str(&example).unwrap();
    let text = file("docs/reports.md");
    for (actual, example) in [(&report, &example), (&report["rows"][0], &example["rows"][0])] {
        assert_eq!(keys(actual), keys(example));
        for key in keys(actual) {
            assert!(text.contains(&format!("\n| `{key}` |")), "docs/reports.md does not describe {key}");
        }
    }
    for found in [
        Found::Blank { read: 1, of: 2 },
        Found::Signatures { signatures: Vec::new() },
        Found::Noise { read: 1, random: 1, of: 2 },
        Found::Data { offset: 1 },
        Found::Luks2 { luks_uuid: Default::default(), luks_agent: true },
        Found::Unfinished,
        Found::Unknown,
    ] {
        let mut fields = serde_json::to_value(found).unwrap();
        let found = fields.as_object_mut().unwrap().remove("found").unwrap();
        let row = text.lines().find(|line| line.starts_with(&format!("| `{}` |", found.as_str().unwrap())));
        let row = row.unwrap_or_else(|| panic!("docs/reports.md does not describe {found}"));
        for key in keys(&fields) {
            assert!(row.contains(&format!("`{key}`")), "{row}: {key}");
        }
    }
}

#[test]
fn links_lead_to_files_that_are_there() {
    let pages = fs::read_dir(at("docs")).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let others = [
        "README.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "vagrant/README.md",
        "packaging/ansible/roles/luks_agent/README.md",
    ];
    for page in pages.chain(others.map(at)) {
        let text = fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().unwrap();
            let there = link.contains("://") || page.parent().unwrap().join(path).exists();
            assert!(there, "{} links to {path}, which is not there", page.display());
        }
    }
}
