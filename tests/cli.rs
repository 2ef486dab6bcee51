//! The command line as a person or a program meets it: messages, exit codes, JSON. Needs no privileges and touches nothing:
//! commands that get as far as disks run here with a configuration that gives no disk a role.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use assert_cmd::Command;
use predicates::prelude::*;
use predicates::str::{contains, is_empty, starts_with};
use serde_json::Value;

fn agent() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_luks-agent"));
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").timeout(std::time::Duration::from_secs(60));
    command
}

/// A directory with a `config.toml` in it; not in `/tmp`, which may be in memory and then takes no state.
struct Home(tempfile::TempDir);

impl Home {
    fn with_config(text: &str) -> Self {
        let home = Self(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap());
        fs::write(home.config(), text).unwrap();
        home
    }

    /// A configuration that leaves every disk alone.
    fn harmless() -> Self {
        let home = Self::with_config("");
        let state = home.state();
        let text = format!(
            "[kms]\nkey_id = \"alias/x\"\n[state]\ndir = \"{}\"\n[volumes]\nebs = \"ignore\"\ninstance_store = \"ignore\"\n",
            state.display()
        );
        fs::write(home.config(), text).unwrap();
        home
    }

    fn config(&self) -> PathBuf {
        self.0.path().join("config.toml")
    }

    fn state(&self) -> PathBuf {
        self.0.path().join("state")
    }

    fn agent(&self, args: &[&str]) -> Command {
        let mut command = agent();
        command.arg("--config").arg(self.config()).args(args);
        command
    }
}

/// Puts a state file that a release wrote into the state directory.
fn put_state(home: &Home, name: &str) {
    let text = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/state").join(name)).unwrap();
    fs::DirBuilder::new().recursive(true).mode(0o700).create(home.state()).unwrap();
    let file = home.state().join("state.json");
    fs::write(&file, text).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
}

