//! The power of a node is cut at random moments of `provision` and `unlock`, and the next boot has to make good of it.
//!
//! | variable | for |
//! |---|---|
//! | `SWEEP_PULLS` | how many moments to try; a few unless told, which is what CI does |
//! | `SWEEP_SEED` | which they are, and what the disks lose |
//!
//! Each boot repairs what the cut before left behind, and its own work is cut in turn, so a moment costs one boot. The disks
//! have volatile caches: what was flushed stays, of the rest a random part is lost or torn (`tests/support/volatile.rs`).
//! Every prefix of the writes of a format is tried in the kernel tier (`dm-log-writes`); here it is the whole machine.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod support;

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use fake_aws::Server;
use serde_json::Value;
use support::ec2::{self, EBS_1, EBS_2, STORE_1};
use support::qemu::{MIB, Machine, Output};

const CONFIG: &str = "/etc/luks-agent/config.toml";
const STATE: &str = "/etc/luks-agent/state/state.json";

/// Enough for a header and an ext4 file system: a whole disk is read before it is formatted.
const VOLUME: u64 = 40 * MIB;
/// A volume with data that is nobody's business here.
const FOREIGN: &str = EBS_2;

/// What is under way when the power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Work {
    /// The first provision of a node, all disks blank.
    First,
    /// A provision after a stop: the instance store is blank, the EBS volume is known.
    AfterStop,
    /// Reboot: everything is known.
    Unlock,
}

const ALL: [Work; 3] = [Work::First, Work::AfterStop, Work::Unlock];

impl Work {
    /// What makes the node so that there is work, in bash. The volumes are closed.
    fn setting(self) -> String {
        // not blkdiscard: Linux 6.1 writes zeros over NVMe/TCP modulo 32 MiB
        let blank = |serial: &str| {
            let count = VOLUME / MIB;
            format!(
                "dd if=/dev/zero of=$(ls /dev/disk/by-id/nvme-*_{serial}) bs=1M count={count} oflag=direct conv=fsync status=none\n"
            )
        };
        match self {
            Self::First => format!("rm -r /etc/luks-agent/state; {}{}", blank(STORE_1), blank(EBS_1)),
            Self::AfterStop => blank(STORE_1),
            Self::Unlock => String::new(),
        }
    }

    fn command(self) -> &'static str {
        match self {
            Self::First | Self::AfterStop => "provision",
            Self::Unlock => "unlock",
        }
    }

    /// The volumes that are lost by it, before any cut.
    fn blanks(self) -> &'static [&'static str] {
        match self {
            Self::First => &[STORE_1, EBS_1],
            Self::AfterStop => &[STORE_1],
            Self::Unlock => &[],
        }
    }
}

/// What was found after the cuts.
#[derive(Debug, Default)]
struct Counts {
    points: usize,
    by_work: BTreeMap<Work, usize>,
    unflushed: usize,
    lost_writes: usize,
    lost: Vec<String>,
    wrongly_formatted: Vec<String>,
    stuck: Vec<String>,
}

/// A volume that must be there: it was committed before the cut, perhaps with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    luks_uuid: String,
    /// Checksum of the file that was flushed to it.
    file: Option<String>,
}

struct Sweep {
    vm: Machine,
    random: fastrand::Rng,
    usual: BTreeMap<Work, Duration>,
    held: BTreeMap<String, Held>,
    /// LUKS UUIDs of volumes that went with their instance store.
    gone: Vec<String>,
    foreign: Vec<u8>,
    counts: Counts,
}

