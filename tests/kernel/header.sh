# The headers of volumes: shown, backed up, lost in several ways, restored by luks-agent and by stock cryptsetup, and the refusals. A
# restore is killed at its system calls: the data key opens the volume at every moment, and the next restore ends the work.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"

area() { dd if="/dev/$1" bs=1M count=16 status=none | sha256sum; }
# refused STATUS DISK TEXT... -- ARGS...: the agent refuses, says every TEXT, and leaves the disk as it is.
refused() {
    local status=$1 disk=$2 texts=() before
    shift 2
    while [[ $1 != -- ]]; do texts+=("$1"); shift; done
    shift
    before=$(sha256sum <"/dev/$disk")
    expect_agent "$status" "$@"
    assert_said "${texts[@]}"
    assert_eq "$(sha256sum <"/dev/$disk")" "$before" "$disk"
}
# lose: zeroes both copies of the metadata of ubdb.
lose() { dd if=/dev/zero of=/dev/ubdb bs=32k count=1 conv=notrunc,fsync status=none; }
kept() {
    expect_agent 0 unlock
    assert_eq "$(cat /data/file)" kept "the file on the volume"
    expect_agent 0 verify
    expect_agent 0 close /data
}

mkdir -p /var/lib/headers
start_fake --log /run/requests
ext4_volumes '/dev/ubd[bc]' ebs
expect_agent 0 provision
echo kept >/data/file
sync -f /data
uuid=$(blkid -p -s UUID -o value /dev/ubdb)

say "shown, open and closed, by any name"
expect_agent 0 header show
assert_said "LUKS UUID $uuid, sequence id" "both copies are intact" "aes-xts-plain64" "keyslot 0: pbkdf2, token 0" "token 0: luks-agent-awskms, keyslot 0, provider aws-kms, key $KEY_ARN" "2 of 2 shown"
for name in ubdb /dev/ubdb serial-ubdb "$uuid" "luks-$uuid" "/dev/mapper/luks-$uuid" /data; do
    expect_agent 0 header show "$name" --json
    assert_eq "$(report '[(r["luks_uuid"], r["header"]["keyslots"][0]["kdf"]) for r in report["rows"]]')" "[('$uuid', 'pbkdf2')]" "$name"
done
expect_agent 2 header show nowhere
assert_said "no volume of this node is called 'nowhere'" "$uuid"

say "backed up while it is open"
expect_agent 1 header backup ubdb /data/backup
assert_said "is on the volume itself"
[[ ! -e /data/backup ]] || fail "a backup on the volume itself"
expect_agent 0 header backup /data /var/lib/headers/backup
assert_eq "$(stat -c %a /var/lib/headers/backup)" 600 "the mode of the backup"
expect_agent 1 header backup ubdb /var/lib/headers/backup
assert_said "exists already"
assert_eq "$(find /var/lib/headers -name '.tmp*')" "" "temporary files"
cryptsetup luksHeaderBackup /dev/ubdb --header-backup-file /var/lib/headers/stock
cmp -n $((16 << 20)) /var/lib/headers/backup /var/lib/headers/stock
tail -c +$(((16 << 20) + 1)) /var/lib/headers/backup
python3 -c 'import json, sys
text = open("/var/lib/headers/backup", "rb").read()[16 << 20:]
magic, note = text.split(b"\n", 1)
note = json.loads(note)
assert (magic, note["luks_uuid"], note["serial"], note["role"], note["mount_point"]) == (b"luks-agent header backup", sys.argv[1], "serial-ubdb", "ebs", "/data"), note' "$uuid"
expect_agent 0 header backup ubdc /var/lib/headers/other

