//! One point of the sweeps: the crash, the next provision, and what must be true then.

use std::fmt;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::disk::{self, Log};
use crate::node::{
    BASE, DISKS, MOUNTS, STATE_DIR, Volume, agent, device, is_zero, mapping, mounted, read, read_all, read_state,
    replace_state, shut_down, size_of, state_file, unmount_all, write_disk, write_file,
};
use crate::trace::{self, Victim};

/// A keyslot is in here. What lies before, the two copies of the header's metadata, may be repaired or written again; this
/// differs from one format to the next.
const KEYSLOT: std::ops::Range<usize> = 32 << 10..1 << 20;
/// All that is neither metadata nor data.
const KEYSLOTS: std::ops::Range<usize> = 32 << 10..16 << 20;

/// What somebody who keeps the sweep's log has to know of a volume that was committed.
struct Kept {
    luks_uuid: String,
    disk: String,
    keyslot: Vec<u8>,
    /// UUID of its file system, if it could be seen.
    filesystem: Option<Vec<u8>>,
    /// Its file, if that could be seen.
    file: Option<Vec<u8>>,
}

/// What was found to be wrong.
#[derive(Clone, Copy)]
enum Wrong {
    Lost,
    Formatted,
    Stuck,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "lost",
            Self::Formatted => "formatted",
            Self::Stuck => "stuck",
        })
    }
}

/// The sweep of one boot.
pub(crate) struct Sweep {
    foreign: Vec<u8>,
    logs: Option<[Log; 2]>,
    random: fastrand::Rng,
    wrong: Vec<String>,
}

/// What is to be seen of a bad point.
const TRACES: [&str; 6] = ["list", "state.crashed", "crashed", "converged", "e2fsck", "unlocked"];

impl Sweep {
    pub(crate) fn new() -> Self {
        let foreign = fs::read(Path::new(BASE).join("ubdd")).unwrap();
        Self { foreign, logs: None, random: fastrand::Rng::new(), wrong: Vec::new() }
    }

    /// Tries one point, and says what came of it: `-- point POINT ok|missed|BAD ...`.
    pub(crate) fn try_point(&mut self, point: &str) {
        let began = Instant::now();
        self.wrong.clear();
        for name in TRACES {
            let _ = fs::remove_file(Path::new("/run").join(name));
        }
        let (scenario, rest) = point.split_once('/').unwrap();
        let parts: Vec<&str> = rest.split(':').collect();
        let reboot = parts.contains(&"reboot");
        let moment = match scenario {
            "power" => {
                let numbers: Vec<u64> = parts.iter().filter_map(|part| part.parse().ok()).collect();
                let [version, b, c, lose @ ..] = numbers.as_slice() else { panic!("{point} is no point") };
                let writes = [b, c].map(|writes| usize::try_from(*writes).unwrap());
                Some(self.power(usize::try_from(*version).unwrap(), writes, lose.first().copied(), reboot))
            }
            _ => {
                let victim = Victim { process: parts[0].to_owned(), at: parts[1].parse().unwrap() };
                self.kill(scenario, victim, parts.contains(&"cold"), reboot)
            }
        };
        self.check_others();
        let word = match (&moment, self.wrong.is_empty()) {
            (_, false) => "BAD",
            (None, true) => "missed",
            (Some(_), true) => "ok",
        };
        println!("-- point {point} {word} {}, {} ms", moment.unwrap_or_default(), began.elapsed().as_millis());
        if !self.wrong.is_empty() {
            self.show();
        }
    }

    /// Whether all is well up to now.
    fn bad(&mut self, wrong: Wrong, what: impl fmt::Display) {
        self.wrong.push(format!("{wrong}: {what}"));
    }

    fn show(&self) {
        self.wrong.iter().for_each(|wrong| println!("   wrong: {wrong}"));
        let traces = TRACES.iter().map(|name| Path::new("/run").join(name));
        for path in traces.chain([state_file()]) {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let text = fs::read(&path).unwrap_or_default();
            String::from_utf8_lossy(&text).lines().for_each(|line| println!("   {name}: {line}"));
        }
        let disks = Command::new("lsblk").args(["-o", "NAME,SIZE,FSTYPE,UUID,MOUNTPOINTS"]).output().unwrap();
        String::from_utf8_lossy(&disks.stdout).lines().for_each(|line| println!("   {line}"));
    }

