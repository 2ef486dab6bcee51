#!/bin/bash
# Init of a User-Mode Linux node, started by tests/support/uml.rs. The kernel's root is the build machine's own tree,
# read-only. This script lays an overlay over it whose upper directory is on the boot volume (/dev/ubda, kept between
# boots), makes that the root, and runs one scenario in it.
#
# From the kernel command line: `uml_job` is a file with the scenario's environment and command, `uml_modules` the directory of
# the kernel's modules.

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# Not the home of who runs the tests: its ~/.aws must not matter, and root's is closed to the kernel when that is not root.
export HOME=/var/lib/uml-node LANG=C.UTF-8 TERM=dumb
# No udevd runs here: libdevmapper makes the nodes itself and waits for nobody.
export DM_DISABLE_UDEV=1

power_off() {
    echo "uml-init: scenario ended with status $1"
    echo o >/proc/sysrq-trigger
    # The power goes off from a kernel work queue. The process that started us takes over if that hangs.
    while :; do sleep 60; done
}

broken() {
    echo "uml-init: $1"
    power_off 125
}

# In the background and for a while only: with a suspended device beneath it no sync ever returns.
sync_mount() {
    sync -f "$1" &
    for ((i = 0; i < 100; i++)); do
        kill -0 $! 2>/dev/null || return 0
        sleep 0.1
    done
    echo "uml-init: sync of $1 did not end within 10 s, going on"
}

if [[ ${1-} != in-overlay ]]; then
    mount -t proc proc /proc && mount -t sysfs sysfs /sys && mount -t tmpfs tmpfs /run || broken "no /proc, /sys or /run"
    mountpoint -q /dev || mount -t devtmpfs devtmpfs /dev || broken "no /dev"
    # Up to here the kernel says everything: should it get no further, that is all there is to see. From here on, what is grave.
    echo 4 >/proc/sys/kernel/printk
    echo "uml-init: booted"

    # The overlay's directories are below /run, which stays where it is when the root changes: `lowerdir` and `upperdir`
    # in /proc/self/mountinfo name the same things before and after, as on a real node with an overlay root.
    mkdir -p /run/uml/lower /run/uml/boot /run/uml/modules/lib/modules
    mount --bind / /run/uml/lower || broken "cannot bind the root"
    mount -t ext4 /dev/ubda /run/uml/boot || broken "cannot mount the boot volume /dev/ubda"
    mkdir -p /run/uml/boot/upper /run/uml/boot/work

    ln -s "${uml_modules:?}/$(uname -r)" "/run/uml/modules/lib/modules/$(uname -r)"
    # For the kernel itself too: loading dm-crypt makes it ask for ciphers.
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
    # /mnt itself is the mount base of the agent under test: leave nothing of ours on it.
    mkdir -p /mnt/run/uml/host
    cd /mnt && pivot_root . run/uml/host && cd / || broken "cannot change the root"
    umount --lazy /run/uml/host && rmdir /run/uml/host
    exec /bin/bash "$0" in-overlay
fi

# No udevd runs to make these either.
ln -sf /proc/self/fd /dev/fd
for number in 0:stdin 1:stdout 2:stderr; do ln -sf "/proc/self/fd/${number%:*}" "/dev/${number#*:}"; done
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
# Lets stock tools find the modules under their usual name.
mkdir -p /lib/modules "$HOME"
[[ -e /lib/modules/$(uname -r) ]] || ln -s "${uml_modules:?}/$(uname -r)" "/lib/modules/$(uname -r)"
# Some tools insist on it.
[[ -e /etc/mtab ]] || ln -s /proc/self/mounts /etc/mtab
ip link set lo up || broken "no loopback"
echo uml-node >/proc/sys/kernel/hostname

(
    set -e
    # shellcheck disable=SC1090
    source "${uml_job:?}"
) </dev/null
status=$?

# An orderly shutdown would unmount; the journals do the rest.
sync_mount /run/uml/boot
findmnt -rno TARGET -t ext4,xfs | while read -r target; do
    [[ $target == /run/uml/boot ]] || sync_mount "$target"
done
power_off "$status"
