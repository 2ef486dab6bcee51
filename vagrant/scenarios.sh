#!/bin/bash
# test.sh runs this in a separate lab (isolated.sh). It starts the machines, runs the scenarios in order, and prints how long each took.
# Each scenario checks from inside (mounts, `luks-agent status`, journal) and from outside (the contents of the raw disks).
#
#   LUKS_AGENT_DEB=PACKAGE scenarios.sh LOCALSTACK_DIR ANSIBLE_DIR
# shellcheck disable=SC2317 # the scenarios are called by name
set -euo pipefail
# a failure in $(...) ends the script too
shopt -s inherit_errexit

scenarios=(first_boot reboot hot_plug disk_moved stop_and_start kms_down key_disabled fleet uninstall ansible)

# as in the Vagrantfile
kms=http://192.168.56.10:4566
key_arn=arn:aws:kms:us-east-1:000000000000:key/11111111-2222-4333-8444-555555555555
node1_id=i-0aaaaaaaaaaaaaaa1
# the volumes of node1
store=AWS1A2B3C4D5E6F7890A
ebs_1=vol0a1b2c3d4e5f60718
ebs_2=vol0f9e8d7c6b5a49382
# the volumes of node2
other_store=AWS2A2B3C4D5E6F7890B
other_ebs=vol0d1e2f3a4b5c69708
# the volume that hot_plug creates
later=vol0b2c3d4e5f6071829
# the volume that fleet creates
unencrypted=vol0c3d4e5f60718293a

say() { printf '%s\n' "$*"; }

fail() {
    printf 'FAILED: %s\n' "$*" >&2
    exit 1
}

cd "$(dirname "$(realpath "$0")")"
localstack=$1 ansible=$2
# --remove of isolated.sh deletes it with the lab
work=$LUKS_AGENT_LAB/scenarios
mkdir -p "$work"
marker="plaintext marker $RANDOM$RANDOM$RANDOM"

# on NODE COMMANDS: runs the commands as root. All calls share one connection while the machine runs.
on() {
    ssh -F "$work/ssh_config" "$1" sudo bash -euo pipefail -s <<<"$2"
}

# lab_vagrant ACTION NODE [OPTION]...
lab_vagrant() {
    # otherwise ssh would notice only after a while that the connection is dead
    ssh -F "$work/ssh_config" -O exit "$2" 2>/dev/null || true
    vagrant "$@" >>"$work/vagrant.log" 2>&1 || { tail -n 40 "$work/vagrant.log" >&2; fail "vagrant $*"; }
}

# wait_for NODE SECONDS WHAT CONDITION: repeats the condition on the node until it succeeds.
wait_for() {
    on "$1" "for ((end = SECONDS + $2; SECONDS < end;)); do
            if ($4) >/dev/null 2>&1; then exit 0; fi
            sleep 0.5
        done
        exit 1" || fail "$1: $3: not within $2 s"
}

equal() {
    [[ $1 == "$2" ]] || fail "$3: got '$1', expected '$2'"
}

contains() {
    [[ $1 == *"$2"* ]] || fail "$3: no '$2' in: $1"
}

# status_of NODE SERIAL FIELD: prints a field of a volume's row in `luks-agent status`.
status_of() {
    on "$1" "luks-agent status --json 2>/dev/null" | python3 -c '
import json, sys
rows = [row for row in json.load(sys.stdin)["rows"] if row["serial"] == sys.argv[1]]
print(rows[0][sys.argv[2]] if len(rows) == 1 else f"{len(rows)} rows")' "$2" "$3"
}

# is_open NODE SERIAL MOUNT_POINT: luks-agent and the kernel agree that the volume is open and mounted there.
is_open() {
    equal "$(status_of "$1" "$2" result)" open "$1: status of $2"
    equal "$(on "$1" "findmnt -no SOURCE $3")" "/dev/mapper/$(status_of "$1" "$2" mapper)" "$1: what is mounted at $3"
}

ready() {
    wait_for "$1" 300 "luks-agent.target" "systemctl is-active luks-agent.target"
}

# raw SERIAL: copies the current contents of the disk to a file, and prints its path.
raw() {
    ./volume.sh raw "$1" "$work/$1"
    echo "$work/$1"
}

