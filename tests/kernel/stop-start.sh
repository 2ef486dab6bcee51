# A node across a stop: the instance store comes back blank with other serial numbers, an EBS volume comes back blank or with
# another header. And a clone: a state file that another instance wrote.
#
#   stop-start.sh first|restarted|bad-ebs|clone
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"

instance=i-0000000000000000a
[[ $1 == clone ]] && instance=i-0000000000000000b
start_fake --log "/root/requests.$1" --instance-id "$instance"
ext4_volumes /dev/ubdb instance-store '/dev/ubd[cd]' ebs
made() { requests "/root/requests.$phase" 'r["operation"] == "GenerateDataKey"'; }
phase=$1
state() { python3 -c 'import json, sys; state = json.load(open(sys.argv[1])); print(eval(sys.argv[2]))' "$STATE" "$1"; }

case $1 in
first)
    expect_agent 0 provision
    assert_said "3 formatted"
    # by serial number: ubdc, ubdd, then the instance store
    for at in /data /data1 /data2; do
        findmnt -n "$at"
        echo "file of $at" >"$at/file"
        sync -f "$at"
    done
    assert_eq "$(made)" 1 "data keys made"
    ;;
restarted)
    say "unlock says what is not there any more, and formats nothing"
    expect_agent 0 unlock
    assert_said "gone: instance store is lost when the instance stops" "blank and not known yet" "2 unlocked"
    assert_blank ubdb
    say "provision makes it anew, where the old one was mounted, and says so"
    expect_agent 0 provision
    assert_said "1 formatted" "gone: instance store is lost when the instance stops"
    findmnt -n /data2
    [[ ! -e /data2/file ]] || fail "the instance store still holds its file"
    assert_eq "$(cat /data/file /data1/file)" $'file of /data\nfile of /data1' "the files on EBS"
    assert_eq "$(made)" 0 "data keys made"

    say "blank under the same serial number"
    expect_agent 0 close
    blank ubdb
    expect_agent 1 unlock
    assert_said "known instance store volume" "came back blank" "run 'luks-agent provision' to format it again" "2 unlocked"
    assert_blank ubdb
    expect_agent 0 provision
    assert_said "1 formatted" "lost with the instance store"
    findmnt -n /data2
    ;;
bad-ebs)
    say "an EBS volume that comes back blank, and one with another header"
    cp --sparse=always /dev/ubdc /root/ubdc
    cp --sparse=always /dev/ubdd /root/ubdd
    blank ubdc
    # a header of ours, but of another volume: as if another volume's snapshot had been restored onto it
    printf 'a test passphrase' | cryptsetup luksFormat --batch-mode --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 \
        --key-file=- /dev/ubdd
    other=$(sha256sum </dev/ubdd)
    for command in unlock provision; do
        expect_agent 1 "$command"
        assert_said "known EBS volume" "came back blank" "restore it from a snapshot" \
            "expected, but found: LUKS2 volume" "check that the right volume is attached"
        assert_blank ubdc
        assert_eq "$(sha256sum </dev/ubdd)" "$other" "the volume with another header"
    done
    say "even where the configuration lets instance store be wiped, and calls them that"
    sed -i 's/role = "ebs"/role = "instance-store"/; s/^\[filesystem\]/[volumes]\nwhen_not_blank = "wipe-instance-store"\n&/' "$CONFIG"
    expect_agent 1 provision
    assert_said "known EBS volume" "came back blank" "expected, but found: LUKS2 volume"
    assert_blank ubdc
    assert_eq "$(sha256sum </dev/ubdd)" "$other" "the volume with another header"
    expect_agent 0 close
    say "back again"
    for disk in ubdc ubdd; do dd if="/root/$disk" of="/dev/$disk" bs=1M conv=notrunc,fsync status=none; done
    expect_agent 0 unlock
    assert_eq "$(cat /data/file /data1/file)" $'file of /data\nfile of /data1' "the files on EBS"
    ;;
clone)
    say "another instance, with copies of the boot volume and of the EBS volumes under new volume ids, and a blank disk"
    old=$(state 'state["keys"][0]["wrapped_key"]')
    expect_agent 0 unlock
    assert_said "2 unlocked"
    assert_eq "$(cat /data/file /data1/file)" $'file of /data\nfile of /data1' "the files on EBS"
    say "an instance that cannot be told from the image's gets a key of its own"
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
    say "and so does a known one"
    expect_agent 0 provision
    assert_said "1 formatted"
    assert_eq "$(made)" 2 "data keys made for the clone's new volume"
    assert_eq "$(state 'len(state["keys"])')" 2 "keys in the state file"
    assert_eq "$(state 'state["instance_id"]')" "$instance" "whose state file it is now"
    assert_eq "$(state 'state["keys"][0]["wrapped_key"]')" "$old" "the first key"
    new=$(state '[v for v in state["volumes"] if v["key"] == 2][0]["luks_uuid"]')
    assert_eq "$(state 'sum(v["key"] == 2 for v in state["volumes"])')" 1 "volumes with the clone's own key"
    token=$(cryptsetup token export --token-id 0 /dev/ubdb)
    assert_contains "$token" "$instance" "the token of the new volume"
    [[ $token != *"$old"* ]] || fail "the new volume was made with the key of the image"
    blkid -p -s UUID -o value /dev/ubdb | grep -q "$new" || fail "ubdb is not the new volume"
    say "known volumes with the old key, new ones with the new"
    expect_agent 0 close
    expect_agent 0 unlock
    ;;
esac
