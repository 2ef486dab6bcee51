//! `make bench`: how long the boot path takes, against what people do by hand with `cryptsetup`.
//!
//! A Debian 12 in QEMU, with the harness of the machine tier. Everybody works on the same disks, one right after the other, and
//! what counts is the ratio of times within one round ((a) takes part in the first only). [docs/performance.md] says what is
//! compared with what, and why.
//!
//! `BENCH_VOLUMES="1 4 8 24"` and `BENCH_ROUNDS=3` are the defaults.
//!
//! [docs/performance.md]: ../docs/performance.md
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, reason = "a table, printed on a terminal")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use fake_aws::Server;
use serde_json::Value;
use support::ec2;
use support::qemu::{AWS_ADDRESS, Limit, Machine};

/// Argon2id takes up to 1 GiB, and no more than half of what there is.
const MEMORY_MIB: u64 = 3 << 10;
const RUN_LIMIT: Duration = Duration::from_secs(1800);
const MIB: f64 = 1024.0;

/// How often a round unlocks from warm caches: it takes seconds, and the targets are about a few percent.
const UNLOCKS: usize = 3;

const LARGEST_ALLOWED_MIB: f64 = 24.0;

/// What `provision` may take by (b).
const PROVISION_ALLOWED: f64 = 1.2;

/// The one slow volume, as slow as a gp3 volume of EBS without extra performance.
const GP3: &str = "vol0123456789abcdef0";
const GP3_SIZE: u64 = 500 << 30;
const GP3_LIMIT: Limit = Limit { requests_per_second: 3000, bytes_per_second: 125 << 20 };

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Provision,
    /// The same programs and disks as a moment ago.
    Unlock,
    /// After the kernel has dropped its caches.
    UnlockCold,
}

impl Phase {
    const ALL: [Self; 3] = [Self::Provision, Self::UnlockCold, Self::Unlock];

    fn name(self) -> &'static str {
        match self {
            Self::Provision => "provision",
            Self::Unlock => "unlock",
            Self::UnlockCold => "unlock, cold caches",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Agent,
    /// `cryptsetup` with its default format, one volume after the other.
    Default,
    /// `cryptsetup` with PBKDF2 and 1000 iterations, as many volumes at once as there are cores.
    Tuned,
}

impl Who {
    const ALL: [Self; 3] = [Self::Agent, Self::Default, Self::Tuned];

    fn name(self) -> &'static str {
        match self {
            Self::Agent => "luks-agent",
            Self::Default => "(a) default",
            Self::Tuned => "(b) tuned",
        }
    }

    fn command(self, phase: Phase, volumes: usize) -> String {
        match (self, phase) {
            (Self::Agent, Phase::Provision) => format!("--marker {AWS_ADDRESS}:80 luks-agent provision"),
            (Self::Agent, Phase::Unlock | Phase::UnlockCold) => format!("--marker {AWS_ADDRESS}:80 luks-agent unlock"),
            (Self::Default, Phase::Provision) => format!("bench.sh format-default {volumes}"),
            (Self::Default, Phase::Unlock | Phase::UnlockCold) => format!("bench.sh open-default {volumes}"),
            (Self::Tuned, Phase::Provision) => format!("bench.sh format-tuned {volumes}"),
            (Self::Tuned, Phase::Unlock | Phase::UnlockCold) => format!("bench.sh open-tuned {volumes}"),
        }
    }
}

/// What one run took.
#[derive(Debug, Clone, Copy)]
struct Sample {
    seconds: f64,
    /// The largest single process, resident.
    largest_mib: f64,
    /// All processes and the page cache that they filled.
    all_mib: f64,
    /// From the start of the process to its first request, of IMDS and of KMS; milliseconds.
    to_imds: Option<f64>,
    to_kms: Option<f64>,
}

