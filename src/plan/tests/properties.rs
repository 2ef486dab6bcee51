//! What holds for every plan, whatever is on the disks and in the state file.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::config::{MatchRule, RuleRole};

const DISKS: u32 = 4;

/// One disk, its identity drawn from few so that they clash.
fn disk(position: u32) -> impl Strategy<Value = DeviceFacts> {
    let content = prop_oneof![
        4 => Just(Some(blank())),
        4 => (1..=DISKS).prop_map(|n| Some(header(n))),
        1 => (1..=DISKS).prop_map(|n| Some(Content::Luks2 { luks_uuid: id(n), token: None })),
        1 => Just(Some(header(50))),
        1 => Just(Some(Content::Luks2 { luks_uuid: id(51), token: None })),
        2 => Just(Some(Content::Unfinished)),
        2 => Just(Some(foreign())),
        1 => Just(Some(Content::Unrecognised { offset: 0 })),
        1 => Just(Some(Content::Unknown { reason: "i/o error".to_owned() })),
        1 => Just(None),
    ];
    let serial = prop_oneof![3 => Just(Some(position)), 2 => (1..=DISKS).prop_map(Some), 1 => Just(None)];
    let mounts = || prop_oneof![3 => Just(vec![]), 1 => Just(vec!["/mnt"]), 1 => Just(vec!["/data"])];
    let holder = (prop_oneof![3 => (1..=DISKS).boxed(), 1 => Just(60).boxed()], mounts(), any::<bool>())
        .prop_map(|(n, mounts, held)| Holder { held, ..mapping(n, &mounts) });
    let rarely = || prop::bool::weighted(0.1);
    let flags = (rarely(), rarely(), rarely(), rarely(), select(vec![GIB, 2 * GIB]));
    (content, serial, prop::bool::weighted(0.25), holder, mounts(), any::<bool>(), flags).prop_map(
        move |(content, serial, held, holder, mounts, instance_store, (system, parts, read_only, touched, size))| {
            let facts = if instance_store { store(position) } else { ebs(position) };
            let held = held || touched;
            DeviceFacts {
                serial: serial.map(|n| format!("vol{n}")),
                size,
                read_only,
                system: system.then(|| "carries swap".to_owned()),
                partitions: if parts { vec![format!("nvme{position}n1p1")] } else { vec![] },
                // what is in use is not examined, save that it can get into use after that
                content: content.filter(|_| !held && (touched || mounts.is_empty())),
                mounts: if held && !touched { vec![] } else { mounts.iter().map(PathBuf::from).collect() },
                holders: if held { vec![holder] } else { vec![] },
                ..facts
            }
        },
    )
}

fn volume(n: u32) -> impl Strategy<Value = Option<VolumeRecord>> {
    let at = select(vec!["/mnt", "/mnt", "/mnt1", "/mnt7", ""]);
    (any::<bool>(), 1..=DISKS, any::<bool>(), any::<bool>(), any::<bool>(), at).prop_map(
        move |(there, disk, named, instance_store, committed, at)| {
            let facts = if instance_store { store(disk) } else { ebs(disk) };
            let facts = if named { DeviceFacts { serial: None, ..facts } } else { facts };
            let phase = if committed { Phase::Committed } else { Phase::Intent };
            there.then(|| record(n, phase, at, &facts))
        },
    )
}

prop_compose! {
    fn world()(
        devices in (disk(1), disk(2), disk(3), disk(4)),
        count in 0..=DISKS as usize,
        volumes in (volume(1), volume(2), volume(3), volume(4)),
        order in Just((0..DISKS as usize).collect::<Vec<_>>()).prop_shuffle(),
        unresolved in prop::bool::weighted(0.1),
    ) -> (State, Inventory) {
        let (a, b, c, d) = volumes;
        let volumes = [a, b, c, d];
        let volumes = order.iter().filter_map(|i| volumes[*i].clone()).collect();
        let mut devices = vec![devices.0, devices.1, devices.2, devices.3];
        devices.truncate(count);
        // a mapping is on one disk
        for i in 0..devices.len() {
            let (before, rest) = devices.split_at_mut(i);
            let taken = |h: &Holder| before.iter().any(|d| d.holders.iter().any(|other| other.name == h.name));
            rest[0].holders.retain(|h| !taken(h));
        }
        let boot_unresolved = unresolved.then(|| "unknown".to_owned());
        (state(volumes), Inventory { boot_unresolved, ..inventory(devices) })
    }
}

fn configs() -> impl Strategy<Value = &'static str> {
    let texts = [
        "",
        "[volumes]\nwhen_not_blank = \"wipe-instance-store\"",
        "[volumes]\nwhen_not_blank = \"wipe-instance-store\"\nebs = \"ignore\"",
        "[volumes]\ninstance_store = \"ignore\"\n[[volumes.match]]\nserial = \"vol2\"\nrole = \"ignore\"",
        "[volumes]\nwhen_not_blank = \"wipe-instance-store\"\n[filesystem]\ntype = \"none\"\n[[volumes.match]]\nserial = \"vol1\"\nrole = \"instance-store\"",
    ];
    select(texts.to_vec())
}

