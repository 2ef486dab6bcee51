//! Images of disks that are not blank, made by Debian's own tools; what no tool of Debian makes is written as its format
//! documents it.
//!
//! Those of [`FILES`] are made in plain files, without privileges. Those of [`DISKS`] need a block device or device-mapper:
//! they are made inside a node (`tests/kernel/corpus-make.sh`).

use std::path::Path;
use std::process::Command;

/// One image.
#[derive(Debug, Clone, Copy)]
pub struct Image {
    /// Says what it is.
    pub name: &'static str,
    /// Size in MiB.
    pub mib: u64,
    /// What a refusal must say of it.
    pub expect: &'static str,
    /// Shell text that makes it, with the functions of `tests/kernel/corpus-lib.sh`, on `$I`, which is all zero.
    pub make: &'static str,
}

const fn image(name: &'static str, mib: u64, expect: &'static str, make: &'static str) -> Image {
    Image { name, mib, expect, make }
}

/// The smallest volume that the agent takes is 32 MiB.
const S: u64 = 33;

/// Programs that make images, and their packages. Those that newer releases of Debian have given up are not among them: the recipes
/// make do without (`tests/kernel/corpus-lib.sh`).
pub const PROGRAMS: &[(&str, &str)] = &[
    ("cryptsetup", "cryptsetup-bin"),
    ("drbdmeta", "drbd-utils"),
    ("genromfs", "genromfs"),
    ("integritysetup", "cryptsetup-bin"),
    ("make-bcache", "bcache-tools"),
    ("makefs", "makefs"),
    ("mdadm", "mdadm"),
    ("mke2fs", "e2fsprogs"),
    ("mkfs.bfs", "util-linux"),
    ("mkfs.btrfs", "btrfs-progs"),
    ("mkfs.cramfs", "util-linux-extra"),
    ("mkfs.erofs", "erofs-utils"),
    ("mkfs.exfat", "exfatprogs"),
    ("mkfs.f2fs", "f2fs-tools"),
    ("mkfs.gfs2", "gfs2-utils"),
    ("mkfs.jfs", "jfsutils"),
    ("mkfs.minix", "util-linux"),
    ("mkfs.nilfs2", "nilfs-tools"),
    ("mkfs.ntfs", "ntfs-3g"),
    ("mkfs.ocfs2", "ocfs2-tools"),
    ("mkfs.ubifs", "mtd-utils"),
    ("mkfs.udf", "udftools"),
    ("mkfs.vfat", "dosfstools"),
    ("mkfs.xfs", "xfsprogs"),
    ("mksquashfs", "squashfs-tools"),
    ("parted", "parted"),
    ("pvcreate", "lvm2"),
    ("python3", "python3"),
    ("qemu-img", "qemu-utils"),
    ("sfdisk", "fdisk"),
    ("sgdisk", "gdisk"),
    ("sqlite3", "sqlite3"),
    ("veritysetup", "cryptsetup-bin"),
    ("xorriso", "xorriso"),
];