fn main() -> ExitCode {
    set_hook(Box::new(|panic| eprintln!("\nbench failed: {}", panic.payload_as_str().unwrap_or("no reason given"))));
    // a failed run ends in a panic, at which the machine prints the last of its console
    match catch_unwind(AssertUnwindSafe(bench)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn bench() {
    let words = std::env::var("BENCH_VOLUMES").unwrap_or_else(|_| "1 4 8 24".to_owned());
    let counts: Vec<usize> = words.split_whitespace().map(|word| word.parse().unwrap()).collect();
    let rounds: usize = std::env::var("BENCH_ROUNDS").map_or(3, |word| word.parse().unwrap());
    let most = *counts.iter().max().unwrap();

    let aws = ec2::aws();
    let agent = released_agent();
    let mut vm = Machine::new("bench").quiet().memory(MEMORY_MIB);
    for volume in 1..=most {
        vm.add_disk(&format!("bench-{volume}"), ec2::VOLUME);
    }
    vm.add_slow_disk(GP3, GP3_SIZE, GP3_LIMIT);
    vm = vm
        .tool(&agent)
        .tool(support::project_dir().join("tests/machine/bench.sh"))
        .tool(support::program("examples/measure"))
        .forward(80, aws.addresses()[0]);
    eprintln!("booting a machine with {most} disks");
    vm.boot();
    vm.ok(&format!("bench.sh setup {most}"));
    let cores: usize = vm.ok("nproc").parse().unwrap();

    let mut bench = Bench { vm, aws, samples: BTreeMap::new() };
    for &volumes in &counts {
        bench.vm.write_file("/etc/luks-agent/config.toml", config(&bench.aws, volumes));
        for round in 1..=rounds {
            for who in [Who::Agent, Who::Tuned, Who::Default] {
                // minutes each time, all of it computing, and far from where a few percent matter
                if who == Who::Default && round > 1 {
                    continue;
                }
                eprintln!("{volumes} volumes, round {round} of {rounds}: {}", who.name());
                bench.vm.ok(&format!("bench.sh blank {volumes}"));
                for phase in Phase::ALL {
                    let times = if phase == Phase::Unlock && who != Who::Default { UNLOCKS } else { 1 };
                    for _ in 0..times {
                        bench.run(phase, volumes, who);
                        bench.vm.ok("bench.sh close");
                    }
                }
            }
        }
    }
    let gp3 = bench.gp3(rounds);
    let table = Table { samples: bench.samples, counts, cores, kvm: bench.vm.on_kvm(), binary_mib: binary_mib(&agent) };
    println!(
        "luks-agent against cryptsetup: {}, {cores} cores, {MEMORY_MIB} MiB; {rounds} rounds, medians; (a) once",
        if table.kvm { "KVM" } else { "software emulation, no KVM" }
    );
    for phase in [Phase::Unlock, Phase::UnlockCold, Phase::Provision] {
        print!("{}", table.times(phase));
    }
    print!("{gp3}{}{}", table.memory(), table.start());
    print!("{}", table.targets());
}

/// As it is shipped; the benchmark itself is built like the tests, which takes less time and is not what is measured.
fn released_agent() -> PathBuf {
    let program = support::program("luks-agent");
    let released = program.parent().unwrap().with_file_name("release").join("luks-agent");
    assert!(released.exists(), "{} is not built: run `make bench`", released.display());
    released
}

fn binary_mib(program: &Path) -> [f64; 2] {
    let stripped = tempfile::NamedTempFile::new().unwrap();
    let done = Command::new("strip").arg("-o").arg(stripped.path()).arg(program).status();
    assert!(
        done.is_ok_and(|status| status.success()),
        "strip (Debian package binutils) failed on {}",
        program.display()
    );
    [program, stripped.path()].map(|path| std::fs::metadata(path).unwrap().len() as f64 / MIB / MIB)
}

fn config(aws: &Server, volumes: usize) -> String {
    let mut config = ec2::config(aws);
    for volume in 1..=volumes {
        let path = format!("/dev/disk/by-id/virtio-bench-{volume}");
        write!(config, "[[volumes.match]]\npath = \"{path}\"\nrole = \"ebs\"\n").unwrap();
    }
    config
}

struct Bench {
    vm: Machine,
    aws: Server,
    samples: BTreeMap<(Phase, usize, Who), Vec<Sample>>,
}

impl Bench {
    fn run(&mut self, phase: Phase, volumes: usize, who: Who) {
        self.vm.ok(if phase == Phase::UnlockCold { "bench.sh cold" } else { "bench.sh settle" });
        self.aws.clear_requests();
        let command = who.command(phase, volumes);
        let measured = self.measure(&command, volumes);
        if who == Who::Agent {
            let calls = |operation| self.aws.count(operation);
            let expected = if phase == Phase::Provision { 1 } else { 0 };
            assert_eq!((calls("Decrypt"), calls("GenerateDataKey")), (1, expected), "calls of KMS by {command}");
        }
        let number = |name: &str| measured[name].as_f64().unwrap();
        let sample = Sample {
            seconds: number("seconds"),
            largest_mib: number("largest_kib") / MIB,
            all_mib: number("all_kib") / MIB,
            to_imds: self.since_marker(|operation| operation.starts_with("imds:")),
            to_kms: self.since_marker(|operation| !operation.starts_with("imds:")),
        };
        // all of it: a run that is ended early is not lost
        let first = |at: Option<f64>| at.map_or("-".to_owned(), |at| format!("{at:.0} ms"));
        eprintln!(
            "  {}: {:.2} s, largest process {:.1} MiB, all {:.0} MiB, to IMDS {}, to KMS {}",
            phase.name(),
            sample.seconds,
            sample.largest_mib,
            sample.all_mib,
            first(sample.to_imds),
            first(sample.to_kms)
        );
        self.samples.entry((phase, volumes, who)).or_default().push(sample);
    }

    /// Runs a command that mounts so many volumes, and returns what `examples/measure.rs` says of it.
    fn measure(&mut self, command: &str, volumes: usize) -> Value {
        // a file: whoever reads a pipe takes time of his own
        let output = self.vm.run_with(&format!("measure {command} 2>/run/bench/log"), b"", RUN_LIMIT);
        assert_eq!(output.status, 0, "{command}: {}", self.vm.ok("cat /run/bench/log"));
        let mounted = self.vm.ok("grep -c '^/dev/mapper/' /proc/mounts");
        assert_eq!(mounted, volumes.to_string(), "mounted after {command}");
        serde_json::from_str(&output.stdout).unwrap()
    }

    /// The first boot with one large and slow volume.
    fn gp3(&mut self, rounds: usize) -> String {
        self.vm.write_file("/etc/luks-agent/config.toml", ec2::config(&self.aws));
        self.vm.ok(&format!("ec2-nvme.sh attach {GP3} && udevadm settle"));
        let device = format!("/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{GP3}");
        let said = self.vm.ok(&format!("dd if={device} of=/dev/null bs=16k count=300 iflag=direct 2>&1 | tail -n 1"));
        let seconds = said.split(", ").find_map(|part| part.strip_suffix(" s")).and_then(|s| s.parse::<f64>().ok());
        let mut text = format!(
            "\nprovision of one volume of 500 GiB, 3,000 requests and 125 MiB in a second, {:.1} ms for a read of 16 KiB; seconds\n\
             luks-agent    (b) tuned    agent/(b)\n",
            seconds.unwrap() / 300.0 * 1000.0
        );
        for round in 1..=rounds {
            let mut seconds = Vec::new();
            for command in [&format!("--marker {AWS_ADDRESS}:80 luks-agent provision"), "bench.sh format-gp3"] {
                eprintln!("the slow volume, round {round} of {rounds}: {command}");
                self.vm.ok("bench.sh blank-gp3; bench.sh cold");
                seconds.push(self.measure(command, 1)["seconds"].as_f64().unwrap());
                self.vm.ok("bench.sh close");
            }
            let (agent, tuned) = (seconds[0], seconds[1]);
            writeln!(text, "{agent:>10.2}    {tuned:>9.2}    {:>9.2}", agent / tuned).unwrap();
        }
        text
    }

    /// When the first request of a kind came after the marker, in milliseconds.
    fn since_marker(&self, wanted: impl Fn(&str) -> bool) -> Option<f64> {
        let requests = self.aws.requests();
        let mut requests = requests.iter();
        let marker = requests.find(|request| request.request == "GET /latest/marker")?;
        let first = requests.find(|request| wanted(&request.operation))?;
        Some(first.time.duration_since(marker.time).as_secs_f64() * 1000.0)
    }
}

/// What came of it.
struct Table {
    samples: BTreeMap<(Phase, usize, Who), Vec<Sample>>,
    counts: Vec<usize>,
    cores: usize,
    kvm: bool,
    /// As it was built, and without symbols and debug information.
    binary_mib: [f64; 2],
}

impl Table {
    fn all(&self, phase: Phase, volumes: usize, who: Who) -> &[Sample] {
        &self.samples[&(phase, volumes, who)]
    }

    fn seconds(&self, phase: Phase, volumes: usize, who: Who) -> f64 {
        median(self.all(phase, volumes, who).iter().map(|sample| sample.seconds))
    }

    /// The agent's time by another's: the median of the rounds' ratios, so that what slows the machine down for a while slows
    /// down both.
    fn ratio(&self, phase: Phase, volumes: usize, other: Who) -> f64 {
        let agent = self.all(phase, volumes, Who::Agent).iter();
        median(agent.zip(self.all(phase, volumes, other)).map(|(agent, other)| agent.seconds / other.seconds))
    }

    /// The time for so many volumes by that for one, and how much of it n/c allows.
    fn growth(&self, phase: Phase, volumes: usize, who: Who) -> Option<(f64, f64)> {
        let one = self.counts.contains(&1).then(|| self.seconds(phase, 1, who))?;
        Some((self.seconds(phase, volumes, who) / one, (volumes as f64 / self.cores as f64).max(1.0)))
    }

    fn times(&self, phase: Phase) -> String {
        let head =
            "volumes   luks-agent  (a) default    (b) tuned    agent/(a)  agent/(b)    t(n)/t(1)  n/c    (b) t(n)/t(1)";
        let mut text = format!("\n{}, seconds\n{head}\n", phase.name());
        for &volumes in &self.counts {
            let [agent, default, tuned] = Who::ALL.map(|who| self.seconds(phase, volumes, who));
            let (a, b) = (self.ratio(phase, volumes, Who::Default), self.ratio(phase, volumes, Who::Tuned));
            write!(
                text,
                "{volumes:>7}   {agent:>10.2}  {default:>11.2}  {tuned:>11.2}  {:>9.1} %  {b:>9.2}",
                a * 100.0
            )
            .unwrap();
            if let (Some((growth, allowed)), Some((tuned, _))) =
                (self.growth(phase, volumes, Who::Agent), self.growth(phase, volumes, Who::Tuned))
            {
                write!(text, "    {growth:>9.2}  {allowed:>3.0}    {tuned:>13.2}").unwrap();
            }
            text.push('\n');
        }
        text
    }

    fn peak(&self, phase: Phase, volumes: usize, who: Who, of: impl Fn(&Sample) -> f64) -> f64 {
        self.all(phase, volumes, who).iter().map(of).fold(0.0, f64::max)
    }

    fn memory(&self) -> String {
        let mut text =
            "\npeak memory, MiB: largest single process / all processes and the page cache that they filled\n\
                        volumes                          luks-agent     (a) default       (b) tuned\n"
                .to_owned();
        for phase in [Phase::UnlockCold, Phase::Provision] {
            for &volumes in &self.counts {
                write!(text, "{volumes:>7}   {:<19}", phase.name()).unwrap();
                for who in Who::ALL {
                    let largest = self.peak(phase, volumes, who, |sample| sample.largest_mib);
                    let all = self.peak(phase, volumes, who, |sample| sample.all_mib);
                    write!(text, "  {largest:>6.1} / {all:>5.0}").unwrap();
                }
                text.push('\n');
            }
        }
        text
    }

    fn start(&self) -> String {
        let mut text = "\nfrom exec to the first byte, milliseconds, credentials from IMDS\n\
                        volumes                       to IMDS     to KMS\n"
            .to_owned();
        for phase in [Phase::Unlock, Phase::UnlockCold, Phase::Provision] {
            for &volumes in &self.counts {
                let samples = self.all(phase, volumes, Who::Agent);
                let imds = median(samples.iter().filter_map(|sample| sample.to_imds));
                let kms = median(samples.iter().filter_map(|sample| sample.to_kms));
                writeln!(text, "{volumes:>7}   {:<19} {imds:>7.0}    {kms:>7.0}", phase.name()).unwrap();
            }
        }
        let [built, stripped] = self.binary_mib;
        writeln!(text, "\nsize of the binary: {built:.1} MiB, {stripped:.1} MiB stripped").unwrap();
        text
    }

    fn targets(&self) -> String {
        let mut text = "\ntargets\n".to_owned();
        let mut target = |what: String, measured: String, met: bool| {
            writeln!(text, "{:<6}  {what:<58}  {measured}", if met { "met" } else { "MISSED" }).unwrap();
        };
        let share = if self.kvm { 0.05 } else { 0.15 };
        for phase in [Phase::Unlock, Phase::Provision] {
            let what = phase.name();
            for &volumes in &self.counts {
                let (a, b) = (self.ratio(phase, volumes, Who::Default), self.ratio(phase, volumes, Who::Tuned));
                if volumes >= 8 {
                    let (met, words) = match phase {
                        Phase::Provision => (b <= PROVISION_ALLOWED, format!("at most {PROVISION_ALLOWED} of (b)")),
                        Phase::Unlock | Phase::UnlockCold => (b < 1.0, "faster than (b)".to_owned()),
                    };
                    target(format!("{what} {volumes}: {words}"), format!("{b:.2} of (b)"), met);
                }
                let allowed = format!("{what} {volumes}: at most {:.0} % of (a)", share * 100.0);
                target(allowed, format!("{:.1} %", a * 100.0), a <= share);
                if let Some((growth, allowed)) = self.growth(phase, volumes, Who::Agent).filter(|_| volumes > 1) {
                    let limit =
                        format!("{what} {volumes}: time grows no faster than n/c, {allowed:.0} times that of 1");
                    target(limit, format!("{growth:.2} times"), growth <= allowed);
                }
            }
        }
        let runs = self.samples.iter().filter(|((_, _, who), _)| *who == Who::Agent);
        let largest = runs.flat_map(|(_, samples)| samples).map(|sample| sample.largest_mib).fold(0.0, f64::max);
        target(
            format!("peak memory of the largest process at most {LARGEST_ALLOWED_MIB:.0} MiB"),
            format!("{largest:.1} MiB"),
            largest <= LARGEST_ALLOWED_MIB,
        );
        // checked after each run, which fails otherwise
        target("one call of KMS to unlock".to_owned(), "1 Decrypt".to_owned(), true);
        text
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}
