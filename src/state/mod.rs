//! The state file on the boot volume: which keys there are, wrapped, and which volumes were made with them.
//!
//! The file is replaced as a whole: temporary file, fsync, rename, fsync of the directory. A reader sees the old file or the new
//! one, never a torn one. Only the holder of the lock writes.
//!
//! May import: `discover`, `disk`, `error`, `key`, `luks2`, `permissions`, `storage`.
//! Never: the configuration, the key service, or a decision on what follows from a record.

use std::fmt;
pub mod closed;

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::discover::{Roots, in_memory};
use crate::disk::DeviceFacts;
use crate::error::IoError;
use crate::key::WrappedKey;
use crate::luks2::{Expected, HeaderPolicy, ProvenKeyslot, sha256_hex};
use crate::permissions::objection;
use crate::storage::FilesystemKind;

/// Version of the format that this release writes; it reads all from 1 on. Version 1 had no checksum and no layouts, version 2 no
/// keyslots.
pub const VERSION: u32 = 3;
/// What is kept of commands until the next reboot.
pub(crate) const RUN_DIR: &str = "/run/luks-agent";
const FILE: &str = "state.json";
const TEMPORARY: &str = "state.json.new";

/// A state directory or file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A system call on it failed.
    #[error(transparent)]
    Io(#[from] IoError),
    /// Another agent is at work.
    #[error("another luks-agent is running: {holder} holds the lock on {path}; gave up after {} s: wait for it to finish, then run the command again", .waited.as_secs())]
    Locked {
        /// The locked directory.
        path: PathBuf,
        /// The process that holds the lock: its pid and command.
        holder: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// Somebody put another directory in its place.
    #[error("the state directory {path} was replaced while this command ran; nothing was saved, run the command again")]
    Replaced {
        /// The directory.
        path: PathBuf,
    },
    /// No state file, where there must be one.
    #[error(
        "this node was never provisioned, or its state file is lost: {path} does not exist; run 'luks-agent provision' first, which formats nothing where a volume of luks-agent is attached"
    )]
    NeverProvisioned {
        /// The file looked for.
        path: PathBuf,
    },
    /// A file that is not what this release writes.
    #[error(
        "{path} is damaged: {reason}; restore it from a backup, or see 'break-glass' in the README to open the volumes without it. nothing is formatted meanwhile"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A file of a newer release.
    #[error(
        "{path} has format version {version}, this luks-agent knows 1 to {VERSION}; install the release that wrote it"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u64,
    },
    /// A file of a newer release that kept the format version.
    #[error(
        "{path} is intact, but a later luks-agent wrote it: {reason}; install the release that wrote it. nothing is formatted meanwhile"
    )]
    Later {
        /// The file.
        path: PathBuf,
        /// What this release does not know.
        reason: String,
    },
    /// Others may write to it.
    #[error(
        "{path} {reason}; expected owner {owner} and no write permission for others: check who changed it, then 'chown {owner}' and 'chmod go-w' it"
    )]
    Permissions {
        /// File or directory.
        path: PathBuf,
        /// What is wrong.
        reason: String,
        /// User id expected.
        owner: u32,
    },
    /// A directory that a reboot empties, and nothing in it yet.
    #[error(
        "state.dir {path} is in memory: it lies on {on}, and a reboot would lose the wrapped key; choose a directory on the boot volume"
    )]
    InMemory {
        /// The directory.
        path: PathBuf,
        /// What it lies on.
        on: String,
    },
}

/// All that the agent keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// [`VERSION`].
    pub version: u32,
    /// The instance whose key the last one is; `None` where there was no instance metadata service to say.
    pub instance_id: Option<String>,
    /// Keys, oldest first; one in normal life.
    pub keys: Vec<KeyRecord>,
    /// Volumes, in the order they were made.
    pub volumes: Vec<VolumeRecord>,
}

/// One data key, wrapped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRecord {
    /// What volumes refer to it by.
    pub id: u32,
    /// The `CiphertextBlob`.
    pub wrapped_key: WrappedKey,
    /// `kms.key_id` at the time.
    pub configured_key_id: String,
    /// ARN of the KMS key that wrapped it.
    pub key_arn: String,
    /// When it was made.
    pub created: Timestamp,
}

