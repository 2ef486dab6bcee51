//! Volumes that come and go: adopted, forgotten, erased.

use jiff::Timestamp;

use super::*;
use crate::luks2::{Opened, ProvenKeyslot};
use crate::state::{FormerVolume, VolumeEnd};

const ARN: &str = "arn:aws:kms:us-east-1:111122223333:key/1234abcd";

fn now() -> Timestamp {
    "2026-03-04T05:06:07Z".parse().unwrap()
}

/// The header of volume `n`, made on `instance` with key number `key`.
fn made_on(n: u32, instance: &str, key: u8, arn: &str) -> Content {
    let source = KeySource::aws_kms(WrappedKey::new(vec![key]).unwrap(), arn);
    Content::Luks2 { luks_uuid: id(n), token: Some(Box::new(Token::new(source, Some(instance.to_owned())))) }
}

fn theirs(n: u32) -> Content {
    made_on(n, "i-there", 9, ARN)
}

fn former(volume: VolumeRecord, end: VolumeEnd) -> FormerVolume {
    FormerVolume { volume, key: state(vec![]).keys.remove(0), end, ended: now() }
}

/// Why the first disk is not adopted; `adopt` or `known` if it is or was.
fn judged(config: &Config, state: &State, devices: Vec<DeviceFacts>) -> String {
    let inventory = inventory(devices);
    match adoptable(config, state, &inventory, &inventory.devices[0]) {
        Adoptable::Yes(_) => "adopt".to_owned(),
        Adoptable::Known(_) => "known".to_owned(),
        Adoptable::No { finding, is_unknown } => format!("{is_unknown}: {}", finding.evidence),
    }
}

#[test]
fn what_may_be_adopted_and_what_may_not() {
    let plain = config("");
    let (disk, other) = (with(theirs(7), ebs(1)), ebs(2));
    let judge = |volumes: Vec<VolumeRecord>, devices: Vec<DeviceFacts>| judged(&plain, &state(volumes), devices);
    let erased = State { former: vec![former(known(7, "/mnt", &ebs(1)), VolumeEnd::Erased)], ..state(vec![]) };
    let forgotten = State { former: vec![former(known(7, "/mnt", &ebs(1)), VolumeEnd::Forgotten)], ..state(vec![]) };
    let rows: Vec<(&str, String, &str)> = vec![
        ("another node's", judge(vec![], vec![disk.clone()]), "adopt"),
        ("forgotten", judged(&plain, &forgotten, vec![disk.clone()]), "adopt"),
        (
            "erased",
            judged(&plain, &erased, vec![disk.clone()]),
            "true: LUKS UUID 00000000-0000-0000-0000-000000000007 was erased at 2026",
        ),
        ("blank", judge(vec![], vec![ebs(1)]), "false: not a volume of luks-agent: blank"),
        (
            "other LUKS",
            judge(vec![], vec![with(Content::Luks2 { luks_uuid: id(7), token: None }, ebs(1))]),
            "false: not a volume of luks-agent: LUKS2 volume",
        ),
        (
            "unreadable",
            judge(vec![], vec![with(Content::Unknown { reason: "x".into() }, ebs(1))]),
            "true: it could not be examined: x",
        ),
        (
            "no header",
            judge(vec![], vec![DeviceFacts { content: None, ..ebs(1) }]),
            "false: not a volume of luks-agent: it has no LUKS2 header",
        ),
        (
            "of the system",
            judge(vec![], vec![DeviceFacts { system: Some("carries /".into()), ..disk.clone() }]),
            "false: carries /",
        ),
        (
            "ignored",
            judged(&config("[volumes]\nebs = \"ignore\""), &state(vec![]), vec![disk.clone()]),
            "false: the configuration says to ignore ebs",
        ),
        ("known", judge(vec![known(7, "/mnt", &ebs(1))], vec![disk.clone()]), "known"),
        (
            "known, open here",
            judge(
                vec![known(7, "/mnt", &other)],
                vec![DeviceFacts { content: Some(theirs(7)), ..open(7, &[], ebs(1)) }],
            ),
            "known",
        ),
        (
            "a copy",
            judge(vec![known(7, "/mnt", &other)], vec![disk.clone(), with(theirs(7), other.clone())]),
            "false: it is a known volume or a copy",
        ),
        (
            "a copy of an open one",
            judge(vec![known(7, "/mnt", &ebs(1))], vec![disk.clone(), open(7, &[], other.clone())]),
            "false: it is a known volume or a copy",
        ),
        (
            "unfinished",
            judge(vec![intent(7, "/mnt", &ebs(1))], vec![disk.clone()]),
            "false: the state file lists LUKS UUID",
        ),
        (
            "half erased",
            judge(vec![record(7, Phase::Erasing, "/mnt", &ebs(1))], vec![disk.clone()]),
            "false: the state file lists LUKS UUID",
        ),
        (
            "twice",
            judge(vec![], vec![disk.clone(), with(theirs(7), other.clone())]),
            "true: LUKS UUID 00000000-0000-0000-0000-000000000007 is also on nvme2n1",
        ),
        (
            "instead of another",
            judge(vec![known(5, "/mnt", &ebs(1))], vec![disk]),
            "true: the state file expects another volume on this disk",
        ),
        (
            "no ARN",
            judge(vec![], vec![with(made_on(7, "i-there", 9, "alias/x\u{1b}[2J"), ebs(1))]),
            r"true: its token names 'alias/x\u{1b}[2J'",
        ),
    ];
    for (what, found, expected) in rows {
        assert!(found.starts_with(expected), "{what}: {found}");
    }
}

