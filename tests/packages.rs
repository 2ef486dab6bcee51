//! The packages: what is to go into them, on every run; what is in them once `make packages` has built them, with
//! `make test-packages`. How they behave on machines is in `packages_vm.rs`.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use support::{built_packages, built_plugin_packages, project_dir};

const SCRIPTS: [&str; 6] =
    ["debian/postinst", "debian/prerm", "debian/postrm", "rpm/post.sh", "rpm/preun.sh", "rpm/postun.sh"];

fn file(path: &str) -> String {
    fs::read_to_string(project_dir().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// A maintainer script without its comments.
fn script(name: &str) -> String {
    let text = file(&format!("packaging/{name}"));
    text.lines().filter(|line| !line.trim_start().starts_with('#')).map(|line| format!("{line}\n")).collect()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c.is_whitespace() || "\"';".contains(c))
}

/// Units that the preset says `verb` of.
fn preset(verb: &str) -> BTreeSet<String> {
    let preset = file("systemd/luks-agent.preset");
    preset.lines().filter_map(|line| line.strip_prefix(verb)).map(|unit| unit.trim().to_owned()).collect()
}

#[test]
fn no_script_touches_the_unit_that_closes_volumes() {
    for name in SCRIPTS {
        let text = script(name);
        assert!(!words(&text).any(|word| word == "luks-agent-boot.service"), "{name} touches luks-agent-boot.service");
        // stopping the target would stop what waits for it
        for line in text.lines().filter(|line| line.contains("stop ") || line.contains("restart ")) {
            assert!(!line.contains(".target"), "{name}: {line}");
        }
    }
}

#[test]
fn what_is_enabled_is_what_the_preset_enables() {
    let postinst = script("debian/postinst");
    let list = postinst.lines().find_map(|line| line.trim().strip_prefix("for unit in ")).unwrap();
    assert_eq!(
        words(list).filter(|word| word.contains('.')).map(str::to_owned).collect::<BTreeSet<_>>(),
        preset("enable")
    );

    let post = script("rpm/post.sh");
    let list = post.lines().find_map(|line| line.split_once(" preset ")).unwrap().1;
    let list = words(list).filter(|word| word.starts_with("luks-agent")).map(str::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(list, &preset("enable") | &preset("disable"));
}

/// What `postrm purge` leaves of a configuration directory with this state file.
fn left_by_purge(state: Option<&str>) -> (Output, Vec<String>) {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("etc/luks-agent");
    fs::create_dir_all(dir.join("state")).unwrap();
    fs::create_dir_all(dir.join("config.d")).unwrap();
    if let Some(state) = state {
        fs::write(dir.join("state/state.json"), state).unwrap();
    }
    let postrm = project_dir().join("packaging/debian/postrm");
    let output = Command::new("sh").arg(postrm).arg("purge").env("DPKG_ROOT", root.path()).output().unwrap();
    let left = Command::new("find").current_dir(root.path()).args(["etc", "-mindepth", "1"]).output().unwrap();
    let mut left: Vec<_> = String::from_utf8(left.stdout).unwrap().lines().map(str::to_owned).collect();
    left.sort();
    (output, left)
}

#[test]
fn purge_keeps_a_state_that_volumes_depend_on() {
    for kept in ["{\n  \"version\": 2,\n  \"volumes\": [\n    { \"luks_uuid\": \"1\" }\n  ]\n}", "not JSON", ""] {
        let (output, left) = left_by_purge(Some(kept));
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && message.contains("is kept"), "{kept}: {message}");
        assert!(left.contains(&"etc/luks-agent/state/state.json".to_owned()), "{kept}: {left:?}");
    }
    for gone in [Some("{\n  \"volumes\": [],\n  \"keys\": []\n}"), None] {
        let (output, left) = left_by_purge(gone);
        assert!(output.status.success() && !String::from_utf8_lossy(&output.stderr).contains("kept"), "{output:?}");
        assert_eq!(left, Vec::<String>::new());
    }
}

/// What a script says at installation of a configuration directory, which is prepared by shell commands.
fn said_of_configuration(name: &str, prepare: &str) -> String {
    let root = tempfile::tempdir().unwrap();
    let text = file(&format!("packaging/{name}"));
    let check = text.split_once("\ndir=/etc/luks-agent\n").unwrap_or_else(|| panic!("{name} checks nothing")).1;
    // who runs the tests need not be root
    let check = check.replace("-user root", "-user $(id -u)");
    let script = format!("set -e; umask 022; {prepare}\ndir=$PWD\n{check}");
    let output = Command::new("sh").args(["-c", &script]).current_dir(root.path()).output().unwrap();
    assert!(output.status.success(), "{name}: {output:?}");
    String::from_utf8(output.stderr).unwrap().replace(root.path().to_str().unwrap(), "/etc/luks-agent")
}

#[test]
fn a_configuration_that_others_may_write_is_told_at_installation_and_not_at_the_next_boot() {
    let whole = "chmod 755 .; mkdir config.d; touch config.toml config.d/50-node.toml config.d/note;";
    for name in ["debian/postinst", "rpm/post.sh"] {
        for sound in ["", whole, "chmod 1777 .; touch config.toml", "chmod 755 .; ln -s nowhere config.toml"] {
            assert_eq!(said_of_configuration(name, sound), "", "{name}: {sound}");
        }
        for (change, paths) in [
            ("chmod 664 config.toml", vec!["/config.toml"]),
            ("chmod 666 config.d/*", vec!["/config.d/50-node.toml"]),
            ("chmod 775 config.d; chmod 777 .", vec!["", "/config.d"]),
            ("mv config.toml real; ln -s real config.toml; chmod 666 real", vec!["/config.toml"]),
        ] {
            let said = said_of_configuration(name, &format!("{whole} {change}"));
            let expected: String = paths
                .iter()
                .map(|path| {
                    let path = format!("/etc/luks-agent{path}");
                    format!("luks-agent: the next boot will fail, because others may write to {path}; check who changed it, then run: chown root '{path}'; chmod go-w '{path}'\n")
                })
                .collect();
            assert_eq!(said, expected, "{name}: {change}");
        }
    }
}

#[test]
fn every_unit_goes_into_both_packages() {
    let manifest = file("Cargo.toml");
    for kind in ["service", "socket", "target"] {
        assert_eq!(manifest.matches(&format!("\"systemd/*.{kind}\"")).count(), 2, "systemd/*.{kind}");
    }
    for entry in fs::read_dir(project_dir().join("systemd")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let kind = name.rsplit('.').next().unwrap();
        if !["service", "socket", "target"].contains(&kind) {
            assert_eq!(manifest.matches(&format!("\"systemd/{name}\"")).count(), 2, "{name}");
        }
    }
}

/// scripts/packages.sh names the files of both by the agent's.
#[test]
fn the_plug_in_has_the_version_of_the_agent() {
    let manifest: toml::Table = file("cryptsetup-token/Cargo.toml").parse().unwrap();
    assert_eq!(manifest["package"]["version"].as_str(), Some(env!("CARGO_PKG_VERSION")));
}

// From here on: what is in the packages that are built.

/// A package and its files, unpacked.
struct Package {
    path: PathBuf,
    files: tempfile::TempDir,
}

impl Package {
    fn is_deb(&self) -> bool {
        self.path.extension().unwrap() == "deb"
    }

    fn at(&self, path: &str) -> PathBuf {
        self.files.path().join(path)
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}: run scripts/deps.sh packages"));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{command:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// The agent's of one kind, or all of them.
fn packages(kind: &str) -> Vec<Package> {
    unpacked(built_packages(), kind)
}

/// The token plug-in's of one kind, or all of them.
fn plugin_packages(kind: &str) -> Vec<Package> {
    unpacked(built_plugin_packages(), kind)
}

/// The agent's and the plug-in's.
fn all_packages(kind: &str) -> impl Iterator<Item = Package> {
    packages(kind).into_iter().chain(plugin_packages(kind))
}

fn unpacked(built: Vec<PathBuf>, kind: &str) -> Vec<Package> {
    let unpacked = built.into_iter().filter(|path| path.to_str().unwrap().ends_with(kind)).map(|path| {
        let files = tempfile::tempdir().unwrap();
        let how = match path.extension().unwrap().to_str().unwrap() {
            "deb" => "dpkg-deb --extract \"$0\" .",
            _ => "rpm2cpio \"$0\" | cpio --quiet -idm",
        };
        run(Command::new("sh").current_dir(files.path()).args(["-c", how]).arg(&path));
        Package { path, files }
    });
    let unpacked: Vec<_> = unpacked.collect();
    assert!(!unpacked.is_empty(), "no {kind} is built: run make packages");
    unpacked
}

/// Everything below a directory, directories left out.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found.sort();
    found
}

fn is_elf(path: &Path) -> bool {
    fs::read(path).unwrap().starts_with(b"\x7fELF")
}

fn readelf(option: &str, path: &Path) -> String {
    run(Command::new("readelf").args(["--wide", option]).arg(path).env("LC_ALL", "C"))
}

/// The libraries that a program needs, and the highest version of each library's symbols.
fn needs(path: &Path) -> (BTreeSet<String>, Vec<(String, Vec<u32>)>) {
    let dynamic = readelf("--dynamic", path);
    let needed = dynamic.lines().filter(|line| line.contains("(NEEDED)"));
    let needed = needed.map(|line| line.split(['[', ']']).nth(1).unwrap().to_owned()).collect();
    let versions = readelf("--version-info", path);
    let names = versions.lines().filter_map(|line| line.split_once("Name: ")?.1.split_whitespace().next());
    let names = names.filter_map(|name| name.rsplit_once('_'));
    let names = names.map(|(library, version)| {
        let parts =
            version.split('.').map(|part| part.parse().unwrap_or_else(|_| panic!("version {version} of {library}")));
        (library.to_owned(), parts.collect::<Vec<u32>>())
    });
    (needed, names.collect())
}

/// As the family of RHEL has its directories: `/usr/lib64` for libraries, of which there are none; `/usr/sbin`, which is a link to
/// `/usr/bin` on Fedora 42 and later, so no package may have it as a directory; nothing outside `/usr` and `/etc`.
#[test]
#[ignore = "needs the packages, run make test-packages"]
fn the_rpm_fits_the_directories_of_its_family() {
    let places =
        ["/etc/luks-agent/", "/usr/lib/systemd/", "/usr/lib/tmpfiles.d/", "/usr/lib/udev/rules.d/", "/usr/share/"];
    for package in packages(".rpm") {
        let list = run(Command::new("rpm")
            .args(["-qp", "--nosignature", "--qf", "[%{FILEMODES:perms} %{FILENAMES}\\n]"])
            .arg(&package.path));
        for line in list.lines() {
            let (mode, path) = line.split_once(' ').unwrap();
            assert!(mode.starts_with('-'), "{line}: neither directories nor links");
            assert!(path == "/usr/sbin/luks-agent" || places.iter().any(|place| path.starts_with(place)), "{path}");
        }
        for path in files(&package.at("usr/lib")) {
            let text = fs::read_to_string(&path).unwrap();
            for debian in ["/etc/ssl", "/etc/default", "linux-gnu"] {
                assert!(!text.contains(debian), "{debian} in {}", path.display());
            }
        }
    }
}

/// glibc's parts, which are libraries of their own before 2.34.
const PARTS_OF_GLIBC: [&str; 6] =
    ["libdl.so.2", "libm.so.6", "libpthread.so.0", "librt.so.1", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"];

/// The highest version of each library's symbols in Debian 11, the oldest distribution that the packages are for; all others have later
/// ones.
const HIGHEST: [(&str, &[u32]); 5] =
    [("GLIBC", &[2, 31]), ("CRYPTSETUP", &[2, 0]), ("BLKID", &[2, 36]), ("LIBUDEV", &[247]), ("GCC", &[10])];

#[test]
#[ignore = "needs the packages, run make test-packages"]
fn programs_run_with_the_libraries_of_debian_11() {
    // none of them is OpenSSL's: libcryptsetup has it for itself
    let libraries = ["libblkid.so.1", "libc.so.6", "libcryptsetup.so.12", "libgcc_s.so.1", "libudev.so.1"];
    for package in packages("") {
        let programs: Vec<_> = files(package.files.path()).into_iter().filter(|path| is_elf(path)).collect();
        assert_eq!(programs, [package.at("usr/sbin/luks-agent")]);
        let (needed, versions) = needs(&programs[0]);
        let known: BTreeSet<_> = libraries.iter().map(|&name| name.to_owned()).collect();
        let other: Vec<_> = needed.difference(&known).filter(|name| !PARTS_OF_GLIBC.contains(&name.as_str())).collect();
        assert!(known.is_subset(&needed) && other.is_empty(), "{}: {needed:?}", package.path.display());
        for (library, most) in HIGHEST {
            let found = versions.iter().filter(|(name, _)| name == library).map(|(_, version)| version).max().unwrap();
            eprintln!("{}: {library}_{found:?}", package.path.file_name().unwrap().display());
            assert!(found.as_slice() <= most, "{}: needs {library} {found:?}", package.path.display());
        }
        assert!(versions.iter().all(|(name, _)| HIGHEST.iter().any(|(known, _)| known == name)), "{versions:?}");
        let sections = readelf("--sections", &programs[0]);
        assert!(!sections.contains(".symtab") && !sections.contains(".debug_"), "it is not stripped");
    }
}

/// The architecture of a package, as Rust calls it.
fn arch(package: &Package) -> &'static str {
    let name = package.path.to_str().unwrap();
    match name.ends_with("_arm64.deb") || name.ends_with(".aarch64.rpm") {
        true => "aarch64",
        false => "x86_64",
    }
}

/// The plug-in under the names of both token types, in the directory where libcryptsetup looks.
fn plugins(package: &Package) -> [PathBuf; 2] {
    let folder = match package.is_deb() {
        true => format!("usr/lib/{}-linux-gnu/cryptsetup", arch(package)),
        false => "usr/lib64/cryptsetup".to_owned(),
    };
    ["awskms", "exec"].map(|kind| package.at(&format!("{folder}/libcryptsetup-token-luks-agent-{kind}.so")))
}

#[test]
#[ignore = "needs the packages, run make test-packages"]
fn the_plug_in_has_both_names_and_exports_what_libcryptsetup_looks_up() {
    let functions =
        ["dump", "open", "validate", "version"].map(|name| format!("cryptsetup_token_{name}@@CRYPTSETUP_TOKEN_1.0"));
    for package in plugin_packages("") {
        let libraries: Vec<_> = files(package.files.path()).into_iter().filter(|path| is_elf(path)).collect();
        assert_eq!(libraries, plugins(&package));
        assert_eq!(fs::read(&libraries[0]).unwrap(), fs::read(&libraries[1]).unwrap());
        assert_eq!(fs::read_link(&libraries[1]).is_ok(), package.is_deb(), "a link, where the tool makes one");

        let machine = if arch(&package) == "x86_64" { "X86-64" } else { "AArch64" };
        assert!(readelf("--file-header", &libraries[0]).contains(machine), "{}", package.path.display());
        let symbols = readelf("--dyn-syms", &libraries[0]);
        let rows = symbols.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        // number, value, size, type, binding, visibility, section, name
        let defined = rows.filter(|row| row.len() == 8 && !["UND", "Ndx"].contains(&row[6]));
        let exported: BTreeSet<_> = defined.map(|row| row[7].to_owned()).collect();
        assert_eq!(exported, BTreeSet::from(functions.clone()), "{}", package.path.display());
        let sections = readelf("--sections", &libraries[0]);
        assert!(!sections.contains(".symtab") && !sections.contains(".debug_"), "it is not stripped");
    }
}

#[test]
#[ignore = "needs the packages, run make test-packages"]
fn the_plug_in_loads_with_the_libraries_of_debian_11() {
    for package in plugin_packages("") {
        let (needed, versions) = needs(&plugins(&package)[0]);
        let other = needed
            .iter()
            .filter(|name| !["libc.so.6", "libcryptsetup.so.12", "libgcc_s.so.1"].contains(&name.as_str()));
        let other: Vec<_> = other.filter(|name| !PARTS_OF_GLIBC.contains(&name.as_str())).collect();
        assert!(needed.contains("libcryptsetup.so.12") && other.is_empty(), "{needed:?}");
        // the version that it defines
        for (library, version) in versions.iter().filter(|(library, _)| library != "CRYPTSETUP_TOKEN") {
            let most = HIGHEST.iter().find(|(known, _)| known == library).unwrap_or_else(|| panic!("{library}")).1;
            assert!(version.as_slice() <= most, "{}: needs {library} {version:?}", package.path.display());
        }
    }
}

/// Mode, owner and path of everything in it, and where links lead.
fn listing(package: &Package) -> String {
    if package.is_deb() {
        let text = run(Command::new("dpkg-deb").arg("--contents").arg(&package.path));
        let rows = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        // the directories are everybody's
        let rows = rows.filter(|row| !row[0].starts_with('d'));
        return rows
            .map(|row| format!("{} {} {}\n", row[0], row[1], row[5..].join(" ").trim_start_matches('.')))
            .collect();
    }
    let mut command = Command::new("rpm");
    command.args([
        "-qp",
        "--nosignature",
        "--queryformat",
        "[%{FILEMODES:perms} %{FILEUSERNAME}/%{FILEGROUPNAME} %{FILENAMES}\n]",
    ]);
    run(command.arg(&package.path))
}

#[test]
#[ignore = "needs the packages, run make test-packages"]
fn packages_have_these_files() {
    for package in packages("") {
        insta::assert_snapshot!(package.path.extension().unwrap().to_str().unwrap(), listing(&package));
    }
    for package in plugin_packages("") {
        let name = format!("plugin_{}", package.path.extension().unwrap().to_str().unwrap());
        insta::assert_snapshot!(name, listing(&package).replace(arch(&package), "ARCHITECTURE"));
    }
}

/// Debian's package with a library.
fn deb_of(library: &str) -> String {
    let (name, number) = library.split_once(".so.").unwrap();
    match (name, number) {
        ("libgcc_s", _) => "libgcc-s1".to_owned(),
        ("libblkid" | "libcryptsetup" | "libudev", _) => format!("{name}{number}"),
        // glibc
        _ => "libc6".to_owned(),
    }
}

#[test]
#[ignore = "needs the packages, run make test-packages"]
fn packages_depend_on_these() {
    for package in packages(".deb") {
        let field = |name: &str| run(Command::new("dpkg-deb").arg("--field").arg(&package.path).arg(name));
        let depends = field("Depends");
        let names: BTreeSet<_> = depends.split(", ").map(|one| one.split(' ').next().unwrap().trim()).collect();
        let (needed, _) = needs(&package.at("usr/sbin/luks-agent"));
        for library in needed {
            let name = deb_of(&library);
            assert!(names.contains(&*name), "{library}: no {name} in {depends}");
        }
        // what it runs, and certificates; util-linux is essential
        for name in ["dmsetup", "mount", "xfsprogs", "udev", "systemd", "ca-certificates"] {
            assert!(names.contains(name), "no {name} in {depends}");
        }
        assert!(!depends.contains("libssl"), "{depends}");
        assert_eq!(field("Package").trim(), "luks-agent");
    }
    for package in packages(".rpm") {
        let requires = run(Command::new("rpm").args(["-qp", "--nosignature", "--requires"]).arg(&package.path));
        for name in
            ["libcryptsetup.so.12(CRYPTSETUP_2.0)(64bit)", "libblkid.so.1(BLKID_2.15)(64bit)", "libudev.so.1()(64bit)"]
        {
            assert!(requires.contains(name), "no {name} in {requires}");
        }
        for name in ["device-mapper", "util-linux", "xfsprogs", "systemd-udev", "ca-certificates"] {
            assert!(requires.lines().any(|line| line == name), "no {name} in {requires}");
        }
        assert!(!requires.contains("GLIBC_2.32") && !requires.contains("libssl"), "{requires}");
    }
}

#[test]
#[ignore = "needs the packages, run make test-packages"]
fn the_plug_ins_packages_depend_on_the_agent_and_a_libcryptsetup_that_loads_it_and_run_nothing() {
    for package in plugin_packages(".deb") {
        let depends = run(Command::new("dpkg-deb").arg("--field").arg(&package.path).arg("Depends"));
        let depends: BTreeSet<_> = depends.trim().split(", ").collect();
        for needed in ["libcryptsetup12 (>= 2:2.4)", "luks-agent (>= 0.1.0)"] {
            assert!(depends.contains(needed), "no {needed} in {depends:?}");
        }
        let names: BTreeSet<_> = depends.iter().map(|one| one.split(' ').next().unwrap().to_owned()).collect();
        let (needed, _) = needs(&plugins(&package)[0]);
        let mut expected: BTreeSet<_> = needed.iter().map(|library| deb_of(library)).collect();
        expected.insert("luks-agent".to_owned());
        assert_eq!(names, expected);
        let control = "dpkg-deb --ctrl-tarfile \"$0\" | tar --list | sort";
        let control = run(Command::new("sh").args(["-c", control]).arg(&package.path));
        assert_eq!(control, "./control\n", "a maintainer script");
    }
    for package in plugin_packages(".rpm") {
        let ask = |what: &str| run(Command::new("rpm").args(["-qp", "--nosignature", what]).arg(&package.path));
        let requires = ask("--requires");
        for needed in ["cryptsetup-libs >= 2.4", "luks-agent >= 0.1.0", "libcryptsetup.so.12(CRYPTSETUP_2.0)(64bit)"] {
            assert!(requires.lines().any(|line| line == needed), "no {needed} in {requires}");
        }
        assert!(!requires.contains("/bin/sh"), "{requires}");
        assert_eq!(ask("--scripts"), "");
    }
}

#[test]
#[ignore = "needs the packages, run make test-packages"]
fn a_package_without_a_key_says_so_and_does_nothing() {
    for package in packages(&format!("{}.rpm", std::env::consts::ARCH)).iter().chain(&packages("amd64.deb")) {
        let mut agent = Command::new(package.at("usr/sbin/luks-agent"));
        let output = agent.arg("--config").arg(package.at("etc/luks-agent/config.toml")).arg("boot").output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains("kms.key_id is missing"), "{message}");
    }
}