/// One volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeRecord {
    /// LUKS UUID, chosen before the volume was formatted.
    pub luks_uuid: Uuid,
    /// Id of the key that opens it.
    pub key: u32,
    /// Serial number of the disk, where it has one.
    pub serial: Option<String>,
    /// Kernel name of the disk when it was formatted; identifies it only where there is no serial number.
    pub device: String,
    /// What kind of volume.
    pub role: VolumeRole,
    /// Size of the disk in bytes when the volume was made, or last grown to the end of it.
    pub size: u64,
    /// Where it is mounted.
    pub mount_point: Option<PathBuf>,
    /// What is made on it.
    pub filesystem: FilesystemKind,
    /// What its header must be.
    #[serde(default)]
    pub header: HeaderPolicy,
    /// How far it has come.
    pub phase: Phase,
    /// The keyslot that its key opens. `None` until it is committed, and of one made by an earlier release, until it is opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keyslot: Option<ProvenKeyslot>,
    /// Serial numbers of the disks that it was on before: what is on them now is never formatted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former_serials: Vec<String>,
}

/// The kinds of volume that are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VolumeRole {
    /// An EBS volume.
    Ebs,
    /// An instance store volume.
    InstanceStore,
}

impl fmt::Display for VolumeRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ebs => "ebs",
            Self::InstanceStore => "instance-store",
        })
    }
}

/// How far a volume has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// About to be formatted, or half formatted: it was never mounted and holds no data.
    Intent,
    /// Formatted, proven to open, perhaps mounted: it may hold data and is never formatted again.
    Committed,
}

impl VolumeRecord {
    /// As [`DeviceFacts::identity`].
    pub fn identity(&self) -> String {
        self.serial.clone().unwrap_or_else(|| format!("name:{}", self.device))
    }

    /// Whether this is the disk that the record was made for.
    pub fn is_for(&self, facts: &DeviceFacts) -> bool {
        self.identity() == facts.identity()
    }
}

impl Default for State {
    fn default() -> Self {
        Self { version: VERSION, instance_id: None, keys: Vec::new(), volumes: Vec::new() }
    }
}

impl State {
    /// The record with this LUKS UUID.
    pub fn volume(&self, luks_uuid: Uuid) -> Option<&VolumeRecord> {
        self.volumes.iter().find(|v| v.luks_uuid == luks_uuid)
    }

    /// The key with this id.
    pub fn key(&self, id: u32) -> Option<&KeyRecord> {
        self.keys.iter().find(|k| k.id == id)
    }

    /// What the header of a volume must be; `None` of a volume or a key that is not in it.
    pub fn expected(&self, luks_uuid: Uuid) -> Option<Expected> {
        let volume = self.volume(luks_uuid)?;
        let KeyRecord { wrapped_key, key_arn, .. } = self.key(volume.key)?.clone();
        Some(Expected { luks_uuid, header: volume.header, wrapped_key, key_arn })
    }

    fn consistent(&self) -> Result<(), String> {
        for (i, volume) in self.volumes.iter().enumerate() {
            if self.key(volume.key).is_none() {
                return Err(format!("volume {} uses key {}, which is not in it", volume.luks_uuid, volume.key));
            }
            if self.volumes[..i].iter().any(|other| other.luks_uuid == volume.luks_uuid) {
                return Err(format!("volume {} is in it twice", volume.luks_uuid));
            }
        }
        let twice = |(i, key): (usize, &KeyRecord)| self.keys[..i].iter().any(|other| other.id == key.id);
        if self.keys.iter().enumerate().any(twice) {
            return Err("a key id is in it twice".to_owned());
        }
        Ok(())
    }
}

/// Where the state file of a state directory is.
pub fn file(dir: &Path) -> PathBuf {
    dir.join(FILE)
}

/// Reads the state file without a lock: `None` when there is none.
///
/// # Errors
/// [`StateError`] when there is one that cannot be used.
pub fn read(dir: &Path) -> Result<Option<State>, StateError> {
    let path = file(dir);
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(IoError::when("open", &path)(e).into()),
    };
    check_permissions(dir)?;
    check_permissions(&path)?;
    let mut text = Vec::new();
    file.read_to_end(&mut text).map_err(IoError::when("read", &path))?;
    let damaged = |reason: String| StateError::Damaged { path: path.clone(), reason };
    let value: serde_json::Value = serde_json::from_slice(&text).map_err(|e| damaged(e.to_string()))?;
    match value.get("version").and_then(serde_json::Value::as_u64) {
        Some(version) if version > u64::from(VERSION) => return Err(StateError::Newer { path: path.clone(), version }),
        Some(version) if version >= 1 => {}
        Some(_) | None => return Err(damaged("it has no format version".to_owned())),
    }
    let is_sealed = check_seal(&text, &value).map_err(damaged)?;
    let state = match from_value(value) {
        Ok(state) => state,
        // as it was written, so it is this release that lacks something
        Err(reason) if is_sealed => return Err(StateError::Later { path: path.clone(), reason }),
        Err(reason) => return Err(damaged(reason)),
    };
    state.consistent().map_err(damaged)?;
    Ok(Some(state))
}