# is_sealed SERIAL...: checks the raw disks from outside. Each has a LUKS2 header with the agent's token and no plaintext that was written
# to the volume, and cryptsetup opens it with the passphrase that the AWS CLI gets from KMS.
is_sealed() {
    local serial disk token
    for serial in "$@"; do
        disk=$(raw "$serial")
        cryptsetup isLuks --type luks2 "$disk" || fail "$serial: no LUKS2 header on the raw disk"
        token=$(cryptsetup token export --token-id 0 "$disk")
        equal "$(member "$token" type)" luks-agent-awskms "$serial: type of the token"
        equal "$(member "$token" key_arn)" "$key_arn" "$serial: key of the token"
        if grep -qaF "$marker" "$disk"; then
            fail "$serial: plaintext on the raw disk"
        fi
        aws kms decrypt --key-id "$key_arn" --query Plaintext --output text \
            --ciphertext-blob fileb://<(member "$token" wrapped_key | base64 -d) | tr -d '\n' |
            cryptsetup open --test-passphrase --type luks2 --key-file=- "$disk" ||
            fail "$serial: the passphrase from KMS does not open the raw disk"
    done
}

member() {
    python3 -c 'import json, sys; print(json.loads(sys.argv[1])[sys.argv[2]])' "$1" "$2"
}

aws() {
    AWS_ENDPOINT_URL=$kms AWS_DEFAULT_REGION=us-east-1 AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test \
        "$localstack/bin/aws" "$@"
}

is_blank() {
    local disk
    disk=$(raw "$1")
    cmp -s --bytes="$(stat -c %s "$disk")" "$disk" /dev/zero || fail "$1: the raw disk is not blank"
}

# asked OPERATION: prints how often LocalStack was called, since its machine was created.
asked() {
    on kms "journalctl --sync; journalctl -u localstack.service -o cat | grep -c 'AWS kms.$1 ' || true"
}

# write_files NODE MOUNT_POINT...: writes a file with the marker below each mount point.
write_files() {
    local node=$1
    shift
    on "$node" "for at in $*; do echo '$marker' >\$at/file; sync \$at/file; done"
}

# files_are_there NODE MOUNT_POINT...: the files of write_files still exist.
files_are_there() {
    local node=$1 at
    shift
    for at in "$@"; do
        equal "$(on "$node" "cat $at/file")" "$marker" "$node: file at $at"
    done
}

# ---- scenarios

first_boot() {
    local serial plan
    plan=$(on node1 'luks-agent plan 2>/dev/null')
    contains "$plan" "would format 3" "node1: plan of an untouched node"
    for serial in "$store" "$ebs_1" "$ebs_2" "$other_store" "$other_ebs"; do
        is_blank "$serial"
    done

    # node2 starts without a reboot, as the hook of a package manager could do it
    on node2 'systemctl start luks-agent.target luks-agent.service' &
    lab_vagrant reload node1
    wait "$!"
    ready node1
    is_open node1 "$store" /mnt
    is_open node1 "$ebs_1" /mnt1
    is_open node1 "$ebs_2" /mnt2
    is_open node2 "$other_store" /mnt
    is_open node2 "$other_ebs" /mnt1
    equal "$(asked GenerateDataKey)" 2 "data keys that two nodes requested"
    write_files node1 /mnt /mnt1 /mnt2 /var/tmp
    write_files node2 /mnt /mnt1
    is_sealed "$store" "$ebs_1" "$ebs_2" "$other_store" "$other_ebs"
    # shows that the search works: the boot volume is not encrypted
    grep -qaF "$marker" /var/lib/libvirt/images/luks-agent-node1.img || fail "the marker is not found on the boot volume, where it is plaintext"
}

reboot() {
    local closed
    lab_vagrant reload node1
    ready node1
    files_are_there node1 /mnt /mnt1 /mnt2
    equal "$(asked GenerateDataKey)" 2 "data keys requested until after a reboot"
    closed=$(on node1 'journalctl -b -1 -o cat -u luks-agent-boot.service')
    contains "$closed" "close: 3 of 3 closed" "node1: journal of the shutdown"
    is_sealed "$store" "$ebs_1" "$ebs_2"
}

hot_plug() {
    ./volume.sh create "$later"
    is_blank "$later"
    ./volume.sh attach node1 "$later"
    wait_for node1 180 "$later at /mnt3" 'findmnt /mnt3'
    is_open node1 "$later" /mnt3
    write_files node1 /mnt3
    is_sealed "$later"

    say "detached without being closed, and attached again"
    ./volume.sh detach node1 "$later"
    wait_for node1 180 "nothing at /mnt3" '! findmnt /mnt3'
    equal "$(status_of node1 "$later" result)" missing "node1: status of the detached volume"
    ./volume.sh attach node1 "$later"
    wait_for node1 180 "$later at /mnt3 again" 'findmnt /mnt3'
    files_are_there node1 /mnt3
    is_sealed "$later"
}