fn json(command: &mut Command) -> Value {
    let output = command.output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn help_says_what_there_is() {
    let output = agent().arg("--help").output().unwrap();
    assert!(output.status.success());
    insta::assert_snapshot!(String::from_utf8(output.stdout).unwrap());
}

#[test]
fn a_configuration_that_others_may_write_is_not_used() {
    let home = Home::harmless();
    let drop_ins = home.0.path().join("config.d");
    fs::create_dir(&drop_ins).unwrap();
    let drop_in = drop_ins.join("10-node.toml");
    fs::write(&drop_in, "").unwrap();
    let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    for (path, mode, fine) in [
        (home.config(), 0o666, 0o644),
        (home.config(), 0o620, 0o600),
        (drop_in, 0o622, 0o644),
        (drop_ins, 0o777, 0o755),
        (home.0.path().to_owned(), 0o770, 0o700),
    ] {
        home.agent(&["status"]).assert().success();
        set(&path, mode);
        let said = format!("configuration {} has mode {mode:04o}; expected owner", path.display());
        home.agent(&["status"]).assert().code(2).stderr(contains(&said).and(contains("chmod go-w")));
        // the next boot would fail, and here it is told before
        let lost = format!("this node would not survive a reboot, because {said}");
        home.agent(&["health"]).assert().code(2).stderr(contains(lost));
        set(&path, fine);
    }
    // as in /tmp, where nobody can put anything in the place of a file of root
    set(home.0.path(), 0o1777);
    home.agent(&["status"]).assert().success();
}

#[test]
fn state_files_of_every_release_are_read_and_one_of_a_later_release_says_what_to_do() {
    let home = Home::harmless();
    for name in ["version-1.json", "version-2.json", "version-2-reordered.json", "version-3.json"] {
        put_state(&home, name);
        home.agent(&["status"]).assert().success().stdout(contains("vol0123456789abcdef0  missing"));
    }
    put_state(&home, "version-3-later.json");
    let said = contains("a later luks-agent wrote it: unknown field `verified`")
        .and(contains("install the release that wrote it"));
    home.agent(&["status"]).assert().code(1).stderr(said);
}

#[test]
fn version_is_name_and_number() {
    let expected = format!("luks-agent {}\n", env!("CARGO_PKG_VERSION"));
    agent().arg("--version").assert().success().stdout(expected);
}

#[test]
fn wrong_usage_exits_with_2() {
    agent().assert().code(2).stderr(contains("Usage: luks-agent")).stdout(is_empty());
    agent().arg("frobnicate").assert().code(2).stderr(contains("unrecognized subcommand 'frobnicate'"));
    agent().args(["status", "--jsno"]).assert().code(2).stderr(contains("'--json'"));
    agent().args(["status", "--log-level", "loud"]).assert().code(2).stderr(contains("error, warn, info, debug"));
    agent().args(["provision", "/dev/null"]).assert().code(2).stderr(contains("unexpected argument '/dev/null'"));
}

#[test]
fn a_missing_configuration_is_named() {
    for command in ["plan", "provision", "unlock", "close", "status"] {
        let missing = Path::new(env!("CARGO_TARGET_TMPDIR")).join("no-such-dir/config.toml");
        let said = format!("luks-agent: no configuration: {} does not exist; create it", missing.display());
        agent()
            .arg(command)
            .arg("--config")
            .arg(&missing)
            .assert()
            .code(2)
            .stderr(starts_with(said))
            .stdout(is_empty());
    }
}

#[test]
fn a_mistake_in_the_configuration_is_named_with_its_line() {
    let home = Home::with_config("[kms]\nkey_id = \"alias/x\"\n\n[volumes]\nesb = \"ignore\"\n");
    let said = format!("luks-agent: {}:5: esb: unknown field `esb`", home.config().display());
    let assert = home.agent(&["provision"]).assert().code(2).stdout(is_empty());
    assert.stderr(starts_with(said).and(contains("did you mean `ebs`?")));
}

#[test]
fn a_drop_in_is_read_and_named() {
    let home = Home::harmless();
    let dir = home.0.path().join("config.d");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("50-site.toml"), "[kms]\ndeadline = 5\n").unwrap();
    home.agent(&["status"]).assert().code(2).stderr(contains("config.d/50-site.toml:2: "));
}

#[test]
fn an_error_in_json_is_one_object_on_standard_output() {
    let home = Home::with_config("nonsense\n");
    for command in ["plan", "provision", "unlock", "close", "status"] {
        let error = json(&mut home.agent(&[command, "--json"]));
        assert_eq!(error["schema"], "luks-agent/report", "{command}");
        assert_eq!(error["exit_code"], 2, "{command}");
        let text = error["error"].as_str().unwrap();
        assert!(text.contains("config.toml:1"), "{command}: {text}");
        home.agent(&[command, "--json"]).assert().code(2).stderr(starts_with("luks-agent: "));
    }
}

#[test]
fn status_lists_disks_and_writes_nothing() {
    let home = Home::harmless();
    let report = json(&mut home.agent(&["status", "--json"]));
    assert_eq!((&report["command"], &report["exit_code"]), (&Value::from("status"), &Value::from(0)));
    let summary = report["summary"].as_str().unwrap();
    assert!(summary.contains("this node was never provisioned"), "{summary}");
    assert!(report["rows"].is_array());
    home.agent(&["status"]).assert().success().stdout(starts_with("DEVICE").and(contains("status: 0 open")));
    assert!(!home.state().exists());
}

#[test]
fn work_on_disks_needs_root() {
    if nix::unistd::geteuid().is_root() {
        // the kernel tier drops root and asserts the same
        return;
    }
    let home = Home::harmless();
    for command in ["plan", "provision", "unlock", "close", "audit"] {
        let said =
            format!("luks-agent: 'luks-agent {command}' works on block devices and needs root; run it with sudo\n");
        home.agent(&[command]).assert().code(1).stderr(said).stdout(is_empty());
    }
    assert!(!home.state().exists());
}

