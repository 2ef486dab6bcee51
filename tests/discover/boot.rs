//! The boot disk, through the layers on which real systems are stacked.

use std::fs;
use std::path::Path;

use crate::tree::{EBS, GIB, INSTANCE_STORE, Tree, device, roles};

/// Two disks with two partitions each, and one without.
fn disks() -> Tree {
    let mut tree = Tree::new();
    for (number, serial) in [(0, "vol0a"), (1, "vol0b")] {
        let disk = tree.nvme(number, EBS, serial, 10 * GIB);
        tree.partition(&disk, 1);
        tree.partition(&disk, 2);
    }
    tree.nvme(2, INSTANCE_STORE, "AWS2C", 900 * GIB);
    tree
}

#[test]
fn lvm() {
    let mut tree = disks();
    tree.dm("dm-0", "vg-root", "LVM-aBcDeF", &["nvme0n1p2", "nvme1n1p1"]);
    tree.mount("nvme0n1p1", "/boot", "ext4");
    tree.mount("dm-0", "/", "xfs");
    insta::assert_snapshot!(roles(&tree.discover()), @r"
        nvme2n1 instance-store
        nvme0n1 boot: carries / and the state directory through dm-0, nvme0n1p2; /boot through nvme0n1p1
        nvme1n1 boot: carries / and the state directory through dm-0, nvme1n1p1
        dm-0 boot: carries / and the state directory
    ");
    let inventory = tree.discover();
    let holders = &device(&inventory, "nvme0n1").holders;
    assert_eq!(holders.len(), 1);
    assert_eq!((holders[0].name.as_str(), holders[0].dm_name.as_deref()), ("dm-0", Some("vg-root")));
    assert_eq!(holders[0].size, GIB);
    assert_eq!((holders[0].mounts.as_slice(), holders[0].held), (["/".into()].as_slice(), false));
    assert_eq!(device(&inventory, "dm-0").links, [Path::new("/dev/mapper/vg-root")]);
}

#[test]
fn software_raid() {
    let mut tree = disks();
    tree.stack("md126", &["nvme0n1p1", "nvme1n1p1"]);
    tree.stack("md127", &["nvme0n1p2", "nvme1n1p2"]);
    let root = tree.partition("md127", 1);
    tree.mount(&root, "/", "ext4");
    tree.mount("md126", "/boot", "ext4");
    insta::assert_snapshot!(roles(&tree.discover()), @r"
        nvme2n1 instance-store
        nvme0n1 boot: carries / and the state directory through md127p1, md127, nvme0n1p2; /boot through md126, nvme0n1p1
        nvme1n1 boot: carries / and the state directory through md127p1, md127, nvme1n1p2; /boot through md126, nvme1n1p1
        md126 boot: carries /boot
        md127 boot: carries / and the state directory through md127p1
    ");
    // The array has a partition.
    assert!(device(&tree.discover(), "nvme0n1").holders.iter().find(|h| h.name == "md127").unwrap().held);
}

#[test]
fn encrypted_root_below_lvm() {
    let mut tree = disks();
    tree.dm("dm-0", "luks-root", "CRYPT-LUKS2-0123456789abcdef0123456789abcdef-luks-root", &["nvme0n1p2"]);
    tree.dm("dm-1", "vg-root", "LVM-x", &["dm-0"]);
    tree.mount("dm-1", "/", "xfs");
    insta::assert_snapshot!(roles(&tree.discover()), @r"
        nvme2n1 instance-store
        nvme0n1 boot: carries / and the state directory through dm-1, dm-0, nvme0n1p2
        nvme1n1 ebs
        dm-0 boot: carries / and the state directory through dm-1
        dm-1 boot: carries / and the state directory
    ");
    let inventory = tree.discover();
    let crypt = &device(&inventory, "nvme0n1").holders[0];
    assert_eq!(crypt.luks_uuid(), Some(uuid::Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef)));
    assert!(crypt.held);
}

#[test]
fn btrfs_on_two_disks() {
    let mut tree = disks();
    tree.btrfs(&["nvme0n1p2", "nvme1n1"], "/");
    insta::assert_snapshot!(roles(&tree.discover()), @r"
        nvme2n1 instance-store
        nvme0n1 boot: carries / and the state directory through nvme0n1p2
        nvme1n1 boot: carries / and the state directory
    ");
    assert_eq!(device(&tree.discover(), "nvme1n1").mounts, [Path::new("/")]);
    fs::remove_dir_all(tree.path("sys/fs/btrfs")).unwrap();
    insta::assert_snapshot!(tree.unresolved(), @"cannot find out which disks carry /: cannot read /sys/fs/btrfs: No such file or directory (os error 2)");
}

#[test]
fn overlay_with_its_upper_directory_on_a_disk() {
    let mut tree = disks();
    // As in User-Mode Linux: the lower layer is on the host.
    tree.overlay("/", "/run/lower", "/run/boot");
    tree.mount_as("0:21", "/run", "tmpfs", "tmpfs", "rw");
    tree.mount_as("0:22", "/run/lower", "hostfs", "/dev/root", "ro,/");
    tree.mount("nvme1n1p1", "/run/boot", "ext4");
    insta::assert_snapshot!(roles(&tree.discover()), @r"
        nvme2n1 instance-store
        nvme0n1 ebs
        nvme1n1 boot: carries / and the state directory through overlay layer /run/boot/data, nvme1n1p1
    ");
    // The mount of the upper directory is hidden: its path is now on the tmpfs.
    let table = fs::read_to_string(tree.path("proc/self/mountinfo")).unwrap();
    let without: Vec<_> = table.lines().filter(|line| !line.contains("/run/boot rw")).collect();
    tree.write("proc/self/mountinfo", &(without.join("\n") + "\n"));
    insta::assert_snapshot!(tree.unresolved(), @"cannot find out which disks carry /: its file system does not lie on a disk");
    // The path does not exist.
    fs::remove_dir_all(tree.path("run/boot/data")).unwrap();
    insta::assert_snapshot!(tree.unresolved(), @"cannot find out which disks carry /: cannot read /run/boot/data: No such file or directory (os error 2)");
}

#[test]
fn overlay_over_a_disk_with_its_upper_directory_in_memory() {
    let mut tree = disks();
    tree.overlay("/", "/media/root-ro", "/media/root-rw");
    tree.mount("nvme0n1p1", "/media/root-ro", "ext4");
    tree.mount_as("0:23", "/media/root-rw", "tmpfs", "tmpfs-root", "rw");
    insta::assert_snapshot!(roles(&tree.discover()), @r"
        nvme2n1 instance-store
        nvme0n1 boot: carries / and the state directory through overlay layer /media/root-ro, nvme0n1p1
        nvme1n1 ebs
    ");
}

#[test]
fn overlay_whose_layers_are_hidden_behind_itself() {
    let mut tree = disks();
    tree.overlay("/", "/", "/upper");
    insta::assert_snapshot!(tree.unresolved(), @"cannot find out which disks carry /: a layer of the overlay on / lies on that mount itself, which hides the real layer");

    // Both exist, but on different mounts: the paths belong to another root.
    let mut tree = disks();
    tree.overlay("/", "/lower", "/upper");
    tree.mount("nvme0n1p1", "/upper/work", "ext4");
    insta::assert_snapshot!(tree.unresolved(), @"cannot find out which disks carry /: upperdir /upper/data and workdir /upper/work of the overlay on / are on different mounts; they are paths of a root that was left after it was mounted");
}

#[test]
fn loop_device_on_a_file() {
    let mut tree = disks();
    tree.loop_on("loop0", "/host/root disk.img");
    tree.mount("loop0", "/", "ext4");
    tree.mount("nvme0n1p1", "/host", "vfat");
    tree.write("host/root disk.img", "");
    insta::assert_snapshot!(roles(&tree.discover()), @r"
        nvme2n1 instance-store
        nvme0n1 boot: carries / and the state directory through loop0, /host/root disk.img, nvme0n1p1
        nvme1n1 ebs
        loop0 boot: carries / and the state directory
    ");
    fs::remove_file(tree.path("host/root disk.img")).unwrap();
    insta::assert_snapshot!(tree.unresolved(), @"cannot find out which disks carry /: cannot read /host/root disk.img: No such file or directory (os error 2)");
    // On a device, not on a file.
    tree.set("loop0", "loop/backing_file", "/dev/nvme2n1");
    assert_eq!(
        device(&tree.discover(), "nvme2n1").system.as_deref(),
        Some("carries / and the state directory through loop0")
    );
}

#[test]
fn further_devices_of_a_mount() {
    let mut tree = disks();
    let devno = tree.devno("nvme0n1p1");
    tree.mount_as(&devno, "/", "xfs", "/dev/nvme0n1p1", "rw,logbufs=8,logdev=/dev/nvme1n1p1,noquota");
    assert!(device(&tree.discover(), "nvme1n1").system.is_some());

    let mut tree = disks();
    tree.stack("bcache0", &["nvme0n1p1", "nvme2n1"]);
    tree.mount("bcache0", "/", "ext4");
    assert_eq!(
        device(&tree.discover(), "nvme2n1").system.as_deref(),
        Some("carries / and the state directory through bcache0")
    );

    let mut tree = disks();
    tree.mount_as("0:44", "/", "bcachefs", "/dev/nvme0n1p1:/dev/nvme1n1p2", "rw");
    assert!(
        device(&tree.discover(), "nvme0n1").system.is_some() && device(&tree.discover(), "nvme1n1").system.is_some()
    );
}

#[test]
fn swap_and_state_directory_count() {
    let mut tree = disks();
    tree.mount("nvme0n1p1", "/", "ext4");
    tree.swap("/dev/nvme1n1p2", "partition");
    tree.mount("nvme2n1", "/etc/luks-agent", "xfs");
    insta::assert_snapshot!(roles(&tree.discover()), @r"
        nvme2n1 boot: carries the state directory
        nvme0n1 boot: carries / through nvme0n1p1
        nvme1n1 boot: carries swap through nvme1n1p2
    ");

    // A swap file, swap in memory, and swap in memory that is written back to a disk.
    let mut tree = disks();
    tree.mount("nvme0n1p1", "/", "ext4");
    tree.mount("nvme1n1p1", "/srv a", "ext4");
    tree.write("srv a/swap", "");
    tree.swap("/srv\\040a/swap", "file");
    tree.disk("zram0", "virtual/block", 253, GIB);
    tree.set("zram0", "backing_dev", "none");
    tree.swap("/dev/zram0", "partition");
    insta::assert_snapshot!(roles(&tree.discover()), @r"
        nvme2n1 instance-store
        nvme0n1 boot: carries / and the state directory through nvme0n1p1
        nvme1n1 boot: carries swap through nvme1n1p1
        zram0 boot: carries swap
    ");
    tree.set("zram0", "backing_dev", "/dev/nvme2n1");
    assert_eq!(device(&tree.discover(), "nvme2n1").system.as_deref(), Some("carries swap through zram0"));

    tree.swap("/dev/nvme9n1", "partition");
    insta::assert_snapshot!(tree.unresolved(), @"cannot find out which disks carry swap: cannot read /sys/class/block/nvme9n1: No such file or directory (os error 2)");
    fs::remove_file(tree.path("proc/swaps")).unwrap();
    assert_eq!(tree.discover().boot_unresolved, None);
}

#[test]
fn a_list_of_swap_without_its_headline_is_not_believed() {
    let mut tree = disks();
    tree.mount("nvme0n1p1", "/", "ext4");
    tree.write("proc/swaps", "");
    insta::assert_snapshot!(tree.unresolved(), @"cannot find out which disks carry swap: /proc/swaps is empty");
}

#[test]
fn journals_on_disks_of_their_own() {
    let mut tree = disks();
    tree.mount("nvme0n1p1", "/", "ext4");
    tree.write("proc/fs/jbd2/nvme0n1p1-8/info", "");
    assert_eq!(device(&tree.discover(), "nvme1n1").system, None);
    tree.write("proc/fs/jbd2/nvme1n1p2/info", "");
    let system = device(&tree.discover(), "nvme1n1").system.clone();
    assert_eq!(system.as_deref(), Some("carries the journal of a file system through nvme1n1p2"));
    assert_eq!(device(&tree.discover(), "nvme2n1").system, None);

    fs::remove_dir_all(tree.path("sys/class/block")).unwrap();
    fs::create_dir(tree.path("sys/class/block")).unwrap();
    insta::assert_snapshot!(tree.unresolved(), @"cannot find out which disks carry the journal of a file system: /sys/class/block contains '', expected at least one disk");
}

#[test]
fn what_lies_on_a_boot_disk_is_a_part_of_it() {
    let mut tree = disks();
    tree.mount("nvme0n1p1", "/", "ext4");
    tree.dm("dm-0", "vg-data", "LVM-x", &["nvme0n1p2"]);
    tree.dm("dm-1", "vg-snapshot", "LVM-y", &["dm-0"]);
    tree.dm("dm-2", "other", "", &["nvme1n1p1"]);
    insta::assert_snapshot!(roles(&tree.discover()), @r"
        nvme2n1 instance-store
        nvme0n1 boot: carries / and the state directory through nvme0n1p1
        nvme1n1 ebs
        dm-0 boot: lies on nvme0n1, which carries / and the state directory through nvme0n1p1
        dm-1 boot: lies on nvme0n1, which carries / and the state directory through nvme0n1p1
        dm-2 ignored: device-mapper device
    ");
    // Its lower device is gone: this disk is left alone, and no other.
    fs::remove_file(tree.path("sys/class/block/nvme1n1p1")).unwrap();
    let system = device(&tree.discover(), "dm-2").system.clone().unwrap();
    assert!(system.starts_with("cannot find out what it lies on: cannot read "), "{system}");
    assert_eq!(tree.discover().boot_unresolved, None);
}

#[test]
fn state_directory_behind_a_link() {
    let mut tree = disks();
    tree.mount("nvme0n1p1", "/", "ext4");
    tree.mount("nvme1n1", "/data", "xfs");
    tree.write("data/agent/keep", "");
    tree.symlink("etc/luks-agent", "data/agent");
    assert_eq!(device(&tree.discover(), "nvme1n1").system.as_deref(), Some("carries the state directory"));
}

#[test]
fn a_mount_hidden_by_a_later_one_holds_nothing() {
    let mut tree = disks();
    tree.mount("nvme0n1p1", "/", "ext4");
    tree.mount("nvme1n1", "/etc/luks-agent", "xfs");
    tree.mount_as(&tree.devno("nvme0n1p2"), "/etc", "ext4", "/dev/nvme0n1p2", "rw");
    // It is mounted on /, not on the mount that it hides.
    let inventory = tree.discover();
    assert_eq!(device(&inventory, "nvme1n1").system, None);
    assert_eq!(device(&inventory, "nvme1n1").mounts, [Path::new("/etc/luks-agent")]);
}

#[test]
fn a_source_of_dev_root_is_found_by_number() {
    let mut tree = disks();
    let devno = tree.devno("nvme1n1p1");
    tree.mount_as(&devno, "/", "ext4", "/dev/root", "rw");
    assert!(device(&tree.discover(), "nvme1n1").system.is_some());

    let mut tree = disks();
    tree.mount_as("8:1", "/", "ext4", "/dev/root", "rw");
    insta::assert_snapshot!(tree.unresolved(), @"cannot find out which disks carry /: cannot read /sys/dev/block/8:1: No such file or directory (os error 2)");
}

#[test]
fn a_root_without_a_disk_is_not_resolved() {
    let root_on = |fs: &str, source: &str| {
        let mut tree = disks();
        tree.mount_as("0:30", "/", fs, source, "rw");
        tree.unresolved()
    };
    insta::assert_snapshot!(
        [root_on("tmpfs", "rootfs"), root_on("nfs4", "10.0.0.1:/"), root_on("zfs", "rpool/ROOT"), root_on("fuse.x", "x")].join("\n"),
        @r"
        cannot find out which disks carry /: its file system does not lie on a disk
        cannot find out which disks carry /: its file system does not lie on a disk
        cannot find out which disks carry /: unsupported file system zfs ('rpool/ROOT' on /): cannot tell which disks it is on
        cannot find out which disks carry /: unsupported file system fuse.x ('x' on /): cannot tell which disks it is on
    "
    );
    // Nothing is mounted, as in a chroot that is not a mount point.
    insta::assert_snapshot!(disks().unresolved(), @"cannot find out which disks carry /: the mount table does not list /");
    // In memory.
    let mut tree = disks();
    tree.disk("ram0", "virtual/block", 1, GIB);
    tree.mount("ram0", "/", "ext2");
    insta::assert_snapshot!(tree.unresolved(), @"cannot find out which disks carry /: its file system does not lie on a disk");
}

#[test]
fn broken_stacks_are_not_resolved() {
    let lvm = || {
        let mut tree = disks();
        tree.dm("dm-0", "vg-root", "LVM-x", &["nvme0n1p2"]);
        tree.mount("dm-0", "/", "xfs");
        tree
    };
    let mut reasons = Vec::new();
    let tree = lvm();
    fs::remove_file(tree.path("sys/class/block/nvme0n1p2")).unwrap();
    reasons.push(tree.unresolved());
    let tree = lvm();
    fs::remove_file(tree.path(&tree.sys("dm-0")).join("slaves/nvme0n1p2")).unwrap();
    reasons.push(tree.unresolved());
    let tree = lvm();
    fs::remove_dir_all(tree.path(&tree.sys("dm-0")).join("slaves")).unwrap();
    reasons.push(tree.unresolved());
    let tree = lvm();
    fs::remove_file(tree.path("sys/block/nvme0n1")).unwrap();
    reasons.push(tree.unresolved());
    let tree = lvm();
    fs::remove_file(tree.path("proc/self/mountinfo")).unwrap();
    reasons.push(tree.unresolved());
    let tree = lvm();
    tree.write("proc/self/mountinfo", "20 1 253:5 /\n");
    reasons.push(tree.unresolved());
    let tree = lvm();
    tree.write("proc/swaps", "Filename Type\n/dev/sda2\n");
    reasons.push(tree.unresolved());
    insta::assert_snapshot!(reasons.join("\n"), @r"
        cannot find out which disks carry /: cannot read /sys/class/block/nvme0n1p2: No such file or directory (os error 2)
        cannot find out which disks carry /: /sys/devices/virtual/block/dm-0/slaves is empty
        cannot find out which disks carry /: cannot read /sys/devices/virtual/block/dm-0/slaves: No such file or directory (os error 2)
        cannot find out which disks carry /: cannot read /sys/block/nvme0n1: No such file or directory (os error 2)
        cannot find out which disks carry /: cannot read /proc/self/mountinfo: No such file or directory (os error 2)
        cannot find out which disks carry /: /proc/self/mountinfo has an invalid line: '20 1 253:5 /'
        cannot find out which disks carry swap: /proc/swaps has an invalid line: '/dev/sda2'
    ");
}

#[test]
fn what_a_reboot_empties_is_found_below_whatever_lies_on_it() {
    const STATE: &str = "/etc/luks-agent/state";
    let on = |tree: &Tree, expected: Option<&str>| assert_eq!(tree.in_memory(STATE).unwrap().as_deref(), expected);

    let mut tree = disks();
    tree.mount("nvme0n1p1", "/", "ext4");
    on(&tree, None);
    tree.mount_as("0:30", "/etc", "tmpfs", "tmpfs", "rw");
    on(&tree, Some("the tmpfs on /etc"));
    // the mount on it counts, not the one below
    tree.mount("nvme1n1p1", "/etc/luks-agent", "ext4");
    on(&tree, None);

    // overlayroot
    let mut tree = disks();
    tree.overlay("/", "/media/root-ro", "/media/root-rw");
    tree.mount("nvme0n1p1", "/media/root-ro", "ext4");
    tree.mount_as("0:23", "/media/root-rw", "tmpfs", "tmpfs-root", "rw");
    on(&tree, Some("the overlay on /, whose upper directory /media/root-rw/data lies on the tmpfs on /media/root-rw"));

    // a transient /etc, and an overlay whose upper directory lies on another one
    let mut tree = disks();
    tree.mount("nvme0n1p1", "/", "ext4");
    tree.mount_as("0:21", "/run", "tmpfs", "tmpfs", "rw");
    tree.overlay("/srv", "/usr", "/run/layers");
    tree.overlay("/etc", "/usr/etc", "/srv/etc");
    on(
        &tree,
        Some(
            "the overlay on /etc, whose upper directory /srv/etc/data lies on the overlay on /srv, whose upper directory /run/layers/data lies on the tmpfs on /run",
        ),
    );

    // a durable upper directory over a lower one in memory; and an overlay without durable writes
    let mut tree = disks();
    tree.mount("nvme0n1p1", "/", "ext4");
    tree.mount_as("0:21", "/run", "tmpfs", "tmpfs", "rw");
    tree.overlay("/etc", "/run/etc", "/var/etc");
    on(&tree, None);
    tree.mount_as(
        "0:60",
        "/etc",
        "overlay",
        "overlay",
        "rw,lowerdir=/run/etc,upperdir=/var/etc/data,workdir=/var/etc/work,volatile",
    );
    on(&tree, Some("the overlay on /etc, which is mounted with the option volatile"));

    // block devices
    let mut tree = disks();
    tree.mount("nvme0n1p1", "/", "ext4");
    tree.mount_as("0:21", "/run", "tmpfs", "tmpfs", "rw");
    tree.write("run/state.img", "");
    tree.loop_on("loop0", "/run/state.img");
    tree.dm("dm-0", "state", "", &["loop0"]);
    tree.mount("dm-0", "/etc/luks-agent", "ext4");
    on(
        &tree,
        Some(
            "the ext4 on /etc/luks-agent, which lies on dm-0, which lies on loop0, whose file /run/state.img lies on the tmpfs on /run",
        ),
    );
    tree.disk("zram0", "virtual/block", 253, GIB);
    tree.mount("zram0", "/etc/luks-agent", "ext4");
    on(&tree, Some("the ext4 on /etc/luks-agent, which lies on zram0"));

    // a path that cannot be followed is an error
    let mut tree = disks();
    tree.overlay("/", "/", "/upper");
    assert_eq!(tree.in_memory(STATE).unwrap_err(), "more than 32 layers");
}
