# A node across a stop: the instance store comes back blank with other serial numbers (restarted); an EBS volume comes back blank or with
# another header (bad-ebs). A clone has the state file of another instance (clone). An original is attached instead of its copy and cannot
# be used (denied); both are attached (original). Volumes are missing or come late (gone).
#
#   stop-start.sh first|restarted|bad-ebs|clone|denied|original|gone
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"

instance=i-0000000000000000a
[[ $1 =~ clone|denied|original|gone ]] && instance=i-0000000000000000b
start_fake --log "/root/requests.$1" --instance-id "$instance"
ext4_volumes /dev/ubdb instance-store '/dev/ubd[cdef]' ebs
made() { requests "/root/requests.$phase" 'r["operation"] == "GenerateDataKey"'; }
phase=$1
decrypts() { requests "/root/requests.$phase" 'r["operation"] == "Decrypt"'; }
assert_not_said() { [[ $(cat /run/stderr /run/report) != *"$1"* ]] || fail "'$1' was said"; }

case $1 in
first)
    expect_agent 0 boot
    assert_said "3 formatted"
    # mount points are in the order of serial numbers: ubdc, ubdd, then the instance store
    for at in /data /data1 /data2; do
        findmnt -n "$at"
        echo "file of $at" >"$at/file"
        sync -f "$at"
    done
    assert_eq "$(made)" 1 "data keys made"
    ;;
restarted)
    say "the instance store is another disk, a service wrote below its mount point meanwhile, and a foreign disk is attached"
    touch /data2/stray
    mkfs.ext4 -q /dev/ubde
    stranger=$(sha256sum </dev/ubde)
    expect_agent 1 unlock
    assert_said "blank, and known instance store volume" "run 'luks-agent provision' to format it again" "2 unlocked" \
        "not one of this node's volumes, left alone: not blank: ext4"
    assert_blank ubdb
    expect_agent 0 close
    say "the boot formats it, mounts it where the old one was, and reports it"
    before=$(decrypts)
    expect_agent 0 boot
    assert_said "1 formatted" "2 unlocked" "lost with the instance store" "the mount hides files in" "'stray'" "not blank: ext4"
    assert_eq $(($(decrypts) - before)) 1 "calls of Decrypt for the unlocked and the new volumes"
    findmnt -n /data2
    [[ ! -e /data2/file ]] || fail "the instance store still holds its file"
    assert_eq "$(cat /data/file /data1/file)" $'file of /data\nfile of /data1' "the files on EBS"
    assert_eq "$(made)" 0 "data keys made"
    assert_eq "$(state 'len(state["volumes"])')" 3 "volumes in the state file"
    expect_agent 0 health
    assert_said "3 sound, 1 not encrypted by luks-agent"
    expect_agent 3 provision
    assert_said "3 unchanged" "1 refused"
    expect_agent 0 status
    assert_said "3 open, 0 locked, 0 missing, 1 new"
    assert_eq "$(sha256sum </dev/ubde)" "$stranger" "the foreign disk"

    say "blank under the same serial number"
    expect_agent 0 close
    blank ubdb
    expect_agent 1 unlock
    assert_said "known instance store volume" "came back blank" "run 'luks-agent provision' to format it again" "2 unlocked"
    assert_blank ubdb
    expect_agent 0 boot
    assert_said "1 formatted" "lost with the instance store"
    findmnt -n /data2

    say "a file below the mount point does not prevent the mount of a known volume"
    umount /data
    expect_agent 1 health
    assert_said "open, but not mounted at /data"
    for n in 1 2 3 4; do touch "/data/stray$n"; done
    expect_agent 0 close
    expect_agent 0 unlock
    assert_said "3 unlocked" "the mount hides files in /data: 'stray1', 'stray2', 'stray3' and 1 more"
    assert_eq "$(cat /data/file)" "file of /data" "the file on EBS"
    expect_agent 0 health
    expect_agent 0 close
    rm /data/stray? /data2/stray
    ;;
