# A node whose kernel says that it is in FIPS mode. This kernel has no such mode, so the test puts a file in the place of the kernel's.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"

# fips_mode TEXT: makes /proc/sys/crypto/fips_enabled say TEXT.
fips_mode() {
    local name
    if ! mountpoint -q /proc/sys; then
        mkdir /run/sys
        mount --bind /proc/sys /run/sys
        mount -t tmpfs tmpfs /proc/sys
        for name in $(cd /run/sys && ls); do
            mkdir "/proc/sys/$name"
            [[ $name == crypto ]] || mount --bind "/run/sys/$name" "/proc/sys/$name"
        done
        mkdir -p /proc/sys/crypto
    fi
    echo "$1" >/proc/sys/crypto/fips_enabled
}
# row NAME: prints result and evidence of a check of doctor.
row() {
    agent doctor --json >/run/report 2>/dev/null || true
    report "' '.join(c['result'] + ' ' + c['evidence'] for c in report['checks'] if c['check'] == '$1')"
}

regular="kms.us-east-1.amazonaws.com sts.us-east-1.amazonaws.com"
fips="kms-fips.us-east-1.amazonaws.com sts-fips.us-east-1.amazonaws.com"
names=()
for name in $regular $fips; do names+=(--tls-name "$name"); done
"${FAKE_AWS:?}" --seed fips --log /run/requests --listen 127.0.0.1:80 --tls-listen 127.0.0.1:443 --tls-ca-out /run/ca.pem "${names[@]}" \
    --port-file /run/ports >/run/fake-aws.out 2>&1 &
wait_for 30 test -s /run/ports
KEY_ARN=$(sed -n 's/.*KMS key \(arn:[^ ,]*\).*/\1/p' /run/fake-aws.out | head -n 1)
# as update-ca-certificates does
cat /run/ca.pem >>/etc/ssl/certs/ca-certificates.crt
export AWS_EC2_METADATA_SERVICE_ENDPOINT=http://127.0.0.1
hosts=$(</etc/hosts)
printf '%s\n127.0.0.1 %s\n' "$hosts" "$regular $fips" >/etc/hosts
ext4_volumes '/dev/ubd[bc]' ebs

say "a kernel that is not in FIPS mode"
assert_eq "$(row fips)" "" "the row about FIPS"
fips_mode 0
assert_eq "$(row fips)" "" "the row about FIPS"

say "a cipher that the kernel does not have in this mode: no new volume, and those with AES open"
printf '[luks]\ncipher = "serpent-xts-plain64"\n' >/run/serpent
cp "$CONFIG" /run/config
cat /run/serpent >>"$CONFIG"
expect_agent 0 plan
fips_mode 1
: >/run/requests
for command in plan provision; do
    expect_agent 3 "$command"
    assert_said "this kernel cannot encrypt with serpent-xts-plain64" "FIPS does not approve the cipher" \
        "/proc/sys/crypto/fips_enabled is 1" "remove luks.cipher"
done
expect_agent 1 doctor
assert_said "FIPS does not approve the cipher" "remove luks.cipher"
assert_eq "$(requests /run/requests 'r["operation"] == "GenerateDataKey" and r["status"] < 300')" 0 "data keys made"
assert_blank ubdb ubdc
cp /run/config "$CONFIG"

say "doctor tells whether KMS is called at its FIPS endpoint"
expect_agent 0 doctor
assert_said "the kernel is in FIPS mode, but KMS is not called at a FIPS endpoint" "set kms.fips = true"
sed -i 's/^key_id/fips = true\n&/' "$CONFIG"
printf '%s\n127.0.0.1 %s\n' "$hosts" "$fips" >/etc/hosts
expect_agent 0 doctor
assert_eq "$(row fips)" "ok the kernel is in FIPS mode, and KMS is called at a FIPS endpoint" "the row about FIPS"
assert_contains "$(row credentials)" "assumed-role/luks-agent-node" "what STS says at its FIPS endpoint"

say "the main job, and a recovery key whose keyslot has PBKDF2, which is all that libcryptsetup does in this mode"
expect_agent 0 provision
assert_said "2 formatted"
echo kept >/data/file
on_terminal 0 "" recovery-key enroll
key=$(shown_key)
for disk in ubdb ubdc; do
    cryptsetup luksDump "/dev/$disk" >/run/dump
    grep -c 'PBKDF:[[:space:]]*pbkdf2' /run/dump >/run/count
    assert_eq "$(</run/count)" 2 "keyslots with PBKDF2 on $disk"
    if grep -q argon2 /run/dump; then fail "$disk has a keyslot with Argon2"; fi
done
expect_agent 0 close
cp "$CONFIG" /run/config
cat /run/serpent >>"$CONFIG"
expect_agent 0 unlock
cp /run/config "$CONFIG"
assert_eq "$(</data/file)" kept "the file on the volume"
expect_agent 0 close
on_terminal 0 "$key" unlock --recovery-key
assert_eq "$(</data/file)" kept "the file on the volume"
assert_eq "$(requests /run/requests 'not r["tls"] and not r["operation"].startswith("imds:")')" 0 "requests other than to IMDS without TLS"
