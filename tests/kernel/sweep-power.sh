# The power cuts of sweep.sh, which sources this: a provision of both volumes is recorded by dm-log-writes, with a mark in
# both logs at each version of the state file, and replayed up to any write.
# shellcheck shell=bash

logs=(ubdf ubdg)
power=/var/lib/sweep/power

# Records a provision of blank disks, and files written on the volumes. All that `crash trace` has seen is in /run/list.
prepare_power() {
    local i disk log hook name at
    reset first
    modprobe dm-log-writes
    rm -rf "$power"
    mkdir -p "$power/state"
    for i in 0 1; do
        disk=/dev/${disks[i]} log=/dev/${logs[i]}
        dmsetup create "log${disks[i]: -1}" --table "0 $(blockdev --getsz "$disk") log-writes $disk $log"
    done
    configure_sweep /dev/mapper/log
    # run while the agent stands still
    hook="n=\$(ls $power/state | wc -l); n=\$((n + 1)); cp $STATE $power/state/\$n
        dmsetup message logb 0 mark \$n; dmsetup message logc 0 mark \$n"
    "$CRASH" trace --on-rename "$hook" --list /run/list -- "$LUKS_AGENT" provision >/run/recorded 2>&1 ||
        { cat /run/recorded; fail "the provision that was to be recorded"; }
    for i in 0 1; do
        # as it would be of the disk itself, which the agent did not see
        name=$(dm_name "log${disks[i]: -1}")
        sed -i -z "s/null,\n *\"device\": \"$name\"/\"serial-${disks[i]}\",\n      \"device\": \"${disks[i]}\"/" "$power"/state/*
        write_file "${mounts[i]}"
        file_at "${mounts[i]}" >"$power/file.${disks[i]}"
        findmnt -no UUID "${mounts[i]}" >"$power/filesystem.${disks[i]}"
    done
    dmsetup message logb 0 mark file
    dmsetup message logc 0 mark file
    # not synced: it may be lost
    for at in "${mounts[@]}"; do head -c 300000 /dev/urandom >"$at/more"; done
    shut_down
    for i in 0 1; do
        dmsetup remove --retry "log${disks[i]: -1}"
        "$CRASH" log "/dev/${logs[i]}" >"$power/log.${disks[i]}"
        marks "${disks[i]}"
    done
    configure_sweep /dev/ubd
}
dm_name() { basename "$(readlink -f "/sys/dev/block/$(dmsetup info -c --noheadings -o major,minor --separator : "$1")")"; }
write_file() {
    head -c 50000 /dev/urandom >"$1/file"
    sync -f "$1"
}

# marks DISK: where in its log the versions of the state file begin, and where its file was safe; all in writes.
marks() {
    awk -v disk="$1" '
        $1 == "write" { writes = $2 }
        $1 == "mark" && $2 !~ /^dm-log-writes/ { line = line " " $2 "=" writes + 0 }
        END { print "marks " disk line " end=" writes + 0 }' "$power/log.$1"
}
# mark DISK NAME: one of them, nothing if there is no such
mark() { marks "$1" | tr ' ' '\n' | sed -n "s/^$2=//p"; }

# put_state VERSION: the state file as it was then; version 0 is none.
put_state() {
    rm -rf "$state_dir"
    (($1)) || return 0
    mkdir -m 700 "$state_dir"
    (umask 077 && cp "$power/state/$1" "$STATE")
}

# record_of DISK: the UUID of the volume that was made on it.
uuid_on() { sed -n "/luks_uuid/{s/^.*: \"\\(.*\\)\",/\\1/;h};/\"device\": \"$1\"/{g;p}" "$power/state/4"; }

# replay STATE B C [LOSE]: the node as the power cut left it.
replay() {
    local i writes=("$2" "$3")
    shut_down
    for i in 0 1; do
        "$CRASH" rebuild --log "/dev/${logs[i]}" --writes "${writes[i]}" --disk "/dev/${disks[i]}" ${4:+--lose "$4"}
    done
    put_state "$1"
}

whole() { sha256sum "/dev/$1" | cut -c 1-16; }
is_blank() { cmp -s -n "$(blockdev --getsize64 "/dev/$1")" "/dev/$1" /dev/zero; }
# between the copies of the header, which libcryptsetup repairs when it sees one damaged, and the data
keyslots() { dd "if=/dev/$1" bs=32k skip=1 count=511 status=none | sha256sum | cut -c 1-16; }

# power_point STATE B C [LOSE]
power_point() {
    local version=$1 writes=("$2" "$3") i disk from to status=0 natural=1 uuid phase
    local -A before=() kind=()
    replay "$@"
    # the next version was begun, and is torn
    if (((writes[0] + writes[1]) % 2)) && ((version && version < 4)); then
        head -c $(((writes[0] + 1) * 7 % 900)) "$power/state/$((version + 1))" >"$STATE.new"
    fi
    moment="state $version of 4"
    committed=()
    for i in 0 1; do
        disk=${disks[i]}
        from=$(mark "$disk" "$version") to=$(mark "$disk" "$((version + 1))")
        ((${from:=0} <= writes[i] && writes[i] <= ${to:=$(mark "$disk" end)})) || natural=0
        uuid=$(uuid_on "$disk")
        phase=$(phase "$uuid")
        if is_blank "$disk"; then
            kind[$disk]=blank-$phase
        else
            kind[$disk]=full-$phase
        fi
        case ${kind[$disk]} in
        full-) before[$disk]=$(whole "$disk") ;;
        full-committed) before[$disk]=$(keyslots "$disk") ;;
        *) before[$disk]= ;;
        esac
        # once it was committed, or its file safe, whatever the state file says of it
        if [[ $phase ]] && ((writes[i] >= $(commit_mark "$disk" "$uuid"))); then
            committed[$uuid]="$disk $(header "$disk") $(<"$power/filesystem.$disk")"
            ((writes[i] < $(mark "$disk" file))) || committed[$uuid]+=" $(<"$power/file.$disk")"
        fi
    done
    provision converged || status=$?
    if ((natural)); then
        if ((status == 0)); then
            check_converged
            check_reboot
        else
            bad stuck "the next provision ended with status $status"
        fi
    else
        # the boot volume and the others are not of the same moment, as no power cut leaves them: nothing may be destroyed
        moment+=", not of one moment, status $status"
        case $status in 0 | 1 | 3) ;; *) bad stuck "the next provision ended with status $status" ;; esac
        check_kept
        for disk in "${disks[@]}"; do
            case ${kind[$disk]} in
            full-) [[ ${before[$disk]} == $(whole "$disk") ]] || bad formatted "$disk, not blank and unknown to the state file" ;;
            full-committed) [[ ${before[$disk]} == $(keyslots "$disk") ]] || bad formatted "$disk, committed" ;;
            blank-committed) [[ $disk == ubdb ]] || is_blank "$disk" || bad formatted "$disk, a lost EBS volume" ;;
            esac
        done
    fi
    check_others
}

# commit_mark DISK UUID: how many writes there were when its volume was committed.
commit_mark() {
    local version
    for version in 1 2 3 4; do
        if [[ $(STATE=$power/state/$version phase "$2") == committed ]]; then
            mark "$1" "$version"
            return
        fi
    done
}
