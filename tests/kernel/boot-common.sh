# Device stacks below parts of the running system, for the scenarios boot-*.sh. Sourced after lib.sh and agent.sh.
#
# The disks ubdb to ubdo are for stacks; ubdp is free and blank. The agent runs with the most dangerous configuration: rules that make all
# disks and everything stacked on them instance store volumes, with permission to wipe them. Everything is mounted read-only, so that only
# the agent could change a byte of a disk.
# shellcheck shell=bash

FREE=ubdp
# if set, the mount point of the file system that the agent sees as its root
ROOT=

# agent ARGS...: runs the agent under test, on its own root if ROOT is set.
agent() {
    if [[ -n $ROOT ]]; then
        unshare --mount --propagation private bash "${BASH_SOURCE[0]%/*}/boot-pivot.sh" "$ROOT" "${LUKS_AGENT:?}" "$@"
    else
        "${LUKS_AGENT:?}" "$@"
    fi
}

# worst ROLE: writes a configuration that gives this role to all disks, or to the disks in RULED. STATE_DIR sets another state directory.
worst() {
    local ruled
    read -ra ruled <<<"${RULED-ubd* dm-* md* bcache* loop* zram*}"
    config "$KEY_ARN" <<END
[volumes]
when_not_blank = "wipe-instance-store"
[filesystem]
type = "ext4"
mount_base = "/run/data"
[state]
dir = "${STATE_DIR-/etc/luks-agent/state}"
$(printf '[[volumes.match]]\npath = "/dev/%s"\nrole = "'"$1"'"\n' "${ruled[@]}")
END
}

# sums DISK...: prints checksums of all bytes of the disks. Bypasses the page cache, which does not see writes through a stack. `ubdf-1`
# excludes the first partition of ubdf, because a mounted file system writes to it.
sums() {
    local disk dir start end
    for disk in "$@"; do
        if [[ $disk == ubd?-1 ]]; then
            disk=${disk%-1}
            dir=/sys/block/$disk/${disk}1
            start=$(($(<"$dir/start") * 512))
            end=$((start + $(<"$dir/size") * 512))
            { raw "$disk" count="$start"B && raw "$disk" skip="$end"B; } | cksum
        else
            raw "$disk" | cksum
        fi
    done
}

raw() { dd "if=/dev/$1" bs=1M iflag=direct status=none "${@:2}"; }

# reasons: prints device and reason of all boot disks except the node's own, with device-mapper names instead of numbers.
reasons() {
    local dm names=(-e '')
    [[ ! -e /sys/block/dm-0 ]] || for dm in /sys/block/dm-*; do names+=(-e "s/\b${dm##*/}\b/$(<"$dm/dm/name")/g"); done
    report '"\n".join((d + " " + r["reason"] for d, r in rows.items() if r["role"] == "boot" and d != "ubda"))' |
        sed "${names[@]}" | LC_ALL=C sort
}

# quiet STATUS ARGS...: as expect_agent, but shows the output only on failure.
quiet() { (expect_agent "$@") >/run/out 2>&1 || { cat /run/out; exit 1; }; }

# quiesce DISK...: waits until nothing writes to the disks any more; an array marks itself clean in its superblocks a moment after the last
# write. Sets `before` to their sums.
quiesce() {
    local next
    sync
    before=$(sums "$@")
    until
        sleep 0.5
        next=$(sums "$@")
        [[ $next == "$before" ]]
    do before=$next; done
}

# protected DISKS EXPECTED: the agent formats the disks in FREE and touches no other disk. No byte of DISKS changes. EXPECTED has the
# reasons that it reports for the boot disks, one per line.
protected() {
    local before expected disks command
    read -ra disks <<<"$1"
    expected=$(LC_ALL=C sort <<<"$2")
    quiesce "${disks[@]}"
    for command in "status ebs" "provision instance-store"; do
        worst "${command#* }"
        quiet 0 "${command% *}" --json
        assert_eq "$(reasons)" "$expected" "the boot disks, and why, in ${command% *}"
    done
    assert_eq "$(report '{d: r["result"] for d, r in rows.items() if r["result"] != "left"}')" "{'${FREE// /\': \'formatted\', \'}': 'formatted'}" "what was done"
    sync
    assert_eq "$(sums "${disks[@]}")" "$before" "the bytes of ${disks[*]}"
    printf '%s\n' "$expected"
}

# refused REASON [STATUS]: the agent formats nothing, not even the free disk, and reports REASON.
refused() {
    local before disks=(ubdb-1 ubdd ubdh "$FREE")
    before=$(sums "${disks[@]}")
    worst instance-store
    quiet "${2-3}" provision
    assert_said "$1" "provision: nothing changed"
    assert_eq "$(sums "${disks[@]}")" "$before" "the bytes of all disks"
    grep -hoF "$1" /run/stderr /run/report | head -n 1
}

# mount_it SOURCE POINT [OPTIONS [TYPE]]: mounts the file system, creates the directories that a root needs, and remounts it read-only.
mount_it() {
    mkdir -p "$2"
    mount -o "${3-rw}" ${4+-t "$4"} "$1" "$2"
    mkdir -p "$2"/{dev,proc,sys,run,usr,etc}
    ln -sf usr/bin usr/sbin usr/lib usr/lib64 "$2"
    touch "$2/agent"
    mount -o remount,ro "$2"
}

# on DEVICE POINT: creates an ext4 file system on the device and mounts it.
on() {
    mkfs.ext4 -q -F "$1"
    mount_it "$@"
}

# partitions DISK N [MIB]: creates N partitions of MIB each (default 10).
partitions() {
    local n
    { echo 'label: gpt'; for ((n = 0; n < $2; n++)); do echo "size=${3-10}MiB"; done; } | sfdisk -q "/dev/$1"
}

# chatter COMMAND...: runs the command and shows its output only if it fails.
chatter() { "$@" >/run/out 2>&1 || { cat /run/out; fail "$*"; }; }

vg() { # vg NAME DEVICE...
    chatter pvcreate "${@:2}"
    chatter vgcreate --physicalextentsize 1m "$@"
}

lv() { chatter lvcreate --yes "$@"; }

luks() { # luks DEVICE NAME
    printf passphrase | cryptsetup luksFormat --batch-mode --pbkdf pbkdf2 --pbkdf-force-iterations 1000 \
        --luks2-metadata-size 16k --luks2-keyslots-size 256k --offset 2048 "$1" -
    printf passphrase | cryptsetup open --key-file=- "$1" "$2"
}

raid() { chatter mdadm --create --run --assume-clean "$@"; }

sectors() { blockdev --getsz "$1"; }

# swap DEVICE
swap() {
    chatter mkswap "$1"
    swapon "$1"
}

# LVM must work without udev, and does not know the ubd disks by itself.
mkdir -p /etc/lvm
cat >/etc/lvm/lvm.conf <<'END'
devices { types = ["ubd", 16] obtain_device_list_from_udev = 0 external_device_info_source = "none" }
activation { udev_sync = 0 udev_rules = 0 monitoring = 0 }
global { thin_check_executable = "" use_lvmpolld = 0 }
END
