//! The kernel tier's crash sweeps: the agent or one of its workers killed at every system call of a provision or a change of
//! keys, and the power cut after every write that reached a volume, of a provision and of the commands for keys and volumes.
//! Whatever the moment, the next run converges with nobody's help, what was committed keeps its data, and nothing that is not
//! the agent's is touched.
//!
//! A sample by default; `make sweep` tries all points. Environment:
//!
//! | variable | |
//! |---|---|
//! | `SWEEP_POINTS` | how many points to try, or `all` |
//! | `SWEEP_SEED` | their order, and what a disk loses that was not flushed |
//! | `SWEEP_FROM` | how many of them to pass over, to go on where a sweep was stopped |
//! | `SWEEP_NODES` | how many nodes work at the same time |
//! | `SWEEP_ONLY` | these points alone, separated by spaces, as they were printed |
//! | `SWEEP_COMMANDS` | the commands whose writes are cut, separated by spaces, instead of all |
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod support;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Write as _;
use std::ops::RangeInclusive;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use support::uml::{Boot, End, MIB, Node, Points, Script};

/// A LUKS2 header and an ext4 file system, and no more: a provision reads all of it.
const DATA_DISK: u64 = 33 * MIB;
const OTHER_DISK: u64 = 8 * MIB;
const LOG_DISK: u64 = 96 * MIB;

/// One of each kind.
const SAMPLE: usize = 10;
/// Few enough that somebody who watches sees that it goes on.
const POINTS_A_BOOT: usize = 25;

/// What the sweep is told.
struct Settings {
    points: usize,
    seed: u64,
    from: usize,
    nodes: usize,
    only: Vec<String>,
}

