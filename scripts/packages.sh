#!/bin/bash
# Builds the .deb and .rpm packages in target/packages:
#
#   scripts/packages.sh [x86_64|aarch64]...      (default: x86_64)
#
# luks-agent has the agent, luks-agent-cryptsetup-token the token plug-in of cryptsetup. Both are linked with the libraries of Debian 11,
# the oldest supported distribution, so that they need nothing newer. The script unpacks these libraries from Debian's packages
# into a "sysroot", without installing them, and clang links with them.
#
#   PACKAGE=NAME                 this package alone (default: both)
#   PACKAGE_RELEASE=2            the number after the version, for packaging the same version again (default 1)
#   SOURCE_DATE_EPOCH=seconds    the time of all files in the packages (default: the time of the last commit)
#   PACKAGE_OUT=DIR              another directory for the packages
#   FIPS=1                       with AWS-LC's FIPS module (docs/fips.md), for x86_64 alone, in target/packages-fips. "fips" is added to
#                                PACKAGE_RELEASE. The agent alone: the plug-in has no cryptography, so there is one for both agents
#
# The same commit, toolchain and sysroot give the same bytes, wherever the checkout is; `make reproducible` checks it.
set -euo pipefail
cd "$(dirname "$(realpath "$0")")/.."

# the tools from crates.io that make packages; raise these versions together
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
fips=${FIPS:-0}
agent=luks-agent plugin=luks-agent-cryptsetup-token
packages=("$agent" "$plugin")
features=() suffix=
out=$target/packages
if [[ $fips == 1 ]]; then
    features=(--features fips)
    suffix=fips
    packages=("$agent")
    out=$target/packages-fips
    # the module is built from its source, not taken from this machine
    export AWS_LC_FIPS_SYS_USE_SYSTEM=0
fi
out=$(realpath -m "${PACKAGE_OUT:-$out}")
release=${PACKAGE_RELEASE:-1}

say() { echo "packages: $*" >&2; }
die() { say "$*"; exit 1; }

[[ $release =~ ^[0-9]+$ ]] || die "PACKAGE_RELEASE is '$release': expected a number"
[[ $fips =~ ^[01]$ ]] || die "FIPS is '$fips': expected 1 or 0"
if [[ -n ${PACKAGE-} ]]; then
    [[ " ${packages[*]} " == *" $PACKAGE "* ]] || die "PACKAGE is '$PACKAGE': expected one of: ${packages[*]}"
    packages=("$PACKAGE")
