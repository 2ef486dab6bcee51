//! The corpus: disks that are not blank. None is ever formatted, not a byte of any is changed, and every refusal names what was
//! found.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod support;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use serde_json::Value;
use support::images::{self, DISKS, FILES, Image};
use support::uml::{Boot, MIB, Node, Script};

/// The disks of a node that carry images; `ubda` is the boot volume, `ubdp` is blank.
const SLOTS: usize = 14;

/// An image and what is known of it.
struct Specimen {
    image: Image,
    path: PathBuf,
    sum: String,
}

fn script(name: &str) -> Script {
    Script::with_agent(name).timeout(Duration::from_secs(180))
}

fn slot(number: usize) -> String {
    format!("ubd{}", char::from(b'b' + u8::try_from(number).unwrap()))
}

/// A directory of this test, emptied.
fn directory() -> PathBuf {
    let dir = support::scratch_dir().join("corpus");
    fs::remove_dir_all(&dir).ok();
    fs::create_dir_all(&dir).unwrap();
    dir
}

/// The checksum of all that is not zero in a file, with the places where it is; holes are not read.
fn checksum(path: &Path) -> String {
    const BLOCK: usize = 64 << 10;
    let mut sum = Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = sum.stdin.take().unwrap();
    let file = File::open(path).unwrap();
    let size = file.metadata().unwrap().len();
    let (mut block, zeros) = (vec![0; BLOCK], vec![0; BLOCK]);
    writeln!(input, "{size}").unwrap();
    let mut at = 0;
    while at < size {
        match lseek(&file, at.cast_signed(), Whence::SeekData) {
            // a block begins where it always does, whatever the file system makes of the file
            Ok(data) => at = data.cast_unsigned() / BLOCK as u64 * BLOCK as u64,
            Err(Errno::ENXIO) => break,
            Err(error) => panic!("{}: {error}", path.display()),
        }
        let got = usize::try_from(size - at).unwrap_or(BLOCK).min(BLOCK);
        file.read_exact_at(&mut block[..got], at).unwrap();
        if block[..got] != zeros[..got] {
            writeln!(input, "{at}").unwrap();
            input.write_all(&block[..got]).unwrap();
        }
        at += BLOCK as u64;
    }
    drop(input);
    let output = sum.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap().to_owned()
}

/// Attaches an existing image to a node; [`give_back`] puts it back.
fn attach(node: &mut Node, disk: &str, path: &Path, serial: &str) {
    node.attach(disk, 0, Some(serial.to_owned()));
    fs::rename(path, node.disk_path(disk)).unwrap();
}

fn give_back(node: &mut Node, disk: &str, path: &Path) {
    fs::rename(node.disk_path(disk), path).unwrap();
    node.detach(disk);
}

/// Makes the images that need no block device, two at a time.
fn make_files(dir: &Path, recipes: &[(Image, String)]) -> Vec<PathBuf> {
    let paths: Vec<_> = (0..recipes.len()).map(|number| dir.join(format!("file-{number}"))).collect();
    std::thread::scope(|scope| {
        for half in 0..2 {
            let paths = &paths;
            let scratch = dir.join(format!("scratch-{half}"));
            scope.spawn(move || {
                fs::create_dir(&scratch).unwrap();
                images::run(Path::new("/dev/null"), 0, &scratch, "tree");
                for ((image, make), path) in recipes.iter().zip(paths).skip(half).step_by(2) {
                    File::create(path).unwrap().set_len(image.mib * MIB).unwrap();
                    images::run(path, image.mib, &scratch, make);
                    File::options().write(true).open(path).unwrap().set_len(image.mib * MIB).unwrap();
                }
            });
        }
    });
    paths
}

/// Makes the images that need a block device, in nodes of their own.
fn make_disks(dir: &Path, images: &[Image]) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for (number, images) in images.chunks(SLOTS).enumerate() {
        let mut node = Node::new(&format!("corpus-make-{number}"));
        let mut making = script("corpus-make");
        for (slot_number, image) in images.iter().enumerate() {
            let disk = slot(slot_number);
            node.attach(&disk, image.mib * MIB, Some(format!("made-{}", paths.len() + slot_number)));
            making = making.arg(&disk).arg(image.mib.to_string()).arg(image.make);
        }
        node.boot(&making).assert_ok();
        for slot_number in 0..images.len() {
            let path = dir.join(format!("disk-{}", paths.len()));
            give_back(&mut node, &slot(slot_number), &path);
            paths.push(path);
        }
    }
    paths
}

