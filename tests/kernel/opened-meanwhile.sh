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
    fake faults '[{"on": "Decrypt", "times": 1, "delay_ms": 10000}]'
    : >/run/requests
    agent unlock &
    unlocking=$!
    wait_for 30 grep -q '"Decrypt"' /run/requests
    # it asks before it has looked at the disks; the answer comes in ten seconds
    sleep 4
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

say "something else has taken the name"
meanwhile() { dmsetup create "${mappings[0]##*/}" --table "0 2048 zero"; }
unlock_while 1 meanwhile
findmnt -n /data1
if findmnt -n /data; then fail "it mounted something else"; fi
umount /data1
cryptsetup close "${mappings[1]##*/}"
dmsetup remove "${mappings[0]##*/}"

