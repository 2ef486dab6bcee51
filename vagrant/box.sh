#!/bin/bash
# Builds the Vagrant box of the lab from Debian's packages, for machines that cannot download a box, and prints its path.
#
#   vagrant/box.sh            builds the box if it does not exist: path on stdout, progress on stderr
#   vagrant/box.sh --path     prints the path, even if the box does not exist, and builds nothing
#
# The box is Debian 12 with everything that the machines of the lab need without a network to the outside: the dependencies of the package,
# and LocalStack in /opt/localstack. It works only with the libvirt provider. Its name in the cache has a hash of the files that it is made
# from. Needs root, or user namespaces (package uidmap).
set -euo pipefail

release=bookworm
disk_mib=3072
packages=(
    systemd systemd-sysv udev dbus kmod initramfs-tools linux-image-cloud-amd64
    # what Vagrant requires of a box
    openssh-server sudo iproute2
    # the dependencies of the luks-agent package, and tools to look at its volumes
    libcryptsetup12 cryptsetup-bin dmsetup libblkid1 libudev1 util-linux xfsprogs e2fsprogs ca-certificates
    procps less
    # for LocalStack, and for Ansible on a node, whose module apt would otherwise install python3-apt
    python3 python3-apt
)

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
debian=$here/../scripts/debian.sh
# as a hook, this script has debian.sh beside it
[[ -e $debian ]] || debian=$here/debian.sh
# shellcheck source=scripts/debian.sh
. "$debian"
export PATH=$PATH:/usr/sbin:/sbin

say() { echo "box: $*" >&2; }
die() { say "$*"; exit 1; }

