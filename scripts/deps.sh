#!/bin/bash
# Installs what the build and the tests need on Debian 12 and 13, if it is missing. Fails unless everything is installed and runs.
#
#   scripts/deps.sh [build|test|lint|kernel|machine|localstack|openbao|browser|packages|fips|aarch64|fresh|vagrant|uml]...
#                                        (default: the first eight)
#   scripts/deps.sh --test-dir           prints the path of the virtual environment of the test runner, even if it does not exist yet
#   scripts/deps.sh --localstack-dir     the same for LocalStack
#   scripts/deps.sh --openbao-dir        the same for OpenBao
#   scripts/deps.sh --duckdb-dir         the same for DuckDB
#   scripts/deps.sh --browser-dir        the same for Playwright
#   scripts/deps.sh --ansible-dir        the same for Ansible
#   scripts/deps.sh --promtool           prints the path of promtool of Prometheus, even if it does not exist yet
#
# apt-get installs the Debian packages (as root, or through sudo). The test runner (cargo-nextest), LocalStack with the AWS CLI,
# OpenBao, DuckDB, Playwright and Ansible go into virtual environments in ${LUKS_AGENT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/luks-agent}.
set -euo pipefail

# Lists of Debian packages. A package with a question mark is not in every release; the tests work without it.

# aws-lc-sys also needs a C compiler, libFuzzer a C++ compiler, and bindgen (libcryptsetup-rs, libblkid-rs) libclang.
BUILD="gcc g++ libc6-dev make pkg-config libclang-dev libcryptsetup-dev libblkid-dev libudev-dev"
# The unit tier makes file systems in files.
TEST="python3 python3-venv xfsprogs e2fsprogs"
LINT="shellcheck"
# For a node in User-Mode Linux, and the tools that most scenarios of tests/kernel call: cryptsetup, dmsetup, mkfs, blkid, ip, strace.
UML="git user-mode-linux mmdebstrap uidmap patchelf kmod cryptsetup-bin dmsetup xfsprogs e2fsprogs iproute2 strace util-linux procps python3"
KERNEL="$UML"
# For the programs of the exec provider.
KERNEL+=" curl jq openssl"
# For the stacks that a boot disk can be part of.
KERNEL+=" lvm2 mdadm btrfs-progs bcache-tools fuse2fs"
# For a write load that verifies itself.
KERNEL+=" fio"
# For the memory of a program that loads the token plug-in.
KERNEL+=" valgrind"
# For the corpus of disks that are not blank (tests/support/images.rs).
KERNEL+=" dosfstools drbd-utils erofs-utils exfatprogs f2fs-tools fdisk gdisk genromfs gfs2-utils hfsutils? jfsutils makefs"
KERNEL+=" mtd-utils nilfs-tools ntfs-3g ocfs2-tools parted qemu-utils reiser4progs? reiserfsprogs? sqlite3 squashfs-tools"
KERNEL+=" udftools util-linux-extra xorriso"
# uidmap is for mmdebstrap without root.
MACHINE="qemu-system-x86 qemu-utils mmdebstrap e2fsprogs fdisk util-linux uidmap"
LOCALSTACK="python3 python3-venv"
OPENBAO="python3 python3-venv"
BROWSER="python3 python3-venv chromium"
# Tools that build packages, and tools that check them.
PACKAGES="binutils clang lld mmdebstrap uidmap cpio git lintian rpm rpmlint"
# For FIPS=1: the build of AWS-LC's FIPS module.
FIPS="cmake golang perl"
# For an aarch64 machine. binfmt-support lets this machine run programs of other architectures.
AARCH64="qemu-system-arm qemu-user-static binfmt-support arch-test"
FRESH="mmdebstrap git util-linux"
# Without libvirt-daemon-system, which starts daemons and creates networks on this machine; vagrant/isolated.sh starts its own.
VAGRANT="vagrant vagrant-libvirt libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients dnsmasq-base iptables qemu-system-x86"
VAGRANT+=" qemu-utils mmdebstrap e2fsprogs fdisk util-linux uidmap iproute2 procps openssh-client cryptsetup-bin python3 python3-venv"

# PACKAGE:COMMAND. The command must succeed for the package to count as installed.
RUNS=(
    "gcc:gcc --version" "g++:g++ --version" "make:make --version" "pkg-config:pkg-config --version"
    "python3:/usr/bin/python3 --version" "shellcheck:shellcheck --version"
    "cryptsetup-bin:cryptsetup --version" "dmsetup:dmsetup help" "xfsprogs:mkfs.xfs -V" "e2fsprogs:mke2fs -V" "kmod:modprobe --version"
    "iproute2:ip -Version" "strace:strace --version" "patchelf:patchelf --version" "mmdebstrap:mmdebstrap --version"
    "valgrind:valgrind --version"
    "qemu-system-x86:qemu-system-x86_64 --version" "qemu-utils:qemu-img --version" "fdisk:sfdisk --version"
    "clang:clang --version" "lld:ld.lld --version" "rpm:rpm --version" "git:git --version" "cpio:cpio --version"
    "cmake:cmake --version" "golang:go version" "lintian:lintian --version" "rpmlint:rpmlint --version" "chromium:chromium --version"
    "qemu-system-arm:qemu-system-aarch64 --version" "qemu-user-static:qemu-aarch64-static --version"
    "vagrant:vagrant --version" "dnsmasq-base:dnsmasq --version" "libvirt-clients:virsh --version"
)

