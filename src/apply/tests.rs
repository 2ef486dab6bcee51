//! The order of keys, state file and disks, and every place where it can be cut, against a model of disks and of KMS.

mod crash;
mod erase;
mod growing;
mod order;
mod rekey;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tokio::sync::Notify;
use uuid::Uuid;

use super::*;
use crate::config::Config;
use crate::disk::{Content, DeviceFacts, Evidence, Holder, Inventory, MODEL_EBS, MODEL_INSTANCE_STORE};
use crate::job::{self, Answer, Basis, Host, HostError, Job};
use crate::key::{DataKey, KeySource, Passphrase, WrappedKey};
use crate::kms::{Class, GeneratedKey, KeyService, KmsError, RewrappedKey};
use crate::luks2::{DATA_OFFSET, Expected, Opened, ProvenKeyslot, Token, VolumeKeyId};
use crate::plan::{Mode, plan};
use crate::state::{self, Phase, State, StateDir};
use crate::storage::FilesystemKind;

const ARN: &str = "arn:aws:kms:us-east-1:111122223333:key/1";
const OTHER_ARN: &str = "arn:aws:kms:us-east-1:111122223333:key/2";

/// What is on a modelled disk.
#[derive(Debug, Clone, PartialEq, Eq)]
enum On {
    Nothing,
    /// Half a header.
    Torn,
    Luks {
        luks_uuid: Uuid,
        passphrase: Vec<u8>,
        /// The passphrase of a second key.
        added: Option<Vec<u8>>,
        open: bool,
        mounts: Vec<PathBuf>,
        /// Mounted once: to format it would be to lose data.
        used: bool,
    },
    Foreign,
}

/// What becomes of a call on a disk, if not what should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Fails,
    Hangs,
    /// Somebody else has put something on it.
    Overwritten,
    /// It cannot be examined.
    Unreadable,
}

/// Where a run is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Before,
    Half,
    After,
}

/// One call, and the state file as it was on disk at that time.
#[derive(Debug)]
struct Call {
    what: String,
    state: Option<State>,
}

/// Sizes in bytes of a disk and of what is on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sizes {
    disk: u64,
    mapping: u64,
    filesystem: u64,
}

impl Sizes {
    /// All of a disk of this size in use.
    fn whole(disk: u64) -> Self {
        Self { disk, mapping: disk - DATA_OFFSET, filesystem: disk - DATA_OFFSET }
    }
}

/// A machine, its disks, and a KMS.
struct World {
    config: Config,
    dir: tempfile::TempDir,
    disks: RefCell<BTreeMap<String, (bool, On)>>,
    faults: BTreeMap<String, Fault>,
    kms_fault: Cell<Option<Class>>,
    /// Whether `Decrypt` gives another key than was wrapped.
    kms_lies: Cell<bool>,
    generated: Cell<u8>,
    calls: RefCell<Vec<Call>>,
    cut: Cell<Option<(usize, Cut)>>,
    crashed: Notify,
    instance_id: RefCell<String>,
    /// Of disks that have grown.
    sizes: RefCell<BTreeMap<String, Sizes>>,
    /// The call at which a file takes the place of the state directory.
    lose_state_dir_at: Option<&'static str>,
}

impl World {
    /// A machine with these blank disks: `ebs1`, `store2` ...
    fn new(disks: &[&str]) -> Self {
        // not /tmp, which may be in memory, and such a state directory is refused
        let target = concat!(env!("CARGO_MANIFEST_DIR"), "/target");
        std::fs::create_dir_all(target).unwrap();
        let disks = disks.iter().map(|name| ((*name).to_owned(), (name.starts_with("ebs"), On::Nothing)));
        Self {
            config: Config::from_text(Path::new("c.toml"), "[kms]\nkey_id = \"alias/nodes\"").unwrap(),
            dir: tempfile::tempdir_in(target).unwrap(),
            disks: RefCell::new(disks.collect()),
            faults: BTreeMap::new(),
            kms_fault: Cell::new(None),
            kms_lies: Cell::new(false),
            generated: Cell::new(0),
            calls: RefCell::default(),
            cut: Cell::new(None),
            crashed: Notify::new(),
            instance_id: RefCell::new("i-1".to_owned()),
            sizes: RefCell::default(),
            lose_state_dir_at: None,
        }
    }

