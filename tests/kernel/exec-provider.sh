# The life of a node whose keys a program wraps, without AWS: first boot, a new disk, health, close, rotation, reboot. Every job is done with
# the capabilities of its unit.
#
#   exec-provider.sh file|openbao first|reboot
#
# file: packaging/examples/exec-provider.sh. openbao: packaging/examples/vault-transit.sh with a real OpenBao (the open fork of Vault).
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"
source "$(dirname "$0")/openbao.sh"

service=$1 phase=$2
examples=$(realpath "$(dirname "$0")/../../packaging/examples")
program=/usr/local/libexec/nodes-kms
export AWS_EC2_METADATA_DISABLED=true

# exec_config: writes the configuration. There is no [kms] section.
exec_config() {
    mkdir -p "${CONFIG%/*}"
    cat >"$CONFIG" <<END
[keys]
provider = "exec"
[exec]
command = ["$program", "$argument"]
key_id = "$key_id"
deadline = "${EXEC_DEADLINE:-1m}"
[filesystem]
type = "ext4"
mount_base = "/data"
[[volumes.match]]
path = "/dev/mapper/disk-*"
role = "ebs"
END
}

# opens_by_hand DISK: the break-glass commands of docs/exec-provider.md open the volume.
opens_by_hand() {
    local disk=/dev/mapper/disk-$1
    wrapped=$(jq -r '.keys[-1].wrapped_key' /etc/luks-agent/state/state.json)
    printf '{"version":1,"operation":"unwrap","key_id":"%s","wrapped_key":"%s"}\n' "$key_id" "$wrapped" |
        "$program" "$argument" | jq -j .plaintext | cryptsetup open --type luks2 --key-file=- --test-passphrase "$disk"
}

health() {
    as_unit luks-agent-health.service
    assert_said "the key can be used" "2 sound"
}

case $service in
file) argument=/etc/nodes-kms key_id=nodes ;;
openbao) argument=/etc/luks-agent/vault.conf key_id=transit/nodes ;;
esac

disk one ubdb 40
case $phase in
first)
    exec_config
    say "without the program nothing is written"
    expect_agent 2 provision
    assert_said "exec.command: cannot use '$program'" "No such file or directory" "; correct exec.command, or install the program"
    assert_blank ubdb

    case $service in
    file)
        install -D -m 755 "$examples/exec-provider.sh" "$program"
        install -d -m 700 "$argument"
        (umask 077 && openssl genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out "$argument/nodes.pem")
        ;;
    openbao)
        install -D -m 755 "$examples/vault-transit.sh" "$program"
        start_openbao
        set_up_openbao
        ;;
    esac

    expect_agent 0 doctor
    assert_said "wraps and unwraps data keys with $key_id"
    say "first boot"
    as_unit luks-agent-boot.service
    assert_said "generated the data key with key $key_id" "1 formatted"
    assert_eq "$(jq -c '[.keys[] | [.provider, .configured_key_id, .key_arn]]' "$STATE")" "[[\"exec\",\"$key_id\",\"$key_id\"]]" "the keys"
    cryptsetup luksDump /dev/ubdb | grep '0: luks-agent-exec'
    echo kept >/data/file

    say "a new disk gets the same key"
    disk two ubdc 40
    as_unit luks-agent-provision.service
    assert_said "unwrapped the data key with key $key_id" "1 formatted"
    assert_eq "$(jq '.keys | length' "$STATE")" 1 "the number of keys"
    echo kept too >/data1/file
    health
    expect_agent 0 health --json
    assert_eq "$(report 'sorted(report["kms"]["calls"].items())')" "[('describe', 1), ('unwrap', 1)]" "the calls"
    expect_agent 0 close
    expect_agent 0 unlock
    opens_by_hand one

    say "rotation"
    expect_agent 0 rotate
    assert_eq "$(jq -c '[.keys[].id]' "$STATE")" "[2]" "the keys"
    health
    opens_by_hand two
    before=$(sha256sum /dev/ubdb /dev/ubdc "$STATE")
    expect_agent 2 rewrap --to alias/other
    assert_said "only AWS KMS can wrap a data key again" "run 'luks-agent rotate'"
    assert_eq "$(sha256sum /dev/ubdb /dev/ubdc "$STATE")" "$before" "disks and state file"
    sync -f /data /data1
    ;;
reboot)
    disk two ubdc 40
    if [[ $service == openbao ]]; then
        say "OpenBao does not run, and then it is sealed"
        EXEC_DEADLINE=20s exec_config
        as_unit luks-agent-boot.service ExecStart 4
        assert_said "$program' reports unavailable: cannot reach http://127.0.0.1:8200" "attempts in"
        start_openbao
        as_unit luks-agent-boot.service ExecStart 4
        assert_said "reports unavailable: HTTP status 503 from http://127.0.0.1:8200: Vault is sealed"
        unseal_openbao
        exec_config
    fi
    as_unit luks-agent-boot.service
    assert_said "2 unlocked"
    assert_eq "$(cat /data/file /data1/file)" $'kept\nkept too' "the files"
    health
    expect_agent 0 close
    if [[ $service == openbao ]]; then
        say "the token may not decrypt, the token file is another user's, the key is deleted"
        EXEC_DEADLINE=20s exec_config
        policy_of_openbao 'path "transit/datakey/plaintext/nodes" { capabilities = ["update"] }'
        expect_agent 4 unlock
        assert_said "reports denied: HTTP status 403" "permission denied" "allow unwrap with this key in the key service"
        policy_of_openbao
        chown 1000 /etc/openbao/token
        chmod 600 /etc/openbao/token
        as_unit luks-agent-health.service ExecStart 4
        assert_said "there is no token in '/etc/openbao/token' that root may read"
        chown 0 /etc/openbao/token
        expect_agent 0 unlock
        expect_agent 0 close
        bao POST transit/keys/nodes/config '{"deletion_allowed": true}' >/dev/null
        bao DELETE transit/keys/nodes
        expect_agent 4 unlock
        assert_said "reports key-disabled: HTTP status 400" "encryption key not found" "enable the key in the key service"
        as_unit luks-agent-health.service ExecStart 4
        assert_said "this node would not survive a reboot"
    else
        say "another key of the same name"
        (umask 077 && openssl genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out "$argument/nodes.pem")
        expect_agent 1 unlock
        assert_said "reports wrapped-key: the key nodes did not wrap this, or it is damaged" "restore the wrapped key"
    fi
    assert_eq "$(find /dev/mapper -name 'luks-*')" "" "open mappings"
    ;;
esac
