//! What watches nodes from elsewhere: the alerts in `packaging/prometheus`, the dashboard in `packaging/grafana`, and the script in
//! `packaging/s3` that uploads reports.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

const RULES: &str = "packaging/prometheus/luks-agent.rules.yml";
const RULES_TEST: &str = "packaging/prometheus/luks-agent.rules.test.yml";

fn at(path: &str) -> PathBuf {
    support::project_dir().join(path)
}

fn file(path: &str) -> String {
    fs::read_to_string(at(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

fn promtool(args: &[&str], path: &Path) {
    let said = Command::new(support::promtool()).args(args).arg(path).output().unwrap();
    assert!(said.status.success(), "{}", text(&said));
}

/// The values of a key that stands on lines of its own.
fn values<'t>(text: &'t str, key: &str) -> Vec<&'t str> {
    text.lines().filter_map(|line| line.trim().trim_start_matches("- ").strip_prefix(key)).map(str::trim).collect()
}

/// The words of an expression that begin like the agent's metrics.
fn metrics_in(expr: &str) -> BTreeSet<&str> {
    let words = expr.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("luks_agent_")).collect()
}

/// The metrics that the table of the page has.
fn documented() -> BTreeSet<String> {
    let page = file("docs/metrics.md");
    let names =
        page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(name, _)| name.to_owned()));
    names.filter(|name| name.starts_with("luks_agent_")).collect()
}

/// Every PromQL expression of the dashboard, with values for Grafana's variables.
fn dashboard_expressions() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&file("packaging/grafana/luks-agent.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let expressions = targets.map(|target| target["expr"].as_str().unwrap());
    expressions.map(|expr| expr.replace("$instance", ".*").replace("$__rate_interval", "5m")).collect()
}

#[test]
fn every_alert_fires_when_it_should_and_only_then() {
    promtool(&["check", "rules", "--lint-fatal"], &at(RULES));
    promtool(&["test", "rules"], &at(RULES_TEST));
}

#[test]
fn every_alert_is_tested_and_documented() {
    let rules = file(RULES);
    let alerts = values(&rules, "alert:");
    assert!(alerts.len() > 10, "{alerts:?}");
    for key in ["severity:", "summary:", "description:"] {
        assert_eq!(values(&rules, key).len(), alerts.len(), "not every alert has a {key}");
    }
    let page = file("docs/metrics.md");
    let tests = file(RULES_TEST);
    for alert in &alerts {
        assert!(page.contains(&format!("\n| `{alert}` |")), "docs/metrics.md does not describe {alert}");
        // once silent, once firing
        let tested = tests.matches(&format!("alertname=\"{alert}\",alertstate")).count();
        assert!(tested > 1, "{RULES_TEST} does not test {alert}");
        assert!(tests.contains(&format!("ALERTS{{alertname=\"{alert}\", ")), "{RULES_TEST} never has {alert} firing");
    }
}

#[test]
fn alerts_and_the_dashboard_know_the_documented_metrics_only() {
    let documented = documented();
    let rules = file(RULES);
    let dashboard = dashboard_expressions();
    let expressions = values(&rules, "expr:").into_iter().chain(dashboard.iter().map(String::as_str));
    let mut seen = 0;
    for expr in expressions {
        for name in metrics_in(expr) {
            assert!(documented.contains(name), "docs/metrics.md has no metric {name}: {expr}");
            seen += 1;
        }
    }
    assert!(seen > 25, "only {seen} names of metrics found");
}

#[test]
fn prometheus_parses_every_expression_of_the_dashboard() {
    let mut rules = "groups:\n  - name: dashboard\n    rules:\n".to_owned();
    for (number, expr) in dashboard_expressions().iter().enumerate() {
        assert!(!expr.contains('$'), "a variable that the test does not know: {expr}");
        let expr = serde_json::to_string(expr).unwrap();
        rules.push_str(&format!("      - record: dashboard:expression:{number}\n        expr: {expr}\n"));
    }
    let recording = tempfile::NamedTempFile::new().unwrap();
    fs::write(recording.path(), rules).unwrap();
    promtool(&["check", "rules", "--lint-fatal"], recording.path());
}

#[test]
fn the_dashboard_asks_for_its_data_source() {
    let dashboard: Value = serde_json::from_str(&file("packaging/grafana/luks-agent.json")).unwrap();
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let names: Vec<&str> = variables.iter().map(|variable| variable["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["datasource", "instance"]);
    assert_eq!(variables[1]["datasource"]["uid"], "${datasource}");
    assert_eq!(variables[1]["query"]["query"], "label_values(luks_agent_build_info, instance)");
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "two panels have one id: {panel}");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{panel}");
        for target in panel["targets"].as_array().unwrap() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{target}");
            assert!(target["expr"].as_str().unwrap().contains("{instance=~\"$instance\""), "{target}");
        }
    }
}

