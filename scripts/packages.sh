#!/bin/bash
# Builds the packages, .deb and .rpm, into target/packages:
#
#   scripts/packages.sh [x86_64|aarch64]...      (default: x86_64)
#
# The agent in them is linked with the libraries of Debian 11, the oldest distribution that they are for, so that it runs there
# and on all that are newer. Those are unpacked from its packages, not installed ("sysroot"), and clang links with them.
#
#   PACKAGE_RELEASE=2            the number behind the version of the package, when the same version is packaged again (default 1)
#   SOURCE_DATE_EPOCH=seconds    the time that all files in the packages have (default: that of the last commit)
#   PACKAGE_OUT=DIR              another place for the packages
#
# The same commit, toolchain and sysroot give the same bytes, wherever the checkout is: `make reproducible` tries it.
set -euo pipefail
cd "$(dirname "$(realpath "$0")")/.."

# raise these together: the tools that make packages, from crates.io
cargo_deb=3.8.0
cargo_generate_rpm=0.21.1
cargo_cyclonedx=0.5.9

# shellcheck source=scripts/debian.sh
. scripts/debian.sh

cargo=${CARGO:-cargo}
cache=${LUKS_AGENT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/luks-agent}
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
build=$target/package-build
cargo_home=${CARGO_HOME:-$HOME/.cargo}
out=$(realpath -m "${PACKAGE_OUT:-$target/packages}")
release=${PACKAGE_RELEASE:-1}

say() { echo "packages: $*" >&2; }
die() { say "$*"; exit 1; }