disk_moved() {
    local before plan runs code=0
    on node1 "luks-agent close $ebs_2" >>"$work/vagrant.log" 2>&1
    ./volume.sh detach node1 "$ebs_2"
    wait_for node1 180 "the report of the missing volume" "luks-agent status | grep -q '$ebs_2 *missing'"
    before=$(sha256sum <"$(raw "$ebs_2")")

    # a node that has volumes passes over a stranger, and says nothing of it in the journal
    runs=$(on node2 "journalctl -b -o cat -u luks-agent-provision.service | grep -c '^provision: ' || true")
    ./volume.sh attach node2 "$ebs_2"
    wait_for node2 180 "the daemon's run" "[[ \$(journalctl -b -o cat -u luks-agent-provision.service | grep -c '^provision: ') -gt $runs ]]"
    wait_for node2 180 "the moved disk in status" "luks-agent status | grep -q '$ebs_2 *new'"
    plan=$(on node2 'luks-agent provision 2>&1') || code=$?
    equal "$code" 3 "node2: exit code of provision"
    contains "$plan" "which luks-agent made on $node1_id and this node's state file does not list; its key is wrapped by $key_arn" "node2: provision"
    contains "$plan" "takes it over, if KMS lets this node use its key" "node2: provision"
    equal "$(sha256sum <"$(raw "$ebs_2")")" "$before" "the moved disk, byte by byte"
    is_sealed "$ebs_2"

    say "adopted by node2"
    on node2 "luks-agent adopt --mount-point /moved $ebs_2" >>"$work/vagrant.log" 2>&1
    files_are_there node2 /moved
    is_sealed "$ebs_2"

    say "and back"
    on node2 "luks-agent close $ebs_2 && luks-agent forget --even-if-attached $ebs_2" >>"$work/vagrant.log" 2>&1
    ./volume.sh detach node2 "$ebs_2"
    ./volume.sh attach node1 "$ebs_2"
    wait_for node1 180 "$ebs_2 back at /mnt2" 'findmnt /mnt2'
    files_are_there node1 /mnt2
}

stop_and_start() {
    local old
    old=$(cryptsetup luksUUID "$(raw "$store")")
    lab_vagrant halt node1
    ./volume.sh reset node1
    is_blank "$store"
    lab_vagrant up node1 --no-provision
    ready node1
    is_open node1 "$store" /mnt
    files_are_there node1 /mnt1 /mnt2 /mnt3
    equal "$(on node1 'ls -A /mnt')" "" "node1: what is on the instance store after a stop"
    contains "$(on node1 'journalctl -b -o cat -t luks-agent')" "lost with the instance store" "node1: journal"
    [[ $(cryptsetup luksUUID "$(raw "$store")") != "$old" ]] || fail "the instance store still has its LUKS UUID"
    write_files node1 /mnt
    is_sealed "$store" "$ebs_1" "$ebs_2" "$later"
}

kms_down() {
    # the next scenarios need it, even if this one fails
    trap "on kms 'systemctl start localstack.service localstack-key.service'" EXIT
    on kms 'systemctl stop localstack.service'
    lab_vagrant reload node1
    # ssh works, the services that need the volumes wait, and nothing is written to the empty mount points
    wait_for node1 180 "the rest of the boot" 'systemctl is-active multi-user.target'
    equal "$(on node1 'systemctl is-active luks-agent-boot.service luks-agent.target || true')" $'activating\ninactive' "node1: boot without KMS"
    equal "$(on node1 'ls -A /mnt /mnt1 | grep -v ":$" || true')" "" "node1: files at the mount points of locked volumes"
    wait_for node1 180 "the reason in the journal" "journalctl -b -u luks-agent-boot.service | grep -q 'trying again'"
    on kms 'systemctl start localstack.service localstack-key.service'
    ready node1
    files_are_there node1 /mnt /mnt1 /mnt2 /mnt3
}

