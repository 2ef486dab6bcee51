//! The HTML pages of `audit fleet` and `audit convert` in Debian's Chromium, which `tests/browser/run.py` drives with Playwright.
//!
//! The pages and pictures of the last run are in `target/browser`.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "fleet/generated.rs"]
mod generated;

use std::fs;
use std::path::Path;
use std::process::Command;

use generated::{EVERYTHING, generate};
use serde_json::{Value, json};

const CHROMIUM: &str = "/usr/bin/chromium";

/// Runs `luks-agent audit` in a directory and returns what it printed.
fn audit(dir: &Path, args: &[&str], code: i32) -> Vec<u8> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_luks-agent"));
    let output = command.env_clear().current_dir(dir).arg("audit").args(args).output().unwrap();
    assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Makes each verdict that a node can have appear, and a key that a node cannot use.
fn add_variety(dir: &Path) {
    let reports = dir.join("reports");
    let mut files: Vec<_> = fs::read_dir(&reports).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for (file, verdict) in files.iter().rev().zip(["excepted", "unknown", "not-encrypted"]) {
        let mut report: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        report["verdict"] = json!(verdict);
        report["reasons"] = json!([format!("this disk is {}", verdict.replace('-', " "))]);
        report["keys"][0]["state"] = json!("Disabled");
        report["keys"][0]["error"] = json!("DisabledException: the key is disabled");
        fs::write(file, report.to_string()).unwrap();
    }
}

#[test]
#[ignore = "needs Chromium"]
fn the_pages_work_in_a_browser() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = &Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("browser");
    let _ = fs::remove_dir_all(dir);
    fs::create_dir_all(dir).unwrap();
    generate(dir, 60);
    add_variety(dir);
    audit(dir, &[&["fleet"], &EVERYTHING[..]].concat(), 1);
    let report = project.join("fuzz/seeds/audit/in-clear.json");
    let page = audit(dir, &["convert", "--format", "html", report.to_str().unwrap()], 0);
    fs::write(dir.join("report.html"), page).unwrap();

    let venv = Command::new(project.join("scripts/deps.sh")).arg("--browser-dir").output().unwrap().stdout;
    let python = Path::new(String::from_utf8(venv).unwrap().trim_end()).join("bin/python3");
    for program in [&python, Path::new(CHROMIUM)] {
        assert!(program.exists(), "{} is missing; run 'scripts/deps.sh browser'", program.display());
    }
    let output = Command::new(python)
        .arg(project.join("tests/browser/run.py"))
        .args([Path::new(CHROMIUM), dir])
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}
