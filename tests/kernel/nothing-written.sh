# provision cannot do its work: it prints one clear message, exits with the right code, and writes no byte to any disk.
# key-service-faults.sh has the faults of KMS and IMDS.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"

disks=(ubdb ubdc)

# nothing_written STATUS TEXT...: provision exits with STATUS, prints every TEXT, and leaves nothing behind.
nothing_written() {
    local status=$1
    shift
    expect_agent "$status" provision
    assert_said "$@"
    assert_eq "$(grep -c '^luks-agent: ' /run/stderr)" 1 "the number of error messages"
    assert_blank "${disks[@]}"
    [[ ! -e ${STATE%/*} ]] || fail "a state directory was made"
}

configure_key() {
    # how long the agent retries a refused request
    KMS_DEADLINE=4s KEY_ARN=$1 ext4_volumes '/dev/ubd[bc]' ebs
}

start_fake --log /run/requests
configure_key "$KEY_ARN"

say "without root"
# to a directory where every user may run it
cp "$LUKS_AGENT" /var/tmp/luks-agent
chmod 755 /var/tmp/luks-agent
unprivileged() { setpriv --reuid=65534 --regid=65534 --clear-groups /var/tmp/luks-agent "$@"; }
chmod -R a+rX /etc/luks-agent
for command in provision unlock close plan; do
    run_expect 1 unprivileged "$command" >/run/stdout 2>/run/stderr
    assert_eq "$(</run/stderr)" \
        "luks-agent: 'luks-agent $command' works on block devices and needs root; run it with sudo" "$command without root"
done
run_expect 0 unprivileged status
chmod 600 "$CONFIG"
run_expect 2 unprivileged provision 2>/run/stderr
assert_contains "$(</run/stderr)" "cannot read configuration file $CONFIG: Permission denied" "a closed configuration"
rm /var/tmp/luks-agent

say "without device-mapper"
modprobe=$(</proc/sys/kernel/modprobe)
echo /bin/false >/proc/sys/kernel/modprobe
rmmod dm-crypt dm-mod
nothing_written 1 "device-mapper is not available" "modprobe dm-crypt"

# lacks TEXT...: provision refuses every disk, calls no service and writes nothing.
lacks() {
    local before
    before=$(wc -l </run/requests)
    expect_agent 3 plan
    assert_said "would format 0" "$@"
    expect_agent 3 provision
    assert_said "2 refused" "then try again" "$@"
    assert_blank "${disks[@]}"
    [[ ! -e ${STATE%/*} ]] || fail "a state directory was made"
    assert_eq "$(wc -l </run/requests)" "$before" "requests to the key service"
    assert_eq "$(dmsetup ls)" "No devices found" "leftover mappings"
}

say "without dm-crypt"
modprobe dm-mod
lacks "this kernel cannot encrypt with aes-xts-plain64 and keys of 512 bits: device-mapper has no target 'crypt'" \
    "modprobe -a dm-crypt"
modprobe dm-crypt

say "without the cipher"
printf '[luks]\ncipher = "serpent-xts-plain64"\n' >>"$CONFIG"
lacks "this kernel cannot encrypt with serpent-xts-plain64 and keys of 512 bits: dm-crypt does not find the cipher" \
    "modprobe -a xts serpent"
echo "$modprobe" >/proc/sys/kernel/modprobe
configure_key "$KEY_ARN"

say "without mkfs"
mkfs=$(readlink -f /usr/sbin/mkfs.ext4)
mount --bind /dev/null "$mkfs"
nothing_written 1 "'mkfs.ext4' is not installed: install package e2fsprogs"
umount "$mkfs"

say "a state directory that a reboot would empty"
printf '[state]\ndir = "/run/state"\n' >>"$CONFIG"
nothing_written 2 "/run/state is in memory: it lies on the tmpfs on /run" "choose a directory on the boot volume"
say "a state directory on an overlay with the upper directory in memory, and one in an image file in memory"
configure_key "$KEY_ARN"
asked=$(requests /run/requests 'r["operation"] in ("DescribeKey", "GenerateDataKey")')
mkdir -p /run/layers/{lower,upper,work}
# as on a node with a transient /etc, whose lower layer stays visible
mount --bind /etc /run/layers/lower
mount -t overlay -o lowerdir=/run/layers/lower,upperdir=/run/layers/upper,workdir=/run/layers/work overlay /etc
nothing_written 2 "${STATE%/*} is in memory: it lies on the overlay on /etc, whose upper directory /run/layers/upper lies on the tmpfs on /run"
umount /etc /run/layers/lower
modprobe loop
truncate -s 16M /run/state.img
mkfs.ext4 -q /run/state.img
mkdir -p /etc/luks-agent/image
mount -o loop /run/state.img /etc/luks-agent/image
printf '[state]\ndir = "/etc/luks-agent/image/state"\n' >>"$CONFIG"
nothing_written 2 "/etc/luks-agent/image/state is in memory: it lies on the ext4 on /etc/luks-agent/image, which lies on loop0" \
    "whose file /run/state.img lies on the tmpfs on /run"
umount /etc/luks-agent/image
rmdir /etc/luks-agent/image
assert_eq "$(requests /run/requests 'r["operation"] in ("DescribeKey", "GenerateDataKey")')" "$asked" "requests to KMS"

say "the data key cannot be proven: the agent keeps it, and uses it once it can"
configure_key "$KEY_ARN"
fake allow '["DescribeKey", "GenerateDataKey"]'
expect_agent 4 provision
assert_said "lacks kms:Decrypt on $KEY_ARN"
assert_blank "${disks[@]}"
assert_eq "$(python3 -c 'import json; s = json.load(open("'"$STATE"'")); print(len(s["keys"]), len(s["volumes"]))')" "1 0" \
    "keys and volumes in the state file"
fake allow null
expect_agent 0 provision
assert_eq "$(requests /run/requests 'r["operation"] == "GenerateDataKey"  and r["status"] < 300')" 1 "data keys made"
findmnt /data
findmnt /data1

say "a cipher that the kernel lacks: the agent names the volume that needs it, and opens the others"
more="$(<"$CONFIG")"
more+=$'\n[[volumes.match]]\npath = "/dev/ubdd"\nrole = "ebs"\n[luks]\ncipher = "serpent-xts-plain64"\n'
printf '%s' "$more" >"$CONFIG"
echo /bin/false >/proc/sys/kernel/modprobe
agent close
expect_agent 3 provision
assert_said "2 unlocked, 1 refused" "serpent-xts-plain64" "modprobe -a xts serpent"
assert_blank ubdd
echo "$modprobe" >/proc/sys/kernel/modprobe
expect_agent 0 provision
assert_said "1 formatted, 2 unchanged"
serpent=$(findmnt -no SOURCE /data2)
agent close
echo /bin/false >/proc/sys/kernel/modprobe
modprobe -r serpent_generic
expect_agent 1 unlock
assert_said "2 unlocked, 1 failed" "this kernel cannot encrypt with serpent-xts-plain64 and keys of 512 bits" "wrong"
before=$(wc -l </run/requests)
expect_agent 1 provision
assert_said "2 unchanged, 1 failed" "modprobe -a xts serpent"
assert_eq "$(wc -l </run/requests)" "$before" "requests to the key service for a volume that cannot be opened"
say "if the agent cannot find out whether the kernel has the cipher, it tries"
printf '#!/bin/sh\n[ "$1" != create ] || exit 1\nexec /usr/sbin/dmsetup.real "$@"\n' >/run/dmsetup
chmod +x /run/dmsetup
cp /usr/sbin/dmsetup /usr/sbin/dmsetup.real
mount --bind /run/dmsetup /usr/sbin/dmsetup
echo "$modprobe" >/proc/sys/kernel/modprobe
expect_agent 0 unlock
assert_said "cannot check whether this kernel supports serpent-xts-plain64" "1 unlocked, 2 unchanged"
umount /usr/sbin/dmsetup
[[ -e $serpent ]] || fail "$serpent is not open"

say "unlock with a key that KMS denies"
agent close
fake allow '["DescribeKey", "GenerateDataKey"]'
expect_agent 4 unlock
assert_said "lacks kms:Decrypt" "no key"
fake allow null

say "unlock with a deleted KMS key"
gone='"effect": {"error": {"code": "NotFoundException"}}'
fake faults "[{\"on\": \"Decrypt\", $gone}, {\"on\": \"DescribeKey\", $gone}]"
expect_agent 4 unlock
assert_said "the KMS key no longer exists" "restore the data from a backup"
fake faults '[]'
