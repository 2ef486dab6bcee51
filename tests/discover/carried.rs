//! A property test: in any stack, a disk that carries the system is known, or nothing is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use proptest::prelude::*;
use proptest::sample::Index;

use crate::tree::{EBS, GIB, Tree};

#[derive(Debug, Clone)]
enum On {
    /// A file system on one device.
    Device(Index),
    Btrfs(Index, Index),
    /// An overlay with its layers on two of the other mounts.
    Overlay(Index, Index),
    /// A loop device on a file of another mount.
    Loop(Index),
}

fn on() -> impl Strategy<Value = On> {
    prop_oneof![
        4 => any::<Index>().prop_map(On::Device),
        1 => any::<(Index, Index)>().prop_map(|(a, b)| On::Btrfs(a, b)),
        1 => any::<(Index, Index)>().prop_map(|(a, b)| On::Overlay(a, b)),
        1 => any::<Index>().prop_map(On::Loop),
    ]
}

#[derive(Debug, Clone)]
struct Machine {
    /// How many partitions each disk has.
    disks: Vec<u32>,
    /// Devices on others, dm or md, each with one or two below.
    stacks: Vec<(bool, Index, Option<Index>)>,
    /// Mounted below `/media`: overlays and loop devices find their layers in the mounts before them.
    media: Vec<On>,
    /// `/`, and for `/boot`, `/usr` and the state directory whether they are mounts of their own.
    system: (On, [Option<On>; 3]),
    swap: Option<(bool, Index)>,
    /// A file or link of sysfs that is missing.
    broken: Option<Index>,
}

fn machine() -> impl Strategy<Value = Machine> {
    (
        prop::collection::vec(0_u32..3, 1..5),
        prop::collection::vec(any::<(bool, Index, Option<Index>)>(), 0..5),
        prop::collection::vec(on(), 1..4),
        (on(), [prop::option::of(on()), prop::option::of(on()), prop::option::of(on())]),
        any::<Option<(bool, Index)>>(),
        any::<Option<Index>>(),
    )
        .prop_map(|(disks, stacks, media, system, swap, broken)| Machine {
            disks,
            stacks,
            media,
            system,
            swap,
            broken,
        })
}

/// The tree, and what truly is below every device and every mount.
struct Model {
    tree: Tree,
    nodes: Vec<String>,
    below: BTreeMap<String, BTreeSet<String>>,
    media: Vec<BTreeSet<String>>,
    in_btrfs: BTreeSet<String>,
    loops: u32,
}

impl Model {
    fn node(&mut self, name: String, below: BTreeSet<String>) {
        self.below.insert(name.clone(), below);
        self.nodes.push(name);
    }

    fn under(&self, name: &str) -> BTreeSet<String> {
        self.below[name].clone()
    }

    /// Two devices of which neither is in a btrfs already.
    fn free_pair(&self, a: &Index, b: &Index) -> bool {
        let [a, b] = [a, b].map(|i| i.get(&self.nodes));
        a != b && !self.in_btrfs.contains(a) && !self.in_btrfs.contains(b)
    }

    /// Mounts at `point` and gives the disks below.
    fn mount(&mut self, point: &str, on: &On, layers: usize) -> BTreeSet<String> {
        match on {
            On::Btrfs(a, b) if self.free_pair(a, b) => {
                let [a, b] = [a, b].map(|i| i.get(&self.nodes).clone());
                self.in_btrfs.extend([a.clone(), b.clone()]);
                self.tree.btrfs(&[&a, &b], point);
                &self.under(&a) | &self.under(&b)
            }
            On::Overlay(a, b) if layers > 0 => {
                let [a, b] = [a, b].map(|i| i.index(layers));
                let (lower, upper) =
                    (format!("/media/{a}/lower"), format!("/media/{b}/upper{}", point.replace('/', "-")));
                self.tree.overlay(point, &lower, &upper);
                &self.media[a] | &self.media[b]
            }
            On::Loop(i) if layers > 0 => {
                let i = i.index(layers);
                let name = format!("loop{}", self.loops);
                self.loops += 1;
                let file = format!("/media/{i}/{name}.img");
                self.tree.write(&file, "");
                self.tree.loop_on(&name, &file);
                self.tree.mount(&name, point, "ext4");
                let mut below = self.media[i].clone();
                below.insert(name);
                below
            }
            On::Device(i) | On::Btrfs(i, _) | On::Overlay(i, _) | On::Loop(i) => {
                let name = i.get(&self.nodes).clone();
                self.tree.mount(&name, point, "ext4");
                self.under(&name)
            }
        }
    }
}

