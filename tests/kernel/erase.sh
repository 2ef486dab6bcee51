# Volumes are erased: only the agent's own, only after a confirmation, and completely, whatever interrupts it. There are three volumes
# (ubdb, ubdc, ubdd), an ext4 file system (ubde), and a blank disk (ubdf).
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"

start_fake --log /run/requests
ext4_volumes '/dev/ubd[bcd]' ebs '/dev/ubd[ef]' ignore
sum() { sha256sum <"/dev/$1"; }
# behind the header area
tail_sum() { dd if="/dev/$1" bs=1M skip=16 iflag=direct status=none | sha256sum; }
uuid_of() { cryptsetup luksUUID "/dev/$1"; }
phases='[(v["serial"], v["phase"]) for v in state["volumes"]]'

# answers STATUS ANSWER ARGS...: runs the agent on a terminal, and answers its question.
answers() {
    local want=$1 answer=$2 got=0
    shift 2
    say "luks-agent $*, and '$answer' typed"
    python3 - "$LUKS_AGENT" "$answer" "$@" >/run/report 2>/run/stderr <<'END' || got=$?
import os, pty, sys
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], [sys.argv[1], *sys.argv[3:]])
said = b""
while True:
    try:
        part = os.read(terminal, 4096)
    except OSError:
        break
    if not part:
        break
    said += part
    if b"Type its LUKS UUID" in said and sys.argv[2]:
        os.write(terminal, sys.argv[2].encode() + b"\n")
        sys.argv[2] = ""
sys.stdout.buffer.write(said)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
END
    cat /run/stderr /run/report
    [[ $got == "$want" ]] || fail "expected exit status $want, got $got: luks-agent $*"
}

# assert_erased DISK HEADER WRAPPED: every byte of the header area is zero, nothing finds a volume, and no keyslot is left for a copy of the metadata.
assert_erased() {
    cmp -s -n $((16 << 20)) "/dev/$1" /dev/zero || fail "bytes are left in the header area of $1"
    run_expect 1 cryptsetup isLuks "/dev/$1"
    run_expect 2 blkid -p "/dev/$1"
    dd if="/dev/$1" of=/run/with-metadata bs=1M count=17 status=none
    dd if="$2" of=/run/with-metadata bs=32k count=1 conv=notrunc status=none
    aws_passphrase "$3" >/run/passphrase
    cryptsetup open --test-passphrase --type luks2 --key-file=/run/passphrase "$2" || fail "the passphrase of the test is wrong"
    run_expect 2 cryptsetup open --test-passphrase --type luks2 --key-file=/run/passphrase /run/with-metadata
}
# aws_passphrase WRAPPED: has KMS unwrap a key, as break-glass does.
aws_passphrase() {
    python3 -c 'import json, sys, urllib.request as u
body = json.dumps({"CiphertextBlob": sys.argv[2]}).encode()
headers = {"X-Amz-Target": "TrentService.Decrypt", "Content-Type": "application/x-amz-json-1.1",
           "Authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/kms/aws4_request, SignedHeaders=host, Signature=0"}
print(json.load(u.urlopen(u.Request(sys.argv[1], body, headers)))["Plaintext"], end="")' "$AWS_ENDPOINT_URL" "$1"
}

mkfs.ext4 -q /dev/ubde
expect_agent 0 provision
for at in /data /data1 /data2; do
    head -c 1000000 /dev/urandom >"$at/file"
    sync -f "$at"
done
wrapped=$(state 'state["keys"][0]["wrapped_key"]')
expect_agent 3 erase --yes ubdb
assert_said "it is held by luks-" "a volume in use is not erased" "run 'luks-agent close ubdb' first"
expect_agent 0 close
for disk in ubdb ubdc ubdd; do dd if="/dev/$disk" of="/root/header.$disk" bs=1M count=16 status=none; done
cp "$STATE" /root/state.before
declare -A before
for disk in ubdb ubdc ubdd ubde ubdf; do before[$disk]=$(sum $disk); done

say "what is not erased"
expect_agent 2 erase ubdb </dev/null
assert_said "standard input is no terminal on which to confirm it: add --yes"
for answer in yes vol-2 "$(uuid_of ubdc)"; do
    answers 3 "$answer" erase ubdb
    assert_said "$(uuid_of ubdb)" "the answer names neither its LUKS UUID nor its serial number" "nothing was erased"
done
sed -i 's/"ignore"/"ebs"/' "$CONFIG"
expect_agent 3 erase --yes --unknown ubde
assert_said "not a volume of luks-agent: no LUKS2 header"
expect_agent 3 erase --yes --unknown ubdf
expect_agent 3 erase --yes --unknown ubda
assert_said "carries /"
dd if=/root/header.ubdb of=/dev/ubdf bs=1M status=none
copy=$(sum ubdf)
expect_agent 3 erase --yes --unknown ubdf
assert_said "its header is a copy: the state file lists LUKS UUID $(uuid_of ubdb) on vol-1"
assert_eq "$(sum ubdf)" "$copy" "a copy of the header of a known volume"
cmp "$STATE" /root/state.before
for disk in ubdb ubdc ubdd ubde; do assert_eq "$(sum $disk)" "${before[$disk]}" "$disk, which was not erased"; done