/// Made in plain files.
pub const FILES: &[Image] = &[
    // file systems
    image("ext2", S, "ext2 at byte 1080", "mke2fs -q -F -t ext2 $I"),
    image("ext3", S, "ext3 at byte 1080", "mke2fs -q -F -t ext3 $I"),
    image("ext4", S, "ext4 at byte 1080", "mke2fs -q -F -t ext4 -d $T/tree $I"),
    image("ext4 of 2 GiB", 2048, "ext4 at byte 1080", "mke2fs -q -F -t ext4 $I"),
    image("ext4, its superblock with a bit flipped", S, "ext4 at byte 1080", "mke2fs -q -F -t ext4 $I; put 1040 42"),
    image(
        "ext4 without its first superblock, backups left",
        S,
        "first seen at byte",
        "mke2fs -q -F -t ext4 -b 1024 $I; zero 0 2048",
    ),
    image("ext4 journal of its own", S, "jbd at byte 1080", "mke2fs -q -F -b 1024 -O journal_dev $I"),
    image("xfs", 320, "xfs at byte 0", "mkfs.xfs -q $I"),
    image("xfs without its first sector", 320, "first seen at byte 512", "mkfs.xfs -q $I; zero 0 512"),
    image(
        "xfs log of its own",
        80,
        "xfs_external_log at byte 0",
        "truncate -s 320M $T/data; mkfs.xfs -q -l logdev=$I,size=64m -d name=$T/data",
    ),
    image("btrfs", 128, "btrfs at byte 65600", "mkfs.btrfs -q $I"),
    image("btrfs without its first superblock", 128, "first seen at byte", "mkfs.btrfs -q $I; zero 65536 4096"),
    image("f2fs", 64, "f2fs at byte 1024", "mkfs.f2fs -q $I"),
    image("fat12", S, "vfat at byte", "mkfs.vfat -F 12 -s 64 $I"),
    image("fat32", 64, "vfat at byte", "mkfs.vfat -F 32 $I"),
    image("fat32 without its first sector", 64, "first seen at byte 512", "mkfs.vfat -F 32 $I; zero 0 512"),
    image("exfat", S, "exfat at byte 3", "mkfs.exfat $I"),
    image("ntfs", S, "ntfs at byte 3", "mkfs.ntfs -q -Q -F $I"),
    image("ntfs without its first sector", S, "first seen at byte", "mkfs.ntfs -q -Q -F $I; zero 0 512"),
    image("iso9660", S, "iso9660 at byte 32769", "iso $T/iso; over $T/iso"),
    image("hybrid iso", S, "iso9660 at byte 32769", "iso $T/iso -partition_offset 16; over $T/iso"),
    image("iso for a Mac", S, "mac partition table", "iso $T/iso -hfsplus; over $T/iso"),
    image("hfs+ (by hand)", S, "hfsplus at byte 1024", "put 1024 482b0004; put 1064 00001000 00002000"),
    image("hfs", S, "hfs at byte 1024", "hfs"),
    image("udf", S, "udf at byte", "mkfs.udf $I"),
    image("squashfs", S, "squashfs at byte 0", "mksquashfs $T/tree $T/sq -quiet -no-progress; over $T/sq"),
    image("erofs", S, "erofs at byte 1024", "mkfs.erofs $T/erofs $T/tree; over $T/erofs"),
    image("cramfs", S, "cramfs at byte 0", "mkfs.cramfs $T/tree $T/cramfs; over $T/cramfs"),
    image("romfs", S, "romfs at byte 0", "genromfs -d $T/tree -f $T/romfs; over $T/romfs"),
    image("minix", S, "minix at byte 1040", "mkfs.minix -2 $I"),
    image("bfs", S, "bfs at byte 0", "mkfs.bfs $I"),
    image("jfs", S, "jfs at byte 32768", "mkfs.jfs -q $I"),
    image("reiserfs", 64, "reiserfs at byte 65588", "reiserfs"),
    image("reiser4", S, "reiser4 at byte 65536", "reiser4"),
    image("ufs", S, "ufs at byte", "makefs -t ffs -s 32m $T/ufs $T/tree; over $T/ufs"),
    image("gfs2", 64, "gfs2 at byte 65536", "mkfs.gfs2 -q -O -p lock_nolock -j 1 -J 8 $I"),
    image("ubi with ubifs", S, "ubi at byte 0", "ubi $T/ubi; over $T/ubi"),
    image("apfs (by hand)", S, "apfs at byte 32", "put 24 01; put 32 4e585342 00100000; put 72 $U"),
    image("refs (by hand)", S, "ReFS at byte 0", "put 0 0000005265465300"),
    image("vmfs (by hand)", S, "VMFS at byte 2097152", "put 2097152 5ef1ab2f"),
    image("vmfs volume (by hand)", S, "VMFS_volume_member at byte 1048576", "put 1048576 0dd001c0"),
    image("bcachefs (by hand)", S, "first seen at byte 4096", "put 4096 $U; put 4120 c68573f64e1a45ca8265f57f48ba6d81"),
    // swap
    image("swap", S, "swap at byte 4086", "mkswap -q $I"),
    image(
        "swap that holds a hibernated system (by hand)",
        S,
        "swsuspend at byte 4086",
        "mkswap -q $I; put 4086 533153555350454e44",
    ),
    // encryption
    image("luks1", S, "crypto_LUKS at byte 0", "luks luksFormat --type luks1"),
    image("luks2", S, "LUKS2 volume", "luks luksFormat --type luks2"),
    image("luks2 without its primary header", S, "LUKS2 volume", "luks luksFormat --type luks2; zero 0 16384"),
    image("luks2 without its secondary header", S, "LUKS2 volume", "luks luksFormat --type luks2; zero 16384 16384"),
    image(
        "luks2 with neither header, keyslots and data left",
        S,
        // the first byte of a keyslot is zero once in 256 times
        "first seen at byte 327",
        "luks luksFormat --type luks2; zero 0 32768; random $((16 * M)) $((4 * M))",
    ),
    image("luks2 with its header elsewhere (random bytes)", S, "first seen at byte 0", "random 0 $((S * M))"),
    image("dm-verity hashes", S, "DM_verity_hash at byte 0", "veritysetup format $T/tree.ext4 $I"),
    image("BitLocker (by hand)", S, "BitLocker at byte 0", "bitlocker"),
    // volume managers and storage systems
    image("drbd", S, "drbd at byte", "drbdmeta --force 0 v08 $I internal create-md"),
    image("zfs (by hand)", 80, "zfs_member at byte", "zfs"),
    image(
        "ceph bluestore (by hand)",
        S,
        "ceph_bluestore at byte 0",
        "text 0 \"bluestore block device\n$(cat /proc/sys/kernel/random/uuid)\n\"",
    ),
    image("vdo (by hand)", S, "vdo at byte 0", "text 0 dmvdo001"),
    image("stratis (by hand)", S, "stratis at byte", "stratis"),
    image("Oracle ASM (by hand)", S, "oracleasm at byte 32", "put 0 01820101; text 32 ORCLDISKDATA01"),
    // partition tables
    image("gpt", S, "gpt partition table", "sgdisk --new=1:2048:+8M $I"),
    image("gpt without partitions", S, "gpt partition table", "sgdisk --clear $I"),
    image("gpt without its primary header", S, "gpt partition table", "sgdisk --new=1:2048:+8M $I; zero 512 512"),
    image("gpt of which only the backup is left", S, "first seen at byte", "sgdisk --new=1:2048:+8M $I; zero 0 $M"),
    image("protective mbr alone", S, "PMBR partition table", "sgdisk --clear $I; zero 512 $((S * M - 512))"),
    image("mbr", S, "dos partition table", "sfdisk -q $I <<<'label: dos\nsize=8MiB'"),
    image("mbr without partitions", S, "dos partition table", "sfdisk -q $I <<<'label: dos'"),
    image("sun disklabel", S, "sun partition table", "parted -s $I mklabel sun"),
    image("sgi disklabel", S, "sgi partition table", "parted -s $I mklabel dvh"),
    image("bsd disklabel", S, "first seen at byte 64", "parted -s $I mklabel bsd"),
    image("mac partition map", S, "mac partition table", "parted -s $I mklabel mac"),
    image(
        "atari partition table",
        S,
        "atari partition table",
        "parted -s $I mklabel atari; parted -s $I mkpart primary ext2 1MiB 8MiB",
    ),
    // data without a file system
    image("tar at 0", S, "first seen at byte 0", "tar -C $T/tree -cf $I . ; truncate -s ${S}M $I"),
    image(
        "SQLite database",
        S,
        "first seen at byte 0",
        "sqlite3 $T/db 'create table t (a); insert into t values (1)'; over $T/db",
    ),
    image(
        "PostgreSQL pages (by hand)",
        S,
        "first seen at byte 4",
        "put 4 2801fa3b; put 12 1c00d81f; put 8160 $U; put 8192 $U",
    ),
    image("InnoDB tablespace (by hand)", S, "first seen at byte 0", "put 0 a3cc0f7e; put 24 0008; put 16384 $U"),
    image("Oracle data file (by hand)", S, "first seen at byte 1", "put 1 a20000; put 28 5d5c5b5a"),
    image("qcow2", S, "first seen at byte 0", "qemu-img create -q -f qcow2 $T/qcow2 1G; over $T/qcow2"),
    image("a page of ones at the start", S, "first seen at byte 0", "text 0 $(printf '1%.0s' {1..4096})"),
    image("one byte, the first", S, "first seen at byte 0", "put 0 01"),
    image("one byte in the middle", S, "first seen at byte 17301504", "put 17301504 01"),
    image("one byte, the last", S, "first seen at byte 34603007", "put $((S * M - 1)) 01"),
    image("one byte, the last of 1 GiB", 1024, "first seen at byte 1073741823", "put 1073741823 80"),
    image("one byte at 1 GiB exactly", 1100, "first seen at byte 1073741824", "put 1073741824 80"),
    image("one byte, the last of 3 GiB", 3072, "first seen at byte 3221225471", "put $((3072 * M - 1)) 80"),
    image("one byte, the last of the first 256 MiB", 3072, "first seen at byte 268435455", "put $((256 * M - 1)) 80"),
];

