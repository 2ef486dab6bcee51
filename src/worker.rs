//! One disk, one process: the only code that opens block devices.
//!
//! A worker reads a job from standard input, one line of JSON, and after it, on a line of its own, the passphrase, if the job
//! needs it. It answers with lines of JSON on standard output, progress first, the outcome last. Then comes the next job, or the
//! end. A worker that hangs in the kernel hangs alone.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::{Zeroize as _, Zeroizing};

use crate::closing::{self, Extent};
use crate::disk::{Content, DevNo, DeviceFacts, MissingCipher};
use crate::error::chain;
use crate::key::Passphrase;
use crate::luks2::{Encryption, Expected, FormatSpec, ProvenKeyslot, check_header, mapper_name};
use crate::plan::Basis;
use crate::probe::{self, Scan, path_of};
use crate::storage::cryptsetup::{self, LuksError, Mapping};
use crate::storage::{FilesystemKind, Mount, dm};
use crate::storage::{filesystem, mount};

/// How long another holder of a disk's lock, such as udev at work on it, is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(60);

/// How often a worker that makes progress says so, at least.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// The longest line there may be: the wrapped key in a job, in base64, has at most 8 KiB.
const LINE_BYTES: usize = 64 << 10;

/// How much of the input is read at once.
const CHUNK: usize = 4096;

/// Which disk: what must still be true of the node at `path` when the worker has opened it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The device node.
    pub path: PathBuf,
    /// Its device number.
    pub devno: DevNo,
    /// The kernel's sequence number of the disk, where it has one.
    pub diskseq: Option<u64>,
    /// Size in bytes.
    pub size: u64,
}

impl From<&DeviceFacts> for Target {
    fn from(facts: &DeviceFacts) -> Self {
        Self { path: facts.path.clone(), devno: facts.devno, diskseq: facts.diskseq, size: facts.size }
    }
}

/// What a worker is asked to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Job {
    /// Say what is on the disk.
    Probe {
        /// The disk.
        target: Target,
        /// The LUKS UUID it was about to be formatted with, if it was.
        intent: Option<Uuid>,
        /// How much to read.
        scan: Scan,
    },
    /// Say which LUKS2 volume is on the disk, which may be in use. Writes nothing.
    Header {
        /// The disk.
        target: Target,
    },
    /// Encrypt the disk, open it and make a file system, after the basis was checked once more.
    Format {
        /// The disk.
        target: Target,
        /// Why it may be formatted.
        basis: Basis,
        /// How much to read.
        scan: Scan,
        /// How.
        spec: FormatSpec,
        /// What to make on it.
        filesystem: FilesystemKind,
        /// Where it is to be mounted for the first time: nothing is done unless that can be.
        first_mount: Option<PathBuf>,
    },
    /// Open the volume unless it is open, and mount it.
    Unlock {
        /// The disk.
        target: Target,
        /// The volume that must be on it.
        expected: Expected,
        /// Mapper name.
        mapper: String,
        /// Whether its mapping is there already; then there is no passphrase.
        open: bool,
        /// Where to mount it.
        mount: Option<Mount>,
    },
    /// Check that an open volume is, on the disk and in the kernel, what the state file says. Writes nothing.
    Check {
        /// The disk.
        target: Target,
        /// The volume that must be on it.
        expected: Expected,
        /// Mapper name.
        mapper: String,
        /// What is on it.
        filesystem: FilesystemKind,
        /// The keyslot that its key opens, where that is known.
        keyslot: Option<ProvenKeyslot>,
    },
    /// Grow an open volume to the size of the disk.
    Grow {
        /// The disk.
        target: Target,
        /// The volume that must be on it.
        expected: Expected,
        /// Mapper name.
        mapper: String,
        /// Whether the mapping is to grow too; without it there is no passphrase.
        mapping: bool,
        /// What is on it.
        filesystem: FilesystemKind,
        /// Where that is mounted; `None` where there is none.
        mount_point: Option<PathBuf>,
    },
    /// Say whether the kernel can encrypt so. It is about no disk.
    Cipher {
        /// How.
        encryption: Encryption,
    },
    /// Unmount the volume and remove its mapping.
    Close {
        /// Mapper name.
        mapper: String,
        /// What is done where somebody holds it.
        extent: Extent,
    },
}

