# Mount points survive a power cut, and the agent reports why it cannot create one.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"

at=/parent/deep/data
start_fake
{
    printf '[filesystem]\ntype = "ext4"\nmount_base = "%s"\n' $at
    printf '[[volumes.match]]\npath = "/dev/ubdb"\nrole = "ebs"\n'
} | config "$KEY_ARN"
# stands for the boot volume; with commit=600, data that nobody syncs reaches the disk only after the test
mkfs.ext4 -q -m 0 -E lazy_itable_init=0 /dev/ubdc 24M
mkdir /parent
mount -o commit=600 /dev/ubdc /parent

say "a power cut right after the first provision leaves the mount point"
expect_agent 0 provision
findmnt -n $at
dd if=/dev/ubdc of=/dev/ubdd bs=1M iflag=direct oflag=direct status=none
mkdir /mnt-cut
mount /dev/ubdd /mnt-cut
[[ -d /mnt-cut/deep/data ]] || fail "the mount point is gone after the power cut: $(find /mnt-cut)"
umount /mnt-cut

say "no space for it"
expect_agent 0 close
rmdir $at
dd if=/dev/zero of=/parent/fill bs=4k status=none 2>/run/dd || :
sync -f /parent
expect_agent 1 unlock
assert_said "cannot create mount point $at: No space left on device" "free some space there, then run 'luks-agent unlock'"
expect_agent 1 health
assert_said "not mounted at $at"
rm /parent/fill
sync -f /parent
expect_agent 0 unlock
findmnt -n $at

say "no way to write"
expect_agent 0 close
rmdir $at
mount -o remount,ro /parent
expect_agent 1 unlock
assert_said "cannot create mount point $at: Read-only file system" "for example in the image"
mount -o remount,rw /parent
expect_agent 0 unlock