    /// SIGKILL, and the next provision. `None`: the victim never came that far.
    fn kill(&mut self, scenario: &str, victim: Victim, cold: bool, reboot: bool) -> Option<String> {
        shut_down();
        let base = Path::new(BASE).join(scenario);
        replace_state(Some(base.join("state/state.json")).as_deref().filter(|file| file.exists()));
        for disk in DISKS {
            let image = fs::read(base.join(disk)).unwrap_or_default();
            write_disk(&device(disk), &image);
        }
        let provision = [std::env::var("LUKS_AGENT").unwrap(), "provision".to_owned()];
        let of_agent = victim.process == "agent";
        let seen = trace::kill_at(&provision, victim, Path::new("/run/crashed"));
        fs::write("/run/list", &seen.text).unwrap();
        match (&seen.killed, seen.status.code(), seen.status.signal()) {
            (None, Some(0), _) => {}
            (Some(_), _, Some(_)) if of_agent => {}
            (Some(_), Some(0 | 1), _) if !of_agent => {}
            (_, _, _) => self.bad(Wrong::Stuck, format_args!("{} of the run with the kill", seen.status)),
        }
        let _ = fs::copy(state_file(), "/run/state.crashed");
        let kept = self.committed();
        if cold {
            shut_down();
        }
        match agent("provision", "converged") {
            0 => self.check_converged(&kept, reboot),
            status => self.bad(Wrong::Stuck, format_args!("the next provision ended with status {status}")),
        }
        seen.killed
    }

    /// The volumes that the state file says are committed, with a file on each that is mounted.
    fn committed(&mut self) -> Vec<Kept> {
        let mut kept = Vec::new();
        for volume in read_state(&state_file()).0.into_iter().filter(|volume| volume.committed) {
            let disk = device(&volume.disk);
            // otherwise it went with the instance store, and the agent may know
            if read(&disk, 168, 204) != volume.luks_uuid.as_bytes() {
                continue;
            }
            let file = Path::new(&volume.mount_point).join("file");
            if is_mounted(&volume) && !file.exists() {
                write_file(&volume.mount_point, &mut self.random);
            }
            kept.push(Kept {
                keyslot: read(&disk, KEYSLOT.start, KEYSLOT.end),
                filesystem: filesystem(&volume.luks_uuid),
                file: fs::read(file).ok(),
                luks_uuid: volume.luks_uuid,
                disk: volume.disk,
            });
        }
        kept
    }

    /// Nothing of what is not ours was touched.
    fn check_others(&mut self) {
        if read_all(&device("ubdd")) != self.foreign {
            self.bad(Wrong::Formatted, "the foreign disk ubdd was written to");
        }
        if !is_zero(&read_all(&device("ubde"))) {
            self.bad(Wrong::Formatted, "the bystander ubde was written to");
        }
    }

    /// Both volumes are committed and mounted, with one key, and what was committed is as it was. The file systems are
    /// sound, and if wanted a reboot is tried.
    fn check_converged(&mut self, kept: &[Kept], reboot: bool) {
        let (volumes, keys) = read_state(&state_file());
        if keys != 1 {
            self.bad(Wrong::Stuck, format_args!("{keys} keys are recorded"));
        }
        let committed = volumes.iter().filter(|volume| volume.committed).count();
        if committed != 2 || volumes.len() != 2 {
            let of = volumes.len();
            self.bad(Wrong::Stuck, format_args!("{committed} of {of} recorded volumes are committed"));
        }
        for volume in volumes.iter().filter(|volume| !is_mounted(volume)) {
            self.bad(Wrong::Stuck, format_args!("{} is not mounted at {}", volume.luks_uuid, volume.mount_point));
        }
        self.check_kept(kept);
        if !self.wrong.is_empty() {
            return;
        }
        let files = MOUNTS.map(|at| Path::new(at).join("file"));
        for (at, file) in MOUNTS.iter().zip(&files) {
            if !file.exists() {
                write_file(at, &mut self.random);
            }
        }
        let before = files.each_ref().map(|file| fs::read(file).unwrap());
        unmount_all();
        for volume in &volumes {
            let output = Command::new("e2fsck").arg("-fn").arg(mapping(&volume.luks_uuid)).output().unwrap();
            if !output.status.success() {
                fs::write("/run/e2fsck", [output.stdout, output.stderr].concat()).unwrap();
                self.bad(Wrong::Lost, format_args!("the file system of {} is not sound", volume.luks_uuid));
            }
        }
        if !reboot {
            return;
        }
        shut_down();
        let status = agent("unlock", "unlocked");
        if status != 0 {
            self.bad(Wrong::Lost, format_args!("unlock ended with status {status}"));
        }
        for (file, before) in files.iter().zip(before) {
            if fs::read(file).ok() != Some(before) {
                self.bad(Wrong::Lost, format_args!("{} is not what it was before the reboot", file.display()));
            }
        }
    }

    fn check_kept(&mut self, kept: &[Kept]) {
        let (volumes, _) = read_state(&state_file());
        for kept in kept {
            let luks_uuid = &kept.luks_uuid;
            let Some(volume) = volumes.iter().find(|volume| volume.luks_uuid == *luks_uuid) else {
                self.bad(Wrong::Lost, format_args!("{luks_uuid} is no longer in the state file"));
                continue;
            };
            if read(&device(&kept.disk), KEYSLOT.start, KEYSLOT.end) != kept.keyslot {
                self.bad(Wrong::Lost, format_args!("{luks_uuid} has another keyslot"));
            }
            if kept.filesystem.is_some() && filesystem(luks_uuid) != kept.filesystem {
                self.bad(Wrong::Lost, format_args!("{luks_uuid} has another file system"));
            }
            let file = Path::new(&volume.mount_point).join("file");
            if kept.file.is_some() && fs::read(file).ok() != kept.file {
                self.bad(Wrong::Lost, format_args!("{luks_uuid} has not its file"));
            }
        }
    }