fn proven(facts: DeviceFacts, content: Content, filesystem: FilesystemKind) -> Proven {
    let Content::Luks2 { luks_uuid, token: Some(token) } = content else { panic!("no token") };
    let layout = Layout { cipher: Cipher::AesXtsPlain64, key_size: 512, sector_size: 512, flags: Flags::default() };
    let adoption = Adoption { device: facts, role: VolumeRole::Ebs, luks_uuid, token: *token };
    let opened = Opened { keyslot: ProvenKeyslot { number: 0, sha256: String::new() }, volume_key: None };
    Proven { adoption, layout, filesystem, opened }
}

/// The state file after adopting: serial number, key and mount point of each volume.
fn volumes(state: &State) -> Vec<String> {
    let line = |v: &VolumeRecord| {
        let at = v.mount_point.as_ref().map_or("nowhere".to_owned(), |at| at.display().to_string());
        format!("{} key {} at {at}", v.serial.as_deref().unwrap_or("-"), v.key)
    };
    state.volumes.iter().map(line).collect()
}

fn take(config: &Config, state: &State, proven: &[Proven], at: Option<&str>) -> Result<State, Finding> {
    let devices = proven.iter().map(|proven| proven.adoption.device.clone()).collect();
    let how = AdoptAs { mount_point: at.map(Path::new), rekey: false };
    adopted(config, state, &inventory(devices), proven, how, now())
}

#[test]
fn an_adopted_volume_gets_its_mount_point_and_its_key_but_new_volumes_do_not() {
    let (plain, xfs) = (config(""), FilesystemKind::Xfs);
    let mine = state(vec![known(5, "/mnt", &ebs(5))]);
    let two = [
        proven(ebs(1), theirs(7), xfs),
        proven(ebs(2), theirs(8), xfs),
        proven(ebs(3), theirs(9), FilesystemKind::None),
    ];
    let next = take(&plain, &mine, &two, None).unwrap();
    assert_eq!(volumes(&next)[1..], ["vol1 key 2 at /mnt1", "vol2 key 2 at /mnt2", "vol3 key 2 at nowhere"]);
    assert_eq!((next.keys.len(), next.keys[1].adopted, next.node_key().map(|key| key.id)), (2, true, Some(1)));
    assert_eq!(next.instance_id, None, "the key of the node is of whom it was");
    let HeaderPolicy::Recorded(_) = next.volumes[1].header else { panic!("no layout") };

    let at =
        |path| take(&plain, &mine, &two[..1], Some(path)).map(|next| volumes(&next)[1].clone()).map_err(|f| f.evidence);
    assert_eq!(at("/srv").unwrap(), "vol1 key 2 at /srv");
    for taken in ["/mnt", "/mnt/below", "/"] {
        assert!(at(taken).unwrap_err().contains("that of another volume: /mnt"), "{taken}");
    }

    // where it was before, where it is mounted, and not where another volume is by now
    let before = |at| State { former: vec![former(known(7, at, &ebs(1)), VolumeEnd::Forgotten)], ..mine.clone() };
    let mounted = [proven(open(7, &["/now"], ebs(1)), theirs(7), xfs)];
    for (state, proven, expected) in [
        (before("/before"), &two[..1], "/before"),
        (before("/before"), &mounted[..], "/before"),
        (before("/mnt"), &two[..1], "/mnt1"),
        (before("/mnt"), &mounted[..], "/now"),
        (mine.clone(), &mounted[..], "/now"),
    ] {
        let next = take(&plain, &state, proven, None).unwrap();
        assert_eq!(next.volumes[1].mount_point.as_deref(), Some(Path::new(expected)));
        assert_eq!(next.former, []);
    }
}