say "something else has opened the disk: it is as it was, and so is the state file"
dmsetup create holder --table "0 8 linear /dev/ubdb 0"
expect_agent 3 erase --yes ubdb
assert_said "it is held by holder"
dmsetup remove holder
cmp "$STATE" /root/state.before

say "confirmed on a terminal"
uuid=$(uuid_of ubdb)
tail=$(tail_sum ubdb)
answers 0 "$uuid" erase ubdb
assert_said "ubdf has a copy of the volume, which is not erased" "by user 0 (root)" "bytes 32768 to 16777216, with random bytes, then zeros" \
    "read back as zeros" "its data key was wrapped by $KEY_ARN" "1 erased"
assert_erased ubdb /root/header.ubdb "$wrapped"
assert_eq "$(tail_sum ubdb)" "$tail" "what is behind the header area"
blank ubdf
for disk in ubdc ubdd ubde; do assert_eq "$(sum $disk)" "${before[$disk]}" "$disk, beside an erased disk"; done
assert_eq "$(state "$phases")" "[('vol-2', 'committed'), ('vol-3', 'committed')]" "the volumes"
assert_eq "$(state '[(f["volume"]["serial"], f["end"]) for f in state["former"]]')" "[('vol-1', 'erased')]" "the former volumes"
cp "$STATE" /run/state.erased
expect_agent 0 erase --yes ubdb
assert_said "already erased, at 20"
# its header had that name
expect_agent 0 erase --yes "$uuid"
assert_said "already erased, at 20"
cmp "$STATE" /run/state.erased

say "what is left reads as noise, which is not formatted unasked; the others are opened"
sed -i 's/ubd\[ef\]/nothing/' "$CONFIG"
expect_agent 3 provision
assert_said "2 unlocked, 1 refused" "not blank"
expect_agent 0 close
say "with the header restored from a backup"
dd if=/root/header.ubdb of=/dev/ubdb bs=1M conv=notrunc status=none
expect_agent 3 adopt ubdb
assert_said "LUKS UUID $uuid was erased at" "or its header was restored"

say "evidence in JSON; without a terminal"
SUDO_USER=alice expect_agent 0 erase --yes --json "$(uuid_of ubdc)" </dev/null
assert_eq "$(report '[rows["ubdc"]["erasure"]["by"][k] for k in ("uid", "user", "sudo_user")], rows["ubdc"]["erasure"]["key_arn"]')" \
    "([0, 'root', 'alice'], '$KEY_ARN')" "who and which key"
assert_eq "$(report '[(o["begin"], o["end"]) for o in rows["ubdc"]["erasure"]["overwritten"]]')" \
    "[(32768, 16777216), (16384, 32768), (0, 16384)]" "what was overwritten"
assert_erased ubdc /root/header.ubdc "$wrapped"

say "a volume that the state file does not list"
expect_agent 0 forget --even-if-attached vol-3
cp "$STATE" /run/state.forgotten
expect_agent 3 erase --yes ubdd
assert_said "the state file does not list LUKS2 volume" "--unknown"
cmp "$STATE" /run/state.forgotten
expect_agent 0 erase --yes --unknown ubdd
assert_erased ubdd /root/header.ubdd "$wrapped"
assert_eq "$(state '[k["id"] for k in state["keys"]], [f["end"] for f in state["former"]]')" \
    "([1], ['erased', 'erased', 'forgotten', 'erased'])" "the key of the node, and the former volumes"

say "interrupted, and then somebody used the disk for something else"
dd if=/root/header.ubdb of=/dev/ubdb bs=1M conv=notrunc status=none
cp -a /root/state.before "$STATE"
sed -i -z 's/,\n *"sha256": "[0-9a-f]*"\(\n}\n*\)$/\1/; s/"phase": "committed"/"phase": "erasing"/' "$STATE"
expect_agent 1 unlock
assert_said "erasing volume $uuid was interrupted: no key may open it any more" "run 'luks-agent erase' for it again"
for expected in "0 status" "1 health"; do
    # shellcheck disable=SC2086
    expect_agent $expected
    assert_said "unfinished" "erasing was interrupted: part of it may still be there" "run 'luks-agent erase' for it again"
done
mkfs.ext4 -q -F /dev/ubdb
used=$(sum ubdb)
expect_agent 3 erase --yes ubdb
assert_said "nothing was overwritten: somebody has used the disk for something else since its erasing was interrupted: ext4 at byte 1080"
assert_eq "$(sum ubdb)" "$used" "a disk that somebody uses"
blank ubdb
printf x | dd of=/dev/ubdb bs=1 seek=5000000 conv=notrunc status=none
expect_agent 3 erase --yes ubdb
assert_said "data without a known signature, first seen at byte 5000000"
cryptsetup luksFormat -q --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 /dev/ubdb <<<other
used=$(sum ubdb)
expect_agent 3 erase --yes ubdb
assert_said "but found: LUKS2 volume $(uuid_of ubdb)"
assert_eq "$(sum ubdb)" "$used" "a disk that somebody has formatted"
say "interrupted after the last write: the next run says that all is done"
blank ubdb
expect_agent 0 erase --yes ubdb
assert_said "an earlier run had overwritten everything"
