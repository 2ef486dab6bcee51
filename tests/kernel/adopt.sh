# Volumes change nodes. Node A makes two volumes (make). Node B gets copies of their disks, as from snapshots, and adopts them (other).
# Node B loses its state file and forgets volumes (again), and the disk of one (gone), which comes back (back).
#
#   adopt.sh make|other|again|gone|back
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"

phase=$1
instance=i-0000000000000000b
[[ $phase != make ]] || instance=i-0000000000000000a
start_fake --log "/root/requests.$phase" --instance-id "$instance"
roles() { ext4_volumes "$@"; }
count() { requests "/root/requests.$phase" "r[\"operation\"] == \"$1\""; }
sum() { sha256sum <"/dev/$1"; }
uuid_of() { cryptsetup luksUUID "/dev/$1"; }
assert_no_mapping() { [[ -z $(find /dev/mapper -name 'luks-*' -newer /run/mark) ]] || fail "a mapping was made"; }

case $phase in
make)
    roles '/dev/ubd[bc]' ebs
    expect_agent 0 provision
    for at in /data /data1; do
        marker_text "of $at" >"$at/file"
        sync -f "$at"
    done
    expect_agent 0 close
    ;;
other)
    roles '/dev/ubd[bc]' ignore /dev/ubdd ebs
    expect_agent 0 provision
    echo own >/data/file
    mkfs.ext4 -q /dev/ubdf
    # ubde stays blank for now
    roles /dev/ubde ignore '/dev/ubd[bcdf]' ebs

    say "another node's volumes are refused, and the message says what to do"
    expect_agent 3 provision
    assert_said "which luks-agent made on i-0000000000000000a and this node's state file does not list" \
        "'luks-agent adopt ubdb' takes it over"

    say "without the permission: the action and the key are named, and nothing is written"
    before=$(sum ubdb)
    cp "$STATE" /run/state.before
    touch /run/mark
    fake allow '["GenerateDataKey", "DescribeKey"]'
    expect_agent 4 adopt ubdb
    assert_said "allow kms:Decrypt on this key" "$KEY_ARN" "skipped: no key" "1 without a key"
    assert_eq "$(sum ubdb)" "$before" "the disk, without the permission"
    cmp "$STATE" /run/state.before
    assert_no_mapping
    fake allow null

    say "what is no volume of luks-agent, or none to adopt"
    expect_agent 3 adopt ubdf
    assert_said "not a volume of luks-agent: ext4 at byte 1080"
    expect_agent 3 adopt ubda
    assert_said "carries /"
    expect_agent 2 adopt ubdz
    assert_said "no disk is called 'ubdz'"
    expect_agent 2 adopt ubdb --mount-point relative
    assert_said "invalid mount point 'relative'"
    expect_agent 2 adopt ubdb ubdc --mount-point /restored
    assert_said "--mount-point is for one volume, but 2 disks are named"
    expect_agent 3 adopt ubdb --mount-point /data/below
    assert_said "would be nested with, that of another volume: /data" "it is open, and was not recorded"
    cmp "$STATE" /run/state.before
    roles /dev/ubdb ignore '/dev/ubd[cdef]' ebs
    expect_agent 3 adopt ubdb
    assert_said "a [[volumes.match]] rule says ignore"
    roles '/dev/ubd[bcdef]' ebs

    say "adopted, from the token alone; it was open already"
    decrypted=$(count Decrypt)
    expect_agent 0 adopt ubdb --mount-point /restored --json
    assert_eq "$(report '[rows["ubdb"][key] for key in ("result", "mount_point")]')" "['adopted', '/restored']" "the report"
    assert_eq "$(</restored/file)" "$(marker_text 'of /data')" "the file of node A"
    assert_eq "$(count Decrypt)" $((decrypted + 1)) "Decrypt requests"
    assert_eq "$(state '[(k["id"], k.get("adopted", False)) for k in state["keys"]]')" "[(1, False), (2, True)]" "the keys"
    assert_eq "$(state 'state["instance_id"]')" "$instance" "the instance of the node's key"
    expect_agent 0 adopt "$(uuid_of ubdb)"
    assert_said "1 known already"
    expect_agent 3 adopt ubdb --mount-point /elsewhere
    assert_said "already, with mount point /restored" "run it again without --mount-point"
    expect_agent 3 adopt --rekey ubdb
    assert_said "already, with the key that it came with" "'luks-agent rotate' gives all volumes a new key"

    say "a copy beside it"
    dd if=/dev/ubdb of=/dev/ubde bs=1M status=none
    cp "$STATE" /run/state.before
    before=$(sum ubde)
    expect_agent 3 adopt ubde
    assert_said "it is a known volume or a copy of one: the state file lists LUKS UUID $(uuid_of ubdb), on ubdb, where it is open"
    dd if=/dev/ubdc of=/dev/ubde bs=1M status=none
    expect_agent 3 adopt --all
    assert_said "LUKS UUID $(uuid_of ubdc) is also on ubde" "LUKS UUID $(uuid_of ubdc) is also on ubdc" "2 refused"
    cmp "$STATE" /run/state.before
    blank ubde

    say "a token that somebody has written"
    cryptsetup token export --token-id 0 /dev/ubdc >/run/token
    for arn in 'arn:aws:kms:us-east-1.example.com/:111122223333:key/1' '\u001b[2Jarn'; do
        python3 - "$arn" >/run/forged <<'END'
