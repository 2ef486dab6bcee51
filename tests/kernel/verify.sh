# What `verify` proves with the keys themselves, on open and closed volumes. It closes and writes nothing, whatever it finds.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"

sums() { sha256sum /dev/ubdb /dev/ubdc "$STATE"; }
# verify STATUS TEXT...: runs verify, which must print every TEXT and must change neither disks, state file, mappings nor mounts.
verify() {
    local before
    before=$(sums; dmsetup ls; findmnt -rn)
    expect_agent "$1" verify
    assert_said "${@:2}"
    assert_eq "$(sums; dmsetup ls; findmnt -rn)" "$before" "disks, state file, mappings and mounts"
}
assert_not_fatal() { if grep -q "would not survive" /run/stderr; then fail "the next boot would do"; fi; }
would_not="this node would not survive a reboot, because"

start_fake --log /run/requests
ext4_volumes '/dev/ubd[bc]' ebs
expect_agent 0 verify
assert_said "verify: this node was never provisioned"
expect_agent 0 provision
sync -f /data /data1
uuid=$(blkid -p -s UUID -o value /dev/ubdb)

say "a sound node: one Decrypt, and no dry run"
decrypts=$(requests /run/requests 'r["operation"] == "Decrypt" and r["status"] == 200')
verify 0 "verify: the key can be used, 2 sound"
assert_eq "$(requests /run/requests 'r["operation"] == "Decrypt" and r["status"] == 200')" $((decrypts + 1)) "keys that KMS unwrapped"
expect_agent 0 verify --json
assert_eq "$(report '(report["command"], report["keys"][0]["state"]["name"], report["keys"][0]["error"])')" "('verify', 'Enabled', None)" "the key"

say "closed volumes come back as well"
expect_agent 0 close
verify 0 "it is not open; its data key opens it" "2 sound"
expect_agent 0 unlock

say "KMS refuses"
fake allow '["DescribeKey"]'
verify 4 "$would_not" "kms:Decrypt" "not tried: no key"
fake allow null
fake keys/alias/luks-agent/state '{"state": "Disabled"}'
verify 4 "$would_not" "is disabled" "the key cannot be used, 0 of 2 sound"
fake keys/alias/luks-agent/state '{"state": "Enabled"}'

say "a damaged copy of the header: the other one is enough, and nobody repairs it"
dd if=/dev/ubdb of=/root/header bs=1M count=16 status=none
dd if=/dev/zero of=/dev/ubdb bs=512 seek=8 count=1 conv=notrunc,fsync status=none
verify 0 "2 sound"
dd if=/root/header of=/dev/ubdb bs=1M conv=notrunc,fsync status=none

say "a keyslot with one wrong byte, which only the key can tell where none was recorded"
python3 - "$STATE" <<'PY'
import json, sys
state = json.load(open(sys.argv[1]))
del state["sha256"]
for volume in state["volumes"]:
    volume.pop("keyslot")
json.dump(state, open(sys.argv[1], "w"))
PY
cp "$STATE" /root/state.json
dd if=/dev/zero of=/dev/ubdb bs=1 seek=100000 count=64 conv=notrunc,fsync status=none
expect_agent 0 health
verify 1 "$would_not" "ubdb" "the data key opens no keyslot of $uuid" "1 of 2 sound"
dd if=/root/header of=/dev/ubdb bs=1M conv=notrunc,fsync status=none
verify 0 "2 sound"
# recorded from here on
expect_agent 0 close
expect_agent 0 unlock
dd if=/dev/zero of=/dev/ubdb bs=1 seek=100000 count=64 conv=notrunc,fsync status=none
verify 1 "$would_not" "keyslot 0 is damaged" "1 of 2 sound"
dd if=/root/header of=/dev/ubdb bs=1M conv=notrunc,fsync status=none

say "a token of another key"
cryptsetup token export --token-id 0 /dev/ubdb | sed 's/"wrapped_key": *"..../"wrapped_key":"AQID/' >/root/token
cryptsetup token import --token-id 0 --token-replace --json-file /root/token /dev/ubdb
verify 1 "$would_not" "the wrapped key in its token is not the one in the state file"
dd if=/root/header of=/dev/ubdb bs=1M conv=notrunc,fsync status=none

say "another keyslot than the recorded one"
data_key >/run/key
cryptsetup luksAddKey --batch-mode --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file /run/key --new-keyfile /run/key --key-slot 3 /dev/ubdb
verify 0 "2 sound"
cryptsetup luksKillSlot --batch-mode /dev/ubdb 0
verify 1 "its data key opens keyslot 3, but the state file records keyslot 0" "find out who changed its keyslots"
assert_not_fatal
expect_agent 0 close
expect_agent 0 unlock
verify 0 "2 sound"

say "another key opens the disk's keyslot"
head -c 44 /dev/zero | tr '\0' x >/run/other
cryptsetup luksChangeKey --batch-mode --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file /run/key --key-slot 3 /dev/ubdb /run/other
verify 1 "$would_not" "ubdb"
dd if=/root/header of=/dev/ubdb bs=1M conv=notrunc,fsync status=none
rm /run/key /run/other

say "a disk that is away"
umount /data1
dmsetup remove --retry "luks-$(blkid -p -s UUID -o value /dev/ubdc)"
blank ubdc
verify 1 "ubdc"
