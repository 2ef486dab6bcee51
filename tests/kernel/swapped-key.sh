# The state file has the wrapped key of another volume, encrypted under the same KMS key, so KMS unwraps it. The agent opens no volume with
# it, writes to none, and reports what is wrong. And KMS answers for another key than the requested one.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"

# state STATEMENT: runs a Python statement on the content `s` of the state file, and drops the checksum.
state() {
    python3 -c 'import json, sys
s = json.load(open(sys.argv[1]))
exec(sys.argv[2])
s.pop("sha256", None)
json.dump(s, open(sys.argv[1], "w"))' "$STATE" "$1"
}
# token DISK KEY: puts the wrapped key number KEY of the state file into the token of the disk.
token() {
    cryptsetup token export --token-id 0 "/dev/$1" >/run/token
    python3 -c 'import json, sys
token = json.load(open("/run/token"))
token["wrapped_key"] = json.load(open(sys.argv[1]))["keys"][int(sys.argv[2])]["wrapped_key"]
json.dump(token, open("/run/token", "w"))' "$STATE" "$2"
    cryptsetup token import --token-id 0 --token-replace --json-file /run/token "/dev/$1"
}
# kms OPERATION JSON: calls the fake endpoint and prints the CiphertextBlob of the response.
kms() {
    python3 -c 'import json, os, sys, urllib.request
headers = {"X-Amz-Target": "TrentService." + sys.argv[1], "Content-Type": "application/x-amz-json-1.1", "Authorization": "none"}
request = urllib.request.Request(os.environ["AWS_ENDPOINT_URL"], sys.argv[2].encode(), headers)
print(json.load(urllib.request.urlopen(request))["CiphertextBlob"])' "$@"
}
sums() { sha256sum /dev/ubdb /dev/ubdc; }
unwrapped() { requests /run/requests 'r["operation"] == "Decrypt" and r["status"] == 200 and not r["error"]'; }
# nothing_opens TEXT...: unlock and provision open no volume, write to no disk, exit with 1, and print every TEXT.
nothing_opens() {
    local before command
    before=$(sums)
    for command in unlock provision; do
        expect_agent 1 "$command"
        assert_said "$@" "2 failed"
        assert_eq "$(find /dev/mapper -name 'luks-*')" "" "open mappings"
        assert_eq "$(sums)" "$before" "the disks"
    done
}

say "two volumes with separate data keys: the second instance found the state file of the first"
start_fake --log /run/requests --instance-id i-0000000000000000a
ext4_volumes /dev/ubdb ebs
expect_agent 0 provision
kill "$FAKE_AWS_PID"
start_fake --log /run/requests --instance-id i-0000000000000000b
ext4_volumes '/dev/ubd[bc]' ebs
expect_agent 0 provision
for at in /data /data1; do echo "file of $at" >"$at/file"; done
expect_agent 0 close
cp "$STATE" /root/state.json
uuids=$(python3 -c 'import json; print(*(v["luks_uuid"] for v in json.load(open("/root/state.json"))["volumes"]))')
read -r first second <<<"$uuids"

say "the two wrapped keys exchanged"
state 'a, b = s["keys"]; a["wrapped_key"], b["wrapped_key"] = b["wrapped_key"], a["wrapped_key"]'
before=$(unwrapped)
nothing_opens "the wrapped key in its token is not the one in the state file" "$first" "$second"
assert_eq "$(($(unwrapped) - before))" 4 "wrapped keys that KMS unwrapped"

say "both replaced by another key that is wrapped under the same KMS key"
cp /root/state.json "$STATE"
other=$(kms GenerateDataKey "{\"KeyId\": \"$KEY_ARN\", \"KeySpec\": \"AES_256\"}")
state "for key in s['keys']: key['wrapped_key'] = '$other'"
nothing_opens "the wrapped key in its token is not the one in the state file"

say "in the headers as well"
cp /dev/ubdb /root/ubdb.header --sparse=always
cp /dev/ubdc /root/ubdc.header --sparse=always
token ubdb 0
token ubdc 1
nothing_opens "the data key opens no keyslot of $first" "the data key opens no keyslot of $second" "formatted with another key"
for disk in ubdb ubdc; do dd if="/root/$disk.header" of="/dev/$disk" bs=32k count=1 conv=notrunc,fsync status=none; done

say "KMS answers for another key than the recorded one, or does not say for which"
cp /root/state.json "$STATE"
fake faults '[{"on": "Decrypt", "effect": "wrong_key_id"}]'
before=$(sums)
for command in unlock provision; do
    expect_agent 1 "$command"
    assert_said "KMS answered with a different key, arn:aws:kms:us-east-1:111122223333:key/00000000" "check which service answers at"
done
fake faults '[{"on": "Decrypt", "effect": {"without_field": {"name": "KeyId"}}}]'
expect_agent 1 unlock
assert_said "KMS did not name the key it used"
assert_eq "$(find /dev/mapper -name 'luks-*')" "" "open mappings"
assert_eq "$(sums)" "$before" "the disks"
fake faults '[]'

say "restored"
expect_agent 0 unlock
assert_eq "$(cat /data/file /data1/file)" $'file of /data\nfile of /data1' "the files"
