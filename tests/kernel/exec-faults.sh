# What a program of the exec provider can do wrong: each fault ends in one clear error, and nothing is written. Then a node with volumes of
# both providers.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"

program=/usr/local/libexec/faulty
examples=$(realpath "$(dirname "$0")/../../packaging/examples")
install -d -m 700 /etc/nodes-kms
(umask 077 && openssl genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out /etc/nodes-kms/nodes.pem)
install -D -m 755 "$examples/exec-provider.sh" /usr/local/libexec/good
# the fault is a piece of shell that gets the request in $request, and can call `good`
cat >"$program" <<'END'
#!/bin/bash
request=$(cat)
good() { /usr/local/libexec/good /etc/nodes-kms <<<"$request"; }
answer() { printf '{"plaintext": "%s", "wrapped_key": "AQID"}\n' "$(head -c "$1" /dev/urandom | base64 -w0)"; }
half() { printf '{"plaintext": "UXo3I21hcmtlci9R'; }
error() { printf '{"error": {"kind": "%s", "message": "the moon is full"}}\n' "$1"; }
source /run/fault
END
chmod 755 "$program"
sums() { sha256sum /dev/ubdb /dev/ubdc "$STATE"; }
# configure_exec DISKS [DEADLINE [TIMEOUT]]: a node with these disks and without AWS.
configure_exec() {
    mkdir -p "${CONFIG%/*}"
    {
        printf '[keys]\nprovider = "exec"\n'
        printf '[exec]\ncommand = ["%s"]\nkey_id = "nodes"\n' "$program"
        printf 'deadline = "%s"\ntimeout = "%s"\n' "${2-1m}" "${3-30s}"
        printf '[filesystem]\ntype = "ext4"\nmount_base = "/data"\n[[volumes.match]]\npath = "%s"\nrole = "ebs"\n' "$1"
    } >"$CONFIG"
}
# ends COMMAND STATUS TEXT FAULT: the command fails with one error that has the text, and something to do.
ends() {
    local error
    printf '%s\n' "$4" >/run/fault
    expect_agent "$2" "$1"
    assert_said "$3" "with key nodes"
    assert_eq "$(grep -c '^luks-agent: ' /run/stderr)" 1 "the number of errors"
    error=$(sed -n 's/^luks-agent: .*; //p' /run/stderr)
    ((${#error} > 20)) || fail "it does not say what to do: $(</run/stderr)"
}
faults() {
    local command=$1
    configure_exec /dev/ubdb 3s 1s
    ends "$command" 4 "did not finish within 1 s and was killed" 'sleep 1000'
    ends "$command" 4 "did not finish within 1 s and was killed" 'while printf " "; do sleep 0.1; done'
    configure_exec /dev/ubdb 8s
    ends "$command" 4 "'$program' failed, exit status: 7: vault is sealed" 'echo vault is sealed >&2; exit 7'
    ends "$command" 4 "signal: 9" 'half; kill -9 $$'
    ends "$command" 4 "reports unavailable: the moon is full" 'error unavailable'
    ends "$command" 4 "reports key-disabled: the moon is full" 'error key-disabled'
    ends "$command" 4 "reports denied: the moon is full" 'error denied'
    configure_exec /dev/ubdb
    ends "$command" 2 "reports configuration: the moon is full" 'error configuration; exit 1'
    ends "$command" 1 "it ends in the middle of a JSON object" half
    ends "$command" 1 "it is empty" ':'
    ends "$command" 1 "it is not a JSON object" 'head -c 500 /dev/urandom'
    ends "$command" 1 "it is longer than 16384 bytes" 'yes'
    ends "$command" 1 "the data key has 31 bytes, expected 32" 'answer 31'
    ends "$command" 1 "the data key has 33 bytes, expected 32" 'answer 33'
}

export AWS_EC2_METADATA_DISABLED=true
say "provision"
faults provision
ends provision 1 "wrapped_key contains the data key in clear" 'key=$(openssl rand -base64 32)
    printf "{\"plaintext\": \"%s\", \"wrapped_key\": \"%s\"}" "$key" "$key"'
ends provision 1 "reports wrapped-key" 'case $request in *generate*) good ;; *) error wrapped-key ;; esac'
assert_eq "$(jq -c '[(.keys | length), .volumes]' "$STATE")" '[1,[]]' "the key that was not proven, and the volumes"
rm -r "${STATE%/*}"
printf 'case $request in *generate*) good ;; *) answer 32 ;; esac\n' >/run/fault
expect_agent 1 provision
assert_said "unwrap returned a different data key than generate; nothing was formatted" "check exec.command"
assert_eq "$(jq -c .keys "$STATE")" '[]' "the keys"
chmod 757 "$program"
expect_agent 2 provision
assert_said "other users could change the program: $program has mode 0757" "chmod go-w $program"
chmod 755 "$program"
assert_blank ubdb ubdc

say "unlock, with a program that heals"
echo good >/run/fault
expect_agent 0 provision
echo kept >/data/file
expect_agent 0 close
before=$(sums)
faults unlock
ends unlock 1 "it is from another key, other" 'good | jq -c ".key_id = \"other\""'
# a right answer with a wrong key
printf 'answer 32\n' >/run/fault
expect_agent 1 unlock
assert_said "the data key opens no keyslot"
assert_eq "$(find /dev/mapper -name 'luks-*')" "" "open mappings"
assert_eq "$(sums)" "$before" "disks and state file"
printf '[[ -e /run/tried ]] || { touch /run/tried; exit 1; }\ngood\n' >/run/fault
expect_agent 0 unlock
assert_said "exec unwrap failed, trying again in"
assert_eq "$(</data/file)" kept "the file"

say "health reports a program that would fail the next boot"
echo 'error denied' >/run/fault
configure_exec /dev/ubdb 3s
before=$(sums)
expect_agent 4 health
configure_exec /dev/ubdb
assert_said "this node would not survive a reboot, because exec describe with key nodes" "reports denied"
echo 'case $request in *describe*) echo "{\"enabled\": false, \"state\": \"Destroyed\"}" ;; esac' >/run/fault
expect_agent 4 health --json
assert_eq "$(report '(report["keys"][0]["key_arn"], report["keys"][0]["state"]["name"])')" "('nodes', 'Destroyed')" "the key"
echo 'case $request in *describe*) echo "{\"enabled\": true, \"state\": \"Active\"}" ;; esac' >/run/fault
expect_agent 0 health --json
assert_eq "$(report 'report["kms"]["calls"]')" "{'describe': 1}" "the calls"
assert_eq "$(sums)" "$before" "disks and state file"
expect_agent 0 close

say "volumes of both providers: the state file came with the image of another instance, which had AWS KMS"
echo good >/run/fault
rm -r "${STATE%/*}"
blank ubdb
unset AWS_EC2_METADATA_DISABLED
start_fake --log /run/requests --instance-id i-0000000000000000a
ext4_volumes /dev/ubdb ebs
expect_agent 0 provision
kill "$FAKE_AWS_PID"
start_fake --log /run/requests --instance-id i-0000000000000000b
# both DISKS KEY_ARN: a node with both services
both() {
    configure_exec "$1"
    printf '[kms]\nkey_id = "%s"\ndeadline = "10s"\n' "$2" >>"$CONFIG"
}
both '/dev/ubd[bc]' "$KEY_ARN"
expect_agent 0 provision
assert_eq "$(jq -c '[.keys[].provider]' "$STATE")" '[null,"exec"]' "the providers"
for at in /data /data1; do echo "file of $at" >"$at/file"; done
expect_agent 0 health
assert_said "2 sound"
expect_agent 0 close
expect_agent 0 unlock --json
assert_eq "$(report 'report["kms"]["calls"]')" "{'Decrypt': 1, 'unwrap': 1}" "the calls"
assert_eq "$(cat /data/file /data1/file)" $'file of /data\nfile of /data1' "the files"
expect_agent 0 close

say "one of the two is not configured, or fails: the volume of the other opens"
ext4_volumes '/dev/ubd[bc]' ebs
expect_agent 2 unlock
assert_said "exec.command is missing; set exec.command and exec.key_id" "1 unlocked"
findmnt -n /data
expect_agent 0 close
configure_exec '/dev/ubd[bc]'
expect_agent 2 unlock
assert_said "kms.key_id is missing; set kms.key_id" "1 unlocked"
findmnt -n /data1
expect_agent 0 close
both '/dev/ubd[bc]' "$KEY_ARN"
sed -i 's/^timeout = .*/timeout = "1s"/; s/^deadline = "1m"/deadline = "3s"/' "$CONFIG"
echo 'sleep 1000' >/run/fault
expect_agent 4 unlock
assert_said "did not finish within 1 s" "1 unlocked"
findmnt -n /data
both '/dev/ubd[bc]' "$KEY_ARN"
echo good >/run/fault
expect_agent 0 unlock
