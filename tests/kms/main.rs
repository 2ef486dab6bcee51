//! The key services, AWS KMS against the fake AWS endpoint and the exec provider against small scripts: which requests they send,
//! how they classify failures, and what their messages say.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod calls;
mod endpoints;
mod exec;
mod faults;
mod proxies;
mod signing;

use std::process::{Command, Output};
use std::time::Duration;

use luks_agent::config;
use luks_agent::kms::{Limits, Options};

const CHILD: &str = "LUKS_AGENT_TEST_CHILD";

/// Short waits; the limits of the work itself are longer than a busy machine needs.
fn limits() -> Limits {
    Limits {
        connect: Duration::from_secs(10),
        attempt: Duration::from_secs(10),
        first_wait: Duration::from_millis(10),
        first_slow_wait: Duration::from_millis(20),
        longest_wait: Duration::from_millis(50),
        first_throttled_wait: Duration::from_millis(10),
        longest_throttled_wait: Duration::from_millis(50),
        patience: Duration::from_secs(10),
        few: 3,
    }
}

/// As on an instance: everything but the key comes from the environment and IMDS.
fn bare(key_id: &str, deadline: Duration) -> config::Kms {
    config::Kms {
        key_id: Some(key_id.to_owned()),
        region: None,
        endpoint_url: None,
        fips: None,
        dual_stack: None,
        allow_http: false,
        deadline,
    }
}

fn quick() -> Options {
    Options { limits: limits(), ..Options::default() }
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Runs a test of this binary again in a process of its own with only this environment, because a process cannot
/// change its own environment without `unsafe`.
fn child(test: &str, env: &[(&str, String)]) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env_clear()
        .envs(env.iter().map(|(name, value)| (*name, value.as_str())))
        .env(CHILD, test)
        .output()
        .unwrap()
}

/// Returns whether this is that process.
fn is_child(test: &str) -> bool {
    std::env::var(CHILD).is_ok_and(|name| name == test)
}

/// Runs the calling test in a child, which must pass there. Returns true in the child.
fn in_child(test: &str, env: &[(&str, String)]) -> bool {
    if is_child(test) {
        return true;
    }
    let child = child(test, env);
    let printed = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (printed(&child.stdout), printed(&child.stderr));
    assert!(child.status.success() && out.contains("1 passed"), "{test} failed in its child:\n{out}\n{err}");
    false
}

/// Everything that any crate logs.
#[derive(Clone, Default)]
struct Captured(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
