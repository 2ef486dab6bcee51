# shellcheck shell=bash
# Makes Debian trees from packages with mmdebstrap. scripts/machine-image.sh, scripts/packages.sh, vagrant/box.sh, other scripts, and the
# hooks that mmdebstrap runs source it. They define `die`.

# Prints options for apt, one per line: the host's proxies and certificates for its mirrors.
debian_apt_options() {
    apt-config dump | grep -iE '^Acquire::https?(::|[[:space:]])[^"]*"[^"]+"' | sed 's/^/--aptopt=/' || true
}

# Prints a mirror from the host's configuration.
debian_mirror() {
    apt-get indextargets --format '$(REPO_URI)|$(RELEASE)' 'Created-By: Packages' 2>/dev/null |
        sed -nE 's/\|(bullseye|bookworm|trixie)$//p' | head -n 1
}

# debian_sources RELEASE: prints the host's sources of the release, so that a configured mirror is used. For another release than the
# host's, prints only its main suite, because mirrors do not have all security updates of old releases. Prints nothing if the host has no
# mirror; mmdebstrap then uses its default.
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

# debian_unpack RELEASE ARCHITECTURES DIR PACKAGE...: unpacks the packages and their dependencies into the empty directory DIR. Runs no
# maintainer script. The caller owns all files.
debian_unpack() {
    local release=$1 arch=$2 dir=$3 mirror options
    shift 3
    mirror=$(debian_mirror)
    mapfile -t options < <(debian_apt_options)
    # The indexes of sid and testing are valid for one week only, and a mirror may lag behind. apt still checks their signatures.
    case $release in sid | forky) options+=('--aptopt=Acquire::Check-Valid-Until "false"') ;; esac
    mmdebstrap --quiet --variant=extract --format=tar --architectures="$arch" --include="$(IFS=,; echo "$*")" \
        --aptopt='Acquire::Languages "none"' "${options[@]}" "$release" - ${mirror:+"$mirror"} |
        tar -x --no-same-owner --no-same-permissions --exclude='./dev/*' -C "$dir"
}

# debian_tree RELEASE ARCHITECTURE PACKAGES LOG EARLY LATE [OPTION]...: installs PACKAGES (separated by commas) into a temporary tree. The
# hooks get the tree as "$1" and save what is needed: EARLY runs after the essential packages are installed, LATE at the end. Needs root, or
# user namespaces.
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
        die "mmdebstrap failed; its whole log is in $log"
    }
}

# debian_small_initrd ROOT: for an early hook. The kernel package then makes an initrd with only the modules for the root file system, which
# saves time under software emulation.
debian_small_initrd() {
    local root=$1
    mkdir -p "$root/etc/initramfs-tools/conf.d" "$root/usr/share/initramfs-tools/modules.d"
    printf 'MODULES=list\nBUSYBOX=n\nCOMPRESS=gzip\n' >"$root/etc/initramfs-tools/conf.d/small"
    printf '%s\n' virtio_pci virtio_blk ext4 crc32c_generic >"$root/usr/share/initramfs-tools/modules.d/small"
}

# debian_parts ROOT OUT_DIR LABEL SIZE_MIB: for the end of a late hook. Writes root.ext4, vmlinuz and initrd.img to OUT_DIR.
debian_parts() {
    local root=$1 out=$2 label=$3 size_mib=$4
    # mmdebstrap removes these only after the hook; without them, packages may start and stop services on the machine
    rm "$root/usr/sbin/policy-rc.d"
    mv "$root/sbin/start-stop-daemon.REAL" "$root/sbin/start-stop-daemon"
    cp -L "$root"/boot/vmlinuz-* "$out/vmlinuz"
    cp -L "$root"/boot/initrd.img-* "$out/initrd.img"
    truncate -s "${size_mib}M" "$out/root.ext4"
    # mmdebstrap has /proc and other file systems mounted in the tree; a bind mount shows the tree without them
    # shellcheck disable=SC2016 # the inner shell expands it
    unshare --mount --propagation private sh -ec '
        mkdir "$2/tree"
        mount --bind "$1" "$2/tree"
        contexts=/etc/selinux/default/contexts/files/file_contexts
        if [ -e "$2/tree$contexts" ]; then
            # setfiles needs /proc; -m: it labels although this machine has no SELinux
            mount --bind /proc "$2/tree/proc"
            chroot "$2/tree" setfiles -m -F -e /proc "$contexts" /
            umount "$2/tree/proc"
        fi
        mke2fs -q -F -t ext4 -L "$3" -d "$2/tree" "$2/root.ext4"' sh "$root" "$out" "$label"
    chmod a+r "$out"/{vmlinuz,initrd.img,root.ext4}
}
