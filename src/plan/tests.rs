//! Every way to a step, a refusal, or nothing; then properties over disks and state files made up at random.

mod growing;
mod leaving;
mod properties;
mod table;

use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::*;
use crate::config::Config;
use crate::disk::{
    Bytes, Content, DevNo, DeviceFacts, DiskKind, Evidence, Holder, Inventory, MODEL_INSTANCE_STORE, MissingCipher,
    NoiseEvidence,
};
use crate::key::{KeySource, Provider, WrappedKey};
use crate::luks2::{Cipher, DATA_OFFSET, Encryption, Flags, HeaderPolicy, Layout, ProvenKeyslot, Token};
use crate::state::{KeyChange, KeyRecord, Phase, State, VolumeRecord, VolumeRole};
use crate::storage::FilesystemKind;

const GIB: u64 = 1 << 30;

fn config(more: &str) -> Config {
    Config::from_text(Path::new("config.toml"), &format!("[kms]\nkey_id = \"alias/nodes\"\n{more}")).unwrap()
}

fn wiping() -> Config {
    config("[volumes]\nwhen_not_blank = \"wipe-instance-store\"")
}

/// LUKS UUID of the volume made for disk `n`.
fn id(n: u32) -> Uuid {
    Uuid::from_u128(u128::from(n))
}

fn blank() -> Content {
    Content::Blank { evidence: Evidence { read: GIB, of: GIB } }
}

fn header(n: u32) -> Content {
    // not the key of `state`: a volume that is unknown to it is another node's
    let token =
        Token::new(KeySource::aws_kms(WrappedKey::new(vec![9]).unwrap(), "arn:key".to_owned()), Some("i-1".to_owned()));
    Content::Luks2 { luks_uuid: id(n), token: Some(Box::new(token)) }
}

fn noise() -> Content {
    Content::Noise { offset: 0, evidence: NoiseEvidence { read: GIB, random: GIB / 2, of: GIB } }
}

fn foreign() -> Content {
    Content::Foreign { signatures: vec!["ext4 at byte 1080".to_owned()] }
}

/// The EBS volume `nvme<n>n1` with serial number `vol<n>`, blank.
fn ebs(n: u32) -> DeviceFacts {
    let diskseq = Some(u64::from(n));
    let serial = Some(format!("vol{n}"));
    DeviceFacts { diskseq, serial, content: Some(blank()), ..DeviceFacts::sample(&format!("nvme{n}n1"), n) }
}

/// The instance store volume `nvme<n>n1`, blank.
fn store(n: u32) -> DeviceFacts {
    DeviceFacts { model: Some(MODEL_INSTANCE_STORE.to_owned()), ..ebs(n) }
}

/// The Xen disk of this name, by the block device mapping, blank.
fn xen(name: &str, mapping: &str) -> DeviceFacts {
    DeviceFacts {
        name: name.to_owned(),
        path: Path::new("/dev").join(name),
        kind: DiskKind::Xen,
        model: None,
        serial: None,
        mapping: Some(mapping.to_owned()),
        ..ebs(0)
    }
}

fn with(content: Content, facts: DeviceFacts) -> DeviceFacts {
    DeviceFacts { content: Some(content), ..facts }
}

/// With volume `n` open on it.
fn open(n: u32, mounts: &[&str], facts: DeviceFacts) -> DeviceFacts {
    DeviceFacts { content: None, holders: vec![mapping(n, mounts)], ..facts }
}

fn mapping(n: u32, mounts: &[&str]) -> Holder {
    let name = format!("luks-{}", id(n));
    Holder {
        name: format!("dm-{n}"),
        dm_uuid: Some(format!("CRYPT-LUKS2-{}-{name}", id(n).simple())),
        dm_name: Some(name),
        size: GIB - DATA_OFFSET,
        mounts: mounts.iter().map(PathBuf::from).collect(),
        held: false,
    }
}

/// The record of volume `n`, made for `facts`, mounted at `at`.
fn record(n: u32, phase: Phase, at: &str, facts: &DeviceFacts) -> VolumeRecord {
    let instance_store =
        facts.model.as_deref() == Some(MODEL_INSTANCE_STORE) || facts.mapping.as_deref() == Some("ephemeral0");
    VolumeRecord {
        luks_uuid: id(n),
        key: 1,
        key_change: None,
        volume_key_change: None,
        serial: facts.serial.clone(),
        device: facts.name.clone(),
        role: if instance_store { VolumeRole::InstanceStore } else { VolumeRole::Ebs },
        size: facts.size,
        mount_point: Some(PathBuf::from(at)).filter(|at| at != Path::new("")),
        filesystem: FilesystemKind::Xfs,
        header: HeaderPolicy::Possible,
        phase,
        keyslot: None,
        volume_key: None,
        made: None,
        former_serials: Vec::new(),
    }
}

