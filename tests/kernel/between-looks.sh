# Somebody writes to blank disks after provision has looked at them and before it looks again to format them. It finds each, wherever and
# however it was written, however little it was. A disk to which nobody writes is formatted, and not read twice.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"

start_fake --log /run/requests
KMS_DEADLINE=2m config "$KEY_ARN" <<'TOML'
[filesystem]
type = "ext4"
mount_base = "/data"
[[volumes.match]]
path = "/dev/ubd*"
role = "ebs"
TOML

MIB=$((1 << 20))
# write DISK OFFSET [FLAG]...: writes a sector that is not zero, in the way that dd's FLAGs say.
write() {
    head -c 512 /dev/zero | tr '\0' x | dd of="/dev/$1" bs=512 seek=$(($2 / 512)) iflag=fullblock conv=notrunc status=none "${@:3}"
}
# read_of DISK: how many MiB were read of it.
read_of() { awk '{ print int($3 / 2048) }' "/sys/block/$1/stat"; }

# the kernel writes the page cache to the disks when it is told to, and not before
echo 0 >/proc/sys/vm/dirty_writeback_centisecs
provision_until_decrypt

say "somebody writes"
mkfs.ext4 -q /dev/ubdb
write ubdc 0
write ubdd $((20 * MIB)) oflag=direct
write ubde $((40 * MIB + 4096))
write ubdf $((40 * MIB + 4096)) oflag=direct
write ubdg $((64 * MIB - 512)) conv=notrunc,fsync
# in the page cache of a process that keeps the disk open, and nowhere else
exec 7<>/dev/ubdh
dd if=/proc/self/exe of=/dev/fd/7 bs=4096 count=1 seek=$((30 * MIB / 4096)) conv=notrunc status=none
dd if=/dev/zero of=/dev/ubdi bs=4096 count=1 conv=notrunc status=none
mkfs.ext4 -q -F /run/image 32M
dd if=/run/image of=/dev/ubdj bs=1M status=none

expect_rest_of_provision 3
printf 'report between %s\n' "$(tr -d '\n' </run/report)"

say "all of the blank disk was read once"
read=$(read_of ubdk)
((read >= 200 && read < 300)) || fail "$read MiB were read of a disk of 200 MiB"
exec 7>&-

say "the next run sees what is there, and formats where only zeros were written"
agent provision --json >/run/report || true
printf 'report next %s\n' "$(tr -d '\n' </run/report)"
