# The agent finds the boot disks below stacks of real devices. Many stacks are mounted at once: a file system on /boot counts even if the
# next one hides it.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"
source "$(dirname "$0")/boot-common.sh"

stacks_dm() {
    modprobe -a vfat nls_cp437 nls_ascii dm-snapshot dm-thin-pool dm-raid raid1 dm-multipath dm-round-robin dm-cache dm-cache-smq \
        dm-integrity dm-verity
    mkdir -p /boot/efi

    say "a disk with a partition for /boot/efi and one for swap, another without any"
    partitions ubdb 2
    mkfs.vfat /dev/ubdb1 >/run/out
    mount -o ro /dev/ubdb1 /boot/efi
    swap /dev/ubdb2
    on /dev/ubdo /boot

    say "LVM on a partition, with a snapshot"
    partitions ubdc 2
    vg first /dev/ubdc2
    lv -l 4 -n boot first
    lv --snapshot -l 4 -n older first/boot
    on /dev/first/boot /boot

    say "LVM, a snapshot of a thin volume"
    vg second /dev/ubdd /dev/ubde
    lv --type thin-pool --stripes 2 -l 16 --poolmetadatasize 2m -n pool second
    lv -V 30m --thinpool second/pool -n boot
    on /dev/second/boot /boot
    umount /boot
    lv --snapshot --setactivationskip n -n older second/boot
    mount -o ro /dev/second/older /boot

    say "LVM, mirrored"
    vg third /dev/ubdf /dev/ubdg
    lv --type raid1 --nosync -l 8 -n boot third
    on /dev/third/boot /efi

    say "LVM on LUKS"
    luks /dev/ubdh pv
    vg fourth /dev/mapper/pv
    lv -l 10 -n boot fourth
    on /dev/fourth/boot /boot

    say "a partition on dm-multipath, by a linear mapping"
    dmsetup create path --table "0 $(sectors /dev/ubdi) multipath 0 0 1 1 round-robin 0 1 1 /dev/ubdi 1000"
    dmsetup create path-part1 --table "0 20480 linear /dev/mapper/path 2048"
    on /dev/mapper/path-part1 /boot

    say "dm-cache"
    dmsetup create meta --table "0 8192 linear /dev/ubdk 0"
    dmsetup create fast --table "0 32768 linear /dev/ubdk 8192"
    dmsetup create cached --table "0 $(sectors /dev/ubdj) cache /dev/mapper/meta /dev/mapper/fast /dev/ubdj 512 1 writethrough default 0"
    on /dev/mapper/cached /boot

    say "dm-integrity"
    chatter integritysetup format --batch-mode --no-wipe /dev/ubdl
    chatter integritysetup open --integrity-recalculate /dev/ubdl whole
    on /dev/mapper/whole /boot

    say "dm-verity"
    mkfs.ext4 -q -b 4096 /dev/ubdm
    mount_it /dev/ubdm /boot
    umount /boot
    veritysetup format /dev/ubdm /dev/ubdn >/run/verity
    veritysetup open /dev/ubdm verified /dev/ubdn "$(sed -n 's/^Root hash:[[:space:]]*//p' /run/verity)"
    mount -o ro /dev/mapper/verified /boot

    # a mirror writes its own records at any time, so compare its halves instead of its disks
    protected "$(echo ubd{b..e} mapper/third-boot_rimage_{0,1} ubd{h..o})" "ubdb carries /boot/efi through ubdb1; swap through ubdb2
ubdo carries /boot
ubdc carries /boot through first-boot, first-boot-real, ubdc2
first-boot carries /boot
first-boot-real carries /boot through first-boot
first-older lies on ubdc, which carries /boot through first-boot, first-boot-real, ubdc2
first-older-cow lies on ubdc, which carries /boot through first-boot, first-boot-real, ubdc2
ubdd carries /boot through second-older, second-pool-tpool, second-pool_tdata
ubde carries /boot through second-older, second-pool-tpool, second-pool_tmeta
second-older carries /boot
second-pool-tpool carries /boot through second-older
second-pool_tdata carries /boot through second-older, second-pool-tpool
second-pool_tmeta carries /boot through second-older, second-pool-tpool
second-pool lies on second-pool-tpool, which carries /boot through second-older
second-boot lies on second-pool-tpool, which carries /boot through second-older
ubdf carries /efi through third-boot, third-boot_rmeta_0
ubdg carries /efi through third-boot, third-boot_rmeta_1
third-boot carries /efi
third-boot_rimage_0 carries /efi through third-boot
third-boot_rimage_1 carries /efi through third-boot
third-boot_rmeta_0 carries /efi through third-boot
third-boot_rmeta_1 carries /efi through third-boot
ubdh carries /boot through fourth-boot, pv
fourth-boot carries /boot
pv carries /boot through fourth-boot
ubdi carries /boot through path-part1, path
path carries /boot through path-part1
path-part1 carries /boot
ubdj carries /boot through cached
ubdk carries /boot through cached, meta
cached carries /boot
fast carries /boot through cached
meta carries /boot through cached
ubdl carries /boot through whole
whole carries /boot
ubdm carries /boot through verified
ubdn carries /boot through verified
verified carries /boot"
}