    /// A power cut: each disk has some of the writes of the recorded provision, the state file is one of its versions.
    fn power(&mut self, version: usize, writes: [usize; 2], lose: Option<u64>, reboot: bool) -> String {
        shut_down();
        let recorded = Path::new(BASE).join("power");
        let state_at = |version: usize| recorded.join("state").join(version.to_string());
        let versions = fs::read_dir(recorded.join("state")).unwrap().count();
        let logs = self.logs.get_or_insert_with(|| ["/dev/ubdf", "/dev/ubdg"].map(|log| Log::read(Path::new(log))));
        let mut images = Vec::new();
        // whether a power cut can leave both disks and the state file like that
        let mut possible = true;
        for (i, disk) in DISKS.iter().enumerate() {
            let image = disk::image(&logs[i], vec![0; size_of(&device(disk))], writes[i], lose);
            write_disk(&device(disk), &image);
            images.push(image);
            let from = if version == 0 { 0 } else { logs[i].mark(&version.to_string()) };
            let to = if version == versions { logs[i].writes() } else { logs[i].mark(&(version + 1).to_string()) };
            possible &= (from..=to).contains(&writes[i]);
        }
        replace_state(Some(state_at(version)).as_deref().filter(|_| version > 0));
        // the next version was begun, and is torn
        if version > 0 && version < versions && writes[0] % 2 == 1 {
            let next = fs::read(state_at(version + 1)).unwrap();
            fs::write(Path::new(STATE_DIR).join("state.json.new"), &next[..writes[1] * 7 % next.len()]).unwrap();
        }
        let (now, _) = read_state(&state_at(version));
        let (last, _) = read_state(&state_at(versions));
        let mut kept = Vec::new();
        for (i, disk) in DISKS.iter().enumerate() {
            let volume = last.iter().find(|volume| volume.disk == *disk).unwrap();
            // what was committed, or had a file, has it still, even if the state file has forgotten it
            let committed_at = (1..=versions)
                .find(|version| {
                    read_state(&state_at(*version)).0.iter().any(|v| v.luks_uuid == volume.luks_uuid && v.committed)
                })
                .unwrap();
            let committed = writes[i] >= logs[i].mark(&committed_at.to_string());
            if committed && now.iter().any(|v| v.luks_uuid == volume.luks_uuid) {
                kept.push(Kept {
                    luks_uuid: volume.luks_uuid.clone(),
                    disk: volume.disk.clone(),
                    keyslot: images[i][KEYSLOT].to_vec(),
                    filesystem: Some(fs::read(recorded.join(format!("filesystem.{disk}"))).unwrap()),
                    file: (writes[i] >= logs[i].mark("file"))
                        .then(|| fs::read(recorded.join(format!("file.{disk}"))).unwrap()),
                });
            }
        }
        let status = agent("provision", "converged");
        let moment = format!("state {version} of {versions}");
        if possible {
            match status {
                0 => self.check_converged(&kept, reboot),
                status => self.bad(Wrong::Stuck, format_args!("the next provision ended with status {status}")),
            }
            return moment;
        }
        // the boot volume is from another moment, as after a restored snapshot: whatever happens, nothing is destroyed
        if !matches!(status, 0 | 1 | 3) {
            self.bad(Wrong::Stuck, format_args!("the next provision ended with status {status}"));
        }
        if status == 0 {
            self.check_kept(&kept);
        }
        for (i, disk) in DISKS.iter().enumerate() {
            let recorded = now.iter().find(|volume| volume.disk == *disk).map(|volume| volume.committed);
            let now = read_all(&device(disk));
            let (blank, ebs) = (is_zero(&images[i]), *disk == "ubdc");
            let wrong = match recorded {
                None if !blank => now != images[i],
                // the instance store may come back blank
                Some(true) if blank => ebs && !is_zero(&now),
                Some(true) => now[KEYSLOTS] != images[i][KEYSLOTS],
                None | Some(false) => false,
            };
            if wrong {
                self.bad(Wrong::Formatted, format_args!("{disk}, which is recorded as {recorded:?}"));
            }
        }
        format!("{moment}, which is of another moment, status {status}")
    }
}

fn is_mounted(volume: &Volume) -> bool {
    let source = mapping(&volume.luks_uuid);
    mounted().iter().any(|(of, at)| Path::new(of) == source && *at == volume.mount_point)
}

/// UUID of the ext4 file system on an open volume: in the superblock at byte 1024, at byte 104 of it.
fn filesystem(luks_uuid: &str) -> Option<Vec<u8>> {
    let mapping: PathBuf = mapping(luks_uuid);
    mapping.exists().then(|| read(&mapping, 1024 + 104, 1024 + 120))
}
