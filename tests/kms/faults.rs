//! The table of faults, `faults.toml`, with the client alone: which calls are retried, how often and for how long,
//! which error results and what it says.
//!
//! The test `tests/kernel/key-service-faults.py` checks exit codes and disks on a node.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use fake_aws::{Effect, Fault as Scripted, Key, Server, TestCa};
use luks_agent::kms::{AwsKms, Fault, KeyService, KmsError, Limits, Options};
use serde::{Deserialize, Serialize};

use super::{bare, block_on, child, is_child, limits};

const TEST: &str = "faults::every_fault_is_tried_again_as_it_deserves_and_told_with_a_remedy";
/// Names the row for a child process.
const ROW: &str = "FAULT_ROW";
const CALLS: [&str; 3] = ["DescribeKey", "GenerateDataKey", "Decrypt"];
/// Before this, where waiting until the deadline is what is tested.
const DEADLINE: Duration = Duration::from_millis(2000);
/// One attempt, where it is never answered.
const ATTEMPT: Duration = Duration::from_millis(400);
const PATIENCE: Duration = Duration::from_millis(600);
/// What a busy machine may add to any of them.
const SLACK: Duration = Duration::from_secs(8);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    key: Vec<Key>,
    fault: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    on: Option<String>,
    effect: Option<Effect>,
    #[serde(default)]
    also: Vec<Scripted>,
    allow: Option<Vec<String>>,
    key: Option<String>,
    endpoint: Option<String>,
    credentials: Option<String>,
    tried: Tried,
    class: Option<String>,
    exit: u8,
    #[serde(default, rename = "leaves")]
    _leaves: Option<String>,
    #[serde(default, rename = "node")]
    _node: bool,
    #[serde(default)]
    says: Vec<String>,
}

#[derive(Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Tried {
    Once,
    Few,
    Patience,
    Deadline,
    Again,
}

fn table() -> Table {
    let table: Table = toml::from_str(include_str!("faults.toml")).unwrap();
    let mut names: Vec<_> = table.fault.iter().map(|row| &row.name).collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "two rows with one name");
    table
}

/// The result of a row, as reported by its child.
#[derive(Serialize, Deserialize)]
struct Outcome {
    /// None when all went well.
    class: Option<String>,
    exit: u8,
    text: String,
    /// The error in every form in which it can be printed.
    shown: String,
    took: Duration,
}

impl Outcome {
    fn failed(error: &KmsError, took: Duration) -> Self {
        let exit = match error.fault() {
            Fault::Configuration => 2,
            Fault::Unavailable => 4,
            Fault::Data => 1,
        };
        let shown = format!("{error} {error:?} {error:#?}");
        Self { class: Some(format!("{:?}", error.class())), exit, text: error.to_string(), shown, took }
    }

    fn other(class: Option<&str>, exit: u8, took: Duration) -> Self {
        Self { class: class.map(str::to_owned), exit, text: String::new(), shown: String::new(), took }
    }
}

impl Row {
    fn limits(&self) -> Limits {
        let unanswered = matches!(self.effect, Some(Effect::Hang | Effect::StallMidBody | Effect::Drip { .. }));
        let deaf = self.endpoint.as_deref() == Some("deaf");
        let attempt = if unanswered || deaf { ATTEMPT } else { limits().attempt };
        // a row that succeeds at the second attempt must not time out on a busy machine
        let attempt = if self.tried == Tried::Again { attempt.max(Duration::from_secs(1)) } else { attempt };
        Limits { attempt, connect: attempt, patience: PATIENCE, ..limits() }
    }

    fn deadline(&self) -> Duration {
        match self.tried {
            // an attempt to ask IMDS may take a second or two
            Tried::Deadline if self.asks_imds() => 2 * DEADLINE,
            Tried::Deadline => DEADLINE,
            Tried::Once | Tried::Few | Tried::Patience | Tried::Again => Duration::from_secs(60),
        }
    }

    fn asks_imds(&self) -> bool {
        self.also.iter().any(|fault| fault.on.starts_with("imds:"))
    }