/// The rows of the reports that a boot printed, by role given and disk.
fn rows(boot: &Boot, role: &str) -> BTreeMap<String, Value> {
    let report = boot.value(&format!("report {role} ")).unwrap_or_else(|| panic!("no report:\n{}", boot.console()));
    let report: Value = serde_json::from_str(report).unwrap_or_else(|e| panic!("{e}: {report}"));
    let rows = report["rows"].as_array().unwrap();
    rows.iter().filter_map(|row| Some((row["device"].as_str()?.to_owned(), row.clone()))).collect()
}

/// What is wrong with a row that should be a refusal that says `expect`.
fn fault(row: Option<&Value>, expect: &str) -> Option<String> {
    let Some(row) = row else { return Some("it is not in the report".to_owned()) };
    let reason = row["reason"].as_str().unwrap_or_default();
    let (refused, remedy) = match row["result"].as_str() {
        Some("refused" | "wrong") => (true, row["remedy"].is_string()),
        // the worker's word, in which what to do is
        Some("failed") => (reason.contains("now a different disk"), true),
        Some("left") => (reason == "read-only disk", true),
        _ => (false, true),
    };
    let named = reason.contains(expect) && remedy;
    (!refused || !named).then(|| format!("expected a refusal that says '{expect}', got: {row}"))
}

/// Which of a node's disks are EBS volumes and which instance store volumes, by the letters that they end with.
const ROLES: [&str; 2] = ["bdfhjln", "cegikmo"];

/// Every image is given to a real provision; to two, in both roles, when the environment variable `CORPUS_ROLES` is `both`:
/// roles decide nothing before `when_not_blank` is set. `CORPUS_AT` says where in 10 GiB the data begin, `CORPUS_ONLY` which
/// images to try: those with this in their name.
#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn what_is_not_blank_is_named_and_left_as_it_is() {
    images::check_programs();
    let began = Instant::now();
    let dir = directory();
    let at = std::env::var("CORPUS_AT").map(|at| at.parse().unwrap());
    let at = at.unwrap_or_else(|_| 1024 * MIB + fastrand::u64(..(9 * 1024 - 64) * MIB));
    println!("the 64 MiB of data in 10 GiB begin at byte {at} (CORPUS_AT)");
    let mut recipes: Vec<_> = FILES.iter().map(|image| (*image, image.make.to_owned())).collect();
    recipes.push(images::sparse(at));
    let only = std::env::var("CORPUS_ONLY").unwrap_or_default();
    let wanted = |image: &Image| image.name.contains(&only);
    recipes.retain(|(image, _)| wanted(image));
    let in_nodes: Vec<_> = DISKS.iter().copied().filter(wanted).collect();
    let paths = make_files(&dir, &recipes);
    println!("{} images made of files after {:.1?}", paths.len(), began.elapsed());
    let files = recipes.iter().map(|(image, _)| *image).zip(paths);
    let disks = in_nodes.iter().copied().zip(make_disks(&dir, &in_nodes));
    let specimens: Vec<_> =
        files.chain(disks).map(|(image, path)| Specimen { image, sum: checksum(&path), path }).collect();
    println!("{} images made after {:.1?}", specimens.len(), began.elapsed());

    let [one, other] = ROLES;
    let mut script = script("corpus").arg(one).arg(other);
    let mut runs = vec![one];
    if std::env::var("CORPUS_ROLES").is_ok_and(|roles| roles == "both") {
        script = script.arg(other).arg(one);
        runs.push(other);
    }
    let (mut table, mut faults) = (Vec::new(), Vec::new());
    for (batch, specimens) in specimens.chunks(SLOTS).enumerate() {
        let mut node = Node::new(&format!("corpus-{batch}")).disk_with_serial("ubdp", 33 * MIB, "control");
        for (number, specimen) in specimens.iter().enumerate() {
            attach(&mut node, &slot(number), &specimen.path, &format!("image-{number}"));
        }
        let boot = node.boot(&script);
        boot.assert_ok();
        let reports: Vec<_> = runs.iter().map(|run| rows(&boot, run)).collect();
        let control = &reports[0]["ubdp"];
        if specimens.iter().any(|specimen| specimen.image.make.starts_with("ours")) {
            // a volume of luks-agent, and no state file: it may be lost
            assert!(control["reason"].as_str().is_some_and(|r| r.contains("state file may be lost")), "{control}");
        } else {
            assert_eq!(control["result"], "formatted", "the blank disk, which shows that this node formats");
        }
        for (number, specimen) in specimens.iter().enumerate() {
            let (disk, name) = (slot(number), specimen.image.name);
            give_back(&mut node, &disk, &specimen.path);
            for report in &reports {
                let row = report.get(&disk);
                faults.extend(fault(row, specimen.image.expect).map(|it| format!("{name}: {it}")));
                table.push((name, row.cloned().unwrap_or_default()));
            }
            if checksum(&specimen.path) != specimen.sum {
                faults.push(format!("{name}: its bytes have changed"));
            }
        }
    }
    println!("{} images, {} wrong, after {:.1?}", specimens.len(), faults.len(), began.elapsed());
    judge(&table, &faults);
    assert!(specimens.len() >= 100 || !only.is_empty(), "{} images", specimens.len());
    if !support::keep_machines() {
        fs::remove_dir_all(&dir).unwrap();
    }
}

