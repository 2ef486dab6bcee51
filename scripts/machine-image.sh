#!/bin/bash
# Builds the Debian image of the machine tier, Debian 12 unless another release is named, and prints the directory it is in:
#
#   disk.img   sparse raw disk, GPT, one ext4 partition with the root file system, free space behind it
#   vmlinuz, initrd.img   its kernel and initrd, for QEMU's -kernel and -initrd
#   packages   what is installed, with versions
#
# The image is generic and read-only: a VM boots from an overlay on it. It is cached under a name made of the hash of
# what it is made from, so a second call is instant and a changed recipe makes a new one. Works as root, and without
# where user namespaces are allowed (package uidmap).
#
# usage: scripts/machine-image.sh [bullseye|bookworm|trixie [amd64|arm64]]     directory on stdout, progress on stderr
set -euo pipefail

release=${1:-bookworm}
arch=${2:-amd64}
disk_mib=2048
part_mib=2000   # the rest of the disk stays unallocated, so that tests can see that nobody writes there
packages=(
    systemd systemd-sysv udev dbus kmod initramfs-tools "linux-image-cloud-$arch"
    libcryptsetup12 cryptsetup-bin dmsetup libblkid1 util-linux xfsprogs e2fsprogs
    ca-certificates iproute2 procps fdisk qemu-guest-agent
)
hooks=()
case $release in
    # as its installer made it, and its cloud images are: /lib is /usr/lib
    bullseye) hooks=(--setup-hook='/usr/share/mmdebstrap/hooks/merged-usr/setup00.sh "$1"') ;;
    # off but where a test turns them on: what else may be ordered against the agent's units; curl is in Debian's cloud images, too
    bookworm) packages+=(network-manager cloud-init curl) ;;
    trixie) ;;
    *) echo "machine image: unknown release '$release': expected bullseye, bookworm or trixie" >&2; exit 2 ;;
esac
case $arch in
    amd64) qemu=x86_64 ;;
    arm64) qemu=aarch64 ;;
    *) echo "machine image: unknown architecture '$arch': expected amd64 or arm64" >&2; exit 2 ;;
esac

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
setup=$here/../tests/machine/image-setup.sh

say() { echo "machine image: $*" >&2; }
die() { say "$*"; exit 1; }

for tool in mmdebstrap:mmdebstrap mke2fs:e2fsprogs sfdisk:fdisk flock:util-linux; do
    PATH=$PATH:/usr/sbin:/sbin command -v "${tool%%:*}" >/dev/null ||
        die "${tool%%:*} is not installed (Debian package ${tool##*:}): run scripts/deps.sh machine"
done
export PATH=$PATH:/usr/sbin:/sbin
# the packages' own scripts are run
[ "$arch" = "$(dpkg --print-architecture)" ] || [ -e "/proc/sys/fs/binfmt_misc/qemu-$qemu" ] ||
    die "this machine does not run programs of $arch (Debian packages qemu-user-static, binfmt-support and arch-test): run scripts/deps.sh aarch64"

cache=${LUKS_AGENT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/luks-agent}
hash=$({ cat "${BASH_SOURCE[0]}" "$setup"; echo "$release $arch"; } | sha256sum | cut -c1-16)
image=$cache/machine-$release-$arch-$hash

if [ -e "$image/disk.img" ]; then
    echo "$image"
    exit
fi

mkdir -p "$cache"
# two test runs at once must not build it twice
exec 9>"$cache/machine-image.lock"
flock -n 9 || { say "another process is building it, waiting"; flock 9; }
if [ -e "$image/disk.img" ]; then
    echo "$image"
    exit
fi

# /var/tmp: in a user namespace mmdebstrap's root may not enter a home directory that is closed to others, so the
# hooks find all they need here
work=$(mktemp -d /var/tmp/luks-agent-image.XXXXXX)
new=$(mktemp -d "$cache/.machine-new.XXXXXX")
trap 'rm -rf "$work" "$new"' EXIT
chmod 0777 "$work"
install -m 0755 "$setup" "$work/setup"

# The host's own Debian sources, so that a configured mirror is used; of another release than the host's only what was released,
# as mirrors do not have all of the security updates of old ones.
sources=$(apt-get indextargets --format '$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(SIGNED_BY)' 'Created-By: Packages' 2>/dev/null |
    awk -F'|' -v r="$release" '
        ($2 == r || $2 == r "-updates" || $2 == r "-security") && $3 == "main" {
            signed = substr($4, 1, 1) == "/" ? "[signed-by=" $4 "] " : ""
            print "deb " signed $1 " " $2 " " $3
        }' | sort -u)
if ! grep -q " $release main\$" <<<"$sources"; then
    mirror=$(apt-get indextargets --format '$(REPO_URI)|$(RELEASE)' 'Created-By: Packages' 2>/dev/null |
        sed -nE 's/\|(bullseye|bookworm|trixie)$//p' | head -n 1)
    sources=${mirror:+deb $mirror $release main}
fi

# and the host's way to them: proxies, certificates
apt_options=()
while IFS= read -r line; do
    apt_options+=("--aptopt=$line")
done < <(apt-config dump | grep -iE '^Acquire::https?(::|[[:space:]])[^"]*"[^"]+"' || true)

mode=root
[ "$(id -u)" = 0 ] || mode=unshare

say "downloading and installing Debian $release for $arch (about a minute, ten for another architecture)"
start=$SECONDS
log=$cache/machine-image.log
# The tree is turned into a file system by a hook, inside mmdebstrap's namespace, where the owners are right.
# shellcheck disable=SC2016 # $1 is the hook's
if ! mmdebstrap --mode=$mode --variant=minbase --format=null --architectures="$arch" \
    --include="$(IFS=,; echo "${packages[*]}")" \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/info/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --aptopt='Acquire::Languages "none"' \
    "${apt_options[@]}" "${hooks[@]}" \
    --essential-hook="$work"'/setup early "$1"' \
    --customize-hook="$work"'/setup late "$1" '"$work $part_mib" \
    "$release" /dev/null ${sources:+-} <<<"$sources" >"$log" 2>&1
then
    tail -n 30 "$log" >&2
    die "mmdebstrap failed, its whole log is in $log"
fi

say "putting the disk together"
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
