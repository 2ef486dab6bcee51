//! `scripts/deps.sh`, with stand-ins for apt and dpkg: it ends with everything there and running, or says what is not and why.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What `scripts/deps.sh machine` asks for.
const MACHINE: [&str; 7] =
    ["qemu-system-x86", "qemu-utils", "mmdebstrap", "e2fsprogs", "fdisk", "util-linux", "uidmap"];
/// What must run of it, and the package that it is in.
const PROGRAMS: [(&str, &str); 5] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("qemu-img", "qemu-utils"),
    ("mmdebstrap", "mmdebstrap"),
    ("mke2fs", "e2fsprogs"),
    ("sfdisk", "fdisk"),
];

/// A package is installed while its file is in `installed`; the file's text is its version. It runs unless it is `broken`.
const DPKG_QUERY: &str = r#"[ -e "$STAND_IN/installed/$4" ] && echo "$(/usr/bin/dpkg --print-architecture) installed""#;
const PROGRAM: &str = r#"package=PACKAGE
[ "$(cat "$STAND_IN/installed/$package")" != broken ] || { echo "PROGRAM: cannot open shared object file"; exit 127; }
echo "PROGRAM version $(cat "$STAND_IN/installed/$package")""#;
/// Debian 12's QEMU removes the tools of a newer one; what is in `unknown` cannot be had; what is in `hopeless` stays broken.
const APT_GET: &str = r#"echo "$*" >>"$STAND_IN/calls"
verb= again= simulate= packages=()
while (($#)); do
    case $1 in
        -o) shift ;;
        --reinstall) again=1 ;;
        --simulate) simulate=1 ;;
        -*) ;;
        *) if [ -z "$verb" ]; then verb=$1; else packages+=("$1"); fi ;;
    esac
    shift
done
[ "$verb" = install ] || exit 0
for package in "${packages[@]}"; do
    if [ -e "$STAND_IN/unknown/$package" ]; then
        echo "E: Unable to locate package $package" >&2
        exit 100
    fi
done
[ -z "$simulate" ] || exit 0
for package in "${packages[@]}"; do
    [ -z "$again" ] || [ ! -e "$STAND_IN/hopeless/$package" ] || continue
    echo "Setting up $package (7.2) ..."
    echo 7.2 >"$STAND_IN/installed/$package"
    if [ "$package" = qemu-system-x86 ] && [ "$(cat "$STAND_IN/installed/qemu-utils")" = 1:10.0.2 ]; then
        echo "Removing qemu-utils (1:10.0.2) ..."
        rm "$STAND_IN/installed/qemu-utils"
    fi
done"#;

struct StandIn {
    dir: tempfile::TempDir,
}

impl StandIn {
    /// A machine with all that `deps.sh machine` asks for.
    fn new() -> Self {
        let it = Self { dir: tempfile::tempdir().unwrap() };
        for dir in ["bin", "installed", "unknown", "hopeless", "cache"] {
            fs::create_dir(it.path(dir)).unwrap();
        }
        for package in MACHINE {
            it.mark("installed", package, "7.2");
        }
        it.program("dpkg-query", DPKG_QUERY);
        it.program("apt-get", APT_GET);
        it.program("sudo", r#"exec "$@""#);
        for (program, package) in PROGRAMS {
            it.program(program, &PROGRAM.replace("PACKAGE", package).replace("PROGRAM", program));
        }
        it
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    fn mark(&self, kind: &str, package: &str, text: &str) {
        fs::write(self.path(kind).join(package), text).unwrap();
    }

    fn without(self, package: &str) -> Self {
        fs::remove_file(self.path("installed").join(package)).unwrap();
        self
    }

    fn program(&self, name: &str, text: &str) {
        let path = self.path("bin").join(name);
        fs::write(&path, format!("#!/bin/bash\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn is_installed(&self, package: &str) -> bool {
        self.path("installed").join(package).exists()
    }

    /// How often apt was asked to install this.
    fn installs(&self, package: &str) -> usize {
        let calls = fs::read_to_string(self.path("calls")).unwrap_or_default();
        let asked = |call: &&str| !call.contains("--simulate") && call.split(' ').any(|word| word == package);
        calls.lines().filter(asked).count()
    }

    /// Runs `scripts/deps.sh machine`: whether it succeeded, what it said, and its errors.
    fn deps(&self) -> (bool, String, String) {
        let output = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/deps.sh"))
            .arg("machine")
            .env("STAND_IN", self.dir.path())
            .env("LUKS_AGENT_CACHE", self.path("cache"))
            .env("PATH", format!("{}:/usr/bin:/bin", self.path("bin").display()))
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.success(), text(output.stdout), text(output.stderr))
    }
}

#[test]
fn installs_nothing_where_all_is_there() {
    let machine = StandIn::new();
    let (done, said, errors) = machine.deps();
    assert!(done && said == "deps: machine ready\n", "{said}{errors}");
    assert!(!machine.path("calls").exists());
}

#[test]
fn asks_again_for_what_apt_removed() {
    let machine = StandIn::new().without("qemu-system-x86");
    machine.mark("installed", "qemu-utils", "1:10.0.2");
    let (done, said, errors) = machine.deps();
    assert!(done, "{said}{errors}");
    assert!(said.contains("deps: apt removed qemu-utils 1:10.0.2\ndeps: installing qemu-utils\n"), "{said}");
    assert!(machine.is_installed("qemu-utils") && machine.is_installed("qemu-system-x86"));
    assert_eq!(machine.installs("qemu-system-x86"), 1);
}

#[test]
fn names_a_package_that_cannot_be_had_and_why() {
    let machine = StandIn::new().without("mmdebstrap");
    machine.mark("unknown", "mmdebstrap", "");
    let (done, said, errors) = machine.deps();
    assert!(!done && !said.contains("ready"), "{said}");
    assert_eq!(errors, "deps: cannot install mmdebstrap: E: Unable to locate package mmdebstrap (round 1)\n");
}

#[test]
fn installs_the_others_where_one_cannot_be_had() {
    let machine = StandIn::new().without("mmdebstrap").without("fdisk");
    machine.mark("unknown", "mmdebstrap", "");
    let (done, _, errors) = machine.deps();
    assert!(!done && machine.is_installed("fdisk"), "{errors}");
    assert!(errors.contains("cannot install mmdebstrap: ") && !errors.contains("fdisk"), "{errors}");
}

#[test]
fn installs_again_what_is_installed_and_does_not_run() {
    let machine = StandIn::new();
    machine.mark("installed", "qemu-utils", "broken");
    let (done, said, errors) = machine.deps();
    assert!(done, "{said}{errors}");
    assert!(said.contains("installing again what does not run: qemu-utils"), "{said}");

    machine.mark("installed", "qemu-utils", "broken");
    machine.mark("hopeless", "qemu-utils", "");
    let (done, _, errors) = machine.deps();
    assert!(!done);
    let expected = "deps: qemu-utils is installed but does not run: qemu-img: cannot open shared object file";
    assert!(errors.contains(expected), "{errors}");
}