key_disabled() {
    trap 'aws kms enable-key --key-id "$key_arn"' EXIT
    aws kms disable-key --key-id "$key_arn"
    # the unit is expected to fail
    on node1 'systemctl start luks-agent-health.service 2>/dev/null || true'
    wait_for node1 180 "the warning" \
        "systemctl status luks-agent.service | grep -q 'Status:.*this node would not survive a reboot, because .* is disabled'"
    files_are_there node1 /mnt /mnt1 /mnt2 /mnt3

    lab_vagrant reload node1
    wait_for node1 180 "the boot service to give up" 'systemctl is-failed luks-agent-boot.service'
    equal "$(on node1 'systemctl show -P ExecMainStatus luks-agent-boot.service')" 4 "node1: exit code at boot"
    contains "$(on node1 'journalctl -b -o cat -u luks-agent-boot.service')" "is disabled" "node1: journal"
    for serial in "$store" "$ebs_1" "$ebs_2" "$later"; do
        equal "$(status_of node1 "$serial" result)" locked "node1: status of $serial"
    done
    aws kms enable-key --key-id "$key_arn"
    # the daemon retries about every minute
    ready node1
    files_are_there node1 /mnt /mnt1 /mnt2 /mnt3
}

# One node is as it should be; on the other, somebody stopped the agent and formatted a disk by hand.
fleet() {
    local code=0 agent=$work/deb/usr/sbin/luks-agent
    ./volume.sh create "$unencrypted"
    on node2 'systemctl stop luks-agent.service'
    ./volume.sh attach node2 "$unencrypted"
    on node2 "disk=/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_$unencrypted
        mkfs.ext4 -q \$disk; mkdir -p /data; mount \$disk /data; systemctl start luks-agent.service"
    write_files node2 /data
    grep -qaF "$marker" "$(raw "$unencrypted")" || fail "the marker is not found on a disk in clear"

    on node1 'luks-agent audit --json' >"$work/node1.json"
    on node2 'luks-agent audit --json' >"$work/node2.json" || code=$?
    equal "$code" 1 "node2: exit code of audit"
    dpkg-deb -x "$LUKS_AGENT_DEB" "$work/deb"
    code=0
    "$agent" audit fleet "$work/node1.json" "$work/node2.json" --html "$work/fleet.html" --json "$work/fleet.json" || code=$?
    equal "$code" 1 "exit code of audit fleet"
    equal "$(member "$(<"$work/fleet.json")" verdict)" not-encrypted "the fleet"
    grep -q "node2.*not a volume of luks-agent on this node: it is mounted at /data" "$work/fleet.html" || fail "the page does not say what is wrong on node2"

    on node2 "umount /data; rmdir /data"
    ./volume.sh detach node2 "$unencrypted"
    on node2 'luks-agent audit --json' >"$work/node2.json"
    "$agent" audit fleet "$work/node1.json" "$work/node2.json" --json "$work/fleet.json"
}

uninstall() {
    on node2 'DEBIAN_FRONTEND=noninteractive apt-get -qq -y remove luks-agent' >>"$work/vagrant.log" 2>&1
    files_are_there node2 /mnt /mnt1
    on node2 'test -s /etc/luks-agent/state/state.json; test ! -e /usr/sbin/luks-agent'
    equal "$(on node2 'systemctl is-active luks-agent.service || true')" inactive "node2: the daemon of the removed package"
    # a purge keeps the state file too, because it has the wrapped key of the volumes
    on node2 'DEBIAN_FRONTEND=noninteractive apt-get -qq -y purge luks-agent' >>"$work/vagrant.log" 2>&1
    on node2 'test -s /etc/luks-agent/state/state.json'

    lab_vagrant reload node2
    equal "$(on node2 'systemctl is-system-running --wait || true; systemctl list-units --failed --plain --no-legend')" running "node2: boot without luks-agent"
    equal "$(on node2 'dmsetup ls --target crypt; ls -A /mnt /mnt1 | grep -v ":$" || true')" "No devices found" "node2: open volumes"
    on node2 'test -s /etc/luks-agent/state/state.json'
    # no data is lost: the passphrase from KMS still opens the disks
    is_sealed "$other_store" "$other_ebs"
}

# play LOG: runs the example play of packaging/ansible unchanged, with the lab's values.
play() {
    # These ssh arguments replace Ansible's, so that it shares the connection of `on`. Pipelining saves commands on the node, each of which
    # takes a second or more under software emulation.
    ANSIBLE_HOME=$work/ansible ANSIBLE_NOCOLOR=1 ANSIBLE_PIPELINING=1 ANSIBLE_SSH_ARGS="-F $work/ssh_config" \
        "$ansible/bin/ansible-playbook" -i "$work/inventory.ini" -e "@$work/variables.json" ../packaging/ansible/site.yml \
        >"$1" 2>&1 || { tail -n 40 "$1" >&2; fail "ansible-playbook"; }
}

