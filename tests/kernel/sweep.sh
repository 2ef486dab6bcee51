# The crash sweeps on a node with an instance store volume on ubdb and an EBS volume on ubdc, a foreign disk with data (ubdd), and a blank
# disk that the agent does not manage (ubde).
#
#   sweep.sh prepare         prepares the starting states of the points, and prints how many points there are
#   sweep.sh points POINT... tries points (examples/crash/point.rs), and prints a line for each: "-- point POINT ok|missed|BAD ..."
#
# A point is one of these. With `:reboot` at the end, the volumes are closed and unlocked at the end:
#
#   SCENARIO/PROCESS:N[:cold]  runs provision, and kills one of its processes at the Nth system call that can change anything. With
#                              `cold`, everything is closed before the next provision, as at a reboot.
#                              Scenarios: `first`, both disks are blank and there is no state; `later`, the EBS volume has data and the
#                              instance store came back blank; `again`, both formats were interrupted before.
#                              Processes: agent, worker.N (the Nth process that it starts), tool.N (that workers start).
#   power/STATE:B:C[:LOSE]     after a power cut: ubdb and ubdc have the first B and C writes of a provision, without some writes since
#                              the last flush, which the number LOSE selects. The state file is version number STATE.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"

base=/var/lib/sweep
disks=(ubdb ubdc)
logs=(ubdf ubdg)
mounts=(/data /data1)

# roles PREFIX: writes a configuration with roles for the disks PREFIXb and PREFIXc.
roles() { ext4_volumes "$1b" instance-store "$1c" ebs; }

write_file() {
    head -c 50000 /dev/urandom >"$1/file"
    sync -f "$1"
}

close_all() {
    local name
    umount "${mounts[@]}"
    dmsetup ls | sed -n 's/^\(luks-[^\t]*\).*/\1/p' | while read -r name; do dmsetup remove --retry "$name"; done
}

# keep SCENARIO: saves the disks and the state file, with which the scenario begins.
keep() {
    local disk
    mkdir -p "$base/$1"
    cp -a "${STATE%/*}" "$base/$1/state"
    for disk in "${disks[@]}"; do dd if="/dev/$disk" of="$base/$1/$disk" bs=1M conv=sparse status=none; done
}

# trace ARGS...: traces a provision.
trace() {
    "$CRASH" trace --list /run/list --output /run/traced "$@" -- "$LUKS_AGENT" provision || { cat /run/traced; fail "provision"; }
}

# list SCENARIO: prints the processes of the scenario that can be killed.
list() { sed "s|^process |process $1/|" /run/list; }

# Records a provision of blank disks. dm-log-writes logs the writes to the disks. Both logs get a mark at each version of the state file,
# and one when each volume has a synced file.
record() {
    local i disk log hook name power=$base/power
    modprobe dm-log-writes
    mkdir -p "$power/state"
    for i in 0 1; do
        disk=/dev/${disks[i]} log=/dev/${logs[i]}
        dmsetup create "log${disk: -1}" --table "0 $(blockdev --getsz "$disk") log-writes $disk $log"
    done
    roles /dev/mapper/log
    hook="n=\$(ls $power/state | wc -l); n=\$((n + 1)); cp $STATE $power/state/\$n
        dmsetup message logb 0 mark \$n; dmsetup message logc 0 mark \$n"
    trace --on-rename "$hook"
    # removes the checksum, because the files are edited below; it is the last field, and keyslots have their own
    sed -i -z 's/,\n *"sha256": "[0-9a-f]*"\(\n}\n*\)$/\1/' "$power"/state/*
    for i in 0 1; do
        disk=${disks[i]}
        # records the disk itself instead of the logging device that the agent saw
        name=$(basename "$(readlink -f "/sys/dev/block/$(stat -L -c %Hr:%Lr "/dev/mapper/log${disk: -1}")")")
        sed -i -z "s/null,\n *\"device\": \"$name\"/\"serial-$disk\",\n      \"device\": \"$disk\"/" "$power"/state/*
        write_file "${mounts[i]}"
        cp "${mounts[i]}/file" "$power/file.$disk"
        # the UUID of an ext4 file system is at byte 104 of the superblock, which is at byte 1024
        dd if="$(findmnt -no SOURCE "${mounts[i]}")" of="$power/filesystem.$disk" bs=1 skip=1128 count=16 status=none
    done
    dmsetup message logb 0 mark file
    dmsetup message logc 0 mark file
    # not synced, so it may be lost
    for i in 0 1; do head -c 300000 /dev/urandom >"${mounts[i]}/more"; done
    close_all
    for i in 0 1; do
        dmsetup remove --retry "log${disks[i]: -1}"
        "$CRASH" log "${disks[i]}" "/dev/${logs[i]}"
    done
    roles /dev/ubd
}

start_fake
case $1 in
prepare)
    mkdir -p "$base/first"
    mkfs.ext4 -q -F /dev/ubdd
    dd if=/dev/urandom of=/dev/ubdd bs=1M count=2 seek=2 conv=notrunc status=none
    dd if=/dev/ubdd of="$base/ubdd" bs=1M status=none

    record
    list first

    say "provisioned, but the instance store comes back blank"
    cp -a "$base/power/state/4" "$STATE"
    agent unlock
    write_file /data1
    close_all
    blkdiscard --force --zeroout /dev/ubdb
    keep later
    trace
    list later
    close_all

    say "a power cut before one volume had a keyslot, and before the other had a file system"
    "$CRASH" rebuild "/dev/${logs[0]}" /dev/ubdb 45
    "$CRASH" rebuild "/dev/${logs[1]}" /dev/ubdc 100
    cp -a "$base/power/state/2" "$STATE"
    keep again
    trace
    list again
    close_all
    ;;
points)
    roles /dev/ubd
    "$CRASH" points "${@:2}"
    ;;
esac
