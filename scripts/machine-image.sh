#!/bin/bash
# Builds the Debian image of the machine tier and prints its directory. The default is Debian 12.
#
#   disk.img   sparse raw disk, GPT, one ext4 partition with the root file system, free space behind it
#   vmlinuz, initrd.img   its kernel and initrd, for QEMU's -kernel and -initrd
#   packages   the installed packages, with versions
#
# The image is generic and read-only: a VM boots from an overlay on it. Its name in the cache has a hash of the scripts that make it, so a
# second call returns at once, and a changed script, even a changed comment, makes a new image. Needs root, or user namespaces (package
# uidmap).
#
# bookworm-selinux is bookworm with SELinux: its policy is installed and every file has its label, for which it needs root. It still needs
# the kernel arguments security=selinux and enforcing=1.
#
# usage: scripts/machine-image.sh [bullseye|bookworm|bookworm-selinux|trixie [amd64|arm64]]     directory on stdout, progress on stderr
set -euo pipefail

variant=${1:-bookworm}
release=${variant%-selinux}
arch=${2:-amd64}
disk_mib=2048
part_mib=2000   # the rest of the disk stays unallocated, so that tests can check that nothing writes there
packages=(
    systemd systemd-sysv udev dbus kmod initramfs-tools "linux-image-cloud-$arch"
    libcryptsetup12 cryptsetup-bin dmsetup libblkid1 util-linux xfsprogs e2fsprogs
    ca-certificates iproute2 procps fdisk qemu-guest-agent
)
hooks=()
case $variant in
    # with merged /usr, as its installer and its cloud images have it
    bullseye) hooks=(--setup-hook='/usr/share/mmdebstrap/hooks/merged-usr/setup00.sh "$1"') ;;
    # NetworkManager and cloud-init may be ordered against the agent's units; they are off unless a test turns them on. Debian's cloud
    # images have curl too. netplan and unattended-upgrades as on Ubuntu. systemd-cryptsetup is a package of its own there.
    trixie) packages+=(systemd-cryptsetup network-manager cloud-init curl netplan.io unattended-upgrades) ;;
    # rpm for the life of the .rpm; needrestart as on Ubuntu, where it restarts services after upgrades
    bookworm) packages+=(network-manager cloud-init curl rpm needrestart) ;;
    bookworm-selinux) packages+=(selinux-policy-default policycoreutils) ;;
    *) echo "machine-image: unknown release '$variant': expected bullseye, bookworm, bookworm-selinux or trixie" >&2; exit 2 ;;
esac
case $arch in
    amd64) qemu=x86_64 ;;
    arm64) qemu=aarch64 ;;
    *) echo "machine-image: unknown architecture '$arch': expected amd64 or arm64" >&2; exit 2 ;;
esac

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
setup=$here/../tests/machine/image-setup.sh
# shellcheck source=scripts/debian.sh
. "$here/debian.sh"

say() { echo "machine-image: $*" >&2; }
die() { say "$*"; exit 1; }

[[ $variant != *-selinux ]] || ((EUID == 0)) || die "$variant needs root: a user namespace cannot set SELinux labels"
for tool in mmdebstrap:mmdebstrap mke2fs:e2fsprogs sfdisk:fdisk flock:util-linux; do
    PATH=$PATH:/usr/sbin:/sbin command -v "${tool%%:*}" >/dev/null ||
        die "${tool%%:*} is not installed (Debian package ${tool##*:}); run scripts/deps.sh machine"
done
export PATH=$PATH:/usr/sbin:/sbin
# the maintainer scripts of the packages must run
[ "$arch" = "$(dpkg --print-architecture)" ] || [ -e "/proc/sys/fs/binfmt_misc/qemu-$qemu" ] ||
    die "this machine does not run programs of $arch (Debian packages qemu-user-static, binfmt-support, arch-test); run scripts/deps.sh aarch64"

cache=${LUKS_AGENT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/luks-agent}
hash=$({ cat "${BASH_SOURCE[0]}" "$setup" "$here/debian.sh"; echo "$variant $arch"; } | sha256sum | cut -c1-16)
image=$cache/machine-$variant-$arch-$hash

if [ -e "$image/disk.img" ]; then
    echo "$image"
    exit
fi

mkdir -p "$cache"
# two test runs at once must not build it twice
exec 9>"$cache/machine-image.lock"
flock -n 9 || { say "another process is building the image; waiting for it"; flock 9; }
if [ -e "$image/disk.img" ]; then
    echo "$image"
    exit
fi

# /var/tmp, because in a user namespace mmdebstrap's root may not enter a home directory that is closed to others; the hooks find everything
# they need here
work=$(mktemp -d /var/tmp/luks-agent-image.XXXXXX)
new=$(mktemp -d "$cache/.machine-new.XXXXXX")
trap 'rm -rf "$work" "$new"' EXIT
chmod 0777 "$work"
install -m 0755 "$setup" "$work/setup"
install -m 0644 "$here/debian.sh" "$work/"

say "downloading and installing Debian $variant for $arch (about a minute, ten for another architecture)"
start=$SECONDS
# A hook turns the tree into a file system inside mmdebstrap's namespace, where the files have the right owners.
# shellcheck disable=SC2016 # the hook expands $1
debian_tree "$release" "$arch" "$(IFS=,; echo "${packages[*]}")" "$cache/machine-image.log" \
    "$work"'/setup early "$1"' "$work"'/setup late "$1" '"$work $part_mib" "${hooks[@]}"

say "assembling the disk"
truncate -s "${disk_mib}M" "$new/disk.img"
sfdisk --quiet --label gpt "$new/disk.img" <<<"start=1MiB, size=${part_mib}MiB, type=linux, name=root"
dd if="$work/root.ext4" of="$new/disk.img" bs=1M seek=1 conv=notrunc,sparse status=none
cp "$work/vmlinuz" "$work/initrd.img" "$work/packages" "$new/"
chmod 0755 "$new"
chmod -R a-w "$new"
chmod u+w "$new"
mv -T "$new" "$image"
say "built in $((SECONDS - start)) s, $(du -sh "$image" | cut -f1), in $image"
echo "$image"
