# The state file is damaged, cannot be written, or is lost. The agent formats nothing and changes no data, and each message says what to do.
# There are three disks: two known volumes, and a blank one that provision would format.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"

start_fake --log /run/requests
ext4_volumes /dev/ubdb instance-store '/dev/ubd[cd]' ebs /dev/ubde ignore
dir=${STATE%/*}

# the blank disk is added later
sed -i 's/ubd\[cd\]/ubdc/' "$CONFIG"
expect_agent 0 provision
head -c 1000000 /dev/urandom | tee /data/file >/data1/file
sync -f /data
sync -f /data1
sum=$(sha256sum </data/file)
expect_agent 0 close
sed -i 's/"\/dev\/ubdc"/"\/dev\/ubd[cd]"/' "$CONFIG"
cp -a "$dir" /root/good
sums() { sha256sum /dev/ubd[bc] | cut -d' ' -f1; }
disks=$(sums)

# restore: puts the good copy of the state directory back.
restore() {
    rm -rf "$dir"
    cp -a /root/good "$dir"
}

# refused STATUS TEXT...: provision and unlock exit with STATUS, do nothing, and print every TEXT.
tried=0
refused() {
    local want=$1 command
    shift
    for command in provision unlock; do
        expect_agent "$want" "$command"
        assert_said "$@"
    done
    run_expect "$want" agent status >/run/report 2>/run/stderr
    assert_said "$@"
    assert_eq "$(sums)" "$disks" "the known volumes"
    assert_blank ubdd
    tried=$((tried + 1))
}

size=$(stat -c %s "$STATE")
for length in 0 1 $((size / 2)) $((size - 3)); do
    say "truncated to $length of $size bytes"
    truncate -s "$length" "$STATE"
    refused 1 "$STATE is damaged" "restore it from a backup, or see 'break-glass' in the README" "until then, the agent formats nothing"
    restore
done

# flip BYTE BIT: flips a bit of the state file.
flip() {
    python3 -c 'import sys
with open(sys.argv[1], "r+b") as f:
    at = int(sys.argv[2]); f.seek(at); byte = f.read(1)[0]; f.seek(at); f.write(bytes([byte ^ 1 << int(sys.argv[3])]))' "$STATE" "$@"
}
# A flipped bit in a UUID, a serial number or a wrapped key: the file is still JSON, but names another volume or key.
for field in luks_uuid:14 serial:1 wrapped_key:1; do
    # which character of the field: in a random UUID, only the version (4) is certain to become another hexadecimal digit
    character=${field#*:} field=${field%:*}
    at=$(grep -bo "\"$field\": \"" "$STATE" | head -n 1)
    at=$((${at%%:*} + ${#field} + 5 + character))
    say "a flipped bit in $field, byte $at"
    flip "$at" 0
    refused 1 "$STATE is damaged" "its checksum does not match"
    restore
done
say "a flipped bit that makes it invalid UTF-8"
flip 5 7
refused 1 "$STATE is damaged"
restore

say "rewritten by another program, as 'jq -S' does"
python3 -c 'import json, sys
state = json.load(open(sys.argv[1]))
json.dump(state, open(sys.argv[1], "w"), sort_keys=True)' "$STATE"
refused 1 "$STATE is damaged" "its last field is not 'sha256'" "if you trust its content, remove the field 'sha256'"
restore

say "from a newer release"
sed -i 's/"version": 4/"version": 5/' "$STATE"
refused 1 "$STATE has format version 5, but this luks-agent supports 1 to 4" "install the release that wrote it"
restore

say "not a file"
rm "$STATE"
mkdir "$STATE"
refused 1 "cannot read $STATE"
restore

say "another owner, or a mode that lets others write"
chown 1000 "$STATE"
refused 1 "$STATE belongs to user 1000" "chown 0"
restore
chmod 666 "$STATE"
refused 1 "$STATE has mode 0666" "chmod go-w"
restore
chmod 777 "$dir"
refused 1 "$dir has mode 0777" "chmod go-w"
restore
chown 1000 "$dir"
refused 1 "$dir belongs to user 1000"
restore

say "lost: the agent recognises the volumes by their tokens"
rm -rf "$dir"
expect_agent 3 provision
assert_said "which luks-agent made on this instance, and there is no state file" "its key is wrapped by $KEY_ARN" \
    "this node's state file may be lost: ubdb holds a volume of luks-agent" "nothing is formatted; restore $STATE from a backup" \
    "run 'luks-agent adopt ubd" "3 refused"
[[ ! -e $dir ]] || fail "a new state file was begun"
assert_eq "$(sums)" "$disks" "the known volumes"
assert_blank ubdd
expect_agent 1 unlock
assert_said "or its state file is lost: $STATE does not exist"
expect_agent 3 plan
assert_said "state file may be lost"
tried=$((tried + 1))
assert_eq "$(requests /run/requests 'r["operation"] == "GenerateDataKey"')" 1 "data keys made"

say "lost, and IMDS does not say which instance this is"
fake faults '[{"on": "imds:*", "effect": "close"}]'
expect_agent 3 provision
assert_said "there is no state file" "3 refused"
assert_blank ubdd
expect_agent 1 health
assert_said "there is no state file, and volumes of luks-agent are attached: 2"
fake faults '[]'
tried=$((tried + 1))

say "lost while the volumes are open: the agent still recognises them, and their data can still be saved"
restore
expect_agent 0 unlock
rm -rf "$dir"
open_before=$(sums)
expect_agent 3 provision
assert_said "ubdb holds a volume of luks-agent" "3 refused" "nothing is formatted; restore $STATE from a backup" \
    "while it is open"
assert_blank ubdd
expect_agent 1 health
assert_said "this node would not survive a reboot, because" "and there is no state file" "ubdb" "ubdc" "restore $STATE from a backup"
expect_agent 0 status
assert_said "there is no state file" "open under a luks-agent mapper name, but not in the state file"
assert_eq "$(requests /run/requests 'r["operation"] == "GenerateDataKey"')" 1 "data keys made"
assert_eq "$(sums)" "$open_before" "the open volumes"
restore
expect_agent 0 unlock
expect_agent 0 health
assert_said "2 sound"
expect_agent 0 close
disks=$(sums)
tried=$((tried + 1))

say "restored, with a torn temporary file beside it"
restore
head -c 100 "$STATE" >"$STATE.new"
expect_agent 0 unlock
assert_eq "$(sha256sum </data/file)" "$sum" "the file on the first volume"
assert_eq "$(sha256sum </data1/file)" "$sum" "the file on the second volume"
expect_agent 0 close
disks=$(sums)

say "the boot volume is full or read-only"
mkfs.ext4 -q -m 0 /dev/ubde 8M
mount /dev/ubde "$dir"
restore_into() { cp -a /root/good/. "$dir"; }
restore_into
fill() { dd if=/dev/zero of="$dir/fill" bs=1k conv=fsync status=none 2>/dev/null || true; }
fill
expect_agent 1 provision
assert_said "not formatted: cannot" "$STATE.new: No space left on device" "2 unlocked, 1 failed"
assert_blank ubdd
expect_agent 0 close
mount -o remount,ro "$dir"
expect_agent 1 provision
assert_said "not formatted: cannot" "Read-only file system" "2 unlocked, 1 failed"
assert_blank ubdd
expect_agent 0 close
expect_agent 0 unlock
assert_eq "$(sha256sum </data/file)" "$sum" "the file, unlocked with a read-only boot volume"
expect_agent 0 close
say "the boot volume of a new node is full or read-only"
mount -o remount,rw "$dir"
rm "$STATE" "$dir/fill"
# hides the volumes of the other cases
sed -i 's/"\/dev\/ubd\[cd\]"/"\/dev\/ubdd"/; s/"\/dev\/ubdb"/"\/dev\/nothing"/' "$CONFIG"
fill
expect_agent 1 provision
assert_said "$STATE.new: No space left on device"
assert_blank ubdd
mount -o remount,ro "$dir"
expect_agent 1 provision
assert_said "Read-only file system"
assert_blank ubdd
mount -o remount,rw "$dir"
rm "$dir/fill"
tried=$((tried + 4))

say "the boot volume has space again"
expect_agent 0 provision
assert_said "1 formatted"

say "restored from a copy that is older than a volume"
# a volume that was created after the copy, with the node's key
expect_agent 0 close
umount "$dir"
rm -rf "$dir"
restore
blank ubdd
sed -i 's/"\/dev\/ubdd"/"\/dev\/ubd[cd]"/; s/"\/dev\/nothing"/"\/dev\/ubdb"/' "$CONFIG"
expect_agent 0 provision
assert_said "1 formatted, 2 unlocked"
expect_agent 0 health
cp -a "$dir" /root/newer
for open in yes no; do
    restore
    [[ $open == yes ]] || for mapping in /dev/mapper/luks-*; do umount "$mapping" && cryptsetup close "${mapping##*/}"; done
    expect_agent 3 provision
    assert_said "ubdd" "which luks-agent made on this node and the state file does not list" "1 refused"
    expect_agent 1 health
    assert_said "this node would not survive a reboot, because" "ubdd" "which luks-agent made on this node and the state file does not list" \
        "2 of 3 sound"
    rm -rf "$dir"
    cp -a /root/newer "$dir"
    expect_agent 0 provision
    expect_agent 0 health
    assert_said "3 sound"
