# Recovery keys: enrolled on a terminal, typed when KMS is gone, used by stock cryptsetup, replaced and removed. Enrolling and removing are
# killed at their system calls: the data key opens every volume at every moment, and the next run ends the work.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"

# nowhere TEXT: the key is in no file that the agent left and in no output but the terminal's.
nowhere() { if grep -rlaF -- "$1" /run/report /run/stderr /etc/luks-agent /run/luks-agent 2>/dev/null; then fail "the recovery key is there"; fi; }
keyslots() { cryptsetup luksDump --dump-json-metadata "/dev/$1" | python3 -c 'import json, sys
m = json.load(sys.stdin)
print(*(n + ":" + k["kdf"]["type"] for n, k in sorted(m["keyslots"].items())), *(t["type"] for _, t in sorted(m["tokens"].items())))'; }
close_all() { expect_agent 0 close; }

start_fake --log /run/requests
ext4_volumes '/dev/ubd[bc]' ebs
expect_agent 0 provision
echo kept >/data/file
sync -f /data
data_key >/run/key
before=$(keyslots ubdb)

say "without a terminal nothing is enrolled"
run_expect 2 setsid -w "$LUKS_AGENT" recovery-key enroll >/run/report 2>/run/stderr
assert_said "goes to a terminal and nowhere else"
run_expect 2 setsid -w "$LUKS_AGENT" unlock --recovery-key >/run/report 2>/run/stderr
assert_eq "$(keyslots ubdb)" "$before" "the keyslots"

say "KMS refuses: no key is shown"
fake allow '["DescribeKey"]'
on_terminal 4 "" recovery-key enroll
assert_said "kms:Decrypt"
assert_eq "$(shown_key || true)" "" "a key on the terminal"
fake allow null

say "enrolled, while the volumes are open, beside a keyslot of somebody else"
printf 'of somebody else' >/run/other
cryptsetup luksAddKey --batch-mode --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file /run/key /dev/ubdb /run/other
on_terminal 0 "" recovery-key enroll
assert_said "2 of 2 enrolled"
key=$(shown_key)
nowhere "$key"
assert_eq "$(keyslots ubdb)" "0:pbkdf2 1:pbkdf2 2:argon2id luks-agent-awskms luks-agent-recovery" "the keyslots"
expect_agent 0 verify
expect_agent 0 header show ubdb
assert_said "keyslot 0: pbkdf2, preferred, token 0" "keyslot 2: argon2id, token 1" "token 1: luks-agent-recovery, keyslot 2"
cp "$STATE" /root/state.json

say "KMS is gone: opened with the key, as it is typed"
close_all
kill "$FAKE_AWS_PID"
requests=$(wc -l </run/requests)
on_terminal 0 "$(tr "[:lower:]" "[:upper:]" <<<"${key//-/}")" unlock --recovery-key
assert_said "2 unlocked"
grep -qF "$key" /run/terminal && fail "the terminal echoed the key"
assert_eq "$(cat /data/file)" kept "the file"
assert_eq "$(cat "$STATE")" "$(cat /root/state.json)" "the state file: it records the keyslot of the data key"
assert_eq "$(wc -l </run/requests)" "$requests" "requests to KMS"
close_all

say "a wrong key, something else, nothing, and a terminal that goes away"
wrong=$(tr cbdefghijklnrtuv bdefghijklnrtuvc <<<"$key")
on_terminal 1 "$wrong" unlock --recovery-key
assert_said "the recovery key opens no keyslot of" "check it letter by letter" "2 failed"
nowhere "$wrong"
on_terminal 2 "no such key" unlock --recovery-key
assert_said "this is not a recovery key"
on_terminal 1 $'\x03' unlock --recovery-key
assert_said "cannot use the terminal" "nothing was entered"
# SIGHUP ends it, or the read that fails
on_terminal "1 255" "HANG UP" unlock --recovery-key
assert_eq "$(find /dev/mapper -name 'luks-*')" "" "open mappings"

say "stock cryptsetup takes the key as it was shown"
printf %s "$key" | cryptsetup open --key-file=- /dev/ubdb rescued
mount -o ro /dev/mapper/rescued /media
assert_eq "$(cat /media/file)" kept "the file"
umount /media
cryptsetup close rescued

say "replaced for one volume, removed for all"
start_fake --log /run/requests
on_terminal 0 "" recovery-key enroll ubdb
assert_said "its earlier recovery key no longer opens it" "1 of 1 enrolled"
second=$(shown_key)
run_expect 2 cryptsetup open --test-passphrase --key-file <(printf %s "$key") /dev/ubdb
cryptsetup open --test-passphrase --key-file <(printf %s "$second") /dev/ubdb
cryptsetup open --test-passphrase --key-file <(printf %s "$key") /dev/ubdc
expect_agent 0 recovery-key remove
assert_said "2 of 2 removed"
assert_eq "$(keyslots ubdb)" "0:pbkdf2 1:pbkdf2 luks-agent-awskms" "the keyslots"
cryptsetup open --test-passphrase --key-file /run/other /dev/ubdb
expect_agent 0 recovery-key remove
assert_said "it has no recovery key"

say "a token that names the keyslot of the data key"
printf '{"type": "luks-agent-recovery", "keyslots": ["0"]}' | cryptsetup token import --token-id 5 /dev/ubdb
expect_agent 1 recovery-key remove ubdb
assert_said "keyslot 0 belongs to another token or to the data key" "nothing was removed"
cryptsetup token remove --token-id 5 /dev/ubdb
expect_agent 0 unlock

say "killed while it enrolls and removes: each volume opens at every moment"
# killed PROCESS ACTION
killed() {
    local n call kills=0
    for ((n = 1; ; n += ${CRASH_STEP:-6})); do
        call=$(in_terminal "$CRASH" kill "$1:$n" --output /run/out -- "$LUKS_AGENT" recovery-key "$2" ubdb | tr -d '\r' | tail -n 1)
        [[ $call != missed ]] || break
        kills=$((kills + 1))
        wait_for 20 flock -n /dev/ubdb true
        cryptsetup open --test-passphrase --key-file /run/key /dev/ubdb || fail "$2 killed at call $n, $call: the data key opens nothing"
        cryptsetup open --test-passphrase --key-file /run/other /dev/ubdb || fail "$2 killed at call $n: a keyslot is lost"
        if [[ $2 == remove ]]; then
            (on_terminal 0 "" recovery-key enroll ubdb) >/run/out
        fi
    done
    say "recovery-key $2: $1 was killed at $kills of $n system calls"
    ((kills > 3)) || fail "only $kills kills: $(</run/out)"
}
killed worker.1 enroll
killed agent enroll
expect_agent 0 recovery-key remove ubdb
assert_eq "$(keyslots ubdb)" "0:pbkdf2 1:pbkdf2 luks-agent-awskms" "the keyslots: nothing is left of the interrupted runs"
on_terminal 0 "" recovery-key enroll ubdb
killed worker.1 remove
killed agent remove
expect_agent 0 recovery-key remove ubdb
assert_eq "$(keyslots ubdb)" "0:pbkdf2 1:pbkdf2 luks-agent-awskms" "the keyslots"
rm /run/key /run/other
expect_agent 0 verify
close_all
expect_agent 0 unlock
assert_eq "$(cat /data/file)" kept "the file"
