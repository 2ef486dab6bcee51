//! Every target for a few seconds, from its seeds and with a given seed of randomness: the same inputs each time. `make fuzz`
//! does the same guided by coverage, and longer.
#![allow(clippy::print_stdout, reason = "figures")]

use std::path::Path;
use std::process::Command;

use luks_agent::audit::AuditReport;
use luks_agent::certificates::Bundle;
use luks_agent::dsse::Envelope;
use luks_agent::emr::Document;
use luks_agent::job::{Answer, Job};
use luks_agent::state::State;
use luks_agent_fuzz::{TARGET, TARGETS};

/// How long a target may take in all. No target should need it: executions are counted, so that a run can be repeated.
const SECONDS: u32 = 600;
/// How long one input may take.
const INPUT_SECONDS: u32 = 10;
/// Seed of randomness; the environment may give another.
const SEED: &str = "1";

fn fuzz(target: &str, executions: u32) {
    let seed = std::env::var("FUZZ_SEED").unwrap_or_else(|_| SEED.to_owned());
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let seeds = package.join("seeds").join(target);
    let found = Path::new(env!("CARGO_TARGET_TMPDIR")).join("found");
    std::fs::create_dir_all(&found).unwrap();
    // in memory where possible: targets write small files all the time
    let memory = Path::new("/dev/shm");
    let work = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    let corpus = work.path().join("corpus");
    std::fs::create_dir(&corpus).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_luks-agent-fuzz"));
    command
        .env(TARGET, target)
        .env("TMPDIR", work.path())
        .env_remove("RUST_LOG")
        .arg(format!("-seed={seed}"))
        .arg(format!("-runs={executions}"))
        .arg(format!("-max_total_time={SECONDS}"))
        .arg(format!("-timeout={INPUT_SECONDS}"))
        // without coverage no seed would seem to be worth keeping
        .args(["-keep_seed=1", "-print_final_stats=1", "-max_len=16384", "-reduce_inputs=0"])
        .arg(format!("-artifact_prefix={}/{target}-", found.display()))
        // what is new goes into the first, and with this away again
        .arg(&corpus)
        .arg(&seeds);
    let dictionary = package.join("dictionaries").join(format!("{target}.dict"));
    if dictionary.exists() {
        command.arg(format!("-dict={}", dictionary.display()));
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{target}, FUZZ_SEED={seed}: {}\n{said}\nput what was found into {} under a name that says what it is",
        output.status,
        seeds.display(),
    );
    let figure = |name: &str| -> u32 {
        let found = said.lines().find_map(|line| line.strip_prefix(&format!("stat::{name}:")));
        found.and_then(|n| n.trim().parse().ok()).unwrap_or_else(|| panic!("no {name} in:\n{said}"))
    };
    let (done, rate) = (figure("number_of_executed_units"), figure("average_exec_per_sec"));
    println!("{target}: {done} executions, {rate} a second, FUZZ_SEED={seed}");
    assert!(done >= executions, "{target}: only {done} of {executions} executions in {SECONDS} s");
}

macro_rules! short {
    ($($target:ident: $executions:expr,)*) => {
        $(
            #[test]
            fn $target() {
                fuzz(stringify!($target), $executions);
            }
        )*

        #[test]
        fn every_target_is_run() {
            assert_eq!(TARGETS.map(|(name, _)| name), [$(stringify!($target)),*]);
        }
    };
}

// about five seconds each on a machine of 2026
short! {
    answers: 20_000,
    audit: 10_000,
    certificates: 800,
    config: 3_000,
    disk: 1_000,
    emr: 5_000,
    envelope: 10_000,
    exec: 20_000,
    header: 10_000,
    imds: 1_000,
    kms: 600,
    state: 2_000,
    worker: 3_000,
}

/// A seed that no longer is what its name says would be of little use, and nothing else would tell.
#[test]
fn seeds_are_still_read() {
    let read = |target: &str, name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target).join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    };
    for name in [
        "probe",
        "format-blank",
        "format-unfinished",
        "format-wipe",
        "unlock",
        "mount",
        "close",
        "add-key",
        "remove-key",
    ] {
        let text = read("worker", name);
        let job = serde_json::from_str::<Job>(text.lines().next().unwrap_or_default());
        job.unwrap_or_else(|e| panic!("worker/{name}: {e}"));
    }
    for name in ["blank", "luks2", "content-0", "content-4", "changed", "formatted", "unlocked", "closed", "failed"] {
        for line in read("answers", name).lines() {
            serde_json::from_str::<Answer>(line).unwrap_or_else(|e| panic!("answers/{name}: {e}"));
        }
    }
    for name in
        ["06-pem-sse-kms-luks", "30-ebs-sse-s3", "config-item", "w1-describe", "w3-cfn-object", "w6-terraform-plan"]
    {
        let read = Document::read_all(read("emr", &format!("{name}.json")).as_bytes());
        read.unwrap_or_else(|e| panic!("emr/{name}: {e}"));
    }
    for name in ["chain", "bad-files", "stored"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds/certificates").join(format!("{name}.zip"));
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Bundle::read(&bytes).unwrap_or_else(|e| panic!("certificates/{name}: {e}"));
    }
    for name in ["encrypted", "in-clear", "unknown-without-imds"] {
        let read = AuditReport::read(read("audit", &format!("{name}.json")).as_bytes());
        read.unwrap_or_else(|e| panic!("audit/{name}: {e}"));
    }
    for name in ["key", "signed"] {
        let read = Envelope::read(read("envelope", &format!("{name}.json")).as_bytes());
        read.unwrap_or_else(|e| panic!("envelope/{name}: {e}"));
    }
    for name in ["empty", "one-volume", "three-volumes", "version-1"] {
        let text = read("state", &format!("{name}.json"));
        let mut state: serde_json::Value = serde_json::from_str(&text).unwrap();
        state.as_object_mut().unwrap().remove("sha256");
        serde_json::from_value::<State>(state).unwrap_or_else(|e| panic!("state/{name}: {e}"));
    }
}
