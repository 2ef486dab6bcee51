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
    Script::new(name)
        .env("LUKS_AGENT", env!("CARGO_BIN_EXE_luks-agent"))
        .env("FAKE_AWS", support::fake_aws().to_str().unwrap())
        .timeout(Duration::from_secs(180))
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
fn make_disks(dir: &Path) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for (number, images) in DISKS.chunks(SLOTS).enumerate() {
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
    let refused = matches!(row["result"].as_str(), Some("refused" | "wrong"));
    let named = reason.contains(expect) && row["remedy"].is_string();
    (!refused || !named).then(|| format!("expected a refusal that says '{expect}', got: {row}"))
}

#[test]
#[ignore = "kernel tier: needs User-Mode Linux, run make test-kernel"]
fn what_is_not_blank_is_named_and_left_as_it_is() {
    images::check_programs();
    let began = Instant::now();
    let dir = directory();
    let at = 1024 * MIB + fastrand::u64(..(9 * 1024 - 64) * MIB);
    println!("the 64 MiB of data in 10 GiB begin at byte {at}");
    let mut recipes: Vec<_> = FILES.iter().map(|image| (*image, image.make.to_owned())).collect();
    recipes.push(images::sparse(at));
    let paths = make_files(&dir, &recipes);
    println!("{} images made of files after {:.1?}", paths.len(), began.elapsed());
    let files = recipes.iter().map(|(image, _)| *image).zip(paths);
    let disks = DISKS.iter().copied().zip(make_disks(&dir));
    let specimens: Vec<_> =
        files.chain(disks).map(|(image, path)| Specimen { image, sum: checksum(&path), path }).collect();
    println!("{} images made after {:.1?}", specimens.len(), began.elapsed());

    let (mut table, mut faults) = (Vec::new(), Vec::new());
    for (batch, specimens) in specimens.chunks(SLOTS).enumerate() {
        let mut node = Node::new(&format!("corpus-{batch}")).disk_with_serial("ubdp", 33 * MIB, "control");
        for (number, specimen) in specimens.iter().enumerate() {
            attach(&mut node, &slot(number), &specimen.path, &format!("image-{number}"));
        }
        let boot = node.boot(&script("corpus"));
        boot.assert_ok();
        let roles = ["ebs", "instance-store"].map(|role| (role, rows(&boot, role)));
        assert_eq!(roles[0].1["ubdp"]["result"], "formatted", "the blank disk, which shows that this node formats");
        for (number, specimen) in specimens.iter().enumerate() {
            let disk = slot(number);
            give_back(&mut node, &disk, &specimen.path);
            for (role, rows) in &roles {
                let row = rows.get(&disk);
                faults.extend(
                    fault(row, specimen.image.expect).map(|it| format!("{} as {role}: {it}", specimen.image.name)),
                );
            }
            if checksum(&specimen.path) != specimen.sum {
                faults.push(format!("{}: its bytes have changed", specimen.image.name));
            }
            let evidence = roles[0].1.get(&disk).and_then(|row| row["reason"].as_str()).unwrap_or("-").to_owned();
            table.push((specimen.image.name, evidence));
        }
    }
    for (number, (name, evidence)) in table.iter().enumerate() {
        println!("{:3}  {name:60}  {evidence}", number + 1);
    }
    println!("{} images, {} wrong, after {:.1?}", table.len(), faults.len(), began.elapsed());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(table.len() >= 75);
    if !support::keep_machines() {
        fs::remove_dir_all(&dir).unwrap();
    }
}
