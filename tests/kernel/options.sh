# What the configuration asks of new volumes is found in their headers and mappings; and no key material is found anywhere it
# must not be.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"

# volumes TOML RULE_PATH...: a configuration for the disks so far.
volumes() {
    config "$KEY_ARN" <<TOML
$1
[[volumes.match]]
path = "$2"
role = "ebs"
TOML
}
mapping_of() { lsblk -rno NAME "/dev/$1" | sed -n 2p; }
dump_has() {
    cryptsetup luksDump "/dev/$1" >/run/dump
    for text in "${@:2}"; do grep -Eq "$text" /run/dump || { cat /run/dump; fail "luksDump of $1 lacks '$text'"; }; done
}

start_fake --log /run/requests

say "flags, ext4; all that processes show of themselves is written down meanwhile"
modprobe dm-delay
dmsetup create slow --table "0 $(blockdev --getsz /dev/ubdb) delay /dev/ubdb 0 0 /dev/ubdb 0 20"
volumes '[luks]
discards = true
no_read_workqueue = true
no_write_workqueue = true
[filesystem]
type = "ext4"
mount_base = "/data"
options = ["noatime", "nodev"]' /dev/mapper/slow
(
    while [[ ! -e /run/scanned ]]; do
        for process in /proc/[0-9]*; do
            cat "$process/environ" "$process/cmdline" 2>/dev/null
            echo
        done >>/run/seen
    done
) &
scanner=$!
expect_agent 0 provision --log-level debug
touch /run/scanned
wait "$scanner"
cat /run/stderr /run/report >/run/log
name=$(ls /dev/mapper | grep ^luks-)
table=$(dmsetup table "$name")
for flag in allow_discards no_read_workqueue no_write_workqueue; do assert_contains "$table" "$flag" "the mapping's table"; done
dump_has ubdb 'Flags:.*allow-discards.*no-read-workqueue.*no-write-workqueue' 'cipher: aes-xts-plain64' 'Key: *512 bits'
assert_contains "$(findmnt -no FSTYPE,OPTIONS /data)" "ext4   rw,nodev,noatime" "the mount"

say "no file system, a 256 bit key"
volumes '[luks]
key_size = 256
[filesystem]
type = "none"' /dev/ubdc
# the known volume keeps its role by its header alone, and is left alone without a rule
expect_agent 0 provision
dump_has ubdc 'Key: *256 bits' 'PBKDF: *pbkdf2'
uuid=$(blkid -p -s UUID -o value /dev/ubdc)
[[ -z $(blkid -p "/dev/mapper/luks-$uuid" || true) ]] || fail "there is something on the mapping"
assert_eq "$(findmnt -rno TARGET "/dev/mapper/luks-$uuid" || true)" "" "where it is mounted"

say "sectors of 4096 bytes"
volumes '[luks]
sector_size = 4096
[filesystem]
type = "ext4"
mount_base = "/data"' /dev/ubdd
expect_agent 0 provision
dump_has ubdd 'sector: *4096'

say "no key material where it must not be"
sync
python3 - "$STATE" "$KEY_ARN" <<'PYTHON'
import base64, json, os, subprocess, sys, urllib.request

state, key = json.load(open(sys.argv[1])), sys.argv[2]
request = urllib.request.Request(os.environ["AWS_ENDPOINT_URL"], method="POST", data=json.dumps(
    {"KeyId": key, "CiphertextBlob": state["keys"][0]["wrapped_key"]}).encode(),
    headers={"X-Amz-Target": "TrentService.Decrypt", "Content-Type": "application/x-amz-json-1.1",
             "Authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/kms/aws4_request, "
                              "SignedHeaders=host, Signature=0", "X-Amz-Date": "20260101T000000Z"})
passphrase = json.load(urllib.request.urlopen(request))["Plaintext"].encode()
data_key = base64.b64decode(passphrase)
# it is the right one, or its absence would mean nothing
for disk in ["ubdb", "ubdc", "ubdd"]:
    subprocess.run(["cryptsetup", "open", "--test-passphrase", "--key-file=-", "/dev/" + disk], input=passphrase, check=True)
needles = {"the passphrase": passphrase, "the data key": data_key, "the data key in hex": data_key.hex().encode()}

def holds(path, needle_map):
    found, last = set(), b""
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(1 << 22):
            text = last + chunk
            found |= {name for name, needle in needle_map.items() if needle in text}
            last = chunk[-64:]
    return found

seen = open("/run/seen", "rb").read()
assert b"/proc/self/exe\0worker\0" in seen and b"mkfs.ext4\0" in seen, "the scan saw no worker at work"
for worker in seen.split(b"\n"):
    if b"/proc/self/exe\0worker\0" in worker:
        assert b"AWS_" not in worker, "a worker has credentials in its environment"
# the search itself works
assert holds("/dev/ubda", {"the wrapped key": state["keys"][0]["wrapped_key"].encode()}), "no state file on the boot volume"
for path in ["/run/seen", "/run/log", "/run/requests", "/run/fake-aws.out", sys.argv[1],
             "/dev/ubda", "/dev/ubdb", "/dev/ubdc", "/dev/ubdd"]:
    found = holds(path, needles)
    assert not found, f"{path} holds {found}"
PYTHON