requirements=$(dirname "$(realpath "$0")")
cache=${LUKS_AGENT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/luks-agent}
promtool=$cache/promtool

# venv_dir NAME: prints the directory of the virtual environment of NAME-requirements.txt.
venv_dir() {
    echo "$cache/$1-$(sha256sum "$requirements/$1-requirements.txt" | cut -c1-12)"
}

say() { echo "deps: $*"; }

die() {
    say "$*" >&2
    exit 1
}

architecture=$(dpkg --print-architecture 2>/dev/null || true)
as_root=()
((EUID == 0)) || as_root=(sudo)

apt_get() {
    # a new machine may be upgrading itself, and hold the lock
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 apt-get -y -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 "$@" </dev/null
}

update_lists() { apt_get -qq update; }

# Whether a package is installed for this machine's architecture. It may also be installed for others.
installed() {
    dpkg-query -W -f '${Architecture} ${db:Status-Status}\n' "$1" 2>/dev/null | grep -qxE "($architecture|all) installed"
}

# runs PACKAGE: whether its commands in RUNS succeed. Leaves their output in $said.
runs() {
    local check
    for check in "${RUNS[@]}"; do
        [[ ${check%%:*} == "$1" ]] || continue
        # shellcheck disable=SC2086 # a command with its arguments
        said=$(PATH=$PATH:/usr/sbin:/sbin ${check#*:} 2>&1 </dev/null) || return 1
    done
}

# look PACKAGE...: sets missing to the packages that are not installed, and broken to those that do not run.
look() {
    local package
    missing=() broken=()
    for package in "$@"; do
        if ! installed "$package"; then
            missing+=("$package")
        elif ! runs "$package"; then
            broken+=("$package")
        fi
    done
}

# Whether apt could install a package.
known() { [[ $(LC_ALL=C apt-cache policy "$1" 2>/dev/null) =~ Candidate:\ [^\(] ]]; }

# Prints what is wrong with a package, with the message of apt or of the program.
fault() {
    local said
    if installed "$1"; then
        runs "$1" || echo "$1 is installed but does not run: $said"
    else
        said=$(apt_get --simulate --no-install-recommends install "$1" 2>&1 | grep -E '^(E:|Remv )| (Depends|Conflicts|Breaks):' | head -n 5)
        echo "cannot install $1: ${said:-$(tail -n 3 "$log")}"
    fi
}

# Installing one package may remove another one on the list, which is then installed in the next round.
install_packages() {
    local package round log before wanted=() maybe=() missing broken said
    for package in "$@"; do
        if [[ $package != *\? ]]; then wanted+=("$package"); elif ! installed "${package%\?}"; then maybe+=("${package%\?}"); fi
    done
    look "${wanted[@]}"
    if ((${#missing[@]} + ${#broken[@]})); then
        command -v apt-get >/dev/null || die "apt-get is not available; install these packages of Debian 12 by hand: ${missing[*]} ${broken[*]}"
        ((EUID == 0)) || command -v sudo >/dev/null ||
            die "cannot install ${missing[*]} ${broken[*]}: not root, and sudo is not installed"
        update_lists
    fi
    for package in "${maybe[@]}"; do
        if known "$package"; then wanted+=("$package"); else say "apt does not know $package; continuing without it"; fi
    done

    log=$(mktemp)
    look "${wanted[@]}"
    for round in 1 2 3; do
        ((${#missing[@]} + ${#broken[@]})) || break
        before="${missing[*]} ${broken[*]}"
        : >"$log"
        if ((${#missing[@]})); then
            say "installing ${missing[*]}"
            if ! apt_get --no-install-recommends install "${missing[@]}" >>"$log" 2>&1; then
                # a package that cannot be installed must not prevent the others
                for package in "${missing[@]}"; do
                    apt_get --no-install-recommends install "$package" >>"$log" 2>&1 || true
                done
            fi
        fi
        if ((${#broken[@]})); then
            say "installing again what does not run: ${broken[*]}"
            apt_get --reinstall install "${broken[@]}" >>"$log" 2>&1 || true
        fi
        sed -n 's/^Removing \([^ ]*\) (\(.*\)) \.\.\.$/deps: apt removed \1 \2/p' "$log"
        look "${wanted[@]}"
        [[ "${missing[*]} ${broken[*]}" != "$before" ]] || break
    done
    for package in "${missing[@]}" "${broken[@]}"; do
        say "$(fault "$package") (round $round)" >&2
    done
    rm "$log"
    ((${#missing[@]} + ${#broken[@]} == 0)) || exit 1
}

# make_venv NAME WHAT: creates the virtual environment of NAME-requirements.txt. The file `complete` is written last, so an interrupted
# one is created again. (It cannot be renamed into place, because its scripts contain its path.)
make_venv() {
    local dir
    dir=$(venv_dir "$1")
    [[ -e $dir/complete ]] && return 0
    mkdir -p "$cache"
    exec 9>"$dir.lock"
    flock 9
    [[ -e $dir/complete ]] && return 0
    say "creating the virtual environment of $2 in $dir"
    rm -rf "$dir"
    # Debian's Python, not the first in PATH: the pinned versions are for it
    /usr/bin/python3 -m venv "$dir"
    "$dir/bin/pip" install -qq --no-input --disable-pip-version-check --requirement "$requirements/$1-requirements.txt" </dev/null
    touch "$dir/complete"
}

# Unpacks promtool without installing its package, which in Debian 12 would install and start a server.
make_promtool() {
    [[ -e $promtool ]] && return 0
    local dir package=prometheus
    say "fetching promtool (20 MB)"
    mkdir -p "$cache"
    # apt's own user must be able to write there
    dir=$(mktemp -d /var/tmp/luks-agent-promtool.XXXXXX)
    chmod 0777 "$dir"
    known $package || update_lists
    # promtool has its own package since Debian 13
    ! known promtool || package=promtool
    (cd "$dir" && apt-get -qq download $package) </dev/null
    dpkg-deb -x "$dir"/*.deb "$dir"
    mv "$dir/usr/bin/promtool" "$promtool"
    rm -rf "$dir"
}

# Every page of a process in User-Mode Linux is a separate mapping on the host, and LocalStack has more pages than the kernel allows by
# default, so it would be killed now and then. The setting lasts until this machine reboots.
allow_mappings() {
    local limit=/proc/sys/vm/max_map_count want=262144
    (($(<"$limit") < want)) || return 0
    say "raising vm.max_map_count to $want, for User-Mode Linux"
    if ((EUID == 0)); then
        echo "$want" >"$limit" && return 0
    else
        sudo -n sysctl -q -w "vm.max_map_count=$want" && return 0
    fi
    say "cannot raise vm.max_map_count, so LocalStack may be killed in its tests; as root, run: sysctl -w vm.max_map_count=$want" >&2
}

case ${1-} in
    --test-dir)
        venv_dir nextest
        exit
        ;;
    --localstack-dir | --openbao-dir | --duckdb-dir | --browser-dir | --ansible-dir)
        name=${1#--}
        venv_dir "${name%-dir}"
        exit
        ;;
    --promtool)
        echo "$promtool"
        exit
        ;;
esac

(($#)) || set -- build test lint kernel machine localstack openbao browser
packages=()
# shellcheck disable=SC2206 # the lists are split into words
for group in "$@"; do
    case $group in
        build) packages+=($BUILD) ;;
        test) packages+=($TEST) ;;
        lint) packages+=($LINT) ;;
        kernel) packages+=($KERNEL) ;;
        machine) packages+=($MACHINE) ;;
        localstack) packages+=($LOCALSTACK) ;;
        openbao) packages+=($OPENBAO) ;;
        browser) packages+=($BROWSER) ;;
        packages) packages+=($PACKAGES) ;;
        fips) packages+=($FIPS) ;;
        aarch64) packages+=($AARCH64) ;;
        fresh) packages+=($FRESH) ;;
        vagrant) packages+=($VAGRANT) ;;
        uml) packages+=($UML) ;;
        *) die "unknown group '$group': expected build, test, lint, kernel, machine, localstack, openbao, browser, packages, fips, aarch64, fresh, vagrant or uml" ;;
    esac
done

install_packages "${packages[@]}"
if [[ " $* " == *" test "* ]]; then
    make_venv nextest "the test runner (35 MB)"
    make_venv duckdb "DuckDB (60 MB)"
    make_promtool
fi
if [[ " $* " =~ \ (kernel|uml)\  ]]; then
    allow_mappings
    "$requirements/uml.sh" >/dev/null
fi
[[ " $* " == *" localstack "* ]] && make_venv localstack "LocalStack (about 400 MB)"
[[ " $* " == *" openbao "* ]] && make_venv openbao "OpenBao (250 MB)"
[[ " $* " == *" browser "* ]] && make_venv browser "Playwright (200 MB)"
[[ " $* " == *" vagrant "* ]] && make_venv ansible Ansible
say "$* ready"