done
tried=$((tried + 2))
say "in memory: the agent opens known volumes, with a warning, and formats nothing"
expect_agent 0 close
mkdir -p /run/layers/{lower,upper,work}
mount --bind "$dir" /run/layers/lower
mount -t overlay -o lowerdir=/run/layers/lower,upperdir=/run/layers/upper,workdir=/run/layers/work overlay "$dir"
for command in boot provision; do
    expect_agent 0 "$command"
    assert_said "state.dir $dir is in memory: it lies on the overlay on $dir" "a reboot loses everything else that is recorded" "3 unlocked"
    expect_agent 0 close
done
blank ubde
sed -i 's/"ignore"/"ebs"/' "$CONFIG"
generated=$(requests /run/requests 'r["operation"] == "GenerateDataKey"')
lost="a reboot would lose the record of a new volume: the state directory is on the overlay on $dir"
# exit status 0, as with any disk that is not one of the node's volumes
expect_agent 0 boot
assert_said "$lost" "3 unlocked"
expect_agent 3 provision
assert_said "ubde" "$lost" "3 unchanged, 1 refused"
assert_blank ubde
assert_eq "$(requests /run/requests 'r["operation"] == "GenerateDataKey"')" "$generated" "data keys made"
expect_agent 1 health
assert_said "this node would not survive a reboot, because the state directory is on the overlay on $dir"
umount "$dir" /run/layers/lower
expect_agent 0 provision
assert_said "1 formatted"
tried=$((tried + 1))

say "tried $tried states of the state file: nothing lost, nothing formatted"