/// What must be true of a disk that is to be formatted, said without looking at how plan decides.
fn may_be_formatted(step: &Step, resume: Option<Uuid>, basis: &Basis, config: &Config, world: &(State, Inventory)) {
    let (state, inventory) = world;
    let disk = &step.device;
    assert_eq!(inventory.boot_unresolved, None);
    assert_eq!(disk.system, None);
    assert_eq!(disk.mounts, Vec::<PathBuf>::new());
    let committed = |v: &&VolumeRecord| v.phase == Phase::Committed;
    let on_it = |v: &VolumeRecord| {
        disk.mapping_of(v.luks_uuid).is_some()
            || matches!(&disk.content, Some(Content::Luks2 { luks_uuid, .. }) if *luks_uuid == v.luks_uuid)
    };
    assert!(!state.volumes.iter().filter(committed).any(on_it), "holds a known volume");
    let of_this_serial = |v: &&VolumeRecord| v.serial.is_some() && v.serial == disk.serial;
    let ebs = |v: &&VolumeRecord| v.role == VolumeRole::Ebs;
    let newest = state.volumes.iter().rev().find(of_this_serial);
    assert_eq!(newest.filter(committed).filter(ebs), None, "known EBS volume");
    let same = |other: &&DeviceFacts| other.identity() == disk.identity();
    let ignored = |other: &DeviceFacts| {
        let ignores = |rule: &MatchRule| rule.role == RuleRole::Ignore && rule.matches(other);
        other.system.is_none() && config.volumes.rules.iter().any(ignores)
    };
    assert_eq!(inventory.devices.iter().filter(same).filter(|d| !ignored(d)).count(), 1, "identity is not unique");
    match basis {
        Basis::Blank { replaces, .. } => {
            assert!(matches!(disk.content, Some(Content::Blank { .. })));
            assert!(disk.holders.is_empty() && disk.partitions.is_empty());
            if let Some(replaced) = replaces {
                let record = state.volume(*replaced).expect("a record");
                assert_eq!((record.role, step.role), (VolumeRole::InstanceStore, VolumeRole::InstanceStore));
                assert!(record.is_for(disk));
                let elsewhere = |other: &DeviceFacts| record_on(other) == Some(*replaced);
                assert!(!inventory.devices.iter().any(elsewhere), "the volume is on another disk");
            }
        }
        Basis::Unfinished { luks_uuid } => {
            assert_eq!(resume, Some(*luks_uuid));
            let record = state.volume(*luks_uuid).expect("a record");
            assert_eq!(record.phase, Phase::Intent);
            assert!(record.serial.is_none() || disk.serial.is_none() || record.serial == disk.serial, "another disk");
            assert!(disk.partitions.is_empty());
            let elsewhere = |other: &&DeviceFacts| other.name != disk.name && record_on(other) == Some(*luks_uuid);
            assert_eq!(inventory.devices.iter().find(elsewhere), None);
            match &disk.content {
                Some(Content::Unfinished) => assert!(record.is_for(disk) && disk.holders.is_empty()),
                Some(Content::Luks2 { luks_uuid: found, .. }) => assert!(found == luks_uuid && disk.holders.is_empty()),
                None => {
                    let [holder] = disk.holders.as_slice() else { panic!("one holder") };
                    assert_eq!(holder.luks_uuid(), Some(*luks_uuid));
                    assert!(holder.mounts.is_empty() && !holder.held);
                }
                Some(other) => panic!("{other:?}"),
            }
        }
        Basis::Wipe { .. } => {
            assert_eq!(config.volumes.when_not_blank, WhenNotBlank::WipeInstanceStore);
            assert_eq!(step.role, VolumeRole::InstanceStore);
            assert!(disk.holders.is_empty());
            assert!(!state.volumes.iter().filter(committed).any(|v| v.is_for(disk)), "known");
            assert!(matches!(
                disk.content,
                Some(Content::Foreign { .. } | Content::Unrecognised { .. } | Content::Luks2 { token: None, .. })
            ));
        }
    }
}

/// The volume that is open on a disk, or else named by its header.
fn record_on(disk: &DeviceFacts) -> Option<Uuid> {
    let header = match &disk.content {
        Some(Content::Luks2 { luks_uuid, .. }) => Some(*luks_uuid),
        _ => None,
    };
    disk.holders.iter().find_map(Holder::luks_uuid).or(header)
}

