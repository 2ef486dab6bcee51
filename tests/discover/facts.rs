//! The facts of each disk.

use std::fs;
use std::path::Path;

use luks_agent::discover::Roots;
use luks_agent::disk::DiskKind;

use crate::tree::{EBS, GIB, Tree, device, roles};

fn booted() -> Tree {
    let mut tree = Tree::new();
    let boot = tree.nvme(0, EBS, "vol0a", 10 * GIB);
    tree.mount(&boot, "/", "ext4");
    tree
}

#[test]
fn what_can_never_be_a_target() {
    let mut tree = booted();
    for (number, attribute, value) in
        [(1, "removable", "1"), (2, "ro", "1"), (3, "queue/zoned", "host-managed"), (4, "size", "0")]
    {
        let name = tree.nvme(number, EBS, &format!("vol{number}"), GIB);
        tree.set(&name, attribute, value);
    }
    for name in ["loop0", "ram0", "zram0", "sr0", "fd0", "nbd0", "md_home", "dm-9"] {
        tree.disk(name, "virtual/block", 7, GIB);
    }
    insta::assert_snapshot!(roles(&tree.discover()), @r"
        nvme0n1 boot: carries / and the state directory
        nvme1n1 ignored: removable medium
        nvme2n1 ignored: read-only disk
        nvme3n1 ignored: zoned disk
        nvme4n1 ignored: no medium
        dm-9 ignored: device-mapper device
        fd0 ignored: not an EC2 volume, and no [[volumes.match]] rule names it
        loop0 ignored: loop device
        md_home ignored: software RAID array
        nbd0 ignored: not an EC2 volume, and no [[volumes.match]] rule names it
        ram0 ignored: ram disk
        sr0 ignored: optical drive
        zram0 ignored: ram disk
    ");
}

#[test]
fn one_disk_with_several_links_is_one_disk() {
    let mut tree = booted();
    let name = tree.nvme(1, EBS, "vol01a2b", GIB);
    tree.link("disk/by-id/nvme-Amazon_Elastic_Block_Store_vol01a2b_1", &name);
    tree.link("disk/by-path/pci-0000:00:05.0-nvme-1", &name);
    tree.link("sdf", &name);
    tree.link("disk/by-id/other", "nvme7n1");
    // A link to a link.
    tree.symlink("dev/xvdf", "dev/sdf");
    let part = tree.partition(&name, 1);
    tree.link("disk/by-uuid/aaaa", &part);
    fs::create_dir(tree.path("dev/block")).unwrap();
    tree.link("block/259:1", &name);
    let inventory = tree.discover();
    assert_eq!(inventory.devices.len(), 2);
    let links: Vec<_> = device(&inventory, "nvme1n1").links.iter().map(|l| l.to_str().unwrap()).collect();
    assert_eq!(
        links,
        [
            "/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_vol01a2b",
            "/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_vol01a2b_1",
            "/dev/disk/by-path/pci-0000:00:05.0-nvme-1",
            "/dev/sdf",
            "/dev/xvdf",
        ]
    );
}

#[test]
fn model_and_serial_of_other_drivers() {
    let mut tree = booted();
    let scsi = "pci0000:00/0000:00:07.0/host0/target0:0:0/0:0:0:0";
    tree.disk("sda", &format!("{scsi}/block"), 8, GIB);
    tree.write(&format!("sys/devices/{scsi}/model"), "QEMU HARDDISK   \n");
    tree.symlink(&format!("sys/devices/{scsi}/block/sda/device"), &format!("sys/devices/{scsi}"));
    tree.write(
        &format!("run/udev/data/b{}", tree.devno("sda")),
        "S:disk/by-id/x\nE:ID_SERIAL=0QEMU_disk1\nE:ID_SERIAL_SHORT=disk1\n",
    );
    tree.disk("vda", "pci0000:00/0000:00:08.0/virtio3/block", 252, GIB);
    tree.set("vda", "serial", "data1");
    tree.disk("vdb", "pci0000:00/0000:00:09.0/virtio4/block", 252, GIB);
    tree.set("vdb", "serial", "");
    tree.disk("vdc", "pci0000:00/0000:00:0a.0/virtio5/block", 252, GIB);
    tree.write(&format!("run/udev/data/b{}", tree.devno("vdc")), "E:ID_SERIAL=data3\n");
    tree.disk("cciss!c0d0", "pci0000:00/cciss0", 104, GIB);

    let inventory = tree.discover();
    let sda = device(&inventory, "sda");
    assert_eq!(
        (sda.kind, sda.model.as_deref(), sda.serial.as_deref()),
        (DiskKind::Scsi, Some("QEMU HARDDISK"), Some("disk1"))
    );
    let serial = |name: &str| device(&inventory, name).serial.clone();
    assert_eq!(serial("vda").as_deref(), Some("data1"));
    assert_eq!(serial("vdb"), None);
    assert_eq!(serial("vdc").as_deref(), Some("data3"));
    assert_eq!(device(&inventory, "cciss!c0d0").path, Path::new("/dev/cciss/c0d0"));
    // By serial, then by name.
    let order: Vec<_> = inventory.devices.iter().map(|d| d.name.as_str()).collect();
    assert_eq!(order, ["vda", "vdc", "sda", "nvme0n1", "cciss!c0d0", "vdb"]);
}

#[test]
fn older_kernels_lack_some_files() {
    let mut tree = booted();
    let name = tree.nvme(1, EBS, "vol01", GIB);
    for file in ["diskseq", "hidden", "queue/zoned"] {
        fs::remove_file(tree.path(&tree.sys(&name)).join(file)).unwrap();
    }
    let inventory = tree.discover();
    assert_eq!((device(&inventory, &name).diskseq, device(&inventory, &name).zoned), (None, false));
}

#[test]
fn a_disk_that_vanishes_or_cannot_be_read_is_left_out() {
    let mut tree = booted();
    for number in 1..5 {
        tree.nvme(number, EBS, &format!("vol{number}"), GIB);
    }
    // A dangling link, a missing file, an unreadable file, and a file with nonsense.
    fs::remove_dir_all(tree.path(&tree.sys("nvme1n1"))).unwrap();
    fs::remove_file(tree.path(&tree.sys("nvme2n1")).join("size")).unwrap();
    let holders = tree.path(&tree.sys("nvme3n1")).join("holders");
    fs::remove_dir(&holders).unwrap();
    fs::write(&holders, "").unwrap();
    tree.set("nvme4n1", "size", "many");
    let inventory = tree.discover();
    let names: Vec<_> = inventory.devices.iter().map(|d| d.name.as_str()).collect();
    assert_eq!((names.as_slice(), &inventory.boot_unresolved), (["nvme0n1"].as_slice(), &None));
}

#[test]
fn a_mapping_is_an_orphan_only_where_its_slaves_say_so() {
    const VOLUME: &str = "CRYPT-LUKS2-5d0f4ff19f5c4a558f5d2b9d8a1c7e10-luks-5d0f4ff1";
    let mut tree = booted();
    for number in 1..=4 {
        let disk = tree.nvme(number, EBS, &format!("vol{number}"), 8 * GIB);
        tree.dm(&format!("dm-{number}"), &format!("luks-{number}"), VOLUME, &[&disk]);
    }
    tree.dm("dm-5", "luks-5", VOLUME, &["nvme4n1"]);
    tree.set("dm-5", "size", "0");
    tree.stack("dm-6", &["nvme4n1"]);
    let orphans = |tree: &Tree| -> Vec<String> {
        let mut names: Vec<_> = tree.orphans().into_iter().map(|mapping| mapping.name).collect();
        names.sort();
        names
    };
    assert_eq!(orphans(&tree), ["dm-5"], "it has no table, and holds its disk");
    // the facts of its disk cannot be read: the disk is skipped, but still there
    tree.set("nvme1n1", "queue/logical_block_size", "");
    assert!(!tree.discover().devices.iter().any(|facts| facts.name == "nvme1n1"));
    // pulled, and another disk took its place
    tree.remove("nvme3n1", "holders/dm-3");
    assert_eq!(orphans(&tree), ["dm-3", "dm-5"]);
    // whether it was the other way round is unreadable
    tree.remove("nvme3n1", "holders");
    tree.set("nvme3n1", "holders", "not a directory");
    assert_eq!(orphans(&tree), ["dm-5"]);
    // pulled
    tree.remove("nvme2n1", "");
    assert_eq!(orphans(&tree), ["dm-2", "dm-5"]);
}

#[test]
fn without_sysfs_there_is_no_answer() {
    let tree = booted();
    fs::remove_dir_all(tree.path("sys/block")).unwrap();
    let message = tree.try_discover(None).unwrap_err().to_string();
    assert!(message.starts_with("cannot read /") && message.ends_with("/sys/block"), "{message}");
}

#[test]
fn mount_points_are_unescaped_and_in_order() {
    let mut tree = booted();
    let name = tree.nvme(1, EBS, "vol01", GIB);
    let part = tree.partition(&name, 1);
    tree.mount(&part, "/mnt/with space", "ext4");
    tree.mount(&part, "/a\\b", "ext4");
    tree.mount(&name, "/mnt", "ext4");
    let inventory = tree.discover();
    assert_eq!(device(&inventory, &name).mounts, ["/mnt", "/mnt/with space", "/a\\b"].map(Path::new));
}

/// Reads the machine that runs the test: real sysfs, with any hardware.
#[test]
fn this_machine_can_be_read() {
    let inventory = luks_agent::discover::discover(&Roots::host(), Path::new("/etc/luks-agent/state"), None).unwrap();
    for disk in &inventory.devices {
        assert!(disk.logical_block_size >= 512, "{disk:#?}");
    }
    assert!(
        inventory.boot_unresolved.is_some() || inventory.devices.iter().any(|d| d.system.is_some()),
        "{inventory:#?}"
    );
}

#[test]
fn a_volume_is_open_on_its_disk_while_it_is_reencrypted() {
    const VOLUME: &str = "CRYPT-LUKS2-5d0f4ff19f5c4a558f5d2b9d8a1c7e10-luks-5d0f4ff1";
    const BETWEEN: &str = "CRYPT-SUBDEV-5d0f4ff19f5c4a558f5d2b9d8a1c7e10-luks-5d0f4ff1";
    let mut tree = booted();
    let disk = tree.nvme(1, EBS, "vol1", 8 * GIB);
    tree.dm("dm-1", "luks-5d0f4ff1-hotzone-forward", &format!("{BETWEEN}-hotzone-forward"), &[&disk]);
    tree.dm("dm-2", "luks-5d0f4ff1-overlay", &format!("{BETWEEN}-overlay"), &["dm-1", &disk]);
    tree.dm("dm-0", "luks-5d0f4ff1", VOLUME, &["dm-2"]);
    let inventory = tree.discover();
    let holders = &inventory.devices.iter().find(|facts| facts.name == disk).unwrap().holders;
    let holders: Vec<_> = holders.iter().map(|holder| (holder.name.as_str(), holder.held)).collect();
    assert_eq!(holders, [("dm-0", false)]);
    assert!(tree.orphans().is_empty());
    assert!(!inventory.devices.iter().any(|facts| ["dm-1", "dm-2"].contains(&facts.name.as_str())));

    // nothing is above them: they hold the disk themselves
    tree.remove("dm-0", "");
    tree.remove("dm-2", "holders/dm-0");
    let inventory = tree.discover();
    let holders = &inventory.devices.iter().find(|facts| facts.name == disk).unwrap().holders;
    assert_eq!(holders.iter().map(|holder| holder.name.as_str()).collect::<Vec<_>>(), ["dm-2"]);
}
