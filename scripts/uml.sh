#!/bin/bash
# Chooses the User-Mode Linux for the kernel tier and prints its directory:
#
#   linux      the kernel, which is a program
#   modules    its modules: modules/VERSION
#
#   scripts/uml.sh           the newer one if it boots, otherwise Debian's; fails with the reason if neither boots
#   scripts/uml.sh newer     from Debian testing, unpacked into the cache
#   scripts/uml.sh debian    from the package user-mode-linux of this release
#   scripts/uml.sh --dir     prints the last choice, without trying again
#
# UML=newer or UML=debian is the default of the argument.
#
# The kernels of Debian 12 (6.1) and Debian 13 (6.12) cannot run a process on a processor with AMX: their buffer for its registers is too
# small. The newer kernel works on every x86_64 processor and is faster.
set -euo pipefail

here=$(dirname "$(realpath "$0")")
cache=${LUKS_AGENT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/luks-agent}
chosen=$cache/uml
lib=lib/x86_64-linux-gnu
# some users do not have /usr/sbin in their PATH
export PATH=$PATH:/usr/sbin:/sbin

# shellcheck source=scripts/debian.sh
. "$here/debian.sh"

say() { echo "uml: $*" >&2; }
die() { say "$*"; exit 1; }

# unpack_newer DIR: unpacks User-Mode Linux of Debian testing into DIR, with the C library that it needs. Runs as a separate process
# (--unpack), so that any failing step ends it.
unpack_newer() {
    local dir=$1 new
    mkdir -p "$cache"
    new=$(mktemp -d "$cache/.uml-new.XXXXXX")
    # shellcheck disable=SC2064 # the value of now
    trap "rm -rf '$new'" EXIT
    mkdir -p "$new/tree" "$new/uml/$lib"
    debian_unpack forky amd64 "$new/tree" user-mode-linux libc6
    mv "$new/tree/usr/bin/linux.uml" "$new/uml/linux"
    mv "$new/tree/usr/lib/uml/modules" "$new/uml/modules"
    cp -L "$new/tree/usr/$lib/libc.so.6" "$new/tree/usr/$lib/ld-linux-x86-64.so.2" "$new/uml/$lib/"
    # The kernel executes itself again, so its file must name the loader; starting it through the loader is not enough.
    patchelf --set-interpreter "$dir/$lib/ld-linux-x86-64.so.2" --set-rpath "$dir/$lib" "$new/uml/linux"
    # another run may have finished first
    mv -T "$new/uml" "$dir" || [[ -e $dir/linux ]]
}

# Sets dir to the newer one. Unpacks it if it does not exist.
newer() {
    local recipe
    # the cache is part of the hash, because the program contains the path of its loader
    recipe=$({ declare -f unpack_newer debian_unpack; echo "$cache"; } | sha256sum | cut -c1-12)
    dir=$cache/uml-newer-$recipe
    ! "$dir/linux" --version &>/dev/null || return 0
    rm -rf "$dir"
    say "unpacking User-Mode Linux of Debian testing (40 MB, once)"
    "$here/uml.sh" --unpack "$dir" || { say "cannot unpack User-Mode Linux of Debian testing; the error is above"; return 1; }
}

# Sets dir to a directory of the same form with Debian's User-Mode Linux.
debian() {
    dir=$cache/uml-debian
    if [[ ! -x /usr/bin/linux.uml || ! -d /usr/lib/uml/modules ]]; then
        say "the package user-mode-linux is not installed"
        return 1
    fi
    [[ -e $dir/linux && -e $dir/modules ]] && return 0
    mkdir -p "$dir" && ln -sfn /usr/bin/linux.uml "$dir/linux" && ln -sfn /usr/lib/uml/modules "$dir/modules"
}

# Whether $dir runs a process here, and has the modules of its kernel. Leaves the console output in $console.
boots() {
    local scratch
    scratch=$(mktemp -d)
    cat >"$scratch/init" <<'INIT'
#!/bin/sh
mount -t proc proc /proc
[ ! -d "$uml_modules/$(uname -r)" ] || echo "uml.sh: a process runs"
echo o >/proc/sysrq-trigger
sleep 60
INIT
    chmod 0755 "$scratch" "$scratch/init"
    console=$(timeout --kill-after=5 60 "$dir/linux" mem=128M root=/dev/root rootfstype=hostfs rootflags=/ ro con=null con0=null,fd:1 \
        init="$scratch/init" uml_modules="$dir/modules" uml_dir="$scratch" umid=try seccomp=auto </dev/null 2>&1 || true)
    rm -rf "$scratch"
    [[ $console == *"uml.sh: a process runs"* ]]
}

# Writes only if the choice changes: the cache may belong to another user.
choose() {
    if [[ $(readlink "$chosen" || true) != "$dir" ]]; then
        ln -sfn "$dir" "$cache/.uml-chosen.$$"
        mv -T "$cache/.uml-chosen.$$" "$chosen"
    fi
    say "the kernel tier runs Linux $("$dir/linux" --version), of $1"
    echo "$chosen"
    exit 0
}

case ${1-${UML-}} in
    --dir)
        [[ -x $chosen/linux ]] || die "no User-Mode Linux was chosen yet; run scripts/deps.sh kernel"
        realpath "$chosen"
        exit
        ;;
    --unpack) unpack_newer "$2"; exit ;;
    newer) wanted=(newer) ;;
    debian) wanted=(debian) ;;
    '') wanted=(newer debian) ;;
    *) die "unknown User-Mode Linux '${1-$UML}': expected newer or debian" ;;
esac
[[ $(uname -m) == x86_64 ]] || die "User-Mode Linux needs an x86_64 machine; this one is $(uname -m)"

declare -A names=([newer]="Debian testing" [debian]="this release")
for kind in "${wanted[@]}"; do
    "$kind" || continue
    ! boots || choose "${names[$kind]}"
    say "Linux $("$dir/linux" --version) of ${names[$kind]} does not boot here; the end of its console:"
    tail -n 15 <<<"$console" | sed 's/^/    /' >&2
done
if grep -qw amx_tile /proc/cpuinfo; then
    die "no User-Mode Linux runs here: this processor has AMX, which only newer ones support; make Debian testing available to apt"
fi
die "no User-Mode Linux runs here; the reasons are above"