fi
deb_release=$release${suffix:+"+$suffix"}
rpm_release=$release${suffix:+".$suffix"}
(($#)) || set -- x86_64
for arch in "$@"; do
    [[ $fips == 0 || $arch == x86_64 ]] || die "FIPS=1 is for x86_64 alone"
    [[ $arch == x86_64 || $arch == aarch64 ]] || die "unknown architecture '$arch': expected x86_64 or aarch64"
done
for tool in clang:clang ld.lld:lld mmdebstrap:mmdebstrap; do
    command -v "${tool%%:*}" >/dev/null || die "${tool%%:*} is not installed (Debian package ${tool##*:}); run scripts/deps.sh packages"
done

if [[ -z ${SOURCE_DATE_EPOCH-} ]]; then
    SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null) || die "this is not a git checkout; set SOURCE_DATE_EPOCH to the time of the release, in seconds since 1970"
fi
export SOURCE_DATE_EPOCH
export TZ=UTC LC_ALL=C

maintainer=$(sed -n 's/^maintainer = "\(.*\)"$/\1/p' Cargo.toml)
version=$("$cargo" metadata --format-version 1 --no-deps | sed 's/.*"name":"luks-agent","version":"\([^"]*\)".*/\1/')

# make_sysroot ARCHITECTURE TRIPLET: prints the directory with the libraries of Debian 11. ARCHITECTURE is Debian's name. The name of the
# directory has a hash of this function, so that a change of its code, messages included, makes a new sysroot.
make_sysroot() {
    local arch=$1 triplet=$2 sysroot new link
    sysroot=$cache/sysroot-$arch-$(declare -f make_sysroot | sha256sum | cut -c1-12)
    if [[ ! -e $sysroot ]]; then
        say "unpacking Debian 11's libraries for $arch (half a minute, once)"
        new=$(mktemp -d "$cache/.sysroot-new.XXXXXX")
        mkdir "$new/sysroot" "$new/header"
        debian_unpack bullseye "$arch" "$new/sysroot" \
            libc6-dev libgcc-10-dev libcryptsetup-dev libblkid-dev libudev-dev
        # The crate libcryptsetup-rs names some dm-crypt flags of cryptsetup 2.3.4 only if the header is from 2.4 or later, so the header is
        # Debian 12's. The library stays Debian 11's, so the linker fails on a function that it lacks.
        debian_unpack bookworm "$arch" "$new/header" libcryptsetup-dev
        cp "$new/header/usr/include/libcryptsetup.h" "$new/sysroot/usr/include/"
        sed -i 's/^Version: .*/Version: 2.6.1/' "$new/sysroot/usr/lib/$triplet/pkgconfig/libcryptsetup.pc"
        # absolute links would lead to this machine's libraries
        find "$new/sysroot" -type l -lname '/*' -print0 | while IFS= read -r -d '' link; do
            ln -sfn "$(realpath -ms --relative-to="$(dirname "$link")" "$new/sysroot$(readlink "$link")")" "$link"
        done
        (cd "$new/sysroot" && rm -rf boot etc home media mnt opt root run srv sys tmp var usr/share bin sbin usr/bin usr/sbin)
        mv -T "$new/sysroot" "$sysroot"
        rm -rf "$new"
    fi
    echo "$sysroot"
}

# make_toolchain ARCHITECTURE: prints a directory with Rust and clang of Debian sid, for an architecture whose standard library this
# machine's toolchain lacks. (rustup would need access to another host than Debian's mirror.) As above, the directory name is a hash.
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

# in_tree TREE COMMAND...: runs the command with TREE as its root. The directories that the build needs have the same paths there as here.
in_tree() {
    local map=()
    ((EUID == 0)) || map=(--map-root-user)
    # shellcheck disable=SC2016 # the inner shell expands it
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

# with_toolchain ARCH DEBIAN TRIPLET COMMAND...: runs the command with all that the build for ARCH needs: $CARGO builds for it, and
# packaging/sysroot-cc links for it. The paths of this machine are the only thing that the compilers would put into the program; the options
# below replace them.
with_toolchain() (
    local arch=$1 debian=$2 triplet=$3 name=${1}_unknown_linux_gnu cc=$PWD/packaging/sysroot-cc ar=ar tree run=()
    local remap="--remap-path-prefix=$PWD=/luks-agent --remap-path-prefix=$cargo_home=/cargo --remap-path-prefix=$build=/build"
    if [[ ! -d $(rustc --print sysroot)/lib/rustlib/$arch-unknown-linux-gnu/lib ]]; then
        "$cargo" fetch --quiet --locked
        tree=$(make_toolchain "$debian")
        run=(in_tree "$tree")
        cargo=cargo ar=llvm-ar
        # the unpacked tree has no cc, because no alternative was configured
        export CC=gcc CXX=g++ CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER=gcc CARGO_NET_OFFLINE=true
    fi
    export SYSROOT=$sysroot SYSROOT_TARGET=$triplet
    export PKG_CONFIG_SYSROOT_DIR=$sysroot PKG_CONFIG_LIBDIR=$sysroot/usr/lib/$triplet/pkgconfig PKG_CONFIG_ALLOW_CROSS=1
    export BINDGEN_EXTRA_CLANG_ARGS="--target=$triplet --sysroot=$sysroot"
    export "CC_$name=$cc" "CXX_$name=$cc" "AR_$name=$ar"
    export "CFLAGS_$name=-ffile-prefix-map=$cargo_home=/cargo -ffile-prefix-map=$build=/build"
    export "CARGO_TARGET_${name^^}_LINKER=$cc" "CARGO_TARGET_${name^^}_RUSTFLAGS=$remap"
    export CARGO_HOME=$cargo_home CARGO_TARGET_DIR=$build CARGO=$cargo CARGO_BUILD_TARGET=$arch-unknown-linux-gnu

    "${run[@]}" "${@:4}"
)

build_agent() {
    say "building the agent for $1"
    # shellcheck disable=SC2016 # the toolchain has its own cargo
    with_toolchain "$@" bash -c '"$CARGO" build --locked --profile dist --bin luks-agent "$@"' bash "${features[@]}"
}

# Makes the files of the agent's packages that are neither the program nor files of the checkout: target/release/package/... in Cargo.toml.
make_agent_files() {
    local arch=$1 dir=$2 program page
    # a program of another architecture does not run here, but would print the same
    program=$build/$(uname -m)-unknown-linux-gnu/dist/luks-agent
    [[ -x $program ]] || die "man pages and completions come from a program that runs on this machine; name $(uname -m) first, then $arch"
    rm -rf "$dir"
    mkdir -p "$dir/man"

    # section 1, because the program and the units refer to it
    "$program" man-pages "$dir/man"
    for page in "$dir"/man/*; do
        gzip -9n "$page"
    done
    "$program" completions bash >"$dir/luks-agent.bash"
    "$program" completions zsh >"$dir/_luks-agent"
    "$program" completions fish >"$dir/luks-agent.fish"

    # The example is valid and names somebody else's key. The installed file has no key, and every command reports that until there is one
    # in the file or in config.d.
    sed 's/^key_id = /##key_id = /' config/luks-agent.toml >"$dir/config.toml"
    ! grep -q '^key_id' "$dir/config.toml" || die "config/luks-agent.toml has a key_id that is not on a line of the form 'key_id = ...'"

    make_changelogs "$agent" "$dir"
    make_bill "$agent" luks-agent_bin.cdx.json "$dir" --describe binaries --target "$arch-unknown-linux-gnu" "${features[@]}"
}

# Makes the files of the plug-in's packages, the plug-in among them.
make_plugin_files() {
    local arch=$1 debian=$2 triplet=$3 dir=$4
    rm -rf "$dir"
    mkdir -p "$dir"
    say "building the token plug-in for $arch"
    with_toolchain "$arch" "$debian" "$triplet" env TOKEN_PROFILE=dist CC="$PWD/packaging/sysroot-cc" \
        scripts/token.sh "$dir/libcryptsetup-token-luks-agent-awskms.so"
    make_changelogs "$plugin" "$dir"
    # the same for each architecture, because these packages can be installed together
    make_bill "$plugin" "cryptsetup-token/$plugin.cdx.json" "$dir" --describe crate --target all
}

make_changelogs() {
    local package=$1 dir=$2
    gzip -9nc CHANGELOG.md >"$dir/changelog.gz"
    gzip -9n >"$dir/changelog.Debian.gz" <<CHANGELOG
$package ($version-$deb_release) unstable; urgency=medium

  * luks-agent $version; changelog.gz says what is new in it.

 -- $maintainer  $(date -u -R -d "@$SOURCE_DATE_EPOCH")
CHANGELOG
}

# make_bill PACKAGE WRITTEN DIR OPTION...: lists every linked crate with version, licence and checksum. WRITTEN is one of the files that
# cyclonedx writes beside each Cargo.toml of the workspace.
make_bill() {
    local package=$1 written=$2 dir=$3
    "$tools/cargo-cyclonedx" cyclonedx --quiet --format json --spec-version 1.5 --no-build-deps "${@:4}"
    # cargo omits the name if the directory has the same name
    sed "s|file://$PWD|file:///luks-agent|g; s|file:///luks-agent#\([0-9]\)|file:///luks-agent#luks-agent@\1|g" \
        "$written" >"$dir/$package.cdx.json"
    rm -f -- *.cdx.json */*.cdx.json
}

# make_deb PACKAGE ARCH DEBIAN TARGET_DIR OPTION...
make_deb() {
    local package=$1 arch=$2 debian=$3 target_dir=$4 file=$out/$1_$version-${deb_release}_$3.deb
    CARGO_TARGET_DIR=$target_dir "$tools/cargo-deb" --quiet --no-build --no-strip --profile dist --target "$arch-unknown-linux-gnu" \
        --package "$package" --deb-revision "$deb_release" --output "$file" "${@:5}" >/dev/null
    say "$(du -h "$file" | cut -f1) $file"
}

# make_rpm PACKAGE ARCH TARGET_DIR FILES OPTION...: FILES are what it takes of the build. Works on copies: cargo-generate-rpm sets the time
# of files to SOURCE_DATE_EPOCH only if they are newer, and files of a checkout may be older.
make_rpm() {
    local package=$1 arch=$2 target_dir=$3 files=$4 file=$out/$1-$version-$rpm_release.$2.rpm
    local copy=$build/rpm-$arch built=$arch-unknown-linux-gnu/dist
    rm -rf "$copy"
    mkdir -p "$copy/target/$built"
    # shellcheck disable=SC2086 # FILES are words
    (cd "$target_dir/$built" && cp -r $files "$copy/target/$built")
    cp -r Cargo.toml LICENSE-* CHANGELOG.md README.md cryptsetup-token docs packaging systemd "$copy"
    (cd "$copy" && CARGO_TARGET_DIR=$copy/target "$tools/cargo-generate-rpm" generate-rpm --profile dist \
        --target "$arch-unknown-linux-gnu" --auto-req "$PWD/packaging/rpm/find-requires" \
        --set-metadata "release = \"$rpm_release\"" --output "$file" "${@:5}")
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
    for package in "${packages[@]}"; do
        case $package in
            "$agent")
                build_agent "$arch" "$debian" "$triplet"
                make_agent_files "$arch" "$build/$arch-unknown-linux-gnu/dist/package"
                make_deb "$package" "$arch" "$debian" "$build"
                make_rpm "$package" "$arch" "$build" "luks-agent package"
                ;;
            "$plugin")
                make_plugin_files "$arch" "$debian" "$triplet" "$build/token/$arch-unknown-linux-gnu/dist/package"
                # puts what goes to usr/lib into the directory of the architecture, where Debian's libcryptsetup looks
                make_deb "$package" "$arch" "$debian" "$build/token" --multiarch=same
                make_rpm "$package" "$arch" "$build/token" package --package cryptsetup-token
                ;;
        esac
    done
done
