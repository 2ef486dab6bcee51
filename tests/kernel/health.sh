# What `health` detects. It writes nothing, whatever it finds.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"

sums() { sha256sum /dev/ubdb /dev/ubdc "$STATE"; }
# health STATUS TEXT...: runs health, which must print every TEXT and must not change the disks or the state file.
health() {
    local before
    before=$(sums)
    expect_agent "$1" health
    assert_said "${@:2}"
    assert_eq "$(sums)" "$before" "disks and state file"
}
assert_not_fatal() { if grep -q "would not survive" /run/stderr; then fail "the next boot would do"; fi; }
would_not="this node would not survive a reboot, because"

start_fake --log /run/requests
ext4_volumes '/dev/ubd[bc]' ebs
expect_agent 0 health
assert_said "this node was never provisioned"
expect_agent 0 provision
uuid=$(blkid -p -s UUID -o value /dev/ubdb)
cp "$STATE" /root/state.json
sync -f /data /data1

say "a sound node: health asks KMS for the state of the key, and for a dry run"
decrypts=$(requests /run/requests 'r["operation"] == "Decrypt"')
health 0 "health: the key can be used, 2 sound"
assert_eq "$(requests /run/requests 'r["operation"] == "Decrypt"')" $((decrypts + 1)) "Decrypt"
expect_agent 0 health --json
assert_eq "$(report '(report["keys"][0]["state"], report["keys"][0]["error"])')" "({'name': 'Enabled', 'deletion': None}, None)" "the key"
assert_eq "$(report 'report["kms"]["calls"]')" "{'Decrypt': 1, 'DescribeKey': 1}" "the calls"
expect_agent 0 status
assert_said "; health at 20" "the key can be used, 2 sound"

say "the KMS key"
fake keys/alias/luks-agent/state '{"state": "Disabled"}'
health 4 "$would_not" "is disabled" "enable-key" "health: the key cannot be used, 2 sound"
fake keys/alias/luks-agent/state '{"state": "PendingDeletion"}'
health 4 "$would_not" "scheduled for deletion on" "cancel-key-deletion"
expect_agent 4 health --json
assert_eq "$(report 'report["keys"][0]["state"]["deletion"][:2]')" 20 "the date of the deletion"
fake keys/alias/luks-agent/state '{"state": "Enabled"}'
fake allow '["DescribeKey"]'
health 4 "$would_not" "kms:Decrypt"
fake allow '["Decrypt"]'
health 0 "the key can be used, 2 sound"
fake allow null

say "a header"
python3 - <<'END'
with open("/dev/ubdb", "r+b") as disk:
    header = disk.read(32768)
    open("/root/header", "wb").write(header)
    disk.seek(4096)
    disk.write(bytes(512))
END
sync /dev/ubdb
# one intact copy of the header is enough for the next boot
health 0 "2 sound"
dd if=/dev/zero of=/dev/ubdb bs=4k seek=4 count=1 conv=notrunc,fsync status=none
health 1 "$would_not" "ubdb" "1 of 2 sound"
dd if=/root/header of=/dev/ubdb bs=32k conv=notrunc,fsync status=none
cryptsetup token export --token-id 0 /dev/ubdb >/root/token
cryptsetup token remove --token-id 0 /dev/ubdb
health 1 "$would_not" "it has no luks-agent-awskms token"
cryptsetup token import --token-id 0 --json-file /root/token /dev/ubdb
health 0 "2 sound"

# libcryptsetup, which health does not call, would refuse this header
python3 - <<'END'
import hashlib, json
with open("/dev/ubdb", "r+b") as disk:
    for at in (0, 16384):
        disk.seek(at)
        copy = bytearray(disk.read(16384))
        metadata = json.loads(bytes(copy[4096:]).split(b"\0")[0])
        metadata["keyslots"]["0"]["area"]["offset"] = "0"
        text = json.dumps(metadata).encode()
        copy[4096:] = text + bytes(12288 - len(text))
        copy[448:512] = bytes(64)
        copy[448:480] = hashlib.sha256(copy).digest()
        disk.seek(at)
        disk.write(copy)
END
sync /dev/ubdb
health 1 "$would_not" "the area of keyslot 0, 258048 bytes at byte 0, is too small for its key or does not lie between byte "
dd if=/root/header of=/dev/ubdb bs=32k conv=notrunc,fsync status=none
health 0 "2 sound"