/// What a node said of one point.
struct Tried {
    point: String,
    /// Nothing, if all was well.
    bad: Option<String>,
    /// Whether the moment came at all.
    reached: bool,
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn after_a_crash_at_any_point_the_next_provision_converges() {
    let settings = Settings::from_environment();
    let began = Instant::now();
    let mut first = node(0);
    let prepared = first.boot(&script("sweep", "prepare", []).timeout(Duration::from_secs(400)));
    prepared.assert_ok();
    let nodes = with_copies(first, node, 'g', settings.nodes);
    let found = Found::read(&prepared);
    say(&found.described());
    let points = settings.choose(found.points(settings.seed), |point| !point.starts_with(CUT));
    let tried = try_all(nodes, "sweep", &points, began);
    let groups = ["first", "later", "again", "power"].map(str::to_owned);
    assert_none_bad(&settings, &points, &tried, &summary(&groups, &tried, began.elapsed()));
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn after_a_kill_at_any_point_of_a_change_of_keys_every_volume_opens_and_the_next_run_finishes() {
    let settings = Settings::from_environment();
    let count = if settings.points == usize::MAX { "all".to_owned() } else { settings.points.to_string() };
    let only = settings.only.iter().filter(|point| point.starts_with('r'));
    let script = Script::with_agent("change-sweep")
        .env("CRASH", support::program("examples/crash").to_str().unwrap())
        .arg(&count)
        .arg(settings.seed.to_string())
        // all of them take hours on a busy machine
        .timeout(Duration::from_secs(if count == "all" { 4 * 3600 } else { 600 }));
    let mut node = Node::new("change-sweep").numbered_disks(&["ubdb", "ubdc"], DATA_DISK);
    let boot = node.boot(&only.fold(script, Script::arg));
    let Points { tried, bad, missed } = boot.points();
    let summary =
        format!("sweep of key changes: seed {}, {tried} points, {bad} bad, {missed} not reached", settings.seed);
    say(&summary);
    if bad > 0 || boot.end() != End::Status(0) {
        println!("{}", boot.timed_console());
    }
    boot.assert_ok();
    assert!(bad == 0 && tried > missed, "{summary}");
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn after_a_power_cut_at_any_write_of_a_command_for_keys_or_volumes_the_next_run_finishes() {
    let settings = Settings::from_environment();
    let began = Instant::now();
    let commands = std::env::var("SWEEP_COMMANDS").unwrap_or_default();
    let commands: Vec<String> = commands.split_whitespace().map(str::to_owned).collect();
    let mut first = cut_node(0);
    let prepared = first.boot(&script("cut-sweep", "prepare", &commands).timeout(Duration::from_secs(900)));
    prepared.assert_ok();
    let nodes = with_copies(first, cut_node, 'd', settings.nodes);
    prepared.console().lines().filter(|line| line.starts_with("marks ")).for_each(say);
    let marks = Found::read(&prepared).marks;
    let recordings = Recording::all(&marks);
    let kinds = recordings.iter().map(|recording| {
        let [now, reordered, _] = recording.power_cuts(settings.seed);
        let mut points: Vec<Point> = now.into_iter().chain(reordered).collect();
        // what is the same for one disk and the other
        points.sort_by(|a, b| (&a.text, a.order).cmp(&(&b.text, b.order)));
        points.dedup_by(|a, b| a.text == b.text);
        say(&format!("sweep: {}: {}, {} points", recording.prefix, recording.described(), points.len()));
        points
    });
    let points = settings.choose(in_turns(kinds.collect()), |point| point.starts_with(CUT));
    let tried = try_all(nodes, "cut-sweep", &points, began);
    let groups: Vec<String> = recordings.iter().map(|recording| format!("{}/", recording.prefix)).collect();
    assert_none_bad(&settings, &points, &tried, &summary(&groups, &tried, began.elapsed()));
}

/// With what the points of the commands for keys and volumes begin.
const CUT: &str = "cut-";

impl Settings {
    fn from_environment() -> Self {
        let get = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let number = |name: &str| {
            get(name).map(|value| value.parse::<u64>().unwrap_or_else(|e| panic!("{name} is '{value}': {e}")))
        };
        let size = |name: &str| number(name).map(|value| usize::try_from(value).unwrap());
        let points = if get("SWEEP_POINTS").as_deref() == Some("all") { None } else { Some(size("SWEEP_POINTS")) };
        Self {
            points: points.map_or(usize::MAX, |points| points.unwrap_or(SAMPLE)),
            seed: number("SWEEP_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000)),
            from: size("SWEEP_FROM").unwrap_or(0),
            nodes: size("SWEEP_NODES").unwrap_or(1).max(1),
            only: get("SWEEP_ONLY").map(|only| only.split(' ').map(str::to_owned).collect()).unwrap_or_default(),
        }
    }

    /// Those to be tried of all points of a test, and says so. `is_ours` tells the points of the test from others.
    fn choose(&self, all: Vec<String>, is_ours: fn(&str) -> bool) -> Vec<String> {
        let only = self.only.iter().filter(|point| is_ours(point)).cloned();
        let points = if self.only.is_empty() { all } else { only.collect() };
        let count = points.len();
        let points: Vec<String> = points.into_iter().skip(self.from).take(self.points).collect();
        say(&format!(
            "sweep: seed {}, {} of {count} points from number {} on, {} nodes at work",
            self.seed,
            points.len(),
            self.from,
            self.nodes
        ));
        points
    }
}

/// The node, and copies of it that are as it is now, with their disks up to `last`.
fn with_copies(first: Node, make: fn(usize) -> Node, last: char, count: usize) -> Vec<Node> {
    let copies: Vec<Node> = (1..count).map(make).collect();
    for copy in &copies {
        for letter in 'a'..=last {
            let disk = format!("ubd{letter}");
            fs::copy(first.disk_path(&disk), copy.disk_path(&disk)).unwrap();
        }
    }
    std::iter::once(first).chain(copies).collect()
}

/// Tries points on several nodes at the same time.
fn try_all(nodes: Vec<Node>, scenario: &str, points: &[String], began: Instant) -> Vec<Tried> {
    let batches = Mutex::new(points.chunks(POINTS_A_BOOT));
    let tried = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for mut node in nodes {
            let (batches, tried) = (&batches, &tried);
            let wanted = points.len();
            scope.spawn(move || {
                loop {
                    let Some(batch) = batches.lock().unwrap().next() else { break };
                    let results = run(&mut node, scenario, batch);
                    let mut tried = tried.lock().unwrap();
                    tried.extend(results);
                    let bad = tried.iter().filter(|t: &&Tried| t.bad.is_some()).count();
                    let (done, minutes) = (tried.len(), began.elapsed().as_secs() / 60);
                    let left = (began.elapsed().as_secs() * (wanted - done) as u64).div_ceil(60 * done as u64);
                    say(&format!("sweep: {done} of {wanted} points tried, {bad} bad, {minutes} min, {left} to go"));
                }
            });
        }
    });
    tried.into_inner().unwrap()
}

fn assert_none_bad(settings: &Settings, points: &[String], tried: &[Tried], summary: &str) {
    say(summary);
    let bad: Vec<&str> = tried.iter().filter(|t| t.bad.is_some()).map(|t| t.point.as_str()).collect();
    assert!(
        bad.is_empty() && tried.len() == points.len(),
        "{summary}\nagain with SWEEP_SEED={} SWEEP_ONLY='{}'",
        settings.seed,
        bad.join(" ")
    );
}

fn node(number: usize) -> Node {
    let disks = [
        ("ubdb", DATA_DISK),
        ("ubdc", DATA_DISK),
        ("ubdd", OTHER_DISK),
        ("ubde", OTHER_DISK),
        ("ubdf", LOG_DISK),
        ("ubdg", LOG_DISK),
    ];
    let node = Node::new(&format!("sweep{number}"));
    disks.iter().fold(node, |node, (disk, bytes)| node.disk_with_serial(disk, *bytes, &format!("serial-{disk}")))
}

fn cut_node(number: usize) -> Node {
    let node = Node::new(&format!("cut-sweep{number}")).numbered_disks(&["ubdb", "ubdc", "ubdd"], DATA_DISK);
    node.numbered_disks(&["ubde", "ubdf"], LOG_DISK)
}

fn script<'a>(scenario: &str, action: &str, points: impl IntoIterator<Item = &'a String>) -> Script {
    let script =
        Script::with_agent(scenario).env("CRASH", support::program("examples/crash").to_str().unwrap()).arg(action);
    points.into_iter().fold(script, Script::arg)
}

/// Tries points in one boot.
fn run(node: &mut Node, scenario: &str, points: &[String]) -> Vec<Tried> {
    let timeout = Duration::from_secs(300 + 40 * points.len() as u64);
    let boot = node.boot(&script(scenario, "points", points).timeout(timeout));
    let console = boot.console();
    let mut tried = Vec::new();
    for point in points {
        let said = format!("-- point {point} ");
        let Some(line) = console.lines().find_map(|line| line.strip_prefix(&said)) else {
            println!("{}", boot.timed_console());
            let bad = Some(format!("stuck: the node ended with {:?} before it was tried", boot.end()));
            tried.push(Tried { point: point.clone(), bad, reached: true });
            // those behind it were not tried, and nobody shall think that they were
            break;
        };
        let bad = line.starts_with("BAD").then(|| {
            let about = console.lines().skip_while(|line| !line.starts_with(&said)).skip(1);
            let wrong: Vec<&str> = about.map_while(|line| line.strip_prefix("   wrong: ")).collect();
            wrong.join("; ")
        });
        if bad.is_some() {
            let about = console.lines().skip_while(|line| !line.starts_with(&said));
            let about: Vec<&str> = about
                .enumerate()
                .take_while(|(i, line)| *i == 0 || line.starts_with("   "))
                .map(|(_, line)| line)
                .collect();
            println!("{}", about.join("\n"));
        }
        tried.push(Tried { point: point.clone(), bad, reached: !line.starts_with("missed") });
    }
    if boot.end() != End::Status(0) && tried.iter().all(|t| t.bad.is_none()) {
        println!("{}", boot.timed_console());
        let last = tried.last_mut().unwrap();
        last.bad = Some(format!("stuck: the node ended with {:?} after it", boot.end()));
    }
    tried
}

/// What there is to be tried, as the node says.
struct Found {
    /// By scenario and process: all its system calls, and those that can change anything.
    processes: BTreeMap<(String, String), (usize, usize)>,
    /// By disk and version of the state file: how many writes there were.
    marks: BTreeMap<(String, String), usize>,
}

impl Found {
    fn read(boot: &Boot) -> Self {
        let mut found = Self { processes: BTreeMap::new(), marks: BTreeMap::new() };
        for line in boot.console().lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["process", name, calls, points, ..] => {
                    let (scenario, process) = name.split_once('/').unwrap();
                    let counts = (calls.parse().unwrap(), points.parse().unwrap());
                    found.processes.insert((scenario.to_owned(), process.to_owned()), counts);
                }
                ["marks", disk, marks @ ..] => {
                    for mark in marks {
                        let (name, writes) = mark.split_once('=').unwrap();
                        found.marks.insert(((*disk).to_owned(), name.to_owned()), writes.parse().unwrap());
                    }
                }
                _ => {}
            }
        }
        found
    }

    fn described(&self) -> String {
        let mut text =
            String::from("sweep: system calls, and in brackets those that can change more than their own process");
        for scenario in ["first", "later", "again"] {
            write!(text, "\n  {scenario}:").unwrap();
            for ((_, process), (calls, points)) in self.processes.iter().filter(|((of, _), _)| of == scenario) {
                write!(text, " {process} {calls} ({points}),").unwrap();
            }
            text.pop();
        }
        let writes = |disk: &str| self.marks[&(disk.to_owned(), "end".to_owned())];
        write!(text, "\n  power: {} writes to ubdb, {} to ubdc", writes("ubdb"), writes("ubdc")).unwrap();
        text
    }

    /// All points, in an order that has something of every kind at its beginning.
    fn points(&self, seed: u64) -> Vec<String> {
        let mut kinds = Vec::new();
        for scenario in ["first", "later", "again"] {
            kinds.push(self.kills(seed, scenario, |process| process == "agent"));
            kinds.push(self.kills(seed, scenario, |process| process.starts_with("worker")));
        }
        // one mkfs and one mount: the others do the same to the other disk
        kinds.push(self.kills(seed, "first", |process| ["tool.1", "tool.4"].contains(&process)));
        let disks = ["ubdb", "ubdc"].map(str::to_owned);
        kinds.extend(Recording { prefix: "power".to_owned(), disks, marks: &self.marks }.power_cuts(seed));
        in_turns(kinds)
    }

    fn kills(&self, seed: u64, scenario: &str, wanted: fn(&str) -> bool) -> Vec<Point> {
        let processes = self.processes.iter().filter(|((of, process), _)| of == scenario && wanted(process));
        let points = processes.flat_map(|((_, process), (_, count))| {
            (1..=*count).map(move |n| {
                Point::new(seed, format!("{scenario}/{process}:{n}"), |point, random| {
                    let cold = if random.bool() { ":cold" } else { "" };
                    format!("{point}{cold}{}", reboot(random))
                })
            })
        });
        points.collect()
    }
}