say "refused: open; another volume; a file that is none, damaged or of cryptsetup"
refused 3 ubdb "it is open" -- header restore ubdb /var/lib/headers/backup
expect_agent 0 close
refused 3 ubdb "the backup is of volume" -- header restore ubdb /var/lib/headers/other
refused 3 ubdb "it is not a header backup of luks-agent" -- header restore ubdb /var/lib/headers/stock
refused 1 ubdb "cannot open /var/lib/headers/none" -- header restore ubdb /var/lib/headers/none
cp /var/lib/headers/backup /var/lib/headers/damaged
printf x | dd of=/var/lib/headers/damaged bs=1 seek=50000 conv=notrunc status=none
refused 3 ubdb "the backup is damaged: its checksum does not match" -- header restore ubdb /var/lib/headers/damaged
dmsetup create held --table "0 8192 linear /dev/ubdb 0"
refused 3 ubdb "its disk is in use" -- header restore ubdb /var/lib/headers/backup
dmsetup remove held

say "both copies lost: restored by luks-agent"
before=$(area ubdb)
lose
expect_agent 1 unlock
expect_agent 0 header restore ubdb /var/lib/headers/backup --dry-run
assert_said "would restore" "the disk had no header"
expect_agent 0 header restore serial-ubdb /var/lib/headers/backup
assert_said "the data key opens it"
assert_eq "$(area ubdb)" "$before" "the header area"
kept

say "a damaged keyslot is repaired"
dd if=/dev/zero of=/dev/ubdb bs=1k seek=100 count=1 conv=notrunc,fsync status=none
expect_agent 0 header restore ubdb /var/lib/headers/backup
assert_said "repairs keyslot 0"
kept

say "stock cryptsetup restores the same file"
lose
cryptsetup luksHeaderRestore --batch-mode /dev/ubdb --header-backup-file /var/lib/headers/backup
assert_eq "$(area ubdb)" "$before" "the header area"
kept

say "KMS does not answer for the key: nothing is written"
lose
fake allow '["DescribeKey"]'
refused 4 ubdb "kms:Decrypt" "nothing was written" -- header restore ubdb /var/lib/headers/backup
fake allow null
expect_agent 0 header restore ubdb /var/lib/headers/backup

say "keyslots that changed since"
data_key >/run/key
printf 'of somebody else' >/run/other
slots=(--batch-mode --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file /run/key)
cryptsetup luksAddKey "${slots[@]}" /dev/ubdb /run/other
refused 3 ubdb "loses keyslot 1 (pbkdf2, of no token)" "--replace-keyslots" -- header restore ubdb /var/lib/headers/backup
expect_agent 0 header backup ubdb /var/lib/headers/two
cryptsetup luksKillSlot --batch-mode /dev/ubdb 1
refused 3 ubdb "brings back keyslot 1 (pbkdf2, of no token)" -- header restore ubdb /var/lib/headers/two
expect_agent 0 header restore ubdb /var/lib/headers/two --replace-keyslots
cryptsetup open --test-passphrase --key-file /run/other /dev/ubdb
expect_agent 0 header restore ubdb /var/lib/headers/backup --replace-keyslots
run_expect 2 cryptsetup open --test-passphrase --key-file /run/other /dev/ubdb
assert_eq "$(area ubdb)" "$before" "the header area: nothing is left of the other keyslot"
kept

say "a header with another token, and another disk"
cryptsetup token export --token-id 0 /dev/ubdb | sed 's/"wrapped_key": *"..../"wrapped_key":"AQID/' >/var/lib/headers/token
cryptsetup token import --token-id 0 --token-replace --json-file /var/lib/headers/token /dev/ubdb
cryptsetup luksHeaderBackup /dev/ubdb --header-backup-file /var/lib/headers/tampered
python3 -c 'import hashlib, json
text = open("/var/lib/headers/backup", "rb").read()[16 << 20:]
area = open("/var/lib/headers/tampered", "rb").read()
magic, note = text.split(b"\n", 1)
note = json.loads(note)
note.update(sha256=hashlib.sha256(area).hexdigest(), seqid=int.from_bytes(area[16:24], "big"))
open("/var/lib/headers/tampered", "ab").write(magic + b"\n" + json.dumps(note).encode())'
refused 3 ubdb "the wrapped key in its token is not the one in the state file" -- header restore ubdb /var/lib/headers/tampered --replace-keyslots
expect_agent 0 header restore ubdb /var/lib/headers/backup
sed 's/"serial-ubdb"/"serial-other"/' /var/lib/headers/backup >/var/lib/headers/moved
refused 3 ubdb "serial number serial-other, this one has serial-ubdb" "--other-disk" -- header restore ubdb /var/lib/headers/moved
expect_agent 0 header restore ubdb /var/lib/headers/moved --other-disk
dd if=/dev/ubdc of=/dev/ubdb bs=32k count=1 conv=notrunc,fsync status=none
refused 3 ubdb "the disk has a header of volume" -- header restore /data /var/lib/headers/backup
dd if=/var/lib/headers/backup of=/dev/ubdb bs=32k count=1 conv=notrunc,fsync status=none
kept

