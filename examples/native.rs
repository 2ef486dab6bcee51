//! `make bench-native`: how long the agent's own part of a boot takes on this processor, without a virtual machine: from exec to the
//! first byte that KMS gets, the start of a worker, and the memory of both.
//!
//! Nothing is formatted or opened: the command is `verify` with the state file of a node whose volumes are not here, which does what
//! `unlock` does until KMS answers. KMS and IMDS are the fake endpoint, in this process, over HTTP. As root, it also measures how long
//! `cryptsetup open` takes with the token plug-in.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, reason = "a table, printed on a terminal")]

#[path = "native/stock_tools.rs"]
mod stock_tools;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use fake_aws::{Options, Server};
use jiff::Timestamp;
use nix::sys::resource::{UsageWho, getrusage};

/// How often each is run.
const RUNS: usize = 50;
/// What exec to the first byte of KMS may take, in milliseconds.
const TARGET_MS: f64 = 30.0;

fn main() -> ExitCode {
    let agent = std::env::current_exe().unwrap();
    let agent = agent.ancestors().nth(3).unwrap().join("release/luks-agent");
    if !agent.exists() {
        eprintln!("native: {} is not built; run make bench-native", agent.display());
        return ExitCode::FAILURE;
    }
    let aws = Server::start_blocking(Options { seed: Some("native".to_owned()), ..Options::default() }).unwrap();
    if std::env::args().nth(1).as_deref() == Some("stock-tools") {
        stock_tools::compare(&agent, &aws);
        return ExitCode::SUCCESS;
    }
    // in the target directory, because /tmp may be in memory and then takes no state
    let home = tempfile::tempdir_in(agent.parent().unwrap()).unwrap();
    let config = write_node(home.path(), &aws);

    let verify = |more: &[(&str, &str)]| {
        let mut command = Command::new(&agent);
        command.arg("verify").arg("--config").arg(&config).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", aws.url()).envs(more.iter().copied());
        command
    };
    let keys = [("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test"), ("AWS_REGION", "us-east-1")];
    // the smallest first, because the peak is that of the largest process so far
    let cryptsetup = measure(&aws, || with_arg(Path::new("cryptsetup"), "--version"));
    let worker = measure(&aws, || with_arg(&agent, "worker"));
    let from_imds = measure(&aws, || verify(&[]));
    let from_environment = measure(&aws, || verify(&keys));

    println!("medians of {RUNS} runs");
    println!("exec to first byte of KMS, credentials from IMDS           {:6.1} ms", from_imds.to_kms);
    println!("exec to first byte of KMS, credentials in the environment  {:6.1} ms", from_environment.to_kms);
    println!("start and end of a worker without a job                    {:6.1} ms", worker.milliseconds);
    println!("for comparison, cryptsetup --version                       {:6.1} ms", cryptsetup.milliseconds);
    println!("peak memory of a worker without a job                      {:6.1} MiB", worker.peak_mib);
    println!("peak memory of the agent                                   {:6.1} MiB", from_imds.peak_mib);
    let met = if from_imds.to_kms <= TARGET_MS { "met" } else { "MISSED" };
    println!("{met}: exec to first byte of KMS at most {TARGET_MS:.0} ms");
    stock_tools::compare_in_namespace(&agent);
    ExitCode::SUCCESS
}

fn with_arg(program: &Path, arg: &str) -> Command {
    let mut command = Command::new(program);
    command.arg(arg);
    command
}

/// Writes configuration and state of a node with two volumes that are not here.
fn write_node(home: &Path, aws: &Server) -> PathBuf {
    let state = home.join("state");
    fs::create_dir(&state).unwrap();
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/state/version-4.json");
    fs::copy(sample, state.join("state.json")).unwrap();
    let config = home.join("config.toml");
    let text = format!(
        "[kms]\nkey_id = \"{}\"\nendpoint_url = \"{}\"\ndeadline = \"5s\"\n[state]\ndir = \"{}\"\n[volumes]\nebs = \"ignore\"\ninstance_store = \"ignore\"\n",
        aws.key_arn(),
        aws.url(),
        state.display()
    );
    fs::write(&config, text).unwrap();
    config
}

struct Measured {
    milliseconds: f64,
    /// From exec to the first request of KMS; not a number if there was none.
    to_kms: f64,
    /// Of the largest process that this one has waited for until now.
    peak_mib: f64,
}

fn measure(aws: &Server, command: impl Fn() -> Command) -> Measured {
    let (mut milliseconds, mut to_kms) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        aws.clear_requests();
        let mut command = command();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let (start, began) = (Instant::now(), Timestamp::now());
        command.status().unwrap();
        milliseconds.push(start.elapsed().as_secs_f64() * 1000.0);
        let requests = aws.requests();
        let first = requests.iter().find(|request| !request.operation.starts_with("imds:"));
        to_kms.extend(first.map(|request| request.time.duration_since(began).as_secs_f64() * 1000.0));
    }
    let peak_kib = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss();
    Measured { milliseconds: median(milliseconds), to_kms: median(to_kms), peak_mib: peak_kib as f64 / 1024.0 }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
