# Stacks below the root itself: the agent runs in a mount namespace whose / is the stack.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"
source "$(dirname "$0")/boot-common.sh"

modprobe -a raid1 btrfs fuse
start_fake

# root_on MOUNT_POINT DISKS EXPECTED [UNCHANGED]: as protected, but the agent sees the file system at MOUNT_POINT as its /, on a node that
# was never provisioned. The rules name only these disks: the others are mounted, but not as part of the system.
root_on() {
    ROOT=$1
    RULED="$2 dm-* md* $FREE"
    protected "${4-$2}" "$3"
    ROOT=
    quiet 0 close
    rm -rf /etc/luks-agent/state
    blkdiscard -f "/dev/$FREE" 2>/run/out
}

say "LVM on LUKS on a partition, and on a disk"
partitions ubdb 1 20
luks /dev/ubdb1 pv
vg vg /dev/mapper/pv /dev/ubdc
lv --stripes 2 -l 20 -n root vg
on /dev/vg/root /media/lvm
root_on /media/lvm "ubdb ubdc" "ubdb carries / through vg-root, pv, ubdb1
ubdc carries / through vg-root
pv carries / through vg-root
vg-root carries /"
umount /media/lvm
vgchange --quiet -an vg
cryptsetup close pv

say "a partition of a mirror"
raid /dev/md127 --level=1 --raid-devices=2 /dev/ubdd /dev/ubde
partitions md127 1
on /dev/md127p1 /media/md
root_on /media/md "ubdd ubde" "ubdd carries / through md127p1, md127
ubde carries / through md127p1, md127
md127 carries / through md127p1"
umount /media/md
mdadm --stop --quiet /dev/md127

say "a subvolume of btrfs on two disks"
chatter mkfs.btrfs -q -M -d single -m single /dev/ubdh /dev/ubdi
mkdir -p /media/btrfs
mount /dev/ubdh /media/btrfs
btrfs subvolume create /media/btrfs/root >/run/out
umount /media/btrfs
mount_it /dev/ubdi /media/btrfs subvol=root
root_on /media/btrfs "ubdh ubdi" "ubdh carries /
ubdi carries /"

say "an overlay with its upper directory on a disk"
partitions ubdf 1
mkfs.ext4 -q /dev/ubdf1
mkdir -p /media/{disk,overlay}
mount /dev/ubdf1 /media/disk
mkdir -p /media/disk/{upper,work} /run/empty
# below /run, which stays where it is when the root changes
mkdir -p /run/layers
mount --bind /media/disk /run/layers
mount_it overlay /media/overlay lowerdir=/run/empty,upperdir=/run/layers/upper,workdir=/run/layers/work overlay
root_on /media/overlay "ubdf" "ubdf carries / through overlay layer /run/layers/upper, ubdf1" ubdf-1
umount /media/overlay

say "a FUSE file system, which does not lock the disk"
mkfs.ext4 -q /dev/ubdg
mount_it /dev/ubdg /media/fuse
umount /media/fuse
chatter fuse2fs -o ro /dev/ubdg /media/fuse
root_on /media/fuse "ubdg" "ubdg carries /"
