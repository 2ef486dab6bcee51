#!/bin/bash
# Configures the tree of the machine tier's image. scripts/machine-image.sh runs it as root in mmdebstrap's namespace.
#
#   image-setup.sh early ROOT                     after the essential packages, before the others
#   image-setup.sh late ROOT OUT_DIR SIZE_MIB     at the end: writes the settings, then root.ext4, vmlinuz and initrd.img to OUT_DIR
set -euo pipefail

# in the directory of the hooks, debian.sh is beside this script
# shellcheck source=scripts/debian.sh
. "$(dirname "$0")/debian.sh"

early() {
    debian_small_initrd "$1"
}

late() {
    local root=$1 out=$2 size_mib=$3

    echo node >"$root/etc/hostname"
    printf '127.0.0.1 localhost node\n' >"$root/etc/hosts"
    : >"$root/etc/resolv.conf"
    : >"$root/etc/machine-id"
    rm -f "$root/var/lib/dbus/machine-id"
    # for the console with KEEP_VM=1; the VM has no network except to its own test
    chroot "$root" passwd --quiet -d root
    cat >"$root/etc/fstab" <<FSTAB
LABEL=machine-root / ext4 errors=remount-ro 0 1
# the programs of the test, which tests/support/qemu.rs collects
LABEL=machine-tools /opt/test ext4 ro,nofail,x-systemd.device-timeout=90s 0 0
FSTAB
    mkdir -p "$root/opt/test"
    echo 'PATH=/opt/test:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' >"$root/etc/environment"

    # udev would take seconds to load these for the emulated CPU
    printf 'blacklist %s\n' kvm kvm_amd kvm_intel powernow_k8 >"$root/etc/modprobe.d/machine.conf"

    # The disks behind the NVMe controllers hold the same bytes as the namespaces. udev must not create by-uuid links for both.
    cat >"$root/etc/udev/rules.d/10-machine-nvme-backing.rules" <<'RULES'
SUBSYSTEM=="block", KERNEL=="vd*", ATTR{serial}=="behind-*", ENV{UDEV_DISABLE_PERSISTENT_STORAGE_RULES_FLAG}="1", ENV{SYSTEMD_READY}="0"
RULES

    # NVMe controllers with EC2's names, which exist before anything mounts file systems, as on EC2
    cat >"$root/etc/systemd/system/ec2-nvme.service" <<'UNIT'
[Unit]
Description=Create NVMe controllers with EC2 names, in the order of the kernel command line
ConditionKernelCommandLine=ec2nvme
DefaultDependencies=no
RequiresMountsFor=/opt/test
Wants=sys-kernel-config.mount
After=systemd-udevd.service systemd-modules-load.service sys-kernel-config.mount
Before=local-fs.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/opt/test/ec2-nvme.sh attach-all

[Install]
WantedBy=local-fs.target
UNIT

    cat >"$root/etc/systemd/system/machine-network.service" <<'UNIT'
[Unit]
Description=Set the link-local address that reaches the instance metadata address
DefaultDependencies=no
After=systemd-udevd.service
Before=network.target shutdown.target
Wants=network.target
Conflicts=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -ec 'modprobe virtio_net; ip link set eth0 up; ip address replace 169.254.169.10/24 dev eth0'

[Install]
WantedBy=sysinit.target
UNIT

    chroot "$root" systemctl --quiet enable ec2-nvme.service machine-network.service
    for unit in NetworkManager NetworkManager-wait-online NetworkManager-dispatcher unattended-upgrades \
        cloud-init-main cloud-init-local cloud-init cloud-init-network cloud-config cloud-final; do
        [ ! -e "$root/usr/lib/systemd/system/$unit.service" ] || chroot "$root" systemctl --quiet disable "$unit.service"
    done
    chroot "$root" systemctl --quiet mask \
        apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
        fstrim.timer systemd-tmpfiles-clean.timer getty@tty1.service console-getty.service \
        systemd-timesyncd.service systemd-resolved.service \
        systemd-update-utmp.service systemd-update-utmp-runlevel.service systemd-pstore.service \
        systemd-binfmt.service sys-fs-fuse-connections.mount dev-hugepages.mount
    chroot "$root" dpkg-query -W >"$out/packages"
    chmod a+r "$out/packages"
    rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/*
    # the tree keeps its kernel and initrd, because a Vagrant box boots from its own disk
    debian_parts "$root" "$out" machine-root "$size_mib"
}

"$@"