    /// Generates a data key and unwraps it, as provision does.
    fn run(&self) -> Outcome {
        let began = Instant::now();
        // over TLS, such a name is refused before it is resolved
        let allow_http = self.endpoint.as_deref() == Some("unresolvable");
        let config = bare(&std::env::var("FAULT_KEY").unwrap(), self.deadline());
        let config = luks_agent::config::Kms { allow_http, ..config };
        let options = Options { limits: self.limits(), ..Options::default() };
        let done = block_on(async {
            let kms = AwsKms::connect_with(&config, options).await?;
            let made = kms.generate().await?;
            Ok(kms.unwrap(&made.source()).await?.same_as(&made.data_key))
        });
        let took = began.elapsed();
        match done {
            Err(error) => Outcome::failed(&error, took),
            Ok(true) => Outcome::other(None, 0, took),
            // as apply says it
            Ok(false) => Outcome::other(Some("NotProven"), 1, took),
        }
    }

    fn is_throttling(&self) -> bool {
        matches!(&self.effect, Some(Effect::Error { code, .. }) if code == "ThrottlingException")
    }

    fn faults(&self) -> Vec<Scripted> {
        let mut faults = self.also.clone();
        if let Some(effect) = &self.effect {
            match &self.on {
                Some(on) => faults.push(Scripted::new(on, effect.clone())),
                None => faults.extend(CALLS.map(|call| Scripted::new(call, effect.clone()).times(1))),
            }
        }
        faults
    }

    /// How often each call is expected: exactly, or at least twice if only time limits it.
    fn expected_counts(&self) -> BTreeMap<&'static str, Option<usize>> {
        let at = CALLS.iter().position(|call| Some(*call) == self.on.as_deref());
        let count = |index| match (self.tried, at) {
            (Tried::Again, _) => Some(2),
            (_, None) => Some(usize::from(self.exit == 0)),
            (_, Some(at)) if index < at => Some(1),
            (_, Some(at)) if index > at => Some(usize::from(self.exit == 0)),
            (Tried::Once, _) => Some(1),
            (Tried::Few, _) => Some(limits().few as usize),
            (Tried::Patience | Tried::Deadline, _) => None,
        };
        let mut counts: BTreeMap<_, _> = CALLS.into_iter().enumerate().map(|(i, call)| (call, count(i))).collect();
        // the state of the key is asked for once more
        if self.class.as_deref() == Some("KeyState") && self.on.as_deref() == Some("Decrypt") {
            counts.insert("DescribeKey", Some(2));
        }
        // a first boot goes on without it
        if self.tried == Tried::Again && self.is_throttling() {
            counts.insert("DescribeKey", Some(1));
        }
        counts
    }

    fn time_is_right(&self, took: Duration) -> bool {
        match self.tried {
            Tried::Deadline => {
                let end = self.deadline();
                took >= end - limits().longest_wait - ATTEMPT && took < end + SLACK
            }
            Tried::Patience => took >= PATIENCE && took < PATIENCE + limits().longest_wait + SLACK,
            Tried::Once | Tried::Few | Tried::Again => took < SLACK,
        }
    }
}

/// The endpoints, all of them on the loopback interface.
struct Places {
    closed: SocketAddr,
    deaf: SocketAddr,
    _full: tokio::runtime::Runtime,
    _waiting: Vec<std::net::TcpStream>,
    https: Server,
    expired: Server,
    ca: tempfile::NamedTempFile,
    other_ca: tempfile::NamedTempFile,
}

