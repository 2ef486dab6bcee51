#!/bin/sh
# The guest's side of `make bench`: what people do by hand without luks-agent, and the steps before and after a run. Volumes are called
# bench-1 and so on. dash, not bash, because it starts programs faster.
#
#   bench.sh format-default|open-default N    with the defaults of `cryptsetup`, one volume after the other
#   bench.sh format-tuned|open-tuned N        with the cheapest key derivation, as many volumes at once as there are cores
#   bench.sh setup N | blank N | close | settle | cold
#   bench.sh format-gp3 | blank-gp3           the same as tuned, of the one slow volume
set -eu

# The key is in memory and costs nothing. A real script would have to get it from KMS, with a program that takes a second to start.
key=/run/bench/key

volumes() { seq -f 'bench-%g' "$1"; }
at_once() { volumes "$2" | xargs -P "$(nproc)" -n 1 "$0" "$1"; }

device() {
    case $1 in
        gp3) echo /dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_vol0123456789abcdef0 ;;
        *) echo "/dev/disk/by-id/virtio-$1" ;;
    esac
}

open() {
    cryptsetup open --key-file "$key" "$(device "$1")" "$1"
    mount -t xfs -o noatime "/dev/mapper/$1" "/bench/$1"
}

# format NAME [OPTION]...: the options are for cryptsetup luksFormat.
format() {
    name=$1
    shift
    cryptsetup luksFormat --batch-mode --key-file "$key" "$@" "$(device "$name")"
    cryptsetup open --key-file "$key" "$(device "$name")" "$name"
    mkfs.xfs -q -K "/dev/mapper/$name"
    mount -t xfs -o noatime "/dev/mapper/$name" "/bench/$name"
}

case $1 in
    format-default) for name in $(volumes "$2"); do format "$name"; done ;;
    open-default) for name in $(volumes "$2"); do open "$name"; done ;;
    format-tuned) at_once format-one-tuned "$2" ;;
    open-tuned) at_once open-one "$2" ;;
    format-one-tuned) format "$2" --pbkdf pbkdf2 --pbkdf-force-iterations 1000 ;;
    open-one) open "$2" ;;
    format-gp3) exec "$0" format-one-tuned gp3 ;;
    # the disk behind it, whose image then has no blocks
    blank-gp3)
        name=$(grep -l '^behind-' /sys/block/vd*/serial | cut -d / -f 4)
        blkdiscard --force "/dev/$name"
        rm -rf /etc/luks-agent/state
        ;;

    setup)
        mkdir -p /run/bench
        head -c 32 /dev/urandom | base64 -w 0 >"$key"
        volumes "$2" | (cd / && mkdir -p bench/gp3 && cd bench && xargs mkdir)
        modprobe -a dm-crypt xfs
        ;;
    # Writes zeros; the host frees the blocks of the image. The first read makes the host fill its page cache, on the cores that the guest
    # uses, which takes longer than the look itself. A real disk does not use the processor, so it is read here. Of the slow disk, the
    # agent reads as little as the disk can in five seconds.
    blank)
        volumes "$2" | sed 's,^,/dev/disk/by-id/virtio-,' | xargs -n 1 blkdiscard --force --zeroout
        volumes "$2" | xargs -n 1 "$0" read
        rm -rf /etc/luks-agent/state
        ;;
    read) dd if="$(device "$2")" of=/dev/null bs=1M iflag=direct status=none ;;
    close)
        for name in $(dmsetup ls --target crypt | cut -f 1); do
            ! mountpoint=$(findmnt -no TARGET "/dev/mapper/$name") || umount "$mountpoint"
            cryptsetup close "$name"
        done
        ;;
    # the same start for every run: udev is idle
    settle) udevadm settle ;;
    # also drops the caches, so that programs, headers and metadata come from the disks
    cold)
        udevadm settle
        sync
        echo 3 >/proc/sys/vm/drop_caches
        ;;
    *)
        echo "bench.sh: unknown command '$1'" >&2
        exit 2
        ;;
esac