bad-ebs)
    say "an EBS volume that comes back blank, and one with another header"
    cp --sparse=always /dev/ubdc /root/ubdc
    cp --sparse=always /dev/ubdd /root/ubdd
    blank ubdc
    # the header of another volume, as if a snapshot of another volume had been restored to the disk
    printf 'a test passphrase' | cryptsetup luksFormat --batch-mode --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 \
        --key-file=- /dev/ubdd
    other=$(sha256sum </dev/ubdd)
    for command in unlock provision; do
        expect_agent 1 "$command"
        assert_said "known EBS volume" "came back blank" "restore it from a snapshot" \
            "expected known volume" ", but found: LUKS2 volume" "check that the right volume is attached"
        assert_blank ubdc
        assert_eq "$(sha256sum </dev/ubdd)" "$other" "the volume with another header"
    done
    say "the same if the configuration calls them instance store, and allows to wipe that"
    sed -i 's/role = "ebs"/role = "instance-store"/; s/^\[filesystem\]/[volumes]\nwhen_not_blank = "wipe-instance-store"\n&/' "$CONFIG"
    expect_agent 1 provision
    assert_said "known EBS volume" "came back blank" "expected known volume" ", but found: LUKS2 volume"
    assert_blank ubdc
    assert_eq "$(sha256sum </dev/ubdd)" "$other" "the volume with another header"
    expect_agent 0 close
    say "the right volumes are back"
    for disk in ubdc ubdd; do dd if="/root/$disk" of="/dev/$disk" bs=1M conv=notrunc,fsync status=none; done
    expect_agent 0 unlock
    assert_eq "$(cat /data/file /data1/file)" $'file of /data\nfile of /data1' "the files on EBS"
    ;;
clone)
    say "another instance, with copies of the boot volume and of the EBS volumes under new volume ids, and a blank disk"
    old=$(state 'state["keys"][0]["wrapped_key"]')
    expect_agent 1 unlock
    assert_said "2 unlocked" "is gone"
    assert_eq "$(cat /data/file /data1/file)" $'file of /data\nfile of /data1' "the files on EBS"
    assert_eq "$(state '" ".join(v["serial"] for v in state["volumes"])')" "vol3 vol4 z-store-2" "their serial numbers"
    echo newer >/data/newer
    say "an instance whose id is unknown gets its own key"
    cp -a "${STATE%/*}" /root/of-the-image
    fake faults '[{"on": "imds:*", "effect": "close"}]'
    expect_agent 0 provision
    assert_said "1 formatted"
    assert_eq "$(made)" 1 "data keys made for the new volume of an unknown instance"
    [[ $(cryptsetup token export --token-id 0 /dev/ubdb) != *"$old"* ]] || fail "the new volume was made with the key of the image"
    fake faults '[]'
    expect_agent 0 close
    rm -rf "${STATE%/*}"
    cp -a /root/of-the-image "${STATE%/*}"
    blank ubdb
    say "an instance with a known id gets its own key too"
    expect_agent 0 provision
    assert_said "1 formatted"
    assert_eq "$(made)" 2 "data keys made for the clone's new volume"
    assert_eq "$(state 'len(state["keys"])')" 2 "keys in the state file"
    assert_eq "$(state 'state["instance_id"]')" "$instance" "the instance that owns the state file now"
    assert_eq "$(state 'state["keys"][0]["wrapped_key"]')" "$old" "the first key"
    new=$(state '[v for v in state["volumes"] if v["key"] == 2][0]["luks_uuid"]')
    assert_eq "$(state 'sum(v["key"] == 2 for v in state["volumes"])')" 1 "volumes with the clone's own key"
    token=$(cryptsetup token export --token-id 0 /dev/ubdb)
    assert_contains "$token" "$instance" "the token of the new volume"
    [[ $token != *"$old"* ]] || fail "the new volume was made with the key of the image"
    blkid -p -s UUID -o value /dev/ubdb | grep -q "$new" || fail "ubdb is not the new volume"
    say "known volumes open with the old key, new ones with the new key"
    expect_agent 0 close
    expect_agent 0 unlock
    ;;