impl Places {
    fn new() -> Self {
        let ca = TestCa::new().unwrap();
        let file = |ca: &TestCa| {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), ca.pem()).unwrap();
            file
        };
        let https = |identity| {
            let tls_listen = vec![([127, 0, 0, 1], 0).into()];
            let options = fake_aws::Options::default();
            let options = fake_aws::Options { listen: Vec::new(), tls_listen, tls: Some(identity), ..options };
            Server::start_blocking(options).unwrap()
        };
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        // once its queue is full, the kernel accepts no further connection
        let deaf = runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
            let listener = socket.listen(1).unwrap();
            let address = listener.local_addr().unwrap();
            std::mem::forget(listener);
            address
        });
        let mut waiting = Vec::new();
        while let Ok(stream) = std::net::TcpStream::connect_timeout(&deaf, Duration::from_millis(300)) {
            waiting.push(stream);
        }
        Self {
            closed,
            deaf,
            _full: runtime,
            _waiting: waiting,
            https: https(ca.identity(&["127.0.0.1"]).unwrap()),
            expired: https(ca.expired_identity(&["127.0.0.1"]).unwrap()),
            other_ca: file(&TestCa::new().unwrap()),
            ca: file(&ca),
        }
    }

    fn environment(&self, row: &Row, fake: &Server) -> Vec<(&'static str, String)> {
        let mut env = vec![
            (ROW, row.name.clone()),
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", fake.url()),
            ("HOME", "/nonexistent".to_owned()),
        ];
        let arn = |id: &str| fake.key_arn().replace(Key::DEFAULT_ID, id);
        env.push(match row.key.as_deref() {
            Some(alias) if alias.starts_with("alias/") => ("FAULT_KEY", alias.to_owned()),
            id => ("FAULT_KEY", arn(id.unwrap_or(Key::DEFAULT_ID))),
        });
        match row.credentials.as_deref().unwrap_or("environment") {
            "environment" => env
                .extend([("AWS_ACCESS_KEY_ID", "AKIDTEST".to_owned()), ("AWS_SECRET_ACCESS_KEY", "secret".to_owned())]),
            "imds" => {}
            "none" => env.push(("AWS_EC2_METADATA_DISABLED", "true".to_owned())),
            other => panic!("credentials = {other:?}"),
        }
        let https = self.https.tls_url();
        let trusted = ("SSL_CERT_FILE", self.ca.path().to_str().unwrap().to_owned());
        let untrusted = ("SSL_CERT_FILE", self.other_ca.path().to_str().unwrap().to_owned());
        let (url, certificates) = match row.endpoint.as_deref().unwrap_or("fake") {
            "fake" => (fake.url(), trusted),
            "closed" => (format!("http://{}", self.closed), trusted),
            "deaf" => (format!("http://{}", self.deaf), trusted),
            // no resolver accepts a name with such a long label, so none is asked
            "unresolvable" => (format!("http://{}.invalid", "k".repeat(64)), trusted),
            "in-clear" => ("http://192.0.2.1".to_owned(), trusted),
            "https" => (https, trusted),
            "https-untrusted" => (https, untrusted),
            "https-other-host" => (https.replace("127.0.0.1", "localhost"), trusted),
            "https-expired" => (self.expired.tls_url(), trusted),
            "https-to-http" => (fake.url().replace("http:", "https:"), trusted),
            "proxy" => {
                env.push(("HTTPS_PROXY", format!("http://{}", self.closed)));
                (https, trusted)
            }
            other => panic!("endpoint = {other:?}"),
        };
        env.extend([certificates, ("AWS_ENDPOINT_URL_KMS", url)]);
        env
    }
}

