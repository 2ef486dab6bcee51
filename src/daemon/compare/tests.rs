//! A node against what it should be.

use std::path::Path;

use super::*;
use crate::luks2::mapper_name;
use crate::report::Report;

fn config() -> Config {
    Config::from_text(Path::new("config.toml"), "[kms]\nkey_id = \"alias/x\"\n").unwrap()
}

/// The run of a provision that did all it should.
fn done() -> Last {
    Last::of(&Report::new("provision", Vec::new(), String::new()), None)
}

/// A node with the one volume of the sample, mounted or not, open or not.
fn node(open: bool, mounts: &[&str]) -> Picture {
    let state = State::sample();
    let volume = &state.volumes[0];
    let mapper = mapper_name(volume.luks_uuid);
    let mapping = Holder {
        name: "dm-0".to_owned(),
        dm_uuid: Some(format!("CRYPT-LUKS2-{}-{mapper}", volume.luks_uuid.simple())),
        dm_name: Some(mapper),
        size: 1 << 30,
        mounts: mounts.iter().map(Into::into).collect(),
        held: false,
    };
    let holders = if open { vec![mapping] } else { Vec::new() };
    let facts = DeviceFacts { serial: volume.serial.clone(), holders, ..DeviceFacts::sample("nvme1n1", 1) };
    Picture { state, disks: vec![facts], orphans: false }
}

fn seen(picture: &Picture, last: &Last) -> Seen {
    Seen::of(&config(), picture, &[], Some(last), None)
}

fn decided(left: &[&str], refused: &[&str]) -> Last {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Last { decided: Decided { left: names(left), refused: names(refused), ..Decided::default() }, ..done() }
}

#[test]
fn a_volume_is_to_be_open_and_mounted() {
    for (picture, is) in [
        (node(true, &["/mnt"]), VolumeState::Ready),
        (node(true, &["/elsewhere"]), VolumeState::NotMounted),
        (node(true, &[]), VolumeState::NotMounted),
        (node(false, &[]), VolumeState::Locked),
    ] {
        let seen = seen(&picture, &done());
        assert_eq!(seen.volumes, [(Uuid::from_u128(7), is)]);
        assert_eq!((seen.differs, seen.ready), (is != VolumeState::Ready, is == VolumeState::Ready), "{is:?}");
    }
    let mut unfinished = node(true, &[]);
    unfinished.state.volumes[0].phase = Phase::Intent;
    assert!(seen(&unfinished, &done()).differs);
}

#[test]
fn what_failed_is_tried_again_and_what_was_refused_is_not() {
    let open = node(true, &["/mnt"]);
    assert!(Seen::of(&config(), &open, &[], None, None).differs, "nothing is known of the last run");
    assert!(seen(&open, &Last { again: true, ..done() }).differs);
    assert!(seen(&Picture { orphans: true, ..node(true, &["/mnt"]) }, &done()).differs);
    let locked = seen(&node(false, &[]), &decided(&[], &["nvme1n1"]));
    assert_eq!((locked.differs, locked.refused, locked.ready), (false, true, false));
    let ignored = seen(&node(false, &[]), &decided(&["nvme1n1"], &[]));
    assert_eq!((ignored.differs, ignored.refused, ignored.ready), (false, false, true));
}

#[test]
fn a_volume_that_is_not_there_is_no_reason_for_a_run_and_the_node_is_not_ready() {
    let mut picture = node(true, &["/mnt"]);
    picture.disks.clear();
    let seen = seen(&picture, &done());
    assert_eq!(seen.volumes, [(Uuid::from_u128(7), VolumeState::Missing)]);
    assert_eq!((seen.differs, seen.ready), (false, false));
}

#[test]
fn a_node_with_fewer_volumes_than_are_expected_is_not_ready() {
    let with = |expect: &str| {
        let text = format!("[kms]\nkey_id = \"alias/x\"\n[volumes.expect]\n{expect}\n");
        let config = Config::from_text(Path::new("config.toml"), &text).unwrap();
        Seen::of(&config, &node(true, &["/mnt"]), &[], Some(&done()), None).ready
    };
    assert!(with("ebs = 1") && with("instance_store = 0"));
    assert!(!with("ebs = 2") && !with("instance_store = 1"));
}