fn build(machine: &Machine) -> (Tree, BTreeSet<String>) {
    let mut model = Model {
        tree: Tree::new(),
        nodes: Vec::new(),
        below: BTreeMap::new(),
        media: Vec::new(),
        in_btrfs: BTreeSet::new(),
        loops: 0,
    };
    for (number, partitions) in (0..).zip(&machine.disks) {
        let disk = model.tree.nvme(number, EBS, &format!("vol{number}"), GIB);
        let below = BTreeSet::from([disk.clone()]);
        for partition in 1..=*partitions {
            let name = model.tree.partition(&disk, partition);
            model.node(name, below.clone());
        }
        model.node(disk, below);
    }
    for (number, (md, a, b)) in machine.stacks.iter().enumerate() {
        let name = if *md { format!("md{number}") } else { format!("dm-{number}") };
        let on: BTreeSet<_> = std::iter::once(a).chain(b).map(|i| i.get(&model.nodes).clone()).collect();
        model.tree.stack(&name, &on.iter().map(String::as_str).collect::<Vec<_>>());
        let mut below: BTreeSet<_> = on.iter().flat_map(|on| model.under(on)).collect();
        below.insert(name.clone());
        model.node(name, below);
    }

    for (at, on) in machine.media.iter().enumerate() {
        let below = model.mount(&format!("/media/{at}"), on, at);
        model.media.push(below);
    }
    let layers = model.media.len();
    let (root, others) = &machine.system;
    let mut carriers = model.mount("/", root, layers);
    for (point, on) in ["/boot", "/usr", "/etc/luks-agent"].into_iter().zip(others) {
        if let Some(on) = on {
            carriers.extend(model.mount(point, on, layers));
        }
    }
    match &machine.swap {
        Some((true, i)) => {
            let i = i.index(layers);
            model.tree.write(&format!("media/{i}/swapfile"), "");
            model.tree.swap(&format!("/media/{i}/swapfile"), "file");
            carriers.extend(model.media[i].clone());
        }
        Some((false, i)) => {
            let name = i.get(&model.nodes);
            model.tree.swap(&format!("/dev/{name}"), "partition");
            carriers.extend(model.under(name));
        }
        None => {}
    }
    // A device that is stacked on a disk of the system is part of it.
    let shared: Vec<_> = model.below.iter().filter(|(_, below)| !below.is_disjoint(&carriers)).collect();
    let shared: Vec<_> = shared.into_iter().map(|(name, _)| name.clone()).filter(|name| !name.contains('p')).collect();
    carriers.extend(shared);
    (model.tree, carriers)
}

/// Removes a link, or makes an attribute unreadable.
fn damage(tree: &Tree, index: &Index) {
    let mut all = Vec::new();
    for dir in ["sys/block", "sys/class/block", "sys/dev/block"] {
        all.extend(fs::read_dir(tree.path(dir)).unwrap().map(|entry| entry.unwrap().path()));
    }
    for name in fs::read_dir(tree.path("sys/block")).unwrap() {
        let dir = name.unwrap().path();
        all.extend(
            ["dev", "slaves", "loop/backing_file"].map(|file| dir.join(file)).into_iter().filter(|p| p.exists()),
        );
    }
    all.sort();
    let victim = index.get(&all);
    let metadata = fs::symlink_metadata(victim).unwrap();
    if metadata.is_dir() { fs::remove_dir_all(victim).unwrap() } else { fs::remove_file(victim).unwrap() }
}

/// A case has a few hundred small files, so there are few cases by default.
fn config() -> ProptestConfig {
    let default = ProptestConfig { failure_persistence: None, max_shrink_iters: 500, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_some() { default } else { ProptestConfig { cases: 64, ..default } }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_carries_the_system_is_known_or_nothing_is(machine in machine()) {
        let (tree, carriers) = build(&machine);
        if let Some(index) = &machine.broken {
            damage(&tree, index);
        }
        let inventory = tree.discover();
        let known: BTreeSet<_> = inventory.devices.iter().filter(|d| d.system.is_some()).map(|d| d.name.clone()).collect();
        let listed: BTreeSet<_> = inventory.devices.iter().map(|d| d.name.clone()).collect();
        let missed: Vec<_> = carriers.iter().filter(|c| listed.contains(*c) && !known.contains(*c)).collect();
        prop_assert!(missed.is_empty() || inventory.boot_unresolved.is_some(), "{missed:?} missed: {inventory:#?}");
        if machine.broken.is_none() {
            // And no more than these.
            prop_assert_eq!((&inventory.boot_unresolved, &known), (&None, &carriers));
        }
    }
}
