# close closes a volume completely or not at all: it names who holds the volume, and changes nothing. For a shutdown it closes as much as it
# can.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"

# table MAPPING: prints where and with which options a volume is mounted.
table() { findmnt -rno TARGET,FSROOT,OPTIONS,PROPAGATION -S "$1" | sort; }

# held TEXT...: close prints every TEXT about who holds the volume at $at, and does not change that volume; it closes the other one.
held() {
    local before
    [[ -e /dev/mapper/${other##*/} ]] || expect_agent 0 unlock
    before=$(table "$mapping")
    expect_agent 1 close
    assert_said "1 of 2 closed" "nothing was changed" "$@"
    [[ -e $mapping && ! -e $other ]] || fail "expected only the held volume to be open: $(dmsetup ls)"
    assert_eq "$(table "$mapping")" "$before" "the mounts of the held volume"
}

start_fake
ext4_volumes '/dev/ubd[bc]' ebs
# commit=77 is not a default, and belongs to the file system, not to the mount point
sed -i 's/^type = .*/&\noptions = ["noatime", "commit=77", "errors=remount-ro"]/' "$CONFIG"
# as systemd sets it
mount --make-rshared /
expect_agent 0 provision
at=/data
mapping=$(findmnt -no SOURCE "$at")
other=$(findmnt -no SOURCE "${at}1")
assert_contains "$(table "$mapping")" commit=77 "the options of the mount"

say "processes: a file, a working directory, a program, memory, the mapping itself"
exec 7>"$at/held"
held "process $BASHPID (" ") has open $at/held"
exec 7>&-
(cd "$at" && exec sleep 1000) &
sleeper=$!
wait_for 30 test "/proc/$sleeper/cwd" -ef "$at"
held "process $sleeper (sleep) has its working directory in $at"
kill "$sleeper"
wait "$sleeper" || true
cp "$(command -v sleep)" "$at/program"
"$at/program" 1000 &
runs=$!
wait_for 30 test "/proc/$runs/exe" -ef "$at/program"
held "process $runs (program) runs $at/program"
kill "$runs"
wait "$runs" || true
python3 -c 'import mmap, os, sys, time
f = os.open(sys.argv[1], os.O_RDONLY)
m = mmap.mmap(f, 0, prot=mmap.PROT_READ)
os.close(f)
# closes the descriptor that the mmap object duplicated
for fd in range(3, 64):
    try: os.close(fd)
    except OSError: pass
time.sleep(1000)' "$at/program" &
maps=$!
wait_for 30 grep -q "$at/program" "/proc/$maps/maps"
sleep 1
held "process $maps (python3) has mapped $at/program"
kill "$maps"
wait "$maps" || true
exec 7<"$mapping"
held "process $BASHPID (" ") has open $mapping"
exec 7<&-

say "other mounts: over it, on it, made of it, of it"
mount -t tmpfs foreign "$at"
held "foreign is mounted on it at $at"
findmnt -n -t tmpfs "$at" || fail "the mount over the volume is gone"
umount "$at"
mkdir "$at/dir" "$at/upper" "$at/work" /srv/bound /srv/overlay
mount -t tmpfs foreign "$at/dir"
held "foreign is mounted on it at $at/dir"
umount "$at/dir"
mount -t overlay -o "lowerdir=/srv/bound,upperdir=$at/upper,workdir=$at/work" overlay /srv/overlay
held "the overlay at /srv/overlay uses it"
umount /srv/overlay
mount --bind "$at/dir" /srv/bound
mount -o remount,bind,nosuid,nodev /srv/bound
mount --make-private /srv/bound
held "it is also mounted at /srv/bound"
umount /srv/bound

say "a mount namespace in which the volume would stay mounted, and one that follows the unmount"
own=$(readlink /proc/self/ns/mnt)
is_apart() { [[ $(readlink "/proc/$apart/ns/mnt") != "$own" ]]; }
unshare --mount --propagation private sleep 1000 &
apart=$!
wait_for 60 is_apart
held "process $apart (sleep) has it mounted at $at in another mount namespace"
kill "$apart"
wait "$apart" || true
unshare --mount --propagation slave sh -c "cd $at && exec sleep 1000" &
apart=$!
wait_for 60 is_apart
wait_for 30 test "/proc/$apart/cwd" -ef "$at"
expect_agent 0 unlock
expect_agent 1 close "$mapping"
assert_said "process $apart (sleep) has its working directory in $at" "nothing was changed"
findmnt -n "$at"
kill "$apart"
wait "$apart" || true
unshare --mount --propagation slave sleep 1000 &
apart=$!
wait_for 60 is_apart
expect_agent 0 close
assert_said "2 of 2 closed"
kill "$apart"
wait "$apart" || true
expect_agent 0 unlock

say "swap, a loop device, a stacked device"
dd if=/dev/zero of="$at/swap" bs=1M count=4 status=none
chmod 600 "$at/swap"
mkswap -q "$at/swap"
swapon "$at/swap"
held "$at/swap is in use as swap"
swapoff "$at/swap"
modprobe loop
loop=$(losetup --find --show "$at/swap")
held "a loop device uses $at/swap"
losetup --detach "$loop"
umount "$at"
dmsetup create stacked --table "0 8 linear $mapping 0"
expect_agent 1 close "$mapping"
assert_said "nothing was changed: device dm-" "(stacked) is stacked on it"
dmsetup remove stacked
expect_agent 0 unlock
findmnt -n "$at"

say "close waits up to a second for a process to let go"
(sleep 0.7) <"$mapping" &
expect_agent 0 close "$mapping"
expect_agent 0 unlock

say "an invisible holder: the volume is mounted again as before"
# a mount namespace without a process
touch /run/namespace
mount --bind /run/namespace /run/namespace
mount --make-private /run/namespace
unshare --mount=/run/namespace --propagation private umount "${at}1"
before=$(table "$mapping")
expect_agent 1 close "$mapping"
assert_said "it stays open and is mounted at $at again" "0 of 1 closed"
assert_eq "$(table "$mapping")" "$before" "the mounts of the volume that could not be closed"

say "for a shutdown, with the unit's capabilities: close closes what it can, and mounts nothing again"
as_unit luks-agent-boot.service ExecStop 1
assert_said "1 of 2 closed" "it is still in use: mapping ${mapping##*/} is open, but no process that uses it was found"
[[ -z $(table "$mapping") ]] || fail "the volume was mounted again"
umount /run/namespace /run/namespace
expect_agent 0 unlock
mount --bind "$at/dir" /srv/bound
setpriv --reuid=65534 --regid=65534 --clear-groups sh -c "cd $at/dir && exec sleep 1000" &
sleeper=$!
wait_for 30 test "/proc/$sleeper/cwd" -ef "$at/dir"
mount -t tmpfs foreign /data1
as_unit luks-agent-boot.service ExecStop 1
assert_said "0 of 2 closed" "process $sleeper (sleep) has its working directory in $at/dir" "foreign is mounted on it at /data1"
run_expect 1 findmnt -n /srv/bound
findmnt -n "$at"
findmnt -n -t tmpfs /data1
kill "$sleeper"
wait "$sleeper" || true
umount /data1
as_unit luks-agent-boot.service ExecStop
assert_said "2 of 2 closed"