impl Job {
    /// Whether a passphrase follows the job.
    pub fn needs_key(&self) -> bool {
        match self {
            Self::Probe { .. }
            | Self::Header { .. }
            | Self::Check { .. }
            | Self::Cipher { .. }
            | Self::Close { .. } => false,
            Self::Format { .. } => true,
            Self::Unlock { open, .. } => !open,
            Self::Grow { mapping, .. } => *mapping,
        }
    }

    /// Whether there may be another job to do on the same disk after it.
    pub fn is_followed(&self) -> bool {
        matches!(self, Self::Probe { .. } | Self::Format { .. })
    }
}

/// One line of a worker's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// Still at work.
    Progress {
        /// At what.
        stage: String,
        /// How much of it is done, in percent.
        percent: Option<u64>,
    },
    /// What is on the disk.
    Content {
        /// What.
        content: Content,
    },
    /// Which volume its header is of.
    Header {
        /// [`Content::Luks2`]; `None` where there is none.
        content: Option<Content>,
    },
    /// Formatted, open, and with a file system; not mounted.
    Formatted {
        /// The keyslot that its key opens.
        keyslot: ProvenKeyslot,
    },
    /// Not formatted: what is on the disk is no longer what the plan was based on.
    Changed {
        /// What is there now.
        content: Content,
    },
    /// Open and mounted.
    Unlocked {
        /// The keyslot that opened; `None` where the volume was open.
        keyslot: Option<ProvenKeyslot>,
        /// Whether its file system is marked with errors.
        filesystem_errors: bool,
        /// What is worth a warning all the same.
        warning: Option<String>,
    },
    /// Larger than it was.
    Grown,
    /// As large as its disk already.
    Unchanged,
    /// On the disk as it was made.
    Sound {
        /// What of it is not as it should be, and no matter of a reboot.
        #[serde(skip_serializing_if = "Option::is_none")]
        unsound: Option<String>,
        /// Whether its file system is marked with errors.
        filesystem_errors: bool,
    },
    /// Whether the kernel has a cipher.
    Cipher {
        /// What it lacks.
        missing: Option<MissingCipher>,
    },
    /// Closed.
    Closed,
    /// Failed.
    Failed {
        /// Why, causes included.
        message: String,
    },
}

/// Reads jobs from `input`, to its end, does them, writes answers to `output`. The last line for each is its outcome.
///
/// # Errors
/// When the answers cannot be written.
pub fn serve(input: impl Read, output: &mut impl Write) -> io::Result<()> {
    let mut input = Input::new(input);
    loop {
        let answer = match receive(&mut input) {
            Ok(Some((job, key))) => perform(job, key, &mut |answer| send(output, &answer)),
            Ok(None) => return Ok(()),
            // where the next one would begin is not known
            Err(message) => return send(output, &Answer::Failed { message }),
        };
        send(output, &answer)?;
    }
}

fn send(output: &mut impl Write, answer: &Answer) -> io::Result<()> {
    serde_json::to_writer(&mut *output, answer)?;
    output.write_all(b"\n")?;
    output.flush()
}

/// The next job and, if it needs it, the passphrase behind it; `None` at the end.
fn receive(input: &mut Input<impl Read>) -> Result<Option<(Job, Option<Passphrase>)>, String> {
    let Some(line) = input.line().map_err(|e| format!("cannot read the job: {e}"))? else { return Ok(None) };
    let job: Job = serde_json::from_slice(&line).map_err(|e| format!("not a job: {e}"))?;
    if !job.needs_key() {
        return Ok(Some((job, None)));
    }
    let line = input.line().map_err(|e| format!("cannot read the passphrase: {e}"))?;
    let key = Passphrase::from_slice(&line.unwrap_or_default()).map_err(|e| e.to_string())?;
    Ok(Some((job, Some(key))))
}

/// Lines, of which some are passphrases: whatever holds them is wiped.
struct Input<R> {
    from: R,
    /// What was read and not yet asked for; of one size from the beginning, as growing would leave copies behind.
    buffer: Zeroizing<Vec<u8>>,
}

