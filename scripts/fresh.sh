#!/bin/bash
# Tries the last commit of the checkout as a new user would, who has just cloned it on an empty machine: a bare Debian from mmdebstrap with
# git, make, sudo and the Rust toolchain of this machine, a user who may use sudo, and a clone.
#
#   scripts/fresh.sh TREE...                     runs the README's commands there (of make test, only the unit tier)
#   scripts/fresh.sh TREE -- COMMAND [ARG]...    runs another command there, as root
#
# TREE: bookworm       Debian 12
#       trixie         Debian 13
#       other-qemu     Debian 12 with qemu-utils from backports, which apt removes when it installs QEMU of Debian 12
#
# Needs root to create namespaces. The tree sees no disk of this machine. It takes about 12 GB in $FRESH_DIR (/var/tmp) and is deleted at
# the end; FRESH_KEEP=1 keeps it.
set -euo pipefail

project=$(dirname "$(dirname "$(realpath "$0")")")
# shellcheck source=scripts/debian.sh
. "$project/scripts/debian.sh"

say() { printf '\n== fresh: %s\n' "$*"; }
die() { echo "fresh: $*" >&2; exit 1; }

# Prints the environment variables for the network of this machine: proxies and certificates.
network_environment() { env | grep -iE '^([a-z_]*_proxy|[a-z_]*(cert|ca_bundle|cainfo|cert_file)|pip_[a-z_]*timeout)=' || true; }

# bare RELEASE ROOT: makes the tree, the user, and the clone.
bare() {
    local release=$1 root=$2 sources options
    sources=$(debian_sources "$release")
    mapfile -t options < <(debian_apt_options)
    mmdebstrap --quiet --mode=root --variant=minbase --include=git,make,sudo --aptopt='Acquire::Languages "none"' "${options[@]}" \
        "$release" "$root" ${sources:+-} <<<"$sources"
    chroot "$root" useradd --create-home --shell /bin/bash builder
    echo 'builder ALL=(ALL) NOPASSWD: ALL' >"$root/etc/sudoers.d/builder"
    # sudo must pass on the variables for the network
    network_environment | sed 's/=.*//; s/.*/Defaults env_keep += "&"/' >>"$root/etc/sudoers.d/builder"
    cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
    mkdir -p "$root/etc/ssl/certs" "$root/usr/local/share/ca-certificates" "$root/opt/rust"
    cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
    find /usr/local/share/ca-certificates -name '*.crt' -exec cp {} "$root/usr/local/share/ca-certificates/" \;
    git clone --quiet --no-local "$project" "$root/home/builder/luks-agent"
    chroot "$root" chown -R "$user:" /home/builder/luks-agent
}

# other_qemu ROOT: installs qemu-utils from backports, and removes the list of backports again before the README's commands run.
other_qemu() {
    local root=$1 list=$1/etc/apt/sources.list.d/other.list
    sed -n 's/ bookworm main$/ bookworm-backports main/p' "$root/etc/apt/sources.list" | head -n 1 >"$list"
    inside "$root" root 'apt-get -qq update && apt-get -qq -y --no-install-recommends install -t bookworm-backports qemu-utils >/dev/null &&
        dpkg-query -W qemu-utils'
    rm "$list"
    inside "$root" root 'apt-get -qq update'
}

# inside ROOT USER COMMAND: runs the command with the tree as its root. Its /dev has no disk of this machine.
inside() {
    local root=$1 user=$2 command=$3 environment
    mapfile -t environment < <(network_environment)
    # shellcheck disable=SC2016 # the inner shell expands it
    unshare --mount --pid --fork --kill-child --propagation private bash -ec '
        root=$1 rust=$2
        mount --bind "$root" "$root"
        mount -t tmpfs -o mode=755 dev "$root/dev"
        for node in null zero full random urandom tty kvm fuse; do
            [[ -e /dev/$node ]] || continue
            touch "$root/dev/$node"
            mount --bind "/dev/$node" "$root/dev/$node"
        done
        mkdir "$root/dev/pts" "$root/dev/shm"
        mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
        ln -s pts/ptmx "$root/dev/ptmx"
        ln -s /proc/self/fd "$root/dev/fd"
        mount -t tmpfs -o mode=1777 shm "$root/dev/shm"
        mount -t proc proc "$root/proc"
        mount --rbind /sys "$root/sys"
        mount --bind -o ro "$rust" "$root/opt/rust"
        mkdir -p "$root/.old"
        cd "$root"
        pivot_root . .old
        umount --lazy /.old
        rmdir /.old
        shift 2
        exec "$@"' bash "$root" "$rust" \
        setpriv --reuid="$user" --regid="$user" --init-groups --reset-env \
        env "${environment[@]}" PATH=/opt/rust/bin:/usr/local/bin:/usr/bin:/bin CARGO_TERM_COLOR=never "CI=${CI-}" \
        env -C /home/builder/luks-agent bash -c "$command" </dev/null
}

# Prints the commands of the README, with make test limited to its unit tier.
readme_commands() {
    sed -n '/<!-- first minute -->/,/<!-- end of first minute -->/{/^```\|^<!--/d;p}' "$project/README.md" | sed -E 's/ +#.*//; s/^make test$/make test-unit/'
}

((EUID == 0)) || die "needs root, to create namespaces"
rust=$(rustc --print sysroot) || die "cannot find rustc: no Rust toolchain in the PATH of root"
trees=()
while (($#)) && [[ $1 != -- ]]; do
    [[ $1 =~ ^(bookworm|trixie|other-qemu)$ ]] || die "unknown tree '$1': expected bookworm, trixie or other-qemu"
    trees+=("$1")
    shift
done
((${#trees[@]})) || die "expected a tree: bookworm, trixie or other-qemu"
user=builder
if (($#)); then
    shift
    user=root
    commands=$*
else
    commands=$(readme_commands)
    [[ $commands == *make* ]] || die "no commands found in README.md"
fi

dir=$(mktemp -d "${FRESH_DIR:-/var/tmp}/luks-agent-fresh.XXXXXX")
trap '[[ -n ${FRESH_KEEP-} ]] || rm -rf "$dir"' EXIT
for tree in "${trees[@]}"; do
    release=$tree
    [[ $tree != other-qemu ]] || release=bookworm
    say "$tree, in $dir/$tree"
    bare "$release" "$dir/$tree"
    [[ $tree != other-qemu ]] || other_qemu "$dir/$tree"
    while IFS= read -r command; do
        [[ -n $command ]] || continue
        say "$tree: $command"
        began=$SECONDS
        inside "$dir/$tree" "$user" "$command" || die "$tree: '$command' failed with status $?"
        say "$tree: '$command' succeeded in $((SECONDS - began)) s"
    done <<<"$commands"
    [[ -n ${FRESH_KEEP-} ]] || rm -rf "${dir:?}/$tree"
done