import json, sys
token = json.load(open("/run/token"))
token["key_arn"] = json.loads('"' + sys.argv[1] + '"')
print(json.dumps(token))
END
        cryptsetup token remove --token-id 0 /dev/ubdc
        cryptsetup token import --token-id 0 --json-file /run/forged /dev/ubdc
        decrypted=$(count Decrypt)
        expect_agent 3 adopt ubdc
        assert_said "which is not the ARN of a KMS key"
        grep -q $'\033' /run/report && fail "a control character of the token was printed"
        assert_eq "$(count Decrypt)" "$decrypted" "Decrypt requests for a forged token"
    done
    cryptsetup token remove --token-id 0 /dev/ubdc
    cryptsetup token import --token-id 0 --json-file /run/token /dev/ubdc
    say "a wrapped key that is another one's"
    python3 - >/run/forged <<'END'
import json
state = json.load(open("/etc/luks-agent/state/state.json"))
token = json.load(open("/run/token"))
token["wrapped_key"] = state["keys"][0]["wrapped_key"]
print(json.dumps(token))
END
    cryptsetup token remove --token-id 0 /dev/ubdc
    cryptsetup token import --token-id 0 --json-file /run/forged /dev/ubdc
    expect_agent 1 adopt ubdc
    assert_said "the data key opens no keyslot"
    cmp "$STATE" /run/state.before
    cryptsetup token remove --token-id 0 /dev/ubdc
    cryptsetup token import --token-id 0 --json-file /run/token /dev/ubdc

    say "all others; new volumes get the node's own key"
    expect_agent 0 adopt --all
    assert_said "1 adopted" "left alone" "not a volume of luks-agent"
    assert_eq "$(</data1/file)" "$(marker_text 'of /data1')" "the other file of node A"
    generated=$(count GenerateDataKey)
    expect_agent 3 provision
    assert_said "1 formatted"
    assert_eq "$(count GenerateDataKey)" "$generated" "data keys made"
    assert_eq "$(state '[(v["serial"], v["key"]) for v in state["volumes"]]')" \
        "[('vol-b0', 1), ('vol-b1', 2), ('vol-b2', 2), ('vol-b3', 1)]" "the keys of the volumes"
    expect_agent 0 health
    assert_said "4 sound"
    ;;
