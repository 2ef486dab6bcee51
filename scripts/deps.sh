#!/bin/bash
# Installs what building and testing need on Debian 12, only if it is missing.
#
#   scripts/deps.sh [build|lint|kernel|machine|localstack|packages|aarch64|vagrant]...     (default: the first five)
#   scripts/deps.sh --localstack-dir                         prints where LocalStack's virtual environment is (to be)
#   scripts/deps.sh --ansible-dir                            prints where that of Ansible is (to be)
#   scripts/deps.sh --promtool                               prints where Prometheus' promtool is (to be)
#
# Debian packages come by apt-get (as root, or through sudo); LocalStack with the AWS CLI, and Ansible, go into virtual environments
# in ${LUKS_AGENT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/luks-agent}.
set -euo pipefail

# A C compiler also for aws-lc-sys, a C++ compiler for libFuzzer; libclang for bindgen (libcryptsetup-rs, libblkid-rs).
BUILD="gcc g++ libc6-dev make pkg-config libclang-dev libcryptsetup-dev libblkid-dev libudev-dev"
LINT="shellcheck"
# The scenarios of tests/kernel call cryptsetup, dmsetup, mkfs, blkid, ip and strace themselves.
KERNEL="user-mode-linux kmod cryptsetup-bin dmsetup xfsprogs e2fsprogs iproute2 strace util-linux procps python3"
# Stacks that a boot disk can be in.
KERNEL+=" lvm2 mdadm btrfs-progs bcache-tools fuse2fs"
# The corpus of disks that are not blank (tests/support/images.rs) is made with these.
KERNEL+=" dosfstools drbd-utils erofs-utils exfatprogs f2fs-tools fdisk gdisk genromfs gfs2-utils hfsutils jfsutils makefs"
KERNEL+=" mtd-utils nilfs-tools ntfs-3g ocfs2-tools parted qemu-utils reiser4progs reiserfsprogs sqlite3 squashfs-tools"
KERNEL+=" udftools util-linux-extra xorriso"
# uidmap: for mmdebstrap without root.
MACHINE="qemu-system-x86 qemu-utils mmdebstrap e2fsprogs fdisk util-linux uidmap"
LOCALSTACK="python3 python3-venv"
# What builds them, and what judges them.
PACKAGES="binutils clang lld mmdebstrap cpio git lintian rpm rpmlint"
# What makes and runs a machine of aarch64. This machine then runs programs of other architectures.
AARCH64="qemu-system-arm qemu-user-static binfmt-support arch-test"
# Without libvirt-daemon-system, which starts daemons and makes networks on this machine: vagrant/isolated.sh starts its own.
VAGRANT="vagrant vagrant-libvirt libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients dnsmasq-base iptables qemu-system-x86"
VAGRANT+=" qemu-utils mmdebstrap e2fsprogs fdisk util-linux uidmap iproute2 procps openssh-client cryptsetup-bin python3 python3-venv"

requirements=$(dirname "$(realpath "$0")")
cache=${LUKS_AGENT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/luks-agent}
promtool=$cache/promtool

# the virtual environment of NAME-requirements.txt
venv_dir() {
    echo "$cache/$1-$(sha256sum "$requirements/$1-requirements.txt" | cut -c1-12)"
}

say() { echo "deps: $*"; }

die() {
    say "$*" >&2
    exit 1
}

as_root=()
((EUID == 0)) || as_root=(sudo)

update_lists() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq update </dev/null
}

install_packages() {
    local package missing=()
    for package in "$@"; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
    done
    ((${#missing[@]})) || return 0

    command -v apt-get >/dev/null || die "no apt-get here: install what Debian 12 calls ${missing[*]} by hand"
    if ((EUID != 0)); then
        command -v sudo >/dev/null || die "need to be root, or to have sudo, to install ${missing[*]}"
    fi
    say "installing ${missing[*]}"
    update_lists
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o Dpkg::Use-Pty=0 \
        install --no-install-recommends "${missing[@]}" </dev/null >/dev/null
}

# The file `complete` is written last: what was interrupted is made anew. (A virtual environment cannot be renamed into
# place, its scripts hold its path.)
# make_venv NAME WHAT
make_venv() {
    local dir
    dir=$(venv_dir "$1")
    [[ -e $dir/complete ]] && return 0
    mkdir -p "$cache"
    exec 9>"$dir.lock"
    flock 9
    [[ -e $dir/complete ]] && return 0
    say "making the virtual environment of $2 in $dir"
    rm -rf "$dir"
    # Debian's own Python, not one that comes first in PATH: the pins are for it.
    /usr/bin/python3 -m venv "$dir"
    "$dir/bin/pip" install -qq --no-input --disable-pip-version-check --requirement "$requirements/$1-requirements.txt" </dev/null
    touch "$dir/complete"
}

# Out of the package, which would install and start a server.
make_promtool() {
    [[ -e $promtool ]] && return 0
    local dir
    say "fetching promtool (19 MB)"
    mkdir -p "$cache"
    # apt's own user must be able to write there
    dir=$(mktemp -d /var/tmp/luks-agent-promtool.XXXXXX)
    chmod 0777 "$dir"
    if ! (cd "$dir" && apt-get -qq download prometheus) </dev/null; then
        update_lists
        (cd "$dir" && apt-get -qq download prometheus) </dev/null
    fi
    dpkg-deb -x "$dir"/prometheus_*.deb "$dir"
    mv "$dir/usr/bin/promtool" "$promtool"
    rm -rf "$dir"
}

# Every page of a process in User-Mode Linux is a mapping of its own on the host, and LocalStack has more of them than the
# kernel allows by default; it would be killed now and then. Lasts until this machine reboots.
allow_mappings() {
    local limit=/proc/sys/vm/max_map_count want=262144
    (($(<"$limit") < want)) || return 0
    say "raising vm.max_map_count to $want, for User-Mode Linux"
    if ((EUID == 0)); then
        echo "$want" >"$limit" && return 0
    else
        sudo -n sysctl -q -w "vm.max_map_count=$want" && return 0
    fi
    say "that failed; as root: sysctl -w vm.max_map_count=$want, else LocalStack may be killed in its tests" >&2
}

if [[ ${1-} == --localstack-dir ]]; then
    venv_dir localstack
    exit
fi

if [[ ${1-} == --ansible-dir ]]; then
    venv_dir ansible
    exit
fi

if [[ ${1-} == --promtool ]]; then
    echo "$promtool"
    exit
fi

(($#)) || set -- build lint kernel machine localstack
packages=()
# shellcheck disable=SC2206 # lists of words
for group in "$@"; do
    case $group in
        build) packages+=($BUILD) ;;
        lint) packages+=($LINT) ;;
        kernel) packages+=($KERNEL) ;;
        machine) packages+=($MACHINE) ;;
        localstack) packages+=($LOCALSTACK) ;;
        packages) packages+=($PACKAGES) ;;
        aarch64) packages+=($AARCH64) ;;
        vagrant) packages+=($VAGRANT) ;;
        *) die "unknown group '$group': expected build, lint, kernel, machine, localstack, packages, aarch64 or vagrant" ;;
    esac
done

install_packages "${packages[@]}"
[[ " $* " == *" kernel "* ]] && allow_mappings
[[ " $* " == *" machine "* ]] && make_promtool
[[ " $* " == *" localstack "* ]] && make_venv localstack "LocalStack (about 400 MB)"
[[ " $* " == *" vagrant "* ]] && make_venv ansible Ansible
say "$* ready"