/// Writes to two disks while the state file went through its versions.
struct Recording<'a> {
    /// With what its points begin.
    prefix: String,
    disks: [String; 2],
    /// As in [`Found`].
    marks: &'a BTreeMap<(String, String), usize>,
}

impl<'a> Recording<'a> {
    /// The recordings of commands: their disks are called COMMAND/b and COMMAND/c.
    fn all(marks: &'a BTreeMap<(String, String), usize>) -> Vec<Self> {
        let commands = marks.keys().filter(|(_, name)| name == "end").filter_map(|(disk, _)| disk.strip_suffix("/b"));
        let recording = |command: &str| {
            let disks = ["b", "c"].map(|disk| format!("{command}/{disk}"));
            Self { prefix: format!("{CUT}{command}"), disks, marks }
        };
        commands.map(recording).collect()
    }

    fn versions(&self) -> usize {
        let is_version = |(disk, name): &&(String, String)| *disk == self.disks[0] && name.parse::<usize>().is_ok();
        self.marks.keys().filter(is_version).count()
    }

    /// How many writes there were before a version of the state file; version 0 is what there was before the first of them.
    fn mark(&self, disk: &str, version: usize) -> usize {
        let at = |name: &str| self.marks.get(&(disk.to_owned(), name.to_owned())).copied();
        match version {
            0 => at("begin").unwrap_or(0),
            _ => at(&version.to_string()).or_else(|| at("done")).or_else(|| at("end")).unwrap(),
        }
    }

