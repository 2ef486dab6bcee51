# The crash sweeps on a node with two volumes, an instance store one on ubdb and an EBS one on ubdc, beside a foreign disk
# with data (ubdd) and a blank one that is none of the agent's business (ubde).
#
#   sweep.sh prepare         makes what the points start from, and says how many points there are
#   sweep.sh points POINT... tries points; for each one line "point POINT ok|missed|BAD ..."
#
# A point is one of
#
#   SCENARIO/PROCESS:N[:cold]  provision is run, and a process of it killed at its Nth system call that can change anything;
#                              with `cold` the node is closed down before the next provision, as at a reboot.
#                              Scenarios: `first`, both disks blank and no state; `later`, the EBS volume has data and the
#                              instance store came back blank; `again`, both formats were cut off before.
#                              Processes: as `crash trace` calls them.
#   power/STATE:B:C[:LOSE]     after a power cut: ubdb and ubdc hold the first B and C writes of a provision (but for some
#                              since the last flush, chosen by the number LOSE), the state file is the STATEth there was.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"
source "$(dirname "$0")/sweep-power.sh"

base=/var/lib/sweep
disks=(ubdb ubdc)
mounts=(/data /data1)
state_dir=${STATE%/*}
# far beyond what a provision takes
patience=${SWEEP_PATIENCE:-150}

configure_sweep() {
    config "$KEY_ARN" <<TOML
[filesystem]
type = "ext4"
mount_base = "/data"
[[volumes.match]]
path = "$1b"
role = "instance-store"
[[volumes.match]]
path = "$1c"
role = "ebs"
TOML
}

# provision NAME: what it says goes to /run/NAME.
provision() {
    local status=0
    timeout --signal=KILL "$patience" "$LUKS_AGENT" provision >"/run/$1" 2>&1 || status=$?
    return "$status"
}

# What a reboot does to what runs and is open.
shut_down() {
    local at name processes
    # what is left of the killed agent: itself, its workers and what they started
    mapfile -t processes < <(pgrep 'luks|exe|mkfs' || true)
    if ((${#processes[@]})); then
        kill -KILL "${processes[@]}" 2>/dev/null || true
        for pid in "${processes[@]}"; do wait_for 30 test ! -e "/proc/$pid"; done
    fi
    while read -r at; do umount "$at"; done < <(findmnt -rno TARGET -t ext4 | grep '^/data' | tac || true)
    while read -r name; do dmsetup remove --retry "$name"; done < <(dmsetup ls | sed -n 's/^\(luks-[^\t]*\).*/\1/p')
}

# reset SCENARIO: the node as the scenario begins.
reset() {
    local disk
    shut_down
    rm -rf "$state_dir"
    for disk in "${disks[@]}"; do
        if [[ -e $base/$1/$disk ]]; then
            dd if="$base/$1/$disk" of="/dev/$disk" bs=1M oflag=direct status=none
        else
            blkdiscard --force --zeroout "/dev/$disk"
        fi
    done
    [[ ! -e $base/$1/state ]] || cp -a "$base/$1/state" "$state_dir"
}

# keep SCENARIO: makes the node as it is now the beginning of a scenario.
keep() {
    local disk
    shut_down
    mkdir -p "$base/$1"
    cp -a "$state_dir" "$base/$1/state"
    for disk in "${disks[@]}"; do dd if="/dev/$disk" of="$base/$1/$disk" bs=1M conv=sparse status=none; done
}

# What the state file says, which has one field a line.
volumes() { field '' luks_uuid; }
phase() { field "$1" phase; }
disk_of() { field "$1" device; }
mount_of() { field "$1" mount_point; }
field() { sed -n "/\"luks_uuid\": \"$1/,/\"phase\"/s/^ *\"$2\": \"\([^\"]*\)\",\?$/\1/p" "$STATE" 2>/dev/null || true; }

# What must still be there after the next provision, as `committed[UUID]`: header, file system, file.
declare -A committed=()
note_committed() {
    local uuid disk at
    committed=()
    for uuid in $(volumes); do
        [[ $(phase "$uuid") == committed ]] || continue
        disk=$(disk_of "$uuid")
        at=$(mount_of "$uuid")
        # lost with the instance store, and known to be
        [[ $(blkid -p -s UUID -o value "/dev/$disk" || true) == "$uuid" ]] || continue
        if findmnt -n "$at" >/dev/null && [[ ! -e $at/file ]]; then
            write_file "$at"
        fi
        committed[$uuid]="$disk $(header "$disk") $(filesystem "$uuid") $(file_at "$at")"
    done
}
# The keyslot, that is: to write the same header once more, or to repair one, does no harm.
header() { dd if="/dev/$1" bs=32k skip=1 count=31 iflag=direct status=none | sha256sum | cut -c 1-16; }
filesystem() {
    [[ ! -e /dev/mapper/luks-$1 ]] || blkid -p -s UUID -o value "/dev/mapper/luks-$1" || echo none
}
file_at() { sha256sum "$1/file" 2>/dev/null | cut -c 1-16 || true; }

declare -a wrong=()
# bad lost|formatted|stuck WHAT
bad() { wrong+=("$1: ${*:2}"); }

# Nothing of what is not ours was touched.
check_others() {
    cmp -s "$base/ubdd" /dev/ubdd || bad formatted "the foreign disk was written to"
    cmp -s -n "$(blockdev --getsize64 /dev/ubde)" /dev/ubde /dev/zero || bad formatted "the bystander was written to"
}

