//! The crash sweeps of the kernel tier, from inside the test node: scripts in `tests/kernel/` start this, `tests/kernel_sweep.rs`
//! chooses the points of `sweep.sh` and `cut-sweep.sh`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a tool of the tests")]

#[path = "crash/disk.rs"]
mod disk;
#[path = "crash/node.rs"]
mod node;
#[path = "crash/point.rs"]
mod point;
#[path = "crash/trace.rs"]
mod trace;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::disk::Log;

/// Crashes, one exactly chosen moment at a time
#[derive(Parser)]
enum Action {
    /// Run a command and list the system calls of its processes
    Trace {
        /// A shell command to run after each rename by the command, which stands still meanwhile
        #[arg(long)]
        on_rename: Option<String>,
        /// Where to write what was seen
        #[arg(long)]
        list: PathBuf,
        /// Where its output goes
        #[arg(long)]
        output: PathBuf,
        /// The command
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Show what dm-log-writes logged of a disk
    Log { disk: String, log: PathBuf },
    /// Make a disk as a power cut after some of the logged writes leaves it
    Rebuild {
        log: PathBuf,
        disk: PathBuf,
        writes: usize,
        /// What the disk held before the first of them, if it was not blank
        #[arg(long)]
        base: Option<PathBuf>,
        /// Leaves out some writes since the last flush, which this number selects
        #[arg(long)]
        lose: Option<u64>,
    },
    /// Kill one process of a command at one of its system calls, and print at which
    Kill {
        /// agent, worker.N or tool.N, and at which of its system calls: PROCESS:N
        point: String,
        /// Where its output goes
        #[arg(long)]
        output: PathBuf,
        /// The command
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Try points
    Points { points: Vec<String> },
}

fn main() -> ExitCode {
    match Action::parse() {
        Action::Trace { on_rename, list, output, command } => {
            let seen = trace::list(&command, on_rename, &output);
            std::fs::write(list, seen.text).unwrap();
            return if seen.status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
        Action::Kill { point, output, command } => {
            let (process, at) = point.split_once(':').unwrap();
            let victim = trace::Victim { process: process.to_owned(), at: at.parse().unwrap() };
            let seen = trace::kill_at(&command, victim, &output);
            println!("{}", seen.killed.as_deref().unwrap_or("missed"));
        }
        Action::Log { disk, log } => disk::show(&disk, &Log::read(&log)),
        Action::Rebuild { log, disk, writes, base, lose } => {
            let mut before = base.map_or_else(Vec::new, |base| std::fs::read(base).unwrap());
            before.resize(node::size_of(&disk), 0);
            let image = disk::image(&Log::read(&log), before, writes, lose);
            node::write_disk(&disk, &image);
        }
        Action::Points { points } => {
            let mut sweep = point::Sweep::new();
            points.iter().for_each(|point| sweep.try_point(point));
            node::shut_down();
        }
    }
    ExitCode::SUCCESS
}