[[ $release =~ ^[0-9]+$ ]] || die "PACKAGE_RELEASE is '$release', expected a number"
(($#)) || set -- x86_64
for arch in "$@"; do
    [[ $arch == x86_64 || $arch == aarch64 ]] || die "unknown architecture '$arch': expected x86_64 or aarch64"
done
for tool in clang:clang ld.lld:lld mmdebstrap:mmdebstrap; do
    command -v "${tool%%:*}" >/dev/null || die "${tool%%:*} is not installed (Debian package ${tool##*:}): run scripts/deps.sh packages"
done

if [[ -z ${SOURCE_DATE_EPOCH-} ]]; then
    SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null) || die "this is no git checkout: set SOURCE_DATE_EPOCH to the time of the release, in seconds since 1970"
fi
export SOURCE_DATE_EPOCH
export TZ=UTC LC_ALL=C

maintainer=$(sed -n 's/^maintainer = "\(.*\)"$/\1/p' Cargo.toml)
version=$("$cargo" metadata --format-version 1 --no-deps | sed 's/.*"name":"luks-agent","version":"\([^"]*\)".*/\1/')

# Prints the directory with the libraries of Debian 11 for an architecture, as Debian calls it, and a triplet.
make_sysroot() {
    local arch=$1 triplet=$2 sysroot new link
    sysroot=$cache/sysroot-$arch-$(declare -f make_sysroot | sha256sum | cut -c1-12)
    if [[ ! -e $sysroot ]]; then
        say "unpacking Debian 11's libraries for $arch (half a minute, once)"
        new=$(mktemp -d "$cache/.sysroot-new.XXXXXX")
        mkdir "$new/sysroot" "$new/header"
        debian_unpack bullseye "$arch" "$new/sysroot" \
            libc6-dev libgcc-10-dev libcryptsetup-dev libblkid-dev libudev-dev
        # Flags of dm-crypt that cryptsetup 2.3.4 knows have names in the crate libcryptsetup-rs only when the header is
        # of 2.4 or later: Debian 12's. The library stays: what it has not, the linker does not find.
        debian_unpack bookworm "$arch" "$new/header" libcryptsetup-dev
        cp "$new/header/usr/include/libcryptsetup.h" "$new/sysroot/usr/include/"
        sed -i 's/^Version: .*/Version: 2.6.1/' "$new/sysroot/usr/lib/$triplet/pkgconfig/libcryptsetup.pc"
        # links to /lib... would lead to this machine's libraries
        find "$new/sysroot" -type l -lname '/*' -print0 | while IFS= read -r -d '' link; do
            ln -sfn "$(realpath -ms --relative-to="$(dirname "$link")" "$new/sysroot$(readlink "$link")")" "$link"
        done
        (cd "$new/sysroot" && rm -rf boot etc home media mnt opt root run srv sys tmp var usr/share bin sbin usr/bin usr/sbin)
        mv -T "$new/sysroot" "$sysroot"
        rm -rf "$new"
    fi
    echo "$sysroot"
}

# Prints a directory with sid's Rust and clang, for an architecture that the toolchain of this machine has no standard library for
# (rustup would fetch it; Debian's packages need no other host to be reached).
make_toolchain() {
    local arch=$1 tree new
    tree=$cache/toolchain-$arch-$(declare -f make_toolchain | sha256sum | cut -c1-12)
    if [[ ! -e $tree ]]; then
        say "unpacking Debian sid's Rust for $arch (2 GB, once)"
        new=$(mktemp -d "$cache/.toolchain-new.XXXXXX")
        debian_unpack sid "$(dpkg --print-architecture),$arch" "$new" \
            cargo rustc "libstd-rust-dev:$arch" clang lld llvm libclang-dev gcc libc6-dev pkgconf \
            base-files bash coreutils dash grep sed
        mv -T "$new" "$tree"
    fi
    echo "$tree"
}

# in_tree TREE COMMAND...: with that directory for its root, in which what the build needs is where it is here
in_tree() {
    local map=()
    ((EUID == 0)) || map=(--map-root-user)
    # shellcheck disable=SC2016 # the inner shell's
    unshare "${map[@]}" --mount --propagation private bash -ec '
        tree=$1; shift
        while [[ $1 != -- ]]; do
            mkdir -p "$tree$1"
            mount --rbind "$1" "$tree$1"
            shift
        done
        shift
        exec chroot "$tree" env -C "$PWD" PATH=/usr/bin:/usr/sbin "$@"' bash \
        "$1" /dev /proc "$PWD" "$cache" "$build" "$cargo_home" -- "${@:2}"
}

# What the compilers would learn of the machine is its paths, and they are mapped away.
build_agent() (
    local arch=$1 debian=$2 triplet=$3 name=${1}_unknown_linux_gnu cc=$PWD/packaging/sysroot-cc ar=ar tree run=()
    local remap="--remap-path-prefix=$PWD=/luks-agent --remap-path-prefix=$cargo_home=/cargo --remap-path-prefix=$build=/build"
    if [[ ! -d $(rustc --print sysroot)/lib/rustlib/$arch-unknown-linux-gnu/lib ]]; then
        "$cargo" fetch --quiet --locked
        tree=$(make_toolchain "$debian")
        run=(in_tree "$tree")
        cargo=cargo ar=llvm-ar
        # in an unpacked tree nobody has chosen which compiler cc is
        export CC=gcc CXX=g++ CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER=gcc CARGO_NET_OFFLINE=true
    fi
    export SYSROOT=$sysroot SYSROOT_TARGET=$triplet
    export PKG_CONFIG_SYSROOT_DIR=$sysroot PKG_CONFIG_LIBDIR=$sysroot/usr/lib/$triplet/pkgconfig PKG_CONFIG_ALLOW_CROSS=1
    export BINDGEN_EXTRA_CLANG_ARGS="--target=$triplet --sysroot=$sysroot"
    export "CC_$name=$cc" "CXX_$name=$cc" "AR_$name=$ar"
    export "CFLAGS_$name=-ffile-prefix-map=$cargo_home=/cargo -ffile-prefix-map=$build=/build"
    export "CARGO_TARGET_${name^^}_LINKER=$cc" "CARGO_TARGET_${name^^}_RUSTFLAGS=$remap"
    export CARGO_HOME=$cargo_home CARGO_TARGET_DIR=$build

    say "building the agent for $arch"
    "${run[@]}" "$cargo" build --locked --profile dist --target "$arch-unknown-linux-gnu" --bin luks-agent
)

# What is in the packages beside the program and files of the checkout, for Cargo.toml: target/release/package/...
make_files() {
    local arch=$1 dir=$2 agent page
    # one of another architecture cannot be asked, but would say the same
    agent=$build/$(uname -m)-unknown-linux-gnu/dist/luks-agent
    [[ -x $agent ]] || die "man pages and completions come from the program of this machine: name $(uname -m) first, then $arch"
    rm -rf "$dir"
    mkdir -p "$dir/man"

    # section 1 is what the program and the units say
    "$agent" man-pages "$dir/man"
    for page in "$dir"/man/*; do
        gzip -9n "$page"
    done
    "$agent" completions bash >"$dir/luks-agent.bash"
    "$agent" completions zsh >"$dir/_luks-agent"
    "$agent" completions fish >"$dir/luks-agent.fish"

    # The example has somebody else's key in it, and is valid; what is installed has none, and every command says so, until there
    # is one here or in config.d.
    sed 's/^key_id = /##key_id = /' config/luks-agent.toml >"$dir/config.toml"
    ! grep -q '^key_id' "$dir/config.toml" || die "config/luks-agent.toml: its key_id is not where it was expected"

    gzip -9nc CHANGELOG.md >"$dir/changelog.gz"
    gzip -9n >"$dir/changelog.Debian.gz" <<CHANGELOG
luks-agent ($version-$release) unstable; urgency=medium

  * luks-agent $version; changelog.gz says what is new in it.

 -- $maintainer  $(date -u -R -d "@$SOURCE_DATE_EPOCH")
CHANGELOG

    # every crate that is linked in, with version, licence and checksum; it is written beside each Cargo.toml of the workspace
    "$tools/cargo-cyclonedx" cyclonedx --quiet --format json --spec-version 1.5 --describe binaries --no-build-deps \
        --target "$arch-unknown-linux-gnu"
    # cargo leaves the name out where the directory has it
    sed "s|file://$PWD|file:///luks-agent|g; s|file:///luks-agent#\([0-9]\)|file:///luks-agent#luks-agent@\1|g" \
        luks-agent_bin.cdx.json >"$dir/luks-agent.cdx.json"
    find . -path ./target -prune -o -name '*_bin.cdx.json' -exec rm {} +
}

make_deb() {
    local arch=$1 file=$out/luks-agent_$version-${release}_$2.deb
    CARGO_TARGET_DIR=$build "$tools/cargo-deb" --quiet --no-build --no-strip --profile dist --target "$arch-unknown-linux-gnu" \
        --deb-revision "$release" --output "$file" >/dev/null
    say "$(du -h "$file" | cut -f1) $file"
}

# From copies: cargo-generate-rpm gives files SOURCE_DATE_EPOCH as their time unless they are older, as those of a checkout are.
make_rpm() {
    local arch=$1 file=$out/luks-agent-$version-$release.$1.rpm copy=$build/rpm-$1 built=$1-unknown-linux-gnu/dist
    rm -rf "$copy"
    mkdir -p "$copy/target/$built"
    cp -r "$build/$built"/{luks-agent,package} "$copy/target/$built"
    cp -r Cargo.toml LICENSE-* CHANGELOG.md README.md docs packaging systemd "$copy"
    (cd "$copy" && CARGO_TARGET_DIR=$copy/target "$tools/cargo-generate-rpm" generate-rpm --profile dist \
        --target "$arch-unknown-linux-gnu" --auto-req "$PWD/packaging/rpm/find-requires" \
        --set-metadata "release = \"$release\"" --output "$file")
    say "$(du -h "$file" | cut -f1) $file"
}

mkdir -p "$cache" "$build" "$out"
tools=$(scripts/cargo-tools.sh "cargo-deb@$cargo_deb" "cargo-generate-rpm@$cargo_generate_rpm" "cargo-cyclonedx@$cargo_cyclonedx")
for arch in "$@"; do
    case $arch in
        x86_64) debian=amd64 triplet=x86_64-linux-gnu ;;
        aarch64) debian=arm64 triplet=aarch64-linux-gnu ;;
    esac
    sysroot=$(make_sysroot "$debian" "$triplet")
    build_agent "$arch" "$debian" "$triplet"
    make_files "$arch" "$build/$arch-unknown-linux-gnu/dist/package"
    make_deb "$arch" "$debian"
    make_rpm "$arch"
done
