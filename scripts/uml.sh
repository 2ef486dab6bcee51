#!/bin/bash
# Chooses the User-Mode Linux of the kernel tier, and prints its directory:
#
#   linux      its kernel, a program
#   modules    its modules: modules/VERSION
#
#   scripts/uml.sh           the newer one where it boots, else Debian's own; fails with the reason where neither does
#   scripts/uml.sh newer     that of Debian testing, unpacked into the cache
#   scripts/uml.sh debian    the package user-mode-linux of this release (UML=debian or UML=newer say the same)
#   scripts/uml.sh --dir     what was chosen last, without trying it again
#
# Why not Debian's own alone: those of Debian 12 and 13 (6.1 and 6.12) cannot run a process on a processor with AMX, because
# their buffer for its registers is too small. The newer one runs there and elsewhere, and is faster.
set -euo pipefail

here=$(dirname "$(realpath "$0")")
cache=${LUKS_AGENT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/luks-agent}
chosen=$cache/uml
# /usr/sbin is not in the path of every user
export PATH=$PATH:/usr/sbin:/sbin

# shellcheck source=scripts/debian.sh
. "$here/debian.sh"

say() { echo "uml: $*" >&2; }
die() { say "$*"; exit 1; }

# Debian testing's, with the C library that it wants beside it.
make_newer() {
    local recipe new lib
    recipe=$(declare -f make_newer debian_unpack | sha256sum | cut -c1-12)
    newer=$cache/uml-newer-$recipe
    [[ ! -e $newer ]] || return 0
    say "unpacking User-Mode Linux of Debian testing (40 MB, once)"
    mkdir -p "$cache"
    new=$(mktemp -d "$cache/.uml-new.XXXXXX")
    mkdir "$new/tree"
    debian_unpack forky amd64 "$new/tree" user-mode-linux libc6 || { rm -rf "$new"; return 1; }
    lib=lib/x86_64-linux-gnu
    mv "$new/tree/usr/bin/linux.uml" "$new/linux"
    mv "$new/tree/usr/lib/uml/modules" "$new/modules"
    mkdir -p "$new/$lib"
    cp -L "$new/tree/usr/$lib/libc.so.6" "$new/tree/usr/$lib/ld-linux-x86-64.so.2" "$new/$lib/"
    rm -rf "$new/tree"
    # it starts itself again, so that starting it through the loader would not do
    patchelf --set-interpreter "$newer/$lib/ld-linux-x86-64.so.2" --set-rpath "$newer/$lib" "$new/linux" || return 1
    chmod 0755 "$new"
    # another run may have been faster
    mv -T "$new" "$newer" 2>/dev/null || rm -rf "$new"
}

# Debian's own, as a directory of the same form.
make_debian() {
    debian=$cache/uml-debian
    [[ -x /usr/bin/linux.uml && -d /usr/lib/uml/modules ]] || return 1
    mkdir -p "$debian"
    ln -sfn /usr/bin/linux.uml "$debian/linux"
    ln -sfn /usr/lib/uml/modules "$debian/modules"
}

# boots DIR: whether it runs a process here. What it said is in $console.
boots() {
    local dir=$1 scratch
    scratch=$(mktemp -d)
    cat >"$scratch/init" <<'INIT'
#!/bin/sh
mount -t proc proc /proc
echo "uml.sh: a process runs under $(uname -r)"
echo o >/proc/sysrq-trigger
sleep 60
INIT
    chmod 0755 "$scratch" "$scratch/init"
    console=$(TMPDIR=$scratch timeout --kill-after=5 60 "$dir/linux" mem=128M root=/dev/root rootfstype=hostfs rootflags=/ ro \
        con=null con0=null,fd:1 init="$scratch/init" uml_dir="$scratch" umid=try seccomp=auto </dev/null 2>&1 || true)
    rm -rf "$scratch"
    [[ $console == *"uml.sh: a process runs under "* ]]
}

choose() {
    ln -sfn "$1" "$cache/.uml-chosen.$$"
    mv -T "$cache/.uml-chosen.$$" "$chosen"
    say "the kernel tier runs Linux $("$1/linux" --version)$2"
    echo "$chosen"
    exit 0
}

# what a user can read of a console: its last lines
tail_of() { tail -n 15 <<<"$1" | sed 's/^/    /' >&2; }

case ${1-${UML-}} in
    --dir)
        [[ -x $chosen/linux ]] || die "no User-Mode Linux was chosen yet: run scripts/deps.sh kernel"
        realpath "$chosen"
        exit
        ;;
    newer) wanted=(newer) ;;
    debian) wanted=(debian) ;;
    '') wanted=(newer debian) ;;
    *) die "unknown kind '${1-$UML}': expected newer or debian" ;;
esac
[[ $(uname -m) == x86_64 ]] || die "User-Mode Linux needs an x86_64 machine, this one is $(uname -m)"

for kind in "${wanted[@]}"; do
    if ! "make_$kind"; then
        case $kind in
            newer) say "the one of Debian testing cannot be had" ;;
            debian) say "the package user-mode-linux is not installed" ;;
        esac
    elif boots "${!kind}"; then
        [[ $kind == debian ]] && note=", of this release" || note=", of Debian testing"
        choose "${!kind}" "$note"
    else
        say "Linux $("${!kind}/linux" --version) does not boot here; the end of its console:"
        tail_of "$console"
    fi
done
if grep -qw amx_tile /proc/cpuinfo; then
    die "no User-Mode Linux runs here. This processor has AMX, with which only newer ones work: make Debian testing reachable for apt"
fi
die "no User-Mode Linux runs here; what each said is above"