fn known(n: u32, at: &str, facts: &DeviceFacts) -> VolumeRecord {
    record(n, Phase::Committed, at, facts)
}

fn intent(n: u32, at: &str, facts: &DeviceFacts) -> VolumeRecord {
    record(n, Phase::Intent, at, facts)
}

fn state(volumes: Vec<VolumeRecord>) -> State {
    let key = KeyRecord {
        id: 1,
        provider: Provider::AwsKms,
        wrapped_key: WrappedKey::new(vec![1]).unwrap(),
        configured_key_id: "alias/nodes".to_owned(),
        key_arn: "arn:key".to_owned(),
        created: "2026-01-02T03:04:05Z".parse().unwrap(),
        rewraps: None,
        replaced_by: None,
        adopted: false,
    };
    State { keys: vec![key], volumes, ..State::default() }
}

fn inventory(devices: Vec<DeviceFacts>) -> Inventory {
    Inventory {
        devices,
        boot_unresolved: None,
        state_in_memory: None,
        instance_id: Some("i-here".to_owned()),
        missing_ciphers: Vec::new(),
        with_system_mount: Vec::new(),
        unreadable: Vec::new(),
    }
}

/// A plan, one line a disk, in the order of the disks' names; UUIDs as `#n`.
fn lines(plan: &Plan) -> Vec<String> {
    let at = |path: &Option<PathBuf>| path.as_ref().map_or("nowhere".to_owned(), |path| path.display().to_string());
    let name = |subject: &Subject| subject.device.clone().unwrap_or_else(|| "nobody".to_owned());
    let steps = plan.steps.iter().map(|step| {
        let what = match &step.action {
            Action::Format(Format { resume, basis, mount_point, .. }) => {
                let resume = resume.map_or(String::new(), |uuid| format!(" as {uuid}"));
                format!("format{resume} at {}: {basis}", at(mount_point))
            }
            Action::Unlock(Unlock { luks_uuid, mount_point, is_open, .. }) => {
                format!("{} {luks_uuid} at {}", if *is_open { "mount" } else { "unlock" }, at(mount_point))
            }
            Action::Rekey(Rekey { luks_uuid, key, wanted, .. }) => {
                format!("change key of {luks_uuid} from {key} to {wanted}")
            }
            Action::Grow(Grow { luks_uuid, mount_point, from, grows_mapping, .. }) => {
                let what = if *grows_mapping { "grow" } else { "grow file system of" };
                let size = Bytes(*from);
                format!("{what} {luks_uuid} at {} from {size} to {}", at(mount_point), Bytes(step.device.size))
            }
        };
        format!("{}: {what}", step.device.name)
    });
    let refusals = plan.refusals.iter().map(|r| {
        let verdict = match r.finding.severity {
            Severity::Wrong => "wrong",
            Severity::Refused => "refused",
        };
        format!("{}: {verdict}: {} -> {}", name(&r.subject), r.finding.evidence, r.finding.remedy)
    });
    let left = plan.left.iter().map(|left| {
        let volume = left.volume.as_ref();
        let volume = volume.map_or(String::new(), |v| format!(" {} at {}", v.luks_uuid, at(&v.mount_point)));
        format!("{}: left{volume}: {}", name(&left.subject), left.because)
    });
    let mut lines: Vec<String> = steps.chain(refusals).chain(left).collect();
    lines.sort();
    for line in &mut lines {
        for n in 0..100 {
            *line = line.replace(&id(n).to_string(), &format!("#{n}"));
        }
    }
    lines
}

/// Compares a plan line by line; without disks, with what is said of volumes that are not there.
fn check(
    what: &str,
    mode: Mode,
    config: &Config,
    volumes: Vec<VolumeRecord>,
    devices: Vec<DeviceFacts>,
    expected: &[&str],
) {
    let about_absent = devices.is_empty() || expected.iter().any(|line| line.starts_with("nobody"));
    let plan = plan(mode, config, &state(volumes), &inventory(devices));
    let lines: Vec<_> = lines(&plan).into_iter().filter(|line| about_absent || !line.starts_with("nobody")).collect();
    assert_eq!(lines, expected, "{what}");
    for Refusal { subject, finding: Finding { evidence, remedy, severity: _ }, is_stranger: _ } in &plan.refusals {
        let is_of_a_role = evidence.contains("of at least");
        let is_gone = evidence.contains("is gone, and no blank instance store");
        let named = subject.device.is_some() || subject.serial.is_some() || remedy.contains(" as ");
        assert!(named || is_of_a_role || is_gone, "{what}: {evidence}");
        for text in [evidence, remedy] {
            let capital = text.starts_with(char::is_uppercase) && !text.starts_with("LUKS");
            assert!(!text.is_empty() && !text.ends_with('.') && !capital, "{what}: {text}");
        }
    }
}