impl<R: Read> Input<R> {
    fn new(from: R) -> Self {
        Self { from, buffer: Zeroizing::new(Vec::with_capacity(LINE_BYTES + CHUNK)) }
    }

    /// The next line, without what ends it; `None` at the end of the input.
    fn line(&mut self) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        let mut chunk = Zeroizing::new([0; CHUNK]);
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                return Ok(Some(self.take(end, end + 1)));
            }
            if self.buffer.len() > LINE_BYTES {
                return Err(io::Error::other(format!("a line of more than {LINE_BYTES} bytes")));
            }
            match self.from.read(&mut chunk[..]) {
                Ok(0) if self.buffer.is_empty() => return Ok(None),
                Ok(0) => return Ok(Some(self.take(self.buffer.len(), self.buffer.len()))),
                Ok(read) => self.buffer.extend_from_slice(&chunk[..read]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// What is in the buffer up to `end`; the next line begins at `next`. Nothing of it stays behind, not even where the rest is
    /// moved away from: the process may live for minutes.
    fn take(&mut self, end: usize, next: usize) -> Zeroizing<Vec<u8>> {
        let line = Zeroizing::new(self.buffer[..end].to_vec());
        let left = self.buffer.len() - next;
        self.buffer.copy_within(next.., 0);
        self.buffer[left..].zeroize();
        self.buffer.truncate(left);
        line
    }
}

/// Says what a worker is at; what cannot be said any more is no reason to stop half way.
struct Stage<'a> {
    send: &'a mut dyn FnMut(Answer) -> io::Result<()>,
    last: Option<u64>,
    since: Instant,
}

impl Stage<'_> {
    fn enter(&mut self, stage: &str) {
        self.last = None;
        let _ = (self.send)(Answer::Progress { stage: stage.to_owned(), percent: None });
    }

    fn percent(&mut self, stage: &str, done: u64, total: u64) {
        let percent = (done * 100).checked_div(total);
        if percent != self.last || self.since.elapsed() > HEARTBEAT {
            self.last = percent;
            self.since = Instant::now();
            let _ = (self.send)(Answer::Progress { stage: stage.to_owned(), percent });
        }
    }
}

fn perform(job: Job, key: Option<Passphrase>, send: &mut dyn FnMut(Answer) -> io::Result<()>) -> Answer {
    let mut stage = Stage { send, last: None, since: Instant::now() };
    let done = match job {
        Job::Probe { target, intent, scan } => examine(&target, intent, scan, &mut stage),
        Job::Header { target } => header(&target, &mut stage),
        Job::Format { target, basis, scan, spec, filesystem, first_mount } => first_mount
            .map_or(Ok(()), |at| mount::prepare_first_mount(&at).map_err(|e| format!("nothing was done: {}", chain(e))))
            .and_then(|()| format(&target, &basis, scan, &spec, filesystem, key, &mut stage)),
        Job::Unlock { target, expected, mapper, open, mount } => {
            unlock(&target, &expected, &mapper, open, mount.as_ref(), key, &mut stage)
        }
        Job::Check { target, expected, mapper, filesystem, keyslot } => {
            check(&target, &expected, &mapper, filesystem, keyslot.as_ref(), &mut stage)
        }
        Job::Grow { target, expected, mapper, filesystem, mount_point, .. } => {
            grow(&target, &expected, &mapper, filesystem, mount_point.as_deref(), key, &mut stage)
        }
        Job::Cipher { encryption } => {
            stage.enter("trying the cipher");
            dm::missing_cipher(encryption).map(|missing| Answer::Cipher { missing }).map_err(chain)
        }
        Job::Close { mapper, extent } => close(&mapper, &extent, &mut stage),
    };
    done.unwrap_or_else(|message| Answer::Failed { message })
}

fn examine(target: &Target, intent: Option<Uuid>, scan: Scan, stage: &mut Stage<'_>) -> Result<Answer, String> {
    let disk = claim(target, stage)?;
    Ok(Answer::Content { content: content("examining", &disk, intent, scan, stage) })
}