    fn with_fault(mut self, disk: &str, fault: Fault) -> Self {
        self.faults.insert(disk.to_owned(), fault);
        self
    }

    fn attach(&self, disk: &str) {
        self.disks.borrow_mut().insert(disk.to_owned(), (disk.starts_with("ebs"), On::Nothing));
    }

    fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn state(&self) -> State {
        state::read(&self.state_dir()).unwrap().unwrap_or_default()
    }

    fn sizes(&self, disk: &str) -> Sizes {
        self.sizes.borrow().get(disk).copied().unwrap_or_else(|| Sizes::whole(1 << 30))
    }

    /// As discovery and probes would have it.
    fn inventory(&self) -> Inventory {
        let intents = self.state();
        let disks = self.disks.borrow();
        let devices = disks.iter().zip(1..).map(|((name, (ebs, on)), minor)| {
            let model = Some(if *ebs { MODEL_EBS } else { MODEL_INSTANCE_STORE }.to_owned());
            let size = self.sizes(name).disk;
            let serial = Some(name.clone());
            let mut facts = DeviceFacts { model, serial, size, ..DeviceFacts::sample(name, minor) };
            match on {
                On::Nothing => {
                    facts.content = Some(Content::Blank { evidence: Evidence { read: facts.size, of: facts.size } })
                }
                On::Torn if intents.volumes.iter().any(|v| v.phase == Phase::Intent && v.is_for(&facts)) => {
                    facts.content = Some(Content::Unfinished);
                }
                On::Torn => facts.content = Some(Content::Unrecognised { offset: 0 }),
                On::Foreign => facts.content = Some(Content::Foreign { signatures: vec!["ext4".to_owned()] }),
                On::Luks { luks_uuid, open: false, .. } => {
                    let token = Token::new(KeySource::aws_kms(WrappedKey::new(vec![1]).unwrap(), ARN.to_owned()), None);
                    facts.content = Some(Content::Luks2 { luks_uuid: *luks_uuid, token: Some(Box::new(token)) });
                }
                On::Luks { luks_uuid, mounts, .. } => facts.holders.push(Holder {
                    name: format!("dm-{minor}"),
                    dm_name: Some(format!("luks-{luks_uuid}")),
                    dm_uuid: Some(format!("CRYPT-LUKS2-{}-luks-{luks_uuid}", luks_uuid.simple())),
                    size: self.sizes(name).mapping,
                    mounts: mounts.clone(),
                    held: false,
                }),
            }
            facts
        });
        Inventory {
            devices: devices.collect(),
            boot_unresolved: None,
            state_in_memory: None,
            instance_id: None,
            missing_ciphers: Vec::new(),
            with_system_mount: Vec::new(),
            unreadable: Vec::new(),
        }
    }

    /// One run of the agent, from looking at the disks to its outcome. `None` when it was cut.
    async fn run(&self, mode: Mode) -> Option<Outcome> {
        let store = StateDir::create(&self.state_dir()).unwrap();
        let state = store.load().unwrap();
        let plan = plan(mode, &self.config, &state, &self.inventory());
        let instance_id = Some(self.instance_id.borrow().clone());
        let store = matches!(mode, Mode::Provision | Mode::Grow | Mode::Rekey).then_some(&store);
        let apply = Apply { config: &self.config, store, keys: self, host: self, instance_id };
        let crashed = self.crashed.notified();
        tokio::select! {
            biased;
            () = crashed => None,
            outcome = apply.run(&plan, state) => Some(outcome),
        }
    }

    async fn provision(&self) -> Outcome {
        self.run(Mode::Provision).await.expect("a run that is not cut")
    }