/// Prints what was refused and why; of a failure nothing but what is wrong, which would get lost in it.
///
/// # Panics
/// When there are faults.
fn judge(table: &[(&str, Value)], faults: &[String]) {
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    for (number, (name, row)) in table.iter().enumerate() {
        let text = |field| row[field].as_str().unwrap_or("-");
        println!("{:3}  {name:58}  {:14}  {:8}  {}", number + 1, text("role"), text("result"), text("reason"));
    }
}

/// What is odd about a disk of `tests/kernel/corpus-odd.sh`, and what must be said of it.
const ODD: &[(&str, &str, &str)] = &[
    ("error-start", "unreadable at its start", "cannot be read at byte 0"),
    ("error-middle", "unreadable in the middle", "cannot be read at byte 17301504"),
    ("error-end", "unreadable at its end", "cannot be read at byte 34598912"),
    ("dust-start", "one bad sector, the first", "cannot be read at byte 0"),
    ("dust-middle", "one bad sector in the middle", "cannot be read at byte 17301504"),
    ("dust-end", "one bad sector, the last", "cannot be read at byte 34598912"),
    ("ext4-error", "ext4, unreadable at its end", "cannot be read at byte 34598912"),
    ("ubdc", "read-only", "read-only disk"),
    ("flaky", "other data in every read", "first seen at byte 0"),
    ("sometimes", "other data in one second of three", "first seen at byte"),
    ("slow", "one byte in the middle of a slow disk", "first seen at byte 17301504"),
    ("too-slow", "blank, but too slow", "MiB read in 15 s (volumes.deadline)"),
    ("ubdh", "blank, and ext4 when it is to be formatted", "it has changed since the plan was made: ext4 at byte 1080"),
    ("swapped", "blank, and another disk when it is to be formatted", "is now a different disk: disk sequence number"),
    ("turning", "blank, and unreadable when it is to be formatted", "cannot be read at byte 0"),
    (
        "ubdk",
        "blank, and opened exclusively by a program",
        "it is in use: another process, or a mount in another namespace, holds it",
    ),
    (
        "ubdl",
        "ext2, mounted in another mount namespace",
        "it is in use: another process, or a mount in another namespace, holds it",
    ),
    ("ubdo", "blank, and held by device-mapper", "it is held by holder"),
];

