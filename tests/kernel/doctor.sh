# What `doctor` says of a node before anything is formatted, and that it writes nothing, whatever it finds.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"

# what a run must not change: the disks, the mappings, and everything in the directories of the agent
picture() {
    # a mounted file system writes by itself; until there is one, not a single write may reach the disks
    if [[ -e $STATE ]]; then sha256sum /dev/ubdb /dev/ubdc; else awk '{ print $5, $7 }' /sys/block/ubd[bc]/stat; fi
    dmsetup ls
    { find /etc/luks-agent /run/luks-agent -printf '%p %m %T@ %C@\n' 2>/dev/null || true; } | sort
}
# doctor STATUS TEXT...: runs doctor, which must print every TEXT and change nothing.
doctor() {
    local before
    before=$(picture)
    expect_agent "$1" doctor
    assert_said "${@:2}"
    assert_eq "$(picture)" "$before" "disks, mappings and directories"
}
# as_json: leaves the report that doctor makes now in /run/report.
as_json() { agent doctor --json >/run/report 2>/dev/null || true; }
# check NAME FIELD: prints a field of a check in that report.
check() { report "next(check['$2'] for check in report['checks'] if check['check'] == '$1')"; }
# not_ok NAME=RESULT...: these are all the checks that are not ok.
not_ok() {
    local found
    as_json
    found=$(report "' '.join(c['check'] + '=' + c['result'] for c in report['checks'] if c['result'] != 'ok')")
    assert_eq "$found" "$*" "the checks that are not ok"
}
# quickly COMMAND...: fails if the command takes longer than a minute, however long kms.deadline is.
quickly() {
    local began=$SECONDS
    "$@"
    ((SECONDS - began <= 60)) || fail "it took $((SECONDS - began)) s: $*"
}

printf '[{"id": "aaaaaaaa-0000-4000-8000-000000000000", "manager": "AWS"}]' >/run/keys.json
start_fake --log /run/requests --keys /run/keys.json
# the instance role is to be found
unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY
ext4_volumes '/dev/ubd[bc]' ebs

# systemd does not run here; this answers in its place
mkdir -p /run/systemd/system
printf '#!/bin/sh\ncat /run/units\n' >/usr/local/sbin/systemctl
chmod +x /usr/local/sbin/systemctl
printf 'Id=%s\nLoadState=loaded\nUnitFileState=enabled\n\n' luks-agent.target luks-agent.service >/run/enabled
cp /run/enabled /run/units

say "a sound node"
doctor 0 "0 to look at, 0 failed" "target crypt v" "the kernel has aes-xts-plain64" "of cryptsetup 2." "/usr/sbin/mkfs.ext4" \
    "carries / and the state directory" "will be made on the boot volume" "this node is new" "role luks-agent-node" \
    "from the instance role (IMDS): arn:aws:sts::111122223333:assumed-role/luks-agent-node/i-1234567890abcdef0" \
    "$KEY_ARN: customer managed, symmetric" "Enabled" "without a wrapped key, because there is none yet" "the key service"
not_ok
assert_eq "$(report 'report["schema"], report["exit_code"], report["error"], report["rows"]')" "('luks-agent/report', 0, None, [])" \
    "the report"
