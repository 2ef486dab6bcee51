# shellcheck shell=bash
# Debian from its packages, by mmdebstrap: what scripts/machine-image.sh, scripts/packages.sh and vagrant/box.sh have in common. To be
# sourced by them, and by the hooks that mmdebstrap runs; `die` is theirs.

# Options for apt: the host's way to its mirrors, proxies and certificates. One a line.
debian_apt_options() {
    apt-config dump | grep -iE '^Acquire::https?(::|[[:space:]])[^"]*"[^"]+"' | sed 's/^/--aptopt=/' || true
}

# A mirror that the host is configured with.
debian_mirror() {
    apt-get indextargets --format '$(REPO_URI)|$(RELEASE)' 'Created-By: Packages' 2>/dev/null |
        sed -nE 's/\|(bullseye|bookworm|trixie)$//p' | head -n 1
}

# debian_sources RELEASE: the host's own sources, so that a configured mirror is used; of another release than the host's only what
# was released, as mirrors do not have all of the security updates of old ones. Nothing, for mmdebstrap's default, where it has none.
debian_sources() {
    local release=$1 sources mirror
    sources=$(apt-get indextargets --format '$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(SIGNED_BY)' 'Created-By: Packages' 2>/dev/null |
        awk -F'|' -v r="$release" '
            ($2 == r || $2 == r "-updates" || $2 == r "-security") && $3 == "main" {
                signed = substr($4, 1, 1) == "/" ? "[signed-by=" $4 "] " : ""
                print "deb " signed $1 " " $2 " " $3
            }' | sort -u)
    if ! grep -q " $release main\$" <<<"$sources"; then
        mirror=$(debian_mirror)
        sources=${mirror:+deb $mirror $release main}
    fi
    echo "$sources"
}

# debian_unpack RELEASE ARCHITECTURES DIR PACKAGE...: into an empty directory, nothing run, everything owned by the caller.
debian_unpack() {
    local release=$1 arch=$2 dir=$3 mirror options
    shift 3
    mirror=$(debian_mirror)
    mapfile -t options < <(debian_apt_options)
    # a mirror may lag behind, and the indexes of sid and testing are valid for a week only; their signatures are checked
    case $release in sid | forky) options+=('--aptopt=Acquire::Check-Valid-Until "false"') ;; esac
    mmdebstrap --quiet --variant=extract --format=tar --architectures="$arch" --include="$(IFS=,; echo "$*")" \
        --aptopt='Acquire::Languages "none"' "${options[@]}" "$release" - ${mirror:+"$mirror"} |
        tar -x --no-same-owner --no-same-permissions --exclude='./dev/*' -C "$dir"
}

# debian_tree RELEASE ARCHITECTURE PACKAGES LOG EARLY LATE [OPTION]...: installs PACKAGES (with commas between them) into a tree that
# is gone afterwards, but for what the hooks make of it: EARLY after the essential packages, LATE at the end, with the tree as "$1".
# As root, or where user namespaces are allowed.
debian_tree() {
    local release=$1 arch=$2 packages=$3 log=$4 early=$5 late=$6 mode=root sources options
    shift 6
    ((EUID == 0)) || mode=unshare
    sources=$(debian_sources "$release")
    mapfile -t options < <(debian_apt_options)
    mmdebstrap --mode="$mode" --variant=minbase --format=null --architectures="$arch" --include="$packages" \
        --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/info/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --aptopt='Acquire::Languages "none"' \
        "${options[@]}" "$@" --essential-hook="$early" --customize-hook="$late" \
        "$release" /dev/null ${sources:+-} <<<"$sources" >"$log" 2>&1 || {
        tail -n 30 "$log" >&2
        die "mmdebstrap failed, its whole log is in $log"
    }
}

# debian_small_initrd ROOT, as an early hook: the kernel package then makes an initrd with only what finds the root file system. Every
# module less is time saved under software emulation.
debian_small_initrd() {
    local root=$1
    mkdir -p "$root/etc/initramfs-tools/conf.d" "$root/usr/share/initramfs-tools/modules.d"
    printf 'MODULES=list\nBUSYBOX=n\nCOMPRESS=gzip\n' >"$root/etc/initramfs-tools/conf.d/small"
    printf '%s\n' virtio_pci virtio_blk ext4 crc32c_generic >"$root/usr/share/initramfs-tools/modules.d/small"
}

# debian_parts ROOT OUT_DIR LABEL SIZE_MIB, at the end of a late hook: root.ext4, vmlinuz and initrd.img in OUT_DIR.
debian_parts() {
    local root=$1 out=$2 label=$3 size_mib=$4
    # mmdebstrap's, which it takes away only after this: packages may start and stop services on the machine
    rm "$root/usr/sbin/policy-rc.d"
    mv "$root/sbin/start-stop-daemon.REAL" "$root/sbin/start-stop-daemon"
    cp -L "$root"/boot/vmlinuz-* "$out/vmlinuz"
    cp -L "$root"/boot/initrd.img-* "$out/initrd.img"
    truncate -s "${size_mib}M" "$out/root.ext4"
    # mmdebstrap has /proc and others mounted in the tree: a bind mount shows it without them
    # shellcheck disable=SC2016 # expanded by the inner shell
    unshare --mount --propagation private sh -ec '
        mkdir "$2/tree"
        mount --bind "$1" "$2/tree"
        mke2fs -q -F -t ext4 -L "$3" -d "$2/tree" "$2/root.ext4"' sh "$root" "$out" "$label"
    chmod a+r "$out"/{vmlinuz,initrd.img,root.ext4}
}