denied)
    say "a volume moves to another disk only when it is opened there: its original is in its place, and cannot be used"
    serials='" ".join(v["serial"] for v in state["volumes"])'
    before=$(state "$serials")
    assert_contains "$before" vol3 "the disk where the volume was last used"
    cp -a "${STATE%/*}" /root/before
    fake "keys/${KEY_ARN##*/}/state" '{"state": "Disabled"}'
    expect_agent 4 unlock
    assert_said "3 without a key"
    assert_eq "$(state "$serials")" "$before" "the serial numbers without a key"
    fake "keys/${KEY_ARN##*/}/state" '{"state": "Enabled"}'
    mount -t tmpfs none /data
    expect_agent 1 unlock
    assert_said "mount point /data is taken" "2 unlocked"
    assert_eq "$(state "$serials")" "$before" "the serial numbers where it cannot be mounted"
    umount /data
    say "it moves when it is used; the next lines undo that"
    expect_agent 0 unlock
    assert_contains "$(state "$serials")" vol1 "the disk where the volume is used now"
    expect_agent 0 close
    rm -r "${STATE%/*}"
    cp -a /root/before "${STATE%/*}"
    ;;
original)
    say "the original of a volume comes back beside it, with the serial number that was recorded first, and older data"
    expect_agent 3 boot
    assert_said "its header is a copy" "is on ubdc, where it was last used" "3 unlocked"
    assert_eq "$(cat /data/newer)" newer "the last write"
    say "that disk is not formatted even if it is blank or noise: it may have held data that the other lacks"
    sed -i 's/^\[filesystem\]/[volumes]\nnoise = "format-ebs"\n&/' "$CONFIG"
    for bytes in 'bytes(n)' 'random.Random(7).randbytes(n)'; do
        python3 -c "import random; n = 40 << 20; open('/dev/ubdf', 'r+b').write($bytes)"
        before=$(sha256sum </dev/ubdf)
        expect_agent 3 provision
        assert_said "was on this disk before it moved to another one" "detach it"
        assert_eq "$(sha256sum </dev/ubdf)" "$before" "the contents of the disk"
    done
    ;;
gone)
    ext4_volumes /dev/ubdb instance-store '/dev/ubd[cd]' ebs
    say "missing instance store is expected until volumes.expect allows fewer volumes"
    for n in 1 2; do
        expect_agent 1 boot
        assert_said "known instance store volume" "no blank instance store takes its place" "volumes.expect.instance_store"
    done
    findmnt -n /data && findmnt -n /data1
    expect_agent 1 health
    assert_said "its disk is not attached"
    expect_agent 1 unlock
    printf '[volumes.expect]\ninstance_store = 0\n' >>"$CONFIG"
    expect_agent 0 health
    assert_said "2 sound"
    expect_agent 0 boot
    assert_said "volumes.expect.instance_store is satisfied without it"
    expect_agent 0 status
    assert_not_said "missing "

    say "only the boot waits for expected volumes"
    expect() { ext4_volumes '/dev/ubd[cd]' ebs '/dev/mapper/disk-*' ebs && printf '[volumes.expect]\nebs = %s\nwithin = "%s"\ninstance_store = 0\n' "$@" >>"$CONFIG"; }
    expect 3 3s
    since=$SECONDS
    for command in unlock provision health; do
        expect_agent 1 "$command"
        assert_said "found 2 of at least 3 ebs volumes"
        assert_not_said "waiting for more"
    done
    expect_agent 1 boot
    assert_said "found 2 of at least 3 ebs volumes" "waiting for more, " "lower volumes.expect.ebs"
    ((SECONDS - since >= 2)) || fail "the boot did not wait"
    expect 3 5m
    agent boot >/run/report 2>/run/stderr &
    boot=$!
    wait_for 60 grep -q "waiting for more" /run/stderr
    dmsetup create disk-late --table "0 $(blockdev --getsz /dev/ubde) linear /dev/ubde 0"
    wait "$boot" || fail "the boot failed: $(cat /run/stderr /run/report)"
    assert_said "1 formatted, 2 unchanged"
    # /data2 stays reserved for the instance store, which may come back
    findmnt -n /data3
    expect_agent 0 health
    ;;
esac