    fn reboot(&self) {
        for (_, on) in self.disks.borrow_mut().values_mut() {
            if let On::Luks { open, mounts, .. } = on {
                *open = false;
                mounts.clear();
            }
        }
        // a mapping is as large as the disk when it is made
        for sizes in self.sizes.borrow_mut().values_mut() {
            sizes.mapping = Sizes::whole(sizes.disk).mapping;
        }
    }

    /// What was asked, in order; the log is empty after that.
    fn calls(&self) -> Vec<String> {
        self.calls.take().into_iter().map(|call| call.what).collect()
    }

    fn mounted(&self) -> Vec<(String, PathBuf)> {
        let disks = self.disks.borrow();
        let on = |(name, (_, on)): (&String, &(bool, On))| match on {
            On::Luks { mounts, .. } => mounts.first().map(|at| (name.clone(), at.clone())),
            On::Nothing | On::Torn | On::Foreign => None,
        };
        disks.iter().filter_map(on).collect()
    }

    /// Whether the run is cut here; then it never comes back.
    async fn call(&self, what: String) -> Option<Cut> {
        if self.lose_state_dir_at == Some(what.as_str()) {
            let _ = std::fs::remove_dir_all(self.state_dir());
            std::fs::write(self.state_dir(), "in the way").unwrap();
        }
        let state = state::read(&self.state_dir()).ok().flatten();
        self.calls.borrow_mut().push(Call { what, state });
        let number = self.calls.borrow().len();
        tokio::task::yield_now().await;
        match self.cut.get() {
            Some((at, cut)) if at == number => {
                if cut == Cut::Before {
                    self.crash().await;
                }
                Some(cut)
            }
            Some(_) | None => None,
        }
    }

    async fn crash(&self) {
        self.crashed.notify_waiters();
        std::future::pending::<()>().await;
    }

    fn data_key(id: u8) -> DataKey {
        DataKey::from_slice(&[id; 32]).unwrap()
    }