#[test]
#[ignore = "machine tier: needs QEMU, run make test-machine"]
fn power_cuts_in_provision_and_unlock() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let points = usize::try_from(number("SWEEP_PULLS").unwrap_or(3)).unwrap();
    let seed = number("SWEEP_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
    eprintln!("SWEEP_SEED={seed} SWEEP_PULLS={points}");
    let mut random = fastrand::Rng::with_seed(seed);

    let aws = ec2::aws();
    let mut sweep = Sweep::new(&aws, random.fork());
    let began = Instant::now();
    // every kind has its share, in random order
    let mut works: Vec<Work> = ALL.iter().copied().cycle().take(points).collect();
    random.shuffle(&mut works);
    for (number, work) in works.into_iter().enumerate() {
        sweep.cut(number, work);
        let booted = sweep.vm.boot();
        eprintln!("{number}: booted in {:.1} s", booted.as_secs_f32());
        sweep.make_good(number, work);
    }

    let counts = &sweep.counts;
    let took = began.elapsed().as_secs();
    let Counts { by_work, unflushed, lost_writes, lost, wrongly_formatted, stuck, .. } = counts;
    for what in lost.iter().chain(wrongly_formatted).chain(stuck) {
        eprintln!("{what}");
    }
    let summary = format!(
        "power cuts: {points} points {by_work:?} in {took} s, {unflushed} writes not flushed, \
         {lost_writes} of them lost; {} lost, {} wrongly formatted, {} stuck (SWEEP_SEED={seed} SWEEP_PULLS={points})",
        lost.len(),
        wrongly_formatted.len(),
        stuck.len(),
    );
    eprintln!("{summary}");
    assert!(lost.is_empty() && wrongly_formatted.is_empty() && stuck.is_empty(), "{summary}");
    assert_eq!(counts.points, points);
}

impl Sweep {
    /// A node that was provisioned once, with a file on each volume, and with the time that each work takes.
    fn new(aws: &Server, mut random: fastrand::Rng) -> Self {
        let vm = Machine::new("power")
            .nvme(STORE_1, VOLUME)
            .nvme(EBS_1, VOLUME)
            .nvme(FOREIGN, 24 * MIB)
            .tool(support::program("luks-agent"))
            .forward(80, aws.addresses()[0])
            .lean()
            .kernel_arg("systemd.unit=basic.target")
            .volatile_caches(random.fork())
            .quiet();
        let foreign: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(24 << 20).collect();
        std::fs::write(vm.disk_path(FOREIGN), &foreign).unwrap();
        let mut sweep = Self {
            vm,
            random,
            usual: BTreeMap::new(),
            held: BTreeMap::new(),
            gone: Vec::new(),
            foreign,
            counts: Counts::default(),
        };
        let config = format!(
            "{}[filesystem]\ntype = \"ext4\"\n[[volumes.match]]\nserial = \"{FOREIGN}\"\nrole = \"ignore\"\n",
            ec2::config(aws)
        );
        eprintln!("first boot: {:.1?}", sweep.vm.boot());
        sweep.vm.write_file(CONFIG, config);
        sweep.vm.lean_from_the_next_boot();
        let provisioned = sweep.vm.run("luks-agent provision");
        assert_eq!(provisioned.status, 0, "{}{}", provisioned.stdout, provisioned.stderr);
        for work in ALL {
            sweep.prepare(work);
            let began = Instant::now();
            let output = sweep.vm.run(&format!("luks-agent {}", work.command()));
            assert_eq!(output.status, 0, "{work:?}: {}{}", output.stdout, output.stderr);
            sweep.usual.insert(work, began.elapsed());
        }
        eprintln!("usual times: {:.1?}", sweep.usual);
        sweep.write_files();
        sweep
    }

    fn prepare(&mut self, work: Work) {
        self.vm.ok(&format!("luks-agent close; {}udevadm settle; sync", work.setting()));
        // the state file may go on to call them committed, until their disk is formatted anew
        for serial in work.blanks() {
            self.gone.extend(self.held.remove(*serial).map(|held| held.luks_uuid));
        }
    }