/// Made on block devices inside a node.
pub const DISKS: &[Image] = &[
    image("LVM physical volume", S, "LVM2_member at byte 536", "pvcreate -q $I"),
    image(
        "LVM physical volume with label in sector 3",
        S,
        "LVM2_member at byte 1560",
        "pvcreate -q --labelsector 3 $I",
    ),
    image("LVM physical volume without its first sector", S, "LVM2_member at byte 536", "pvcreate -q $I; zero 0 512"),
    image("LVM with ext4 on a logical volume", S, "LVM2_member at byte 536", "lvm_ext4"),
    image("md 0.90", S, "linux_raid_member at byte", "md 0.90"),
    image("md 1.0", S, "linux_raid_member at byte", "md 1.0"),
    image("md 1.1", S, "linux_raid_member at byte 0", "md 1.1"),
    image("md 1.2", S, "linux_raid_member at byte 4096", "md 1.2"),
    image("md with ddf", S, "ddf_raid_member at byte", "container ddf"),
    image("md with imsm", S, "isw_raid_member at byte", "container imsm"),
    // these two want an /etc/mtab, which not every machine has
    image("nilfs2", 136, "nilfs2 at byte 1030", "mkfs.nilfs2 -q $I"),
    image(
        "ocfs2",
        64,
        "ocfs2 at byte",
        "mkfs.ocfs2 -q -x -F -M local -N 1 --fs-feature-level=max-compat $I </dev/null",
    ),
    image("bcache backing device", S, "bcache at byte 4120", "make-bcache -B $I"),
    image("bcache cache device", S, "bcache at byte 4120", "make-bcache -C --bucket 128k $I"),
    image("dm-integrity", S, "DM_integrity at byte 0", "integritysetup format -q $I"),
    // noise, which alone says nothing of what it is
    image("plain dm-crypt", S, "not blank: no signature and no structure in", "plain"),
    image("dm-snapshot's changes", S, "DM_snapshot_cow at byte 0", "snapshot"),
    image("luks2 of another luks-agent node", S, "made on i-0aaaaaaaaaaaaaaaa, and there is no state file", "ours"),
    image(
        "luks2 of another luks-agent node, primary header destroyed",
        S,
        "made on i-0aaaaaaaaaaaaaaaa, and there is no state file",
        "ours; zero 0 16384",
    ),
];

