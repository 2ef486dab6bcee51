# Helpers for the scenarios of the kernel tier. Each scenario sources it inside the node.
# shellcheck shell=bash
set -euo pipefail

say() { printf '%s\n' "-- $*"; }

fail() {
    printf '%s\n' "FAILED: $*" >&2
    exit 1
}

# Without this trap, nothing would say which line of a scenario failed under `set -e`.
trap 'printf "FAILED: %s:%s: status %s of: %s\n" "${BASH_SOURCE[0]##*/}" "$LINENO" "$?" "$BASH_COMMAND" >&2' ERR
set -o errtrace

# assert_eq ACTUAL EXPECTED WHAT: fails, and names WHAT, unless the values are equal.
assert_eq() {
    [[ $1 == "$2" ]] || fail "$3: expected '$2', got '$1'"
}

# assert_contains TEXT PART WHAT: fails, and names WHAT, unless TEXT contains PART.
assert_contains() {
    [[ $1 == *"$2"* ]] || fail "$3: expected '$2' in: $1"
}

# run_expect STATUS COMMAND...: runs the command and fails unless it exits with STATUS.
run_expect() {
    local want=$1 got=0
    shift
    "$@" || got=$?
    [[ $got == "$want" ]] || fail "expected exit status $want, got $got: $*"
}

# wait_for SECONDS COMMAND...: repeats the command until it succeeds.
wait_for() {
    local seconds=$1 end
    shift
    end=$((SECONDS + seconds))
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < end)) || fail "not within $seconds s: $*"
        sleep 0.1
    done
}

# Prints text that only the plaintext of a volume may contain, so that a test can search the raw disk for it.
# It is assembled here, so that no script on the node's disks contains it in one piece.
marker_text() { printf 'plain%s-%s' text-marker "$1"; }

# start_fake_aws ARGS...: starts the fake endpoint ($FAKE_AWS) on a free port, and points the agent and the AWS CLI to it, IMDS included.
# Sets FAKE_AWS_PID.
start_fake_aws() {
    local port_file=/run/fake-aws.port port
    rm -f "$port_file"
    "${FAKE_AWS:?}" --listen 127.0.0.1:0 --port-file "$port_file" "$@" >/run/fake-aws.out 2>&1 &
    FAKE_AWS_PID=$!
    wait_for 30 test -s "$port_file" -o ! -e "/proc/$FAKE_AWS_PID"
    [[ -s $port_file ]] || fail "fake-aws did not start: $(</run/fake-aws.out)"
    read -r port <"$port_file"
    export AWS_ENDPOINT_URL=http://127.0.0.1:$port
    export AWS_EC2_METADATA_SERVICE_ENDPOINT=$AWS_ENDPOINT_URL
    say "fake-aws at $AWS_ENDPOINT_URL"
}

LOCALSTACK_KEY_ID=11111111-2222-4333-8444-555555555555

# start_localstack: starts LocalStack's KMS and S3 from the virtual environment $LOCALSTACK_VENV and creates a key there. Its id and key material
# are always the same, so that a key that was wrapped before a reboot can be unwrapped after it. Sets LOCALSTACK_KEY_ARN.
start_localstack() {
    local began=$SECONDS log=/run/localstack.log key_material
    export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_DEFAULT_REGION=us-east-1 AWS_REGION=us-east-1
    SERVICES=kms,s3,sts DISABLE_EVENTS=1 SKIP_SSL_CERT_DOWNLOAD=1 \
        DNS_ADDRESS=0 GATEWAY_LISTEN=127.0.0.1:4566 TMPDIR=/run \
        "${LOCALSTACK_VENV:?}/bin/python" -m localstack.runtime.main >"$log" 2>&1 &
    LOCALSTACK_PID=$!
    wait_for_localstack "$log"
    say "LocalStack answers after $((SECONDS - began)) s"
    export AWS_ENDPOINT_URL=http://127.0.0.1:4566
    key_material=$(printf 'kernel-tier-key-material-32bytes' | base64 -w0)
    LOCALSTACK_KEY_ARN=$(aws kms create-key --query KeyMetadata.Arn --output text --tags \
        "TagKey=_custom_id_,TagValue=$LOCALSTACK_KEY_ID" "TagKey=_custom_key_material_,TagValue=$key_material")
    assert_contains "$LOCALSTACK_KEY_ARN" "$LOCALSTACK_KEY_ID" "the ARN of the LocalStack key"
    say "LocalStack key $LOCALSTACK_KEY_ARN after $((SECONDS - began)) s"
}

wait_for_localstack() {
    local log=$1 end=$((SECONDS + 180))
    until (exec 3<>/dev/tcp/127.0.0.1/4566) 2>/dev/null; do
        kill -0 "$LOCALSTACK_PID" 2>/dev/null || { cat "$log" >&2; fail "LocalStack ended early"; }
        ((SECONDS < end)) || { cat "$log" >&2; fail "LocalStack did not come up"; }
        sleep 0.2
    done
}

# Runs the AWS CLI of the same virtual environment.
aws() { "${AWS_CLI:?}" "$@"; }

# replay_log LOG TARGET SCRATCH COMMAND...: replays the writes that dm-log-writes logged on LOG to TARGET, one at a time. After each write
# it runs COMMAND with three more arguments: a device with the contents that a power cut at this moment would have left, and the first
# sector and the number of sectors of the write. The command may write to that device: it is a snapshot whose changes go to SCRATCH and are
# discarded. (Even `cryptsetup open --test-passphrase` repairs a half-written header.) Sets REPLAYED to the number of writes.
#
# The log: a superblock (magic, version, number of entries, 64 bits each; sector size, 32 bits), then for each write a
# header (sector, number of sectors, flags, length of data; 64 bits each) and its data, each in whole sectors.
replay_log() {
    local log=$1 target=$2 scratch=$3 magic version entries size at=1 entry sector count flags length
    shift 3
    modprobe dm-snapshot
    read -r magic version entries < <(od -An -t u8 -N 24 "$log" | xargs)
    [[ $magic == 29963231459240050 && $version == 1 ]] || fail "$log holds no log of dm-log-writes: $magic, $version"
    size=$(od -An -t u4 -j 24 -N 4 "$log")
    REPLAYED=0
    for ((entry = 0; entry < entries; entry++)); do
        # shellcheck disable=SC2034
        read -r sector count flags length < <(od -An -t u8 -j $((at * size)) -N 32 "$log" | xargs)
        at=$((at + 1))
        ((flags & 4)) && fail "the log holds a discard, which is not replayed"
        ((count)) || continue
        dd if="$log" of="$target" bs=1M skip=$((at * size))B seek=$((sector * size))B count=$((count * size))B \
            conv=notrunc,fsync status=none
        at=$((at + count))
        REPLAYED=$((REPLAYED + 1))
        dmsetup create replayed --table "0 $(blockdev --getsz "$target") snapshot $target $scratch N 8"
        "$@" /dev/mapper/replayed "$sector" "$count"
        dmsetup remove --retry replayed
    done
}