    fn range(&self, disk: &str, version: usize) -> RangeInclusive<usize> {
        self.mark(disk, version)..=self.mark(disk, version + 1)
    }

    fn described(&self) -> String {
        let writes = |disk: &String| self.mark(disk, self.versions() + 1) - self.mark(disk, 0);
        let [b, c] = self.disks.each_ref().map(writes);
        format!("{b} and {c} writes, {} versions of the state file", self.versions())
    }

    /// Power cuts: as they are; with a part lost of what was not flushed; and with a state file of another moment.
    fn power_cuts(&self, seed: u64) -> [Vec<Point>; 3] {
        let versions = self.versions();
        let (mut now, mut reordered, mut other) = (Vec::new(), Vec::new(), Vec::new());
        for (version, number) in (0..=versions).flat_map(|version| [(version, 0), (version, 1)]) {
            let (disk, beside) = (&self.disks[number], &self.disks[1 - number]);
            for writes in thinned(self.range(disk, version)) {
                // how far the other disk is nobody can know: both were written to at the same time
                let point = |version: usize, random: &mut fastrand::Rng, during: usize| {
                    let other = random.usize(self.range(beside, during));
                    let (b, c) = if number == 0 { (writes, other) } else { (other, writes) };
                    format!("{}/{version}:{b}:{c}", self.prefix)
                };
                let label = |kind: &str| format!("{kind} {version} {disk} {writes}");
                now.push(Point::new(seed, label("now"), |_, random| {
                    format!("{}{}", point(version, random, version), reboot(random))
                }));
                reordered.push(Point::new(seed, label("reordered"), |_, random| {
                    format!("{}:{}{}", point(version, random, version), random.u32(..), reboot(random))
                }));
                let versions: Vec<usize> = (0..=versions).filter(|v| *v != version).collect();
                if !versions.is_empty() {
                    other.push(Point::new(seed, label("other"), |_, random| {
                        point(versions[random.usize(..versions.len())], random, version)
                    }));
                }
            }
        }
        [now, reordered, other]
    }
}