#[test]
fn a_state_file_that_is_none_is_named() {
    let home = Home::harmless();
    fs::create_dir(home.state()).unwrap();
    fs::write(home.state().join("state.json"), "{").unwrap();
    let said = format!("luks-agent: {}/state.json is damaged: ", home.state().display());
    home.agent(&["status"]).assert().code(1).stderr(starts_with(said));
    assert_eq!(fs::read_to_string(home.state().join("state.json")).unwrap(), "{");
}

#[test]
fn a_reader_that_has_seen_enough_changes_nothing() {
    let home = Home::harmless();
    for args in [&["status"][..], &["status", "--json"], &["completions", "bash"], &["--help"]] {
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_luks-agent"))
            .arg("--config")
            .arg(home.config())
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!((child.wait().unwrap().code(), said.as_str()), (Some(0), ""), "{args:?}");
    }
}

#[test]
fn nobody_on_standard_error_changes_no_exit_code() {
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_luks-agent"))
        .args(["status", "--config", "/nonexistent/config.toml"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(2));
}

#[test]
fn completions_are_valid_bash() {
    let script = agent().args(["completions", "bash"]).assert().success().get_output().stdout.clone();
    Command::new("bash").arg("-n").write_stdin(script.clone()).assert().success().stderr(is_empty());
    let text = String::from_utf8(script).unwrap();
    assert!(text.contains("provision") && !text.contains("frobnicate"));
}

#[test]
fn man_pages_are_written_for_every_command() {
    let home = Home::harmless();
    let dir = home.0.path().join("man/man8");
    agent().arg("man-pages").arg(&dir).assert().success();
    for command in ["", "-plan", "-provision", "-unlock", "-close", "-status"] {
        let page = dir.join(format!("luks-agent{command}.1"));
        let text = fs::read_to_string(&page).unwrap_or_else(|e| panic!("{}: {e}", page.display()));
        assert!(text.contains(".TH luks-agent"), "{}", page.display());
    }
}

/// Between the fork and its asking to be killed with its parent, that may have ended: then nobody waits for it any more.
#[test]
fn a_worker_whose_parent_has_ended_does_nothing() {
    let worker = |parent: u32| {
        let mut worker = agent();
        worker.arg("worker").env("LUKS_AGENT_PARENT", parent.to_string()).write_stdin("{}\n");
        worker.assert()
    };
    worker(std::process::id()).success().stdout(contains("invalid job"));
    let complaint = "luks-agent: the agent that started this worker has exited\n";
    worker(std::os::unix::process::parent_id()).failure().stdout(is_empty()).stderr(complaint);
}

#[test]
fn a_worker_says_on_standard_output_what_is_wrong() {
    let said = agent().arg("worker").write_stdin("{}\n").assert().success().get_output().stdout.clone();
    let answer: Value = serde_json::from_slice(&said).unwrap();
    assert_eq!(answer["answer"], "failed");
}

#[test]
fn the_daemon_waits_for_a_valid_configuration() {
    let home = Home::harmless();
    let valid = fs::read(home.config()).unwrap();
    fs::write(home.config(), "[helth]\n").unwrap();
    let mut daemon = std::process::Command::new(env!("CARGO_BIN_EXE_luks-agent"))
        .env_clear()
        // without systemctl: it must start nothing on this machine
        .env("PATH", "")
        .arg("--config")
        .arg(home.config())
        .arg("daemon")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(daemon.stderr.take().unwrap()).lines().map(Result::unwrap);
    let told = said.find(|line| line.contains("waiting for a valid configuration")).expect("it ended");
    assert!(told.contains("config.toml:1") && told.contains("did you mean `health`?"), "{told}");
    fs::write(home.config(), valid).unwrap();
    assert!(said.any(|line| line.contains("watching disks")), "it ended");
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}
