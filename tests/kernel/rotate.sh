# The life of a key: rotate and rewrap while the volumes are in use, and a volume that is away meanwhile.
#
#   rotate.sh first   provisions, and rotates under a writer
#   rotate.sh away    rotates without the disk ubdc
#   rotate.sh back    with ubdc again: it opens, and provision catches it up; then rewrap, there and back
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"

# state EXPRESSION: prints a Python expression on the state file `s`.
# header DISK EXPRESSION: prints a Python expression on the metadata `m` of a header.
header() {
    python3 -c 'import json, sys
with open(sys.argv[1], "rb") as disk:
    disk.seek(4096)
    m = json.loads(disk.read(12288).split(b"\0")[0])
print(eval(sys.argv[2]))' "/dev/$1" "$2"
}
keyslots() { header "$1" 'sorted(m["keyslots"])'; }
tokens() { header "$1" '[t["keyslots"] for t in m["tokens"].values()]'; }
# kms OPERATION JSON EXPRESSION: calls the fake endpoint and prints what the expression picks from the answer.
kms() {
    python3 -c 'import json, os, sys, urllib.request
headers = {"X-Amz-Target": "TrentService." + sys.argv[1], "Content-Type": "application/x-amz-json-1.1", "Authorization": "none"}
request = urllib.request.Request(os.environ["AWS_ENDPOINT_URL"], sys.argv[2].encode(), headers)
answer = json.load(urllib.request.urlopen(request))
print(end=eval("answer" + sys.argv[3]))' "$@"
}
# opens_with BLOB DISK: whether the data key that is wrapped in BLOB opens a keyslot of the disk.
opens_with() {
    kms Decrypt "{\"CiphertextBlob\": \"$1\"}" '["Plaintext"]' |
        cryptsetup open --type luks2 --test-passphrase --key-file=- "/dev/$2" 2>/dev/null
}
files_are_there() {
    local at
    for at in /data /data1; do assert_eq "$(<"$at/file")" "file of $at" "the file"; done
}

start_fake --log /run/requests --instance-id i-0000000000000000a
ext4_volumes '/dev/ubd[bc]' ebs
case $1 in
first)
    expect_agent 1 rotate
    assert_said "never provisioned"
    expect_agent 0 provision
    for at in /data /data1; do echo "file of $at" >"$at/file"; done
    sync -f /data /data1
    first=$(state 'state["keys"][0]["wrapped_key"]')

    say "rotate, while the volumes are mounted and written to"
    (while sleep 0.05; do date >/data/now; done) &
    writer=$!
    expect_agent 0 rotate --json
    assert_eq "$(report '[rows[d]["result"] for d in ("ubdb", "ubdc")]')" "['rekeyed', 'rekeyed']" "the rows"
    assert_eq "$(report 'report["kms"]["calls"]')" "{'Decrypt': 3, 'DescribeKey': 1, 'GenerateDataKey': 1}" "the calls"
    second=$(state 'state["keys"][0]["wrapped_key"]')
    [[ $second != "$first" ]] || fail "it is the same key"
    assert_eq "$(state '[(k["id"], k.get("replaced_by")) for k in state["keys"]]')" "[(2, None)]" "the keys"
    for disk in ubdb ubdc; do
        assert_eq "$(keyslots $disk) $(tokens $disk)" "['1'] [['1']]" "keyslots and tokens of $disk"
        opens_with "$second" $disk || fail "the new key does not open $disk"
        run_expect 2 opens_with "$first" $disk
    done
    expect_agent 0 health
    assert_said "2 sound"
    kill "$writer"
    wait "$writer" || true
    expect_agent 0 close
    expect_agent 0 unlock
    files_are_there
    assert_contains "$(cat /data/now)" "20" "what was written meanwhile"
    expect_agent 0 close
    cp "$STATE" /root/first.json
    ;;
away)
    say "a volume is away: its key stays recorded"
    expect_agent 1 unlock
    expect_agent 0 rotate
    assert_said "1 volumes have the new data key, 1 still have the former one" "not attached; it gets its new key when it comes back"
    assert_eq "$(state '[(k["id"], k.get("replaced_by")) for k in state["keys"]]')" "[(2, 3), (3, None)]" "the keys"
    expect_agent 0 rotate
    assert_eq "$(state '[(k["id"], k.get("replaced_by")) for k in state["keys"]]')" "[(2, 4), (4, None)]" "the keys"
    expect_agent 0 close
    ;;
back)
    expect_agent 0 unlock
    files_are_there
    expect_agent 0 status
    assert_said "opens with its former key"
    expect_agent 0 plan
    assert_said "would change key"
    expect_agent 0 provision
    assert_said "1 with a new key"
    assert_eq "$(state '[k["id"] for k in state["keys"]], [v["key"] for v in state["volumes"]]')" "([4], [4, 4])" "keys, and those of the volumes"
    assert_eq "$(keyslots ubdc | wc -w) $(keyslots ubdb | wc -w)" "1 1" "keyslots"
    expect_agent 0 provision
    assert_said "nothing changed"

    say "rewrap: another KMS key, the same passphrase and keyslots"
    other=$(kms CreateKey '{}' '["KeyMetadata"]["Arn"]')
    before=$(keyslots ubdb)$(keyslots ubdc)
    expect_agent 2 rewrap --to alias/none-such
    assert_said "no such KMS key"
    expect_agent 2 rewrap --to "${other/us-east-1/eu-west-1}"
    fake allow '["DescribeKey", "Decrypt", "ReEncryptFrom"]'
    cp "$STATE" /root/before.json
    expect_agent 4 rewrap --to "$other"
    assert_said "lacks kms:ReEncryptTo on $other"
    cmp "$STATE" /root/before.json
    fake allow null
    expect_agent 0 rewrap --to "$other"
    assert_said "2 volumes have the new wrapped key" "kms.key_id is still"
    assert_eq "$(keyslots ubdb)$(keyslots ubdc)" "$before" "the keyslots"
    assert_eq "$(state '[k["key_arn"] for k in state["keys"]]')" "['$other']" "the KMS key"
    assert_eq "$(header ubdb '[t["key_arn"] for t in m["tokens"].values()]')" "['$other']" "the KMS key in the header"
    expect_agent 0 rewrap --to "$other"
    assert_said "nothing to change"
    expect_agent 0 close
    fake keys/alias/luks-agent/state '{"state": "Disabled"}'
    expect_agent 0 unlock
    files_are_there
    expect_agent 0 health
    fake keys/alias/luks-agent/state '{"state": "Enabled"}'
    expect_agent 0 rewrap --to "$KEY_ARN"
    assert_eq "$(state '[k["key_arn"] for k in state["keys"]]')" "['$KEY_ARN']" "the KMS key"
    ;;
esac
