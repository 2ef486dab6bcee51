#!/bin/bash
# Runs a command, or a shell, in the lab: separate network, mount and process namespaces with a libvirt of their own. No packet leaves the
# machine, and the libvirt of this machine, if it has one, is neither used nor disturbed. Needs root, and uses sudo if it does not run as
# root.
#
#   isolated.sh [COMMAND [ARGUMENT]...]    runs the command, or a shell, in the lab; starts the lab if it does not run
#   isolated.sh --stop                     pulls the plug: VMs, libvirtd and networks end; disks and boxes stay
#   isolated.sh --remove                   the same, and deletes the lab's directory
#
#   LUKS_AGENT_LAB       directory of the lab (default: lab in ~/.cache/luks-agent): disks, boxes, Vagrant's state
#   LUKS_AGENT_DRIVER    kvm, or qemu for software emulation (default: kvm if it works)
#
# Outside of the lab's directory, the script creates only the empty directories below, as mount points for libvirt's directories.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${LUKS_AGENT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/luks-agent}
lab=${LUKS_AGENT_LAB:-$cache/lab}
export PATH=$PATH:/usr/sbin:/sbin

say() { echo "lab: $*" >&2; }
die() { say "$*"; exit 1; }

if ((EUID != 0)); then
    command -v sudo >/dev/null || die "cannot create namespaces and mounts: not root, and sudo is not installed"
    keep=("LUKS_AGENT_CACHE=$cache" "LUKS_AGENT_LAB=$lab")
    for name in LUKS_AGENT_BOX LUKS_AGENT_DEB LUKS_AGENT_DRIVER CARGO_TARGET_DIR; do
        [[ -z ${!name:-} ]] || keep+=("$name=${!name}")
    done
    exec sudo env "${keep[@]}" "$here/isolated.sh" "$@"
fi

# Runs as the first process of the namespaces. When it ends, the kernel ends all others there.
init() {
    ip link set lo up
    # A new sysfs shows the interfaces of this network namespace. It has no cgroups, in which libvirt would create groups. The cgroups of
    # this machine must be unmounted: libvirt finds them in /proc/mounts even below another mount, and then fails.
    umount --recursive --lazy /sys
    mount -t sysfs -o nosuid,nodev,noexec sysfs /sys
    mount --bind "$lab/etc" /etc/libvirt
    mount --bind "$lab/lib" /var/lib/libvirt
    mount --bind "$lab/cache" /var/cache/libvirt
    mount --bind "$lab/log" /var/log/libvirt
    mount -t tmpfs -o mode=755 tmpfs /run/libvirt
    # libvirtd requires this user, whatever user runs QEMU. The package that creates the user would also start daemons.
    cp /etc/passwd /etc/group "$lab/etc/"
    echo 'libvirt-qemu:x:64055:64055::/nonexistent:/usr/sbin/nologin' >>"$lab/etc/passwd"
    echo 'libvirt-qemu:x:64055:' >>"$lab/etc/group"
    mount --bind "$lab/etc/passwd" /etc/passwd
    mount --bind "$lab/etc/group" /etc/group
    # QEMU runs as root, because the disks belong to the lab. No second daemon handles QEMU's output.
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

# Whether KVM works. On some hosts /dev/kvm exists, but a guest hangs or dies, so this boots a kernel until it ends in a panic.
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
    # the braces hide the shell's message about how it ended
    { timeout 5 qemu-system-x86_64 -no-user-config -nodefaults -display none -no-reboot -accel kvm -machine pc \
        -cpu max -m 256 -kernel "$kernel" -append panic=-1 </dev/null >/dev/null; } 2>/dev/null
}

start() {
    local tool holder
    for tool in libvirtd:libvirt-daemon virsh:libvirt-clients dnsmasq:dnsmasq-base vagrant:vagrant; do
        command -v "${tool%%:*}" >/dev/null ||
            die "${tool%%:*} is not installed (Debian package ${tool##*:}); run scripts/deps.sh vagrant"
    done
    mkdir -p "$lab"/{etc,lib,cache,log} /etc/libvirt /var/lib/libvirt /var/cache/libvirt /var/log/libvirt /run/libvirt
    rm -f "$lab/init.pid"
    # --kill-child: ending `unshare` ends all of it
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
    die "libvirtd did not start; its logs are in $lab"
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