/// What is in the file: the state and, so that it stays legible, its checksum in the same object.
#[derive(Debug, Serialize)]
struct Sealed<'a> {
    #[serde(flatten)]
    state: &'a State,
    sha256: String,
}

/// Checks the checksum of a state file, as its bytes stand: neither what this release knows of the format nor how a library
/// prints JSON may make a file damaged that is not. Returns whether it has one: version 1 has none, nor has a file that was
/// edited.
fn check_seal(text: &[u8], value: &serde_json::Value) -> Result<bool, String> {
    let Some(recorded) = value.get("sha256") else { return Ok(false) };
    let recorded = recorded.as_str().unwrap_or_default();
    let compact = without_whitespace(text);
    let Some(body) = compact.strip_suffix(format!(",\"sha256\":\"{recorded}\"}}").as_bytes()) else {
        return Err("its last field is not 'sha256', so another program, 'jq' say, has rewritten it; if you trust what it says now, remove the field 'sha256'".to_owned());
    };
    // a flipped bit must not make one volume out of another
    if sha256_hex(&[body, b"}"]) != recorded {
        return Err("its checksum is wrong; if you have edited it, remove the field 'sha256'".to_owned());
    }
    Ok(true)
}

/// JSON without the whitespace between its tokens.
fn without_whitespace(json: &[u8]) -> Vec<u8> {
    let (mut in_string, mut escaped) = (false, false);
    let mut keep = |byte: &u8| {
        let kept = in_string || !byte.is_ascii_whitespace();
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ => {}
        }
        kept
    };
    json.iter().copied().filter(|byte| keep(byte)).collect()
}

fn from_value(mut value: serde_json::Value) -> Result<State, String> {
    if let Some(fields) = value.as_object_mut() {
        fields.remove("sha256");
    }
    let mut state: State = serde_json::from_value(value).map_err(|e| e.to_string())?;
    state.version = VERSION;
    Ok(state)
}

fn check_permissions(path: &Path) -> Result<(), StateError> {
    let metadata = fs::symlink_metadata(path).map_err(IoError::when("examine", path))?;
    let owner = nix::unistd::geteuid().as_raw();
    match objection(&metadata, owner) {
        Some(reason) => Err(StateError::Permissions { path: path.into(), reason, owner }),
        None => Ok(()),
    }
}

/// The state directory, locked: the only way to write.
///
/// The lock is on the directory itself, which only root can open, and which is made before anything else is done. A run that
/// has nothing to keep in the end takes away what it has made.
#[derive(Debug)]
pub struct StateDir {
    dir: PathBuf,
    lock: File,
    is_new: bool,
}

impl StateDir {
    /// Locks a state directory that must hold a state file.
    ///
    /// # Errors
    /// [`StateError::NeverProvisioned`], [`StateError::Locked`], or what the system says.
    pub fn open(dir: &Path) -> Result<Self, StateError> {
        let path = file(dir);
        let exists = |path: &Path| path.try_exists().map_err(IoError::when("examine", path));
        if !exists(dir)? {
            return Err(StateError::NeverProvisioned { path });
        }
        // the file may be about to be made
        let locked = Self::lock(dir, false)?;
        if exists(&path)? { Ok(locked) } else { Err(StateError::NeverProvisioned { path }) }
    }