# Both volumes are committed and mounted, with one key, and what was committed is as it was.
check_converged() {
    local uuid at
    [[ $(grep -c '"wrapped_key"' "$STATE") == 1 ]] || bad stuck "there is not just one key"
    [[ $(grep -c '"phase": "committed"' "$STATE") == 2 && $(grep -c '"phase"' "$STATE") == 2 ]] ||
        bad stuck "there are not just two committed volumes"
    for uuid in $(volumes); do
        at=$(mount_of "$uuid")
        [[ $(findmnt -rno SOURCE "$at") == /dev/mapper/luks-$uuid ]] || bad stuck "$uuid is not mounted at $at"
    done
    check_kept
}

# What was committed is as it was.
check_kept() {
    local uuid now was i
    for uuid in "${!committed[@]}"; do
        read -ra was <<<"${committed[$uuid]}"
        now=("$(disk_of "$uuid")" "$(header "${was[0]}")" "$(filesystem "$uuid")" "$(file_at "$(mount_of "$uuid")")")
        for i in 0 1 2 3; do
            # empty: it could not be seen then, since it was not open or not mounted
            [[ -z ${was[i]-} || ${was[i]} == "${now[i]}" ]] || bad lost "$uuid had '${was[i]}', has '${now[i]}'"
        done
    done
}

# The volumes are good for the next boot: sound file systems, and unlock opens them.
check_reboot() {
    local uuid at status=0 sum before=() i=0
    ((${#wrong[@]} == 0)) || return 0
    for at in "${mounts[@]}"; do
        [[ -e $at/file ]] || write_file "$at"
        before+=("$(file_at "$at")")
        umount "$at"
    done
    for uuid in $(volumes); do
        e2fsck -fn "/dev/mapper/luks-$uuid" >/run/e2fsck 2>&1 || bad lost "$uuid has a file system that is not sound"
    done
    shut_down
    timeout --signal=KILL "$patience" "$LUKS_AGENT" unlock >/run/unlocked 2>&1 || status=$?
    [[ $status == 0 ]] || bad lost "unlock ended with status $status"
    for at in "${mounts[@]}"; do
        sum=$(file_at "$at")
        [[ -n $sum && $sum == "${before[i]}" ]] || bad lost "the file at $at is gone"
        i=$((i + 1))
    done
}

# kill_point SCENARIO PROCESS N [cold]
kill_point() {
    local status=0
    reset "$1"
    "$CRASH" trace --victim "$2" --at "$3" --list /run/list -- "$LUKS_AGENT" provision >/run/crashed 2>&1 || status=$?
    moment=$(sed -n 's/^killed [^ ]* [^ ]* //p' /run/list)
    case $moment,$2,$status in
    ,*,0) ;;
    ,*) bad stuck "nobody was killed, and the status is $status" ;;
    *,agent,137 | *,worker.*,[01] | *,tool.*,[01]) ;;
    *) bad stuck "status $status of the run with the kill" ;;
    esac
    cp "$STATE" /run/state.crashed 2>/dev/null || rm -f /run/state.crashed
    note_committed
    [[ ${4-} != cold ]] || shut_down
    status=0
    provision converged || status=$?
    if [[ $status == 0 ]]; then
        check_converged
        check_reboot
    else
        bad stuck "the next provision ended with status $status"
    fi
    check_others
}

# show FILE...: for whoever has to find out.
show() {
    local file
    for file in "$@"; do
        [[ ! -e $file ]] || sed "s|^|   ${file##*/}: |" "$file"
    done
}

try() {
    local began point=$1 parts moment='' word
    began=$(date +%s%3N)
    wrong=()
    rm -f /run/list /run/crashed /run/converged /run/unlocked /run/e2fsck /run/state.crashed
    IFS=/: read -ra parts <<<"$point"
    case $point in
    power/*) power_point "${parts[@]:1}" ;;
    *) kill_point "${parts[@]}" ;;
    esac
    word=ok
    [[ -n $moment ]] || word=missed
    ((${#wrong[@]} == 0)) || word=BAD
    say "point $point $word $moment, $(($(date +%s%3N) - began)) ms"
    if ((${#wrong[@]})); then
        printf '   wrong: %s\n' "${wrong[@]}"
        show /run/list /run/state.crashed /run/crashed /run/converged /run/e2fsck /run/unlocked "$STATE"
        lsblk -o NAME,SIZE,FSTYPE,UUID,MOUNTPOINTS | sed 's/^/   /'
    fi
}

# list SCENARIO: what there is to be killed in it.
list() { sed -n "s|^process |process $1/|p" /run/list; }

prepare() {
    mkdir -p "$base"
    mkfs.ext4 -q -F /dev/ubdd
    dd if=/dev/urandom of=/dev/ubdd bs=1M count=2 seek=2 conv=notrunc status=none
    dd if=/dev/ubdd of="$base/ubdd" bs=1M status=none

    prepare_power
    list first

    # all is well, but the instance store comes back blank
    reset first
    expect_agent 0 provision
    write_file /data1
    shut_down
    blkdiscard --force --zeroout /dev/ubdb
    keep later

    # the power cut before one had a keyslot, and before the other had a file system
    replay 2 45 100
    keep again

    for scenario in "${@}"; do
        reset "$scenario"
        "$CRASH" trace --list /run/list -- "$LUKS_AGENT" provision >/run/traced 2>&1 || { cat /run/traced; fail "$scenario"; }
        list "$scenario"
    done
}

start_fake
mkdir -p "$base"
case $1 in
prepare)
    prepare later again
    ;;
points)
    configure_sweep /dev/ubd
    for point in "${@:2}"; do try "$point"; done
    ;;
esac
shut_down
