//! What the crash sweeps of the kernel tier need and no tool of the distribution does: `trace` runs a command and kills one
//! of its processes at one of its system calls, `rebuild` makes a disk as a power cut would have left it.
//!
//! It runs inside the test node, started by `tests/kernel/sweep.sh`.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, reason = "a tool of the tests")]

#[path = "crash/disk.rs"]
mod disk;
#[path = "crash/trace.rs"]
mod trace;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Crashes, one exactly chosen moment at a time
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Run a command; list or kill its processes at their system calls
    Trace(trace::Args),
    /// Show what dm-log-writes logged: one line for each write or mark
    Log {
        /// The log device
        log: PathBuf,
    },
    /// Make a disk as it was after some of the logged writes
    Rebuild(disk::Rebuild),
}

fn main() -> ExitCode {
    match Args::parse().action {
        Action::Trace(args) => trace::trace(&args),
        Action::Log { log } => {
            disk::show(&log);
            ExitCode::SUCCESS
        }
        Action::Rebuild(args) => {
            disk::rebuild(&args);
            ExitCode::SUCCESS
        }
    }
}
