//! What holds for every plan, whatever is on the disks and in the state file.

#![allow(clippy::print_stdout, reason = "how often each case came up")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::*;
use crate::config::{Noise, Policy, WhenNotBlank};
use crate::disk::{MatchRule, Role, RuleRole, classify};
use crate::job::Basis;

const DISKS: u32 = 4;

/// The header of volume `n`, made by this instance, by another, or where there was no telling.
fn header_of(n: u32, instance_id: Option<&str>) -> Content {
    let token = Token::new(
        KeySource::aws_kms(WrappedKey::new(vec![1]).unwrap(), "arn:key".to_owned()),
        instance_id.map(str::to_owned),
    );
    Content::Luks2 { luks_uuid: id(n), token: Some(Box::new(token)) }
}

/// Mostly the number of the disk itself, so that what belongs together often meets; else any, so that they clash.
fn mostly(own: u32) -> impl Strategy<Value = u32> {
    prop_oneof![3 => Just(own), 1 => 1..=DISKS]
}

/// One disk, its identity and its volume drawn from few.
fn disk(position: u32) -> impl Strategy<Value = DeviceFacts> {
    let instance = || select(vec![Some("i-here"), Some("i-1"), None]);
    let content = prop_oneof![
        7 => Just(Some(blank())),
        6 => (mostly(position), instance()).prop_map(|(n, instance)| Some(header_of(n, instance))),
        1 => (1..=DISKS).prop_map(|n| Some(Content::Luks2 { luks_uuid: id(n), token: None })),
        1 => instance().prop_map(|instance| Some(header_of(50, instance))),
        1 => Just(Some(Content::Luks2 { luks_uuid: id(51), token: None })),
        2 => Just(Some(Content::Unfinished)),
        2 => Just(Some(foreign())),
        1 => Just(Some(Content::Unrecognised { offset: 0 })),
        2 => Just(Some(noise())),
        1 => Just(Some(Content::Unknown { reason: "i/o error".to_owned() })),
        1 => Just(None),
    ];
    let serial = prop_oneof![9 => mostly(position).prop_map(Some), 1 => Just(None)];
    let mounts = || prop_oneof![3 => Just(vec![]), 1 => Just(vec!["/mnt"]), 1 => Just(vec!["/data"])];
    let holder = (prop_oneof![5 => mostly(position).boxed(), 1 => Just(60).boxed()], mounts(), any::<bool>())
        .prop_map(|(n, mounts, held)| Holder { held, ..mapping(n, &mounts) });
    let rarely = || prop::bool::weighted(0.1);
    // twice EBS and instance store on Nitro, once on Xen, where there are no serial numbers
    let kind = (0..3u32, any::<bool>());
    let flags = (rarely(), rarely(), rarely(), rarely(), select(vec![GIB, GIB, GIB, 2 * GIB]));
    (content, serial, prop::bool::weighted(0.25), holder, mounts(), kind, flags).prop_map(
        move |(content, serial, held, holder, mounts, kind, (system, parts, read_only, touched, size))| {
            let facts = match kind {
                (0, true) => xen(&format!("nvme{position}n1"), "ephemeral0"),
                (0, false) => xen(&format!("nvme{position}n1"), "ebs1"),
                (_, true) => store(position),
                (_, false) => ebs(position),
            };
            let held = held || touched;
            DeviceFacts {
                serial: serial.filter(|_| kind.0 > 0).map(|n| format!("vol{n}")),
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
    (prop::bool::weighted(0.8), mostly(n), prop::bool::weighted(0.25), any::<bool>(), prop::bool::weighted(0.7), at)
        .prop_map(move |(there, disk, named, instance_store, committed, at)| {
            let facts = if instance_store { store(disk) } else { ebs(disk) };
            let facts = if named { DeviceFacts { serial: None, ..facts } } else { facts };
            let phase = if committed { Phase::Committed } else { Phase::Intent };
            there.then(|| record(n, phase, at, &facts))
        })
}

prop_compose! {
    fn world()(
        devices in (disk(1), disk(2), disk(3), disk(4)),
        count in 0..=DISKS as usize,
        volumes in (volume(1), volume(2), volume(3), volume(4)),
        order in Just((0..DISKS as usize).collect::<Vec<_>>()).prop_shuffle(),
        unresolved in prop::bool::weighted(0.1),
        lost in prop::bool::weighted(0.15),
        instance_id in prop_oneof![3 => Just(Some("i-here".to_owned())), 1 => Just(None)],
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
        let state = if lost { State::default() } else { state(volumes) };
        (state, Inventory { boot_unresolved, instance_id, ..inventory(devices) })
    }
}

fn configs() -> impl Strategy<Value = &'static str> {
    let texts = [
        "",
        "[volumes]\nwhen_not_blank = \"wipe-instance-store\"",
        "[volumes]\nwhen_not_blank = \"wipe-instance-store\"\nebs = \"ignore\"",
        "[volumes]\nnoise = \"format-ebs\"",
        "[volumes]\nnoise = \"format-ebs\"\nwhen_not_blank = \"wipe-instance-store\"",
        "[volumes.expect]\nebs = 2\ninstance_store = 1",
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
    let ours = |other: &DeviceFacts| matches!(&other.content, Some(Content::Luks2 { token: Some(_), .. }));
    assert!(!state.keys.is_empty() || !inventory.devices.iter().any(ours), "the state file may be lost");
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
                // its own disk, or another where its own is gone
                let is_own = |other: &DeviceFacts| {
                    record.is_for(other) && (record.serial.is_some() || record.size == other.size)
                };
                assert!(record.is_for(disk) || !inventory.devices.iter().any(is_own), "{record:?}");
                let elsewhere = |other: &DeviceFacts| record_on(other) == Some(*replaced);
                assert!(!inventory.devices.iter().any(elsewhere), "the volume is on another disk");
            }
        }
        Basis::Noise { begun, .. } => {
            assert_eq!(config.volumes.noise, Noise::FormatEbs);
            assert_eq!((step.role, *begun), (VolumeRole::Ebs, resume));
            assert!(matches!(disk.content, Some(Content::Noise { .. })));
            assert!(disk.serial.is_some() && disk.holders.is_empty() && disk.partitions.is_empty());
            assert_eq!(newest.filter(committed), None, "known");
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
                Some(
                    Content::Foreign { .. }
                        | Content::Noise { .. }
                        | Content::Unrecognised { .. }
                        | Content::Written
                        | Content::Luks2 { token: None, .. }
                )
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

/// Whether nothing stands against unlocking this known volume: it is on this disk and no other, and the disk is the one that
/// it was made for.
fn is_plainly_on(record: &VolumeRecord, disk: &DeviceFacts, config: &Config, inventory: &Inventory) -> bool {
    let there = |other: &DeviceFacts| {
        let in_header =
            matches!(&other.content, Some(Content::Luks2 { luks_uuid, .. }) if *luks_uuid == record.luks_uuid);
        in_header || other.mapping_of(record.luks_uuid).is_some()
    };
    let wanted = match classify(disk, &config.volumes.rules) {
        Role::Ebs => config.volumes.ebs == Policy::Encrypt,
        Role::InstanceStore => config.volumes.instance_store == Policy::Encrypt,
        Role::Boot { .. } | Role::Unclear { .. } | Role::Ignored { .. } => false,
    };
    wanted
        && there(disk)
        && record_on(disk) == Some(record.luks_uuid)
        && record.is_for(disk)
        && inventory.devices.iter().filter(|other| there(other)).count() == 1
}

/// A plan as sets: what it is about, whatever the order.
fn rows(plan: &Plan) -> BTreeSet<String> {
    let Plan { steps, refusals, left, changes: _, shortfalls: _ } = plan;
    let steps = steps.iter().map(|step| format!("{step:?}"));
    let refusals = refusals.iter().map(|refusal| format!("{refusal:?}"));
    steps.chain(refusals).chain(left.iter().map(|left| format!("{left:?}"))).collect()
}

fn mount_point(step: &Step) -> Option<PathBuf> {
    step.action.mount_point().cloned()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, max_shrink_iters: 2048, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_formatted_without_cause(world in world(), text in configs()) {
        let config = config(text);
        let plan = plan(Mode::Provision, &config, &world.0, &world.1);
        for step in &plan.steps {
            match &step.action {
                Action::Format(Format { resume, basis, .. }) => may_be_formatted(step, *resume, basis, &config, &world),
                Action::Unlock(Unlock { luks_uuid, is_open, .. }) => {
                    assert_eq!(world.0.volume(*luks_uuid).map(|v| v.phase), Some(Phase::Committed));
                    assert_eq!(record_on(&step.device), Some(*luks_uuid));
                    assert_eq!(*is_open, step.device.mapping_of(*luks_uuid).is_some());
                }
                Action::Grow(_) | Action::Rekey(_) => panic!("not configured: {step:?}"),
            }
        }
    }

    #[test]
    fn unlock_never_formats_and_unlocks_what_provision_does(world in world(), text in configs()) {
        let config = config(text);
        let unlocks = |mode| {
            let plan = plan(mode, &config, &world.0, &world.1);
            plan.steps.into_iter().filter(|step| matches!(step.action, Action::Unlock(_))).collect::<Vec<_>>()
        };
        let unlock = plan(Mode::Unlock, &config, &world.0, &world.1);
        prop_assert_eq!(&unlock.steps, &unlocks(Mode::Unlock));
        prop_assert_eq!(&unlock.steps, &unlocks(Mode::Provision));
    }

    /// Growing touches nothing but what is open, known and no part of the system; it changes nothing of what else is done.
    #[test]
    fn only_open_and_known_volumes_are_grown(world in world(), text in configs()) {
        let off = config(text);
        let mut on = off.clone();
        on.volumes.grow = true;
        let (state, inventory) = &world;
        let (grows, others): (Vec<_>, Vec<_>) =
            plan(Mode::Provision, &on, state, inventory).steps.into_iter().partition(|s| matches!(s.action, Action::Grow(_)));
        prop_assert_eq!(others, plan(Mode::Provision, &off, state, inventory).steps);
        let asked_for = plan(Mode::Grow, &off, state, inventory).steps;
        for step in &grows {
            prop_assert!(asked_for.contains(step), "{:?}", step);
        }
        for step in asked_for {
            let Action::Grow(Grow { luks_uuid, mount_point, grows_mapping, .. }) = &step.action else { panic!("{step:?}") };
            let open = step.device.mapping_of(*luks_uuid).expect("an open mapping");
            prop_assert_eq!(state.volume(*luks_uuid).map(|v| v.phase), Some(Phase::Committed));
            prop_assert_eq!(&step.device.system, &None);
            prop_assert!(open.size + DATA_OFFSET <= step.device.size);
            prop_assert!(!grows_mapping || open.size + DATA_OFFSET < step.device.size);
            prop_assert!(mount_point.as_ref().is_none_or(|at| open.mounts.contains(at)));
        }
    }

    #[test]
    fn every_disk_is_accounted_for_once_and_nothing_is_given_twice(world in world(), text in configs()) {
        let config = config(text);
        for mode in [Mode::Provision, Mode::Unlock, Mode::Grow] {
            let plan = plan(mode, &config, &world.0, &world.1);
            let subjects = plan.refusals.iter().map(|r| &r.subject).chain(plan.left.iter().map(|l| &l.subject));
            let mut names: Vec<_> = subjects.filter_map(|s| s.device.clone()).collect();
            names.extend(plan.steps.iter().map(|s| s.device.name.clone()));
            names.sort();
            let mut expected: Vec<_> = world.1.devices.iter().map(|d| d.name.clone()).collect();
            expected.sort();
            prop_assert_eq!(names, expected);

            // grown is what is mounted wherever that is
            let given = plan.steps.iter().filter(|step| !matches!(step.action, Action::Grow(_)));
            let points: Vec<_> = given.filter_map(mount_point).collect();
            let mounted = plan.left.iter().filter_map(|l| l.volume.as_ref()?.mount_point.clone());
            let points: Vec<_> = points.into_iter().chain(mounted).collect();
            prop_assert_eq!(points.iter().collect::<BTreeSet<_>>().len(), points.len(), "{:?}", points);
            let volumes: Vec<_> = plan.steps.iter().filter_map(|s| match &s.action {
                Action::Format(Format { resume, .. }) => *resume,
                Action::Unlock(Unlock { luks_uuid, .. })
                | Action::Grow(Grow { luks_uuid, .. })
                | Action::Rekey(Rekey { luks_uuid, .. }) => Some(*luks_uuid),
            }).collect();
            prop_assert_eq!(volumes.iter().collect::<BTreeSet<_>>().len(), volumes.len());
        }
    }

    /// The shortest way to say it: without leave to wipe, and without work of our own that did not end, only what is blank is
    /// formatted.
    #[test]
    fn only_what_is_blank_is_formatted(world in world(), ebs in any::<bool>()) {
        let (mut state, inventory) = world;
        state.volumes.retain(|volume| volume.phase == Phase::Committed);
        let text = if ebs { "" } else { "[volumes]\nebs = \"ignore\"" };
        for step in plan(Mode::Provision, &config(text), &state, &inventory).steps {
            if let Action::Format(Format { resume, basis, .. }) = step.action {
                prop_assert!(matches!(step.device.content, Some(Content::Blank { .. })), "{:?}", step.device);
                prop_assert!(matches!(basis, Basis::Blank { .. }) && resume.is_none(), "{:?}", basis);
            }
        }
    }

    /// Whatever else is attached: where a volume of luks-agent turns up and there is no state file, one may be lost.
    #[test]
    fn nothing_is_formatted_when_the_state_file_is_lost(
        world in world(), text in configs(), which in 0..DISKS as usize, made_here in any::<bool>()
    ) {
        let (_, mut inventory) = world;
        let Some(disk) = inventory.devices.get_mut(which) else { return Ok(()) };
        disk.content = Some(header_of(50, made_here.then_some("i-here")));
        let plan = plan(Mode::Provision, &config(text), &State::default(), &inventory);
        prop_assert!(plan.steps.is_empty(), "{:?}", plan.steps);
    }

    #[test]
    fn every_known_volume_that_is_there_is_unlocked(world in world(), text in configs()) {
        let (config, (state, inventory)) = (config(text), world);
        for mode in [Mode::Provision, Mode::Unlock] {
            let plan = plan(mode, &config, &state, &inventory);
            for record in state.volumes.iter().filter(|volume| volume.phase == Phase::Committed) {
                let on_it = |disk: &&DeviceFacts| is_plainly_on(record, disk, &config, &inventory);
                let Some(disk) = inventory.devices.iter().find(on_it) else { continue };
                let mapping = disk.mapping_of(record.luks_uuid);
                let unlocked = plan.steps.iter().find(|step| step.device == *disk).is_some_and(|step| match step.action {
                    Action::Unlock(Unlock { luks_uuid, key, is_open, .. }) => {
                        (luks_uuid, key, is_open) == (record.luks_uuid, record.key, mapping.is_some())
                    }
                    Action::Format(_) | Action::Grow(_) | Action::Rekey(_) => false,
                });
                let mounted = plan.left.iter().filter_map(|left| left.volume.as_ref()).any(|volume| {
                    let at = |mapping: &Holder| volume.mount_point.as_ref().is_none_or(|at| mapping.mounts.contains(at));
                    volume.luks_uuid == record.luks_uuid && mapping.is_some_and(at)
                });
                prop_assert!(unlocked != mounted, "{} on {}: {plan:#?}", record.luks_uuid, disk.name);
            }
        }
    }

    /// No known volume is passed over in silence. (Instance store may be: it is gone with a stop, and its disk is new then.)
    #[test]
    fn every_known_volume_is_spoken_of(world in world()) {
        for mode in [Mode::Provision, Mode::Unlock] {
            let plan = plan(mode, &config(""), &world.0, &world.1);
            let text = format!("{plan:?}");
            let known = world.0.volumes.iter().filter(|v| v.phase == Phase::Committed && v.role == VolumeRole::Ebs);
            for volume in known {
                prop_assert!(text.contains(&volume.luks_uuid.to_string()), "{}", volume.luks_uuid);
            }
        }
    }

    #[test]
    fn planning_is_deterministic_and_does_not_depend_on_the_order_of_disks(
        world in world(),
        text in configs(),
        order in Just((0..DISKS as usize).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let (config, (state, inventory)) = (config(text), world);
        let devices = order.iter().filter_map(|i| inventory.devices.get(*i).cloned()).collect();
        let shuffled = Inventory { devices, ..inventory.clone() };
        for mode in [Mode::Provision, Mode::Unlock] {
            let first = plan(mode, &config, &state, &inventory);
            prop_assert_eq!(&first, &plan(mode, &config, &state, &inventory));
            prop_assert_eq!(&first, &plan(mode, &config, &state, &shuffled));
        }
    }

    /// The order of the records is that in which the volumes were made, and the newest of a disk counts, as the older of a
    /// mount point does. Where neither is contested, the order says nothing.
    #[test]
    fn planning_does_not_depend_on_the_order_of_records_that_do_not_clash(
        world in world(),
        text in configs(),
        order in Just((0..DISKS as usize).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let (config, (mut state, inventory)) = (config(text), world);
        let (mut disks, mut points) = (BTreeSet::new(), BTreeSet::new());
        for (n, volume) in state.volumes.iter_mut().enumerate() {
            if volume.mount_point.as_ref().is_some_and(|at| !points.insert(at.clone())) {
                volume.mount_point = Some(PathBuf::from(format!("/elsewhere{n}")));
            }
        }
        state.volumes.retain(|volume| disks.insert(volume.identity()));
        let volumes = order.iter().filter_map(|i| state.volumes.get(*i).cloned()).collect();
        let shuffled = State { volumes, ..state.clone() };
        for mode in [Mode::Provision, Mode::Unlock] {
            prop_assert_eq!(
                rows(&plan(mode, &config, &state, &inventory)),
                rows(&plan(mode, &config, &shuffled, &inventory))
            );
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

/// Properties say little of worlds that hardly ever come up: here are those that must, and how many of 4096 have them.
#[test]
fn worlds_have_what_matters_in_them() {
    let mut runner = TestRunner::deterministic();
    let strategy = (world(), configs());
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..4096 {
        let ((state, inventory), text) = strategy.new_tree(&mut runner).unwrap().current();
        let config = config(text);
        let plan = plan(Mode::Provision, &config, &state, &inventory);
        for case in cases(&config, &state, &inventory, &plan) {
            *seen.entry(case).or_default() += 1;
        }
    }
    for (case, worlds) in &seen {
        println!("{worlds:5} {case}");
    }
    let contents =
        ["blank", "luks2 with token", "luks2", "unfinished", "foreign", "unrecognised", "unknown", "not looked at"];
    let of_each = ["ebs", "instance-store"].map(|role| contents.map(|content| format!("disk: {role}, {content}")));
    let others = [
        "disk: without serial number",
        "disks: twins",
        "disks: a header twice",
        "disks: boot disk not resolved",
        "state: lost, with a volume of luks-agent",
        "state: empty, without",
        "state: intent",
        "state: two volumes of one disk",
        "step: format, blank",
        "step: format, blank, replaces",
        "step: format, unfinished",
        "step: format, wipe",
        "step: unlock",
        "step: mount",
        "left: mounted",
        "volume: plainly there",
        "refusal: safety",
        "refusal: known volume",
    ];
    for case in of_each.into_iter().flatten().chain(others.map(str::to_owned)) {
        assert!(seen.get(&case).is_some_and(|worlds| *worlds >= 15), "{case}: {:?} of 4096 worlds", seen.get(&case));
    }
}

fn cases(config: &Config, state: &State, inventory: &Inventory, plan: &Plan) -> BTreeSet<String> {
    let mut cases = BTreeSet::new();
    let mut add = |is: bool, case: &str| {
        if is {
            cases.insert(case.to_owned());
        }
    };
    for disk in &inventory.devices {
        let role = classify(disk, &config.volumes.rules);
        let content = match &disk.content {
            Some(Content::Blank { .. }) => "blank",
            Some(Content::Luks2 { token: Some(_), .. }) => "luks2 with token",
            Some(Content::Luks2 { token: None, .. }) => "luks2",
            Some(Content::Unfinished) => "unfinished",
            Some(Content::Foreign { .. }) => "foreign",
            Some(Content::Noise { .. }) => "noise",
            Some(Content::Written) => "written",
            Some(Content::Unrecognised { .. }) => "unrecognised",
            Some(Content::Unknown { .. }) => "unknown",
            None => "not looked at",
        };
        add(matches!(role, Role::Ebs | Role::InstanceStore), &format!("disk: {role}, {content}"));
        add(disk.serial.is_none(), "disk: without serial number");
        let others = || inventory.devices.iter().filter(|other| other.name != disk.name);
        add(others().any(|other| other.identity() == disk.identity()), "disks: twins");
        let header = record_on(disk).filter(|_| disk.content.is_some());
        add(header.is_some() && others().any(|other| record_on(other) == header), "disks: a header twice");
    }
    let ours = |disk: &DeviceFacts| matches!(&disk.content, Some(Content::Luks2 { token: Some(_), .. }));
    let ours = inventory.devices.iter().any(ours);
    add(state.keys.is_empty() && ours, "state: lost, with a volume of luks-agent");
    add(state.keys.is_empty() && !ours, "state: empty, without");
    add(inventory.boot_unresolved.is_some(), "disks: boot disk not resolved");
    add(state.volumes.iter().any(|volume| volume.phase == Phase::Intent), "state: intent");
    let disks: BTreeSet<String> = state.volumes.iter().map(VolumeRecord::identity).collect();
    add(disks.len() < state.volumes.len(), "state: two volumes of one disk");
    for step in &plan.steps {
        add(
            true,
            match &step.action {
                Action::Format(Format { basis: Basis::Blank { replaces: None, .. }, .. }) => "step: format, blank",
                Action::Format(Format { basis: Basis::Blank { replaces: Some(_), .. }, .. }) => {
                    "step: format, blank, replaces"
                }
                Action::Format(Format { basis: Basis::Unfinished { .. }, .. }) => "step: format, unfinished",
                Action::Format(Format { basis: Basis::Noise { begun: None, .. }, .. }) => "step: format, noise",
                Action::Format(Format { basis: Basis::Noise { begun: Some(_), .. }, .. }) => {
                    "step: format, noise, begun"
                }
                Action::Format(Format { basis: Basis::Wipe { .. }, .. }) => "step: format, wipe",
                Action::Unlock(Unlock { is_open: false, .. }) => "step: unlock",
                Action::Unlock(Unlock { is_open: true, .. }) => "step: mount",
                Action::Grow(_) => "step: grow",
                Action::Rekey(_) => "step: change key",
            },
        );
    }
    add(plan.left.iter().any(|left| left.volume.is_some()), "left: mounted");
    add(plan.refusals.iter().any(|refusal| refusal.finding.severity == Severity::Refused), "refusal: safety");
    add(plan.refusals.iter().any(|refusal| refusal.finding.severity == Severity::Wrong), "refusal: known volume");
    let plainly = |record: &VolumeRecord| {
        record.phase == Phase::Committed
            && inventory.devices.iter().any(|disk| is_plainly_on(record, disk, config, inventory))
    };
    add(state.volumes.iter().any(plainly), "volume: plainly there");
    cases
}
