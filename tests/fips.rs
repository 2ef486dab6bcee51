//! The program in the packages that `make packages FIPS=1` builds. `make test-fips` builds them and runs this.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use fake_aws::{Server, TestCa};
use support::profile_dir;
use tempfile::TempDir;

/// The program of the package, stripped as it is there.
fn unpacked(dir: &Path) -> PathBuf {
    let packages = profile_dir().with_file_name("packages-fips");
    let name = format!("luks-agent_{}-1+fips_amd64.deb", env!("CARGO_PKG_VERSION"));
    let unpack = Command::new("dpkg-deb").arg("-x").arg(packages.join(name)).arg(dir).status().unwrap();
    assert!(unpack.success(), "run make test-fips");
    dir.join("usr/sbin/luks-agent")
}

/// Each start of the program tests the code of the module: it aborts if that has changed.
#[test]
fn the_packaged_program_calls_kms_over_tls_and_a_changed_one_does_not_start() {
    let dir = TempDir::new().unwrap();
    let agent = unpacked(dir.path());
    let version = Command::new(&agent).arg("--version").output().unwrap();
    let expected = format!("luks-agent {}+fips\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(String::from_utf8_lossy(&version.stdout), expected, "{version:?}");

    let ca = TestCa::new().unwrap();
    let server = Server::start_blocking(fake_aws::Options {
        listen: Vec::new(),
        tls_listen: vec![([127, 0, 0, 1], 0).into()],
        tls: Some(ca.identity(&["127.0.0.1"]).unwrap()),
        ..fake_aws::Options::default()
    })
    .unwrap();
    let said = doctor(&agent, dir.path(), &server, &ca);
    assert!(server.count("DescribeKey") > 0, "{said:?}");
    assert!(server.requests().iter().all(|request| request.tls));

    let mut program = fs::read(&agent).unwrap();
    change_the_module(&mut program);
    fs::write(&agent, program).unwrap();
    let changed = Command::new(&agent).arg("--version").output().unwrap();
    let complaint = String::from_utf8_lossy(&changed.stderr);
    assert!(!changed.status.success() && complaint.contains("integrity test failed"), "{changed:?}");
}

fn doctor(agent: &Path, dir: &Path, server: &Server, ca: &TestCa) -> Output {
    let (config, file) = (dir.join("config.toml"), dir.join("ca.pem"));
    let text = format!(
        "[kms]\nkey_id = \"{}\"\nendpoint_url = \"{}\"\ndeadline = \"20s\"\n[state]\ndir = \"{}\"\n",
        server.key_arn(),
        server.tls_url(),
        dir.join("state").display()
    );
    fs::write(&config, text).unwrap();
    fs::write(&file, ca.pem()).unwrap();
    Command::new(agent)
        .args(["doctor", "--config"])
        .arg(&config)
        .env_clear()
        .envs([
            ("AWS_ACCESS_KEY_ID", "AKIDENV"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ])
        .env("SSL_CERT_FILE", &file)
        .output()
        .unwrap()
}

/// Flips a bit of a constant of the module: the key of its self-test of AES, which comes after that of the code.
fn change_the_module(program: &mut [u8]) {
    let constant = b"BoringCrypto Key";
    let found: Vec<_> = (0..program.len()).filter(|&at| program[at..].starts_with(constant)).collect();
    assert!(!found.is_empty());
    for at in found {
        program[at] ^= 1;
    }
}
