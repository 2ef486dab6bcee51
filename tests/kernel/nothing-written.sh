# provision that cannot do its work: one clear message, the right exit code, and not a byte on any disk.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"

disks=(ubdb ubdc)

# nothing_written STATUS TEXT...: provision ends with STATUS, says all TEXT, and left nothing behind.
nothing_written() {
    local status=$1
    shift
    expect_agent "$status" provision
    assert_said "$@"
    assert_eq "$(grep -c '^luks-agent: ' /run/stderr)" 1 "the number of error messages"
    assert_blank "${disks[@]}"
    [[ ! -e ${STATE%/*} ]] || fail "a state directory was made"
}

configure_key() {
    # a refusal is tried again for as long as this
    KMS_DEADLINE=4s config "$1" <<'TOML'
[filesystem]
type = "ext4"
mount_base = "/data"
[[volumes.match]]
path = "/dev/ubd[bc]"
role = "ebs"
TOML
}

cat >/run/keys.json <<'JSON'
[{"id": "00000000-0000-4000-8000-000000000001", "manager": "AWS"},
 {"id": "00000000-0000-4000-8000-000000000002", "state": "Disabled"},
 {"id": "00000000-0000-4000-8000-000000000003", "kind": "RSA_2048"}]
JSON
start_fake --log /run/requests --keys /run/keys.json
other_key() { echo "${KEY_ARN%/*}/00000000-0000-4000-8000-00000000000$1"; }
configure_key "$KEY_ARN"

say "without root"
# where everybody may run it
cp "$LUKS_AGENT" /var/tmp/luks-agent
chmod 755 /var/tmp/luks-agent
unprivileged() { setpriv --reuid=65534 --regid=65534 --clear-groups /var/tmp/luks-agent "$@"; }
chmod -R a+rX /etc/luks-agent
for command in provision unlock close plan; do
    run_expect 1 unprivileged "$command" >/run/stdout 2>/run/stderr
    assert_eq "$(</run/stderr)" \
        "luks-agent: 'luks-agent $command' works on block devices and needs root; run it with sudo" "$command without root"
done
run_expect 0 unprivileged status
chmod 600 "$CONFIG"
run_expect 2 unprivileged provision 2>/run/stderr
assert_contains "$(</run/stderr)" "cannot read configuration file $CONFIG: Permission denied" "a closed configuration"
rm /var/tmp/luks-agent

say "without device-mapper"
modprobe=$(</proc/sys/kernel/modprobe)
echo /bin/false >/proc/sys/kernel/modprobe
rmmod dm-crypt dm-mod
nothing_written 1 "device-mapper is not available" "modprobe dm-crypt"
echo "$modprobe" >/proc/sys/kernel/modprobe
modprobe dm-crypt

say "without mkfs"
mkfs=$(readlink -f /usr/sbin/mkfs.ext4)
mount --bind /dev/null "$mkfs"
nothing_written 1 "'mkfs.ext4' is not installed: install package e2fsprogs"
umount "$mkfs"

say "a state directory that a reboot would empty"
printf '[state]\ndir = "/run/state"\n' >>"$CONFIG"
nothing_written 2 "/run/state is on a file system in memory" "choose a directory on the boot volume"

say "KMS cannot be reached"
configure_key "$KEY_ARN"
AWS_ENDPOINT_URL=http://127.0.0.1:1 AWS_EC2_METADATA_DISABLED=true nothing_written 4 "cannot reach http://127.0.0.1:1" \
    "see whether this node can reach"

say "no credentials"
(
    unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY
    AWS_EC2_METADATA_DISABLED=true nothing_written 4 "no AWS credentials" "attach an instance profile"
)

say "no permission"
fake allow '["DescribeKey", "Decrypt"]'
nothing_written 4 "lacks kms:GenerateDataKey on $KEY_ARN" "allow kms:GenerateDataKey on this key in the key policy"
fake allow '["GenerateDataKey", "Decrypt"]'
nothing_written 4 "lacks kms:DescribeKey on $KEY_ARN"
fake allow null

say "keys that cannot be used"
configure_key "$(other_key 9)"
nothing_written 2 "no such KMS key" "correct kms.key_id"
configure_key "$(other_key 1)"
nothing_written 2 "AWS managed key"
configure_key "$(other_key 2)"
nothing_written 4 "disabled" "aws kms enable-key"
configure_key "$(other_key 3)"
nothing_written 2 "$(other_key 3)" "asymmetric"
assert_eq "$(requests /run/requests 'r["operation"] == "GenerateDataKey" and r["status"] < 300')" 0 "data keys made so far"

say "the data key cannot be proven: it is kept and used once it can"
configure_key "$KEY_ARN"
fake allow '["DescribeKey", "GenerateDataKey"]'
expect_agent 4 provision
assert_said "lacks kms:Decrypt on $KEY_ARN"
assert_blank "${disks[@]}"
assert_eq "$(python3 -c 'import json; s = json.load(open("'"$STATE"'")); print(len(s["keys"]), len(s["volumes"]))')" "1 0" \
    "keys and volumes in the state file"
fake allow null
expect_agent 0 provision
assert_eq "$(requests /run/requests 'r["operation"] == "GenerateDataKey"  and r["status"] < 300')" 1 "data keys made"
findmnt /data
findmnt /data1

say "unlock with a key that KMS denies"
agent close
fake allow '["DescribeKey", "GenerateDataKey"]'
expect_agent 4 unlock
assert_said "lacks kms:Decrypt" "no key"
