# Helpers for the scenarios that run the agent. Sourced after lib.sh.
# shellcheck shell=bash

CONFIG=/etc/luks-agent/config.toml
STATE=/etc/luks-agent/state/state.json

# agent ARGS...: runs the agent under test.
agent() { "${LUKS_AGENT:?}" "$@"; }

# as_unit UNIT [KEY [STATUS]]: runs the commands of KEY (default ExecStart) of a unit in systemd/ as the unit would: only with the
# capabilities that it declares, and with no way to gain more. CAP_MKNOD is added, because there is no udev here to make device nodes. Fails
# unless they exit with STATUS (default 0). Leaves the output in the same files as expect_agent.
as_unit() {
    local file key=${2:-ExecStart} want=${3:-0} set capability command ran= got=0
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
        ran=yes
        # shellcheck disable=SC2086
        setpriv --bounding-set "$set" --inh-caps -all --no-new-privs "${LUKS_AGENT:?}" $command >>/run/report 2>>/run/stderr || got=$?
    done < <(sed -n "s,^$key=/usr/sbin/luks-agent ,,p" "$file")
    cat /run/stderr /run/report
    [[ $ran ]] || fail "$1 has no $key"
    [[ $got == "$want" ]] || fail "expected exit status $want, got $got: $1"
}

# provision_until_decrypt: starts provision, which has looked at the disks and made its plan when this returns: KMS denies it Decrypt, and it
# tries again. The fake endpoint logs to /run/requests. expect_rest_of_provision lets it go on.
provision_until_decrypt() {
    fake allow '["DescribeKey", "GenerateDataKey"]'
    agent provision --json >/run/report 2>/run/stderr &
    provision=$!
    decrypt_denied() { (($(requests /run/requests 'r["operation"] == "Decrypt"') > 0)) || [[ ! -e /proc/$provision ]]; }
    wait_for 120 decrypt_denied
    [[ -e /proc/$provision ]] || { cat /run/stderr; fail "provision ended early"; }
}

# expect_rest_of_provision STATUS: fails unless it ends with that. Leaves its report in /run/report.
expect_rest_of_provision() {
    local status=0
    fake allow null
    wait "$provision" || status=$?
    cat /run/stderr
    assert_eq "$status" "$1" "the exit status"
}

