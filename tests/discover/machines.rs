//! The EC2 instance types that differ in how their disks look.

use std::path::Path;

use crate::tree::{EBS, GIB, INSTANCE_STORE, Tree, device, roles};

/// Amazon Linux 2023 on `nvme{number}n1`.
fn al2023_boot(tree: &mut Tree, number: u32, serial: &str) -> String {
    let disk = tree.nvme(number, EBS, serial, 10 * GIB);
    let root = tree.partition(&disk, 1);
    tree.partition(&disk, 127);
    let efi = tree.partition(&disk, 128);
    tree.mount(&root, "/", "xfs");
    tree.mount_as("0:5", "/dev", "devtmpfs", "devtmpfs", "rw,size=4096k,nr_inodes=4041712,mode=755,inode64");
    tree.mount(&efi, "/boot/efi", "vfat");
    disk
}

#[test]
fn m5_has_ebs_volumes_on_nvme() {
    let mut tree = Tree::new();
    al2023_boot(&mut tree, 0, "vol0b07a1e5c1d2e3f40");
    tree.nvme(1, EBS, "vol09f8e7d6c5b4a3f21", 500 * GIB);
    tree.nvme(2, EBS, "vol01a2b3c4d5e6f7a8b", 64 * GIB);
    insta::assert_snapshot!(roles(&tree.discover()), @r"
        nvme2n1 ebs
        nvme1n1 ebs
        nvme0n1 boot: carries / and the state directory through nvme0n1p1; /boot/efi through nvme0n1p128
    ");

    let inventory = tree.discover();
    let boot = device(&inventory, "nvme0n1");
    assert_eq!(boot.partitions, ["nvme0n1p1", "nvme0n1p127", "nvme0n1p128"]);
    assert_eq!(boot.mounts, ["/", "/boot/efi"].map(Path::new));
    let data = device(&inventory, "nvme1n1");
    assert_eq!(data.model.as_deref(), Some("Amazon Elastic Block Store"));
    assert_eq!(data.serial.as_deref(), Some("vol09f8e7d6c5b4a3f21"));
    assert_eq!((data.size, data.logical_block_size, data.physical_block_size), (500 * GIB, 512, 4096));
    assert!(data.diskseq.is_some() && data.partitions.is_empty() && data.mounts.is_empty() && data.system.is_none());
}

#[test]
fn c5d_has_ebs_and_instance_store() {
    let mut tree = Tree::new();
    al2023_boot(&mut tree, 0, "vol0b07a1e5c1d2e3f40");
    tree.nvme(1, INSTANCE_STORE, "AWS2C1436F5159EB6614", 900 * GIB);
    tree.nvme(2, EBS, "vol01a2b3c4d5e6f7a8b", 64 * GIB);
    insta::assert_snapshot!(roles(&tree.discover()), @r"
        nvme1n1 instance-store
        nvme2n1 ebs
        nvme0n1 boot: carries / and the state directory through nvme0n1p1; /boot/efi through nvme0n1p128
    ");
}

#[test]
fn i3en_may_boot_from_any_nvme_number() {
    let mut tree = Tree::new();
    tree.nvme(0, INSTANCE_STORE, "AWS1B51A1CB79FF5C8D8", 7500 * GIB);
    tree.nvme(1, INSTANCE_STORE, "AWS68CD06FD5B7A0F5AE", 7500 * GIB);
    al2023_boot(&mut tree, 2, "vol0b07a1e5c1d2e3f40");
    tree.nvme(3, EBS, "vol01a2b3c4d5e6f7a8b", 64 * GIB);
    let inventory = tree.discover();
    insta::assert_snapshot!(roles(&inventory), @r"
        nvme0n1 instance-store
        nvme1n1 instance-store
        nvme3n1 ebs
        nvme2n1 boot: carries / and the state directory through nvme2n1p1; /boot/efi through nvme2n1p128
    ");
}

const LETTERS: &str = "bcdefghijklm";

/// A d2.4xlarge: 12 local disks, under their names in the block device mapping or shifted by `shift` letters.
fn d2(shift: u8) -> (Tree, Vec<(String, String)>) {
    let mut tree = Tree::new();
    let moved = |letter: char| char::from(u8::try_from(letter).unwrap() + shift);
    let boot = format!("xvd{}", moved('a'));
    tree.xen(&boot, 8 * GIB);
    let root = tree.partition(&boot, 1);
    tree.mount(&root, "/", "xfs");
    let mut mapping = vec![("ami".to_owned(), "sda1".to_owned()), ("root".to_owned(), "/dev/sda1".to_owned())];
    for (number, letter) in LETTERS.chars().enumerate() {
        tree.xen(&format!("xvd{}", moved(letter)), 2000 * GIB);
        mapping.push((format!("ephemeral{number}"), format!("sd{letter}")));
    }
    (tree, mapping)
}

fn borrowed(mapping: &[(String, String)]) -> Vec<(&str, &str)> {
    mapping.iter().map(|(key, name)| (key.as_str(), name.as_str())).collect()
}

#[test]
fn d2_has_its_disks_in_the_block_device_mapping() {
    let (mut tree, mut mapping) = d2(0);
    tree.xen("xvdx", 100 * GIB);
    tree.xen("xvdy", 100 * GIB);
    mapping.push(("ebs1".to_owned(), "xvdx".to_owned()));
    insta::assert_snapshot!(roles(&tree.discover_with(&borrowed(&mapping))), @r"
        xvda boot: carries / and the state directory through xvda1
        xvdb instance-store
        xvdc instance-store
        xvdd instance-store
        xvde instance-store
        xvdf instance-store
        xvdg instance-store
        xvdh instance-store
        xvdi instance-store
        xvdj instance-store
        xvdk instance-store
        xvdl instance-store
        xvdm instance-store
        xvdx ebs
        xvdy unclear: xen disk that the block device mapping of IMDS does not list: it may be an EBS volume that was attached later
    ");

    let without = tree.discover();
    assert!(without.devices.iter().all(|d| d.mapping.is_none()));
    assert!(without.boot_unresolved.is_none());
}

#[test]
fn some_kernels_move_the_letters_up() {
    let (tree, mapping) = d2(4);
    let inventory = tree.discover_with(&borrowed(&mapping));
    assert_eq!(inventory.boot_unresolved, None);
    let of = |name: &str| device(&inventory, name).mapping.clone();
    assert_eq!(of("xvde").as_deref(), Some("ami"));
    // The mapping contains this name too, for another disk.
    assert_eq!(of("xvdf").as_deref(), Some("ephemeral0"));
    assert_eq!(of("xvdq").as_deref(), Some("ephemeral11"));
}

#[test]
fn a_xen_disk_can_be_named_like_a_partition() {
    let mut tree = Tree::new();
    tree.xen("xvda1", 8 * GIB);
    tree.xen("xvda2", 150 * GIB);
    tree.xen("xvdb1", 100 * GIB);
    tree.mount("xvda1", "/", "ext4");
    let inventory =
        tree.discover_with(&[("ami", "sda1"), ("root", "/dev/sda1"), ("ephemeral0", "sda2"), ("ebs1", "sdb")]);
    insta::assert_snapshot!(roles(&inventory), @r"
        xvda1 boot: carries / and the state directory
        xvda2 instance-store
        xvdb1 unclear: xen disk that the block device mapping of IMDS does not list: it may be an EBS volume that was attached later
    ");
}

#[test]
fn a_doubtful_mapping_gives_no_role() {
    let mut tree = Tree::new();
    tree.xen("xvda", 8 * GIB);
    tree.xen("xvdb", 8 * GIB);
    tree.mount("xvda", "/", "ext4");
    let of_b = |mapping: &[(&str, &str)]| device(&tree.discover_with(mapping), "xvdb").mapping.clone();
    assert_eq!(of_b(&[("ami", "sda1"), ("ebs1", "/dev/sdb")]).as_deref(), Some("ebs1"));
    // Two entries for one disk; nothing shows the shift of the letters; a disk that does not exist.
    assert_eq!(of_b(&[("ami", "sda1"), ("ebs1", "sdb"), ("ephemeral0", "xvdb")]), None);
    assert_eq!(of_b(&[("ebs1", "sdb")]), None);
    assert_eq!(of_b(&[("ami", "sdz"), ("ebs1", "sdb")]), None);
    assert_eq!(of_b(&[("ami", "sda1"), ("ebs1", "sd"), ("ebs2", "nvme1n1"), ("ebs3", "")]), None);
}

#[test]
fn the_mapping_must_agree_on_the_boot_disk() {
    let mut tree = Tree::new();
    tree.xen("xvda", 8 * GIB);
    tree.xen("xvdb", 8 * GIB);
    tree.mount("xvdb", "/", "ext4");
    let inventory = tree.discover_with(&[("ami", "sda1"), ("ebs1", "sdb")]);
    insta::assert_snapshot!(inventory.boot_unresolved.unwrap(), @"the block device mapping names xvda as the root device (ami), but no part of the running system is on it");
    // On NVMe, the names in the mapping belong to no disk.
    let mut tree = Tree::new();
    al2023_boot(&mut tree, 0, "vol0b07a1e5c1d2e3f40");
    assert_eq!(tree.discover_with(&[("ami", "xvda"), ("ebs1", "sdb")]).boot_unresolved, None);
}

#[test]
fn an_nvme_multipath_head_is_one_disk() {
    let mut tree = Tree::new();
    al2023_boot(&mut tree, 0, "vol0b07a1e5c1d2e3f40");
    let subsystem = "virtual/nvme-subsystem/nvme-subsys1";
    tree.disk("nvme1n1", subsystem, 259, 64 * GIB);
    tree.write(&format!("sys/devices/{subsystem}/model"), &format!("{EBS}\n"));
    tree.write(&format!("sys/devices/{subsystem}/serial"), "vol01a2b3c4d5e6f7a8b\n");
    tree.symlink(&format!("sys/devices/{subsystem}/nvme1n1/device"), &format!("sys/devices/{subsystem}"));
    // Its paths are in /sys/block too, hidden and without a device number.
    let path = "sys/devices/virtual/nvme-fabrics/ctl/nvme1/nvme1c1n1";
    tree.write(&format!("{path}/hidden"), "1\n");
    tree.symlink("sys/block/nvme1c1n1", path);
    insta::assert_snapshot!(roles(&tree.discover()), @r"
        nvme1n1 ebs
        nvme0n1 boot: carries / and the state directory through nvme0n1p1; /boot/efi through nvme0n1p128
    ");
}