fn mount_point(step: &Step) -> Option<PathBuf> {
    match &step.action {
        Action::Format { mount_point, .. } | Action::Unlock { mount_point, .. } => mount_point.clone(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_formatted_without_cause(world in world(), text in configs()) {
        let config = config(text);
        let plan = plan(Mode::Provision, &config, &world.0, &world.1);
        for step in &plan.steps {
            match &step.action {
                Action::Format { resume, basis, .. } => may_be_formatted(step, *resume, basis, &config, &world),
                Action::Unlock { luks_uuid, open, .. } => {
                    assert_eq!(world.0.volume(*luks_uuid).map(|v| v.phase), Some(Phase::Committed));
                    assert_eq!(record_on(&step.device), Some(*luks_uuid));
                    assert_eq!(*open, step.device.mapping_of(*luks_uuid).is_some());
                }
            }
        }
    }

    #[test]
    fn unlock_never_formats_and_unlocks_what_provision_does(world in world(), text in configs()) {
        let config = config(text);
        let unlocks = |mode| {
            let plan = plan(mode, &config, &world.0, &world.1);
            plan.steps.into_iter().filter(|step| matches!(step.action, Action::Unlock { .. })).collect::<Vec<_>>()
        };
        let unlock = plan(Mode::Unlock, &config, &world.0, &world.1);
        prop_assert_eq!(&unlock.steps, &unlocks(Mode::Unlock));
        prop_assert_eq!(&unlock.steps, &unlocks(Mode::Provision));
    }

    #[test]
    fn every_disk_is_accounted_for_once_and_nothing_is_given_twice(world in world(), text in configs()) {
        let config = config(text);
        for mode in [Mode::Provision, Mode::Unlock] {
            let plan = plan(mode, &config, &world.0, &world.1);
            let subjects = plan.refusals.iter().map(|r| &r.subject).chain(plan.left.iter().map(|l| &l.subject));
            let mut names: Vec<_> = subjects.filter_map(|s| s.device.clone()).collect();
            names.extend(plan.steps.iter().map(|s| s.device.name.clone()));
            names.sort();
            let mut expected: Vec<_> = world.1.devices.iter().map(|d| d.name.clone()).collect();
            expected.sort();
            prop_assert_eq!(names, expected);

            let points: Vec<_> = plan.steps.iter().filter_map(mount_point).collect();
            let mounted = plan.left.iter().filter_map(|l| l.volume.as_ref()?.mount_point.clone());
            let points: Vec<_> = points.into_iter().chain(mounted).collect();
            prop_assert_eq!(points.iter().collect::<BTreeSet<_>>().len(), points.len(), "{:?}", points);
            let volumes: Vec<_> = plan.steps.iter().filter_map(|s| match &s.action {
                Action::Format { resume, .. } => *resume,
                Action::Unlock { luks_uuid, .. } => Some(*luks_uuid),
            }).collect();
            prop_assert_eq!(volumes.iter().collect::<BTreeSet<_>>().len(), volumes.len());
        }
    }

    /// No known volume is passed over in silence.
    #[test]
    fn every_known_volume_is_spoken_of(world in world()) {
        let plan = plan(Mode::Unlock, &config(""), &world.0, &world.1);
        let text = format!("{plan:?}");
        let known = world.0.volumes.iter().filter(|v| v.phase == Phase::Committed && v.role == VolumeRole::Ebs);
        for volume in known {
            prop_assert!(text.contains(&volume.luks_uuid.to_string()), "{}", volume.luks_uuid);
        }
    }

    #[test]
    fn mount_points_follow_serial_numbers_not_names(
        kinds in prop::collection::vec((any::<bool>(), 0..3u32), 1..6),
        names in Just((1..=6u32).collect::<Vec<_>>()).prop_shuffle(),
        order in Just((0..6usize).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let mut volumes = Vec::new();
        let mut devices = Vec::new();
        for (n, (instance_store, known_as)) in (1..).zip(&kinds) {
            let facts = if *instance_store { store(n) } else { ebs(n) };
            let at = format!("/mnt{}", 9 - n);
            match known_as {
                0 => devices.push(facts),
                1 => {
                    volumes.push(known(n, &at, &facts));
                    devices.push(with(header(n), facts));
                }
                _ => {
                    volumes.push(intent(n, &at, &facts));
                    devices.push(with(Content::Unfinished, facts));
                }
            }
        }
        let by_serial = |devices: Vec<DeviceFacts>| {
            let plan = plan(Mode::Provision, &config(""), &state(volumes.clone()), &inventory(devices));
            let points = plan.steps.iter().map(|step| (step.device.serial.clone(), mount_point(step)));
            points.collect::<BTreeSet<_>>()
        };
        let renamed = devices.iter().zip(&names).map(|(facts, name)| DeviceFacts {
            name: format!("nvme{name}n1"),
            path: PathBuf::from(format!("/dev/nvme{name}n1")),
            devno: DevNo { major: 259, minor: *name },
            ..facts.clone()
        });
        let renamed: Vec<_> = renamed.collect();
        let shuffled = order.iter().filter_map(|i| renamed.get(*i).cloned()).collect();
        let before = by_serial(devices.clone());
        prop_assert_eq!(before.len(), devices.len());
        prop_assert_eq!(by_serial(shuffled), before);
    }
}