/// All that is linked in, and nothing of this machine.
#[test]
#[ignore = "needs the packages, run make test-packages"]
fn the_bill_of_materials_names_the_crates_that_are_locked() {
    let lock: toml::Table = file("Cargo.lock").parse().unwrap();
    let pair = |package: &toml::Value| {
        (package["name"].as_str().unwrap().to_owned(), package["version"].as_str().unwrap().to_owned())
    };
    let locked: BTreeSet<_> = lock["package"].as_array().unwrap().iter().map(pair).collect();
    // tests and build tools are in none
    let never = ["fake-aws", "proptest", "bindgen"];
    let agent = ["aws-sdk-kms", "aws-lc-sys", "libcryptsetup-rs", "rustls", "tokio"];
    let names_crates = |package: &Package, name: &str, linked: &[&str], not_linked: &[&str]| {
        let bill =
            files(&package.at("usr/share/doc")).into_iter().find(|path| path.ends_with(format!("{name}.cdx.json")));
        let text = fs::read_to_string(bill.unwrap()).unwrap();
        let bill: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(bill["metadata"]["component"]["name"], name);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let components = bill["components"].as_array().unwrap();
        let named: BTreeSet<_> = components.iter().map(|one| (text(&one["name"]), text(&one["version"]))).collect();
        assert!(named.is_subset(&locked), "{:?}", named.difference(&locked));
        let has = |name: &&&str| components.iter().any(|one| one["name"] == **name);
        assert_eq!(linked.iter().find(|name| !has(name)), None, "in the bill of {name}");
        assert_eq!(not_linked.iter().chain(&never).find(has), None, "in the bill of {name}");
        named.len()
    };
    for package in packages("") {
        assert!(names_crates(&package, "luks-agent", &agent, &[]) > 100);
    }
    for package in plugin_packages("") {
        names_crates(&package, "luks-agent-cryptsetup-token", &["libc", "serde_json", "zeroize"], &agent);
    }
}