fn header(target: &Target, stage: &mut Stage<'_>) -> Result<Answer, String> {
    let disk = claim(target, stage)?;
    stage.enter("reading the header");
    Ok(Answer::Header { content: probe::volume(&disk)? })
}

/// By way of the claimed disk.
fn content(what: &str, disk: &File, intent: Option<Uuid>, scan: Scan, stage: &mut Stage<'_>) -> Content {
    stage.enter(what);
    probe::probe(&path_of(disk), intent, scan, &mut |done, total| stage.percent(what, done, total))
}

fn format(
    target: &Target,
    basis: &Basis,
    scan: Scan,
    spec: &FormatSpec,
    filesystem: FilesystemKind,
    key: Option<Passphrase>,
    stage: &mut Stage<'_>,
) -> Result<Answer, String> {
    let key = key.ok_or("no passphrase")?;
    let disk = claim(target, stage)?;
    let name = mapper_name(spec.expected.luks_uuid);
    let intent = match basis {
        Basis::Unfinished { luks_uuid } => {
            remove_mapping(&name)?;
            Some(*luks_uuid)
        }
        Basis::Noise { begun, .. } => *begun,
        Basis::Blank { .. } | Basis::Wipe { .. } => None,
    };
    // the plan may be minutes old
    let found = content("examining once more", &disk, intent, scan, stage);
    if !still_allowed(basis, &found) {
        return Ok(Answer::Changed { content: found });
    }
    // what follows goes by its name
    same_disk(target, &open(target)?)?;
    // once there is a complete header, what lies behind it is never given up: an agent that forgot how far it had come, its
    // boot volume restored from an old snapshot say, would destroy data otherwise
    let complete = matches!((basis, &found), (Basis::Unfinished { .. }, Content::Luks2 { .. }))
        && cryptsetup::resume(&target.path, &spec.expected, &key).map_err(chain)?;
    if !complete {
        stage.enter("formatting");
        if matches!(basis, Basis::Wipe { .. }) {
            filesystem::wipe_signatures(&target.path).map_err(chain)?;
        }
        cryptsetup::format(&target.path, target.size, spec, &key).map_err(chain)?;
    }
    let keyslot = cryptsetup::open(&target.path, &name, &spec.expected, &key).map_err(chain)?;
    // what is to come can take minutes
    drop(key);
    let mapping = dm::node(&name).map_err(chain)?;
    if !(complete && filesystem::has_filesystem(filesystem, &mapping).map_err(chain)?) {
        stage.enter("making the file system");
        filesystem::make_filesystem(filesystem, &mapping).map_err(chain)?;
    }
    Ok(Answer::Formatted { keyslot })
}

/// Whether what is on the disk now still justifies formatting it.
fn still_allowed(basis: &Basis, found: &Content) -> bool {
    match (basis, found) {
        (_, Content::Blank { .. }) => true,
        (Basis::Unfinished { .. }, Content::Unfinished) => true,
        (Basis::Unfinished { luks_uuid }, Content::Luks2 { luks_uuid: found, .. }) => luks_uuid == found,
        (Basis::Noise { .. }, Content::Noise { .. }) => true,
        // samples begin at random, so the first byte that is not zero need not be the same one
        (
            Basis::Wipe { found: Content::Noise { .. } | Content::Unrecognised { .. }, .. },
            Content::Noise { .. } | Content::Unrecognised { .. },
        ) => true,
        // what was planned to be wiped, and nothing that somebody has made of the disk since
        (Basis::Wipe { found: planned, .. }, Content::Foreign { .. } | Content::Luks2 { token: None, .. }) => {
            planned == found
        }
        _ => false,
    }
}

