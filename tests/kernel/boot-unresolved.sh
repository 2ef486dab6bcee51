# If the agent cannot find the boot disks, it formats nothing at all.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"
source "$(dirname "$0")/boot-common.sh"

modprobe -a btrfs fuse
start_fake
RULED="ubdb $FREE"
partitions ubdb 1
mkdir -p /run/empty

say "the root is in memory"
mount_it tmpfs /media/memory mode=755 tmpfs
ROOT=/media/memory
refused "cannot find out which disks carry /: its file system does not lie on a disk"

say "an overlay over another machine's files, its upper directory in memory"
ROOT=
mkdir -p /run/layers/{upper,work}
mount_it overlay /media/overlay lowerdir=/run/empty,upperdir=/run/layers/upper,workdir=/run/layers/work overlay
ROOT=/media/overlay
refused "cannot find out which disks carry /: its file system does not lie on a disk"

say "an overlay whose upper directory is on a disk that is no longer mounted in sight"
ROOT=
mkfs.ext4 -q /dev/ubdb1
mkdir -p /run/hidden
mount /dev/ubdb1 /run/hidden
mkdir /run/hidden/{upper,work}
mount_it overlay /media/hidden lowerdir=/run/empty,upperdir=/run/hidden/upper,workdir=/run/hidden/work overlay
umount --lazy /run/hidden
ROOT=/media/hidden
# in use, says the worker that cannot open it: 1
refused "cannot find out which disks carry /: cannot read /run/hidden/upper: No such file or directory (os error 2)" 1
mkdir -p /run/hidden/{upper,work}
refused "cannot find out which disks carry /: its file system does not lie on a disk" 1

ROOT=
umount /media/hidden

say "/boot is a FUSE file system of unknown origin"
cat >/run/mount.py <<'END'
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
fuse = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0".encode()
if libc.mount(b"archive", sys.argv[1].encode(), b"fuse.archive", 0, options):
    raise SystemExit(f"mount: {ctypes.get_errno()}")
print("mounted", flush=True)
sys.stdin.read()
END
mkfifo /run/hold
python3 /run/mount.py /boot </run/hold >/run/mounted &
mounter=$!
exec 9>/run/hold
wait_for 10 grep -q mounted /run/mounted
refused "cannot find out which disks carry /boot: unsupported file system fuse.archive ('archive' on /boot): cannot tell which disks it is on"
exec 9>&-
wait "$mounter"
umount /boot

say "parts of sysfs are missing"
on /dev/ubdd /boot
hide() { mount -t tmpfs tmpfs "$1"; }
slaves=/sys/devices/platform/uml-blkdev.3/block/ubdd/slaves
hide "${slaves%/*}"
refused "cannot find out which disks carry /boot: cannot read $slaves: No such file or directory (os error 2)"
umount "${slaves%/*}"
hide /sys/class/block
refused "cannot find out which disks carry the journal of a file system: /sys/class/block contains '', expected at least one disk"
umount /sys/class/block
# the workers miss it as well: nothing can be examined
hide /sys/dev/block
refused "is now a different disk: disk sequence number" 1
umount /sys/dev/block
umount /boot
chatter mkfs.btrfs -q -M /dev/ubdh
mount_it /dev/ubdh /boot
hide /sys/fs/btrfs
refused "cannot find out which disks carry /boot: /sys/fs/btrfs lists no btrfs file system with device 'ubdh'"
umount /sys/fs/btrfs
umount /boot

say "the list of swap is hidden"
mount --bind /dev/null /proc/swaps
refused "cannot find out which disks carry swap: /proc/swaps is empty"
umount /proc/swaps