#[test]
#[ignore = "needs the packages, run make test-packages"]
fn nothing_in_a_package_is_of_the_machine_that_built_it() {
    let home = std::env::var("HOME").unwrap_or_default();
    let here = [project_dir().to_str().unwrap().to_owned(), format!("{home}/.cargo"), format!("{home}/.cache")];
    for package in all_packages("") {
        for path in files(package.files.path()) {
            let bytes = fs::read(&path).unwrap();
            for needle in &here {
                let found = bytes.windows(needle.len()).any(|window| window == needle.as_bytes());
                assert!(!found, "{} has the path {needle}", path.display());
            }
            let times = fs::metadata(&path).unwrap().modified().unwrap();
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert!(times.elapsed().is_ok() && mode & 0o022 == 0, "{}", path.display());
        }
    }
}

/// Each exception is explained where it is made: `packaging/debian/lintian-overrides`, `packaging/rpm/rpmlint.toml`.
#[test]
#[ignore = "needs the packages, run make test-packages"]
fn lintian_and_rpmlint_have_nothing_to_say() {
    for package in all_packages(".deb") {
        // info is for the maintainers of Debian
        let mut lintian = Command::new("lintian");
        lintian.args(["--allow-root", "--tag-display-limit=0", "--fail-on=error,warning"]);
        let said = run(lintian.arg(&package.path));
        assert_eq!(said, "", "{}", package.path.display());
    }
    for package in all_packages(".rpm") {
        let config = project_dir().join("packaging/rpm/rpmlint.toml");
        let said = run(Command::new("rpmlint").arg("--config").arg(config).arg(&package.path));
        assert!(said.contains("0 errors, 0 warnings"), "{said}");
    }
}