# customize ROOT WORK: configures the tree at the end. This script is also mmdebstrap's hook and then runs as root in its namespace.
customize() {
    local root=$1 work=$2

    echo debian12 >"$root/etc/hostname"
    echo '127.0.0.1 localhost' >"$root/etc/hosts"
    : >"$root/etc/resolv.conf"
    : >"$root/etc/machine-id"
    echo 'LABEL=lab-root / ext4 errors=remount-ro 0 1' >"$root/etc/fstab"
    # a journal that survives a reboot
    mkdir -p "$root/var/log/journal"

    # Vagrant's conventions: https://developer.hashicorp.com/vagrant/docs/boxes/base. Everybody knows the key, as with every base box, so
    # others must not be able to reach the lab's network.
    chroot "$root" useradd --create-home --shell /bin/bash vagrant
    echo 'vagrant ALL=(ALL) NOPASSWD: ALL' >"$root/etc/sudoers.d/vagrant"
    chmod 440 "$root/etc/sudoers.d/vagrant"
    mkdir -m 700 "$root/home/vagrant/.ssh"
    install -m 600 "$work/vagrant.pub" "$root/home/vagrant/.ssh/authorized_keys"
    chroot "$root" chown -R vagrant:vagrant /home/vagrant/.ssh
    echo 'UseDNS no' >"$root/etc/ssh/sshd_config.d/vagrant.conf"

    # eth0 belongs to Vagrant, which configures the other interfaces later
    printf '[Match]\nName=eth0\n[Network]\nDHCP=ipv4\nLinkLocalAddressing=no\n' >"$root/etc/systemd/network/80-vagrant.network"
    printf 'blacklist %s\n' kvm kvm_amd kvm_intel powernow_k8 >"$root/etc/modprobe.d/lab.conf"
    chroot "$root" systemctl --quiet enable systemd-networkd.service ssh.service
    chroot "$root" systemctl --quiet mask \
        apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
        fstrim.timer getty@tty1.service console-getty.service systemd-timesyncd.service systemd-resolved.service

    mkdir -p "$root/opt/localstack"
    tar -C "$root/opt/localstack" -xf "$work/localstack.tar"
    # LocalStack uses the Python of the box, which must be the version that its virtual environment was created with
    chroot "$root" /opt/localstack/bin/python -c 'import localstack.runtime.main'

    rm -rf "$root"/var/cache/apt/*.bin "$root"/var/lib/apt/lists/*_*
    debian_parts "$root" "$work" lab-root "$((disk_mib - 1))"
}

case ${1:-} in
    --early) debian_small_initrd "$2"; exit ;;
    --customize) customize "$2" "$3"; exit ;;
esac

cache=${LUKS_AGENT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/luks-agent}
requirements=$here/../scripts/localstack-requirements.txt
hash=$(cat "${BASH_SOURCE[0]}" "$debian" "$requirements" | sha256sum | cut -c1-16)
box=$cache/box-$hash.box
case ${1:-} in
    --path) echo "$box"; exit ;;
    '') ;;
    *) die "unknown option '$1': expected --path or nothing" ;;
esac
[[ ! -e $box ]] || { echo "$box"; exit; }

for tool in mmdebstrap:mmdebstrap mke2fs:e2fsprogs sfdisk:fdisk qemu-img:qemu-utils vagrant:vagrant; do
    command -v "${tool%%:*}" >/dev/null ||
        die "${tool%%:*} is not installed (Debian package ${tool##*:}); run scripts/deps.sh vagrant"
done
localstack=$("$here/../scripts/deps.sh" --localstack-dir)
[[ -e $localstack/complete ]] || die "no LocalStack in $localstack; run scripts/deps.sh localstack"

mkdir -p "$cache"
exec 9>"$cache/box.lock"
flock -n 9 || { say "another process is building the box; waiting for it"; flock 9; }
[[ ! -e $box ]] || { echo "$box"; exit; }

# /var/tmp, because in a user namespace mmdebstrap's root may not enter a home directory that is closed to others
work=$(mktemp -d /var/tmp/luks-agent-box.XXXXXX)
trap 'rm -rf "$work"' EXIT
chmod 0777 "$work"
install -m 0755 "${BASH_SOURCE[0]}" "$work/box.sh"
install -m 0644 "$debian" "$work/"
# Vagrant's well-known public key, from Debian's package
install -m 0644 "$(dpkg-query --listfiles vagrant | grep '/keys/vagrant\.pub$')" "$work/vagrant.pub"
# without pip, which is not needed there, and without the texts of `aws help`
tar -C "$localstack" --owner=0 --group=0 --exclude='site-packages/pip' --exclude='site-packages/awscli/examples' \
    -cf "$work/localstack.tar" .

say "downloading and installing Debian 12 (about two minutes)"
start=$SECONDS
# shellcheck disable=SC2016 # the hook expands $1
debian_tree "$release" amd64 "$(IFS=,; echo "${packages[*]}")" "$cache/box.log" \
    "$work"'/box.sh --early "$1"' "$work"'/box.sh --customize "$1" '"$work"

say "assembling the box"
truncate -s "${disk_mib}M" "$work/disk.img"
sfdisk --quiet --label dos "$work/disk.img" <<<"start=1MiB, type=83"
dd if="$work/root.ext4" of="$work/disk.img" bs=1M seek=1 conv=notrunc,sparse status=none
qemu-img convert -c -O qcow2 -o compression_type=zstd "$work/disk.img" "$work/box.img"
cat >"$work/metadata.json" <<END
{"provider": "libvirt", "format": "qcow2", "virtual_size": $((disk_mib / 1024))}
END
# The box has no boot loader: QEMU starts the kernel, which is faster too.
cat >"$work/Vagrantfile" <<'END'
Vagrant.configure("2") do |config|
  config.vm.provider :libvirt do |libvirt|
    libvirt.kernel = File.expand_path("vmlinuz", __dir__)
    libvirt.initrd = File.expand_path("initrd.img", __dir__)
    libvirt.cmd_line = "root=/dev/vda1 rw console=ttyS0 net.ifnames=0 quiet"
  end
end
END
tar -C "$work" -cf "$work/new.box" metadata.json Vagrantfile box.img vmlinuz initrd.img
cp "$work/new.box" "$box.new"
mv "$box.new" "$box"
say "built in $((SECONDS - start)) s, $(du -h "$box" | cut -f1), $box"
echo "$box"