# Starts from what `uninstall` left: a node without luks-agent, but with its volumes and state file.
ansible() {
    local before after keys
    # removes the configuration from node.sh; the role writes it now
    on node2 'rm /etc/luks-agent/config.d/lab.toml; test ! -e /usr/sbin/luks-agent'
    keys=$(asked GenerateDataKey)
    before=$(on node2 'sha256sum </etc/luks-agent/state/state.json'; luks_uuids "$other_store" "$other_ebs")
    printf '%s\n' '[nodes]' node2 >"$work/inventory.ini"
    cat >"$work/variables.json" <<END
{
    "luks_agent_kms_key_id": "$key_arn",
    "luks_agent_package": "$LUKS_AGENT_DEB",
    "luks_agent_config": {"kms": {"endpoint_url": "$kms", "allow_http": true}},
    "luks_agent_match": [{"serial": "behind-*", "role": "ignore"}]
}
END
    play "$work/play-1.log"
    equal "$(on node2 'dpkg-query -W -f "\${db:Status-Status}" luks-agent')" installed "node2: the package"
    equal "$(on node2 'systemctl is-enabled luks-agent.target luks-agent.service')" $'enabled\nenabled' "node2: the units"
    equal "$(on node2 'systemctl is-active luks-agent.target luks-agent.service')" $'active\nactive' "node2: the units"
    is_open node2 "$other_store" /mnt
    is_open node2 "$other_ebs" /mnt1
    files_are_there node2 /mnt /mnt1
    # the volumes were opened, not formatted again
    after=$(on node2 'sha256sum </etc/luks-agent/state/state.json'; luks_uuids "$other_store" "$other_ebs")
    equal "$after" "$before" "node2: state file and volumes"
    equal "$(asked GenerateDataKey)" "$keys" "data keys requested until after the play"
    is_sealed "$other_store" "$other_ebs"

    say "the same play again"
    play "$work/play-2.log"
    contains "$(tail -n 3 "$work/play-2.log")" " changed=0 " "the second run of the play"
    files_are_there node2 /mnt /mnt1
}

luks_uuids() {
    local serial
    for serial in "$@"; do
        cryptsetup luksUUID "$(raw "$serial")"
    done
}

# ---- all of it

ended() {
    local seconds=$((SECONDS - began))
    table+=("$(printf '%-16s %-7s %3d:%02d' "$1" "$2" "$((seconds / 60))" "$((seconds % 60))")")
}

run() {
    local name=$1 word=passed code node
    began=$SECONDS
    printf '\n== %s\n' "$name"
    # a subshell, because `set -e` has no effect in commands that `if` and `||` test
    set +e
    (set -e; "$name")
    code=$?
    set -e
    ((code == 0)) || word=FAILED
    if [[ $word == FAILED ]]; then
        failed=1
        for node in node1 node2; do
            printf -- '-- %s\n' "$node" >&2
            on "$node" "luks-agent status; journalctl -b --no-pager -n 40 -t luks-agent -t systemd" >&2 || true
        done
    fi
    ended "$name" "$word"
}

up() {
    vagrant up --provider libvirt kms node1 node2 >>"$work/vagrant.log" 2>&1 || { tail -n 60 "$work/vagrant.log" >&2; fail "vagrant up"; }
    vagrant ssh-config >"$work/ssh_config"
    printf '%s\n' 'Host *' '  ControlMaster auto' '  ControlPath /run/libvirt/ssh-%n' '  ControlPersist yes' '  ConnectTimeout 20' \
        '  ServerAliveInterval 15' '  ServerAliveCountMax 4' >>"$work/ssh_config"
    contains "$(on kms 'aws kms describe-key --key-id alias/luks-agent')" '"Enabled": true' "kms: the key"
}

table=()
failed=0
say "with the libvirt driver $LUKS_AGENT_DRIVER"
run up
if ((!failed)); then
    for scenario in "${scenarios[@]}"; do
        run "$scenario"
    done
fi
printf '\n%-16s %-7s %6s\n' scenario result min:s
printf '%s\n' "${table[@]}"
exit "$failed"
