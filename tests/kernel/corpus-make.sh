# Makes disk images whose recipe needs a block device, device-mapper, md or the agent itself.
#
#   corpus-make.sh DISK SIZE RECIPE [DISK SIZE RECIPE]...       SIZE in MiB, RECIPE of tests/support/images.rs
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"
source "$(dirname "$0")/corpus-lib.sh"

# mdadm would query imsm disks for a SCSI serial number, and for an Intel controller
export MDADM_NO_UDEV=1 IMSM_NO_PLATFORM=1 IMSM_DEVNAME_AS_SERIAL=1
lvm_config='devices { obtain_device_list_from_udev=0 scan="/dev" use_devicesfile=0 external_device_info_source="none" } activation { udev_sync=0 udev_rules=0 }'
pvcreate() { command pvcreate --config "$lvm_config" "$@"; }

# creates a volume group with a logical volume that contains ext4
lvm_ext4() {
    pvcreate -q "$I"
    vgcreate --config "$lvm_config" -q data "$I"
    lvcreate --config "$lvm_config" -q --yes --wipesignatures n -n one -L 16M data
    mkfs.ext4 -q /dev/mapper/data-one
    vgchange --config "$lvm_config" -q -an data
}

# md VERSION: creates half of a mirror
md() {
    mdadm -q --create /dev/md7 --run --force --metadata="$1" --level=1 --raid-devices=2 "$I" missing
    mdadm -q --stop /dev/md7
}

# container FORMAT
container() {
    mdadm -q --create /dev/md/imported --run --force --metadata="$1" --raid-devices=1 "$I"
    mdadm -q --stop --scan
}

# writes zeros through dm-crypt, without any header
plain() {
    cryptsetup open --type plain --cipher aes-xts-plain64 --key-size 512 --key-file /dev/urandom "$I" plain
    dd if=/dev/zero of=/dev/mapper/plain bs=1M count=$((S)) oflag=direct status=none
    cryptsetup close plain
}

# writes the change store of a persistent snapshot
snapshot() {
    modprobe dm-snapshot
    truncate -s 16M "$T/origin"
    dmsetup create origin --table "0 32768 zero"
    dmsetup create changed --table "0 32768 snapshot /dev/mapper/origin $I P 8"
    echo changed | dd of=/dev/mapper/changed conv=fsync status=none
    dmsetup remove changed
    dmsetup remove origin
}

# creates a volume of luks-agent, and deletes the state file of its node
ours() {
    ext4_volumes "$I" instance-store
    expect_agent 0 provision
    assert_said "1 formatted"
    echo data >/data/file
    expect_agent 0 close
    rm -r "${STATE%/*}"
}

start_fake --instance-id i-0aaaaaaaaaaaaaaaa
modprobe -a md-mod raid1 dm-zero bcache 2>/dev/null || true
T=/run/corpus
mkdir -p "$T"
while (($#)); do
    I=/dev/$1 S=$2
    say "$1: $3"
    eval "$3"
    shift 3
done
sync