#[test]
fn a_key_is_the_nodes_own_only_if_nothing_speaks_against_it() {
    let own = |key_id: &str, state: &State, content: Content| {
        let config = Config::from_text(Path::new("config.toml"), &format!("[kms]\nkey_id = \"{key_id}\"")).unwrap();
        let next = take(&config, state, &[proven(ebs(1), content, FilesystemKind::Xfs)], None).unwrap();
        (next.node_key().map(|key| key.id), next.instance_id)
    };
    let here = || made_on(7, "i-here", 9, ARN);
    let lost = State::default();
    assert_eq!(own(ARN, &lost, here()), (Some(1), Some("i-here".to_owned())));
    assert_eq!(own("1234abcd", &lost, here()), (Some(1), Some("i-here".to_owned())));
    // anybody can write the name of an instance into a token
    assert_eq!(own("alias/nodes", &lost, here()), (None, None));
    assert_eq!(own(&ARN.replace('4', "5"), &lost, here()), (None, None));
    assert_eq!(own(ARN, &lost, theirs(7)), (None, None));
    assert_eq!(own(ARN, &state(vec![]), here()), (Some(1), None), "a node that has a key keeps it");
    // the same wrapped key is the same key
    let same =
        take(&config(""), &state(vec![]), &[proven(ebs(1), made_on(7, "i", 1, "arn:key"), FilesystemKind::Xfs)], None);
    assert_eq!(
        (same.as_ref().unwrap().keys.len(), volumes(same.as_ref().unwrap())),
        (1, vec!["vol1 key 1 at /mnt".to_owned()])
    );
}

#[test]
fn a_rekeyed_volume_is_to_get_the_key_of_the_node() {
    let proven = [proven(ebs(1), theirs(7), FilesystemKind::Xfs)];
    let rekey = |state: &State| {
        let how = AdoptAs { mount_point: None, rekey: true };
        adopted(&config(""), state, &inventory(vec![ebs(1)]), &proven, how, now())
    };
    let next = rekey(&state(vec![])).unwrap();
    assert_eq!(
        (next.volumes[0].key, next.wanted_key(&next.volumes[0]), next.is_behind(&next.volumes[0])),
        (2, 1, true)
    );
    let refused = rekey(&State::default()).unwrap_err();
    assert!(refused.evidence.contains("has no key yet"), "{refused:?}");
}

#[test]
fn a_volume_is_forgotten_only_if_it_is_closed_and_its_disk_away() {
    let volume = known(1, "/mnt", &ebs(1));
    let state = state(vec![volume.clone()]);
    let why = |devices, even| {
        objection_to_forgetting(&state, &inventory(devices), &volume, even).map(|finding| finding.evidence)
    };
    let lost = DeviceFacts { content: None, ..ebs(1) };
    let moved = with(header(1), ebs(2));
    for (what, devices, expected) in [
        ("away", vec![ebs(2)], [None, None]),
        ("attached", vec![lost], [Some("is attached"), None]),
        ("attached as another disk", vec![moved], [Some("is attached"), None]),
        ("open", vec![open(1, &[], ebs(1))], [Some("is open on"), Some("is open on")]),
    ] {
        for (even, expected) in [false, true].into_iter().zip(expected) {
            let found = why(devices.clone(), even);
            assert_eq!(found.is_some(), expected.is_some(), "{what}: {found:?}");
            assert!(found.unwrap_or_default().contains(expected.unwrap_or_default()), "{what}");
        }
    }
}

