//! In the guest of `make bench`: runs a program, and prints how long it took and how much memory, as one line of JSON.
//!
//! `measure [--marker ADDRESS] PROGRAM [ARGUMENT...]`; what the program prints goes to standard error. With `--marker` the
//! HTTP server at ADDRESS is asked for `/latest/marker` right before, so that its log has the beginning on its own clock.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a tool of the benchmark, which fails if this does")]

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::AsFd as _;
use std::process::{Command, ExitCode};
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1).peekable();
    if args.next_if(|arg| arg == "--marker").is_some() {
        let address = args.next().unwrap().into_string().unwrap();
        let mut server = TcpStream::connect(&address).unwrap();
        write!(server, "GET /latest/marker HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
        server.read_to_end(&mut Vec::new()).unwrap();
    }
    let group = Group::enter();
    let mut command = Command::new(args.next().unwrap());
    command.args(args).stdout(io::stderr().as_fd().try_clone_to_owned().unwrap());
    let start = Instant::now();
    let status = command.status().unwrap();
    let seconds = start.elapsed().as_secs_f64();
    // of the largest single process of all that were waited for, however far down; in KiB
    let largest = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss();
    println!("{{\"seconds\": {seconds}, \"largest_kib\": {largest}, \"all_kib\": {}}}", group.peak_kib());
    group.leave();
    if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A control group of its own, which counts the memory of all processes together, page cache included.
struct Group(String);

const GROUPS: &str = "/sys/fs/cgroup";

impl Group {
    fn enter() -> Self {
        let dir = format!("{GROUPS}/measure-{}", std::process::id());
        fs::create_dir(&dir).unwrap();
        fs::write(format!("{dir}/cgroup.procs"), "0").unwrap();
        Self(dir)
    }

    fn peak_kib(&self) -> u64 {
        fs::read_to_string(format!("{}/memory.peak", self.0)).unwrap().trim().parse::<u64>().unwrap() >> 10
    }

    fn leave(self) {
        fs::write(format!("{GROUPS}/cgroup.procs"), "0").unwrap();
        fs::remove_dir(self.0).unwrap();
    }
}