    fn perform(&self, device: &str, job: Job, keys: &[&Passphrase], half: bool) -> Answer {
        let key = keys.first();
        let mut disks = self.disks.borrow_mut();
        let on = &mut disks.get_mut(device).expect("a disk").1;
        match job {
            Job::Format(job::Format { basis, spec, .. }) => {
                if let On::Luks { used, .. } = on {
                    assert!(!*used, "{device} holds data");
                }
                match (&basis, &*on) {
                    (_, On::Nothing) | (Basis::Unfinished { .. }, On::Torn) => {}
                    (Basis::Unfinished { luks_uuid: begun }, On::Luks { luks_uuid, .. }) if begun == luks_uuid => {}
                    (_, On::Torn | On::Luks { .. } | On::Foreign) => {
                        return Answer::Changed { content: Content::Unrecognised { offset: 0 } };
                    }
                }
                let passphrase = key.expect("a passphrase").expose().to_vec();
                let (luks_uuid, mounts) = (spec.expected.luks_uuid, Vec::new());
                *on = match half {
                    true => On::Torn,
                    false => On::Luks { luks_uuid, passphrase, added: None, open: true, mounts, used: false },
                };
                Answer::Formatted { opened: opened(luks_uuid) }
            }
            Job::Unlock(job::Unlock { expected: Expected { luks_uuid, .. }, open: is_open, mount, .. }) => {
                let On::Luks { luks_uuid: found, passphrase, added, open, mounts, used } = on else {
                    panic!("{device} is no LUKS volume: {on:?}")
                };
                assert_eq!((*found, *open), (luks_uuid, is_open), "{device}");
                if !is_open {
                    let key = key.expect("a passphrase").expose();
                    assert!(key == passphrase || added.as_deref() == Some(key), "{device}");
                }
                *open = true;
                if let Some(mount) = mount.filter(|_| !half) {
                    let committed = self.state().volume(luks_uuid).map(|v| v.phase);
                    assert_eq!(committed, Some(Phase::Committed), "{device} is mounted before it is recorded");
                    assert!(mounts.is_empty(), "{device} is mounted twice");
                    mounts.push(mount.at);
                    *used = true;
                }
                let opened = (!is_open).then(|| opened(luks_uuid));
                Answer::Unlocked { opened, filesystem_errors: false, warning: None }
            }
            Job::Grow(job::Grow { expected, mapping, filesystem, mount_point, target, .. }) => {
                let On::Luks { luks_uuid, passphrase, open: true, mounts, .. } = on else { panic!("{device}: {on:?}") };
                assert_eq!(*luks_uuid, expected.luks_uuid, "{device}");
                let before = self.sizes(device);
                assert_eq!(target.size, before.disk, "{device}");
                let mut sizes = before;
                if mapping {
                    assert_eq!(key.expect("a passphrase").expose(), passphrase, "{device}");
                    sizes.mapping = Sizes::whole(sizes.disk).mapping;
                }
                if !half && filesystem != FilesystemKind::None {
                    assert_eq!(mount_point.as_ref(), mounts.first(), "{device}");
                    sizes.filesystem = sizes.mapping;
                }
                self.sizes.borrow_mut().insert(device.to_owned(), sizes);
                if sizes == before { Answer::Unchanged } else { Answer::Grown }
            }
            Job::AddKey(_) | Job::RemoveKey(_) => change_key(on, &job, keys, half),
            Job::Erase(job::Erase { luks_uuid, .. }) => {
                let phase = self.state().volume(luks_uuid).map(|v| v.phase);
                assert_eq!(phase, Some(Phase::Erasing), "{device} is erased before that is recorded");
                if *on == On::Foreign {
                    return Answer::Untouched { message: "somebody uses it".to_owned() };
                }
                *on = if half { On::Torn } else { On::Nothing };
                Answer::Erased { overwritten: Vec::new() }
            }
            Job::Probe { .. }
            | Job::Header { .. }
            | Job::Check(_)
            | Job::Audit(_)
            | Job::Cipher { .. }
            | Job::Close { .. }
            | Job::Adopt(_)
            | Job::Verify(_)
            | Job::Reencrypt(_)
            | Job::ShowHeader { .. }
            | Job::BackUpHeader(_)
            | Job::InspectBackup(_)
            | Job::RestoreHeader(_)
            | Job::EnrollRecovery(_)
            | Job::RemoveRecovery(_) => panic!("apply does not ask for that"),
        }
    }
}

/// Gives the volume another key or takes it away; half of that is nothing.
fn change_key(on: &mut On, job: &Job, keys: &[&Passphrase], half: bool) -> Answer {
    let On::Luks { passphrase, added, .. } = on else { panic!("no LUKS volume: {on:?}") };
    let keys: Vec<Vec<u8>> = keys.iter().map(|key| key.expose().to_vec()).collect();
    assert!(keys[0] == *passphrase || Some(&keys[0]) == added.as_ref(), "the key does not open it");
    let slot = |key: &Vec<u8>| ProvenKeyslot { number: 0, sha256: String::from_utf8(key.clone()).unwrap() };
    if let Job::RemoveKey(job::RemoveKey { keyslot, .. }) = job {
        assert!(*keyslot != slot(&keys[0]) || added.is_none(), "the keyslot that stays would go");
        if !half {
            (*passphrase, *added) = (keys[0].clone(), None);
        }
        return Answer::KeyRemoved { left: None };
    }
    if !half && keys[1] != *passphrase {
        *added = Some(keys[1].clone());
    }
    Answer::KeyAdded { own: slot(&keys[0]), added: slot(&keys[1]) }
}

/// The keyslot and the volume key of a volume: others for each.
fn opened(luks_uuid: Uuid) -> Opened {
    let keyslot = ProvenKeyslot { number: 0, sha256: luks_uuid.to_string() };
    Opened { keyslot, volume_key: Some(VolumeKeyId(luks_uuid.simple().to_string())) }
}

