//! The kernel tier's random lives: a node's boots, power cuts, stops, disks that come and go, lost state files and faults of the key
//! service, in an order from a seed, on real disks. What is expected is said in `tests/kernel/life/`, which knows nothing of the plan.
//!
//! Two short lives from a fixed seed by default; `make life` leads a hundred. Environment:
//!
//! | variable | |
//! |---|---|
//! | `LIFE_SEED` | of the first life; the next one has the next number |
//! | `LIFE_LIVES` | how many lives |
//! | `LIFE_EVENTS` | how many events each has |
//! | `LIFE_NODES` | how many nodes live at the same time |
//! | `LIFE_TRIES` | how many shorter lives are tried where one fails (none unless told) |
//! | `LIFE_ONLY` | the events of one life, as they were printed |
//! | `LIFE_EARLIER` | the program of an earlier commit: every second node begins with it and is upgraded |
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod support;

use std::fmt;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use support::uml::{Boot, End, MIB, Node, Script};

/// What the disks of a node lie on; they begin smaller and grow.
const BACKING_DISK: u64 = 64 * MIB;
const BACKING_DISKS: [&str; 6] = ["ubdb", "ubdc", "ubdd", "ubde", "ubdf", "ubdg"];
/// As in `tests/kernel/life/world.py`.
const MARKER: &str = concat!("plain", "text-marker-");

/// How often each event comes, against the others.
const EVENTS: [(&str, u32); 26] = [
    ("boot", 6),
    ("daemon", 10),
    ("provision", 5),
    ("unlock", 4),
    ("grow", 2),
    ("status", 1),
    ("close", 3),
    ("health", 7),
    ("write", 8),
    ("attach", 4),
    ("attach-foreign", 2),
    ("pull", 5),
    ("attach-again", 5),
    ("snapshot", 3),
    ("grow-disk", 3),
    ("state-lost", 2),
    ("state-old", 2),
    ("kms", 5),
    ("lock", 2),
    ("stray", 2),
    ("busy", 2),
    ("unmount", 3),
    ("clear", 4),
    ("reboot", 5),
    ("stop", 5),
    ("cut", 6),
];

/// Something that happens to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Event {
    name: String,
    /// Decides what the name leaves open.
    number: u32,
}

/// How a life ended too early.
#[derive(Debug, Clone)]
struct Failure {
    /// What the judge says, `lost: ...` for one.
    why: String,
    /// The console of all its boots.
    console: String,
}

/// How a life ended.
#[derive(Debug, Clone)]
enum Ending {
    Good,
    /// The earlier program broke a promise; this test judges today's program only.
    EndedByEarlier,
    Bad(Failure),
}

/// What was led so far.
#[derive(Debug, Clone, Copy, Default)]
struct Led {
    lives: u64,
    events: usize,
    ended_by_earlier: u64,
}