stacks_other() {
    modprobe -a raid0 raid1 raid456 btrfs loop

    say "md: a mirror of partitions with its superblock at the end"
    partitions ubdb 2
    partitions ubdc 2
    raid /dev/md0 --level=1 --metadata=1.0 --raid-devices=2 /dev/ubdb1 /dev/ubdc1
    on /dev/md0 /boot

    say "md: a partition on RAID 5"
    raid /dev/md127 --level=5 --raid-devices=3 /dev/ubdd /dev/ubde /dev/ubdf
    partitions md127 2
    on /dev/md127p2 /efi

    say "md: a mirror of metadata 0.90 with one half missing"
    raid /dev/md1 --level=1 --metadata=0.90 --raid-devices=2 /dev/ubdg missing
    on /dev/md1 /boot

    say "btrfs on a partition and a disk"
    partitions ubdh 1 40
    chatter mkfs.btrfs -q -M -d single -m single /dev/ubdh1 /dev/ubdi
    mount_it /dev/ubdh1 /boot

    say "btrfs: a subvolume, disks added later, the first one removed"
    chatter mkfs.btrfs -q -M /dev/ubdl
    mkdir -p /media/btrfs
    mount /dev/ubdl /media/btrfs
    btrfs subvolume create /media/btrfs/boot >/run/out
    btrfs device add -f /dev/ubdj /dev/ubdk /media/btrfs >/run/out
    btrfs device remove /dev/ubdl /media/btrfs
    umount /media/btrfs
    mount_it /dev/ubdj /boot subvol=boot
    blkdiscard -f /dev/ubdl 2>/run/out
    FREE="ubdl ubdp"

    say "a loop device with a partition"
    partitions ubdm 1 20
    mkfs.ext4 -q /dev/ubdm1
    mkdir -p /media/loop
    mount /dev/ubdm1 /media/loop
    truncate -s 16M "/media/loop/a disk.img"
    echo 'size=10MiB' | sfdisk -q --label gpt "/media/loop/a disk.img"
    losetup --partscan /dev/loop0 "/media/loop/a disk.img"
    on /dev/loop0p1 /boot

    say "a loop device on a disk"
    losetup /dev/loop1 /dev/ubdn
    on /dev/loop1 /boot

    say "/usr is an overlay with its upper directory on a disk"
    partitions ubdo 1
    mkfs.ext4 -q /dev/ubdo1
    mkdir -p /media/overlay
    mount /dev/ubdo1 /media/overlay
    mkdir /media/overlay/{upper,work}
    sync
    mount -t overlay -o lowerdir=/run/uml/lower/usr,upperdir=/media/overlay/upper,workdir=/media/overlay/work overlay /usr

    protected "$(echo ubd{b..k} ubdm-1 ubdn ubdo-1)" "ubdb carries /boot through md0, ubdb1
ubdc carries /boot through md0, ubdc1
md0 carries /boot
ubdd carries /efi through md127p2, md127
ubde carries /efi through md127p2, md127
ubdf carries /efi through md127p2, md127
md127 carries /efi through md127p2
ubdg carries /boot through md1
md1 carries /boot
ubdh carries /boot through ubdh1
ubdi carries /boot
ubdj carries /boot
ubdk carries /boot
ubdm carries /boot through loop0p1, loop0, /media/loop/a disk.img, ubdm1
loop0 carries /boot through loop0p1
ubdn carries /boot through loop1
loop1 carries /boot
ubdo carries /usr through overlay layer /media/overlay/upper, ubdo1"
}