impl Host for World {
    async fn run(&self, device: &str, job: Job, keys: &[&Passphrase]) -> Result<Answer, HostError> {
        let what = match &job {
            Job::Format(_) => "format",
            Job::Unlock(job::Unlock { open: true, .. }) => "mount",
            Job::Unlock(_) => "unlock",
            Job::Grow(_) => "grow",
            Job::AddKey(_) => "add key to",
            Job::RemoveKey(_) => "remove key from",
            Job::Erase(_) => "erase",
            Job::Probe { .. }
            | Job::Header { .. }
            | Job::Check(_)
            | Job::Audit(_)
            | Job::Cipher { .. }
            | Job::Close { .. }
            | Job::Adopt(_)
            | Job::Reencrypt(_)
            | Job::Verify(_)
            | Job::ShowHeader { .. }
            | Job::BackUpHeader(_)
            | Job::InspectBackup(_)
            | Job::RestoreHeader(_)
            | Job::EnrollRecovery(_)
            | Job::RemoveRecovery(_) => "something else",
        };
        let cut = self.call(format!("{what} {device}")).await;
        match self.faults.get(device) {
            Some(Fault::Fails) => return Ok(Answer::Failed { message: "it is broken".to_owned() }),
            Some(Fault::Hangs) => {
                let after = std::time::Duration::from_secs(60);
                return Err(HostError::Hung { after, stage: "formatting".to_owned(), pid: 7, was_killed: true });
            }
            Some(Fault::Overwritten) => {
                self.disks.borrow_mut().get_mut(device).unwrap().1 = On::Foreign;
            }
            Some(Fault::Unreadable) => {
                return Ok(Answer::Changed { content: Content::Unknown { reason: "it is in use".to_owned() } });
            }
            None => {}
        }
        let answer = self.perform(device, job, keys, cut == Some(Cut::Half));
        if cut.is_some() {
            self.crash().await;
        }
        Ok(answer)
    }
}

impl KeyService for World {
    async fn generate(&self) -> Result<GeneratedKey, KmsError> {
        let cut = self.call("generate".to_owned()).await;
        if let Some(class) = self.kms_fault.get() {
            return Err(KmsError::of_class(class));
        }
        let id = self.generated.get() + 1;
        self.generated.set(id);
        if cut.is_some() {
            self.crash().await;
        }
        let wrapped_key = WrappedKey::new(vec![id]).unwrap();
        Ok(GeneratedKey {
            data_key: Self::data_key(id),
            provider: self.config.keys.provider,
            wrapped_key,
            key_arn: ARN.to_owned(),
        })
    }

    async fn unwrap(&self, source: &KeySource) -> Result<DataKey, KmsError> {
        let (wrapped, key_id) = (&source.wrapped_key, source.key_arn.as_str());
        assert!([ARN, OTHER_ARN].contains(&key_id), "{key_id}");
        let cut = self.call(format!("unwrap {}", wrapped.as_bytes()[0])).await;
        if cut.is_some() {
            self.crash().await;
        }
        match (self.kms_fault.get(), self.kms_lies.get()) {
            (Some(class), _) => Err(KmsError::of_class(class)),
            (None, true) => Ok(Self::data_key(200 + u8::try_from(wrapped.as_bytes().len()).unwrap())),
            (None, false) => Ok(Self::data_key(wrapped.as_bytes()[0])),
        }
    }

    async fn rewrap(&self, source: &KeySource, to: &str) -> Result<RewrappedKey, KmsError> {
        let (wrapped, key_id) = (&source.wrapped_key, &source.key_arn);
        let id = wrapped.as_bytes()[0];
        let cut = self.call(format!("rewrap {id} from {key_id} to {to}")).await;
        if let Some(class) = self.kms_fault.get() {
            return Err(KmsError::of_class(class));
        }
        if cut.is_some() {
            self.crash().await;
        }
        // the first byte says which data key it is, the others by which KMS key it is wrapped
        let wrapped_key = WrappedKey::new([&[id], to.as_bytes()].concat()).unwrap();
        Ok(RewrappedKey { wrapped_key, key_arn: to.to_owned() })
    }
}