/// What the test is told.
struct Settings {
    seed: u64,
    lives: u64,
    events: usize,
    nodes: usize,
    tries: usize,
    only: Option<Vec<Event>>,
    earlier: Option<PathBuf>,
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn through_a_random_life_ready_and_healthy_are_true_and_nothing_is_lost() {
    let settings = Settings::from_environment();
    let began = Instant::now();
    say(&format!("life: {} lives of {} events from seed {}", settings.lives, settings.events, settings.seed));
    if let Some(path) = &settings.earlier {
        say(&format!("life: every second node begins with {}", path.display()));
    }
    let next = AtomicU64::new(0);
    let failed = Mutex::new(Vec::new());
    let led = Mutex::new(Led::default());
    std::thread::scope(|scope| {
        for _ in 0..settings.nodes {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= settings.lives {
                        break;
                    }
                    let seed = settings.seed + number;
                    let events = settings.only.clone().unwrap_or_else(|| life(seed, &settings));
                    let ending = live(seed, &events, &settings);
                    let mut count = led.lock().unwrap();
                    count.lives += 1;
                    count.events += events.len();
                    count.ended_by_earlier += u64::from(matches!(ending, Ending::EndedByEarlier));
                    let (lives, minutes) = (count.lives, began.elapsed().as_secs() / 60);
                    drop(count);
                    if let Ending::Bad(failure) = ending {
                        let (events, failure) = shorten(seed, events, failure, &settings);
                        println!("{}", failure.console);
                        say(&format!("life: seed {seed}: {}\n  {}", failure.why, again(&events, &settings)));
                        failed.lock().unwrap().push((seed, failure.why, events));
                    }
                    let bad = failed.lock().unwrap().len();
                    say(&format!("life: {lives} of {} lives led, {bad} bad, {minutes} min", settings.lives));
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    let Led { lives, events, ended_by_earlier } = led.into_inner().unwrap();
    let count = |kind: &str| failed.iter().filter(|(_, why, _)| why.starts_with(kind)).count();
    say(&format!(
        "life: {lives} lives, {events} events: {} lost, {} formatted, {} plaintext, {} false, {} stuck, {} broken; \
         {ended_by_earlier} ended by the earlier program",
        count("lost"),
        count("formatted"),
        count("plaintext"),
        count("false"),
        count("stuck"),
        count("broken")
    ));
    let list = failed.iter().map(|(seed, why, events)| format!("seed {seed}: {why}\n  {}", again(events, &settings)));
    assert!(failed.is_empty(), "{}", list.collect::<Vec<_>>().join("\n"));
}

impl Settings {
    fn from_environment() -> Self {
        let get = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let number = |name: &str, or: u64| {
            get(name).map_or(or, |value| value.parse().unwrap_or_else(|e| panic!("{name} is '{value}': {e}")))
        };
        let only: Option<Vec<Event>> = get("LIFE_ONLY").map(|only| only.split_whitespace().map(Event::parse).collect());
        let earlier = get("LIFE_EARLIER")
            .map(|path| fs::canonicalize(&path).unwrap_or_else(|e| panic!("LIFE_EARLIER is '{path}': {e}")));
        let needs_earlier = only.iter().flatten().any(|event| event.name == "earlier");
        assert!(earlier.is_some() || !needs_earlier, "set LIFE_EARLIER to the program that 'earlier' was found with");
        let size = |name: &str, or: u64| usize::try_from(number(name, or)).unwrap();
        Self {
            seed: number("LIFE_SEED", 1),
            lives: if only.is_some() { 1 } else { number("LIFE_LIVES", 2) },
            events: size("LIFE_EVENTS", 25),
            nodes: size("LIFE_NODES", 1).max(1),
            tries: size("LIFE_TRIES", 0),
            only,
            earlier,
        }
    }
}

impl Event {
    fn parse(text: &str) -> Self {
        let (name, number) = text.split_once(':').unwrap_or_else(|| panic!("'{text}': expected EVENT:NUMBER"));
        Self { name: name.to_owned(), number: number.parse().unwrap() }
    }

    /// Whether the node does not run after it.
    fn ends_boot(&self) -> bool {
        ["reboot", "stop", "cut"].contains(&self.name.as_str())
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.number)
    }
}

/// What repeats a life, as part of a command line.
fn again(events: &[Event], settings: &Settings) -> String {
    let events: Vec<String> = events.iter().map(Event::to_string).collect();
    let earlier = settings.earlier.iter().map(|path| format!("LIFE_EARLIER='{}' ", path.display()));
    format!("{}LIFE_ONLY='{}'", earlier.collect::<String>(), events.join(" "))
}

/// The life of a seed: it begins with a boot, and in the end nothing is wrong any more.
fn life(seed: u64, settings: &Settings) -> Vec<Event> {
    let mut random = fastrand::Rng::with_seed(seed);
    let all: u32 = EVENTS.iter().map(|(_, weight)| weight).sum();
    let mut event = |name: Option<&str>| {
        let mut at = random.u32(..all);
        let drawn = EVENTS.iter().find(|(_, weight)| {
            let here = at < *weight;
            at = at.saturating_sub(*weight);
            here
        });
        Event { name: name.unwrap_or(drawn.unwrap().0).to_owned(), number: random.u32(..1000) }
    };
    let mut life = vec![event(Some("boot"))];
    life.extend((2..settings.events).map(|_| event(None)));
    life.push(event(Some("clear")));
    if settings.earlier.is_some() && seed % 2 == 1 {
        // in the first half, for what comes after it is what this is about
        life.insert(1 + usize::try_from(seed / 2).unwrap() % (life.len() / 2), event(Some("upgrade")));
        life.insert(0, event(Some("earlier")));
    }
    life
}

/// Leads a life on a new node.
fn live(seed: u64, events: &[Event], settings: &Settings) -> Ending {
    let node = Node::new(&format!("life{seed}"));
    let mut node = BACKING_DISKS.iter().fold(node, |node, disk| node.disk(disk, BACKING_DISK));
    let mut console = String::new();
    let mut is_earlier = false;
    for events in events.split_inclusive(Event::ends_boot) {
        let timeout = Duration::from_secs(300 + 60 * events.len() as u64);
        let mut script = events.iter().fold(Script::with_agent("life"), |script, event| script.arg(event.to_string()));
        if let Some(path) = &settings.earlier {
            script = script.env("LUKS_AGENT_EARLIER", path.to_str().unwrap());
        }
        let delay = Duration::from_millis(u64::from(events.last().unwrap().number) * 3);
        let boot = node.boot(&script.timeout(timeout).cut_power_after("life: power cut", delay));
        console.push_str(&boot.timed_console());
        is_earlier |= boot.value("life: earlier program").is_some();
        is_earlier &= boot.value("life: upgraded").is_none();
        if let Some(why) = judge(&node, &boot) {
            return if is_earlier { Ending::EndedByEarlier } else { Ending::Bad(Failure { why, console }) };
        }
    }
    Ending::Good
}

/// What was wrong with a boot, by its end and by what is on the disks, seen from outside.
fn judge(node: &Node, boot: &Boot) -> Option<String> {
    if let Some(why) = boot.value("life: BAD ") {
        return Some(why.to_owned());
    }
    match boot.end() {
        End::Status(0) | End::PowerCut => {}
        End::TimedOut => return Some("stuck: the boot did not end".to_owned()),
        end @ (End::Status(_) | End::Died) => return Some(format!("broken: the boot ended with {end:?}")),
    }
    let plain = std::iter::once(&"ubda").chain(&BACKING_DISKS).find(|disk| node.disk_contains(disk, MARKER))?;
    Some(format!("plaintext: what was written to volumes is on {plain}"))
}

/// A shorter life that fails in the same way: halves are left out, then quarters, then single events.
fn shorten(seed: u64, mut events: Vec<Event>, mut failure: Failure, settings: &Settings) -> (Vec<Event>, Failure) {
    let kind = |failure: &Failure| failure.why.split(':').next().unwrap_or_default().to_owned();
    let mut left = settings.tries;
    let mut size = events.len() / 2;
    while size > 0 && left > 0 {
        let mut from = 0;
        while from < events.len() && left > 0 {
            let mut shorter = events.clone();
            shorter.drain(from..(from + size).min(events.len()));
            left -= 1;
            match live(seed, &shorter, settings) {
                Ending::Bad(found) if kind(&found) == kind(&failure) => (events, failure) = (shorter, found),
                Ending::Good | Ending::EndedByEarlier | Ending::Bad(_) => from += size,
            }
        }
        size /= 2;
    }
    (events, failure)
}

/// Past the capture of the test harness: somebody waits for this.
fn say(text: &str) {
    writeln!(std::io::stderr().lock(), "{text}").unwrap();
}