fn unlock(
    target: &Target,
    expected: &Expected,
    mapper: &str,
    open: bool,
    mount: Option<&Mount>,
    key: Option<Passphrase>,
    stage: &mut Stage<'_>,
) -> Result<Answer, String> {
    let _lock = claim(target, stage)?;
    let mut keyslot = None;
    if !open {
        stage.enter("unlocking");
        // a name alone is not open, and keeps others from having it
        if cryptsetup::mapping(mapper).map_err(chain)? == Mapping::Empty {
            dm::remove(mapper).map_err(chain)?;
        }
        // its last use: mounting can take minutes
        let opened = cryptsetup::open(&target.path, mapper, expected, &key.ok_or("no passphrase")?);
        keyslot = Some(opened.map_err(chain)?);
    }
    let mapping = dm::node(mapper).map_err(chain)?;
    let (mut filesystem_errors, mut warning) = (false, None);
    if let Some(mount) = mount {
        stage.enter("mounting");
        warning = mount::mount(&mapping, mount).map_err(chain)?;
        // it is mounted, whatever can be read of that
        filesystem_errors = filesystem::has_errors(mount.filesystem, &mapping).unwrap_or_else(|e| {
            tracing::warn!("cannot tell whether the file system has errors: {}", chain(e));
            false
        });
    }
    Ok(Answer::Unlocked { keyslot, filesystem_errors, warning })
}

fn check(
    target: &Target,
    expected: &Expected,
    mapper: &str,
    filesystem: FilesystemKind,
    keyslot: Option<&ProvenKeyslot>,
    stage: &mut Stage<'_>,
) -> Result<Answer, String> {
    let disk = claim(target, stage)?;
    stage.enter("checking");
    let metadata = header_is(&disk, expected)?;
    keyslot.map_or(Ok(()), |keyslot| keyslot.check(&disk, &metadata))?;
    if let Err(e) = dm::check(mapper, target.devno, expected.header) {
        return Ok(Answer::Sound { unsound: Some(chain(e)), filesystem_errors: false });
    }
    let (unsound, filesystem_errors) = match filesystem::has_errors(filesystem, &Path::new("/dev/mapper").join(mapper))
    {
        Ok(has_errors) => (None, has_errors),
        Err(e) => (Some(chain(e)), false),
    };
    Ok(Answer::Sound { unsound, filesystem_errors })
}

/// Checks that the header is what the state file says, as far as that can be told without a key, and returns its metadata.
fn header_is(disk: &File, expected: &Expected) -> Result<serde_json::Value, String> {
    let (luks_uuid, metadata) = probe::metadata(disk)?;
    if luks_uuid != expected.luks_uuid {
        return Err(chain(LuksError::OtherVolume { expected: expected.luks_uuid, found: luks_uuid }));
    }
    check_header(&metadata, expected).map_err(chain)?;
    Ok(metadata)
}

/// The mapping first; what a run leaves that is cut between the two is a file system smaller than its mapping, which the next
/// one grows.
fn grow(
    target: &Target,
    expected: &Expected,
    mapper: &str,
    filesystem: FilesystemKind,
    mount_point: Option<&Path>,
    key: Option<Passphrase>,
    stage: &mut Stage<'_>,
) -> Result<Answer, String> {
    let disk = claim(target, stage)?;
    header_is(&disk, expected)?;
    dm::check(mapper, target.devno, expected.header).map_err(chain)?;
    let mapping = dm::node(mapper).map_err(chain)?;
    let size = || {
        let at = mount_point.map(|at| filesystem::filesystem_size(filesystem, &mapping, at));
        at.transpose().map_err(chain)
    };
    let before = size()?;
    let mut grown = false;
    if let Some(key) = key {
        stage.enter("growing the mapping");
        grown = cryptsetup::grow(&target.path, target.size, mapper, expected, &key).map_err(chain)?;
    }
    if let Some(at) = mount_point {
        stage.enter("growing the file system");
        filesystem::grow_filesystem(filesystem, &mapping, at).map_err(chain)?;
    }
    Ok(if grown || size()? > before { Answer::Grown } else { Answer::Unchanged })
}

fn close(mapper: &str, extent: &Extent, stage: &mut Stage<'_>) -> Result<Answer, String> {
    stage.enter("closing");
    closing::close(mapper, extent)?;
    Ok(Answer::Closed)
}

fn remove_mapping(name: &str) -> Result<(), String> {
    match cryptsetup::mapping(name).map_err(chain)? {
        Mapping::Absent => Ok(()),
        // libcryptsetup closes nothing that is not open
        Mapping::Empty => dm::remove(name).map_err(chain),
        Mapping::Open => cryptsetup::close(name).map_err(chain),
    }
}

