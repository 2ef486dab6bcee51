# The life of a volume and of a recovery key with LocalStack: what the fake endpoint answers to the commands of a volume's life, an
# independent one answers too. There are two volumes, ubdb and ubdc.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"

sums() { sha256sum /dev/ubdb /dev/ubdc; }
tokens() { cryptsetup luksDump --dump-json-metadata "/dev/$1" | python3 -c 'import json, sys
print(*sorted(t["type"] for t in json.load(sys.stdin)["tokens"].values()))'; }
# refused STATE: adopt is refused while the KMS key is in this state, and writes nothing.
refused() {
    local before
    before=$(sums)
    expect_agent 4 adopt --all
    assert_said "$1" "2 without a key"
    assert_eq "$(sums)" "$before" "the disks"
    [[ ! -e $STATE ]] || fail "a state file was written"
    assert_eq "$(find /dev/mapper -name 'luks-*')" "" "open mappings"
}

start_localstack
export AWS_EC2_METADATA_DISABLED=true
KEY_ARN=$LOCALSTACK_KEY_ARN
ext4_volumes '/dev/ubd[bc]' ebs

say "doctor, before and after the first provision"
expect_agent 0 doctor
assert_said "this node is new" "0 failed" "customer managed, symmetric" "this service has no dry runs"
expect_agent 0 provision
for at in /data /data1; do
    echo "kept on $at" >"$at/file"
    sync -f "$at"
done
expect_agent 0 doctor
assert_said "0 failed"
expect_agent 0 verify
assert_said "2 sound"

say "the report of the node is uploaded to S3"
mkdir /run/bin
printf '#!/bin/sh\nexec "%s" "$@"\n' "$AWS_CLI" >/run/bin/aws
printf '#!/bin/sh\nexec "%s" "$@"\n' "$LUKS_AGENT" >/run/bin/luks-agent
chmod +x /run/bin/aws /run/bin/luks-agent
upload() { PATH=/run/bin:$PATH bash "$(dirname "$0")/../../packaging/s3/luks-agent-report.sh" "$@"; }
# not_uploaded PART BUCKET: the upload fails with one line that has PART.
not_uploaded() {
    local said
    run_expect 1 upload "$2" 2>/run/upload
    # what the agent logs before it is no error
    said=$(grep -v ' INFO ' /run/upload)
    assert_eq "$(wc -l <<<"$said")" 1 "lines of: $said"
    assert_contains "$said" "luks-agent-report: cannot upload s3://$2/" "the error"
    assert_contains "$said" "$1" "the error"
}
not_uploaded NoSuchBucket no-such-bucket
aws s3 mb s3://reports-of-nodes
upload reports-of-nodes
AWS_MAX_ATTEMPTS=1 AWS_ENDPOINT_URL=http://127.0.0.1:4567 not_uploaded "Could not connect to the endpoint URL" reports-of-nodes
aws s3 cp --only-show-errors --recursive s3://reports-of-nodes/luks-agent /run/bucket
compgen -G '/run/bucket/reports/day=20??-??-??/*.json' >/run/found || fail "no report: $(find /run/bucket)"
report=$(</run/found)
rows=${report/reports/rows}
[[ -e $rows && $(find /run/bucket -type f | wc -l) == 2 ]] || fail "other objects: $(find /run/bucket)"
expect_agent 0 audit fleet "$report"
assert_said "every disk of these nodes is encrypted or excepted" "$KEY_ARN"
disks=$(python3 -c 'import json, sys; print(len(json.load(open(sys.argv[1]))["disks"]))' "$report")
agent audit convert --format rows "$report" | cmp - "$rows"
assert_eq "$(wc -l <"$rows")" "$disks" "rows"
assert_eq "$(grep -c '"serial-ubd[bc]"' "$rows")" 2 "rows of encrypted volumes"

say "a header is backed up, lost and restored"
expect_agent 0 header backup ubdb /root/header
expect_agent 0 close
dd if=/dev/zero of=/dev/ubdb bs=32k count=1 conv=notrunc,fsync status=none
expect_agent 1 verify
expect_agent 0 header restore ubdb /root/header
assert_said "the data key opens it"
expect_agent 0 unlock
assert_eq "$(</data/file)" "kept on /data" "the file"

say "a recovery key opens the volumes while LocalStack is away"
on_terminal 0 "" recovery-key enroll
assert_said "2 of 2 enrolled"
expect_agent 0 close
endpoint=$AWS_ENDPOINT_URL
# nothing listens there
export AWS_ENDPOINT_URL=http://127.0.0.1:4567
KMS_DEADLINE=2s ext4_volumes '/dev/ubd[bc]' ebs
expect_agent 4 unlock
on_terminal 0 "$(shown_key)" unlock --recovery-key
assert_said "2 unlocked"
assert_eq "$(</data1/file)" "kept on /data1" "the file"
export AWS_ENDPOINT_URL=$endpoint
ext4_volumes '/dev/ubd[bc]' ebs
expect_agent 0 recovery-key remove
assert_said "2 of 2 removed"
assert_eq "$(tokens ubdb) $(tokens ubdc)" "luks-agent-awskms luks-agent-awskms" "the tokens"

say "the state file is lost, and KMS does not unwrap the key"
expect_agent 0 close
rm -r "${STATE%/*}"
expect_agent 3 provision
aws kms disable-key --key-id "$KEY_ARN"
refused "is disabled"
aws kms enable-key --key-id "$KEY_ARN"
aws kms schedule-key-deletion --key-id "$KEY_ARN" --pending-window-in-days 7 >/run/scheduled
refused "deletion"
aws kms cancel-key-deletion --key-id "$KEY_ARN" >/run/scheduled
aws kms enable-key --key-id "$KEY_ARN"

say "and then it does"
expect_agent 0 adopt --all
assert_said "2 adopted"
assert_eq "$(</data/file) $(</data1/file)" "kept on /data kept on /data1" "the files"
expect_agent 0 verify
expect_agent 0 close
expect_agent 0 unlock

say "forgotten and taken back; erased"
expect_agent 0 close
expect_agent 0 forget --even-if-attached serial-ubdc
assert_eq "$(state '[v["serial"] for v in state["volumes"]]')" "['serial-ubdb']" "the volumes"
expect_agent 0 adopt ubdc
assert_eq "$(</data1/file)" "kept on /data1" "the file of a volume that was forgotten"
other=$(sha256sum </dev/ubdb)
expect_agent 0 close
expect_agent 0 erase --yes serial-ubdc
assert_said "its data key was wrapped by $KEY_ARN" "1 erased"
cmp -s -n $((16 << 20)) /dev/ubdc /dev/zero || fail "bytes are left in the header area"
assert_eq "$(sha256sum </dev/ubdb)" "$other" "the other volume"
expect_agent 0 unlock
assert_said "1 unlocked"
assert_eq "$(</data/file)" "kept on /data" "the file"
