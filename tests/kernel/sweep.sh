# The crash sweeps on a node with two volumes, an instance store one on ubdb and an EBS one on ubdc, beside a foreign disk
# with data (ubdd) and a blank one that is none of the agent's business (ubde).
#
#   sweep.sh prepare         makes what the points start from, and says how many points there are
#   sweep.sh points POINT... tries points (examples/crash/point.rs); a line for each: "-- point POINT ok|missed|BAD ..."
#
# A point is one of these, with `:reboot` behind it if the volumes are to be closed and unlocked in the end:
#
#   SCENARIO/PROCESS:N[:cold]  provision is run, and a process of it killed at its Nth system call that can change anything;
#                              with `cold` the node is closed down before the next provision, as at a reboot.
#                              Scenarios: `first`, both disks blank and no state; `later`, the EBS volume has data and the
#                              instance store came back blank; `again`, both formats were cut off before.
#                              Processes: agent, worker.N (the Nth process that it starts), tool.N (that workers start).
#   power/STATE:B:C[:LOSE]     after a power cut: ubdb and ubdc hold the first B and C writes of a provision (but for some
#                              since the last flush, chosen by the number LOSE), the state file is the STATEth there was.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"

base=/var/lib/sweep
disks=(ubdb ubdc)
logs=(ubdf ubdg)
mounts=(/data /data1)

# roles PREFIX: the roles of the disks PREFIXb and PREFIXc.
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

# keep SCENARIO: it begins with the disks and the state file as they are now.
keep() {
    local disk
    mkdir -p "$base/$1"
    cp -a "${STATE%/*}" "$base/$1/state"
    for disk in "${disks[@]}"; do dd if="/dev/$disk" of="$base/$1/$disk" bs=1M conv=sparse status=none; done
}

# trace ARGS...: provision, traced.
trace() {
    "$CRASH" trace --list /run/list --output /run/traced "$@" -- "$LUKS_AGENT" provision || { cat /run/traced; fail "provision"; }
}

# list SCENARIO: what there is to be killed in it.
list() { sed "s|^process |process $1/|" /run/list; }

# A provision of blank disks, recorded: dm-log-writes logs what reaches the disks, with a mark in both logs at each version of
# the state file, and one when there is a file on each volume that was synced.
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
    # they are about to be edited; the checksum is the last field, keyslots have one of their own
    sed -i -z 's/,\n *"sha256": "[0-9a-f]*"\(\n}\n*\)$/\1/' "$power"/state/*
    for i in 0 1; do
        disk=${disks[i]}
        # as it would be of the disk itself, which the agent did not see
        name=$(basename "$(readlink -f "/sys/dev/block/$(stat -L -c %Hr:%Lr "/dev/mapper/log${disk: -1}")")")
        sed -i -z "s/null,\n *\"device\": \"$name\"/\"serial-$disk\",\n      \"device\": \"$disk\"/" "$power"/state/*
        write_file "${mounts[i]}"
        cp "${mounts[i]}/file" "$power/file.$disk"
        # the UUID of an ext4 file system: superblock at byte 1024, at byte 104 of it
        dd if="$(findmnt -no SOURCE "${mounts[i]}")" of="$power/filesystem.$disk" bs=1 skip=1128 count=16 status=none
    done
    dmsetup message logb 0 mark file
    dmsetup message logc 0 mark file
    # not synced: it may be lost
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

    say "all is well, but the instance store comes back blank"
    cp -a "$base/power/state/4" "$STATE"
    agent unlock
    write_file /data1
    close_all
    blkdiscard --force --zeroout /dev/ubdb
    keep later
    trace
    list later
    close_all

    say "a power cut before one had a keyslot, and before the other had a file system"
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