[[ ! -e ${STATE%/*} ]] || fail "a state directory was made"
assert_eq "$(requests /run/requests 'r["operation"] in ("GenerateDataKey", "Decrypt") and not r["dry_run"]')" 0 "real calls"
assert_eq "$(requests /run/requests 'r["operation"] in ("GenerateDataKey", "Decrypt") and r["status"] < 300')" 0 "data keys made"

say "each missing permission: the statement that is printed is enough, and no more than that"
all='"DescribeKey", "GenerateDataKey", "Decrypt"'
for action in DescribeKey GenerateDataKey Decrypt; do
    rest=$(sed "s/\"$action\"//; s/^, //; s/, *$//; s/, , /, /" <<<"$all")
    fake allow "[$rest]"
    doctor 4 "this node cannot do its work yet: kms:$action" "lacks kms:$action on" \
        "aws iam put-role-policy --role-name luks-agent-node --policy-name luks-agent-$action --policy-document '{"
    as_json
    assert_eq "$(check "kms:$action" result)" failure "the permission $action"
    check "kms:$action" remedy | sed "s/.*--policy-document '//; s/'\$//" >/run/policy
    assert_eq "$(python3 -c 'import json
(s,) = json.load(open("/run/policy"))["Statement"]
print(s["Effect"], s["Action"], s["Resource"])')" "Allow ['kms:$action'] $KEY_ARN" "the statement"
    fake allow "$(python3 -c 'import json, sys
(s,) = json.load(open("/run/policy"))["Statement"]
print(json.dumps(json.loads(sys.argv[1]) + [a.removeprefix("kms:") for a in s["Action"]]))' "[$rest]")"
    doctor 0 "0 failed"
done

say "everything is missing, of a key that is known by its alias only"
sed -i 's|key_id = .*|key_id = "alias/luks-agent"|' "$CONFIG"
fake allow '[]'
doctor 4 "cannot do its work yet: kms:DescribeKey, kms:GenerateDataKey, kms:Decrypt"
not_ok kms-key=warning kms-key-state=warning kms:DescribeKey=failure kms:GenerateDataKey=failure kms:Decrypt=failure
assert_contains "$(check kms:DescribeKey remedy)" "\"Resource\":\"$KEY_ARN\"" "the statement"
assert_eq "$(check kms:Decrypt remedy)" "the remedy above is for this, too" "the second remedy"
fake allow null
doctor 0 "$KEY_ARN"
ext4_volumes '/dev/ubd[bc]' ebs

say "the KMS key"
fake keys/alias/luks-agent/state '{"state": "Disabled"}'
doctor 4 "cannot do its work yet: kms-key-state" "is disabled" "aws kms enable-key --key-id $KEY_ARN"
fake keys/alias/luks-agent/state '{"state": "PendingDeletion"}'
doctor 4 "scheduled for deletion on" "cancel-key-deletion"
fake keys/alias/luks-agent/state '{"state": "Enabled"}'
sed -i "s|key_id = .*|key_id = \"aaaaaaaa-0000-4000-8000-000000000000\"|" "$CONFIG"
doctor 2 "cannot do its work yet: kms-key" "AWS managed key" "set kms.key_id to a customer managed, symmetric key"
sed -i "s|key_id = .*|key_id = \"${KEY_ARN/us-east-1/eu-west-1}\"|" "$CONFIG"
doctor 2 "no such KMS key"
not_ok kms-key=failure kms-key-state=warning kms:DescribeKey=warning kms:GenerateDataKey=warning kms:Decrypt=warning
sed -i "s|key_id = .*|&\nregion = \"us-east-1\"|" "$CONFIG"
doctor 2 "kms.region is us-east-1, but the KMS key"
ext4_volumes '/dev/ubd[bc]' ebs

say "a service without dry runs"
fake faults '[{"on": "kms:*", "effect": "ignore_dry_run"}]'
doctor 0 "this service has no dry runs"
fake faults '[]'

say "STS, which is not needed"
fake faults '[{"on": "sts:*", "effect": {"error": {"code": "AccessDenied"}}}]'
doctor 0 "from the instance role (IMDS): role luks-agent-node; STS, which the agent does not need"
fake allow '["DescribeKey", "GenerateDataKey"]'
doctor 4 "put-role-policy --role-name luks-agent-node"
fake allow null

say "the clock"
fake faults '[{"on": "kms:*", "date_skew_seconds": -60}]'
doctor 0 "60 s ahead of the key service"
not_ok clock=warning
fake faults '[{"on": "kms:*", "date_skew_seconds": 3600}]'
doctor 4 "s behind the key service; AWS tolerates 5 minutes" "timedatectl"
not_ok clock=failure

say "no credentials"
KMS_DEADLINE=3s ext4_volumes '/dev/ubd[bc]' ebs
fake faults '[{"on": "imds:role", "effect": {"raw": {"status": 404, "body": "", "content_type": "text/plain"}}}]'
doctor 4 "cannot do its work yet: credentials" "no AWS credentials" "attach an instance profile"

say "KMS that does not answer, and KMS that nobody serves"
KMS_DEADLINE=6s ext4_volumes '/dev/ubd[bc]' ebs
fake faults '[{"on": "kms:*", "effect": "hang"}]'
doctor 4 "cannot do its work yet: kms" "timed out waiting for"
fake faults '[]'
KMS_DEADLINE=10m ext4_volumes '/dev/ubd[bc]' ebs
(
    credentials
    export AWS_ENDPOINT_URL=http://127.0.0.1:1 AWS_EC2_METADATA_SERVICE_ENDPOINT=http://127.0.0.1:1
    quickly doctor 4 "cannot do its work yet: kms" "cannot reach http://127.0.0.1:1" "route, security group" "no answer from the instance"
)
ext4_volumes '/dev/ubd[bc]' ebs

say "units, and services that do not wait for the volumes"
sed 's/=enabled/=disabled/' /run/enabled >/run/units
cat >>/run/units <<'END_OF_UNITS'
Id=hdfs.service
LoadState=loaded
After=network.target
ExecStart={ path=/bin/hdfs ; argv[]=/bin/hdfs --dir=/data1/hdfs ; ignore_errors=no }

Id=waits.service
LoadState=loaded
After=luks-agent.target
WorkingDirectory=/data
END_OF_UNITS
doctor 0 "luks-agent.target is disabled" "systemctl enable luks-agent.target luks-agent.service" "hdfs.service (/data1/hdfs)" \
    "systemctl add-wants luks-agent.target 'hdfs.service'"
not_ok units=warning waiting=warning
rmdir /run/systemd/system
doctor 0 "systemd does not run here"
mkdir /run/systemd/system
cp /run/enabled /run/units

say "the state directory"
printf '[state]\ndir = "/run/state"\n' >>"$CONFIG"
doctor 2 "/run/state is in memory: it lies on the tmpfs on /run"
ext4_volumes '/dev/ubd[bc]' ebs
mkdir -p -m 777 "${STATE%/*}"
chmod 777 "${STATE%/*}"
doctor 1 "${STATE%/*} has mode 0777" "chmod go-w ${STATE%/*}"
rmdir "${STATE%/*}"

say "the kernel and the tools"
modprobe=$(</proc/sys/kernel/modprobe)
echo /bin/false >/proc/sys/kernel/modprobe
printf '[luks]\ncipher = "serpent-xts-plain64"\n' >>"$CONFIG"
doctor 1 "this kernel cannot encrypt with serpent-xts-plain64" "modprobe -a xts serpent"
not_ok cipher=failure
rmmod dm-crypt
doctor 1 "device-mapper has no target 'crypt'" "modprobe dm-crypt"
not_ok device-mapper=failure cipher=failure
/run/uml/modprobe dm-crypt
echo "$modprobe" >/proc/sys/kernel/modprobe
ext4_volumes '/dev/ubd[bc]' ebs
mkfs=$(readlink -f /usr/sbin/mkfs.ext4)
mount --bind /dev/null "$mkfs"
doctor 1 "not installed: mkfs.ext4" "install e2fsprogs"
umount "$mkfs"

say "without root, and without a configuration"
cp "$LUKS_AGENT" /var/tmp/luks-agent
chmod 755 /var/tmp/luks-agent
chmod -R a+rX /etc/luks-agent
run_expect 1 setpriv --reuid=65534 --regid=65534 --clear-groups /var/tmp/luks-agent doctor >/run/report
assert_contains "$(</run/report)" "sudo luks-agent doctor" "doctor without root"
rm /var/tmp/luks-agent
run_expect 2 agent doctor --config /none 2>/run/stderr
assert_contains "$(</run/stderr)" "no configuration" "doctor without a configuration"

say "two failures of different kinds"
printf '[state]\ndir = "/run/state"\n' >>"$CONFIG"
fake allow '[]'
doctor 1 "cannot do its work yet: state-directory, kms:DescribeKey, kms:GenerateDataKey, kms:Decrypt"
fake allow null
ext4_volumes '/dev/ubd[bc]' ebs

assert_blank ubdb ubdc
say "a provisioned node: the wrapped key in the state file is tried"
expect_agent 0 provision
doctor 0 "2 volumes, 1 wrapped keys" "of the wrapped key in the state file"
not_ok
fake allow '["DescribeKey", "GenerateDataKey"]'
doctor 4 "lacks kms:Decrypt"
fake allow null
sed -i 's/"ebs"/"instance-store"/' "$STATE"
doctor 1 "state.json is damaged"
