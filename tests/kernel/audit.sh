# What `audit` says of a node's disks, from blocks of the raw disks. It writes nothing and calls no key service, whatever it finds.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"

# what a run must not change; a mounted file system writes by itself, so it is synced before
picture() {
    sha256sum /dev/ubd[b-e] "$CONFIG"
    if [[ -e $STATE ]]; then sha256sum "$STATE"; fi
    dmsetup ls
    findmnt -rn
    { find /run/luks-agent -type f -exec sha256sum {} + 2>/dev/null || true; } | sort
}
asked() { requests /run/requests 'not r["operation"].startswith("imds:")'; }
# audit STATUS ARGS... [-- TEXT...]: runs audit, which must print every TEXT, change nothing and ask no key service. Leaves the report of a
# run with --json in /run/report.
audit() {
    local status=$1 args=() before requests
    shift
    while (($#)) && [[ $1 != -- ]]; do args+=("$1"); shift; done
    before=$(picture)
    requests=$(asked)
    expect_agent "$status" audit "${args[@]}"
    assert_said "${@:2}"
    assert_eq "$(picture)" "$before" "disks, state file, mappings and mounts"
    assert_eq "$(asked)" "$requests" "requests to the key service"
}
# disk_field NAME FIELD: prints a field of a disk in that report.
disk_field() { report "next(disk for disk in report['disks'] if disk['device'] == '$1')$2"; }
verdict() { assert_eq "$(disk_field "$1" '["verdict"]')" "$2" "the verdict on $1"; }
because() { assert_contains "$(disk_field "$1" '["reasons"]')" "$2" "the reasons for $1"; }
# valid: the report in /run/report is as the published schema says, and has neither wrapped keys nor a passphrase.
valid() {
    "${LOCALSTACK_VENV:?}/bin/python" "$(dirname "$0")/valid_report.py" "$(dirname "$0")/../../docs/schema/audit-report.json" /run/report
    if [[ -e $STATE ]]; then
        for secret in "$(state 'state["keys"][0]["wrapped_key"]')" "$(data_key)"; do
            if grep -qF "$secret" /run/report; then fail "the report has a key in it"; fi
        done
    fi
}

echo '[{"id": "2222bbbb-12ab-34cd-56ef-1234567890ab", "aliases": ["alias/audit"], "kind": "ECC_NIST_P256"}]' >/run/keys.json
start_fake --log /run/requests --keys /run/keys.json
mkfs.ext4 -q -m 0 -b 4096 /dev/ubde
ext4_volumes '/dev/ubd[bc]' ebs '/dev/ubde' ignore

say "a node that was never provisioned"
audit 1 -- "this node is not encrypted" "ubdb: not a volume of luks-agent on this node: blank, and not formatted yet" \
    "boot volume: carries /" "a [[volumes.match]] rule says ignore" "no [[volumes.match]] rule names it"
audit 1 --json
valid

say "a sound node"
expect_agent 0 provision
uuid=$(blkid -p -s UUID -o value /dev/ubdb)
head -c 4M /dev/urandom >/data/file
sync -f /data /data1
audit 0 -- "audit: every disk of this node is encrypted or excepted" " of 64 blocks differ" "aes-xts-plain64, 512 bits" "$KEY_ARN"
audit 0 --json --blocks 100
valid
for disk in ubdb ubdc; do
    verdict "$disk" encrypted
    assert_eq "$(disk_field "$disk" '["reasons"]')" "[]" "what is wrong with $disk"
    assert_eq "$(disk_field "$disk" '["evidence"]["blocks"] > 0')" True "blocks of $disk that were compared"
    assert_eq "$(disk_field "$disk" '["evidence"]["differ"]')" "$(disk_field "$disk" '["evidence"]["blocks"]')" "blocks of $disk that differ"
done
assert_eq "$(disk_field ubdb '["evidence"]["blocks"]')" 100 "blocks of ubdb that were compared"
verdict ubda excepted
verdict ubdd excepted
verdict ubde excepted
assert_eq "$(report 'report["verdict"], report["reasons"]')" "('encrypted', [])" "the verdict on the node"
assert_eq "$(disk_field ubdb '["encryption"]["luks_uuid"]')" "$uuid" "the LUKS UUID"
assert_eq "$(disk_field ubdb '["encryption"]["cipher"]') $(disk_field ubdb '["encryption"]["key_size"]') $(disk_field ubdb '["encryption"]["violation"]')" \
    "aes-xts-plain64 512 None" "how ubdb is encrypted"
assert_eq "$(disk_field ubdb '["mounts"]')" "['/data']" "where ubdb is mounted"
assert_eq "$(disk_field ubdb '["key_arn"]')" "$KEY_ARN" "the key of ubdb"
assert_eq "$(disk_field ubdb '["formatted"] <= report["made"]')" True "when ubdb was formatted"
assert_eq "$(disk_field ubdb '["proven"]["by"]')" opened "the proof of ubdb"
assert_eq "$(report 'report["keys"][0]["state"]')" None "the state of the key before anybody looked"

say "who the node is, by the identity document"
assert_eq "$(report 'report["node"]["instance_id"], report["node"]["ami"], report["node"]["account"]')" \
    "('i-1234567890abcdef0', 'ami-1234567890abcdef0', '111122223333')" "the node"
assert_eq "$(report 'json.loads(report["node"]["identity_document"]["document"])["instanceId"]')" i-1234567890abcdef0 "the document"
assert_eq "$(report 'len(report["node"]["identity_document"]["rsa2048"]) > 64')" True "the signature"
assert_eq "$(report 'len(report["configuration"]["sha256"])')" 64 "the digest of the configuration"
AWS_EC2_METADATA_DISABLED=true audit 0 --json
assert_eq "$(report 'report["node"]["instance_id"], report["node"]["identity_document"]')" "(None, None)" "a node without IMDS"
valid

say "the last look at the key, and the last proofs"
expect_agent 0 health
audit 0 --json
assert_eq "$(report 'report["keys"][0]["key_arn"], report["keys"][0]["state"]')" "('$KEY_ARN', 'Enabled')" "the key after health"
assert_eq "$(disk_field ubdb '["proven"]["by"]')" health "the proof of ubdb"
expect_agent 0 verify
audit 0 --json
assert_eq "$(disk_field ubdb '["proven"]["by"]')" verify "the proof of ubdb"
valid

say "into a file"
audit 0 --output /run/audit.json -- "every disk of this node"
assert_eq "$(stat -c %a /run/audit.json) $(python3 -c 'import json; print(json.load(open("/run/audit.json"))["verdict"])')" "600 encrypted" "the file"
audit 2 --output /run -- "it is a directory"
audit 2 --output /dev/null -- "it is a device"
audit 2 --blocks 0
audit 1 --output /proc/audit.json -- "cannot write the report"

say "signed, if the configuration names a key for that"
mkdir -p "${CONFIG%/*}/config.d" /run/signed
cd /run/signed
printf '[audit]\nsigning_key = "alias/audit"\n' >"${CONFIG%/*}/config.d/audit.toml"
# the table is not signed
audit 0 -- "every disk of this node"
before=$(picture)
expect_agent 0 audit --output node.json
assert_said "every disk of this node"
expect_agent 0 audit --json
assert_eq "$(picture)" "$before" "disks, state file, mappings and mounts"
assert_eq "$(requests /run/requests 'r["operation"] == "Sign"')" 2 "signatures"
assert_eq "$(stat -c %a node.json) $(report 'report["signatures"][0]["keyid"]')" \
    "600 ${KEY_ARN%/*}/2222bbbb-12ab-34cd-56ef-1234567890ab" "the file, and the key that the envelope names"
python3 -c 'import json, os, urllib.request
headers = {"X-Amz-Target": "TrentService.GetPublicKey", "Content-Type": "application/x-amz-json-1.1", "Authorization": "none"}
request = urllib.request.Request(os.environ["AWS_ENDPOINT_URL"], json.dumps({"KeyId": "alias/audit"}).encode(), headers)
print(json.load(urllib.request.urlopen(request))["PublicKey"])' | base64 -d | openssl pkey -pubin -inform DER -out key.pem
expect_agent 0 audit verify --public-key key.pem node.json
assert_eq "$(report 'report["verdict"]')" encrypted "the verdict in the signed report"
valid

say "verified with openssl"
jq -r .payload node.json | base64 -d > report.json
jq -r '.signatures[0].sig' node.json | base64 -d > report.sig
type=application/vnd.luks-agent.audit-report+json
printf 'DSSEv1 %d %s %d ' "${#type}" "$type" "$(wc -c < report.json)" | cat - report.json > report.pae
openssl dgst -sha256 -verify key.pem -signature report.sig report.pae
cmp report.json /run/report

say "with one byte changed"
python3 -c 'import base64, json
envelope = json.load(open("node.json"))
payload = base64.b64decode(envelope["payload"]).replace(b"ubdb", b"ubdz", 1)
json.dump({**envelope, "payload": base64.b64encode(payload).decode()}, open("changed.json", "w"))
open("changed.pae", "wb").write(open("report.pae", "rb").read().replace(b"ubdb", b"ubdz", 1))'
expect_agent 1 audit verify --public-key key.pem changed.json
assert_said "the signature does not verify with key.pem"
assert_eq "$(stat -c %s /run/report)" 0 "what was printed"
if openssl dgst -sha256 -verify key.pem -signature report.sig changed.pae; then fail "openssl verifies a changed report"; fi

say "recorded, which is signed, too"
expect_agent 0 audit --record
expect_agent 0 audit verify --public-key key.pem /run/luks-agent/audit.json
assert_eq "$(report 'report["verdict"]')" encrypted "the verdict in the recorded report"
assert_contains "$(</run/luks-agent/audited.json)" '"compliant":true,"disks_in_clear":0,' "what the metrics have"

say "a key that does not sign now"
fake keys/alias/audit/state '{"state": "Disabled"}'
rm node.json
expect_agent 4 audit --output node.json
assert_said "every disk of this node" "the report is not signed, so it was not written" "the KMS key is disabled" "enable it"
if [[ -e node.json ]]; then fail "a report that is not signed was written"; fi
expect_agent 4 audit --json
assert_eq "$(report 'report["exit_code"]')" 4 "the exit code in the JSON"
audit 0 -- "every disk of this node"
# the former report stays, and the metrics have what was found
rm /run/luks-agent/audited.json
before=$(sha256sum /run/luks-agent/audit.json)
expect_agent 4 audit --record
assert_said "the report is not signed, so it was not written" "the KMS key is disabled"
assert_eq "$(sha256sum /run/luks-agent/audit.json)" "$before" "the recorded report"
assert_contains "$(</run/luks-agent/audited.json)" '"recorded":null,"compliant":true' "what the metrics have"
cd /
rm "${CONFIG%/*}/config.d/audit.toml"

say "with no more than the capabilities of the unit of health"
setpriv --bounding-set -all,+sys_admin,+ipc_lock,+mknod --inh-caps -all --no-new-privs "$LUKS_AGENT" audit >/run/report 2>/run/stderr || fail "$(cat /run/stderr /run/report)"
assert_said "every disk of this node"

say "a disk of somebody else, and one that is mounted"
mkfs.ext4 -q -m 0 -b 4096 /dev/ubdd
ext4_volumes '/dev/ubd[b-d]' ebs '/dev/ubde' ignore
audit 1 -- "ubdd: not a volume of luks-agent on this node: ext4"
mkdir -p /other
mount -o ro /dev/ubdd /other
audit 1 --json
verdict ubdd not-encrypted
because ubdd "mounted at /other"
verdict ubdb encrypted
valid
umount /other
ext4_volumes '/dev/ubd[bc]' ebs '/dev/ubd[de]' ignore

say "locked, with its header as recorded"
expect_agent 0 close /data1
audit 0 --json
verdict ubdc encrypted
because ubdc "locked, so no blocks were compared"
assert_eq "$(disk_field ubdc '["evidence"]') $(disk_field ubdc '["opened"]') $(disk_field ubdc '["encryption"]["cipher"]')" \
    "None None aes-xts-plain64" "a locked volume"
valid

say "locked, with another token in its header"
dd if=/dev/ubdc of=/root/header bs=1M count=16 status=none
cryptsetup token export --token-id 0 /dev/ubdc | sed 's/"wrapped_key": *"..../"wrapped_key":"AQID/' >/root/token
cryptsetup token import --token-id 0 --token-replace --json-file /root/token /dev/ubdc
audit 1 --json
verdict ubdc unknown
because ubdc "the wrapped key in its token is not the one in the state file"
dd if=/root/header of=/dev/ubdc bs=1M conv=notrunc,fsync status=none

say "something else at its mount point"
mount -o ro /dev/ubdd /data1
audit 1 --json
verdict ubdc not-encrypted
because ubdc "/dev/ubdd is mounted at /data1, in place of its mapping"
umount /data1

say "a mapping that does not encrypt, under the right name"
expect_agent 0 unlock
head -c 4M /dev/urandom >/data1/file
umount /data1
mapper=luks-$(blkid -p -s UUID -o value /dev/ubdc)
audit 0 -- "not mounted at /data1"
size=$(blockdev --getsz "/dev/mapper/$mapper")
dmsetup reload "$mapper" --table "0 $size linear /dev/ubdc 32768"
dmsetup resume "$mapper"
audit 1 --json
verdict ubdc not-encrypted
because ubdc "its table is not a single crypt target"
because ubdc "blocks are the same on the disk, so they are in clear"
assert_eq "$(disk_field ubdc '["evidence"]["differ"]')" 0 "blocks that differ"
valid
dmsetup remove --retry "$mapper"
expect_agent 0 unlock
audit 0

say "mounted around its mapping"
expect_agent 0 close /data1
dmsetup create around --table "0 $size linear /dev/ubdc 32768"
audit 1 --json
verdict ubdc unknown
because ubdc "around is stacked on the disk, and is not its mapping"
mkfs.ext4 -q -m 0 /dev/mapper/around
mount -o ro /dev/mapper/around /other
audit 1 --json
verdict ubdc not-encrypted
because ubdc "/other is mounted from around, past its mapping"
umount /other
dmsetup remove --retry around

say "something else on the disk, behind which the second copy of its header is left, and then nothing of it"
dd if=/dev/zero of=/dev/ubdc bs=4096 count=1 conv=notrunc,fsync status=none
audit 1 --json
verdict ubdc unknown
because ubdc "the first copy of its header is damaged"
dd if=/dev/zero of=/dev/ubdc bs=1M count=16 conv=notrunc,fsync status=none
mkfs.ext4 -q -F -m 0 /dev/ubdc
audit 1 -- "ubdc: ext4"
audit 1 --json
verdict ubdc not-encrypted
verdict ubdb encrypted
valid

say "a disk with nothing of the system but swap is no boot volume"
mkswap -q /dev/ubdd
swapon /dev/ubdd
audit 1 --json
verdict ubdd not-encrypted
because ubdd "it carries swap"
verdict ubda excepted
swapoff /dev/ubdd
audit 1 --json
verdict ubdd excepted