/// Checks that the node is still the disk that was planned for, and takes the advisory lock on it that keeps udev and
/// workers of a killed agent away (`systemd.io/BLOCK_DEVICE_LOCKING`).
fn claim(target: &Target, stage: &mut Stage<'_>) -> Result<File, String> {
    let path = target.path.display();
    let file = open(target)?;
    same_disk(target, &file)?;
    let since = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => {
                // inherited by mkfs, so that one which outlives its worker keeps the next worker away
                let inherited = fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty()));
                inherited.map_err(|e| format!("{path} cannot be kept locked: {e}"))?;
                return Ok(file);
            }
            Err(TryLockError::Error(e)) => return Err(format!("{path} cannot be locked: {e}")),
            Err(TryLockError::WouldBlock) if since.elapsed() < LOCK_PATIENCE => {
                stage.percent("waiting for another program that has locked it", 0, 1);
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(format!(
                    "{path} is locked by another program; find it with 'lslocks' or 'fuser -v {path}'"
                ));
            }
        }
    }
}

fn open(target: &Target) -> Result<File, String> {
    File::open(&target.path).map_err(|e| format!("{} cannot be opened: {e}", target.path.display()))
}

fn same_disk(target: &Target, mut file: &File) -> Result<(), String> {
    let path = target.path.display();
    let metadata = file.metadata().map_err(|e| format!("{path} is gone: {e}"))?;
    if !metadata.file_type().is_block_device() || DevNo::from_rdev(metadata.rdev()) != Some(target.devno) {
        return Err(format!("{path} is no longer block device {}", target.devno));
    }
    let seq = fs::read_to_string(format!("/sys/dev/block/{}/diskseq", target.devno)).ok();
    let seq = seq.and_then(|text| text.trim().parse::<u64>().ok());
    if target.diskseq.is_some() && seq != target.diskseq {
        let number = |seq: Option<u64>| seq.map_or("unknown".to_owned(), |seq| seq.to_string());
        let (seq, expected) = (number(seq), number(target.diskseq));
        return Err(format!("{path} is another disk now: disk sequence number {seq}, expected {expected}"));
    }
    let size = io::Seek::seek(&mut file, io::SeekFrom::End(0)).map_err(|e| format!("{path} has no size: {e}"))?;
    if size != target.size {
        return Err(format!("{path} is another disk now: {size} bytes, expected {}", target.size));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Evidence, NoiseEvidence};
    use crate::key::{DataKey, WrappedKey};
    use crate::luks2::{HeaderPolicy, Token};

    const EVIDENCE: Evidence = Evidence { read: 1, of: 1 };

    fn answers(input: &[u8]) -> Vec<Answer> {
        let mut output = Vec::new();
        serve(input, &mut output).unwrap();
        output.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).unwrap()).collect()
    }

    fn job() -> Vec<u8> {
        let target = Target { path: "/dev/null".into(), devno: DevNo { major: 1, minor: 3 }, diskseq: None, size: 0 };
        let expected = Expected {
            luks_uuid: Uuid::nil(),
            header: HeaderPolicy::Possible,
            wrapped_key: WrappedKey::new(vec![1]).unwrap(),
            key_arn: String::new(),
        };
        let job = Job::Unlock { target, expected, mapper: "x".into(), open: false, mount: None };
        let mut line = serde_json::to_vec(&job).unwrap();
        line.push(b'\n');
        line
    }

    #[test]
    fn a_job_without_its_passphrase_fails() {
        for key in [&b""[..], b"short", &[b'A'; 45], &[b'\n'; 44]] {
            let last = answers(&[&job(), key].concat()).pop().unwrap();
            let expected = "the passphrase is not 44 characters of base64".to_owned();
            assert_eq!(last, Answer::Failed { message: expected });
        }
    }

    #[test]
    fn what_is_not_a_block_device_is_not_touched() {
        let key = DataKey::from_slice(&[1; 32]).unwrap().passphrase();
        let last = answers(&[&job(), key.expose()].concat()).pop().unwrap();
        assert_eq!(last, Answer::Failed { message: "/dev/null is no longer block device 1:3".into() });
    }

    #[test]
    fn one_job_comes_after_the_other() {
        let key = DataKey::from_slice(&[1; 32]).unwrap().passphrase();
        let one = [&job(), key.expose(), b"\n"].concat();
        let all = answers(&[&one[..], &one, b"{}\n", &one].concat());
        let mut outcomes = Vec::new();
        for answer in &all {
            if let Answer::Failed { message } = answer {
                outcomes.push(message.split(':').next().unwrap());
            }
        }
        // behind what is not a job, nothing is done
        let not_touched = "/dev/null is no longer block device 1";
        assert_eq!(outcomes, [not_touched, not_touched, "not a job"]);
    }

    #[test]
    fn what_is_not_a_job_fails() {
        let long = vec![b' '; LINE_BYTES + 1];
        for input in [&b"{}\n"[..], b"\n", b"{", &long] {
            assert!(matches!(answers(input).as_slice(), [Answer::Failed { .. }]), "{} bytes", input.len());
        }
        assert!(answers(b"").is_empty());
    }

    /// Gives what it has in pieces of some size.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let (now, later) = self.0.split_at(self.1.min(self.0.len()).min(buffer.len()));
            buffer[..now.len()].copy_from_slice(now);
            self.0 = later;
            Ok(now.len())
        }
    }

    #[test]
    fn lines_come_in_pieces() {
        for size in [1, 2, 3, 100] {
            let mut input = Input::new(Pieces(b"one\n\nthree", size));
            let mut lines = Vec::new();
            while let Some(line) = input.line().unwrap() {
                lines.push(line.to_vec());
            }
            assert_eq!(lines, [&b"one"[..], b"", b"three"], "in pieces of {size}");
        }
    }

    #[test]
    fn formatting_needs_the_basis_to_hold_still() {
        let ours = Uuid::from_u128(1);
        let token = Token::new(WrappedKey::new(vec![1]).unwrap(), String::new(), None);
        let luks = |luks_uuid, token: Option<&Token>| Content::Luks2 { luks_uuid, token: token.cloned().map(Box::new) };
        let blank = Basis::Blank { evidence: EVIDENCE, replaces: None };
        let unfinished = Basis::Unfinished { luks_uuid: ours };
        let wipe = Basis::Wipe { found: Content::Foreign { signatures: vec!["ext4".into()] }, replaces: None };
        let wipe_luks = Basis::Wipe { found: luks(ours, None), replaces: None };
        let wipe_data = Basis::Wipe { found: Content::Unrecognised { offset: 9 }, replaces: None };
        let xfs = Content::Foreign { signatures: vec!["xfs".into()] };
        let foreign = Content::Foreign { signatures: vec!["ext4".into()] };
        let data = Content::Unrecognised { offset: 0 };
        let noise = NoiseEvidence { read: 1, random: 1, of: 1 };
        let taken = Basis::Noise { evidence: noise, begun: None };
        let noise = Content::Noise { offset: 0, evidence: noise };
        let unknown = Content::Unknown { reason: String::new() };
        let nothing = Content::Blank { evidence: EVIDENCE };
        // for each content: allowed on the basis of blank, unfinished, wipe of ext4, of a LUKS2 volume, of data; of noise
        let table = [
            (nothing, [true, true, true, true, true, true]),
            (Content::Unfinished, [false, true, false, false, false, false]),
            (luks(ours, Some(&token)), [false, true, false, false, false, false]),
            (luks(ours, None), [false, true, false, true, false, false]),
            (luks(Uuid::nil(), None), [false, false, false, false, false, false]),
            (luks(Uuid::nil(), Some(&token)), [false, false, false, false, false, false]),
            (foreign, [false, false, true, false, false, false]),
            (xfs, [false, false, false, false, false, false]),
            (data, [false, false, false, false, true, false]),
            (noise, [false, false, false, false, true, true]),
            (unknown, [false, false, false, false, false, false]),
        ];
        for (content, allowed) in table {
            let found = [&blank, &unfinished, &wipe, &wipe_luks, &wipe_data, &taken]
                .map(|basis| still_allowed(basis, &content));
            assert_eq!(found, allowed, "{content:?}");
        }
    }
}