/// The sparse disk of the issue: 10 GiB, 64 MiB of data at a place behind the first GiB that differs from run to run.
///
/// The sampled scan always finds it. It reads at least 1,024 samples of 64 KiB between the first and the last 256 MiB, one in
/// every stride of (10 GiB - 512 MiB) / 1,024 = 9.5 MiB, so two neighbouring samples are never further apart than one stride,
/// and neither is the last of them from the 256 MiB that are read at the end: wherever 64 MiB of data lie, six samples or more
/// lie wholly within them, wherever the samples begin. Only data shorter than a stride could lie between two of them.
pub fn sparse(at: u64) -> (Image, String) {
    (image("64 MiB of data in 10 GiB", 10 << 10, "first seen at byte", ""), format!("random {at} $((64 * M))"))
}

/// # Panics
/// When a program that makes images is not installed: names its package.
pub fn check_programs() {
    let there = |program: &str| {
        ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].iter().any(|dir| Path::new(dir).join(program).exists())
    };
    let missing: Vec<_> = PROGRAMS.iter().filter(|(program, _)| !there(program)).collect();
    let missing: Vec<_> = missing.iter().map(|(program, package)| format!("{program} (package {package})")).collect();
    assert!(missing.is_empty(), "the corpus needs {}: run `scripts/deps.sh kernel`", missing.join(", "));
}

/// Shell text with the functions of the recipes before it.
pub fn run(image: &Path, mib: u64, scratch: &Path, text: &str) {
    let library = super::project_dir().join("tests/kernel/corpus-lib.sh");
    let output = Command::new("bash")
        .arg("-c")
        .arg(format!("source '{}'\n{text}", library.display()))
        .env_clear()
        .env("I", image)
        .env("S", mib.to_string())
        .env("T", scratch)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .output()
        .unwrap_or_else(|error| panic!("cannot run bash: {error}"));
    assert!(
        output.status.success(),
        "{text}: {}:\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