/// Disks that are odd, in one node.
#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn what_may_not_be_blank_is_left_as_it_is() {
    images::check_programs();
    let (mut table, mut faults) = (Vec::new(), Vec::new());
    const M33: u64 = 33 * MIB;
    let mut node = Node::new("corpus-odd").disk("ubdb", 7 * M33).disk("ubdg", 256 * MIB).disk("ubdm", 1300 * MIB);
    for disk in "cdefhijklnop".chars() {
        node.attach(&format!("ubd{disk}"), M33, None);
    }
    let scratch = tempfile::tempdir().unwrap();
    let prepared = scratch.path().join("prepared");
    File::create(&prepared).unwrap().set_len(M33).unwrap();
    let make = |image: &Path, text: &str| images::run(image, 33, scratch.path(), text);
    make(&prepared, "mke2fs -q -F -t ext4 $I");
    make(&node.disk_path("ubdb"), &format!("mke2fs -q -F -t ext4 -E offset={} $I 33M", 6 * M33));
    make(&node.disk_path("ubdf"), "put 17301504 01");
    make(&node.disk_path("ubdl"), "mke2fs -q -F -t ext2 $I");
    make(&node.disk_path("ubdm"), "put $((600 * M + 4242)) 01");
    let disks: Vec<_> = "bcdefgijklmno".chars().map(|disk| format!("ubd{disk}")).collect();
    let before: Vec<_> = disks.iter().map(|disk| checksum(&node.disk_path(disk))).collect();

    let boot = node.boot(&script("corpus-odd").arg(prepared.to_str().unwrap()));
    boot.assert_ok();
    let full = rows(&boot, "full");
    let name = "one byte between two samples, all to be read";
    faults.extend(fault(full.get("ubdm"), "first seen at byte 629149842").map(|it| format!("{name}: {it}")));
    table.push((name, full.get("ubdm").cloned().unwrap_or_default()));
    let report = rows(&boot, "odd");
    assert_eq!(report["ubdp"]["result"], "formatted", "the blank disk, which shows that this node formats");
    for (disk, name, expect) in ODD {
        faults.extend(fault(report.get(*disk), expect).map(|it| format!("{name}: {it}")));
        table.push((*name, report.get(*disk).cloned().unwrap_or_default()));
    }
    let wipe = rows(&boot, "wipe");
    for disk in ["error-start", "error-middle", "error-end", "dust-start", "dust-middle", "dust-end", "ext4-error"] {
        faults.extend(fault(wipe.get(disk), "cannot be read at byte").map(|it| format!("to be wiped, {disk}: {it}")));
    }
    for disk in ["ubdc", "ubdk", "ubdl", "ubdo"] {
        let expect = ODD.iter().find(|(name, ..)| *name == disk).unwrap().2;
        faults.extend(fault(wipe.get(disk), expect).map(|it| format!("to be wiped, {disk}: {it}")));
    }
    for (disk, before) in disks.iter().zip(before) {
        if checksum(&node.disk_path(disk)) != before {
            faults.push(format!("{disk}: its bytes have changed"));
        }
    }
    if checksum(&node.disk_path("ubdh")) != checksum(&prepared) {
        faults.push("what was written between plan and format has changed".to_owned());
    }
    judge(&table, &faults);
}

/// What is noticed by the count of written sectors, unless by a sample.
const WRITTEN: &str = "the count";
/// Disks to which `tests/kernel/between-looks.sh` writes after the first look at them, and what must be said of each. The samples of the
/// second look hardly ever see a sector: most are noticed because the kernel counts what is written.
const BETWEEN: &[(&str, &str, &str)] = &[
    ("ubdb", "mkfs.ext4", "ext4 at byte 1080"),
    ("ubdc", "the first sector", "data without a known signature, first seen at byte 0"),
    ("ubdd", "one sector behind the first 16 MiB, past the page cache", WRITTEN),
    ("ubde", "one sector in the middle", WRITTEN),
    ("ubdf", "one sector in the middle, past the page cache", WRITTEN),
    ("ubdg", "the last sector", "data without a known signature, first seen at byte 67108352"),
    ("ubdh", "one block in the page cache of a process", WRITTEN),
    ("ubdi", "a block of zeros", WRITTEN),
    ("ubdj", "an image of ext4", "ext4 at byte 1080"),
];

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn what_is_written_between_the_looks_is_noticed() {
    let mut node = Node::new("corpus-between").disk("ubdk", 200 * MIB);
    for (disk, ..) in BETWEEN {
        node.attach(disk, 64 * MIB, None);
    }
    let boot = node.boot(&script("between-looks"));
    boot.assert_ok();
    let (report, next) = (rows(&boot, "between"), rows(&boot, "next"));
    assert_eq!(report["ubdk"]["result"], "formatted");
    let (mut table, mut faults) = (Vec::new(), Vec::new());
    for (disk, name, expect) in BETWEEN {
        let row = report.get(*disk);
        // a sample may happen to be where somebody wrote
        let sampled = row.is_some_and(|row| row["evidence"]["found"] == "data");
        let expect = match *expect {
            WRITTEN if sampled => "it has changed since the plan was made: data without a known signature",
            WRITTEN => "it has changed since the plan was made: this node has written to it since the first look",
            other => other,
        };
        faults.extend(fault(row, expect).map(|it| format!("{name}: {it}")));
        table.push((*name, row.cloned().unwrap_or_default()));
        if *disk != "ubdi" {
            faults.extend(fault(next.get(*disk), "not blank").map(|it| format!("{name}, the next run: {it}")));
        }
    }
    assert_eq!(next["ubdi"]["result"], "formatted", "zeros are no data");
    judge(&table, &faults);
}