    /// Locks a state directory, which is made if it is not there. One that a reboot empties is good for the volumes that are in its
    /// state file, and no place for a new one.
    ///
    /// # Errors
    /// [`StateError::Locked`], [`StateError::InMemory`], or what the system says.
    pub fn create(dir: &Path) -> Result<Self, StateError> {
        let base = nearest_existing(dir)?;
        match in_memory(&Roots::host(), dir) {
            Ok(None) => {}
            Ok(Some(on)) if file(dir).exists() => tracing::warn!(
                "state.dir {} is in memory: it lies on {on}; known volumes are opened, and a reboot loses whatever else is recorded: choose a directory on the boot volume",
                dir.display()
            ),
            Ok(Some(on)) => return Err(StateError::InMemory { path: dir.into(), on }),
            // then the boot disk cannot be resolved either, and nothing is formatted
            Err(reason) => tracing::warn!("what state.dir {} lies on is not known: {reason}", dir.display()),
        }
        check_permissions(base)?;
        if base != dir {
            DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(IoError::when("make", dir))?;
            for ancestor in dir.ancestors().skip(1).take_while(|path| path.starts_with(base)) {
                sync_dir(ancestor)?;
            }
        }
        Self::lock(dir, base != dir)
    }

    fn lock(dir: &Path, is_new: bool) -> Result<Self, StateError> {
        check_permissions(dir)?;
        let lock = lock_dir(dir)?;
        Ok(Self { dir: dir.to_owned(), lock, is_new })
    }

    /// The state, or an empty one when nothing was ever saved.
    ///
    /// # Errors
    /// As [`read`].
    pub fn load(&self) -> Result<State, StateError> {
        Ok(read(&self.dir)?.unwrap_or_default())
    }

    /// Replaces the state file durably, and reads it back.
    ///
    /// # Errors
    /// [`StateError::Io`]; then the old file is still there. [`StateError::Damaged`] if what is read back differs.
    pub fn save(&self, state: &State) -> Result<(), StateError> {
        if fs::symlink_metadata(&self.dir).is_ok_and(|now| !is_same(&self.lock, &now)) {
            return Err(StateError::Replaced { path: self.dir.clone() });
        }
        let temporary = self.dir.join(TEMPORARY);
        let path = file(&self.dir);
        let body = serde_json::to_vec_pretty(state).map(|text| sha256_hex(&[&without_whitespace(&text)]));
        let text = body.and_then(|sha256| serde_json::to_vec_pretty(&Sealed { state, sha256 }));
        let mut text = text.map_err(|e| IoError::when("encode", &path)(e.into()))?;
        text.push(b'\n');
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(&temporary)
            .map_err(IoError::when("make", &temporary))?;
        file.write_all(&text).map_err(IoError::when("write", &temporary))?;
        file.sync_all().map_err(IoError::when("sync", &temporary))?;
        fs::rename(&temporary, &path).map_err(IoError::when("replace", &path))?;
        sync_dir(&self.dir)?;
        self.holds(state)
    }

    /// Checks that the state file is what was written.
    fn holds(&self, state: &State) -> Result<(), StateError> {
        match read(&self.dir)? {
            Some(found) if found == *state => Ok(()),
            Some(_) | None => Err(StateError::Damaged {
                path: file(&self.dir),
                reason: "what was read back is not what was written".to_owned(),
            }),
        }
    }
}

impl Drop for StateDir {
    fn drop(&mut self) {
        if self.is_new {
            // not if there is anything in it; with the lock, so that nobody else is in it
            let _ = fs::remove_dir(&self.dir);
        }
        // to close it is not enough: a child that was forked and has not come to exec yet has the lock as well
        let _ = self.lock.unlock();
    }
}

fn nearest_existing(dir: &Path) -> Result<&Path, StateError> {
    for path in dir.ancestors() {
        match path.try_exists() {
            Ok(true) => return Ok(path),
            Ok(false) => {}
            Err(e) => return Err(IoError::when("examine", path)(e).into()),
        }
    }
    Ok(Path::new("/"))
}

fn lock_dir(dir: &Path) -> Result<File, StateError> {
    let io = |action| IoError::when(action, dir);
    loop {
        let file = File::open(dir).map_err(io("open"))?;
        // whoever can open it can lock it, and keep the agent from its work
        let mode = file.metadata().map_err(io("examine"))?.mode();
        if mode & 0o077 != 0 {
            if !holds_state_only(dir).map_err(io("list"))? {
                tracing::warn!("others can lock {}: give state.dir a directory of its own", dir.display());
            } else if let Err(e) = file.set_permissions(Permissions::from_mode(0o700)) {
                tracing::warn!("others can lock {}: its mode cannot be changed to 0700: {e}", dir.display());
            }
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let waited = Duration::ZERO;
                return Err(StateError::Locked { path: dir.into(), holder: holder_of(&file), waited });
            }
            Err(TryLockError::Error(e)) => return Err(io("lock")(e).into()),
        }
        // the holder may have taken it away, and another may be in its place
        match fs::symlink_metadata(dir) {
            Ok(now) if is_same(&file, &now) => return Ok(file),
            Ok(_) => {}
            Err(e) => return Err(io("examine")(e).into()),
        }
    }
}