again)
    expect_agent 0 boot
    assert_said "4 unlocked"
    assert_eq "$(</restored/file)" "$(marker_text 'of /data')" "the file of node A, after a reboot"

    say "the state file is lost while the volumes are open and mounted"
    mounts() { findmnt -rno TARGET,SOURCE -t ext4 | grep /dev/mapper/luks- | sort; }
    before=$(mounts)
    rm -r "${STATE%/*}"
    expect_agent 1 health
    assert_said "'luks-agent adopt ubdd'"
    expect_agent 0 adopt --all
    assert_said "4 adopted"
    assert_eq "$(mounts)" "$before" "the mounts"
    # the order of their serial numbers, and this node's key first: the ARN is configured
    assert_eq "$(state '[(v["serial"], v["key"], v["mount_point"]) for v in state["volumes"]]')" \
        "[('vol-b0', 1, '/data'), ('vol-b1', 2, '/restored'), ('vol-b2', 2, '/data1'), ('vol-b3', 1, '/data2')]" "the volumes"
    assert_eq "$(state '[(k["id"], k.get("adopted", False)) for k in state["keys"]]')" "[(1, False), (2, True)]" "the keys"
    assert_eq "$(state 'state["instance_id"]')" "$instance" "the instance"
    expect_agent 0 health
    assert_said "4 sound"

    say "lost while they are closed: they get the next free mount points"
    expect_agent 0 close
    # what a process leaves that is killed while it opens a volume: a mapping that holds the disk and has no active table
    uuid=$(uuid_of ubdb)
    dmsetup create "luks-$uuid" --notable --uuid "CRYPT-LUKS2-${uuid//-/}-luks-$uuid"
    dmsetup load "luks-$uuid" --table "0 8 linear /dev/ubdb 32768"
    rm -r "${STATE%/*}"
    expect_agent 3 provision
    assert_said "and there is no state file" "'luks-agent adopt ubdb' ('--all' for all such volumes)"
    decrypted=$(count Decrypt)
    expect_agent 0 adopt --all
    assert_said "4 adopted"
    assert_eq "$(count Decrypt)" $((decrypted + 2)) "Decrypt requests: one for each key"
    assert_eq "$(state '[(v["serial"], v["mount_point"]) for v in state["volumes"]]')" \
        "[('vol-b0', '/data'), ('vol-b1', '/data1'), ('vol-b2', '/data2'), ('vol-b3', '/data3')]" "the volumes"
    assert_eq "$(</data1/file)" "$(marker_text 'of /data')" "the file of node A"
    assert_eq "$(</data/file)" own "the file of node B"
    expect_agent 0 close
    expect_agent 0 unlock
    assert_said "4 unlocked"

    say "forgotten, but not while it is open, and not by mistake while its disk is there"
    cp "$STATE" /run/state.before
    expect_agent 3 forget /data1
    assert_said "is open on ubdb" "run 'luks-agent close ubdb' first"
    expect_agent 3 forget vol-b1 --even-if-attached
    assert_said "is open on ubdb"
    expect_agent 0 close ubdb ubdc
    expect_agent 3 forget vol-b1
    assert_said "ubdb, is attached" "--even-if-attached"
    expect_agent 2 forget nothing
    assert_said "no volume in the state file is called 'nothing'"
    cmp "$STATE" /run/state.before
    expect_agent 0 forget --even-if-attached vol-b1
    assert_said "1 forgotten" "'luks-agent adopt ubdb' takes it back"
    keys='[key["id"] for key in state["keys"]]'
    former='[(f["volume"]["serial"], f["end"], f["key"]["id"]) for f in state.get("former", [])]'
    assert_eq "$(state "$keys") $(state "$former")" "[1, 2] [('vol-b1', 'forgotten', 2)]" "the keys and the former volume"
    cp "$STATE" /run/state.before
    expect_agent 0 forget vol-b1
    assert_said "already forgotten, at 20"
    cmp "$STATE" /run/state.before
    expect_agent 0 forget --even-if-attached "$(uuid_of ubdc)"
    assert_eq "$(state "$keys")" "[1]" "the keys: the last volume with key 2 is gone"
    before="$(sum ubdb) $(sum ubdc)"
    expect_agent 0 unlock
    expect_agent 3 provision
    assert_said "2 unchanged, 2 refused" "which this node forgot at 20" "'luks-agent adopt ubdc' takes it back"
    expect_agent 0 health
    assert_eq "$(sum ubdb) $(sum ubdc)" "$before" "the disks of forgotten volumes"

    say "and back at the mount points that they had"
    expect_agent 0 adopt --all
    assert_said "2 adopted, 2 known already"
    assert_eq "$(state '[(v["serial"], v["mount_point"]) for v in state["volumes"]]') $(state "$former")" \
        "[('vol-b0', '/data'), ('vol-b3', '/data3'), ('vol-b1', '/data1'), ('vol-b2', '/data2')] []" "the volumes"
    assert_eq "$(</data1/file)" "$(marker_text 'of /data')" "the file of node A"
    ;;
gone)
    say "the disk of a volume is gone for good"
    expect_agent 1 unlock
    assert_said "attach vol-b2 again"
    expect_agent 0 forget vol-b2
    assert_said "no run expects it any more"
    expect_agent 0 unlock
    expect_agent 0 health
    assert_said "3 sound"
    ;;
back)
    say "and comes back after all"
    expect_agent 0 boot
    assert_said "3 unlocked" "not one of this node's volumes, left alone"
    expect_agent 0 adopt --rekey vol-b2
    assert_said "it has the key of this node now" "1 adopted"
    findmnt -n /data2
    assert_eq "$(</data2/file)" "$(marker_text 'of /data1')" "the other file of node A"
    assert_eq "$(state '[v["key"] for v in state["volumes"] if v["serial"] == "vol-b2"], [v.get("key_change") for v in state["volumes"]]')" \
        "([1], [None, None, None, None])" "the key of a volume that was rekeyed"

    say "recorded with a key that is to be replaced, as an interrupted --rekey leaves it"
    # this one came with the same key
    left='[(v["serial"], v["key"]) for v in state["volumes"] if v["key"] != 1], [k["id"] for k in state["keys"]]'
    assert_eq "$(state "$left")" "([('vol-b1', 3)], [1, 3])" "the volume that still has its key"
    expect_agent 0 close vol-b1
    fake allow '["DescribeKey"]'
    expect_agent 4 adopt --rekey --all
    assert_said "it still has its key"
    fake allow null
    expect_agent 0 adopt --rekey --all
    assert_said "it has the key of this node now" "1 with a new key"
    assert_eq "$(state "$left")" "([], [1])" "the keys, after the next run"
    expect_agent 0 adopt --rekey vol-b1
    assert_said "1 unlocked"
    expect_agent 0 close ubdc
    expect_agent 0 unlock
    expect_agent 0 health
    assert_said "4 sound"
    ;;
esac