say "killed: the worker, and the agent"
# the data key's area on the disk is that of another keyslot in the backup, so the restore goes by way of a third header
cryptsetup luksAddKey "${slots[@]}" /dev/ubdb /run/other
cryptsetup luksAddKey "${slots[@]}" --new-keyfile /run/key /dev/ubdb --key-slot 2
cryptsetup luksKillSlot --batch-mode /dev/ubdb 0
printf 'of a third one' >/run/third
cryptsetup luksAddKey "${slots[@]}" /dev/ubdb /run/third --key-slot 0
cp /dev/ubdb /var/lib/headers/start
for process in worker.3:6 agent:5; do
    step=${CRASH_STEP:-${process#*:}} process=${process%:*}
    killed=0
    for ((n = 1; ; n += step)); do
        dd if=/var/lib/headers/start of=/dev/ubdb bs=1M count=17 conv=notrunc,fsync status=none
        call=$("$CRASH" kill "$process:$n" --output /run/out -- \
            "$LUKS_AGENT" header restore ubdb /var/lib/headers/backup --replace-keyslots)
        [[ $call != missed ]] || break
        killed=$((killed + 1))
        # whatever is on the disk, the data key opens it
        wait_for 20 flock -n /dev/ubdb true
        cryptsetup open --test-passphrase --key-file /run/key /dev/ubdb ||
            fail "$process killed at call $n, $call: nothing opens the volume"
        ((killed % 4)) || (expect_agent 0 header restore ubdb /var/lib/headers/backup --replace-keyslots) >/run/out || { cat /run/out; exit 1; }
    done
    say "$process was killed at $killed of $n system calls"
    ((killed > 3)) || fail "only $killed kills of $process: $(</run/out)"
done
assert_eq "$(area ubdb)" "$before" "the header area"
rm /run/key /run/other /run/third
kept

say "a header from between the rotation of the data key and the re-encryption: nothing makes the data readable with it"
expect_agent 0 rotate --volume-key
assert_said "1 of 2 volumes have a new volume key" "not open"
expect_agent 0 header backup ubdb /var/lib/headers/between
dd if=/dev/ubdb of=/var/lib/headers/between.raw bs=1M count=16 status=none
expect_agent 0 unlock
expect_agent 0 rotate --volume-key
assert_said "1 of 1 volumes have a new volume key"
expect_agent 0 header backup ubdb /var/lib/headers/after
expect_agent 0 close
cp "$STATE" /root/after.json
refused 3 ubdb "a former volume key" "no option makes this backup usable" -- header restore ubdb /var/lib/headers/between --replace-keyslots
refused 3 ubdb "a former volume key" "no option makes this backup usable" -- header restore ubdb /var/lib/headers/between
refused 3 ubdb "a former volume key" -- header restore ubdb /var/lib/headers/backup --replace-keyslots
cmp "$STATE" /root/after.json
kept
# by other means: it is not opened, and nothing is written under it
dd if=/var/lib/headers/between.raw of=/dev/ubdb bs=1M conv=notrunc,fsync status=none
refused 1 ubdb "another volume key than the state file records" -- unlock
refused 1 ubdb "another volume key than the state file records" -- header backup ubdb /var/lib/headers/wrong
# whichever of the two it is that fits the data: the present header is not lost by mistake
refused 3 ubdb "only one of the two makes the data readable" "--replace-volume-key" -- header restore ubdb /var/lib/headers/after --replace-keyslots
expect_agent 0 header restore ubdb /var/lib/headers/after --replace-keyslots --replace-volume-key
assert_said "destroys the header on the disk"
kept