/// Whether nothing but the state file is in a directory, which is then not needed by anybody else.
fn holds_state_only(dir: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        if name != FILE && name != TEMPORARY {
            return Ok(false);
        }
    }
    Ok(true)
}

fn is_same(file: &File, now: &Metadata) -> bool {
    file.metadata().is_ok_and(|locked| (locked.dev(), locked.ino()) == (now.dev(), now.ino()))
}

/// Who holds the lock on a file: `/proc/locks` has lines like `1: FLOCK  ADVISORY  WRITE 4711 fe:01:1234 0 EOF`.
fn holder_of(file: &File) -> String {
    // on an overlay `stat` can give another number than the one in `/proc/locks`
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd())).unwrap_or_default();
    let inode = info.lines().find_map(|line| line.strip_prefix("ino:")).map(|ino| ino.trim().to_owned());
    let inode = inode.or_else(|| Some(file.metadata().ok()?.ino().to_string())).unwrap_or_default();
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    let pid = locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, _, pid, file, ..] = fields.as_slice() else { return None };
        (file.rsplit(':').next() == Some(inode.as_str())).then(|| (*pid).to_owned())
    });
    let Some(pid) = pid else { return "a process that cannot be seen from here".to_owned() };
    let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    format!("pid {pid} ({})", command.trim_end_matches('\0').replace('\0', " ").escape_debug())
}

fn sync_dir(dir: &Path) -> Result<(), StateError> {
    let synced = File::open(dir).and_then(|d| d.sync_all());
    Ok(synced.map_err(IoError::when("sync", dir))?)
}