# configure KEY_ARN: writes a configuration with two volumes of each role on the four data disks, which no EC2 rule recognises.
configure() {
    mkdir -p "${CONFIG%/*}"
    cat >"$CONFIG" <<END
[kms]
key_id = "$1"
deadline = "${KMS_DEADLINE:-30s}"

[volumes]
deadline = "${VOLUME_DEADLINE:-2m}"

# not /mnt, which is the build machine's directory here and may not be empty
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

# credentials: sets credentials; the fake endpoint and LocalStack accept any.
credentials() {
    export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_REGION=us-east-1
}

# report EXPRESSION: prints the value of a Python expression on `report`, the JSON report in /run/report, and on `rows`, its rows by device.
report() {
    python3 -c 'import json, sys
report = json.load(open("/run/report"))
rows = {row["device"]: row for row in report.get("rows", [])}
print(eval(sys.argv[1]))' "$1"
}

# state EXPRESSION: prints the value of a Python expression on `state`, the content of the state file.
state() { python3 -c 'import json, sys; state = json.load(open(sys.argv[1])); print(eval(sys.argv[2]))' "$STATE" "$1"; }

# shape DISK...: prints the keys, what is left to do for each volume, and keyslots and tokens of the header on each disk.
shape() {
    python3 - "$STATE" "$@" <<'PYTHON'
import json, sys
state = json.load(open(sys.argv[1]))
print(len(state["keys"]), [v.get("key_change") for v in state["volumes"]], end="")
for disk in sys.argv[2:]:
    with open(disk, "rb") as header:
        header.seek(4096)
        metadata = json.loads(header.read(12288).split(b"\0")[0])
    print("", len(metadata["keyslots"]), len(metadata["tokens"]), end="")
print()
PYTHON
}

# requests LOG EXPRESSION: prints how many requests `r` in the log of the fake endpoint satisfy a Python expression.
requests() {
    python3 -c 'import json, sys
print(sum(1 for r in map(json.loads, open(sys.argv[1])) if eval(sys.argv[2])))' "$1" "$2"
}

# config KEY_ARN: writes a configuration file with a [kms] section, followed by standard input. A data disk has a role only if a rule in it
# says so.
config() {
    mkdir -p "${CONFIG%/*}"
    {
        printf '[kms]\nkey_id = "%s"\ndeadline = "%s"\n' "$1" "${KMS_DEADLINE:-30s}"
        cat
    } >"$CONFIG"
}

# ext4_volumes PATTERN ROLE [PATTERN ROLE]...: writes a configuration file that gives disks these roles. File systems are mounted at /data
# and are ext4, because mkfs.ext4 is faster than mkfs.xfs and works on smaller disks.
ext4_volumes() {
    {
        printf '[filesystem]\ntype = "ext4"\nmount_base = "/data"\n'
        printf '[[volumes.match]]\npath = "%s"\nrole = "%s"\n' "$@"
    } | config "$KEY_ARN"
}

# expect_agent STATUS ARGS...: runs the agent, shows its output, and fails unless it exits with STATUS. Leaves the standard output, which is
# the report, in /run/report, and the standard error in /run/stderr.
expect_agent() {
    local want=$1 got=0
    shift
    say "luks-agent $*"
    agent "$@" >/run/report 2>/run/stderr || got=$?
    cat /run/stderr /run/report
    [[ $got == "$want" ]] || fail "expected exit status $want, got $got: luks-agent $*"
}

# assert_said TEXT...: the output of the last expect_agent contains every TEXT.
assert_said() {
    local text said
    said=$(cat /run/stderr /run/report)
    for text in "$@"; do assert_contains "$said" "$text" "the output of the agent"; done
}

# assert_blank DISK...: every byte of the disks is zero.
assert_blank() {
    local disk
    for disk in "$@"; do
        cmp -s -n "$(blockdev --getsize64 "/dev/$disk")" "/dev/$disk" /dev/zero || fail "$disk was written to"
    done
}

# blank DISK...: overwrites the disks with zeros.
blank() {
    local disk
    for disk in "$@"; do
        dd if=/dev/zero of="/dev/$disk" bs=1M count="$(blockdev --getsize64 "/dev/$disk")"B iflag=count_bytes oflag=direct status=none
    done
}

# start_fake ARGS...: starts the fake endpoint and sets credentials for it. Sets KEY_ARN.
start_fake() {
    credentials
    start_fake_aws --seed failures "$@"
    KEY_ARN=$(sed -n 's/.*KMS key \(arn:[^ ,]*\).*/\1/p' /run/fake-aws.out | head -n 1)
}

# fake PATH JSON: controls the fake endpoint; fake-aws/src/control.rs lists the paths.
fake() {
    python3 -c 'import sys, urllib.request as u
u.urlopen(u.Request(sys.argv[1], sys.argv[2].encode(), method="POST"))' "$AWS_ENDPOINT_URL/_fake/$1" "$2"
}

# disk NAME UBD MIB: creates /dev/mapper/disk-NAME on UBD, a disk that can grow.
disk() { dmsetup create "disk-$1" --table "0 $(($3 * 2048)) linear /dev/$2 0"; }

# resize NAME UBD MIB: changes the size of such a disk while it is in use.
resize() {
    dmsetup reload "disk-$1" --table "0 $(($3 * 2048)) linear /dev/$2 0"
    dmsetup resume "disk-$1"
    assert_eq "$(blockdev --getsize64 "/dev/mapper/disk-$1")" $(($3 << 20)) "the size of disk-$1"
}

# data_key [INDEX [STATE]]: prints the passphrase of a key in a state file, by default the first, which the fake endpoint unwraps.
data_key() {
    python3 -c 'import json, os, sys, urllib.request
blob = json.load(open(sys.argv[2]))["keys"][int(sys.argv[1])]["wrapped_key"]
headers = {"X-Amz-Target": "TrentService.Decrypt", "Content-Type": "application/x-amz-json-1.1", "Authorization": "none"}
request = urllib.request.Request(os.environ["AWS_ENDPOINT_URL"], json.dumps({"CiphertextBlob": blob}).encode(), headers)
print(end=json.load(urllib.request.urlopen(request))["Plaintext"])' "${1:-0}" "${2:-$STATE}"
}

# in_terminal COMMAND...: runs a command with a terminal of its own, whose output it prints.
in_terminal() {
    python3 -c 'import os, pty, sys
sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:], lambda fd: os.read(fd, 1000))))' "$@"
}

# on_terminal STATUS ANSWER ARGS...: runs the agent with a terminal of its own (STATUS: one or several exit statuses), and types ANSWER when
# it asks for the recovery key. Leaves what the terminal showed in /run/terminal, and the rest as expect_agent does.
on_terminal() {
    local want=$1 got=0
    say "luks-agent ${*:3} (on a terminal)"
    python3 - "${@:2}" <<'PY' || got=$?
import os, pty, subprocess, sys
answer, args = sys.argv[1], sys.argv[2:]
pid, terminal = pty.fork()
if pid == 0:
    # standard output and error elsewhere: a key may go to the terminal alone
    for number, path in ((1, "/run/report"), (2, "/run/stderr")):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.execv(os.environ["LUKS_AGENT"], ["luks-agent", *args])
shown = b""
asked = False
while True:
    try:
        data = os.read(terminal, 1000)
    except OSError:
        break
    if not data:
        break
    shown += data
    if not asked and b"Recovery key: " in shown:
        asked = True
        if answer == "HANG UP":
            os.close(terminal)
            break
        os.write(terminal, answer.encode() + b"\n")
open("/run/terminal", "wb").write(shown)
status = os.waitpid(pid, 0)[1]
sys.exit(os.waitstatus_to_exitcode(status) % 256)
PY
    cat /run/stderr /run/report
    [[ " $want " == *" $got "* ]] || fail "expected exit status $want, got $got: luks-agent ${*:3}"
}
# shown_key: the recovery key that the terminal showed.
shown_key() { grep -aoE '([cbdefghijklnrtuv]{8}-){7}[cbdefghijklnrtuv]{8}' /run/terminal; }