/// What `wipe-instance-store` does with a disk: what must be said of it, or that it is formatted.
const WIPE: &[(&str, &str, Option<&str>, &str)] = &[
    ("ubdb", "ext4", None, "mke2fs -q -F -t ext4 $I"),
    ("ubdc", "data without a signature", None, "random $((20 * M)) 4096"),
    ("ubdd", "ext2, mounted", Some("it is mounted at /run/mounted"), "mke2fs -q -F -t ext2 $I"),
    (
        "ubde",
        "a mounted partition",
        Some("it is mounted at /run/partition"),
        "sfdisk -q $I <<<'start=2048'; mke2fs -q -F -t ext2 -E offset=$M $I 16M",
    ),
    ("ubdf", "LVM, its logical volume active", Some("it is held by data-one"), ""),
    ("ubdg", "gpt with a partition", None, "sgdisk --new=1:2048:+8M $I"),
    (
        "ubdh",
        "a committed volume that has become ext4",
        Some("but found: ext4 at byte 1080"),
        "zero 0 $((S * M)); mke2fs -q -F -t ext4 $I",
    ),
    (
        "ubdi",
        "the disk of a committed volume that is found on another disk, now ext4",
        Some("not blank: ext4 at byte 1080"),
        "zero 0 $((S * M)); mke2fs -q -F -t ext4 $I",
    ),
    ("ubdj", "luks2 of another luks-agent node", Some("which luks-agent made on i-0aaaaaaaaaaaaaaaa"), ""),
    ("ubdk", "the same, its primary header destroyed", Some("which luks-agent made on i-0aaaaaaaaaaaaaaaa"), ""),
    ("ubdl", "luks2 of somebody", None, "luks luksFormat --type luks2"),
    ("ubdn", "EBS: gpt", Some("gpt partition table"), "sgdisk --new=1:2048:+8M $I"),
    ("ubdo", "EBS: ext4", Some("ext4 at byte 1080"), "mke2fs -q -F -t ext4 $I"),
    ("ubdp", "EBS: data without a signature", Some("first seen at byte 20971520"), "random $((20 * M)) 4096"),
];

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn only_free_and_unknown_instance_store_is_wiped() {
    images::check_programs();
    const M33: u64 = 33 * MIB;
    let scratch = tempfile::tempdir().unwrap();
    let others: Vec<_> = DISKS.iter().filter(|image| image.make.starts_with("ours")).collect();
    let mut elsewhere = Node::new("corpus-elsewhere");
    let mut making = script("corpus-make");
    for (disk, image) in ["ubdj", "ubdk"].into_iter().zip(&others) {
        elsewhere.attach(disk, M33, None);
        making = making.arg(disk).arg("33").arg(image.make);
    }
    elsewhere.boot(&making).assert_ok();

    // those that the first boot needs; with serial numbers, by which a volume is known without its header
    let mut node = Node::new("corpus-wipe");
    for disk in ["ubdf", "ubdh", "ubdi"] {
        node.attach(disk, M33, Some(format!("serial-{disk}")));
    }
    node.boot(&script("corpus-wipe").arg("before")).assert_ok();
    node.attach("ubdm", M33, Some("serial-ubdm".to_owned()));
    fs::copy(node.disk_path("ubdi"), node.disk_path("ubdm")).unwrap();
    for (disk, _, _, make) in WIPE {
        if !matches!(*disk, "ubdf" | "ubdh" | "ubdi") {
            node.attach(disk, M33, Some(format!("serial-{disk}")));
        }
        if matches!(*disk, "ubdj" | "ubdk") {
            fs::rename(elsewhere.disk_path(disk), node.disk_path(disk)).unwrap();
        }
        if !make.is_empty() {
            images::run(&node.disk_path(disk), 33, scratch.path(), make);
        }
    }
    let before: Vec<_> = WIPE.iter().map(|(disk, ..)| checksum(&node.disk_path(disk))).collect();
    let boot = node.boot(&script("corpus-wipe").arg("wipe"));
    boot.assert_ok();
    let rows = rows(&boot, "wipe");
    let (mut table, mut faults) = (Vec::new(), Vec::new());
    for ((disk, name, expect, _), before) in WIPE.iter().zip(before) {
        let row = rows.get(*disk).cloned().unwrap_or_default();
        let changed = checksum(&node.disk_path(disk)) != before;
        match expect {
            Some(expect) => faults.extend(fault(Some(&row), expect).map(|it| format!("{name}: {it}"))),
            None if row["result"] == "formatted" => {}
            None => faults.push(format!("{name}: expected it to be formatted, got: {row}")),
        }
        if changed != expect.is_none() {
            faults.push(format!(
                "{name}: {}",
                if changed { "its bytes have changed" } else { "nothing was written to it" }
            ));
        }
        table.push((*name, row));
    }
    judge(&table, &faults);
    assert_eq!(rows["ubdm"]["result"], "unlocked", "{}", rows["ubdm"]);
}