say "a keyslot"
# no checksum of the header covers this area, and nothing reads it while the volume is open
dd if=/dev/ubdb of=/root/keyslot bs=32k skip=1 count=8 status=none
dd if=/dev/urandom of=/dev/ubdb bs=1k seek=100 count=1 conv=notrunc,fsync status=none
health 1 "$would_not" "keyslot 0 is damaged: its area on the disk has changed since it opened the volume" \
    "back up its data now, while it is open, then restore the LUKS2 header from a backup" "1 of 2 sound"
expect_agent 1 health --json
assert_eq "$(report '(rows["ubdb"]["result"], rows["ubdc"]["result"])')" "('wrong', 'sound')" "the rows"
dd if=/root/keyslot of=/dev/ubdb bs=32k seek=1 conv=notrunc,fsync status=none
health 0 "2 sound"
cryptsetup luksHeaderBackup /dev/ubdb --header-backup-file /root/backup
cryptsetup luksKillSlot --batch-mode /dev/ubdb 0
health 1 "$would_not" "keyslot 0, which the data key opened, no longer exists"
cryptsetup luksHeaderRestore --batch-mode /dev/ubdb --header-backup-file /root/backup
health 0 "2 sound"

say "a keyslot of a volume from an earlier release: recorded when the volume is next opened"
expect_agent 0 close
python3 - "$STATE" <<'END'
import json, sys
state = json.load(open(sys.argv[1]))
state["version"] = 2
del state["sha256"]
for volume in state["volumes"]:
    del volume["keyslot"]
json.dump(state, open(sys.argv[1], "w"))
END
health 1 "0 of 2 sound"
expect_agent 0 unlock
cp "$STATE" /root/state.json
dd if=/dev/zero of=/dev/ubdb bs=32k seek=1 count=1 conv=notrunc,fsync status=none
health 1 "$would_not" "keyslot 0 is damaged"
dd if=/root/keyslot of=/dev/ubdb bs=32k seek=1 conv=notrunc,fsync status=none
health 0 "2 sound"

say "file system errors: reported when it is mounted, and until it is repaired"
umount /data
debugfs -w -R "ssv state 2" "/dev/mapper/luks-$uuid" 2>/dev/null
expect_agent 0 unlock
assert_said "its file system is marked with errors" "e2fsck -f /dev/mapper/luks-$uuid"
health 1 "unsound" "its file system is marked with errors" "1 of 2 sound"
assert_not_fatal
expect_agent 1 health --json
assert_eq "$(report '(rows["ubdb"]["filesystem_errors"], rows["ubdc"].get("filesystem_errors"))')" "(True, None)" "the rows"
umount /data
e2fsck -fy "/dev/mapper/luks-$uuid" || (($? == 1))
expect_agent 0 unlock
health 0 "2 sound"

say "a mapping with other flags"
umount /data
cryptsetup close "luks-$uuid"
python3 -c 'import json, os, urllib.request
blob = json.load(open("/root/state.json"))["keys"][0]["wrapped_key"]
headers = {"X-Amz-Target": "TrentService.Decrypt", "Content-Type": "application/x-amz-json-1.1", "Authorization": "none"}
request = urllib.request.Request(os.environ["AWS_ENDPOINT_URL"], json.dumps({"CiphertextBlob": blob}).encode(), headers)
print(end=json.load(urllib.request.urlopen(request))["Plaintext"])' |
    cryptsetup open --type luks2 --key-file=- --allow-discards /dev/ubdb "luks-$uuid"
health 1 "unsound" "mapping luks-$uuid is not what luks-agent created" "discards"
assert_not_fatal
expect_agent 0 close
health 1 "it is not open" "0 of 2 sound"
assert_not_fatal
expect_agent 0 unlock
health 0 "2 sound"

say "the configuration"
chmod 666 "$CONFIG"
health 2 "$would_not" "configuration $CONFIG has mode 0666" "'chmod go-w $CONFIG'"
chmod 644 "$CONFIG"
health 0 "2 sound"

say "the state file"
sed -i 's/"ebs"/"instance-store"/' "$STATE"
health 1 "state.json" "checksum"
cp /root/state.json "$STATE"
