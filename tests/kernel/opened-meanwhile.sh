# Another program opens a volume while the agent waits for its key, as systemd-cryptsetup does for a line of crypttab. The agent takes the
# volume as it is if it is the one that it would have opened, and otherwise fails.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"

start_fake --log /run/requests
ext4_volumes '/dev/ubd[bc]' ebs
expect_agent 0 provision
echo kept >/data/file
sync -f /data
for at in /data /data1; do findmnt -no SOURCE "$at"; done >/run/mappings
mapfile -t mappings </run/mappings
data_key >/run/key

# unlock_while STATUS COMMAND...: runs the command while the agent, which found no volume open, waits for KMS.
unlock_while() {
    local want=$1 unlocking
    shift
    expect_agent 0 close
    fake faults '[{"on": "Decrypt", "times": 1, "delay_ms": 15000}]'
    : >/run/requests
    agent unlock >/run/report 2>/run/stderr &
    unlocking=$!
    wait_for 30 grep -q '"Decrypt"' /run/requests
    # it asks before it has looked at the disks
    sleep 5
    "$@"
    run_expect "$want" wait "$unlocking"
}

say "as systemd-cryptsetup opens it: the agent mounts it, and opens the other one"
first=/dev/ubdb
[[ $(cryptsetup luksUUID /dev/ubdb) == "${mappings[0]#*luks-}" ]] || first=/dev/ubdc
meanwhile() { cryptsetup open --type luks2 --key-file=/run/key "$first" "${mappings[0]##*/}"; }
unlock_while 0 meanwhile
assert_eq "$(</data/file)" kept "the file"
findmnt -n /data1

# refused TEXT...: the agent names why it does not take what has the name; the other volume is mounted.
refused() {
    unlock_while 1 meanwhile
    assert_said "$@"
    findmnt -n /data1
    if findmnt -n /data; then fail "it mounted something else"; fi
    umount /data1
    cryptsetup close "${mappings[1]##*/}"
    dmsetup remove "${mappings[0]##*/}"
}

say "another device has the name"
meanwhile() { dmsetup create "${mappings[0]##*/}" --table "0 2048 zero"; }
refused "exists and is another device"

say "the same disk with the same parameters and another key has the name"
meanwhile() {
    dmsetup create "${mappings[0]##*/}" --table "0 $(($(blockdev --getsz "$first") - 32768)) crypt aes-xts-plain64 \
        $(printf '%0128d' 1) 0 $first 32768"
}
refused "exists and is another device"

say "somebody has opened it with a header of their own: the agent does not mount it"
expect_agent 0 unlock
expect_agent 0 close
dd if="$first" of=/run/header bs=1M count=16 status=none
uuid=${mappings[0]#*luks-}
cryptsetup luksFormat -q --type luks2 --uuid "$uuid" --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file=/run/key "$first"
cryptsetup open --type luks2 --key-file=/run/key "$first" "${mappings[0]##*/}"
mkfs.ext4 -q "${mappings[0]}"
expect_agent 1 unlock
assert_said "open, but not as recorded, and was not mounted" "another volume key"
if findmnt -n /data; then fail "it mounted a volume that is not its own"; fi
cryptsetup close "${mappings[0]##*/}"
dd if=/run/header of="$first" conv=notrunc status=none
