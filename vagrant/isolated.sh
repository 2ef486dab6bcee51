#!/bin/bash
# Runs a command, or a shell, where libvirt, its networks and its disks are the lab's alone: in network, mount and process
# namespaces of their own, in which nothing but the lab is, and from which no packet leaves the machine. The libvirt of this
# machine, should it have one, is neither used nor disturbed. Needs root; sudo is used where it is not.
#
#   isolated.sh [COMMAND [ARGUMENT]...]    in the lab, which is started if it is not there; a shell without COMMAND
#   isolated.sh --stop                     pulls the plug: VMs, libvirtd and networks end. Disks and boxes stay
#   isolated.sh --remove                   the same, and deletes the lab's directory
#
#   LUKS_AGENT_LAB       directory of the lab (default: lab in ~/.cache/luks-agent): disks, boxes, what Vagrant knows
#   LUKS_AGENT_DRIVER    kvm or qemu, which is software emulation (default: KVM where it works)
#
# What is there for libvirt outside of the lab's directory: the empty directories below, for it to be mounted on.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${LUKS_AGENT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/luks-agent}
lab=${LUKS_AGENT_LAB:-$cache/lab}
export PATH=$PATH:/usr/sbin:/sbin

say() { echo "lab: $*" >&2; }
die() { say "$*"; exit 1; }

if ((EUID != 0)); then
    command -v sudo >/dev/null || die "need to be root, or to have sudo, for namespaces and mounts"
    keep=("LUKS_AGENT_CACHE=$cache" "LUKS_AGENT_LAB=$lab")
    for name in LUKS_AGENT_BOX LUKS_AGENT_DEB LUKS_AGENT_DRIVER CARGO_TARGET_DIR; do
        [[ -z ${!name:-} ]] || keep+=("$name=${!name}")
    done
    exec sudo env "${keep[@]}" "$here/isolated.sh" "$@"
fi

# The first process of the namespaces; when it ends, the kernel ends all others there.
init() {
    ip link set lo up
    # the network namespace's own interfaces, and no cgroups, which libvirt would make groups in. Those of this machine have to be
    # unmounted: libvirt reads of them in /proc/mounts also when another file system lies above them, and then fails
    umount --recursive --lazy /sys
    mount -t sysfs -o nosuid,nodev,noexec sysfs /sys
    mount --bind "$lab/etc" /etc/libvirt
    mount --bind "$lab/lib" /var/lib/libvirt
    mount --bind "$lab/cache" /var/cache/libvirt
    mount --bind "$lab/log" /var/log/libvirt
    mount -t tmpfs -o mode=755 tmpfs /run/libvirt
    # libvirtd asks for this user, whomever it is told to run QEMU as; the package that makes it starts daemons, too
    cp /etc/passwd /etc/group "$lab/etc/"
    echo 'libvirt-qemu:x:64055:64055::/nonexistent:/usr/sbin/nologin' >>"$lab/etc/passwd"
    echo 'libvirt-qemu:x:64055:' >>"$lab/etc/group"
    mount --bind "$lab/etc/passwd" /etc/passwd
    mount --bind "$lab/etc/group" /etc/group
    # root, as the disks are the lab's; no second daemon for QEMU's output
    printf '%s\n' 'user = "root"' 'group = "root"' 'security_driver = "none"' 'stdio_handler = "file"' 'namespaces = []' \
        >/etc/libvirt/qemu.conf
    echo 'auth_unix_rw = "none"' >/etc/libvirt/libvirtd.conf
    libvirtd --config /etc/libvirt/libvirtd.conf --pid-file /run/libvirt/libvirtd.pid >"$lab/libvirtd.log" 2>&1 </dev/null &
    wait "$!"
}

running() {
    [[ -s $lab/init.pid ]] && grep -qsz 'isolated\.sh$' "/proc/$(<"$lab/init.pid")/cmdline"
}

enter() {
    nsenter --target "$(<"$lab/init.pid")" --net --mount --pid --wdns="$PWD" -- "$@"
}

# There are hosts where /dev/kvm exists and a guest hangs or dies: a kernel has to run to its end, a panic, there first.
driver() {
    local kernel box
    box=$("$here/box.sh" --path)
    if [[ -e $box ]]; then
        tar -C "$lab" -xf "$box" vmlinuz
        kernel=$lab/vmlinuz
    else
        kernel=$(compgen -G '/boot/vmlinuz-*' | tail -n 1) || return 1
    fi
    [[ -w /dev/kvm ]] || return 1
    # in braces for the shell's own word on how it ended
    { timeout 5 qemu-system-x86_64 -no-user-config -nodefaults -display none -no-reboot -accel kvm -machine pc \
        -cpu max -m 256 -kernel "$kernel" -append panic=-1 </dev/null >/dev/null; } 2>/dev/null
}

start() {
    local tool holder
    for tool in libvirtd:libvirt-daemon virsh:libvirt-clients dnsmasq:dnsmasq-base vagrant:vagrant; do
        command -v "${tool%%:*}" >/dev/null ||
            die "${tool%%:*} is not installed (Debian package ${tool##*:}): run scripts/deps.sh vagrant"
    done
    mkdir -p "$lab"/{etc,lib,cache,log} /etc/libvirt /var/lib/libvirt /var/cache/libvirt /var/log/libvirt /run/libvirt
    rm -f "$lab/init.pid"
    # --kill-child: whoever ends `unshare` ends it all
    setsid unshare --net --mount --propagation private --pid --fork --kill-child --mount-proc \
        "$here/isolated.sh" --init "$lab" </dev/null >"$lab/init.log" 2>&1 9>&- &
    holder=$!
    for _ in {1..100}; do
        pgrep --parent "$holder" >"$lab/init.pid" && break
        sleep 0.1
    done
    echo "$holder" >"$lab/holder.pid"
    for _ in {1..600}; do
        ! enter virsh --quiet --connect qemu:///system uri >/dev/null 2>&1 || return 0
        kill -0 "$holder" 2>/dev/null || break
        sleep 0.1
    done
    tail -n 20 "$lab"/init.log "$lab"/libvirtd.log >&2 || true
    stop
    die "libvirtd did not start, its logs are in $lab"
}

stop() {
    ! running || kill -KILL "$(<"$lab/holder.pid")"
    while running; do sleep 0.1; done
    rm -f "$lab"/{init,holder}.pid
}

case ${1:-} in
    --init) lab=$2; init; exit ;;
    --stop) stop; exit ;;
    --remove) stop; rm -rf --one-file-system "$lab"; exit ;;
    -*) die "unknown option '$1': expected --stop, --remove or a command" ;;
esac

mkdir -p "$lab"
(
    flock 9
    running || start
) 9>"$lab/lock"

if [[ -z ${LUKS_AGENT_DRIVER:-} ]]; then
    [[ -e $lab/driver ]] || { if driver; then echo kvm; else echo qemu; fi >"$lab/driver"; }
    LUKS_AGENT_DRIVER=$(<"$lab/driver")
fi
(($#)) || set -- "${SHELL:-/bin/bash}"
enter env LUKS_AGENT_DRIVER="$LUKS_AGENT_DRIVER" LUKS_AGENT_CACHE="$cache" LUKS_AGENT_LAB="$lab" LIBVIRT_DEFAULT_URI=qemu:///system \
    VAGRANT_HOME="$lab/vagrant.d" VAGRANT_DOTFILE_PATH="$lab/vagrant" VAGRANT_CHECKPOINT_DISABLE=1 "$@"