    /// Has the node work and cuts its power meanwhile.
    fn cut(&mut self, number: usize, work: Work) {
        self.prepare(work);
        let usual = self.usual[&work];
        let delay = usual.mul_f64(self.random.f64() * 1.05);
        self.vm.start(&format!("luks-agent {}", work.command()));
        sleep(delay);
        let lost = self.vm.power_cut();
        self.counts.points += 1;
        *self.counts.by_work.entry(work).or_default() += 1;
        self.counts.unflushed += lost.unflushed;
        self.counts.lost_writes += lost.lost;
        eprintln!("{number}: {work:?} cut after {:.2} of {:.2} s, {lost:?}", delay.as_secs_f32(), usual.as_secs_f32());

        if std::fs::read(self.vm.disk_path(FOREIGN)).unwrap() != self.foreign {
            self.counts.wrongly_formatted.push(format!("{number}: {work:?}: the foreign disk was written to"));
        }
        // a node's controllers come up in any order
        let mut order = [STORE_1, EBS_1, FOREIGN];
        self.random.shuffle(&mut order);
        self.vm.attach_order(&order);
    }

    /// After the boot that followed: the next provision converges, and all that was there is there.
    fn make_good(&mut self, number: usize, work: Work) {
        let at = format!("{number}: {work:?}");
        for (serial, uuid) in committed(&self.vm.run(&format!("cat {STATE}")).stdout) {
            if !self.gone.contains(&uuid) {
                self.held.entry(serial).or_insert(Held { luks_uuid: uuid, file: None });
            }
        }
        let Output { status, stdout, stderr } = self.vm.run("luks-agent provision");
        eprintln!("{at}: {}", stdout.lines().last().unwrap_or("no report"));
        if status != 0 {
            self.counts.stuck.push(format!("{at}: provision ended with {status}\n{stdout}{stderr}"));
            panic!("stuck: {:?}", self.counts);
        }
        let after: BTreeMap<_, _> = committed(&self.vm.read_file(STATE)).into_iter().collect();
        for (serial, held) in &self.held {
            if after.get(serial) != Some(&held.luks_uuid) {
                let what = format!("{at}: {serial} was committed as {}, now {:?}", held.luks_uuid, after.get(serial));
                self.counts.wrongly_formatted.push(what);
            }
        }
        let files = self.files();
        for (serial, held) in &self.held {
            if held.file.is_some() && files.get(serial) != held.file.as_ref() {
                self.counts.lost.push(format!(
                    "{at}: the file on {serial}: {:?}, now {:?}",
                    held.file,
                    files.get(serial)
                ));
            }
        }
        self.write_files();
    }

    /// Checksums of the files on the volumes, which are all open and mounted.
    fn files(&mut self) -> BTreeMap<String, String> {
        let list = self.vm.ok(&format!(
            "for serial in {STORE_1} {EBS_1}; do
                 at=$(lsblk -nro MOUNTPOINT /dev/disk/by-id/nvme-*_$serial | grep /mnt)
                 [ ! -e $at/file ] || echo $serial $(sha256sum <$at/file)
             done"
        ));
        list.lines()
            .map(|line| {
                let mut words = line.split(' ').map(str::to_owned);
                (words.next().unwrap(), words.next().unwrap())
            })
            .collect()
    }

    /// A new file on each volume that has none, flushed; from here on both must be there.
    fn write_files(&mut self) {
        self.vm.ok(&format!(
            "for serial in {STORE_1} {EBS_1}; do
                 at=$(lsblk -nro MOUNTPOINT /dev/disk/by-id/nvme-*_$serial | grep /mnt)
                 [ -e $at/file ] || head -c 200000 /dev/urandom >$at/file
                 sync -f $at/file
             done"
        ));
        let files = self.files();
        self.held = committed(&self.vm.read_file(STATE))
            .into_iter()
            .map(|(serial, luks_uuid)| (serial.clone(), Held { luks_uuid, file: Some(files[&serial].clone()) }))
            .collect();
        assert_eq!(self.held.len(), 2, "{:?}", self.held);
    }
}

/// Serial numbers and UUIDs of the committed volumes of a state file, which may not be there yet.
fn committed(state: &str) -> Vec<(String, String)> {
    if state.is_empty() {
        return Vec::new();
    }
    let state: Value = serde_json::from_str(state).unwrap_or_else(|error| panic!("torn state file: {error}: {state}"));
    let volumes = state["volumes"].as_array().unwrap().iter().filter(|volume| volume["phase"] == "committed");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    volumes.map(|volume| (text(&volume["serial"]), text(&volume["luks_uuid"]))).collect()
}
