#!/bin/bash
# Init of a User-Mode Linux node; tests/support/uml.rs starts it. The kernel's root is the tree of the build machine, read-only. This script
# makes an overlay over it the root, with the upper directory on the boot volume (/dev/ubda, which is kept between boots), and runs one
# scenario in it.
#
# Variables from the kernel command line: `uml_job` is a file with the scenario's environment and command, `uml_modules` the directory of
# the kernel's modules.

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# Not the home of the user who runs the tests: its ~/.aws must have no effect, and a kernel that does not run as root cannot read root's
# home.
export HOME=/var/lib/uml-node LANG=C.UTF-8 TERM=dumb
# No udevd runs here: libdevmapper creates the nodes itself and does not wait for udev.
export DM_DISABLE_UDEV=1

power_off() {
    echo "uml-init: scenario ended with status $1"
    echo o >/proc/sysrq-trigger
    # A kernel work queue turns the power off. If it hangs, the process that started this node kills it.
    while :; do sleep 60; done
}

broken() {
    echo "uml-init: $1"
    power_off 125
}

# Runs in the background with a time limit: above a suspended device, sync never returns.
sync_mount() {
    sync -f "$1" &
    for ((i = 0; i < 100; i++)); do
        kill -0 $! 2>/dev/null || return 0
        sleep 0.1
    done
    echo "uml-init: sync of $1 did not finish within 10 s; continuing"
}

if [[ ${1-} != in-overlay ]]; then
    mount -t proc proc /proc && mount -t sysfs sysfs /sys && mount -t tmpfs tmpfs /run || broken "no /proc, /sys or /run"
    mountpoint -q /dev || mount -t devtmpfs devtmpfs /dev || broken "no /dev"
    # Until here the kernel prints everything, in case the boot stops early. From here on it prints only errors.
    echo 4 >/proc/sys/kernel/printk
    echo "uml-init: booted"

    # The overlay's directories are below /run, which stays in place when the root changes: `lowerdir` and `upperdir` in
    # /proc/self/mountinfo stay valid, as on a real node with an overlay root.
    mkdir -p /run/uml/lower /run/uml/boot /run/uml/modules/lib/modules
    mount --bind / /run/uml/lower || broken "cannot bind the root"
    mount -t ext4 /dev/ubda /run/uml/boot || broken "cannot mount the boot volume /dev/ubda"
    mkdir -p /run/uml/boot/upper /run/uml/boot/work

    ln -s "${uml_modules:?}/$(uname -r)" "/run/uml/modules/lib/modules/$(uname -r)"
    # The kernel uses it too: dm-crypt makes it load ciphers.
    printf '#!/bin/sh\nexec /sbin/modprobe -d /run/uml/modules "$@"\n' >/run/uml/modprobe
    chmod +x /run/uml/modprobe
    echo /run/uml/modprobe >/proc/sys/kernel/modprobe
    for module in overlay dm-mod dm-crypt xts algif_skcipher; do
        /run/uml/modprobe "$module" || broken "cannot load the module $module"
    done

    mount -t overlay overlay \
        -o lowerdir=/run/uml/lower,upperdir=/run/uml/boot/upper,workdir=/run/uml/boot/work /mnt || broken "no overlay"
    for dir in dev proc sys run; do
        mount --rbind "/$dir" "/mnt/$dir" || broken "cannot bind /$dir"
    done
    # /mnt itself is the mount base of the agent under test, so nothing may be left on it
    mkdir -p /mnt/run/uml/host
    cd /mnt && pivot_root . run/uml/host && cd / || broken "cannot change the root"
    umount --lazy /run/uml/host && rmdir /run/uml/host
    exec /bin/bash "$0" in-overlay
fi

# No udevd runs that would create these either.
ln -sf /proc/self/fd /dev/fd
for number in 0:stdin 1:stdout 2:stderr; do ln -sf "/proc/self/fd/${number%:*}" "/dev/${number#*:}"; done
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
# Stock tools look for the modules under their usual name.
mkdir -p /lib/modules "$HOME"
[[ -e /lib/modules/$(uname -r) ]] || ln -s "${uml_modules:?}/$(uname -r)" "/lib/modules/$(uname -r)"
# Some tools require it.
[[ -e /etc/mtab ]] || ln -s /proc/self/mounts /etc/mtab
ip link set lo up || broken "no loopback"
echo uml-node >/proc/sys/kernel/hostname

(
    set -e
    # shellcheck disable=SC1090
    source "${uml_job:?}"
) </dev/null
status=$?

# A clean shutdown would unmount; here a sync is enough, because the file systems have journals.
sync_mount /run/uml/boot
findmnt -rno TARGET -t ext4,xfs | while read -r target; do
    [[ $target == /run/uml/boot ]] || sync_mount "$target"
done
power_off "$status"
