# 'emr import' of every public example with local disk encryption gives a drop-in with which the agent plans and does what the security
# configuration says: LUKS on both kinds of volumes, or, with EnableEbsEncryption, on instance store only.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"

documents=$(realpath "$(dirname "$0")/../fixtures/emr")
drop_in=${CONFIG%/*}/config.d/60-emr.toml

# import FILE: puts the drop-in for a document in place, whose key is now the one of the fake endpoint.
import() {
    sed -E "s,arn:aws:kms:[a-z0-9-]+:[0-9]+:(key|alias)/[A-Za-z0-9/_-]+,$KEY_ARN,g" "$documents/$1" >/run/document.json
    agent emr import /run/document.json >/run/drop-in.toml
    mkdir -p "${drop_in%/*}"
    install -m 0644 /run/drop-in.toml "$drop_in"
}
results() { report 'sorted((d, row["result"]) for d, row in rows.items() if d[:4] in ("ubdb", "ubdc", "ubdd", "ubde"))'; }

start_fake
# the rules give the disks their roles, as the model names of EC2 do; there is no [kms] and no policy
mkdir -p "${CONFIG%/*}"
cat >"$CONFIG" <<END
[filesystem]
type = "ext4"
mount_base = "/data"
[[volumes.match]]
path = "/dev/ubd[bc]"
role = "instance-store"
[[volumes.match]]
path = "/dev/ubd[de]"
role = "ebs"
END
expect_agent 2 plan
assert_said "kms.key_id is missing"

seen=0
while IFS=$'\t' read -r file _ _ _ _ _ _ disks; do
    case $disks in
        LUKS) ebs=would-format ;;
        "EBS encryption") ebs=left ;;
        *) continue ;;
    esac
    import "$file"
    expect_agent 0 plan --json
    assert_eq "$(results)" "[('ubdb', 'would-format'), ('ubdc', 'would-format'), ('ubdd', '$ebs'), ('ubde', '$ebs')]" "the plan of $file"
    seen=$((seen + 1))
done <"$documents/expected.tsv"
assert_eq "$seen" 14 "documents with local disk encryption"
assert_blank ubdb ubdc ubdd ubde

say "EBS encryption: instance store gets LUKS, and EBS is left alone; without a drop-in, by [emr]"
import 30-ebs-sse-s3.json
rm "$drop_in"
install -m 0644 /run/document.json /etc/luks-agent/nodes.json
cp "$CONFIG" /run/plain.toml
printf '[emr]\nsecurity_configuration = "/etc/luks-agent/nodes.json"\n' >>"$CONFIG"
expect_agent 0 provision
assert_said "2 formatted"
cryptsetup isLuks --type luks2 /dev/ubdb
cryptsetup isLuks --type luks2 /dev/ubdc
assert_blank ubdd ubde
assert_contains "$(<"$STATE")" '"security_configuration": "' "the state file"
cp /run/plain.toml "$CONFIG"

say "LUKS: both kinds get it"
import w1-describe.json
expect_agent 0 provision
assert_said "2 formatted"
for disk in ubdb ubdc ubdd ubde; do
    cryptsetup isLuks --type luks2 "/dev/$disk"
    assert_contains "$(cryptsetup luksDump "/dev/$disk")" luks-agent-awskms "the header of $disk"
done
assert_eq "$(findmnt -rno TARGET -t ext4 | grep -c ^/data)" 4 "mounted volumes"
expect_agent 0 status --json
assert_eq "$(report '[rows["ubd" + d]["result"] for d in "bcde"]')" "['open', 'open', 'open', 'open']" "the volumes"

say "[emr] takes over the same without a drop-in, and another document than before is told"
changed="has changed since this node was provisioned with it"
rm "$drop_in"
install -m 0644 /run/document.json /etc/luks-agent/nodes.json
printf '[emr]\nsecurity_configuration = "/etc/luks-agent/nodes.json"\n' >>"$CONFIG"
expect_agent 0 provision
assert_said "$changed" "4 unchanged"
expect_agent 0 health
if grep -q "$changed" /run/stderr; then fail "an accepted document is told"; fi
sed -i 's/\\"EnableInTransitEncryption\\": false/\\"EnableInTransitEncryption\\": true/' /etc/luks-agent/nodes.json
expect_agent 0 health
assert_said "$changed"
expect_agent 0 boot
assert_said "$changed"
agent doctor >/run/doctor || :
assert_contains "$(cat /run/doctor)" "security-configuration  warning" "the doctor"
expect_agent 0 provision
assert_said "$changed" "accept it"
expect_agent 0 health
if grep -q "$changed" /run/stderr; then fail "an accepted change is told"; fi