#[test]
fn what_may_be_erased_and_what_may_not() {
    let plain = config("");
    let disk = || with(theirs(7), ebs(1));
    let judge = |volumes: Vec<VolumeRecord>, devices: Vec<DeviceFacts>, unknown: bool| {
        let (state, inventory) = (state(volumes), inventory(devices));
        match erasable(&plain, &state, &inventory, &inventory.devices[0], unknown, now()) {
            Ok(erasure) => format!("erase {} {:?}", if erasure.is_known { "known" } else { "unknown" }, erasure.copies),
            Err(finding) => finding.evidence,
        }
    };
    let mine = || vec![known(7, "/mnt", &ebs(1))];
    let erasing = || vec![record(7, Phase::Erasing, "/mnt", &ebs(1))];
    let gone = || DeviceFacts { content: None, ..ebs(1) };
    let rows: Vec<(&str, String, &str)> = vec![
        ("known", judge(mine(), vec![disk()], false), "erase known None"),
        (
            "known, with a copy",
            judge(mine(), vec![disk(), with(theirs(7), ebs(2))], false),
            "erase known Some(\"nvme2n1\")",
        ),
        ("unknown", judge(vec![], vec![disk()], false), "the state file does not list LUKS2 volume"),
        ("unknown, as told", judge(vec![], vec![disk()], true), "erase unknown None"),
        ("open", judge(mine(), vec![open(7, &[], ebs(1))], true), "it is held by"),
        (
            "mounted",
            judge(mine(), vec![DeviceFacts { mounts: vec!["/x".into()], ..disk() }], true),
            "it is mounted at /x",
        ),
        (
            "of the system",
            judge(mine(), vec![DeviceFacts { system: Some("carries /".into()), ..disk() }], true),
            "carries /",
        ),
        (
            "partitions",
            judge(mine(), vec![DeviceFacts { partitions: vec!["p1".into()], ..disk() }], true),
            "it has partitions",
        ),
        (
            "two with one serial number",
            judge(mine(), vec![disk(), DeviceFacts { serial: Some("vol1".into()), ..ebs(2) }], true),
            "it has the same serial number",
        ),
        ("a copy", judge(vec![known(7, "/mnt", &ebs(2))], vec![disk()], true), "its header is a copy"),
        ("unfinished", judge(vec![intent(7, "/mnt", &ebs(1))], vec![disk()], true), "the formatting of LUKS UUID"),
        (
            "instead of another",
            judge(vec![known(5, "/mnt", &ebs(1))], vec![disk()], true),
            "the state file expects LUKS UUID",
        ),
        (
            "other LUKS",
            judge(vec![], vec![with(Content::Luks2 { luks_uuid: id(7), token: None }, ebs(1))], true),
            "not a volume of luks-agent",
        ),
        (
            "known, its token removed",
            judge(mine(), vec![with(Content::Luks2 { luks_uuid: id(7), token: None }, ebs(1))], true),
            "erase known",
        ),
        ("its header lost", judge(mine(), vec![gone()], true), "the state file expects LUKS UUID"),
        ("interrupted", judge(erasing(), vec![disk()], false), "erase known"),
        ("interrupted late", judge(erasing(), vec![gone()], false), "erase known"),
        (
            "interrupted, of another size",
            judge(erasing(), vec![DeviceFacts { size: GIB / 2, ..gone() }], false),
            "the state file expects",
        ),
        (
            "interrupted, then used",
            judge(erasing(), vec![with(theirs(8), ebs(1))], true),
            "the state file expects LUKS UUID",
        ),
        ("nothing", judge(vec![], vec![gone()], true), "not a volume of luks-agent"),
    ];
    for (what, found, expected) in rows {
        assert!(found.starts_with(expected), "{what}: {found}");
    }
    let unresolved = Inventory { boot_unresolved: Some("x".to_owned()), ..inventory(vec![disk()]) };
    let refused = erasable(&plain, &state(mine()), &unresolved, &unresolved.devices[0], true, now()).unwrap_err();
    assert!(refused.evidence.starts_with("the boot disk could not be resolved"));
}

#[test]
fn a_volume_that_left_on_purpose_is_a_stranger_that_is_not_formatted() {
    let plain = config("");
    let state = State { former: vec![former(known(7, "/mnt", &ebs(1)), VolumeEnd::Forgotten)], ..state(vec![]) };
    // with a key of this node, which would otherwise make it one that an old state file does not list
    let inventory = inventory(vec![with(made_on(7, "i-here", 1, "arn:key"), ebs(1))]);
    let found = plan(Mode::Provision, &plain, &state, &inventory);
    let [refusal] = found.refusals.as_slice() else { panic!("{found:?}") };
    assert!(refusal.is_stranger && found.steps.is_empty());
    assert!(refusal.finding.evidence.contains("which this node forgot at 2026-03-04T05:06:07Z"), "{refusal:?}");
}
