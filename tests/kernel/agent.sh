# Helpers for the scenarios that run the agent. Sourced after lib.sh.
# shellcheck shell=bash

CONFIG=/etc/luks-agent/config.toml
STATE=/etc/luks-agent/state/state.json

# agent ARGS...: the agent under test.
agent() { "${LUKS_AGENT:?}" "$@"; }

# as_unit UNIT [KEY [STATUS]]: runs the commands of a unit in systemd/, by KEY (ExecStart unless told), as the unit would: with no
# capability but those that it declares, and no way to more. CAP_MKNOD is udev's, of which there is none here. Fails unless they end
# with STATUS, 0 unless told. Leaves what expect_agent does.
as_unit() {
    local file key=${2:-ExecStart} want=${3:-0} set capability command got=0
    file=$(dirname "${BASH_SOURCE[0]}")/../../systemd/$1
    set=-all,+mknod
    for capability in $(sed -n 's/^CapabilityBoundingSet=//p' "$file"); do
        capability=${capability#CAP_}
        set+=,+${capability,,}
    done
    : >/run/report
    : >/run/stderr
    while read -r command; do
        say "$1, $key: luks-agent $command"
        # shellcheck disable=SC2086
        setpriv --bounding-set "$set" --inh-caps -all --no-new-privs "${LUKS_AGENT:?}" $command >>/run/report 2>>/run/stderr || got=$?
    done < <(sed -n "s,^$key=/usr/sbin/luks-agent ,,p" "$file")
    cat /run/stderr /run/report
    [[ -s /run/report ]] || fail "$1 has no $key"
    [[ $got == "$want" ]] || fail "expected exit status $want, got $got: $1"
}

# configure KEY_ARN: the four data disks of the node, which no EC2 rule recognises, as two volumes of each role.
configure() {
    mkdir -p "${CONFIG%/*}"
    cat >"$CONFIG" <<END
[kms]
key_id = "$1"
deadline = "${KMS_DEADLINE:-30s}"

[volumes]
deadline = "${VOLUME_DEADLINE:-2m}"

# not /mnt, which is the build machine's here, and may not be empty there
[filesystem]
mount_base = "/data"

[[volumes.match]]
path = "/dev/ubd[bc]"
role = "instance-store"

[[volumes.match]]
path = "/dev/ubd[de]"
role = "ebs"
END
}

# credentials: what the fake endpoint and LocalStack take from anybody.
credentials() {
    export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_REGION=us-east-1
}

# report FILTER: a value of the JSON report in /run/report, by a Python expression on `report` and `rows`.
report() {
    python3 -c 'import json, sys
report = json.load(open("/run/report"))
rows = {row["device"]: row for row in report.get("rows", [])}
print(eval(sys.argv[1]))' "$1"
}

# requests LOG FILTER: how many requests in the log of the fake endpoint satisfy a Python expression on `r`.
requests() {
    python3 -c 'import json, sys
print(sum(1 for r in map(json.loads, open(sys.argv[1])) if eval(sys.argv[2])))' "$1" "$2"
}

# config KEY_ARN: a configuration file; what follows its [kms] section comes from standard input. No data disk has a role
# but by a rule in it.
config() {
    mkdir -p "${CONFIG%/*}"
    {
        printf '[kms]\nkey_id = "%s"\ndeadline = "%s"\n' "$1" "${KMS_DEADLINE:-30s}"
        cat
    } >"$CONFIG"
}

# ext4_volumes PATTERN ROLE [PATTERN ROLE]...: a configuration file in which disks have these roles. With ext4, which is made
# faster than xfs and on smaller disks, and at /data.
ext4_volumes() {
    {
        printf '[filesystem]\ntype = "ext4"\nmount_base = "/data"\n'
        printf '[[volumes.match]]\npath = "%s"\nrole = "%s"\n' "$@"
    } | config "$KEY_ARN"
}

# expect_agent STATUS ARGS...: runs the agent, shows what it said, and fails unless it exits with STATUS. Leaves the report in
# /run/report and the rest in /run/stderr.
expect_agent() {
    local want=$1 got=0
    shift
    say "luks-agent $*"
    agent "$@" >/run/report 2>/run/stderr || got=$?
    cat /run/stderr /run/report
    [[ $got == "$want" ]] || fail "expected exit status $want, got $got: luks-agent $*"
}

# assert_said TEXT...: all this was in what the last expect_agent showed.
assert_said() {
    local text said
    said=$(cat /run/stderr /run/report)
    for text in "$@"; do assert_contains "$said" "$text" "what the agent said"; done
}

# assert_blank DISK...: every byte of the disks is zero.
assert_blank() {
    local disk
    for disk in "$@"; do
        cmp -s -n "$(blockdev --getsize64 "/dev/$disk")" "/dev/$disk" /dev/zero || fail "$disk was written to"
    done
}

# blank DISK...: makes it so.
blank() {
    local disk
    for disk in "$@"; do
        dd if=/dev/zero of="/dev/$disk" bs=1M count="$(blockdev --getsize64 "/dev/$disk")"B iflag=count_bytes oflag=direct status=none
    done
}

# start_fake ARGS...: the fake endpoint and credentials for it. Sets KEY_ARN.
start_fake() {
    credentials
    start_fake_aws --seed failures "$@"
    KEY_ARN=$(sed -n 's/.*KMS key \(arn:[^ ,]*\).*/\1/p' /run/fake-aws.out | head -n 1)
}

# fake PATH JSON: tells the fake endpoint, see fake-aws/src/control.rs.
fake() {
    python3 -c 'import sys, urllib.request as u
u.urlopen(u.Request(sys.argv[1], sys.argv[2].encode(), method="POST"))' "$AWS_ENDPOINT_URL/_fake/$1" "$2"
}

# disk NAME UBD MIB: makes /dev/mapper/disk-NAME on UBD, a disk that can grow.
disk() { dmsetup create "disk-$1" --table "0 $(($3 * 2048)) linear /dev/$2 0"; }

# resize NAME UBD MIB: gives it another size while it is in use.
resize() {
    dmsetup reload "disk-$1" --table "0 $(($3 * 2048)) linear /dev/$2 0"
    dmsetup resume "disk-$1"
    assert_eq "$(blockdev --getsize64 "/dev/mapper/disk-$1")" $(($3 << 20)) "the size of disk-$1"
}