stacks_more() {
    modprobe -a zram bcache

    say "swap: partition, disk, LVM, plain dm-crypt, file, compressed memory"
    partitions ubdb 2
    swap /dev/ubdb2
    swap /dev/ubdc
    vg vg /dev/ubdd
    lv -l 10 -n swap vg
    swap /dev/vg/swap
    head -c 32 /dev/urandom |
        cryptsetup open --type plain --key-file - --cipher aes-xts-plain64 --key-size 256 /dev/ubde swap
    swap /dev/mapper/swap
    partitions ubdf 1
    mkfs.ext4 -q /dev/ubdf1
    mkdir -p "/media/a disk"
    mount /dev/ubdf1 "/media/a disk"
    dd if=/dev/zero of="/media/a disk/swap" bs=1M count=4 status=none
    chmod 600 "/media/a disk/swap"
    swap "/media/a disk/swap"
    echo 16M >/sys/block/zram0/disksize
    swap /dev/zram0

    say "bcache"
    chatter make-bcache --bucket 64k -B /dev/ubdh -C /dev/ubdi
    for disk in ubdh ubdi; do echo "/dev/$disk" >/sys/fs/bcache/register || dmesg | tail -n 5; done
    wait_for 10 test -e /dev/bcache0
    on /dev/bcache0 /boot

    say "the log of XFS on another disk"
    chatter mkfs.xfs -f --unsupported -l logdev=/dev/ubdk /dev/ubdj
    mount_it /dev/ubdj /boot logdev=/dev/ubdk

    say "the journal of ext4 on another disk"
    chatter mkfs.ext4 -q -O journal_dev /dev/ubdm
    chatter mkfs.ext4 -q -J device=/dev/ubdm /dev/ubdl
    mount_it /dev/ubdl /boot

    say "a disk"
    on /dev/ubdo /efi

    say "/usr, hidden by another mount"
    mkfs.ext4 -q /dev/ubdn
    cat >/run/mount.py <<'END'
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
for source, kind, flags in [(b"/dev/ubdn", b"ext4", 1), (b"/run/uml/lower/usr", None, 4096)]:
    if libc.mount(source, b"/usr", kind, flags, None):
        raise SystemExit(f"mount {source}: {ctypes.get_errno()}")
END
    python3 /run/mount.py

    say "the state directory on a data disk"
    partitions ubdg 1
    mkfs.ext4 -q /dev/ubdg1
    mkdir -p /media/state
    mount /dev/ubdg1 /media/state
    STATE_DIR=/media/state/not/yet
    protected "$(echo ubd{b..e} ubd{f,g}-1 ubd{h..o})" "ubdo carries /efi
ubdb carries swap through ubdb2
ubdc carries swap
ubdd carries swap through vg-swap
vg-swap carries swap
ubde carries swap through swap
swap carries swap
ubdf carries swap through ubdf1
zram0 carries swap
ubdh carries /boot through bcache0
ubdi carries /boot through bcache0
bcache0 carries /boot
ubdj carries /boot
ubdk carries /boot
ubdl carries /boot
ubdm carries the journal of a file system
ubdn carries /usr
ubdg carries the state directory through ubdg1"
    umount /media/state
    chatter e2fsck -fn /dev/ubdg1
}

start_fake
"stacks_$1"
