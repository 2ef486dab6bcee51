# The headers and mappings of new volumes have the configured options.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"

# volumes TOML PATH: writes a configuration with one data disk. The agent leaves a known volume alone if no rule names it.
volumes() {
    config "$KEY_ARN" <<TOML
$1
[[volumes.match]]
path = "$2"
role = "ebs"
TOML
}
mapping_of() { lsblk -rno NAME "/dev/$1" | sed -n 2p; }
dump_has() {
    cryptsetup luksDump "/dev/$1" >/run/dump
    for text in "${@:2}"; do grep -Eq "$text" /run/dump || { cat /run/dump; fail "luksDump of $1 lacks '$text'"; }; done
}

start_fake --log /run/requests

say "flags, ext4"
volumes '[luks]
discards = true
no_read_workqueue = true
no_write_workqueue = true
[filesystem]
type = "ext4"
mount_base = "/data"
options = ["noatime", "nodev"]' /dev/ubdb
expect_agent 0 provision
name=$(ls /dev/mapper | grep ^luks-)
table=$(dmsetup table "$name")
for flag in allow_discards no_read_workqueue no_write_workqueue; do assert_contains "$table" "$flag" "the mapping's table"; done
dump_has ubdb 'Flags:.*allow-discards.*no-read-workqueue.*no-write-workqueue' 'cipher: aes-xts-plain64' 'Key: *512 bits'
assert_contains "$(findmnt -no FSTYPE,OPTIONS /data)" "ext4   rw,nodev,noatime" "the mount"

say "no file system, a 256 bit key"
volumes '[luks]
key_size = 256
[filesystem]
type = "none"' /dev/ubdc
expect_agent 0 provision
dump_has ubdc 'Key: *256 bits' 'PBKDF: *pbkdf2'
uuid=$(blkid -p -s UUID -o value /dev/ubdc)
[[ -z $(blkid -p "/dev/mapper/luks-$uuid" || true) ]] || fail "the mapping is not blank"
assert_eq "$(findmnt -rno TARGET "/dev/mapper/luks-$uuid" || true)" "" "its mount point"

say "a volume that no rule names any more is unsound: the next boot would not open it"
expect_agent 1 health
assert_said "would not survive a reboot" "the next boot leaves its disk alone" 'path = "/dev/ubdb"' "1 of 2 sound"

say "sectors of 4096 bytes"
volumes '[luks]
sector_size = 4096
[filesystem]
type = "ext4"
mount_base = "/data"' /dev/ubdd
expect_agent 0 provision
dump_has ubdd 'sector: *4096'

# noisy TOOL PROGRAM: wraps TOOL, so that the Python PROGRAM writes to `disk` before it runs. A new mapping reads as noise, which sometimes
# looks like a signature.
noisy() {
    local tool
    tool=$(command -v "$1")
    cat >"/usr/local/sbin/$1" <<END
#!/bin/bash
python3 -c 'import sys
with open(sys.argv[1], "r+b") as disk:
    $2' "\${@: -1}" && sync "\${@: -1}" && exec "$tool" "\$@"
END
    chmod +x "/usr/local/sbin/$1"
}

say "noise that mkfs.xfs mistakes for HFS+"
noisy mkfs.xfs '[(disk.seek(at), disk.write(text)) for at, text in ((1024, b"H+"), (1066, b"\2\0"), (1312, b"\0\5"))]'
volumes '[filesystem]
mount_base = "/data"' /dev/ubdf
expect_agent 0 provision
rm /usr/local/sbin/mkfs.xfs
assert_contains "$(findmnt -rno FSTYPE,TARGET)" "xfs /data" "the mount"

say "a worker and its tools cannot reach the network"
noisy mkfs.ext4 'import socket
    def can(family, kind):
        try:
            socket.socket(family, kind).close()
        except PermissionError:
            return False
        return True
    families = socket.AF_INET, socket.AF_INET6, socket.AF_PACKET, socket.AF_UNIX
    open("/run/families", "w").write(str([can(family, socket.SOCK_DGRAM) for family in families]))'
volumes '[filesystem]
type = "ext4"
mount_base = "/data"' /dev/ubdh
expect_agent 0 provision
rm /usr/local/sbin/mkfs.ext4
assert_eq "$(</run/families)" "[False, False, False, True]" "sockets of a worker: IPv4, IPv6, packets, Unix"

say "noise with the magic number of ext4, after a run that was interrupted before mkfs.ext4"
noisy mkfs.ext4 'disk.seek(1080); disk.write(b"\x53\xef"); disk.close(); sys.exit(1)'
volumes '[filesystem]
type = "ext4"
mount_base = "/data"' /dev/ubde
expect_agent 1 provision
rm /usr/local/sbin/mkfs.ext4
expect_agent 0 provision
assert_said "1 formatted"

say "the agent normalises paths, and puts no mount point inside another"
volumes '[filesystem]
type = "ext4"
mount_base = "/data/inside"' /dev/ubdg
expect_agent 3 provision
assert_said "mount point /data/inside would be nested with /data, the mount point of another volume" \
    "choose another filesystem.mount_base"
assert_blank ubdg
volumes '[filesystem]
type = "ext4"
mount_base = "/data//"' /dev/ubdg
expect_agent 0 provision
assert_contains "$(findmnt -rno TARGET | tail -n 1)" /data5 "the mount point"

say "a wrong size is found before the agent requests a key or records anything"
generated() { requests /run/requests 'r["operation"] == "GenerateDataKey"'; }
before="$(generated) $(sha256sum <"$STATE")"
dmsetup create odd --table "0 $(($(blockdev --getsz /dev/ubdi) - 1)) linear /dev/ubdi 0"
odd='[luks]
sector_size = 4096
[filesystem]
type = "ext4"
mount_base = "/data"'
volumes "$odd" /dev/mapper/odd
expect_agent 3 provision
assert_said "is not a multiple of luks.sector_size, 4096" "remove luks.sector_size from the configuration"
assert_eq "$(generated) $(sha256sum <"$STATE")" "$before" "data keys made, and the state file"
assert_blank ubdi
dmsetup remove odd

say "a rule ignores a disk by a link: the disk is not encrypted, whether the link is missing or exists"
rm -rf /dev/disk
volumes '[filesystem]
type = "ext4"
mount_base = "/data"
[[volumes.match]]
path = "/dev/disk/by-id/not-mine"
role = "ignore"' /dev/ubdi
expect_agent 3 provision
assert_said "ignores /dev/disk/by-id/not-mine, which does not exist and may be this disk"
mkdir -p /dev/disk/by-id
ln -s ../../ubdi /dev/disk/by-id/not-mine
expect_agent 0 provision
assert_said "a [[volumes.match]] rule says ignore"
assert_blank ubdi
ln -sfn ../../ubdd /dev/disk/by-id/not-mine
expect_agent 0 provision
assert_said "1 formatted"
