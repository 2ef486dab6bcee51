# Functions for the recipes of tests/support/images.rs. Sourced before each recipe. $I is the disk image, or the disk, to make, $S its size
# in MiB, $T a directory for other files.
# shellcheck shell=bash
set -euo pipefail

export LC_ALL=C.UTF-8 MKE2FS_DEVICE_SECTSIZE=512
# shellcheck disable=SC2034
M=1048576
# shellcheck disable=SC2034
U=5d0f4ff19f5c4a558f5d2b9d8a1c7e10

# raw OFFSET: writes standard input to the image at that byte.
raw() { dd of="$I" oflag=seek_bytes seek="$1" bs=1M conv=notrunc,fsync iflag=fullblock status=none; }

# put OFFSET HEX...: writes these bytes.
put() { python3 -c 'import sys; sys.stdout.buffer.write(bytes.fromhex("".join(sys.argv[1:])))' "${@:2}" | raw "$1"; }

# text OFFSET TEXT
text() { printf '%s' "$2" | raw "$1"; }

# zero OFFSET BYTES
zero() { head -c "$2" /dev/zero | raw "$1"; }

# random OFFSET BYTES: writes random bytes. The first is not zero, so that a test knows at which byte the data begins.
random() { { printf x && head -c "$(($2 - 1))" /dev/urandom; } | raw "$1"; }

# over FILE: writes the file over the beginning of the image.
over() { raw 0 <"$1"; }

# Creates a small tree, and a file system that contains it, for images that are made from a tree.
tree() {
    mkdir -p "$T/tree/dir"
    for ((i = 0; i < 200; i++)); do echo "line $i of a file"; done >"$T/tree/file"
    cp "$T/tree/file" "$T/tree/dir/other"
    truncate -s 4M "$T/tree.ext4"
    mke2fs -q -F "$T/tree.ext4"
}

iso() { xorriso -report_about WARNING -as mkisofs -o "$1" "${@:2}" "$T/tree"; }

luks() { cryptsetup "$@" --batch-mode --disable-locks --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file <(printf passphrase) "$I"; }

ubi() {
    mkfs.ubifs -r "$T/tree" -m 2048 -e 126976 -c 100 -o "$T/ubifs"
    printf '[data]\nmode=ubi\nimage=%s\nvol_id=0\nvol_size=8MiB\nvol_type=dynamic\nvol_name=data\n' "$T/ubifs" >"$T/ubi.ini"
    ubinize -o "$1" -m 2048 -p 128KiB "$T/ubi.ini"
}

has() { command -v "$1" >/dev/null; }

# File systems whose tools are not in every release of Debian. Without the tool, these write the superblock that mkfs would write.
hfs() {
    if has hformat; then
        hformat -l old "$I"
    else
        put 1024 4244e72df601e72df601010000000003 020e83f90000040000001000000c0000 001081eb036f6c64
    fi
}

reiser4() {
    if has mkfs.reiser4; then mkfs.reiser4 -f -y "$I"; else put 65536 52654973457234000000000000000000 00000010 "$U"; fi
}

reiserfs() {
    if has mkfs.reiserfs; then
        mkfs.reiserfs -q -ff "$I"
    else
        put 65536 00400000ec1f00001320000012000000 00000000002000000004 0000260c1d1c 840300001e000000000000000010cc03 \
            02000100526549734572324673000000 0300000002000100020000000000 0000 01000000 "$U"
    fi
}

# The boot sector of Windows 7 and later, and the first of the metadata blocks that it points to.
bitlocker() {
    put 0 eb58902d4656452d46532d
    put 160 3bd667492e29d84a8399f6a339e3d001 0000010000000000
    put 510 55aa
    put 65536 2d4656452d46532d 0000 0200
}

# The array of uberblocks of the first label: 128 of 1 KiB.
zfs() {
    python3 -c 'import struct, sys
block = struct.pack("<QQQQQ", 0x00bab10c, 5000, 42, 1, 1700000000).ljust(1024, b"\0")
sys.stdout.buffer.write(block * 128)' | raw 131072
}

# The static header of Stratis, with its CRC-32C.
stratis() {
    python3 -c 'import struct, sys
def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff
body = (b"!Stra0tis\x86\xff\x02^\x41rh" + struct.pack("<Q", 67584) + bytes(4) + b"1" * 32 + b"2" * 32
        + struct.pack("<QQQQ", 8192, 8192, 0, 1700000000)).ljust(508, b"\0")
sys.stdout.buffer.write(struct.pack("<I", crc32c(body)) + body)' | raw 512
}
