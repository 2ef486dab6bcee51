# One of four devices hangs: before provision, before unlock, and in the middle of a format. The agent finishes the others, reports the hung
# one after its deadline, and exits although the worker cannot.
#
#   hung.sh before|midway
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/agent.sh"

# longer than the other disks need on a slow machine
deadline=20

configure_deadline() {
    config "$KEY_ARN" <<TOML
[volumes]
deadline = "${deadline}s"
[filesystem]
type = "ext4"
mount_base = "/data"
[[volumes.match]]
path = "/dev/ubd[bcd]"
role = "instance-store"
[[volumes.match]]
path = "/dev/mapper/last"
role = "ebs"
TOML
}

# hangs COMMAND MOUNT...: the command reports the last disk as hung, mounts the others, and exits in time. Its output goes through a pipe,
# as under systemd: a worker that is left behind must not keep the pipe open.
hangs() {
    local began=$SECONDS status=0 said took
    said=$(agent "$1" 2>&1) || status=$?
    took=$((SECONDS - began))
    printf '%s\n' "$said"
    assert_eq "$status" 1 "the exit status with a hung disk"
    assert_contains "$said" "no progress for $deadline s" "the report of the hung disk"
    ((took >= deadline && took < 3 * deadline)) || fail "$1 took $took s with a deadline of $deadline s"
    for at in "${@:2}"; do findmnt -n "$at"; done
    [[ $said =~ its\ worker\ process\ ([0-9]+)\ (could\ not\ be\ killed|was\ killed) ]] || fail "no word of the worker"
    worker=${BASH_REMATCH[1]}
    case ${BASH_REMATCH[2]} in
    'could not be killed') grep '^State:' "/proc/$worker/status" ;;
    'was killed') gone "$worker" || fail "worker $worker lives" ;;
    esac
    say "$1 ended after $took s"
}

# let_go DEVICE: resumes the device; the worker, which was already killed, must then exit.
let_go() {
    dmsetup resume "$1"
    wait_for 10 gone "$worker"
}
gone() { [[ ! -e /proc/$1 ]]; }

start_fake --log /run/requests
configure_deadline
sectors=$(blockdev --getsz /dev/ubde)

case $1 in
before)
    dmsetup create last --table "0 $sectors linear /dev/ubde 0"

    say "before provision"
    dmsetup suspend last
    hangs provision /data /data1 /data2
    assert_blank ubde
    let_go last
    expect_agent 0 provision
    assert_said "1 formatted, 3 unchanged"
    last_at=$(findmnt -rno TARGET,SOURCE | awk '$1 == "/data3" { print $1 }')
    assert_eq "$last_at" /data3 "the mount point of the last disk"

    say "before unlock"
    expect_agent 0 close
    dmsetup suspend last
    hangs unlock /data /data1 /data2
    let_go last
    expect_agent 0 unlock
    assert_said "1 unlocked, 3 unchanged"
    ;;
midway)
    modprobe dm-delay
    # 300 ms for each write, so that the test can suspend the device in time
    dmsetup create last --table "0 $sectors delay /dev/ubde 0 0 /dev/ubde 0 300"
    (
        wait_for 60 grep -q 'device="dm-[0-9]*".*formatting\|formatting.*device="dm-[0-9]*"' /run/progress
        dmsetup suspend last
    ) &
    suspender=$!
    agent() { "$LUKS_AGENT" "$@" 2>&1 | tee /run/progress; }
    : >/run/progress
    # mount points are assigned in the order of names, and dm-0 comes before ubdb
    hangs provision /data1 /data2 /data3
    wait "$suspender"
    dmsetup load last --table "0 $sectors linear /dev/ubde 0"
    let_go last
    assert_eq "$(grep -c '"phase": "intent"' "$STATE")" 1 "volumes with an intent"
    expect_agent 0 provision
    assert_said "1 formatted, 3 unchanged"
    findmnt -n /data
    assert_eq "$(pgrep -cf 'exe worker$' || true)" 0 "workers left at the end"
    ;;
esac