/// Runs a row in a child process against a fake of its own, and returns a line for the table and what is wrong.
fn check(row: &Row, keys: &[Key], places: &Places) -> (String, Vec<String>) {
    let mut all = vec![Key::default()];
    all.extend(keys.iter().cloned());
    let options = fake_aws::Options { keys: all, allow: row.allow.clone(), faults: row.faults(), ..Default::default() };
    let server = Server::start_blocking(options).unwrap();
    let env = places.environment(row, &server);
    let output = child(TEST, &env);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let Some(outcome) = printed.lines().find_map(|line| line.split_once("outcome: ").map(|(_, json)| json)) else {
        let errors = String::from_utf8_lossy(&output.stderr);
        return (row.name.clone(), vec![format!("the child said nothing: {printed}\n{errors}")]);
    };
    let outcome: Outcome = serde_json::from_str(outcome).unwrap();

    let counts: BTreeMap<_, _> = CALLS.into_iter().map(|call| (call, server.count(call))).collect();
    // if the fake is not reached, only the message shows it
    let told = outcome
        .text
        .split_once(" attempts in ")
        .map_or(1, |(before, _)| before.rsplit(['(', ' ']).next().and_then(|number| number.parse().ok()).unwrap_or(0));
    let tries = row.on.as_deref().and_then(|on| counts.get(on)).copied().unwrap_or(told);

    let mut wrong = Vec::new();
    let mut expect = |ok: bool, what: String| {
        if !ok {
            wrong.push(what);
        }
    };
    expect(outcome.class == row.class, format!("class {:?}, expected {:?}", outcome.class, row.class));
    expect(outcome.exit == row.exit, format!("exit code {}, expected {}", outcome.exit, row.exit));
    expect(row.time_is_right(outcome.took), format!("{:?} is not {:?}", outcome.took, row.tried));
    for (call, expected) in row.expected_counts() {
        let count = counts[call];
        let right = expected.map_or(count >= 2, |expected| count == expected);
        expect(right, format!("{count} times {call}, expected {expected:?} ({:?})", row.tried));
    }
    if outcome.exit != 0 && row.class.as_deref() != Some("NotProven") {
        let few = limits().few as usize;
        let right = match row.tried {
            Tried::Once => tries == 1,
            Tried::Few => tries == few,
            Tried::Patience | Tried::Deadline => tries >= 2,
            Tried::Again => false,
        };
        expect(right, format!("tried {tries} times ({:?})", row.tried));
        // the last attempt may have been cut short by the deadline, and then does not count
        expect(tries - told <= 1, format!("tried {tries} times, and says {told}"));
        for part in &row.says {
            expect(outcome.text.contains(part), format!("does not say {part:?}"));
        }
        let key = env.iter().find(|(name, _)| *name == "FAULT_KEY").map(|(_, key)| key.as_str()).unwrap();
        expect(
            outcome.text.contains(key) || outcome.text.contains("127.0.0.1"),
            "names neither key nor endpoint".into(),
        );
        let remedy = outcome.text.rsplit_once("; ").map_or("", |(_, remedy)| remedy);
        expect(remedy.len() >= 10, "says nothing to do".to_owned());
        let answer = ["Plaintext", "CiphertextBlob"].iter().any(|field| outcome.shown.contains(field));
        expect(!answer && outcome.shown.len() < 4000, "shows the answer".to_owned());
    }
    let class = outcome.class.as_deref().unwrap_or("-");
    let seconds = outcome.took.as_secs_f64();
    let mut line = format!("{:<52} {tries:>5} {seconds:>5.1} {class:<18} {:>4}  ", row.name, outcome.exit);
    write!(line, "{}", outcome.text).unwrap();
    (line.trim_end().to_owned(), wrong)
}

#[test]
fn every_fault_is_tried_again_as_it_deserves_and_told_with_a_remedy() {
    let table = table();
    if is_child(TEST) {
        let name = std::env::var(ROW).unwrap();
        let row = table.fault.iter().find(|row| row.name == name).unwrap();
        println!("outcome: {}", serde_json::to_string(&row.run()).unwrap());
        return;
    }
    let began = Instant::now();
    let places = Places::new();
    let next = Mutex::new(table.fault.iter().enumerate());
    let done = Mutex::new(BTreeMap::new());
    // most of the time is waiting
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let Some((index, row)) = { next.lock().unwrap().next() } {
                    let checked = check(row, &table.key, &places);
                    done.lock().unwrap().insert(index, (row.name.as_str(), checked));
                }
            });
        }
    });
    let done = done.into_inner().unwrap();
    println!("{:<52} {:>5} {:>5} {:<18} exit  message", "fault", "tries", "s", "class");
    for (_, (line, _)) in done.values() {
        println!("{line}");
    }
    let faults = table.fault.iter().filter(|row| row.exit != 0).count();
    println!(
        "{faults} faults that stay, {} that pass, in {:.1} s",
        table.fault.len() - faults,
        began.elapsed().as_secs_f64()
    );
    let wrong: Vec<String> = done
        .values()
        .filter(|(_, (_, wrong))| !wrong.is_empty())
        .map(|(name, (_, wrong))| format!("{name}: {}", wrong.join("; ")))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(faults >= 35 && done.len() == table.fault.len());
}