#[test]
fn what_a_boot_refused_keeps_the_node_from_being_ready_until_it_is_decided() {
    let mut picture = node(true, &["/mnt"]);
    picture.disks.push(DeviceFacts { serial: Some("vol1".to_owned()), ..DeviceFacts::sample("nvme2n1", 2) });
    let last = decided(&[], &["nvme2n1"]);
    let ready = |picture: &Picture, boot: &Last| Seen::of(&config(), picture, &[], Some(&last), Some(boot)).ready;
    let passed_over = Decided { strangers: vec!["nvme2n1".to_owned()], ..Decided::default() };
    assert!(ready(&picture, &Last { decided: passed_over, ..done() }), "a boot that passed over it");
    assert!(!ready(&picture, &last));
    picture.disks.pop();
    assert!(ready(&picture, &last));
}

#[test]
fn a_stranger_that_could_not_be_examined_is_looked_at_again_and_keeps_nobody_waiting() {
    let mut picture = node(true, &["/mnt"]);
    picture.disks.push(DeviceFacts { serial: Some("vol1".to_owned()), ..DeviceFacts::sample("nvme2n1", 2) });
    let decided = Decided { unexamined: vec!["nvme2n1".to_owned()], ..Decided::default() };
    let seen = seen(&picture, &Last { decided, ..done() });
    assert!(seen.differs && seen.ready);
}

#[test]
fn a_node_without_volumes_is_ready_when_a_run_has_found_nothing_to_do() {
    let none = Picture { state: State { volumes: Vec::new(), ..State::sample() }, disks: Vec::new(), orphans: false };
    assert!(seen(&none, &done()).ready);
    assert!(!seen(&none, &Last { again: true, ..done() }).ready);
}

#[test]
fn a_new_disk_is_to_be_encrypted_once_it_was_looked_at_or_is_left_to_a_person() {
    let mut picture = node(true, &["/mnt"]);
    let known = seen(&picture, &done()).disks;
    picture.disks.push(DeviceFacts { serial: Some("vol1".to_owned()), ..DeviceFacts::sample("nvme2n1", 2) });
    let new = seen(&picture, &done());
    assert!(new.differs && !new.ready && new.disks != known);
    let refused = seen(&picture, &decided(&[], &["nvme2n1"]));
    assert_eq!(
        (refused.differs, refused.refused, refused.ready),
        (false, true, true),
        "the boot decides about strangers"
    );
    picture.disks[1].mounts.push("/data".into());
    assert_ne!(seen(&picture, &done()).disks, new.disks, "somebody began to use it");
    picture.disks[1].system = Some("carries /".to_owned());
    assert!(!seen(&picture, &done()).differs);
}

#[test]
fn what_is_closed_on_purpose_stays_closed_until_its_disk_comes_back() {
    let mut picture = node(false, &[]);
    picture.disks[0].diskseq = Some(7);
    let closed = [Closed::new(Uuid::from_u128(7), &picture.disks[0])];
    let before = Seen::of(&config(), &picture, &closed, Some(&done()), None);
    assert_eq!(
        (before.volumes.as_slice(), before.differs, before.ready),
        ([(Uuid::from_u128(7), VolumeState::Closed)].as_slice(), false, false)
    );
    picture.disks[0].diskseq = Some(8);
    let after = Seen::of(&config(), &picture, &closed, Some(&done()), None);
    assert!(after.differs && after.disks != before.disks);
}

#[test]
fn work_of_the_agent_is_no_change_of_a_disk() {
    let disks = |picture: &Picture| seen(picture, &done()).disks;
    assert_eq!(disks(&node(false, &[])), disks(&node(true, &["/mnt"])));
    let mut grown = node(true, &["/mnt"]);
    grown.disks[0].size *= 2;
    assert_ne!(disks(&grown), disks(&node(true, &["/mnt"])));
    let mapping = DeviceFacts { kind: DiskKind::DeviceMapper, model: None, ..DeviceFacts::sample("dm-0", 0) };
    grown.disks.push(mapping);
    assert_eq!(disks(&grown).len(), 1);
}