/// A node with stand-ins for the agent, of which only `convert` is real, and for the AWS CLI, whose bucket is a directory.
struct Uploader {
    dir: tempfile::TempDir,
}

impl Uploader {
    fn new(audit: &str, aws: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let uploader = Self { dir };
        fs::create_dir(uploader.dir.path().join("bin")).unwrap();
        let agent = support::program("luks-agent");
        uploader.stand_in(
            "luks-agent",
            &format!("[ \"$2\" = --output ] || exec '{}' \"$@\"\n{audit}\nexit 1", agent.display()),
        );
        if !aws.is_empty() {
            uploader.stand_in("aws", aws);
        }
        // everything else that the script calls, so that an AWS CLI of this machine is not found
        for program in ["base64", "cat", "cp", "date", "dirname", "hostname", "mkdir", "mktemp", "rm", "sed"] {
            let found =
                ["/usr/bin", "/bin"].map(|dir| Path::new(dir).join(program)).into_iter().find(|path| path.exists());
            std::os::unix::fs::symlink(found.unwrap(), uploader.dir.path().join("bin").join(program)).unwrap();
        }
        uploader
    }

    fn stand_in(&self, name: &str, script: &str) {
        let path = self.dir.path().join("bin").join(name);
        fs::write(&path, format!("#!/bin/bash\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn run(&self, args: &[&str]) -> Output {
        Command::new("/bin/bash")
            .arg(at("packaging/s3/luks-agent-report.sh"))
            .args(args)
            .env("PATH", self.dir.path().join("bin"))
            .env("REPORT", at("fuzz/seeds/audit/in-clear.json"))
            .env("BUCKET", self.dir.path().join("bucket"))
            .output()
            .unwrap()
    }

    /// The only object of a kind.
    fn object(&self, kind: &str) -> String {
        let mut dir = self.dir.path().join("bucket/luks-agent").join(kind);
        for _ in 0..2 {
            let entries: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
            let [entry] = entries.try_into().unwrap();
            dir = entry;
        }
        fs::read_to_string(dir).unwrap()
    }
}

const AUDIT: &str = "cp \"$REPORT\" \"$3\"";
const SIGNED: &str = "printf '{\"payload\":\"%s\",\"payloadType\":\"x\"}' \"$(base64 -w0 \"$REPORT\")\" >\"$3\"";
/// aws s3 cp --only-show-errors FILE s3://our-bucket/KEY
const AWS: &str = "to=$BUCKET/${5#s3://our-bucket/}; mkdir -p \"$(dirname \"$to\")\" && cp \"$4\" \"$to\"";

#[test]
fn uploads_the_report_and_a_line_for_each_disk() {
    let report = file("fuzz/seeds/audit/in-clear.json");
    let parsed: Value = serde_json::from_str(&report).unwrap();
    let disks = parsed["disks"].as_array().unwrap().len();
    for audit in [AUDIT, SIGNED] {
        let uploader = Uploader::new(audit, AWS);
        let said = uploader.run(&["our-bucket"]);
        assert!(said.status.success() && text(&said).is_empty(), "{}", text(&said));
        assert_eq!(uploader.object("reports") == report, audit == AUDIT);
        assert_eq!(uploader.object("rows").lines().count(), disks);
    }
}

#[test]
fn a_report_that_cannot_be_uploaded_is_one_clear_error() {
    let refused = "echo 'upload failed: An error occurred (AccessDenied)' >&2; exit 1";
    let upload = &["our-bucket"][..];
    for (audit, aws, args, expected) in [
        (AUDIT, AWS, &[][..], "usage: luks-agent-report BUCKET"),
        (AUDIT, AWS, &[""][..], "usage: luks-agent-report BUCKET"),
        (AUDIT, "", upload, "the AWS CLI is not installed"),
        (AUDIT, refused, upload, "cannot upload s3://our-bucket/luks-agent/reports/day="),
        (AUDIT, refused, upload, "(AccessDenied)"),
        ("", AWS, upload, "'luks-agent audit' made no report"),
    ] {
        let uploader = Uploader::new(audit, aws);
        let said = uploader.run(args);
        let stderr = String::from_utf8(said.stderr).unwrap();
        assert_eq!(said.status.code(), Some(1), "{stderr}");
        assert!(stderr.starts_with("luks-agent-report: ") && stderr.contains(expected), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(!uploader.dir.path().join("bucket").exists(), "something was uploaded");
    }
}