#[cfg(test)]
impl State {
    /// A node with one volume, `vol0`, that holds data.
    pub(crate) fn sample() -> Self {
        use crate::luks2::{Cipher, Flags, Layout};

        Self {
            version: VERSION,
            instance_id: Some("i-0".into()),
            keys: vec![KeyRecord {
                id: 1,
                wrapped_key: WrappedKey::new(vec![1, 2, 3]).unwrap(),
                configured_key_id: "alias/nodes".into(),
                key_arn: "arn:aws:kms:us-east-1:111122223333:key/1".into(),
                created: "2026-01-02T03:04:05Z".parse().unwrap(),
            }],
            volumes: vec![VolumeRecord {
                luks_uuid: Uuid::from_u128(7),
                key: 1,
                serial: Some("vol0".into()),
                device: "nvme1n1".into(),
                role: VolumeRole::Ebs,
                size: 1 << 30,
                mount_point: Some("/mnt".into()),
                filesystem: FilesystemKind::Xfs,
                header: HeaderPolicy::Recorded(Layout {
                    cipher: Cipher::AesXtsPlain64,
                    key_size: 512,
                    sector_size: 4096,
                    flags: Flags { discards: true, ..Flags::default() },
                }),
                phase: Phase::Committed,
                keyslot: Some(ProvenKeyslot { number: 0, sha256: "0123456789abcdef".repeat(4) }),
                former_serials: Vec::new(),
            }],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::IoError;

    fn dir() -> tempfile::TempDir {
        // not /tmp, which may be in memory, and such a state directory is refused
        let target = concat!(env!("CARGO_MANIFEST_DIR"), "/target");
        fs::create_dir_all(target).unwrap();
        tempfile::tempdir_in(target).unwrap()
    }

    #[test]
    fn what_is_saved_is_read_back() {
        let tmp = dir();
        let path = tmp.path().join("a/b");
        assert_eq!(read(&path).unwrap(), None);
        let store = StateDir::create(&path).unwrap();
        assert_eq!(store.load().unwrap(), State::default());
        store.save(&State::sample()).unwrap();
        assert_eq!(store.load().unwrap(), State::sample());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
        assert_eq!(fs::metadata(path.join(FILE)).unwrap().mode() & 0o7777, 0o600);
        // what a disk that lies, or another writer, would leave there
        assert!(store.holds(&State::sample()).is_ok());
        assert!(store.holds(&State::default()).is_err());
        fs::remove_file(path.join(FILE)).unwrap();
        assert!(store.holds(&State::sample()).is_err());
    }

    #[test]
    fn only_one_agent_at_a_time() {
        let tmp = dir();
        let path = tmp.path().join("state");
        for dir_exists in [false, true] {
            let first = StateDir::create(&path).unwrap();
            let message = StateDir::create(&path).unwrap_err().to_string();
            assert!(message.contains(&format!("pid {} (", std::process::id())), "{dir_exists}: {message}");
            // not "never provisioned": the first one may be about to do it
            assert!(matches!(StateDir::open(&path), Err(StateError::Locked { .. })), "{dir_exists}");
            first.save(&State::sample()).unwrap();
            assert!(matches!(StateDir::create(&path), Err(StateError::Locked { .. })), "{dir_exists}");
            drop(first);
        }
        StateDir::create(&path).unwrap();
    }

    #[test]
    fn a_run_that_has_nothing_to_keep_leaves_no_directory_and_one_that_finds_one_leaves_that() {
        let tmp = dir();
        let path = tmp.path().join("state");
        drop(StateDir::create(&path).unwrap());
        assert!(!path.exists());
        fs::create_dir(&path).unwrap();
        drop(StateDir::create(&path).unwrap());
        assert!(path.exists());
    }

    #[test]
    fn nobody_else_can_open_what_is_locked() {
        let tmp = dir();
        let path = tmp.path().join("state");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        let store = StateDir::create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
        store.save(&State::sample()).unwrap();
    }

    #[test]
    fn a_directory_with_what_is_not_the_agents_stays_open_to_others() {
        let tmp = dir();
        fs::set_permissions(tmp.path(), Permissions::from_mode(0o755)).unwrap();
        fs::write(tmp.path().join("passwd"), "").unwrap();
        let store = StateDir::create(tmp.path()).unwrap();
        store.save(&State::sample()).unwrap();
        assert_eq!(fs::metadata(tmp.path()).unwrap().mode() & 0o7777, 0o755);
    }

    #[test]
    fn nothing_is_saved_into_a_directory_that_is_not_the_locked_one() {
        let tmp = dir();
        let path = tmp.path().join("state");
        let store = StateDir::create(&path).unwrap();
        fs::rename(&path, tmp.path().join("away")).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(matches!(store.save(&State::sample()), Err(StateError::Replaced { .. })));
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
    }

    #[test]
    fn a_node_that_was_never_provisioned_is_told_so_and_left_as_it_is() {
        let tmp = dir();
        let path = tmp.path().join("state");
        let message = StateDir::open(&path).unwrap_err().to_string();
        assert!(message.contains("run 'luks-agent provision' first"), "{message}");
        assert!(!path.exists());
    }

    #[test]
    fn every_truncation_is_damage_and_a_torn_temporary_file_is_nothing() {
        let tmp = dir();
        let store = StateDir::create(tmp.path()).unwrap();
        store.save(&State::sample()).unwrap();
        let whole = fs::read(tmp.path().join(FILE)).unwrap();
        fs::write(tmp.path().join(TEMPORARY), &whole[..9]).unwrap();
        assert_eq!(store.load().unwrap(), State::sample());
        for length in 0..whole.len() - 1 {
            fs::write(tmp.path().join(FILE), &whole[..length]).unwrap();
            assert!(matches!(store.load(), Err(StateError::Damaged { .. })), "{length}");
        }
    }

    #[test]
    fn a_flipped_bit_is_damage_or_means_nothing() {
        let tmp = dir();
        let store = StateDir::create(tmp.path()).unwrap();
        store.save(&State::sample()).unwrap();
        let whole = fs::read(tmp.path().join(FILE)).unwrap();
        for bit in 0..(whole.len() - 1) * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(tmp.path().join(FILE), flipped).unwrap();
            match store.load() {
                Err(StateError::Damaged { .. } | StateError::Newer { .. }) => {}
                // a letter's case may mean nothing, as in a time of day
                Ok(same) => assert_eq!(same, State::sample(), "bit {bit}"),
                Err(e) => panic!("bit {bit}: {e}"),
            }
        }
    }

    const VERSION_1: &str = include_str!("../../tests/fixtures/state/version-1.json");
    const VERSION_2: &str = include_str!("../../tests/fixtures/state/version-2.json");
    const VERSION_3: &str = include_str!("../../tests/fixtures/state/version-3.json");

    /// As the releases wrote them.
    #[test]
    fn files_of_every_format_version_are_read_and_what_is_read_is_written_in_the_latest() {
        let tmp = dir();
        let store = StateDir::create(tmp.path()).unwrap();
        for (text, instance, keys, volumes) in [
            // without layouts: its volumes are held to the first policy
            (
                VERSION_1,
                None,
                1,
                [(1, VolumeRole::Ebs, Phase::Committed), (1, VolumeRole::InstanceStore, Phase::Intent)],
            ),
            (
                VERSION_2,
                Some("i-1234567890abcdef0"),
                2,
                [(1, VolumeRole::Ebs, Phase::Committed), (2, VolumeRole::InstanceStore, Phase::Intent)],
            ),
            (
                VERSION_3,
                Some("i-1234567890abcdef0"),
                2,
                [(1, VolumeRole::Ebs, Phase::Committed), (2, VolumeRole::InstanceStore, Phase::Intent)],
            ),
        ] {
            fs::write(tmp.path().join(FILE), text).unwrap();
            let state = store.load().unwrap();
            assert_eq!((state.instance_id.as_deref(), state.keys.len()), (instance, keys));
            let found: Vec<_> = state.volumes.iter().map(|v| (v.key, v.role, v.phase)).collect();
            assert_eq!(found, volumes);
            assert_eq!(state.volumes[0].header, HeaderPolicy::Possible);
            assert_eq!(state.volumes[0].keyslot.is_some(), text == VERSION_3);
            store.save(&state).unwrap();
            assert_eq!(store.load().unwrap(), state);
        }
        // byte for byte: other releases must be able to check it
        assert_eq!(fs::read_to_string(tmp.path().join(FILE)).unwrap(), VERSION_3);
    }

    #[test]
    fn the_checksum_is_that_of_the_bytes_however_they_are_put() {
        let tmp = dir();
        let store = StateDir::create(tmp.path()).unwrap();
        let path = tmp.path().join(FILE);
        fs::write(&path, VERSION_2).unwrap();
        let state = store.load().unwrap();
        fs::write(&path, include_str!("../../tests/fixtures/state/version-2-reordered.json")).unwrap();
        assert_eq!(store.load().unwrap(), state);
        fs::write(&path, without_whitespace(VERSION_2.as_bytes())).unwrap();
        assert_eq!(store.load().unwrap(), state);
        // in a string it is no whitespace between tokens
        let quoted = br#"{ "a\\" : "b \" : c", "d": [1, 2] }"#;
        assert_eq!(without_whitespace(quoted), br#"{"a\\":"b \" : c","d":[1,2]}"#);
    }

    #[test]
    fn a_file_that_another_program_has_rewritten_is_read_without_its_checksum_and_not_with_it() {
        let tmp = dir();
        let store = StateDir::create(tmp.path()).unwrap();
        let path = tmp.path().join(FILE);
        // in the order of their names, as 'jq -S' puts the fields
        let mut sorted: serde_json::Value = serde_json::from_str(VERSION_3).unwrap();
        fs::write(&path, sorted.to_string()).unwrap();
        let message = store.load().unwrap_err().to_string();
        assert!(message.contains("is damaged: its last field is not 'sha256'"), "{message}");
        assert!(message.contains("remove the field 'sha256'"), "{message}");
        sorted.as_object_mut().unwrap().remove("sha256").unwrap();
        fs::write(&path, sorted.to_string()).unwrap();
        let state = store.load().unwrap();
        fs::write(&path, VERSION_3).unwrap();
        assert_eq!(store.load().unwrap(), state);
    }

    #[test]
    fn a_field_of_a_later_release_is_told_from_damage() {
        let tmp = dir();
        let store = StateDir::create(tmp.path()).unwrap();
        let path = tmp.path().join(FILE);
        let later = include_str!("../../tests/fixtures/state/version-3-later.json");
        fs::write(&path, later).unwrap();
        let message = store.load().unwrap_err().to_string();
        assert!(message.contains("a later luks-agent wrote it: unknown field `verified`"), "{message}");
        assert!(message.contains("install the release that wrote it"), "{message}");
        // without a checksum that is right, nobody knows who wrote it
        fs::write(&path, later.replace("verified", "verifier")).unwrap();
        assert!(matches!(store.load(), Err(StateError::Damaged { .. })));
        let mut edited: serde_json::Value = serde_json::from_str(later).unwrap();
        edited.as_object_mut().unwrap().remove("sha256").unwrap();
        fs::write(&path, edited.to_string()).unwrap();
        assert!(matches!(store.load(), Err(StateError::Damaged { .. })));
    }

    #[test]
    fn a_record_is_for_the_disk_with_its_serial_number_or_without_one_for_the_name() {
        let mut record = State::sample().volumes.remove(0);
        let named = DeviceFacts::sample("nvme1n1", 1);
        let numbered = DeviceFacts { serial: Some("vol0".into()), ..DeviceFacts::sample("nvme9n1", 9) };
        assert_eq!(
            (record.identity().as_str(), record.is_for(&numbered), record.is_for(&named)),
            ("vol0", true, false)
        );
        record.serial = None;
        assert_eq!((record.identity().as_str(), record.is_for(&named)), ("name:nvme1n1", true));
        assert!(!record.is_for(&numbered));
    }

    #[test]
    fn what_is_expected_of_a_header_is_what_was_recorded() {
        let state = State::sample();
        let expected = state.expected(Uuid::from_u128(7)).unwrap();
        assert_eq!(expected.luks_uuid, Uuid::from_u128(7));
        assert_eq!(expected.header, state.volumes[0].header);
        assert_eq!(expected.wrapped_key, state.keys[0].wrapped_key);
        assert_eq!(expected.key_arn, state.keys[0].key_arn);
        assert_eq!(state.expected(Uuid::from_u128(8)), None);
    }

    /// Loads this state as a file that was edited by hand.
    fn load(state: &State) -> Result<State, StateError> {
        let tmp = dir();
        fs::write(tmp.path().join(FILE), serde_json::to_vec(state).unwrap()).unwrap();
        StateDir::create(tmp.path()).unwrap().load()
    }

    #[test]
    fn other_versions_are_refused() {
        let of = |version| load(&State { version, ..State::sample() });
        assert!(matches!(of(VERSION + 1), Err(StateError::Newer { version: 4, .. })));
        assert!(matches!(of(0), Err(StateError::Damaged { .. })));
        assert_eq!(of(1).unwrap(), State::sample());
    }

    #[test]
    fn an_inconsistent_file_is_refused() {
        let mut two = State::sample();
        two.keys.push(KeyRecord { id: 2, ..two.keys[0].clone() });
        two.volumes.push(VolumeRecord { luks_uuid: Uuid::from_u128(8), key: 2, ..two.volumes[0].clone() });
        assert_eq!(load(&two).unwrap(), two);
        let damaged = |state: &State| match load(state) {
            Err(StateError::Damaged { reason, .. }) => reason,
            other => panic!("{other:?}"),
        };
        let mut no_key = two.clone();
        no_key.volumes[1].key = 9;
        assert!(damaged(&no_key).contains("uses key 9, which is not in it"));
        let mut twice = two.clone();
        twice.volumes[1].luks_uuid = twice.volumes[0].luks_uuid;
        assert!(damaged(&twice).contains("is in it twice"));
        two.keys[1].id = 1;
        two.volumes[1].key = 1;
        assert_eq!(damaged(&two), "a key id is in it twice");
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_not_a_file_that_is_not_there() {
        let tmp = dir();
        let path = tmp.path().join(FILE);
        std::os::unix::fs::symlink(FILE, &path).unwrap();
        assert!(matches!(read(tmp.path()), Err(StateError::Io(IoError { action: "open", .. }))));
    }

    #[test]
    fn a_file_that_others_may_write_is_refused() {
        let tmp = dir();
        let store = StateDir::create(tmp.path()).unwrap();
        store.save(&State::sample()).unwrap();
        let path = tmp.path().join(FILE);
        fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        let message = store.load().unwrap_err().to_string();
        assert!(message.contains("has mode 0666"), "{message}");
    }

    #[test]
    fn a_directory_in_memory_is_refused_unless_a_state_file_is_in_it() {
        let shm = Path::new("/dev/shm");
        assert!(shm.is_dir(), "this test needs a tmpfs on /dev/shm");
        let tmp = tempfile::tempdir_in(shm).unwrap();
        let create = || StateDir::create(tmp.path());
        assert!(matches!(create(), Err(StateError::InMemory { .. })));
        // with the volumes of a node in it, which must come back
        fs::write(tmp.path().join(FILE), VERSION_3).unwrap();
        assert_eq!(create().unwrap().load().unwrap().volumes.len(), 2);
    }
}