/// Of a run of thousands of writes, as of those that overwrite a header area, its beginning, its end, and some in between.
fn thinned(writes: RangeInclusive<usize>) -> impl Iterator<Item = usize> {
    let (begin, end) = (*writes.start() + 150, writes.end().saturating_sub(50));
    writes.filter(move |at| *at <= begin || *at >= end || at.is_multiple_of(100))
}

/// All points, in an order that has something of every kind at its beginning.
fn in_turns(mut kinds: Vec<Vec<Point>>) -> Vec<String> {
    for kind in &mut kinds {
        kind.sort_by_key(|point| point.order);
    }
    let longest = kinds.iter().map(Vec::len).max().unwrap();
    let round = |i: usize| kinds.iter().filter_map(move |kind| kind.get(i));
    (0..longest).flat_map(round).map(|point| point.text.clone()).collect()
}

struct Point {
    text: String,
    order: u64,
}

impl Point {
    /// Chance depends on the seed and on what the point is, not on how many there are: that differs a little from one
    /// recording to the next.
    fn new(seed: u64, label: String, text: impl FnOnce(&str, &mut fastrand::Rng) -> String) -> Self {
        let mut hasher = DefaultHasher::new();
        (seed, &label).hash(&mut hasher);
        let mut random = fastrand::Rng::with_seed(hasher.finish());
        Self { order: random.u64(..), text: text(&label, &mut random) }
    }
}

/// A reboot takes its time, and what it shows is seldom another thing.
fn reboot(random: &mut fastrand::Rng) -> &'static str {
    if random.u8(..4) == 0 { ":reboot" } else { "" }
}

/// Past the capture of the test harness: somebody waits for this.
fn say(text: &str) {
    writeln!(std::io::stderr().lock(), "{text}").unwrap();
}

/// `groups`: with what the points begin that are counted together.
fn summary(groups: &[String], tried: &[Tried], took: Duration) -> String {
    let count = |wanted: &dyn Fn(&Tried) -> bool| tried.iter().filter(|t| wanted(t)).count();
    let kind = |word: &'static str| count(&move |t: &Tried| t.bad.as_ref().is_some_and(|bad| bad.contains(word)));
    let mut text = String::from("sweep:");
    for group in groups {
        let name = group.trim_end_matches('/');
        write!(text, " {} {name},", count(&|t| t.point.starts_with(group.as_str()) && t.reached)).unwrap();
    }
    let minutes = took.as_secs().div_ceil(60);
    write!(text, " {} not reached, {minutes} min", count(&|t| !t.reached)).unwrap();
    for tried in tried {
        if let Some(bad) = &tried.bad {
            write!(text, "\n  {}: {bad}", tried.point).unwrap();
        }
    }
    write!(
        text,
        "\nsweep: {} points: {} lost, {} wrongly formatted, {} stuck",
        count(&|t| t.reached),
        kind("lost: "),
        kind("formatted: "),
        kind("stuck: ")
    )
    .unwrap();
    text
}
