//! The token plug-in of cryptsetup as a file, and `luks-agent unwrap`, which it starts. Needs no privileges: the kernel tier opens volumes
//! with both.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs::{self, File};
use std::io::{Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use fake_aws::{Fault, Server};
use luks_agent::config;
use luks_agent::kms::{AwsKms, KeyService, Options};
use luks_agent::luks2::Token;
use support::token_plugin;

/// The linker that comes with Rust, which stands for the lld of distributions.
fn lld() -> [String; 2] {
    let said = Command::new("rustc").args(["--print", "sysroot"]).current_dir(support::project_dir()).output().unwrap();
    let sysroot = String::from_utf8(said.stdout).unwrap();
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    [format!("-B{}/lib/rustlib/{target}/bin/gcc-ld", sysroot.trim()), "-fuse-ld=lld".to_owned()]
}

fn run(program: &str, args: &[&str], file: &Path) -> String {
    let said = Command::new(program).args(args).arg(file).output().unwrap();
    assert!(said.status.success(), "{program}: {}", String::from_utf8_lossy(&said.stderr));
    String::from_utf8(said.stdout).unwrap()
}

/// The names that a linker exports, with their versions.
fn exported(plugin: &Path) -> Vec<String> {
    let symbols = run("nm", &["--dynamic", "--defined-only", "--format=posix"], plugin);
    let names = symbols.lines().filter_map(|line| line.split(' ').next());
    let mut names: Vec<String> = names.filter(|name| *name != "CRYPTSETUP_TOKEN_1.0").map(str::to_owned).collect();
    names.sort();
    names
}

#[test]
fn both_linkers_export_what_libcryptsetup_looks_up_and_nothing_else() {
    let expected =
        ["dump", "open", "validate", "version"].map(|name| format!("cryptsetup_token_{name}@@CRYPTSETUP_TOKEN_1.0"));
    let [folder, lld] = lld();
    for (name, options) in [("ld", &["-fuse-ld=bfd"][..]), ("lld", &[folder.as_str(), lld.as_str()])] {
        let plugin = token_plugin::build(name, options);
        assert_eq!(exported(&plugin), expected, "{name}");
        let dynamic = run("readelf", &["--dynamic", "--wide"], &plugin);
        let needed = dynamic.lines().filter(|line| line.contains("(NEEDED)"));
        for library in needed {
            let known =
                ["libcryptsetup.so.12", "libgcc_s.so.1", "libc.so.6", "libpthread.so.0", "libdl.so.2", "ld-linux"];
            assert!(known.iter().any(|known| library.contains(known)), "{name}: {library}");
        }
        assert!(dynamic.contains("libcryptsetup.so.12"), "{name}: libcryptsetup may be invisible to it");
        assert!(fs::metadata(&plugin).unwrap().len() < 1 << 20, "{name}: it is not thin");
    }
}

/// An endpoint, and a token with a key that it has wrapped.
fn endpoint() -> (Server, serde_json::Value, Vec<u8>) {
    let server = Server::start_blocking(fake_aws::Options::default()).unwrap();
    let config = config::Kms {
        key_id: Some(server.key_arn()),
        region: None,
        endpoint_url: Some(server.url()),
        fips: None,
        dual_stack: None,
        allow_http: false,
        deadline: std::time::Duration::from_secs(60),
    };
    let credentials = SharedCredentialsProvider::new(Credentials::new("AKIDTEST", "secret", None, None, "test"));
    let options = Options { credentials: Some(credentials), ..Options::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let made =
        runtime.block_on(async { AwsKms::connect_with(&config, options).await.unwrap().generate().await.unwrap() });
    let token = serde_json::to_value(Token::new(made.source(), None)).unwrap();
    server.clear_requests();
    (server, token, made.data_key.passphrase().expose().to_vec())
}

/// `luks-agent unwrap` as on an operator's machine, which has no configuration of the agent.
fn unwrap_to(stdout: Stdio, server: &Server, token: &[u8]) -> Output {
    unwrap_with(Path::new("/nonexistent/config.toml"), stdout, server, token)
}

fn unwrap_with(config: &Path, stdout: Stdio, server: &Server, token: &[u8]) -> Output {
    let mut child = command(config, server).stdin(Stdio::piped()).stdout(stdout).spawn().unwrap();
    // it may end before it has read the token
    let _ = child.stdin.take().unwrap().write_all(token);
    child.wait_with_output().unwrap()
}

fn command(config: &Path, server: &Server) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_luks-agent"));
    command
        .arg("--config")
        .arg(config)
        .args(["--log-level", "error", "unwrap"])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("AWS_ACCESS_KEY_ID", "AKIDTEST")
        .env("AWS_SECRET_ACCESS_KEY", "secret")
        .env("AWS_ENDPOINT_URL", server.url())
        .stderr(Stdio::piped());
    command
}

fn unwrap(server: &Server, token: &[u8]) -> (Option<i32>, Vec<u8>, String) {
    let said = unwrap_to(Stdio::piped(), server, token);
    (said.status.code(), said.stdout, String::from_utf8(said.stderr).unwrap())
}

#[test]
fn unwrap_writes_the_passphrase_to_a_pipe_and_to_nothing_else() {
    let (server, token, passphrase) = endpoint();
    let token = token.to_string();
    let (code, said, errors) = unwrap(&server, token.as_bytes());
    assert!((code, said == passphrase, errors.as_str()) == (Some(0), true, ""), "{code:?} {errors}");
    assert_eq!(server.count("Decrypt"), 1);

    server.clear_requests();
    let file = tempfile::NamedTempFile::new().unwrap();
    let terminal = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
    let said = unwrap_to(File::create(file.path()).unwrap().into(), &server, token.as_bytes());
    assert_eq!(said.status.code(), Some(2));
    assert!(String::from_utf8(said.stderr).unwrap().contains("to a pipe only"));
    assert_eq!(fs::metadata(file.path()).unwrap().len(), 0);
    let said =
        Command::new("python3").args(["-c", terminal, env!("CARGO_BIN_EXE_luks-agent"), "unwrap"]).output().unwrap();
    assert_eq!(said.status.code(), Some(2));
    assert!(String::from_utf8(said.stdout).unwrap().contains("to a pipe only"));
    assert_eq!(unwrap_to(Stdio::null(), &server, token.as_bytes()).status.code(), Some(2));
    assert_eq!(server.requests().len(), 0, "the key was asked for");
}

#[test]
fn the_exit_code_of_unwrap_tells_the_token_from_the_key_service() {
    let (server, token, _) = endpoint();
    let with = |name: &str, value: &str| {
        let mut token = token.clone();
        token[name] = value.into();
        token.to_string()
    };
    let assert_fails = |token: &str, expected: i32, part: &str| {
        let (code, said, errors) = unwrap(&server, token.as_bytes());
        assert_eq!((code, said.len()), (Some(expected), 0), "{errors}");
        assert!(errors.contains(part), "{part:?} is not in: {errors}");
    };
    assert_fails("{", 1, "cannot be read");
    assert_fails(&with("type", "systemd-tpm2"), 1, "not of type luks-agent-awskms");
    assert_fails(&with("key_arn", "arn:aws:kms:evil.example/:111122223333:key/1"), 1, "names no KMS key");
    assert_fails(&with("key_arn", "arn:aws:kms:s3:111122223333:key/1"), 1, "names no KMS key");
    assert_fails(&with("type", "luks-agent-exec"), 2, "exec");
    assert_eq!(server.requests().len(), 0, "an enemy's token was asked for");
    assert_fails(&with("wrapped_key", "AQID"), 1, "the wrapped key");
    server.set_allow(Some(&["DescribeKey"]));
    assert_fails(&token.to_string(), 4, "kms:Decrypt");
    // once: nobody wants to wait a minute for the reason
    let denied = server.count("Decrypt");
    assert!(denied <= 2, "{denied} requests");
    server.set_allow(None);
    server.push_fault(throttled());
    assert_eq!(unwrap(&server, token.to_string().as_bytes()).0, Some(0), "it does not retry");
}

#[test]
fn a_pipe_that_fails_is_no_fault_of_the_token() {
    let (server, token, _) = endpoint();
    let run = |stdin: Stdio, stdout: Stdio| {
        let mut command = command(Path::new("/nonexistent/config.toml"), &server);
        let said = command.stdin(stdin).stdout(stdout).spawn().unwrap().wait_with_output().unwrap();
        (said.status.code(), String::from_utf8(said.stderr).unwrap())
    };
    let (code, errors) = run(File::open("/").unwrap().into(), Stdio::piped());
    assert!(code == Some(2) && errors.contains("cannot read the token from standard input"), "{code:?} {errors}");
    // nobody reads the passphrase any more
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(token.to_string().as_bytes()).unwrap();
    file.rewind().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let (code, errors) = run(file.into(), writer.into());
    assert!(code == Some(2) && errors.contains("cannot write the passphrase"), "{code:?} {errors}");
}

#[test]
fn the_configuration_names_the_program_and_the_token_never_does() {
    // its base64 is the passphrase
    const KEY: &str = "UXo3I21hcmtlci9RejcjbWFya2VyL1F6NyNtYXJrZXI=";
    let server = Server::start_blocking(fake_aws::Options::default()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let script = |name: &str, does: &str| {
        let path = dir.path().join(name);
        fs::write(&path, format!("#!/bin/bash\n{does}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        path
    };
    let called = dir.path().join("called");
    let ours = script("ours", &format!("cat >/dev/null; echo '{{\"version\":1,\"plaintext\":\"{KEY}\"}}'"));
    let attacker = script("attacker", &format!("touch '{}'", called.display()));
    let config = dir.path().join("config.toml");
    let text = format!("[keys]\nprovider = \"exec\"\n[exec]\ncommand = [\"{}\"]\nkey_id = \"nodes\"\n", ours.display());
    fs::write(&config, text).unwrap();
    let token = serde_json::json!({
        "type": "luks-agent-exec", "keyslots": ["0"], "version": 1, "wrapped_key": "AQID", "instance_id": null,
        "key_arn": attacker, "command": [attacker], "program": attacker,
    });
    let said = unwrap_with(&config, Stdio::piped(), &server, token.to_string().as_bytes());
    assert_eq!(said.status.code(), Some(0), "{}", String::from_utf8_lossy(&said.stderr));
    assert!(said.stdout == KEY.as_bytes());
    assert!(!called.exists());
}

fn throttled() -> Fault {
    serde_json::from_value(
        serde_json::json!({"on": "Decrypt", "times": 1, "effect": {"error": {"code": "ThrottlingException"}}}),
    )
    .unwrap()
}
